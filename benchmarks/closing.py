"""What `max_tokens` costs per token: masks and accepts with a limit far off and near, beside none.

    python -m benchmarks closing --schemas FILE --tokenizer smollm2 --limit 60

Random walks (fixed seed) over a sample of schemas and a counted string. A walk's tokens are drawn under the limited
masks, at the least limit that the schema takes, that plus 20, and 100,000 (cut off after 40 tokens). Each walk is then
timed in CPU time on freshly compiled grammars: first visit ("cold") and second ("warm"). Every walk to the limit must
end in a text of the language.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import guiderail as gr

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import real_tokenizers

from .masks import machine

FAR, CUT = 100_000, 40


def least_limit(compiled: gr.CompiledGrammar) -> int | None:
    """The smallest limit that is taken, by bisection; None if there is none below FAR."""
    low, high = 0, FAR
    while low < high:
        middle = (low + high) // 2
        try:
            compiled.matcher(max_tokens=middle)
            high = middle
        except gr.LimitError:
            low = middle + 1
    return low if low < FAR else None


def draw(rng: random.Random, compiled: gr.CompiledGrammar, limit: int, steps: int) -> tuple[list[int], bool]:
    """Random tokens, and whether the text ended."""
    matcher, row = compiled.matcher(max_tokens=limit), gr.allocate_token_bitmask(1, compiled.vocabulary)
    taken: list[int] = []
    for _ in range(steps):
        matcher.fill_next_token_bitmask(row)
        allowed = np.flatnonzero(np.unpackbits(row.view(np.uint8), bitorder="little"))
        taken.append(int(rng.choice(allowed)))
        assert matcher.accept_token(taken[-1])
        if matcher.is_terminated:
            return taken, True
    return taken, False


def timed(compiled: gr.CompiledGrammar, limit: int | None, tokens: list[int]) -> tuple[float, list[float]]:
    """Microseconds of CPU for the matcher with its first mask, and for each mask with the acceptance of its token."""
    row = gr.allocate_token_bitmask(1, compiled.vocabulary)
    begin = time.process_time_ns()
    matcher = compiled.matcher(max_tokens=limit)
    matcher.fill_next_token_bitmask(row)
    first = (time.process_time_ns() - begin) / 1000
    times = []
    for token in tokens:
        begin = time.process_time_ns()
        matcher.fill_next_token_bitmask(row)
        matcher.accept_token(token)
        times.append((time.process_time_ns() - begin) / 1000)
    return first, times


def grammars(file: Path, limit: int) -> Iterator[gr.Grammar]:
    opener = gzip.open if file.suffix == ".gz" else open
    with opener(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    random.Random(0).shuffle(rows)
    for row in rows[:limit]:
        try:
            yield gr.Grammar.from_json_schema(row["schema"])
        except gr.GuiderailError:
            continue


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks closing", description=__doc__)
    parser.add_argument("--schemas", type=Path, default=Path(__file__).parent / "schemas-small.jsonl")
    parser.add_argument("--tokenizer", default="smollm2")
    parser.add_argument("--limit", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "closing")
    options = parser.parse_args(arguments)
    vocabulary = gr.Vocabulary.from_tokenizer(real_tokenizers.load(options.tokenizer))
    rng = random.Random(0)
    counted = gr.Grammar.from_json_schema({"type": "string", "minLength": 100, "maxLength": 100_000})
    report: dict[str, Any] = {
        "schemas": options.schemas.name,
        "tokenizer": options.tokenizer,
        "tokens": vocabulary.size,
        "machine": machine(),
        "workloads": {},
    }
    for name, chosen in (
        (f"{options.limit} schemas", grammars(options.schemas, options.limit)),
        ("counted string", [counted]),
    ):
        report["workloads"][name] = measure(rng, list(chosen), vocabulary)
    options.out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    text = page(report)
    options.out.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


def measure(rng: random.Random, chosen: list[gr.Grammar], vocabulary: gr.Vocabulary) -> dict[str, Any]:
    figures: dict[str, list[float]] = {}
    result: dict[str, Any] = {"grammars": len(chosen), "no_completion_known": 0, "walks": 0, "not_closed": 0}
    for grammar in chosen:
        compiled = gr.compile(grammar, vocabulary)
        least = least_limit(compiled)
        if least is None:
            result["no_completion_known"] += 1
            continue
        for place, limit, steps in (("least", least, least + 1), ("near", least + 20, least + 21), ("far", FAR, CUT)):
            tokens, ended = draw(rng, compiled, limit, steps)
            if place != "far":
                text = b"".join(vocabulary.token_bytes[t] for t in tokens if t not in vocabulary.eos_token_ids)
                result["walks"] += 1
                result["not_closed"] += not (ended and grammar.accepts(text))
            for kind, bound in ((f"{place}, limited", limit), (f"{place}, plain", None)):
                fresh = gr.compile(grammar, vocabulary)
                for visit in ("cold", "warm"):
                    first, times = timed(fresh, bound, tokens)
                    figures.setdefault(f"{kind}, {visit}", []).extend(times)
                    figures.setdefault(f"{kind}, matcher and first mask, {visit}", []).append(first)
    result["microseconds"] = {
        kind: {
            "count": len(times),
            **{f"p{q}": round(float(np.percentile(times, q)), 1) for q in (50, 90, 99)},
            "mean": round(float(np.mean(times)), 1),
            "max": round(max(times), 1),
        }
        for kind, times in sorted(figures.items())
    }
    return result


def page(report: dict[str, Any]) -> str:
    lines = [
        "# What `max_tokens` costs",
        "",
        f"Written by `python -m benchmarks closing`. Schemas from `{report['schemas']}`, vocabulary "
        f"{report['tokenizer']} ({report['tokens']:,} tokens); µs of CPU time; "
        + ", ".join(f"{key} {value}" for key, value in report["machine"].items())
        + ".",
        "'Least' is the smallest limit that the grammar takes, 'near' is 20 tokens more, 'far' 100,000. 'Limited' and",
        "'plain' take the same tokens with and without the limit. Unless it says 'matcher', a line is a mask with its",
        "token's acceptance.",
    ]
    for name, workload in report["workloads"].items():
        lines += [
            "",
            f"## {name}",
            "",
            f"{workload['grammars']} grammars, {workload['no_completion_known']} without a known completion, "
            f"{workload['walks']} walks to the limit, {workload['not_closed']} of them not closed.",
            "",
            "| | number | p50 | p90 | p99 | mean | max |",
            "|---|---|---|---|---|---|---|",
        ]
        for kind, row in workload["microseconds"].items():
            shown = " | ".join(f"{row[key]:,}" for key in ("count", "p50", "p90", "p99", "mean", "max"))
            lines.append(f"| {kind} | {shown} |")
    return "\n".join(lines) + "\n"
