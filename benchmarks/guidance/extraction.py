"""Extraction as JSON under guidance with SmolLM2: is every output valid at every scale?

    python -m benchmarks.guidance.extraction [--extractions 200] [--scales 0 1 1.5 3] [--output results.json]

Definition. `extractions` texts are put together from templates, names, ages and interests with a fixed seed. Each is
decoded greedily under a JSON Schema with classifier-free guidance (null: the question without its text; plausibility
0.05) in batches. An output is valid if it ended (was not cut off), Python's strict JSON parser reads it, and jsonschema
validates it. `right` counts outputs whose name and age are the text's: a small model, shown so that 'valid' is not
mistaken for 'right'. The exit status is 1 unless everything is valid.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import torch

import guiderail
from guiderail import guidance
from guiderail.integrations.generation import GuidedDecoder

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 16},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "likes": {"type": "array", "items": {"enum": ["music", "chess", "hiking", "cooking"]}, "maxItems": 2},
    },
    "required": ["name", "age", "likes"],
    "additionalProperties": False,
}
QUESTION = "Give the person's name, age and interests as a JSON object."
TEMPLATES = (
    "{name} is {age} and likes {likes}.",
    "My neighbour {name}, {age} years old, spends every weekend on {likes}.",
    "Yesterday I met {name}, who turned {age} last week and talked about {likes}.",
    "At {age}, {name} still cannot get enough of {likes}.",
)
NAMES = ("Maria", "Tom", "Ada", "Kenji", "Olga", "Samuel", "Ines", "Ravi", "Chloe", "Anders", "Nadia", "Peter")
# The longest output: brackets, names of members, 16 characters of four bytes, two interests.
MOST_TOKENS = 110


def texts(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """The texts, and what they say."""
    rng = random.Random(seed)
    made = []
    for template, name in itertools.islice(itertools.cycle(itertools.product(TEMPLATES, NAMES)), count):
        said = {"name": name, "age": rng.randint(5, 95), "likes": rng.choice(["music", "chess", "hiking", "cooking"])}
        made.append({**said, "text": template.format(**said)})
    return made


def chat_ids(tokenizer: Any, text: str) -> list[int]:
    """One user turn, ready for the answer."""
    messages = [{"role": "user", "content": text}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return list(tokenizer(prompt, add_special_tokens=False)["input_ids"])


def is_valid(text: str) -> bool:
    try:
        jsonschema.validate(json.loads(text), SCHEMA)
    except (ValueError, jsonschema.ValidationError):
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--extractions", type=int, default=200)
    parser.add_argument("--scales", type=float, nargs="+", default=[0.0, 1.0, 1.5, 3.0])
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
    import smollm2

    model, tokenizer = smollm2.load()
    vocabulary = guiderail.Vocabulary.from_tokenizer(tokenizer)
    compiled = guiderail.compile(guiderail.Grammar.from_json_schema(SCHEMA, whitespace="compact"), vocabulary)
    null = chat_ids(tokenizer, QUESTION)
    cases = texts(arguments.extractions)
    prompts = [chat_ids(tokenizer, f"{case['text']}\n{QUESTION}") for case in cases]
    rows: dict[str, Any] = {}
    for scale in arguments.scales:
        term = guidance.ClassifierFree(scale, null, plausibility=0.05)
        decoder = GuidedDecoder(model, term, compiled)
        start, outputs = time.process_time(), []
        for at in range(0, len(prompts), arguments.batch):
            outputs += decoder.decode(prompts[at : at + arguments.batch], MOST_TOKENS)
        produced = [vocabulary.decode(output.token_ids).decode("utf-8", "replace") for output in outputs]
        ended = [output.finish_reason == "end" for output in outputs]
        valid = [end and is_valid(text) for end, text in zip(ended, produced, strict=True)]
        answers = [json.loads(text) if good else {} for text, good in zip(produced, valid, strict=True)]
        right = [
            answer.get("name") == case["name"] and answer.get("age") == case["age"]
            for answer, case in zip(answers, cases, strict=True)
        ]
        rows[f"{scale:g}"] = {
            "extractions": len(valid),
            "valid": sum(valid),
            "right": sum(right),
            "tokens": sum(len(output.token_ids) for output in outputs),
            "tokens_without_a_model": sum(output.forced for output in outputs),
            "forward_passes": decoder.engine.runner().counts.passes,
            "cpu_s": round(time.process_time() - start, 1),
            "example": produced[0],
            "invalid": [text for text, good in zip(produced, valid, strict=True) if not good][:3],
        }
        print(f"scale {scale:g}: {json.dumps(rows[f'{scale:g}'])}", flush=True)
    report = {"model": "SmolLM2-135M-Instruct, float32, one thread", "batch": arguments.batch, "scales": rows}
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(report, indent=2) + "\n")
    if any(row["valid"] < row["extractions"] for row in rows.values()):
        raise SystemExit("some outputs were not valid")


if __name__ == "__main__":
    main()
