"""Programs written by models under the shipped grammars and without: syntax errors, cut texts, and what masks cost.

    python -m benchmarks generation [--models tiny smollm2] [--languages python go json sql]
                                     [--conditions free kept closed] [--seconds 500]

Two models: SmolLM2-135M-Instruct, and a tiny one (2 layers, width 96, 4,000 tokens) that is trained for a minute on
texts of all four languages and errs in all of them. Three conditions, sampled at temperature 1 through
`model.generate`, in batches:

    free      no constraint
    kept      the grammar; texts that meet the limit of tokens are cut, and only the others are judged
    closed    the grammar and the limit are both known (`max_tokens`): every text is judged

A text is what was asked for: the given beginning of the program (prompts.py) and what the model wrote after it. Judges
share no code with guiderail (benchmarks/judges): `ast.parse` of Python 3.12, `gofmt -e`, `json.loads` without its
extensions, PostgreSQL's parser. The figures of each cell (model, language, condition) are kept in
benchmarks/scratch/generation, so a run that was stopped goes on; the report is of what is there. Times are CPU time of
one thread: of the model's forward passes and of the processor, per token and row.
"""

from __future__ import annotations

import argparse
import datetime
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

import guiderail as gr
from guiderail.integrations.transformers import GrammarLogitsProcessor

from ..judges import JUDGES, Judge, MissingJudge
from ..masks import HERE, machine
from ..percentiles import percentile
from ..reproductions.small_models import next_token_loss, trained
from ..reproductions.syncode import Tokenizer, is_json
from .prompts import Prompt, prompts
from .texts import texts

LANGUAGES = ("python", "go", "json", "sql")
CONDITIONS = ("free", "kept", "closed")
SCRATCH = HERE / "scratch" / "generation"
STEPS, TOKENS, BATCH = 400, 4000, 25


def json_judge() -> Judge:
    return lambda found: [is_json(text.encode("utf-8", "surrogateescape")) for text in found]


JUDGED_BY: dict[str, Callable[[], Judge]] = {**JUDGES, "json": json_judge}


class Timed(transformers.LogitsProcessor):  # type: ignore[misc]
    """The processor with a stopwatch; without one, nothing."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.calls: list[float] = []

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        start = time.process_time()
        constrained = self.inner(input_ids, scores)
        self.calls.append(time.process_time() - start)
        return constrained


class Writer:
    """A model, its tokenizer, and how they are asked."""

    name: str
    model: Any
    vocabulary: gr.Vocabulary
    end: int

    def encode(self, prompt: Prompt, language: str) -> list[int]:
        raise KeyError


class Tiny(Writer):
    name = "tiny"

    def __init__(self, seed: int) -> None:
        torch.set_num_threads(1)
        corpora = {language: texts(language, 400, seed) for language in LANGUAGES}
        self.tokenizer = Tokenizer([text for found in corpora.values() for text in found], TOKENS)
        torch.manual_seed(seed)
        self.vocabulary, self.end = self.tokenizer.vocabulary, 0
        self.model = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                vocab_size=self.tokenizer.size, hidden_size=96, intermediate_size=288, num_hidden_layers=2,
                num_attention_heads=3, num_key_value_heads=3, max_position_embeddings=1024, bos_token_id=0,
                eos_token_id=0, pad_token_id=0, tie_word_embeddings=True,
            )
        )  # fmt: skip
        rows = [
            [*self.start(language), *self.tokenizer.encode(text)[:150], 0]
            for language, found in corpora.items()
            for text in found
        ]

        def loss(step: int) -> torch.Tensor:
            batch = random.Random(seed * 100_003 + step).choices(rows, k=8)
            longest = max(map(len, batch))
            ids = torch.tensor([row + [0] * (longest - len(row)) for row in batch])
            counted = torch.arange(longest)[None] < torch.tensor([len(row) for row in batch])[:, None]
            return next_token_loss(self.model, ids, counted)

        self.model = trained(self.model, loss, f"tiny-{seed}", SCRATCH, steps=STEPS)

    def start(self, language: str) -> list[int]:
        return [0, *self.tokenizer.encode(f"# {language}\n")]

    def encode(self, prompt: Prompt, language: str) -> list[int]:
        return self.start(language) + self.tokenizer.encode(prompt.given)


class SmolLM2(Writer):
    name = "smollm2"

    def __init__(self, seed: int) -> None:
        sys.path.insert(0, str(HERE.parent / "examples"))
        import smollm2

        torch.set_num_threads(1)
        self.model, self.tokenizer = smollm2.load()
        self.vocabulary = gr.Vocabulary.from_tokenizer(self.tokenizer)
        self.end = int(self.tokenizer.eos_token_id)

    def encode(self, prompt: Prompt, language: str) -> list[int]:
        if prompt.chat:
            chat = [{"role": "user", "content": prompt.asked}]
            text = str(self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
        else:
            text = prompt.asked + prompt.given
        return list(self.tokenizer.encode(text, add_special_tokens=False))


WRITERS: dict[str, Callable[[int], Writer]] = {"tiny": Tiny, "smollm2": SmolLM2}


def batch_of(
    writer: Writer, compiled: Any, language: str, condition: str, chosen: list[Prompt], limit: int, seed: int
) -> dict[str, Any]:
    """Write one text for each prompt."""
    rows = [writer.encode(prompt, language) for prompt in chosen]
    width = max(map(len, rows))
    ids = torch.tensor([[writer.end] * (width - len(row)) + row for row in rows])
    attention = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    processor = None
    if condition != "free":
        processor = Timed(
            GrammarLogitsProcessor(
                [compiled] * len(chosen),
                prefix=[prompt.given for prompt in chosen],
                max_tokens=limit if condition == "closed" else None,
            )
        )
    passes: list[float] = []
    forward = writer.model.forward

    def timed_forward(*arguments: Any, **named: Any) -> Any:
        start = time.process_time()
        result = forward(*arguments, **named)
        passes.append(time.process_time() - start)
        return result

    torch.manual_seed(seed)
    writer.model.forward = timed_forward
    try:
        with torch.no_grad():
            done = writer.model.generate(
                ids, attention_mask=attention, do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
                max_new_tokens=limit, eos_token_id=writer.end, pad_token_id=writer.end,
                logits_processor=[processor] if processor else [],
            )[:, width:].tolist()  # fmt: skip
    finally:
        del writer.model.forward
    written, cut, tokens = [], [], 0
    for prompt, row in zip(chosen, done, strict=True):
        ended = writer.end in row
        row = row[: row.index(writer.end)] if ended else row
        tokens += len(row) + ended
        whole = prompt.given.encode() + b"".join(writer.vocabulary.token_bytes[token] for token in row)
        written.append(whole.decode("utf-8", "surrogateescape"))
        # In `closed`, a text of exactly the limit is complete without its end token.
        cut.append(not ended and condition != "closed")
    steps = len(passes)
    return {
        "texts": written, "cut": cut, "tokens": tokens, "steps": steps, "rows": len(chosen),
        "forward_s": sum(passes[1:]), "processor_s": processor.calls if processor else [],
    }  # fmt: skip


def cell(writer: Writer, language: str, condition: str, count: int, limit: int, seed: int) -> dict[str, Any]:
    """One model, language and condition: texts, verdicts, times."""
    compiled = None if condition == "free" else gr.compile(gr.Grammar.builtin(language), writer.vocabulary)
    judge = JUDGED_BY[language]()
    asked = prompts(language)
    done: list[dict[str, Any]] = []
    for start in range(0, count, BATCH):
        chosen = [asked[index % len(asked)] for index in range(start, min(start + BATCH, count))]
        if writer.name == "tiny":
            # It has not learnt to read; half of its texts begin where the language begins.
            chosen = [Prompt("", "") if index % 2 else prompt for index, prompt in enumerate(chosen)]
        done.append(batch_of(writer, compiled, language, condition, chosen, limit, seed + start))
    found = [text for batch in done for text in batch["texts"]]
    cut = [flag for batch in done for flag in batch["cut"]]
    # A text that is no UTF-8 is no text for any judge.
    readable = [not any(0xD800 <= ord(letter) < 0xE000 for letter in text) for text in found]
    verdicts = judge([text if ok else "" for text, ok in zip(found, readable, strict=True)])
    right = [ok and verdict for ok, verdict in zip(readable, verdicts, strict=True)]
    rows_passed = sum(batch["rows"] * (batch["steps"] - 1) for batch in done)
    calls = [1e6 * value / batch["rows"] for batch in done for value in batch["processor_s"]]
    return {
        "texts": len(found),
        "cut": sum(cut),
        "wrong": sum(not ok for ok, was_cut in zip(right, cut, strict=True) if not was_cut),
        "wrong_texts": [
            text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            for text, ok, was_cut in zip(found, right, cut, strict=True)
            if not was_cut and not ok
        ][:400 if condition != "free" else 3],
        "samples": found[:2],
        "tokens": sum(batch["tokens"] for batch in done),
        "forward_us": 1e6 * sum(batch["forward_s"] for batch in done) / max(1, rows_passed),
        "processor_us": {"mean": sum(calls) / len(calls), "p50": percentile(calls, 50), "p99": percentile(calls, 99)}
        if calls
        else None,
    }  # fmt: skip


def page(report: dict[str, Any]) -> str:
    lines = [
        "# Generation: syntax errors under the shipped grammars and without",
        "",
        "Written by `python -m benchmarks generation`; "
        + ", ".join(f"{key} {value}" for key, value in report["machine"].items())
        + ".",
        "Conditions, models and judges: benchmarks/generation. `wrong` counts texts that were not cut; times are CPU",
        "microseconds per token and row, the processor's those of `GrammarLogitsProcessor` (mean, p50, p99).",
        "",
        "| model | language | condition | texts | cut | wrong | tokens | model µs | processor µs | share "
        "| measured, UTC |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in report["cells"]:
        spent = row["processor_us"]
        lines.append(
            f"| {row['model']} | {row['language']} | {row['condition']} | {row['texts']} | {row['cut']} | "
            f"{row['wrong']} | {row['tokens']:,} | {row['forward_us']:,.0f} | "
            + (f"{spent['mean']:,.0f}, {spent['p50']:,.0f}, {spent['p99']:,.0f} | " if spent else "| ")
            + (f"{100 * spent['mean'] / row['forward_us']:.1f} % |" if spent else "|")
            + f" {row['measured']} |"
        )
    for condition in CONDITIONS:
        cells = [row for row in report["cells"] if row["condition"] == condition]
        total, cut, wrong = (sum(row[key] for row in cells) for key in ("texts", "cut", "wrong"))
        lines.append(f"| all | | {condition} | {total} | {cut} | {wrong} | | | | | |")
    bad = [(row, text) for row in report["cells"] if row["condition"] != "free" for text in row["wrong_texts"]]
    if bad:
        lines += ["", "## Wrong under a grammar", ""]
        lines += [f"- {row['model']}, {row['language']}, {row['condition']}: `{text!r}`" for row, text in bad]
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks generation", description=__doc__)
    parser.add_argument("--models", nargs="+", choices=sorted(WRITERS), default=["tiny", "smollm2"])
    parser.add_argument("--languages", nargs="+", choices=LANGUAGES, default=list(LANGUAGES))
    parser.add_argument("--conditions", nargs="+", choices=CONDITIONS, default=list(CONDITIONS))
    parser.add_argument("--texts", type=int, nargs=2, default=[125, 15], help="per cell: of the tiny model, of SmolLM2")
    parser.add_argument("--tokens", type=int, nargs=2, default=[100, 64], help="most new tokens, likewise")
    parser.add_argument("--seconds", type=float, default=0, help="begin no cell after so many seconds; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "generation")
    options = parser.parse_args(argv)
    begun = time.monotonic()
    SCRATCH.mkdir(parents=True, exist_ok=True)
    cells = []
    left_out = 0
    for number, name in enumerate(("tiny", "smollm2")):
        writer = None
        for language in LANGUAGES:
            for condition in CONDITIONS:
                count, limit = options.texts[number], options.tokens[number]
                kept = SCRATCH / f"{name}-{language}-{condition}-{count}-{limit}-{options.seed}.json"
                if not kept.exists():
                    late = options.seconds and time.monotonic() - begun > options.seconds
                    asked = name in options.models and language in options.languages
                    if late or not asked or condition not in options.conditions:
                        left_out += 1
                        continue
                    try:
                        writer = writer or WRITERS[name](options.seed)
                        made = cell(writer, language, condition, count, limit, options.seed)
                    except MissingJudge as missing:
                        print(f"{language} is left out: {missing}", flush=True)
                        left_out += 1
                        continue
                    kept.write_text(json.dumps({"model": name, "language": language, "condition": condition, **made}))
                written = datetime.datetime.fromtimestamp(kept.stat().st_mtime, datetime.UTC)
                row = {**json.loads(kept.read_text()), "measured": written.strftime("%Y-%m-%d %H:%M")}
                cells.append(row)
                shown = {key: value for key, value in row.items() if key not in ("samples", "wrong_texts")}
                print(json.dumps(shown), flush=True)
    report = {"machine": machine(), "seed": options.seed, "left_out": left_out, "cells": cells}
    options.out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    options.out.with_suffix(".md").write_text(page(report))
    print(f"{left_out} cells left out" if left_out else "complete")
