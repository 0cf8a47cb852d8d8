"""What size costs in a JSON Schema: large schemas beside their small twins, and the slowest of a file of real ones.

    python -m benchmarks sizes [--schemas FILE.jsonl[.gz]] [--out benchmarks/results/sizes]

A case is a schema, texts that it admits and texts that it does not; answers are checked before anything is timed. CPU
time of a fresh grammar: from the schema's text to a compiled grammar, the first mask, then every mask and every
accepted token of the valid texts. Two cases with one name differ in size only. Vocabulary: Llama 3. `--schemas` adds
the CPU seconds of the slowest schemas, compiled and with all their instances read.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import guiderail as gr

from .llama3_vocabulary import load
from .masks import machine
from .percentiles import figure, percentile, table

REPETITIONS = 3


@dataclass(frozen=True)
class Case:
    """`valid` and `invalid`: values; a value's text is json.dumps'."""

    name: str
    size: str
    schema: Any
    valid: list[Any]
    invalid: list[Any]
    free_order: bool = False


def properties(rng: random.Random, count: int) -> Case:
    names = [f"property_{i}" for i in range(count)]
    values = dict.fromkeys(names, 7)
    shuffled = list(values.items())
    rng.shuffle(shuffled)
    schema = {"properties": {name: {"type": "integer"} for name in names}, "additionalProperties": False}
    return Case(
        "optional properties, free order",
        f"{count}",
        schema,
        [dict(shuffled)],
        [{**values, "other": 7}, {**values, names[-1]: "7"}],
        free_order=True,
    )


def large_schema(rng: random.Random, target_bytes: int) -> Case:
    """An object of objects, each with a few keywords of every kind, until the text is long enough."""
    definitions: dict[str, Any] = {}
    size = 0
    while size < target_bytes:
        name = f"entity_{len(definitions)}"
        fields: dict[str, Any] = {
            f"{name}_id": {
                "type": "string",
                "pattern": "^[A-Z]{3}-[0-9]+$",
                "description": "Identifier of the entity.",
            },
            f"{name}_state": {"enum": [f"state_{rng.randrange(1000)}" for _ in range(6)]},
            f"{name}_count": {"type": "integer", "minimum": 0, "maximum": rng.randrange(10, 10_000)},
            f"{name}_labels": {"type": "array", "items": {"type": "string", "maxLength": 63}, "maxItems": 8},
        }
        if definitions:
            fields[f"{name}_parent"] = {"$ref": f"#/$defs/entity_{rng.randrange(len(definitions))}"}
        definitions[name] = {"type": "object", "properties": fields, "required": [f"{name}_id"]}
        size += len(json.dumps(definitions[name])) + 20
    schema = {
        "type": "object",
        "properties": {name: {"$ref": f"#/$defs/{name}"} for name in definitions},
        "additionalProperties": False,
        "$defs": definitions,
    }
    chosen = list(definitions)[:: max(1, len(definitions) // 5)]
    valid = {name: {f"{name}_id": "ABC-12", f"{name}_count": 3, f"{name}_labels": ["x", "y"]} for name in chosen}
    wrong = {name: {f"{name}_id": "abc"} for name in chosen}
    return Case("schema text", f"{len(json.dumps(schema)) / 1e6:.2g} MB", schema, [valid], [wrong, {"entity": {}}])


def cases() -> Iterator[Case]:
    rng = random.Random(0)
    text = "All work and no play makes this string a long one. " * 2
    for longest in (200, 100_000):
        yield Case(
            "maxLength", f"{longest}", {"type": "string", "maxLength": longest}, [text], ["x" * (longest + 1), 1]
        )
    for least, most in ((5, 10), (3_000, 6_000)):
        schema = {"type": "array", "items": {"type": "integer"}, "minItems": least, "maxItems": most}
        good = [[12] * least, [12] * most] if most < 100 else [[12] * least]
        yield Case("minItems, maxItems", f"{least}, {most}", schema, good, [[12] * (least - 1), [12] * (most + 1)])
    for count in (6, 60):
        yield properties(rng, count)
    for count in (10, 10_000):
        values = [f"value {rng.randrange(10**9)} of {count}" for _ in range(count)]
        yield Case("enum", f"{count}", {"enum": values}, values[:: max(1, count // 5)], ["value", values[0] + "x", 1])
    for target in (2_000, 2_000_000):
        yield large_schema(rng, target)


def measure(case: Case, vocabulary: gr.Vocabulary, encode: Any) -> dict[str, Any]:
    """CPU milliseconds and microseconds of one case; the best of REPETITIONS for what happens once per grammar."""
    schema = json.dumps(case.schema)

    def read() -> gr.Grammar:
        return gr.Grammar.from_json_schema(schema, property_order="free" if case.free_order else "declared")

    grammar = read()
    for value in case.valid:
        assert grammar.accepts(json.dumps(value)), f"{case.name} {case.size}: a valid text is refused"
    for value in case.invalid:
        assert not grammar.accepts(json.dumps(value)), f"{case.name} {case.size}: an invalid text is accepted"
    bitmask = gr.allocate_token_bitmask(1, vocabulary)
    compiling, first, masks, accepting = [], [], [], []
    for repetition in range(REPETITIONS):
        begin = time.process_time_ns()
        compiled = gr.compile(read(), vocabulary)
        compiling.append((time.process_time_ns() - begin) / 1e6)
        compiled.matcher().fill_next_token_bitmask(bitmask)
        first.append((time.process_time_ns() - begin) / 1e6)
        if repetition:
            continue
        for value in case.valid:
            matcher = compiled.matcher()
            for token in encode(json.dumps(value)):
                begin = time.process_time_ns()
                matcher.fill_next_token_bitmask(bitmask)
                filled = time.process_time_ns()
                assert matcher.accept_token(token)
                masks.append((filled - begin) / 1e3)
                accepting.append((time.process_time_ns() - filled) / 1e3)
            assert matcher.is_accepting
    return {
        "case": case.name,
        "size": case.size,
        "compile_ms": min(compiling),
        "first_mask_ms": min(first),
        "tokens": len(masks),
        "mask_us": {"mean": sum(masks) / len(masks), "p50": percentile(masks, 50), "p99": percentile(masks, 99)},
        "accept_us": {"mean": sum(accepting) / len(accepting), "p99": percentile(accepting, 99)},
    }


def slowest(path: Path, vocabulary: gr.Vocabulary, encode: Any, shown: int = 5) -> dict[str, Any]:
    """CPU seconds per schema: compiled, and masks and tokens of all its instances, valid or not."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    bitmask = gr.allocate_token_bitmask(1, vocabulary)
    seconds: list[tuple[float, str]] = []
    refused = 0
    for line in data.decode("utf-8").splitlines():
        row = json.loads(line)
        begin = time.process_time_ns()
        try:
            compiled = gr.compile(gr.Grammar.from_json_schema(row["schema"]), vocabulary)
        except gr.GuiderailError:
            refused += 1
            continue
        for test in row["tests"]:
            matcher = compiled.matcher()
            for token in encode(json.dumps(test["data"])):
                matcher.fill_next_token_bitmask(bitmask)
                if not matcher.accept_token(token):
                    break
        seconds.append(((time.process_time_ns() - begin) / 1e9, row["id"]))
    seconds.sort(reverse=True)
    return {
        "file": path.name,
        "schemas": len(seconds),
        "refused": refused,
        "over_2_s": sum(1 for cpu, _ in seconds if cpu > 2),
        "slowest": seconds[:shown],
    }


def report(result: dict[str, Any]) -> str:
    rows = [
        [
            case["case"],
            case["size"],
            figure(case["compile_ms"]),
            figure(case["first_mask_ms"]),
            str(case["tokens"]),
            " / ".join(figure(case["mask_us"][key]) for key in ("mean", "p50", "p99")),
            " / ".join(figure(case["accept_us"][key]) for key in ("mean", "p99")),
        ]
        for case in result["cases"]
    ]
    header = [
        "case", "size", "compile, ms", "with the first mask, ms", "tokens",
        "cold mask, µs: mean / p50 / p99", "accept, µs: mean / p99",
    ]  # fmt: skip
    where = ", ".join(f"{key} {value}" for key, value in result["machine"].items())
    page = f"# What size costs in a JSON Schema\n\nLlama 3's vocabulary; CPU time; {where}.\n\n{table(header, rows)}\n"
    if real := result.get("real"):
        listed = ", ".join(f"{cpu:.2f} s `{name}`" for cpu, name in real["slowest"])
        page += (
            f"\n`{real['file']}`: {real['schemas']} schemas compiled and all their instances read, {real['refused']} "
            f"refused; {real['over_2_s']} took more than 2 s. The slowest: {listed}.\n"
        )
    return page


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks sizes", description=__doc__)
    parser.add_argument("--schemas", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "sizes")
    options = parser.parse_args(arguments)
    llama = load()
    vocabulary = gr.Vocabulary.from_bytes(
        llama.token_bytes, eos_token_ids=llama.eos_token_ids, special_tokens=llama.special_tokens
    )
    # What every server has met: plain strings, numbers and literals in this vocabulary.
    slowest(Path(__file__).parent / "schemas-warm-up.jsonl", vocabulary, llama.encode)
    result: dict[str, Any] = {"machine": machine(), "cases": []}
    for case in cases():
        result["cases"].append(measure(case, vocabulary, llama.encode))
    if options.schemas:
        result["real"] = slowest(options.schemas, vocabulary, llama.encode)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    page = report(result)
    options.out.with_suffix(".md").write_text(page)
    print(page)
