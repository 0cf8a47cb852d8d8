"""Beyond schemas: built-in JSON over documents, cost along a text and in depth, set-up, memory, batches.

    python -m benchmarks.grammars --engines guiderail llguidance xgrammar

The texts and what each figure is for are data: definitions.toml. Every engine has a process of its own (process.py);
worker.py says what is cold and what is warm. Figures are CPU microseconds unless a column says otherwise.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

from .masks import DEFAULT_SCHEMAS, HERE, machine, warm_up_jobs
from .percentiles import figure, figures, percentile, summary, table
from .process import REPOSITORY, EngineProcess, read_jsonl

STATS = ("mean", "p50", "p90", "p99", "max")
CPU_LIMIT_S = 60.0


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.grammars", description=__doc__.split("\n")[0])
    parser.add_argument("--engines", nargs="+", default=["guiderail", "llguidance", "xgrammar"])
    parser.add_argument("--documents", nargs="*", default=[], help="more JSON files for the benchmark 'builtin-json'")
    parser.add_argument("--schemas", default=DEFAULT_SCHEMAS, help="whose schemas are kept in memory together")
    parser.add_argument("--out", default=str(HERE / "results" / "grammars"))
    return parser.parse_args(argv)


def packaged_documents() -> list[str]:
    """The meta-schemas that `jsonschema-specifications` installs, one text per file."""
    root = resources.files("jsonschema_specifications") / "schemas"
    texts = []
    for draft in sorted(root.iterdir(), key=lambda entry: entry.name):
        for entry in (
            [draft, *sorted((draft / "vocabularies").iterdir(), key=lambda e: e.name)]
            if (draft / "vocabularies").is_dir()
            else [draft]
        ):
            file = entry if entry.is_file() else entry / "metaschema.json"
            if file.is_file():
                # Some engines take no white space after the value; a final newline is not what is measured.
                texts.append(file.read_text(encoding="utf-8").strip())
    return texts


def rows_text(count: int) -> str:
    """A JSON array of `count` small objects, the same on every machine."""
    names = ["lamp", "chair", "Schrank", "table à café", "étagère", "sofa", "desk", "tapis"]
    rows = [
        {
            "id": index * 7919 % 10007,
            "name": f"{names[index % 8]} {index}",
            "tags": [names[(index + k) % 8] for k in range(index % 4)],
            "score": round((index * 37 % 1000) / 8 - 20, 3),
            "active": index % 3 == 0,
        }
        for index in range(count)
    ]
    return json.dumps(rows, separators=(",", ":"), ensure_ascii=False)


def nested_text(depth: int) -> str:
    return '{"a":[1,' * depth + "0" + "]}" * depth


def texts_of(definition: dict[str, Any], options: argparse.Namespace) -> list[str]:
    if "documents" in definition:
        return packaged_documents() + [Path(path).read_text(encoding="utf-8") for path in options.documents]
    if "rows" in definition:
        return [rows_text(definition["rows"])]
    return [nested_text(depth) for depth in definition["depths"]]


def job_of(definition: dict[str, Any]) -> dict[str, Any]:
    if "schema" in definition:
        return {"schema": json.loads(definition["schema"])}
    return {"grammar": definition["grammar"]}


def measure(process: EngineProcess, definition: dict[str, Any], texts: list[str]) -> dict[str, Any]:
    verdict = process.ask({"kind": "verify", **job_of(definition), "texts": texts})
    if verdict["status"] != "ok":
        return {"status": verdict["status"], "reason": verdict["reason"]}
    right = [text for text, answer in zip(texts, verdict["answers"], strict=True) if answer["accepted"]]
    wrong = [answer for answer in verdict["answers"] if not answer["accepted"]]
    if not right:
        return {"status": "rejected", "reason": f"all {len(texts)} texts: {wrong[0]}"}
    timed = process.ask({"kind": "time", **job_of(definition), "texts": right})
    if timed["status"] != "ok":
        return {"status": timed["status"], "reason": timed["reason"]}
    runs = timed["runs"]
    result: dict[str, Any] = {
        "status": "ok",
        "texts": len(right),
        "rejected": len(wrong),
        "tokens": sum(run["tokens"] for run in runs),
        "first_mask_us": runs[0]["first_mask_us"],
        "counters": runs[-1]["counters"],
        **{
            name: summary([value for run in runs for value in run[name]])
            for name in ("cold_us", "warm_us", "warm_block_us", "accept_us", "warm_accept_us")
        },
    }
    if "windows" in definition:
        (run,) = runs
        result["windows"] = {
            f"{start}-{stop}": {
                name: percentile(run[name][start:stop], 50) for name in ("cold_us", "warm_block_us", "accept_us")
            }
            | {"cold_mean_us": sum(run["cold_us"][start:stop]) / (stop - start)}
            for start, stop in definition["windows"]
            if run["tokens"] >= stop
        }
    if "depths" in definition:
        middle = dict(zip(definition["depths"], runs, strict=False))
        result["depths"] = {
            depth: {
                name: percentile(run[name][run["tokens"] // 3 : 2 * run["tokens"] // 3], 50)
                for name in ("cold_us", "warm_block_us", "accept_us")
            }
            for depth, run in middle.items()
        }
    return result


def memory(process: EngineProcess, options: argparse.Namespace) -> dict[str, Any]:
    """Schemas with one valid text each, those the engine takes."""
    schemas, texts = [], []
    for row in read_jsonl(options.schemas):
        valid = [json.dumps(test["data"]) for test in row["tests"] if test["valid"]]
        if not valid or len(schemas) >= 100:
            continue
        verdict = process.ask({"kind": "verify", "schema": row["schema"], "texts": valid[:1]})
        if verdict["status"] == "ok" and verdict["answers"][0]["accepted"]:
            schemas.append(row["schema"])
            texts.append(valid[0])
    # Resident size is counted in pages and in what the allocator keeps: few small grammars would read as nothing.
    repeats = max(1, 100 // max(1, len(schemas)))
    schemas, texts = schemas * repeats, texts * repeats
    process.stop()  # the memory of what was verified must not be reused
    answer = process.ask({"kind": "memory", "schemas": schemas, "texts": texts, "matchers": 2000})
    answer["grammars"] = len(schemas)
    return answer


SETUP = """
import json, time, sys
from benchmarks import llama3_vocabulary
source = llama3_vocabulary.load()
times = []
import guiderail as gr
gr.compile(gr.Grammar.from_regex("a"), gr.Vocabulary.from_bytes([b"a", b""], eos_token_ids=[1]))
for _ in range(3):
    start = time.process_time()
    vocabulary = gr.Vocabulary.from_bytes(
        source.token_bytes, eos_token_ids=source.eos_token_ids, special_tokens=source.special_tokens)
    gr.compile(gr.Grammar.from_regex("a"), vocabulary)
    times.append(time.process_time() - start)
print(json.dumps(times))
"""


def setup_times() -> list[list[float]]:
    """Seconds to a first compiled grammar from raw token bytes: three times in a process, and in a second process."""
    found = []
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", SETUP], cwd=REPOSITORY, capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout))
    return found


BATCH = """
import json, time, sys, os
import numpy as np
import guiderail as gr
from benchmarks import llama3_vocabulary
from benchmarks.grammars import rows_text
source = llama3_vocabulary.load()
vocabulary = gr.Vocabulary.from_bytes(
    source.token_bytes, eos_token_ids=source.eos_token_ids, special_tokens=source.special_tokens)
compiled = gr.compile(gr.Grammar.builtin("json"), vocabulary)
ids = source.encode(rows_text(20))
result = {}
for batch in (1, 16, 64, 256):
    matchers = [compiled.matcher() for _ in range(batch)]
    for index, matcher in enumerate(matchers):
        matcher.accept_tokens(ids[: 5 * (index % 64)])
    mask = np.zeros((batch, (len(source) + 31) // 32), dtype=np.int32)
    gr.fill_next_token_bitmask_batch(matchers, mask)
    start = time.perf_counter()
    for _ in range(50):
        gr.fill_next_token_bitmask_batch(matchers, mask)
    together = (time.perf_counter() - start) / 50
    start = time.perf_counter()
    for _ in range(50):
        for row, matcher in enumerate(matchers):
            matcher.fill_next_token_bitmask(mask, row)
    result[batch] = {"batch_us": together * 1e6, "serial_us": (time.perf_counter() - start) / 50 * 1e6}
print(json.dumps(result))
"""


def batch_times() -> dict[str, dict[str, float]]:
    """Wall microseconds for the masks of a whole batch, warm: one call, and one call per matcher."""
    done = subprocess.run([sys.executable, "-c", BATCH], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    found: dict[str, dict[str, float]] = json.loads(done.stdout)
    return found


def report(result: dict[str, Any], definitions: list[dict[str, Any]]) -> str:
    parts = ["# Grammars\n", ", ".join(f"{key} {value}" for key, value in result["machine"].items()) + ".\n"]
    for definition in definitions:
        answers = result["benchmarks"][definition["name"]]
        parts += [f"## {definition['name']}\n\n{definition['shows']}\n"]
        rows = []
        for engine, answer in answers.items():
            if answer["status"] != "ok":
                rows.append([engine, f"{answer['status']}: {answer['reason'][:100]}", *[""] * 6])
                continue
            rows.append(
                [engine, f"{answer['texts']} ({answer['rejected']} rejected)", str(answer["tokens"])]
                + [figure(answer["first_mask_us"])]
                + [figures(answer[name], STATS) for name in ("cold_us", "warm_us", "warm_block_us", "accept_us")]
            )
        head = ["engine", "texts", "tokens", "first mask", "cold mask", "warm mask", "warm, block of 8", "accept"]
        parts.append(table(head, rows) + "\n")
        for kind in ("windows", "depths"):
            if kind in definition:
                parts.append(_along(kind, answers) + "\n")
    if "memory" in result:
        rows = [
            [engine, str(a["grammars"]), figure(a["bytes_per_grammar"] / 1024), figure(a["bytes_per_matcher"] / 1024)]
            for engine, a in result["memory"].items()
            if a["status"] == "ok"
        ]
        parts.append(
            "## memory\n\nResident KiB, compiled grammars with all masks of one text met, kept alive together.\n"
        )
        parts.append(table(["engine", "grammars", "KiB per compiled grammar", "KiB per matcher"], rows) + "\n")
    parts.append("## set-up\n\nCPU seconds to create the engine's vocabulary, 128,256 tokens.\n")
    parts.append(table(["engine", "seconds"], [[e, figure(s)] for e, s in result["setup_s"].items()]) + "\n")
    if result.get("guiderail_setup_s"):
        shown = "; then in a new process ".join(
            ", ".join(f"{value:.3f}" for value in times) for times in result["guiderail_setup_s"]
        )
        parts.append(f"guiderail, raw bytes to a first compiled grammar, three times in one process: {shown}.\n")
    if result.get("batch"):
        parts.append("## batches\n\nguiderail, wall microseconds for all masks of a batch, warm.\n")
        rows = [[b, figure(t["batch_us"]), figure(t["serial_us"])] for b, t in result["batch"].items()]
        parts.append(table(["batch", "one call", "a call per matcher"], rows) + "\n")
    return "\n".join(parts)


def _along(kind: str, answers: dict[str, Any]) -> str:
    """Medians along a text: tokens at these steps, or between brackets this deep."""
    places = next((list(answer[kind]) for answer in answers.values() if answer.get(kind)), [])
    rows = []
    for engine, answer in answers.items():
        if answer.get(kind):
            for name, label in (("cold_us", "cold"), ("warm_block_us", "warm"), ("accept_us", "accept")):
                values = [answer[kind].get(place, {}).get(name) for place in places]
                rows.append([engine, label, *map(figure, values)])
    return table(["engine", "median", *(f"{kind[:-1]} {place}" for place in places)], rows)


def main(argv: list[str] | None = None) -> None:
    options = arguments(argv)
    definitions = tomllib.loads((HERE / "definitions.toml").read_text(encoding="utf-8"))["benchmark"]
    result: dict[str, Any] = {"machine": machine(), "benchmarks": {}, "memory": {}, "setup_s": {}}
    processes = {
        engine: EngineProcess(engine, cpu_limit_s=CPU_LIMIT_S, wall_limit_s=6 * CPU_LIMIT_S, warm_up=warm_up_jobs())
        for engine in options.engines
    }
    try:
        for definition in definitions:
            texts = texts_of(definition, options)
            result["benchmarks"][definition["name"]] = {
                engine: measure(process, definition, texts) for engine, process in processes.items()
            }
            print(definition["name"], file=sys.stderr)
        for engine, process in processes.items():
            result["setup_s"][engine] = process.hello["setup_s"]
            result["memory"][engine] = memory(process, options)
    finally:
        for process in processes.values():
            process.stop()
    if "guiderail" in options.engines:
        result["guiderail_setup_s"] = setup_times()
        result["batch"] = batch_times()
    out = Path(options.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    page = report(result, definitions)
    out.with_suffix(".md").write_text(page)
    print(page)


if __name__ == "__main__":
    main()
