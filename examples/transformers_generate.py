"""`model.generate` in every way that usually breaks constraints: batch, beams, several samples, drafts, one processor.

Each output is checked by `json.loads` and a JSON Schema validator. The model is SmolLM2-135M-Instruct (see smollm2.py);
the assistant that drafts for it is the same model cut off after six of its thirty layers.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import torch
from smollm2 import load
from transformers import LlamaForCausalLM

import guiderail as gr
from guiderail.integrations.transformers import GrammarLogitsProcessor

PERSON = json.loads((Path(__file__).parent / "grammars" / "person.schema.json").read_text(encoding="utf-8"))
MOOD = {
    "type": "object",
    "properties": {"mood": {"enum": ["happy", "angry", "neutral"]}, "sure": {"type": "boolean"}},
    "required": ["mood", "sure"],
    "additionalProperties": False,
}

# (way of decoding, options of generate, uses the assistant)
WAYS: list[tuple[str, dict[str, Any], bool]] = [
    ("greedy, a batch of three with left padding", {}, False),
    ("beam search, 3 beams, all returned", {"num_beams": 3, "num_return_sequences": 3}, False),
    ("sampling, 2 sequences each", {"do_sample": True, "temperature": 0.9, "num_return_sequences": 2}, False),
    ("assisted decoding", {}, True),
    ("prompt lookup decoding", {"prompt_lookup_num_tokens": 4}, False),
]
TEXTS = ["Alice is 31.", "Bob Stone turned 90 in May, you can write to bob@home.org", "They lost my parcel again!!"]


def main() -> int:
    torch.manual_seed(0)
    model, tokenizer = load()
    vocabulary = gr.Vocabulary.from_tokenizer(tokenizer, vocab_size=model.config.vocab_size)
    schemas = [PERSON, PERSON, MOOD]
    compiled = [gr.compile(gr.Grammar.from_json_schema(schema), vocabulary) for schema in schemas]
    batch_processor = GrammarLogitsProcessor(compiled)  # one grammar per prompt
    single_processor = GrammarLogitsProcessor(compiled[0])
    assistant = first_layers(model, 6)
    wrong = 0
    for name, options, assisted in WAYS:
        alone = assisted or "prompt_lookup_num_tokens" in options  # transformers drafts for one row at a time
        prompts = TEXTS[:1] if alone else TEXTS
        inputs = encode(tokenizer, prompts)
        output = model.generate(
            **inputs,
            **{"do_sample": False, "max_new_tokens": 80, **options},
            **({"assistant_model": assistant} if assisted else {}),
            logits_processor=[single_processor if alone else batch_processor],
        )
        print(f"── {name}")
        copies = len(output) // len(prompts)
        for row, token_ids in enumerate(output[:, inputs["input_ids"].shape[1] :]):
            wrong += not show(tokenizer.decode(token_ids, skip_special_tokens=True), schemas[row // copies])
    print(f"{wrong} outputs are wrong")
    return 1 if wrong else 0


def encode(tokenizer: Any, texts: list[str]) -> Any:
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": f"Extract a JSON object from this text: {text}"}],
            tokenize=False,
            add_generation_prompt=True,
        )
        for text in texts
    ]
    return tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False)


def show(text: str, schema: dict[str, Any]) -> bool:
    try:
        jsonschema.validate(json.loads(text), schema)
    except (ValueError, jsonschema.ValidationError) as error:
        print(f"   WRONG: {text!r}: {error}")
        return False
    print(f"   valid: {' '.join(text.split())}")
    return True


def first_layers(model: Any, count: int) -> Any:
    """A smaller model with the same vocabulary: the first `count` layers of `model`."""
    config = type(model.config)(**{**model.config.to_dict(), "num_hidden_layers": count, "layer_types": None})
    small = LlamaForCausalLM(config)
    small.load_state_dict({name: value for name, value in model.state_dict().items() if name in small.state_dict()})
    small.generation_config = model.generation_config
    return small.eval()


if __name__ == "__main__":
    sys.exit(main())
