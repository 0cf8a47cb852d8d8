"""Grammars under speculative decoding in the real engine.

A file of its own, the last: with n-gram drafts vLLM loads numba, after which vLLM 0.32 fails to start another engine in
the same process.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed; `make vllm-test` has an environment with it")

import jsonschema
from vllm import SamplingParams
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import StructuredOutputsParams

import guiderail as gr
from vllm_engine.engine import MODEL, make_engine, reference

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

SCHEMA = {
    "type": "object",
    "properties": {
        "first_name": {"type": "string", "maxLength": 8},
        "last_name": {"type": "string", "maxLength": 8},
        "tags": {"type": "array", "items": {"enum": ["alpha", "beta"]}, "minItems": 3, "maxItems": 6},
    },
    "required": ["first_name", "last_name", "tags"],
    "additionalProperties": False,
}
PATTERN = "(ab ){3,9}(alpha, ){2,6}!"
TOKENS = 36
DRAFTS = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 4, "prompt_lookup_min": 1}


def test_drafts_under_a_grammar_change_nothing():
    """Greedy answers are those of transformers without drafts, every answer fits, and drafts have been accepted."""
    if not MODEL.is_dir():
        pytest.skip(f"no model in {MODEL}: run `make demo` once")
    llm = make_engine(
        scheduler_cls=None,
        logits_processors=None,
        max_model_len=256,
        speculative_config=DRAFTS,
        disable_log_stats=False,
    )
    draft = '{"first_name": "Ann", "last_name": "Lee", "tags": ["alpha", "beta", "alpha"]}'
    prompts = [f"{draft}\n{draft}\nThe same for {name}: " for name in ("Bob", "Cleo", "Dan")]
    constraints: list[dict[str, Any]] = [{"json": SCHEMA}, {"json": SCHEMA}, {"regex": PATTERN}]
    accepted = count_accepted_drafts(llm)

    def answers(temperature: float) -> list[Any]:
        parameters = [
            SamplingParams(
                temperature=temperature, max_tokens=TOKENS, structured_outputs=StructuredOutputsParams(**constraint)
            )
            for constraint in constraints
        ]
        return [output.outputs[0] for output in llm.generate(prompts, parameters, use_tqdm=False)]

    greedy, sampled = answers(0.0), answers(0.9)
    assert sum(accepted) > 0
    vocabulary = gr.Vocabulary.from_tokenizer(llm.get_tokenizer(), vocab_size=49152)
    grammars = [gr.Grammar.from_json_schema(SCHEMA)] * 2 + [gr.Grammar.from_regex(PATTERN)]
    compiled = [gr.compile(grammar, vocabulary) for grammar in grammars]
    expected = [reference(prompt, "", 1.0, TOKENS, c) for prompt, c in zip(prompts, compiled, strict=True)]
    assert [list(answer.token_ids) for answer in greedy] == expected
    for answer in (greedy, sampled):
        for schema_answer in answer[:2]:
            jsonschema.validate(json.loads(schema_answer.text), SCHEMA)
        assert re.fullmatch(PATTERN, answer[2].text)
    with pytest.raises(VLLMValidationError, match="without guidance"):
        llm.generate(["x"], SamplingParams(extra_args={"guidance_scale": 2.0}), use_tqdm=False)


def count_accepted_drafts(llm: Any) -> list[int]:
    """A list to which the engine adds how many drafts each request accepted in each step from now on."""
    scheduler = llm.llm_engine.engine_core.engine_core.scheduler
    original, accepted = scheduler.make_spec_decoding_stats, []

    def record(*args: Any, **options: Any) -> Any:
        accepted.append(int(options["num_accepted_tokens"]))
        return original(*args, **options)

    scheduler.make_spec_decoding_stats = record
    return accepted
