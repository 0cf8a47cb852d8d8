"""Is it the contrast, or just more training? CCA against as many more steps of likelihood, on the models of `cca`.

CCA starts from a trained model and takes 200 more steps; a model that was not trained to the end would gain from any
steps. So the same copies take the same steps at the same rate on the same data with the base model's own loss. That the
base model is at its end is told by the likelihood of drawings it has not seen.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from benchmarks.reproductions.cca import BATCH, CCA_RATE, EXAMPLES, SETTING, World, drawings
from benchmarks.reproductions.claims import Claim
from benchmarks.reproductions.small_models import trained
from guiderail.training.llamagen import LlamaGenModel


@torch.no_grad()
def held_out(world: World, model: LlamaGenModel) -> float:
    """Nats a code, of 4,000 fresh drawings."""
    pictures, labels = drawings(4000, np.random.default_rng([world.seed, 1]))
    codes = world.quantised(pictures)
    return float(cross_entropy(model(labels, codes[:, :-1]).transpose(1, 2), codes))


def run(seed: int, scratch: Path) -> dict[str, Any]:
    world = World(seed, scratch.parent.parent / "cca" / str(seed))
    steps = EXAMPLES // BATCH
    longer = world.copy_of_base()
    trained(longer, lambda step: world.likelihood_loss(longer, step), "longer", scratch, steps=steps, rate=CCA_RATE)
    models = {"base": world.base, "200 more steps": longer, "CCA, lambda 3": world.aligned(3.0, steps)}
    return {
        "unguided": {
            name: {**world.figures(model, 1.0), "held_out_nats": held_out(world, model)}
            for name, model in models.items()
        }
    }


def _beyond(figures: Any) -> float:
    """Fréchet distance of CCA over that of the control."""
    rows = figures["unguided"]
    return float(rows["CCA, lambda 3"]["frechet"] / rows["200 more steps"]["frechet"])


CLAIMS = [
    Claim("V1 control", "cca.control", "CCA without guidance is on par with guidance", "Fréchet distance of CCA below "
          "that after equally many steps of likelihood; value: ratio", SETTING, _beyond, lambda v: v < 1,
          "The base model is at its end: the steps of the control take the loss on unseen drawings from {all "
          "unguided/base/held_out_nats|.3f} to {all unguided/200 more steps/held_out_nats|.3f} nats by seed, and the "
          "distance from {all unguided/base/frechet|.3f} to {all unguided/200 more steps/frechet|.3f}; CCA takes it "
          "to {all unguided/CCA, lambda 3/frechet|.3f}."),
]  # fmt: skip
