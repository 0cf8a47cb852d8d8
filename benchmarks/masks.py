"""Masks for JSON Schemas: what each engine answers, then what each answer costs.

    python -m benchmarks.masks --schemas FILE.jsonl[.gz] --engines guiderail llguidance xgrammar outlines-core

FILE holds one schema a line: {"id", "schema", "tests": [{"valid": bool, "data": any}]}. Without it the small set beside
this file is used (`GUIDERAIL_BENCH_SCHEMAS` sets another default).

Two passes, each with a fresh process per engine. First the answers: every instance, valid or not, as the canonical
tokens of `json.dumps(instance)`, mask and accept at each token; refusals, time-outs, valid texts rejected and invalid
ones accepted are counted. Then the timings (worker.py says what is cold and what is warm), only on valid instances that
this engine accepted. The engines take turns, ten schemas at a time, so that a change in the machine's load falls on
all. Ratios are over the instances that both engines got right. Figures are CPU microseconds.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from .percentiles import figure, figures, summary, table
from .process import REPOSITORY, EngineProcess, read_jsonl

HERE = Path(__file__).parent
DEFAULT_SCHEMAS = os.environ.get("GUIDERAIL_BENCH_SCHEMAS", str(HERE / "schemas-small.jsonl"))
DEFAULT_ENGINES = ["guiderail", "llguidance", "xgrammar", "outlines-core"]
TURN = 10
SERIES = ("cold_us", "first_visit_us", "warm_us", "warm_block_us", "accept_us", "warm_accept_us")
EAGER = {"outlines-core"}


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.masks", description=__doc__.split("\n")[0])
    parser.add_argument("--schemas", default=DEFAULT_SCHEMAS, help="JSON lines, gzipped or not")
    parser.add_argument("--engines", nargs="+", default=DEFAULT_ENGINES)
    parser.add_argument("--limit", type=int, help="a seeded sample of this many schemas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--instances", type=int, default=2, help="valid instances timed per schema")
    parser.add_argument("--cpu-limit", type=float, default=10.0, help="CPU seconds for one schema in one engine")
    parser.add_argument("--again", action="store_true", help="time a second fresh compile in the same process as well")
    parser.add_argument(
        "--cap", nargs="*", default=[], metavar="ENGINE=N", help="only the first N schemas for a slow engine"
    )
    parser.add_argument(
        "--out", default=str(HERE / "results" / "masks"), help="path without suffix: .json and .md are written"
    )
    return parser.parse_args(argv)


def warm_up_jobs() -> list[dict[str, Any]]:
    """Schemas of our own that touch strings, numbers, literals, arrays and open objects once."""
    return [
        {
            "kind": "verify",
            "schema": row["schema"],
            "texts": [json.dumps(t["data"]) for t in row["tests"] if t["valid"]],
        }
        for row in read_jsonl(str(HERE / "schemas-warm-up.jsonl"))
    ]


def each_turn(
    rows: list[dict[str, Any]], engines: list[str], caps: dict[str, int], options: argparse.Namespace, ask: Any
) -> dict[str, Any]:
    """Run `ask(process, row)` for every row and engine, ten rows at a time; answers[engine][row id], and the hellos."""
    processes = {
        engine: EngineProcess(
            engine,
            cpu_limit_s=options.cpu_limit,
            wall_limit_s=6 * options.cpu_limit,
            warm_up=[] if engine in EAGER else warm_up_jobs(),
        )
        for engine in engines
    }
    answers: dict[str, dict[str, Any]] = {engine: {} for engine in engines}
    try:
        for start in range(0, len(rows), TURN):
            for engine, process in processes.items():
                for row in rows[start : min(start + TURN, caps.get(engine, len(rows)))]:
                    answers[engine][row["id"]] = ask(process, row)
            print(f"\r{min(start + TURN, len(rows))}/{len(rows)} schemas", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        hellos = {engine: process.hello for engine, process in processes.items()}
    finally:
        for process in processes.values():
            process.stop()
    return {"answers": answers, "hellos": hellos}


def verify(process: EngineProcess, row: dict[str, Any]) -> dict[str, Any]:
    texts = [json.dumps(test["data"]) for test in row["tests"]]
    return process.ask({"kind": "verify", "schema": row["schema"], "texts": texts})


def accepted_texts(row: dict[str, Any], verdict: dict[str, Any], instances: int) -> list[str]:
    if verdict["status"] != "ok":
        return []
    right = [
        json.dumps(test["data"])
        for test, answer in zip(row["tests"], verdict["answers"], strict=True)
        if test["valid"] and answer["accepted"]
    ]
    return right[:instances]


def outcome(rows: list[dict[str, Any]], verdicts: dict[str, Any]) -> dict[str, Any]:
    """Counts of what an engine answered, and the reasons it gave for not answering."""
    counts: dict[str, Any] = {
        "schemas": len(verdicts), "ok": 0, "refused": 0, "timeout": 0, "raised": 0, "crashed": 0,
        "valid": 0, "valid_rejected": 0, "invalid": 0, "invalid_accepted": 0, "mask_disagrees": 0,
    }  # fmt: skip
    reasons: dict[str, str] = {}
    wrong: dict[str, list[str]] = {"valid_rejected": [], "invalid_accepted": []}
    for row in rows:
        verdict = verdicts.get(row["id"])
        if verdict is None:
            continue
        counts[verdict["status"]] += 1
        if verdict["status"] != "ok":
            reasons[row["id"]] = f"{verdict['status']}: {verdict['reason']}"
            continue
        for index, (test, answer) in enumerate(zip(row["tests"], verdict["answers"], strict=True)):
            expected = "valid" if test["valid"] else "invalid"
            counts[expected] += 1
            counts["mask_disagrees"] += answer["mask_disagrees_at"] is not None
            if test["valid"] and not answer["accepted"]:
                counts["valid_rejected"] += 1
                wrong["valid_rejected"].append(f"{row['id']}#{index}")
            if not test["valid"] and answer["accepted"]:
                counts["invalid_accepted"] += 1
                wrong["invalid_accepted"].append(f"{row['id']}#{index}")
    return {**counts, "reasons": reasons, "wrong": wrong}


def pooled(timings: dict[str, Any], repetition: int, only: set[str] | None = None) -> dict[str, Any]:
    """Every token of every run in one pool per series; `only` restricts to these 'schema id\\0text' keys."""
    pools: dict[str, list[float]] = {name: [] for name in (*SERIES, "compile_us", "first_mask_us")}
    for row_id, answer in timings.items():
        if answer["status"] != "ok":
            continue
        runs = [run for run in answer["runs"] if run["repetition"] == repetition]
        chosen = [run for run in runs if only is None or f"{row_id}\0{run['text']}" in only]
        for run in chosen:
            for name in SERIES:
                pools[name].extend(run.get(name, ()))
        # One first mask per schema, not one per instance: schemas with many instances must not weigh more.
        if chosen and runs and "first_mask_us" in runs[0]:
            for name in ("compile_us", "first_mask_us"):
                pools[name].append(runs[0][name])
    return {name: summary(values) for name, values in pools.items()}


def mark_first_visits(timed: dict[str, Any]) -> None:
    """Adds 'first_visit_us' to every engine's runs: its cold figures at those positions of a text where an engine that
    tells (worker.py) had no mask yet. A text repeats itself; this leaves the repetitions out, for all engines alike."""
    first: dict[tuple[str, str], list[bool]] = {}
    for timings in timed.values():
        for row_id, answer in timings.items():
            for run in answer.get("runs", ()):
                if run["repetition"] == 0 and any(run.get("first_visit", ())):
                    first[row_id, run["text"]] = run["first_visit"]
    for timings in timed.values():
        for row_id, answer in timings.items():
            for run in answer.get("runs", ()):
                flags = first.get((row_id, run["text"]), [])
                run["first_visit_us"] = [us for us, new in zip(run.get("cold_us", ()), flags, strict=False) if new]


def run_keys(timings: dict[str, Any]) -> set[str]:
    return {
        f"{row_id}\0{run['text']}"
        for row_id, answer in timings.items()
        if answer["status"] == "ok"
        for run in answer["runs"]
    }


def machine() -> dict[str, Any]:
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "",
    )
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": model,
        "cores": os.cpu_count(),
        "load_1min": os.getloadavg()[0],
        "python": platform.python_version(),
        "commit": commit.stdout.strip() or "none",
    }


def report(result: dict[str, Any]) -> str:
    """The Markdown page: answers, costs, ratios, reasons."""
    engines = list(result["engines"])
    stats = ("mean", "p50", "p90", "p99", "max")
    parts = [
        "# Masks for JSON Schemas\n",
        f"{result['rows']} schemas of `{result['schemas']}`, vocabulary {result['vocabulary']}; CPU time; "
        + ", ".join(f"{key} {value}" for key, value in result["machine"].items())
        + ".\n",
        "Answers (every instance, valid and invalid):\n",
        table(
            [
                "engine",
                "version",
                "compiled",
                "refused",
                "timed out",
                "raised",
                "crashed",
                "valid rejected",
                "invalid accepted",
            ],
            [
                [name, e["hello"].get("version", "-"), f"{e['outcome']['ok']}/{e['outcome']['schemas']}"]
                + [str(e["outcome"][key]) for key in ("refused", "timeout", "raised", "crashed")]
                + [
                    f"{e['outcome']['valid_rejected']}/{e['outcome']['valid']}",
                    f"{e['outcome']['invalid_accepted']}/{e['outcome']['invalid']}",
                ]
                for name, e in result["engines"].items()
            ],
        ),
        "\nCosts in µs, mean / p50 / p90 / p99 / max, each engine over the valid instances that it accepts:\n",
        table(
            [
                "engine",
                "compile",
                "first mask (with compile)",
                "cold mask",
                "of these, first visits",
                "warm mask",
                "warm, block of 8",
                "accept",
                "tokens",
                "clock floor",
                "setup s",
            ],
            [
                [name]
                + [
                    figures(e["own"][key], stats)
                    for key in (
                        "compile_us",
                        "first_mask_us",
                        "cold_us",
                        "first_visit_us",
                        "warm_us",
                        "warm_block_us",
                        "accept_us",
                    )
                ]
                + [
                    str(e["own"]["accept_us"].get("n", 0)),
                    figure(e["hello"].get("clock_floor_us")),
                    figure(e["hello"].get("setup_s")),
                ]
                for name, e in result["engines"].items()
            ],
        ),
    ]
    if any(e.get("again") for e in result["engines"].values()):
        parts += [
            "\nA second fresh compile of the same schema in the same process:\n",
            table(
                ["engine", "first mask", "cold mask", "accept"],
                [
                    [name] + [figures(e["again"][key], stats) for key in ("first_mask_us", "cold_us", "accept_us")]
                    for name, e in result["engines"].items()
                    if e.get("again")
                ],
            ),
        ]
    if result["ratios"]:
        parts += [
            f"\nTimes as dear as {result['baseline']} (the peer's figure / ours), on the instances that both accept, "
            "mean / p50 / p90 / p99 / max:\n",
            table(
                ["engine", "instances", "first mask", "cold mask", "of these, first visits", "warm mask", "accept"],
                [
                    [name, str(ratio["instances"])]
                    + [
                        figures(ratio[key], stats)
                        for key in ("first_mask_us", "cold_us", "first_visit_us", "warm_us", "accept_us")
                    ]
                    for name, ratio in result["ratios"].items()
                ],
            ),
        ]
    for name in engines:
        reasons = result["engines"][name]["outcome"]["reasons"]
        if reasons:
            parts.append(f"\n<details><summary>{name}: {len(reasons)} schemas not answered</summary>\n")
            parts.extend(f"- `{row_id}`: {reason.splitlines()[0][:160]}" for row_id, reason in reasons.items())
            parts.append("\n</details>")
    return "\n".join(parts) + "\n"


def main(argv: list[str] | None = None) -> None:
    options = arguments(argv)
    rows = list(read_jsonl(options.schemas))
    if options.limit and options.limit < len(rows):
        rows = random.Random(options.seed).sample(rows, options.limit)
    caps = {name: int(number) for name, _, number in (cap.partition("=") for cap in options.cap)}

    verified = each_turn(rows, options.engines, caps, options, verify)
    texts = {
        engine: {
            row["id"]: accepted_texts(row, answers[row["id"]], options.instances)
            for row in rows
            if row["id"] in answers
        }
        for engine, answers in verified["answers"].items()
    }

    def time_one(process: EngineProcess, row: dict[str, Any]) -> dict[str, Any]:
        verdict = verified["answers"][process.engine][row["id"]]
        if verdict["status"] != "ok":
            return verdict
        chosen = texts[process.engine][row["id"]]
        answer = process.ask({"kind": "time", "schema": row["schema"], "texts": chosen, "again": options.again})
        for index, run in enumerate(answer.get("runs", ())):
            run["text"] = chosen[index % len(chosen)] if chosen else ""
        return answer

    timed = each_turn(rows, options.engines, caps, options, time_one)
    mark_first_visits(timed["answers"])
    result: dict[str, Any] = {
        "schemas": Path(options.schemas).name,
        "rows": len(rows),
        "vocabulary": "Llama 3, 128,256 tokens",
        "machine": machine(),
        "options": {
            "instances": options.instances,
            "cpu_limit_s": options.cpu_limit,
            "seed": options.seed,
            "caps": caps,
        },
        "engines": {},
        "ratios": {},
    }
    for engine in options.engines:
        timings = timed["answers"][engine]
        result["engines"][engine] = {
            "hello": timed["hellos"][engine],
            "outcome": outcome(rows, verified["answers"][engine]),
            "own": pooled(timings, 0),
            "again": pooled(timings, 1) if options.again else None,
            "schemas": {
                row_id: {
                    "first_mask_us": answer["runs"][0].get("first_mask_us"),
                    "cold": summary([value for run in answer["runs"] for value in run.get("cold_us", ())]),
                    "counters": answer["runs"][0].get("counters", {}),
                }
                for row_id, answer in timings.items()
                if answer["status"] == "ok"
            },
        }
    baseline = options.engines[0]
    result["baseline"] = baseline
    for engine in options.engines[1:]:
        common = run_keys(timed["answers"][baseline]) & run_keys(timed["answers"][engine])
        ours = pooled(timed["answers"][baseline], 0, common)
        theirs = pooled(timed["answers"][engine], 0, common)
        if common:
            result["ratios"][engine] = {
                "instances": len(common),
                **{
                    name: {
                        key: theirs[name][key] / ours[name][key]
                        for key in ours[name]
                        if key != "n" and ours[name][key] > 0 and key in theirs[name]
                    }
                    for name in ours
                },
                "ours": ours,
                "theirs": theirs,
            }

    out = Path(options.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    page = report(result)
    out.with_suffix(".md").write_text(page)
    print(page)


if __name__ == "__main__":
    main()
