"""Guidance says what, the grammar says how: extraction as JSON, valid at every scale.

The guided direction is the difference between the prompt with its text and the prompt without (context-aware decoding).
Filters look at legal tokens only, and where one token is legal no model is asked.

    python examples/guidance_with_grammar.py        # needs the packaged SmolLM2, see smollm2.py
"""

from __future__ import annotations

import json

import torch
from smollm2 import load

import guiderail as gr
from guiderail import guidance
from guiderail.integrations.generation import GuidedDecoder

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
TEXT = "Yesterday I met Maria, who had just turned 34, at the station."


def main() -> None:
    torch.set_num_threads(1)
    model, tokenizer = load()
    vocabulary = gr.Vocabulary.from_tokenizer(tokenizer)
    compiled = gr.compile(gr.Grammar.from_json_schema(SCHEMA, whitespace="compact"), vocabulary)

    def chat(text: str) -> list[int]:
        messages = [{"role": "user", "content": text}]
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return list(tokenizer(prompt, add_special_tokens=False)["input_ids"])

    question = "Give the person's name and age as a JSON object."
    for scale in (0.0, 1.0, 1.5, 3.0):
        term = guidance.ClassifierFree(scale, chat(question), plausibility=0.05)
        decoder = GuidedDecoder(model, term, compiled)
        (generation,) = decoder.decode([chat(f"{TEXT}\n{question}")], 48)
        text = vocabulary.decode(generation.token_ids).decode()
        counts = decoder.engine.runner().counts
        print(f"scale {scale}: {json.loads(text)}  {len(generation.token_ids)} tokens, {counts.passes} forward passes")


if __name__ == "__main__":
    main()
