"""The section 'What it costs' of docs/guidance.md, made from the committed results.

python -m benchmarks.guidance.report            # rewrites the section between its two markers
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results"
PAGE = ROOT / "docs" / "guidance.md"
BEGIN = "<!-- made by `python -m benchmarks.guidance.report`; do not edit -->"
END = "<!-- end of what is made -->"
WAYS = {
    "plain": "plain",
    "transformers guidance_scale": "`guidance_scale`",
    "guiderail processor": "our processor",
    "guiderail loop": "our loop",
}
MODELS = {"cpu-random": "random, 6 layers", "cpu-smollm2": "SmolLM2"}
RIVAL = "language-model-arithmetic"


def read(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def cost() -> str:
    """The table of ms per step; in how many of its rows ours are faster than transformers."""
    lines = [f"| ms of CPU time per step | {' | '.join(WAYS.values())} |", "|" + "---|" * (len(WAYS) + 1)]
    faster = rows = wrong = refused = 0
    rivals = []
    for file, model in MODELS.items():
        for setting, measured in read(file)["ms_per_step"].items():
            ways = measured["ways"]
            lines.append(f"| {model}, {setting} | {' | '.join(shown(ways.get(way)) for way in WAYS)} |")
            theirs = ways["transformers guidance_scale"]
            wrong += theirs["answer"].startswith("wrong")
            refused += "median" not in theirs
            if "median" in theirs:
                rows += 1
                own = [ways[way]["median"] for way in WAYS if way.startswith("guiderail") and way in ways]
                faster += max(own) < theirs["median"]
            if RIVAL in ways:
                rivals.append(f"{model}, {setting}: {ways[RIVAL]['median']:.1f} ({ways[RIVAL]['answer']})")
    text = (
        f"In brackets: times plain. Faster than `guidance_scale` in {faster} of the {rows} settings that it runs; in "
        f"{wrong} of these its text is wrong (w), in {refused} more it raises. eth-sri's {RIVAL} in the same run: "
        f"{'; '.join(rivals)} ms."
    )
    return "\n".join(lines) + "\n\n" + text


def shown(way: dict[str, Any] | None) -> str:
    if way is None:
        return "–"
    if "median" not in way:
        return "raises"
    mark = ", w" if way["answer"].startswith("wrong") else ""
    return f"{way['median']:.1f} ({way['times_plain']:.2f}{mark})"


def forwards() -> str:
    report = read("forwards")
    lines = ["| forward passes | greedy | fewer per token | sampled | fewer per token |", "|---|---|---|---|---|"]
    for way in report["greedy"]:
        cells = []
        for sampling in ("greedy", "sampled"):
            row = report.get(sampling, {}).get(way)
            cells.append("– | –" if row is None else f"{row['passes']} | {row['fewer_passes']:.0%}")
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return f"{report['extractions']} extractions with SmolLM2, scale 1.5:\n\n" + "\n".join(lines)


def section() -> str:
    truth, real, extraction, kernel = (read(name) for name in ("truth", "smollm2", "extraction", "kernel"))
    ways = real["ways"]
    agree = sum(row["compared"] - row["differ"] for row in ways.values())
    compared, ties = (sum(row[name] for row in ways.values()) for name in ("compared", "ties"))
    valid = [f"{row['valid']} of {row['extractions']} at {scale}" for scale, row in extraction["scales"].items()]
    faster = [row["times_faster"] for row in kernel["results"]]
    return "\n\n".join(
        [
            BEGIN,
            cost(),
            forwards(),
            f"Valid JSON under guidance, by scale: {', '.join(valid)}.",
            f"The fused step on a CPU ({kernel['build']}): {min(faster):.1f} to {max(faster):.1f} times as fast as the "
            "eager chain.",
            f"Equal to the reference that recomputes every stream: {truth['agree']} of {truth['cells']} cells of rule "
            f"and way of decoding ({truth['compared']} tokens and beams, {truth['ties']} ties within 1e-4; "
            f"[table](../benchmarks/guidance/results/truth.md)); SmolLM2 with negative prompts: {agree} of {compared} "
            f"({ties} ties).",
            END,
        ]
    )


def rewritten(page: str) -> str:
    """The page with its made section made again."""
    start, end = page.index(BEGIN), page.index(END) + len(END)
    return page[:start] + section() + page[end:]


def main() -> None:
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
