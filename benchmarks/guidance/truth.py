"""Every guidance rule in every way of decoding, token for token against a reference that recomputes every stream.

    python -m benchmarks.guidance.truth [--output benchmarks/guidance/results/truth]

Definition. `tests/guidance/truth_table.py` on random models with 41 tokens (Llama- and T5-shaped). Greedy: every token
must be the best of the float64 reference; a step counts as equal too where the reference's best two are within 1e-4,
and is counted as a tie. Sampling: the token that the same random numbers draw from the reference's distribution. Beams:
scores within 1e-3 and the tokens of the reference's own beam search. The exit status is 1 unless every cell agrees.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
import transformers

TESTS = Path(__file__).parents[2] / "tests"
RESULTS = Path(__file__).parent / "results" / "truth"


def table(ways: list[str], rows: dict[str, dict[str, str]]) -> str:
    lines = [
        "| rule | " + " | ".join(str(index + 1) for index in range(len(ways))) + " |",
        "|---" * (len(ways) + 1) + "|",
    ]
    lines += [f"| {name} | " + " | ".join(row[way] for way in ways) + " |" for name, row in rows.items()]
    return "\n".join(lines)


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULTS, help="without its ending: .json and .md are written")
    arguments = parser.parse_args(given)
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    sys.path.insert(0, str(TESTS))
    from guidance.rule_cases import CASES
    from guidance.truth_table import WAYS, applies, run

    ways = list(WAYS)
    rows: dict[str, dict[str, str]] = {}
    cells: dict[str, dict[str, Any]] = {}
    compared = ties = failures = 0
    start = time.process_time()
    for case in CASES:
        rows[case.name], cells[case.name] = {}, {}
        for way in ways:
            if not applies(case, way):
                rows[case.name][way] = "–"
                continue
            try:
                outcome = run(case, way)
            except AssertionError as error:
                failures += 1
                rows[case.name][way] = "**differs**"
                cells[case.name][way] = {"differs": str(error)}
                print(f"{case.name}, {way}: {error}", flush=True)
                continue
            compared, ties = compared + outcome.compared, ties + outcome.ties
            rows[case.name][way] = f"{outcome.compared}" + (f" ({outcome.ties})" if outcome.ties else "")
            cells[case.name][way] = {"compared": outcome.compared, "ties": outcome.ties}
    count = sum(len(row) for row in cells.values())
    summary = (
        f"{count - failures} of {count} cells agree ({len(CASES)} rules, {len(ways)} ways): {compared} tokens and "
        f"beams compared, {ties} of them ties within 1e-4."
    )
    report = {
        "cells": count, "agree": count - failures, "compared": compared, "ties": ties,
        "cpu_s": round(time.process_time() - start, 1),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__}, "table": cells,
    }  # fmt: skip
    numbered = "\n".join(f"{index + 1}. {way}" for index, way in enumerate(ways))
    text = (
        "# Guidance against the brute-force reference\n\nMade by `python -m benchmarks.guidance.truth`; its docstring "
        f"says what is compared.\n\n{summary} A number is how many tokens (beams: sequences) were compared, in "
        f"brackets how many were ties; – = no such cell.\n\n{numbered}\n\n{table(ways, rows)}\n"
    )
    arguments.output.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    arguments.output.with_suffix(".md").write_text(text)
    print(summary)
    if failures:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
