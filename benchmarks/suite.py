"""The official JSON Schema test suite: what each engine gets right, accepts wrongly, refuses wrongly or does not take.

    GUIDERAIL_SUITE=PLACE python -m benchmarks suite [--engines llguidance xgrammar outlines-core] [--drafts draft7]

Our own engine is run by `tests/corpus/suite.py`, with its conventions: `format` asserted in optional/format only,
remote schemas through the registry, an instance accepted if one of its texts is (orders of members, json.dumps spacing,
plain decimals). The peers get the same schemas and texts, byte by byte (a token per byte: what a grammar accepts does
not depend on the vocabulary); none of them has a registry or a switch for formats. A schema that an engine refuses,
raises on, crashes on or does not compile within the CPU limit is 'not taken', with every case of it.
"""

from __future__ import annotations

import argparse
import collections
import json
import sys
from pathlib import Path
from typing import Any

from .masks import machine
from .percentiles import table
from .process import EngineProcess

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "corpus"))
import suite as official

PEERS = ("llguidance", "xgrammar", "outlines-core")
PARTS = ("required", "optional/format", "optional, other")
ANSWERS = ("right", "invalid accepted", "valid refused", "not taken")
OURS = {"right": "right", "invalid accepted": "invalid accepted", "valid refused": "valid refused"}


def part_of(file: str) -> str:
    if not file.startswith("optional"):
        return "required"
    return "optional/format" if file.startswith("optional/format") else "optional, other"


def ours(place: Path, draft: str) -> dict[str, collections.Counter[str]]:
    counts: dict[str, collections.Counter[str]] = {part: collections.Counter() for part in PARTS}
    for outcome, keys in official.run(place, draft).items():
        for key in keys:
            counts[part_of(key.removeprefix(f"{draft}/"))][OURS.get(outcome, "not taken")] += 1
    return counts


def peer(
    process: EngineProcess, cases: list[official.Case], reasons: collections.Counter[str]
) -> dict[str, collections.Counter[str]]:
    """One schema after the other, with all texts of its instances."""
    counts: dict[str, collections.Counter[str]] = {part: collections.Counter() for part in PARTS}
    groups: dict[str, list[official.Case]] = {}
    for case in cases:
        groups.setdefault(case.file + official.dumps(case.schema), []).append(case)
    for group in groups.values():
        texts = [[official.dumps(value) for value in official.orders(case.data)] for case in group]
        schema = json.loads(official.dumps(group[0].schema))
        verdict = process.ask({"kind": "verify", "schema": schema, "texts": [text for some in texts for text in some]})
        counter = counts[part_of(group[0].file)]
        if verdict["status"] != "ok":
            reasons[verdict["status"]] += len(group)
            counter["not taken"] += len(group)
            continue
        answers = iter(verdict["answers"])
        for case, some in zip(group, texts, strict=True):
            accepted = [next(answers)["accepted"] for _ in some]
            if any(accepted) == case.valid:
                counter["right"] += 1
            else:
                counter["valid refused" if case.valid else "invalid accepted"] += 1
    return counts


def report(result: dict[str, Any]) -> str:
    where = ", ".join(f"{key} {value}" for key, value in result["machine"].items())
    page = f"# The official JSON Schema test suite\n\n`python -m benchmarks suite`; {where}.\n"
    for draft, engines in result["drafts"].items():
        for part in PARTS:
            rows = []
            for engine, entry in engines.items():
                counts = entry["counts"][part]
                total = sum(counts.values())
                if total:
                    shares = [f"{counts.get(answer, 0)} ({counts.get(answer, 0) / total:.1%})" for answer in ANSWERS]
                    rows.append([f"{engine} {entry['version']}", *shares])
            if rows:
                page += f"\n{draft}, {part}, {total} cases:\n\n{table(['engine', *ANSWERS], rows)}\n"
        notes = [
            f"{engine}: {', '.join(f'{count} {status}' for status, count in entry['reasons'].items())}"
            for engine, entry in engines.items()
            if entry["reasons"]
        ]
        if notes:
            page += f"\nCases not taken, by why: {'; '.join(notes)}.\n"
    return page


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks suite", description=__doc__)
    parser.add_argument("--engines", nargs="*", default=list(PEERS), choices=PEERS)
    parser.add_argument("--drafts", nargs="*", default=["draft2020-12"], choices=list(official.DIALECTS))
    parser.add_argument("--cpu-limit", type=float, default=4.0, help="CPU seconds per schema")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "suite")
    options = parser.parse_args(arguments)
    place = official.find_suite()
    if place is None:
        print("suite: GUIDERAIL_SUITE does not name the official suite (see tests/corpus/suite.py); skipped")
        return
    import guiderail

    result: dict[str, Any] = {"machine": machine(), "drafts": {}}
    for draft in options.drafts:
        engines: dict[str, Any] = {
            "guiderail": {"version": guiderail.__version__, "counts": ours(place, draft), "reasons": {}}
        }
        cases = official.read_cases(place, draft)
        for name in options.engines:
            reasons: collections.Counter[str] = collections.Counter()
            with EngineProcess(
                name, cpu_limit_s=options.cpu_limit, wall_limit_s=60.0, warm_up=[], vocabulary="bytes"
            ) as process:
                counts = peer(process, cases, reasons)
                version = process.hello["version"]
            engines[name] = {"version": version, "counts": counts, "reasons": reasons}
        result["drafts"][draft] = engines
        print(draft, {name: sum(c["right"] for c in entry["counts"].values()) for name, entry in engines.items()})
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    page = report(result)
    options.out.with_suffix(".md").write_text(page)
    print(page)
