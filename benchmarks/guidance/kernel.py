"""The fused guidance step against the eager chain in torch, one thread each.

    python -m benchmarks.guidance.kernel [--output results.json]

Definition. K streams of random scores, one weight each, plausibility 0.1 over legal tokens, a mask, temperature 0.8:
what a step of guided, constrained sampling computes from logits. The chain is written the way a careful user writes it,
with everything that does not change from step to step taken out (its mask is unpacked beforehand; the kernel reads the
packed one). Results are compared before anything is timed. Reported: CPU time per step, the median of rounds in which
the two take turns, and copy bandwidth: how fast the same bytes (K rows read, one written) are moved by `copy_`.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from guiderail import _core
from guiderail.logits.bitmask import unpack_token_bitmask
from guiderail.logits.kernels import guided_log_probs

ALPHA = 0.1


def eager_chain(streams: Tensor, weights: Tensor, legal: Tensor | None, temperature: Tensor) -> Tensor:
    log_probs = [scores.log_softmax(-1) for scores in streams]
    guided = weights[:, :1] * log_probs[0]
    for index, stream in enumerate(log_probs[1:], start=1):
        guided = guided + weights[:, index : index + 1] * stream
    trusted = log_probs[0] if legal is None else log_probs[0].masked_fill(~legal, -math.inf)
    keep = trusted >= trusted.amax(-1, keepdim=True) + math.log(ALPHA)
    return (guided.masked_fill(~keep, -math.inf) / temperature[:, None]).log_softmax(-1)


def cpu_us(run: Callable[[], object], times: int) -> float:
    start = time.process_time()
    for _ in range(times):
        run()
    return (time.process_time() - start) / times * 1e6


def measure(vocab: int, count: int, rows: int, mask: str, rounds: int) -> dict[str, float | int | str]:
    rng = np.random.default_rng(vocab + count + rows)
    streams = torch.from_numpy(rng.normal(size=(count, rows, vocab)).astype(np.float32) * 3)
    weights = torch.tensor([[1.5] + [-0.5 / (count - 1)] * (count - 1)] * rows)
    temperature = torch.full((rows,), 0.8)
    words = rng.integers(-(2**31), 2**31, size=(rows, (vocab + 31) // 32)).astype(np.int32)
    if mask == "few legal":
        words[:, np.arange(words.shape[1]) % 97 != 0] = 0
    bitmask = None if mask == "no mask" else torch.from_numpy(words)
    legal = None if bitmask is None else unpack_token_bitmask(bitmask, vocab, device="cpu")
    output = torch.empty(rows, vocab)

    def fused() -> Tensor:
        return guided_log_probs(streams, weights, bitmask=bitmask, plausibility=ALPHA, temperature=temperature)

    def eager() -> Tensor:
        return eager_chain(streams, weights, legal, temperature)

    def copy() -> None:
        for stream in streams:
            output.copy_(stream)

    torch.testing.assert_close(fused(), eager(), atol=1e-4, rtol=1e-4)
    times = max(3, 4_000_000 // (vocab * rows * count))
    taken = [(cpu_us(fused, times), cpu_us(eager, times), cpu_us(copy, times)) for _ in range(rounds)]
    own, chain, copied = (statistics.median(column) for column in zip(*taken, strict=True))
    # copy_ reads and writes K rows, the kernel must read K and write one.
    least = copied * (count + 1) / (2 * count)
    return {
        "vocab": vocab,
        "streams": count,
        "rows": rows,
        "mask": mask,
        "fused_us": round(own, 1),
        "eager_us": round(chain, 1),
        "times_faster": round(chain / own, 1),
        "share_of_copy_bandwidth": round(least / own, 2),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    results = []
    for vocab in (49_152, 128_256):
        for count, rows in ((2, 1), (3, 1), (2, 8)):
            for mask in ("no mask", "half legal", "few legal"):
                results.append(measure(vocab, count, rows, mask, options.rounds))
                print(results[-1], flush=True)
    report = {"build": _core.guided_log_probs_builds()[0], "torch": torch.__version__, "results": results}
    if options.output is not None:
        options.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
