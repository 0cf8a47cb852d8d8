"""Servers of several processes for one model, on the CPU: tensor-parallel ranks, data-parallel engines, no pipelines.

Greedy answers in float32 are those of one process. The model has random weights, two heads, and SmolLM2's tokenizer.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed; `make vllm-test` has an environment with it")

import jsonschema

from vllm_engine.engine import MODEL, PAIRS
from vllm_engine.server import Server, serving, small_model

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
LENGTH = ["--max-model-len", "256", "--max-num-seqs", "16"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    if not MODEL.is_dir():
        pytest.skip(f"no model in {MODEL}: run `make demo` once")
    return small_model(tmp_path_factory.mktemp("model"), heads=2)


def answers(server: Server) -> list[str]:
    """Free, guided, by schema, and guided by schema; all at once."""
    form = {"structured_outputs": {"json": SCHEMA}, "max_tokens": 40}
    bodies: list[dict[str, Any]] = []
    for prompt, negative in PAIRS[:6]:
        guided = {"vllm_xargs": {"guidance_scale": 2.0, "negative_prompt": negative}}
        plausible = {"vllm_xargs": {**guided["vllm_xargs"], "plausibility": 0.1}}
        bodies += [{"prompt": prompt, **fields} for fields in ({}, guided, plausible, form, {**form, **guided})]

    def ask(body: dict[str, Any]) -> str:
        status, answer = server.complete(**{"max_tokens": 12, "temperature": 0, **body})
        assert status == 200, answer
        return str(answer["choices"][0]["text"])

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(ask, bodies))
    for body, text in zip(bodies, found, strict=True):
        if "structured_outputs" in body:
            jsonschema.validate(json.loads(text), SCHEMA)
    return found


@pytest.fixture(scope="module")
def expected(model, tmp_path_factory):
    with serving(model, tmp_path_factory.mktemp("alone") / "log", LENGTH) as server:
        found = answers(server)
    assert found[0] != found[1]  # guidance changes something
    return found


@pytest.mark.parametrize("option", ["--tensor-parallel-size", "--data-parallel-size"])
def test_two_of_them_answer_as_one(model, expected, tmp_path, option):
    with serving(model, tmp_path / "log", [*LENGTH, option, "2"]) as server:
        assert answers(server) == expected
        assert server.gauge("guiderail:guided_requests_total") == 18


def test_pipelines_are_refused_at_the_start(model, tmp_path: Path):
    with (
        pytest.raises(RuntimeError, match="guidance needs --pipeline-parallel-size 1"),
        serving(model, tmp_path / "log", [*LENGTH, "--pipeline-parallel-size", "2"]),
    ):
        pass
