"""Run one seed of one paper, or gather what was run into a table.

    make reproduce PAPER=cca SEED=0            writes benchmarks/reproductions/results/cca-0.json
    make reproduce PAPER=cca.enumerable SEED=0  a second world of the same paper
    make reproduce PAPER=samples SEED=0        docs/reproductions/samples.md, from the checkpoints of a seed
    make reproduce PAPER=samples SEED=0 ONLY=cca  one paper's part of it
    make reproduce PAPER=all                   gathers: results.json, and docs/reproductions.md from it

A run that was stopped continues from its checkpoints in benchmarks/scratch. Figures in the documentation come from the
JSON files alone.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from benchmarks.reproductions.claims import Claim, Figures
from benchmarks.reproductions.report import page, plots

HERE = Path(__file__).parent
RESULTS = HERE / "results"
SCRATCH = HERE.parent / "scratch" / "reproductions"
DOCS = HERE.parents[1] / "docs"
SAMPLES = """# Samples

Written by `make reproduce PAPER=samples`; chosen by nobody, they are the first of their seed.
"""
PAPERS = (
    "captioning",
    "captioning.exact",
    "cca",
    "cca.control",
    "cca.dial",
    "cca.digits",
    "cca.enumerable",
    "cca.mnist",
    "gedi",
    "gedi.genres",
    "gedi.reviews",
    "gedi.unseen",
    "syncode",
    "transfer",
    "transfer.tuned",
    "var",
    "var.contrast",
    "var.mnist",
    "voxinstruct",
    "voxinstruct.speech",
)


def module_of(paper: str) -> ModuleType:
    """A paper's folder, or one world of it."""
    return importlib.import_module(f"benchmarks.reproductions.{paper}")


def run(paper: str, seed: int) -> None:
    """One seed; the result is written when it is complete."""
    module = module_of(paper)
    start = time.process_time()
    figures = module.run(seed, SCRATCH / paper / str(seed))
    record = {
        "paper": paper,
        "seed": seed,
        "figures": figures,
        "cpu_seconds_of_this_process": round(time.process_time() - start, 1),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{paper}-{seed}.json").write_text(json.dumps(record, indent=1) + "\n")
    for claim in module.CLAIMS:
        value = claim.value(figures)
        print(f"{claim.name}: {value:.4g} ({'met' if claim.passes(value) else 'not met'}): {claim.bar}")


def gather() -> None:
    """results.json, plots and docs/reproductions.md from the seeds that were run."""
    rows: list[dict[str, Any]] = []
    figures: dict[str, dict[int, Figures]] = {}
    claims: list[Claim] = []
    for paper in PAPERS:
        claims += module_of(paper).CLAIMS
        for path in sorted(RESULTS.glob(f"{paper}-*.json")):
            record = json.loads(path.read_text())
            figures.setdefault(paper, {})[record["seed"]] = record["figures"]
    for claim in sorted(claims, key=lambda claim: claim.name):
        if claim.paper in figures:
            rows.append(claim.row(figures[claim.paper]))
    (HERE / "results.json").write_text(json.dumps(rows, indent=1) + "\n")
    pictures = plots(figures, DOCS / "reproductions")
    missing = [claim for claim in claims if claim.paper not in figures]
    (DOCS / "reproductions.md").write_text(page(rows, figures, missing, pictures))
    print(f"{len(rows)} claims, {sum(row['met'] for row in rows)} met")


def samples(seed: int, only: str | None = None) -> None:
    """What the models say and draw: a sheet for every paper that has one, from checkpoints (trained if missing).

    The parts of other papers than `only` stay as they are.
    """
    folder = DOCS / "reproductions"
    folder.mkdir(exist_ok=True)
    path = folder / "samples.md"
    there = path.read_text().split("\n## ")[1:] if path.exists() else []
    parts = {part.partition("\n")[0]: part.partition("\n")[2].strip() for part in there}
    for paper in PAPERS:
        module = module_of(paper)
        if hasattr(module, "sample_sheet") and only in (None, paper):
            sheet = module.sample_sheet(seed, SCRATCH / paper / str(seed), folder)
            parts[paper] = f"Seed {seed}.\n\n{sheet.strip()}"
    path.write_text(SAMPLES + "".join(f"\n## {paper}\n\n{parts[paper]}\n" for paper in PAPERS if paper in parts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--paper", choices=(*PAPERS, "samples", "all"), required=True, help="'all' gathers, and runs nothing"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=PAPERS, help="with 'samples': one paper's sheet")
    arguments = parser.parse_args()
    if arguments.paper == "all":
        gather()
    elif arguments.paper == "samples":
        samples(arguments.seed, arguments.only)
    else:
        run(arguments.paper, arguments.seed)


if __name__ == "__main__":
    main()
