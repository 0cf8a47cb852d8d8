"""What has to stay small and flat: vocabularies from a file, warm masks, long and deep texts, memory.

    python -m benchmarks flat [--grammars 10000] [--out benchmarks/results/flat]

Llama 3's vocabulary, CPU time. Every token of a text must be in its mask before anything is timed. 'Block' is one call
for 64 matchers: what the core takes for a row, nearly without Python. Steps and depths are read again (warm): of ten
readings, the median over the places named. Memory is what the process holds more (resident) for 500 grammars with all
masks of a text met, for 2,000 matchers, and while `--grammars` different grammars come and go.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import guiderail as gr
from guiderail.compiled import _native_vocabulary  # the core's vocabulary is made when it is first needed, and kept

from .llama3_vocabulary import BenchmarkVocabulary, load
from .masks import machine
from .percentiles import figure, percentile, table
from .worker import resident_bytes

REPETITIONS = 10


def cpu_ms(function: Any) -> float:
    times = []
    for _ in range(REPETITIONS):
        begin = time.process_time_ns()
        function()
        times.append((time.process_time_ns() - begin) / 1e6)
    return percentile(times, 50)


def import_ms(statement: str) -> float:
    code = f"import time; b = time.process_time(); {statement}; print((time.process_time() - b) * 1e3)"
    return percentile(
        [float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
         for _ in range(5)], 50
    )  # fmt: skip


def vocabularies(llama: BenchmarkVocabulary) -> dict[str, float]:
    def core(vocabulary: gr.Vocabulary) -> None:
        _native_vocabulary.cache_clear()
        _native_vocabulary(vocabulary)

    def make() -> gr.Vocabulary:
        return gr.Vocabulary.from_bytes(llama.token_bytes, eos_token_ids=llama.eos_token_ids)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocabulary"
        make().save(path)
        assert gr.Vocabulary.load(path) == make()
        return {
            "from token bytes, core included, ms": cpu_ms(lambda: core(make())),
            "from a file, ms": cpu_ms(lambda: gr.Vocabulary.load(path)),
            "from a file, core included, ms": cpu_ms(lambda: core(gr.Vocabulary.load(path))),
            "import guiderail, numpy apart, ms": import_ms(
                "import numpy; b = time.process_time(); from guiderail import Vocabulary, compile"
            ),
        }


def read(compiled: gr.CompiledGrammar, tokens: list[int], bitmask: Any) -> list[float]:
    """µs of mask and accept_token, for each token."""
    matcher, times = compiled.matcher(), []
    for token in tokens:
        begin = time.process_time_ns()
        matcher.fill_next_token_bitmask(bitmask)
        accepted = matcher.accept_token(token)
        times.append((time.process_time_ns() - begin) / 1e3)
        assert accepted
        assert bitmask[0, token >> 5] >> (token & 31) & 1
    return times


def at(readings: list[list[float]], place: int, width: int) -> float:
    return percentile([t for times in readings for t in times[place - width : place + width]], 50)


def lengths_and_depths(json_grammar: gr.CompiledGrammar, llama: BenchmarkVocabulary, bitmask: Any) -> dict[str, float]:
    rows = [{"id": i, "name": f"name {i}", "tags": ["a", "b"], "ok": i % 2 == 0} for i in range(150)]
    long_text = llama.encode(json.dumps(rows))
    deep_text = [llama.encode("[")[0]] * 600
    assert len(long_text) > 2_050
    found = {}
    for name, tokens, places, width in (
        ("step", long_text, (100, 2_000), 50), ("depth", deep_text, (50, 500), 40)
    ):  # fmt: skip
        read(json_grammar, tokens, bitmask)
        readings = [read(json_grammar, tokens, bitmask) for _ in range(REPETITIONS)]
        for place in places:
            found[f"{name} {place:,}, µs"] = at(readings, place, width)
        found[f"{name}: ratio"] = at(readings, places[1], width) / at(readings, places[0], width)
    return found


def warm(json_grammar: gr.CompiledGrammar, llama: BenchmarkVocabulary, bitmask: Any) -> dict[str, float]:
    matchers, matcher = [], json_grammar.matcher()
    for token in llama.encode(json.dumps({"name": "John", "ages": [1, 2, 3], "more": {"a": None, "b": True}}))[:-1]:
        assert matcher.accept_token(token)
        matchers.append(matcher.fork())
    matchers = (matchers * 64)[:64]
    rows = gr.allocate_token_bitmask(64, llama_vocabulary(llama))
    calls = 2_000

    def one_by_one() -> None:
        for i in range(calls):
            matchers[i % 64].fill_next_token_bitmask(bitmask)

    one_by_one()
    single = cpu_ms(one_by_one) / calls * 1e3
    block = cpu_ms(lambda: [gr.fill_next_token_bitmask_batch(matchers, rows) for _ in range(50)]) / (50 * 64) * 1e3
    return {"through Python, µs": single, "block, µs a row": block}


def llama_vocabulary(llama: BenchmarkVocabulary) -> gr.Vocabulary:
    return gr.Vocabulary.from_bytes(llama.token_bytes, eos_token_ids=llama.eos_token_ids)


def numbered_schema(number: int) -> dict[str, Any]:
    name = f"field_{number}"
    return {
        "type": "object",
        "properties": {
            name: {"type": "string", "maxLength": 5 + number % 50},
            "kind": {"enum": [f"{name}_{i}" for i in range(5)]},
            "count": {"type": "integer", "minimum": 0, "maximum": number},
        },
        "required": [name, "kind"],
        "additionalProperties": False,
    }


def text_of(number: int) -> str:
    return json.dumps({f"field_{number}": "abc", "kind": f"field_{number}_3", "count": number // 2})


def memory(vocabulary: gr.Vocabulary, llama: BenchmarkVocabulary, bitmask: Any, count: int) -> dict[str, Any]:
    def used(number: int) -> gr.CompiledGrammar:
        compiled = gr.compile(gr.Grammar.from_json_schema(numbered_schema(number)), vocabulary)
        read(compiled, llama.encode(text_of(number)), bitmask)
        return compiled

    used(0)
    gc.collect()
    before = resident_bytes()
    grammars = [used(number) for number in range(1, 501)]
    gc.collect()
    with_grammars = resident_bytes()
    matchers = [grammars[0].matcher() for _ in range(2_000)]
    with_matchers = resident_bytes()
    assert not any(matcher.is_terminated for matcher in matchers)
    found: dict[str, Any] = {
        "a grammar with its masks, kB": (with_grammars - before) / 500 / 1e3,
        "a matcher, kB": (with_matchers - with_grammars) / 2_000 / 1e3,
    }
    del grammars, matchers
    tenths = []
    for number in range(count):
        used(1_000 + number)
        if number % (count // 10) == count // 10 - 1:
            gc.collect()
            tenths.append(round(resident_bytes() / 1e6))
    return found | {"grammars": count, "after each tenth, MB": tenths}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks flat", description=__doc__)
    parser.add_argument("--grammars", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "flat")
    options = parser.parse_args(arguments)
    llama = load()
    vocabulary = llama_vocabulary(llama)
    bitmask = gr.allocate_token_bitmask(1, vocabulary)
    result: dict[str, Any] = {"machine": machine(), "vocabulary": vocabularies(llama)}
    json_grammar = gr.compile(gr.Grammar.builtin("json"), vocabulary)
    result["mask and accept_token"] = lengths_and_depths(json_grammar, llama, bitmask)
    result["warm mask"] = warm(json_grammar, llama, bitmask)
    result["memory"] = memory(vocabulary, llama, bitmask, options.grammars)
    rows = [
        [part, name, ", ".join(map(str, value)) if isinstance(value, list) else figure(value)]
        for part in ("vocabulary", "warm mask", "mask and accept_token", "memory")
        for name, value in result[part].items()
    ]
    where = ", ".join(f"{key} {value}" for key, value in result["machine"].items())
    page = (
        f"# What stays small and flat\n\nLlama 3's vocabulary; CPU time; {where}.\n\n"
        + table(["", "", ""], rows)
        + "\n"
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    options.out.with_suffix(".md").write_text(page)
    print(page)
