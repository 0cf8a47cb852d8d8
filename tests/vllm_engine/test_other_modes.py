"""The real engine under settings of its own: a reasoning parser, priorities, what stops the start.

Each test starts an engine; `test_engine.py` has everything that shares one.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed; `make vllm-test` has an environment with it")

from vllm import SamplingParams
from vllm.reasoning import ReasoningParser, ReasoningParserManager
from vllm.sampling_params import StructuredOutputsParams

from vllm_engine.engine import MODEL, PAIRS, make_engine, reference

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

UNGUIDED: dict[str, Any] = {"scheduler_cls": None, "logits_processors": None}


@pytest.fixture(autouse=True)
def _needs_model():
    if not MODEL.is_dir():
        pytest.skip(f"no model in {MODEL}: run `make demo` once")


def core(llm: Any) -> Any:
    return llm.llm_engine.engine_core.engine_core


def test_a_grammar_begins_after_reasoning():
    """Free text until the first full stop, then the constraint: what a reasoning parser asks for."""

    class UntilFullStop(ReasoningParser):
        def is_reasoning_end(self, input_ids: Any) -> bool:
            return "." in self.model_tokenizer.decode(list(input_ids))

        def extract_content_ids(self, input_ids: list[int]) -> list[int]:
            return input_ids

    ReasoningParserManager.register_module("until_full_stop", module=UntilFullStop)
    llm = make_engine(
        **UNGUIDED, structured_outputs_config={"backend": "guiderail", "reasoning_parser": "until_full_stop"}
    )
    parameters = SamplingParams(
        temperature=0, max_tokens=60, structured_outputs=StructuredOutputsParams(regex=" ?#[0-9]{3}")
    )
    prompts = [prompt for prompt, _ in PAIRS[:6] if "." not in prompt]
    free = SamplingParams(temperature=0, max_tokens=60)
    for bound, unbound in zip(
        llm.generate(prompts, parameters, use_tqdm=False), llm.generate(prompts, free, use_tqdm=False), strict=True
    ):
        thought, stop, rest = bound.outputs[0].text.partition(".")
        assert unbound.outputs[0].text.startswith(thought)
        if stop:
            assert re.fullmatch(" ?#[0-9]{3}", rest)
            assert bound.outputs[0].finish_reason == "stop"
    assert any(re.search(r"\. ?#[0-9]{3}$", output.outputs[0].text) for output in llm.generate(prompts, parameters))


def test_priorities_while_the_cache_starves():
    """Guided requests of several priorities compete for a cache that holds few of them: all end, all are right."""
    llm = make_engine(scheduling_policy="priority", num_gpu_blocks_override=6, block_size=32)
    pairs = PAIRS[:6]
    parameters = [
        SamplingParams(temperature=0, max_tokens=24, extra_args={"guidance_scale": 1.5, "negative_prompt": negative})
        for _, negative in pairs
    ]
    priorities = [number % 3 for number in range(len(pairs))]
    outputs = llm.generate([prompt for prompt, _ in pairs], parameters, priority=priorities, use_tqdm=False)
    found = [list(output.outputs[0].token_ids) for output in outputs]
    assert found == [reference(prompt, negative, 1.5, 24) for prompt, negative in pairs]
    llm.generate(["x"], SamplingParams(max_tokens=2), use_tqdm=False)
    scheduler = core(llm).scheduler
    assert not scheduler.requests
    assert scheduler.kv_cache_manager.usage == 0


def test_asynchronous_scheduling_stops_the_start():
    """vLLM's CPU build turns it off by itself, so the scheduler is asked with the setting of a GPU."""
    llm = make_engine()
    config = llm.llm_engine.vllm_config
    config.scheduler_config.async_scheduling = True
    with pytest.raises(ValueError, match="--no-async-scheduling"):
        type(core(llm).scheduler)(config)
