"""Random walks under the masks over a file of schemas, with a limit on their tokens, each text judged.

    python -m benchmarks walks --schemas FILE [--walks 100000] [--tokenizer llama3] [--tokens 2048] [--seconds 5]

`--tokens` keeps the first so many of the tokenizer's tokens (in byte-level BPE the most frequent ones; 0: all), so that
many walks fit into minutes; `--seconds` of CPU time is what one schema may take. Schemas come in random order and the
results are written as they grow, so a run that is cut off has a sample. What is counted as a fault, and the judge, are
in tests/corpus/random_walks.py. Writes results/walks.json and .md; exit 1 if there was a fault.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import sys
from pathlib import Path
from typing import Any

import guiderail as gr

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "corpus"))
from random_walks import END, MORE, STRUCTURE, Outcome, Walks
from real_schemas import read_rows

import real_tokenizers

from .masks import machine


def vocabulary_of(tokenizer: str, tokens: int) -> gr.Vocabulary:
    whole = gr.Vocabulary.from_tokenizer(real_tokenizers.load(tokenizer))
    if not tokens:
        return whole
    return gr.Vocabulary.from_bytes([*whole.token_bytes[:tokens], b""], eos_token_ids=[tokens])


def page(report: dict[str, Any]) -> str:
    lines = [
        "# Random walks under the masks",
        "",
        "Written by `python -m benchmarks walks`. "
        + f"Schemas of `{report['schemas_file']}`, vocabulary: {report['vocabulary']}; "
        + ", ".join(f"{key} {value}" for key, value in report["machine"].items())
        + ".",
        f"The limit of a walk is the least that its schema takes and {', '.join(map(str, MORE[:-1]))} or {MORE[-1]}",
        "tokens more.",
        f"It ends with probability {END} where it may, and keeps to tokens of structure with probability {STRUCTURE}.",
        "",
        "| | |",
        "|---|---|",
    ]
    for key, value in report["outcome"].items():
        shown = len(value) if isinstance(value, list) else round(value, 1)
        lines.append(f"| {key.replace('_', ' ')} | {shown:,} |")
    for key in ("invalid", "dead_ends", "over_the_limit", "stopped", "slow", "not_judged"):
        if listed := report["outcome"][key]:
            lines += ["", f"## {key.replace('_', ' ')}", "", *(f"- `{entry}`" for entry in listed[:50])]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks walks", description=__doc__)
    parser.add_argument("--schemas", type=Path, default=Path(__file__).parent / "schemas-small.jsonl")
    parser.add_argument("--walks", type=int, default=100_000)
    parser.add_argument("--tokenizer", default="llama3")
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "walks")
    options = parser.parse_args(arguments)
    walks = Walks(vocabulary_of(options.tokenizer, options.tokens), options.seed)
    rows = list(read_rows(options.schemas))
    random.Random(options.seed).shuffle(rows)
    each = -(-options.walks // len(rows))
    outcome = Outcome()
    for number, row in enumerate(rows, 1):
        walks.over_schema(row["schema"], row.get("id", str(number)), each, outcome, options.seconds)
        if number % 50 == 0 or number == len(rows):
            write(options, outcome)
    print(page(write(options, outcome)))
    if outcome.faults:
        sys.exit(1)


def write(options: argparse.Namespace, outcome: Outcome) -> dict[str, Any]:
    report = {
        "schemas_file": options.schemas.name,
        "vocabulary": f"{options.tokenizer}, {options.tokens or 'all'} tokens",
        "machine": machine(),
        "outcome": dataclasses.asdict(outcome),
    }
    options.out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    options.out.with_suffix(".md").write_text(page(report), encoding="utf-8")
    return report
