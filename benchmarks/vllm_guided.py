"""Where the time of guided sequences goes: `build/vllm-env/bin/python benchmarks/vllm_guided.py [--dtype bfloat16]`.

The engine runs in this process, with one thread. Steps of 16 plain sequences, of 32 plain ones and of 16 guided ones
(32 rows) take turns; each step's time is divided among the scheduler, the model with its head, and the sampler with the
guidance inside it. The second is what the third would cost if a second stream were a sequence like any other, and
mixing free. Times are processor times of this process; other load makes even these longer (caches, memory),
so the least disturbed tenth of the steps is shown beside the medians. Writes benchmarks/results/vllm_guided.json and
.md; a dtype that is not run keeps its last figures.

Bias: as vllm_server.py; on a CPU a forward pass of 32 rows costs nearly twice that of 16, on a GPU that is limited by
reading weights hardly more.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from percentiles import figure, percentile, table
from vllm_server import RESULTS, machine

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from vllm_engine.engine import PAIRS, make_engine

TOKENS, ROUNDS, SEQUENCES = 32, 4, 16
PARTS = ("schedule", "model", "sample", "guidance", "update", "other")


class Clock:
    """Adds up the seconds in wrapped functions, and keeps those of each step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.steps: list[float] = []

    def wrap_step(self, engine: Any) -> None:
        step = engine.step

        def timed() -> Any:
            start = time.process_time()
            found = step()
            self.steps.append(time.process_time() - start)
            return found

        engine.step = timed

    def wrap(self, owner: Any, name: str, part: str) -> None:
        function: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **options: Any) -> Any:
            start = time.process_time()
            try:
                return function(*args, **options)
            finally:
                self.seconds[part] = self.seconds.get(part, 0.0) + time.process_time() - start

        setattr(owner, name, timed)


def run(llm: Any, clock: Clock, count: int, guided: bool) -> dict[str, float]:
    """Milliseconds per step by part, and tokens per second, of one batch."""
    from vllm import SamplingParams

    pairs = [PAIRS[number % len(PAIRS)] for number in range(count)]
    parameters = [
        SamplingParams(
            temperature=0.8,
            max_tokens=TOKENS,
            ignore_eos=True,
            extra_args={"guidance_scale": 1.5, "negative_prompt": negative} if guided else None,
        )
        for _, negative in pairs
    ]
    clock.seconds.clear()
    clock.steps.clear()
    start = time.process_time()
    outputs = llm.generate([prompt for prompt, _ in pairs], parameters, use_tqdm=False)
    whole = time.process_time() - start
    parts = dict(clock.seconds)
    inside = parts.pop("sampler")
    parts["guidance"] = parts.get("guidance", 0.0)
    # sample_tokens is copying, sampling and bookkeeping; the sampler's part that is ours is shown by itself.
    parts["sample"] = parts["sample"] - parts["guidance"]
    parts["other"] = whole - sum(parts.values())
    found = {part: 1e3 * parts[part] / TOKENS for part in PARTS}
    tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
    return {
        **found,
        "step": 1e3 * whole / TOKENS,
        "undisturbed": 1e3 * percentile(clock.steps, 10),
        "sampler": 1e3 * inside / TOKENS,
        "tokens_per_s": tokens / whole,
    }


def main() -> None:
    about = machine()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    dtype = options.dtype
    llm = make_engine(max_num_seqs=32, max_model_len=128, dtype=dtype)
    from vllm.v1.sample.sampler import Sampler

    from guiderail.integrations.vllm.logits_processor import GuidanceLogitsProcessor

    scheduler = llm.llm_engine.engine_core.engine_core.scheduler
    runner = llm.llm_engine.model_executor.driver_worker.worker.model_runner
    clock = Clock()
    clock.wrap(scheduler, "schedule", "schedule")
    clock.wrap(scheduler, "update_from_output", "update")
    clock.wrap(runner, "execute_model", "model")
    clock.wrap(runner, "sample_tokens", "sample")
    clock.wrap(Sampler, "sample", "sampler")
    clock.wrap_step(llm.llm_engine)
    for name in ("apply", "before_sampling", "after_sampling", "update_state"):
        clock.wrap(GuidanceLogitsProcessor, name, "guidance")
    kinds = {
        f"{SEQUENCES} plain": (SEQUENCES, False),
        f"{2 * SEQUENCES} plain": (2 * SEQUENCES, False),
        f"{SEQUENCES} guided": (SEQUENCES, True),
    }
    path = RESULTS / "vllm_guided.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    rounds: list[dict[str, dict[str, float]]] = []
    for number in range(options.rounds + 1):
        found = {kind: run(llm, clock, *given) for kind, given in kinds.items()}
        print({kind: round(entry["tokens_per_s"], 1) for kind, entry in found.items()}, flush=True)
        if number:  # the first warms up
            rounds.append(found)
            results[dtype] = {"machine": about, **_result(rounds)}
            path.write_text(json.dumps(results, indent=1) + "\n")
            path.with_suffix(".md").write_text(report(results))
    print(report(results))


def _result(rounds: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    plain, double, guided = kinds = list(rounds[0])
    return {
        "guided_of_plain": [entry[guided]["tokens_per_s"] / entry[plain]["tokens_per_s"] for entry in rounds],
        # What a second row alone leaves: 32 plain sequences write twice as many tokens per step.
        "second_rows_alone": [entry[double]["tokens_per_s"] / 2 / entry[plain]["tokens_per_s"] for entry in rounds],
        "undisturbed_guided_of_plain": [entry[plain]["undisturbed"] / entry[guided]["undisturbed"] for entry in rounds],
        "undisturbed_ms": {kind: min(entry[kind]["undisturbed"] for entry in rounds) for kind in kinds},
        "tokens_per_cpu_second": {kind: [entry[kind]["tokens_per_s"] for entry in rounds] for kind in kinds},
        "ms_per_step": {
            kind: {
                part: statistics.median(entry[kind][part] for entry in rounds) for part in (*PARTS, "step", "sampler")
            }
            for kind in kinds
        },
    }


def report(results: dict[str, Any]) -> str:
    lines = ["# Guided sequences in vLLM: where the time goes", ""]
    for dtype, result in results.items():
        lines += [f"## {dtype}", "", *_section(result)]
    return "\n".join(lines)


def _section(result: dict[str, Any]) -> list[str]:
    rates = result["tokens_per_cpu_second"]
    rows = [
        [kind, *(figure(parts[part]) for part in (*PARTS, "step")), figure(statistics.median(rates[kind]))]
        for kind, parts in result["ms_per_step"].items()
    ]

    plain, _, guided = result["ms_per_step"].values()
    lost = {part: guided[part] - plain[part] for part in PARTS}
    rows.append(["what guiding adds", *(figure(lost[part]) for part in PARTS), figure(sum(lost.values())), ""])
    undisturbed = list(result.get("undisturbed_ms", {}).values())  # not kept by earlier runs
    share = lost["model"] / sum(lost.values())

    def line(values: list[float]) -> str:
        return f"{statistics.median(values):.2f} (rounds: {', '.join(f'{value:.2f}' for value in values)})"

    best = []
    if undisturbed:
        best = [
            f"Of the least disturbed tenth of the steps: {line(result['undisturbed_guided_of_plain'])}; the best "
            f"rounds of each: {undisturbed[0] / undisturbed[2]:.2f} ({', '.join(figure(ms) for ms in undisturbed)} ms)."
        ]
    return [
        f"Of {result['machine']}. Processor milliseconds per step, medians of {len(result['guided_of_plain'])} rounds; "
        f"SmolLM2-135M on the CPU, sequences of {TOKENS} tokens.",
        "",
        table(["sequences", *PARTS, "whole step", "tokens per processor second"], rows),
        "",
        f"Tokens per second of {SEQUENCES} guided over {SEQUENCES} plain sequences: {line(result['guided_of_plain'])}.",
        *best,
        f"The same if a second stream were a plain sequence, and mixing free: {line(result['second_rows_alone'])}.",
        f"Of what guiding adds to a step, {share:.0%} is the model's pass over the second streams' rows.",
        "",
    ]


if __name__ == "__main__":
    main()
