"""`make demo`: objects from sentences, by a small real model on the CPU, each one valid against its JSON Schema.

SmolLM2-135M-Instruct follows instructions badly. That is the point: what it says may be wrong, but it is always an
object that `json.loads` reads and a validator accepts. Shown with each: tokens per second of the whole generation,
and what the constraint costs, measured by following the same tokens once through a freshly compiled grammar (cold)
and once more (warm).
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import jsonschema
import numpy as np
import torch
from smollm2 import load
from transformers import TextStreamer

import guiderail as gr
from guiderail.integrations.transformers import GrammarLogitsProcessor


def text(**limits: Any) -> dict[str, Any]:
    return {"type": "string", **limits}


def obj(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


TASKS: list[tuple[str, dict[str, Any], str]] = [
    (
        "a person",
        obj(
            name=text(minLength=1, maxLength=30),
            age={"type": "integer", "minimum": 0, "maximum": 130},
            city=text(maxLength=30),
        ),
        "Alice Martin is 31 years old and has lived in Lyon since 2015.",
    ),
    (
        "a meeting",
        obj(
            title=text(minLength=1, maxLength=40),
            date=text(pattern=r"^20[0-9]{2}-[01][0-9]-[0-3][0-9]$"),
            minutes={"enum": [15, 30, 45, 60]},
            online={"type": "boolean"},
        ),
        "Let us have the budget review on 2026-03-14 as a video call, 45 minutes should do.",
    ),
    (
        "a review, judged",
        obj(
            sentiment={"enum": ["positive", "neutral", "negative"]},
            stars={"type": "integer", "minimum": 1, "maximum": 5},
            quote=text(maxLength=60),
        ),
        "The soup was cold, the waiter rude, and we waited an hour. Never again!",
    ),
    (
        "an order",
        obj(
            customer=text(minLength=1, maxLength=30),
            items={
                "type": "array",
                "minItems": 1,
                "maxItems": 3,
                "items": obj(
                    product=text(minLength=1, maxLength=20), quantity={"type": "integer", "minimum": 1, "maximum": 99}
                ),
            },
        ),
        "Mr Okafor wants three notebooks and two red pens.",
    ),
    (
        "a bicycle, with a shared definition",
        {
            "$defs": {
                "part": obj(
                    name=text(minLength=1, maxLength=12), count={"type": "integer", "minimum": 1, "maximum": 99}
                )
            },
            **obj(
                name=text(minLength=1, maxLength=12),
                parts={"type": "array", "maxItems": 3, "items": {"$ref": "#/$defs/part"}},
            ),
        },
        "The bicycle has one frame, two wheels and two pedals.",
    ),
]


def mask_microseconds(compiled: gr.CompiledGrammar, token_ids: list[int]) -> tuple[float, float]:
    """(mean, maximum) time of one mask, through Python, along `token_ids`."""
    matcher = compiled.matcher()
    bitmask = gr.allocate_token_bitmask(1, compiled.vocabulary)
    times = []
    for token_id in token_ids:
        start = time.perf_counter()
        matcher.fill_next_token_bitmask(bitmask)
        times.append(time.perf_counter() - start)
        matcher.accept_token(token_id)
    return float(np.mean(times)) * 1e6, float(np.max(times)) * 1e6


def main() -> int:
    torch.manual_seed(0)
    start = time.perf_counter()
    model, tokenizer = load()
    print(f"SmolLM2-135M-Instruct loaded in {time.perf_counter() - start:.1f} s")
    start = time.perf_counter()
    vocabulary = gr.Vocabulary.from_tokenizer(
        tokenizer, vocab_size=model.config.vocab_size, eos_token_ids=model.generation_config.eos_token_id
    )
    print(f"{len(vocabulary):,} tokens read in {time.perf_counter() - start:.2f} s\n")
    valid = 0
    for title, schema, source in TASKS:
        valid += run(model, tokenizer, vocabulary, title, schema, source)
    print(f"{valid} of {len(TASKS)} outputs are valid JSON and satisfy their schema")
    return 0 if valid == len(TASKS) else 1


def run(model: Any, tokenizer: Any, vocabulary: gr.Vocabulary, title: str, schema: dict[str, Any], source: str) -> bool:
    """Generate one object, print it as it comes, check it. Returns: whether it is valid."""
    start = time.perf_counter()
    grammar = gr.Grammar.from_json_schema(schema)
    compiled = gr.compile(grammar, vocabulary)
    compile_ms = (time.perf_counter() - start) * 1e3
    keys = ", ".join(schema["properties"])
    request = f"Extract a JSON object with the keys {keys} from this text: {source}"
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": request}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    print(f"── {title} ── {source}")
    start = time.perf_counter()
    output = model.generate(
        **inputs,
        do_sample=False,
        max_new_tokens=200,
        logits_processor=[GrammarLogitsProcessor(compiled)],
        streamer=TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True),
    )
    seconds = time.perf_counter() - start
    token_ids = output[0, inputs["input_ids"].shape[1] :].tolist()
    fresh = gr.compile(grammar, vocabulary)
    cold_mean, cold_max = mask_microseconds(fresh, token_ids)
    warm_mean, warm_max = mask_microseconds(fresh, token_ids)
    problem = check(vocabulary, token_ids, schema)
    print(
        f"   {problem or 'valid'} · {len(token_ids)} tokens, {len(token_ids) / seconds:.1f} tokens/s"
        f" · compiled in {compile_ms:.2f} ms"
        f" · mask µs: cold {cold_mean:.1f} (max {cold_max:.0f}), warm {warm_mean:.2f} (max {warm_max:.1f})\n"
    )
    return problem is None


def check(vocabulary: gr.Vocabulary, token_ids: list[int], schema: dict[str, Any]) -> str | None:
    """What is wrong with the output, by two judges that share nothing with this library."""
    data = b"".join(vocabulary.token_bytes[token_id] for token_id in token_ids)
    try:
        jsonschema.validate(json.loads(data), schema)
    except (ValueError, jsonschema.ValidationError) as error:
        return f"INVALID: {error}"
    return None


if __name__ == "__main__":
    sys.exit(main())
