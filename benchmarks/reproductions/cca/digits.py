"""CCA on real handwriting: the 1,797 digits of 8x8 pixels that scikit-learn ships, model and codes as for the glyphs.

1,400 digits train everything, 397 are what samples are compared with. An epoch is 21 steps here, so CCA is also shown
after 200. The judge's accuracy on the unseen digits is the ceiling for class accuracy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.reproductions import cca
from benchmarks.reproductions.cca import BATCH
from benchmarks.reproductions.claims import Claim

SCALES = (1.0, 1.5, 2.0, 3.0)


class World(cca.World):
    """Digits for glyphs; fewer steps, for they are few."""

    base_steps, judge_steps = 250, 400

    def pictures(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        from sklearn.datasets import load_digits  # a download of nothing: the data are in the package

        data = load_digits()
        order = rng.permutation(len(data.target))
        pictures = torch.tensor(data.images[order] / 16, dtype=torch.float32)
        labels = torch.tensor(data.target[order]).long()
        return pictures[:1400], labels[:1400], pictures[1400:], labels[1400:]


def run(seed: int, scratch: Path) -> dict[str, Any]:
    world = World(seed, scratch)
    epoch = len(world.labels) // BATCH
    tuned = {steps: world.aligned(3.0, steps) for steps in (epoch, 200)}
    return {
        "judge_on_unseen_digits": world.ceiling,
        "epoch_steps": epoch,
        "base_by_scale": {f"{scale:g}": world.figures(world.base, scale) for scale in SCALES},
        "cca_by_steps": {f"{steps}": world.figures(model, 1.0) for steps, model in tuned.items()},
        "cca_and_guidance_by_scale": {"1.25": world.figures(tuned[200], 1.25)},
    }


def _recovered(figures: Any) -> float:
    """Share of the gap none -> best guided, after the better of one epoch and 200 steps."""
    base = figures["base_by_scale"]
    best = min(row["frechet"] for row in base.values())
    cca_best = min(row["frechet"] for row in figures["cca_by_steps"].values())
    return float((base["1"]["frechet"] - cca_best) / max(base["1"]["frechet"] - best, 1e-9))


CLAIMS = [
    Claim("V1 digits", "cca.digits", "CCA without guidance is on par with guidance, on real handwriting",
          "recovers >= 0.8 of the gap none -> best guided in Frechet distance, lambda 3, better of 21 and 200 steps",
          "1,797 digits of 8x8 pixels, LlamaGen of 0.15 M parameters", _recovered, lambda v: v >= 0.8),
]  # fmt: skip
