"""What it costs that no property name comes twice, nor a string in an array of unique items: masks of objects whose
names are free, and of such arrays.

    python -m benchmarks free_keys [--members 40] [--out benchmarks/results/free_keys]

Each grammar reads three texts with names that no text before had, then the last once more. CPU time per mask and per
accepted token, Llama 3's vocabulary. "first": a fresh grammar; "new": the third text; "again": the same text again,
where every mask is known.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path
from typing import Any

import guiderail as gr

from .llama3_vocabulary import load
from .masks import machine
from .percentiles import figure, percentile, table
from .sizes import slowest

SCHEMAS: dict[str, Any] = {
    "anything": {"type": "object"},
    "integers": {"type": "object", "additionalProperties": {"type": "integer"}},
    "declared ones too": {"properties": {"id": {"type": "integer"}, "name": {"type": "string"}}, "required": ["id"]},
    "names of a pattern": {"patternProperties": {"^[a-z_]+[0-9]*$": {"type": "string"}}, "additionalProperties": False},
    "objects in objects": {"additionalProperties": {"type": "object", "additionalProperties": {"type": "string"}}},
    "unique strings": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
    "unique strings, max_tokens=4000": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
}
LIMITS = {"unique strings, max_tokens=4000": 4000}


def instance(name: str, members: int, rng: random.Random) -> Any:
    words = ["user", "item", "count", "order", "price", "label", "total", "width", "alpha", "gamma", "region", "color"]
    names = [f"{rng.choice(words)}_{rng.choice(words)}{rng.randrange(1000)}" for _ in range(members)]
    if name.startswith("unique"):
        return names
    if name == "integers":
        return {key: rng.randrange(10**6) for key in names}
    if name == "names of a pattern":
        return {key: rng.choice(words) for key in names}
    if name == "objects in objects":
        return {key: {inner: rng.choice(words) for inner in names[:3]} for key in names[: members // 3]}
    first = {"id": 1, "name": "x"} if name == "declared ones too" else {}
    return first | {key: rng.choice([1, True, None, "text", [1, 2], {"k": "v"}]) for key in names}


def read(
    compiled: gr.CompiledGrammar, tokens: list[int], bitmask: Any, limit: int | None
) -> tuple[list[float], list[float]]:
    masks, accepting = [], []
    matcher = compiled.matcher(max_tokens=limit)
    for token in tokens:
        begin = time.process_time_ns()
        matcher.fill_next_token_bitmask(bitmask)
        filled = time.process_time_ns()
        assert matcher.accept_token(token)
        masks.append((filled - begin) / 1e3)
        accepting.append((time.process_time_ns() - filled) / 1e3)
    assert matcher.is_accepting
    return masks, accepting


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks free_keys", description=__doc__)
    parser.add_argument("--members", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "free_keys")
    options = parser.parse_args(arguments)
    llama = load()
    vocabulary = gr.Vocabulary.from_bytes(
        llama.token_bytes, eos_token_ids=llama.eos_token_ids, special_tokens=llama.special_tokens
    )
    # What every server has met: plain strings, numbers and literals in this vocabulary.
    slowest(Path(__file__).parent / "schemas-warm-up.jsonl", vocabulary, llama.encode)
    bitmask = gr.allocate_token_bitmask(1, vocabulary)
    result: dict[str, Any] = {"machine": machine(), "members": options.members, "schemas": {}}
    for name, schema in SCHEMAS.items():
        rng = random.Random(0)
        compiled = gr.compile(gr.Grammar.from_json_schema(schema), vocabulary)
        rows = {}
        texts = [llama.encode(json.dumps(instance(name, options.members, rng))) for _ in range(3)]
        for when, text in (("first", texts[0]), ("", texts[1]), ("new", texts[2]), ("again", texts[2])):
            masks, accepting = read(compiled, text, bitmask, LIMITS.get(name))
            if when:
                rows[when] = {
                    "tokens": len(masks),
                    "mask_us": {
                        "mean": sum(masks) / len(masks), "p50": percentile(masks, 50), "p99": percentile(masks, 99)
                    },
                    "accept_us": {"mean": sum(accepting) / len(accepting)},
                }  # fmt: skip
        result["schemas"][name] = rows
    lines = [
        [name, when, str(r["tokens"]), " / ".join(figure(r["mask_us"][k]) for k in ("mean", "p50", "p99")),
         figure(r["accept_us"]["mean"])]
        for name, rows in result["schemas"].items() for when, r in rows.items()
    ]  # fmt: skip
    where = ", ".join(f"{key} {value}" for key, value in result["machine"].items())
    page = (
        "# Objects whose property names are free, arrays of unique strings\n\n"
        + f"Llama 3's vocabulary, {options.members} members or items; CPU time; {where}.\n\n"
        + table(["schema", "text", "tokens", "mask, µs: mean / p50 / p99", "accept, µs: mean"], lines)
        + "\n"
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    options.out.with_suffix(".md").write_text(page)
    print(page)
