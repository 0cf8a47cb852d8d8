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

import numpy as np

import guiderail as gr

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import real_tokenizers

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


def timed(compiled: gr.CompiledGrammar, limit: int | None, tokens: list[int]) -> list[float]:
    """Microseconds of CPU for each mask and the acceptance of its token."""
    matcher, row = compiled.matcher(max_tokens=limit), gr.allocate_token_bitmask(1, compiled.vocabulary)
    times = []
    for token in tokens:
        begin = time.process_time_ns()
        matcher.fill_next_token_bitmask(row)
        matcher.accept_token(token)
        times.append((time.process_time_ns() - begin) / 1000)
    return times


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
    options = parser.parse_args(arguments)
    vocabulary = gr.Vocabulary.from_tokenizer(real_tokenizers.load(options.tokenizer))
    rng = random.Random(0)
    counted = gr.Grammar.from_json_schema({"type": "string", "minLength": 100, "maxLength": 100_000})
    for name, chosen in (("schemas", list(grammars(options.schemas, options.limit))), ("counted string", [counted])):
        figures: dict[tuple[str, str], list[float]] = {}
        walks = refused = open_ends = 0
        for grammar in chosen:
            compiled = gr.compile(grammar, vocabulary)
            least = least_limit(compiled)
            if least is None:
                refused += 1
                continue
            for place, limit, steps in (
                ("least", least, least + 1),
                ("near", least + 20, least + 21),
                ("far", FAR, CUT),
            ):
                tokens, ended = draw(rng, compiled, limit, steps)
                walks += place != "far"
                text = b"".join(vocabulary.token_bytes[t] for t in tokens if t not in vocabulary.eos_token_ids)
                open_ends += place != "far" and not (ended and grammar.accepts(text))
                for kind, bound in ((f"{place}, limited", limit), (f"{place}, plain", None)):
                    fresh = gr.compile(grammar, vocabulary)
                    for visit in ("cold", "warm"):
                        figures.setdefault((kind, visit), []).extend(timed(fresh, bound, tokens))
        print(
            f"{name}: {len(chosen)} grammars, {refused} without a known completion, {walks} walks to the limit, "
            f"{open_ends} of them not closed"
        )
        print("| mask and accept, µs of CPU | tokens | p50 | p99 | mean |\n|---|---|---|---|---|")
        for (kind, visit), times in sorted(figures.items()):
            p50, p99 = np.percentile(times, [50, 99])
            print(f"| {kind}, {visit} | {len(times)} | {p50:.1f} | {p99:.1f} | {np.mean(times):.1f} |")
