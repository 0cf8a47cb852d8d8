"""CCA on VAR: the glyph models of `var`, unguided, guided, tuned with CCA, tuned and guided.

125 steps of 32 pictures, five eighths of an epoch, at a tenth of the base model's rate, as in the paper; beta is the
paper's scaled by the length (84 tokens). Beside it the base model after as many more steps of likelihood at that rate.
On handwriting: `var.mnist`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.reproductions.cca.mnist import halved, recovered
from benchmarks.reproductions.claims import Claim
from benchmarks.reproductions.small_models import kept, trained
from benchmarks.reproductions.var import World, ramp

WEIGHT, RATE, STEPS = 3.0, 2e-4, 125
SCALES = (1.0, 1.5, 2.0, 3.0)


def run(seed: int, scratch: Path) -> dict[str, Any]:
    world = World(seed, scratch.parent.parent / "var" / str(seed))
    world.scratch, world.tuning_rate = scratch, RATE
    longer = world.copy_of_base()
    trained(longer, lambda step: world.likelihood_loss(longer, step), "longer", scratch, steps=STEPS, rate=RATE)
    tuned = world.aligned(WEIGHT, STEPS)

    def measured(name: str, model: Any, scale: float) -> Any:
        return kept(scratch, f"{name} {scale:g}", lambda: world.figures(model, ramp(scale)))

    return {
        "judge_on_reconstructions": world.ceiling,
        "steps": STEPS,
        "base_by_scale": {f"{s:g}": measured("base", world.base, s) for s in SCALES},
        "cca_by_weight": {f"{WEIGHT:g}": measured("cca", tuned, 1.0)},
        "cca_and_guidance_by_scale": {"1.25": measured("cca", tuned, 1.25)},
        "as_many_more_steps_of_likelihood": {"1": measured("longer", longer, 1.0)},
    }


SETTING = "ten drawn glyphs as 2x2, 4x4, 8x8 token maps, VAR of 0.3 M parameters, 125 steps, lambda 3"
CLAIMS = [
    Claim("V1 VAR", "var.contrast", "CCA without guidance is on par with guidance, on VAR", "recovers >= 0.8 of the "
          "gap none -> best ramp of guidance in Fréchet distance, and as many more steps of likelihood do not do as "
          "well", SETTING, recovered, lambda v: v >= 0.8),
    Claim("V2 VAR", "var.contrast", "half the sampling cost", "evaluations exactly 0.5", SETTING, halved,
          lambda v: v == 0.5),
]  # fmt: skip
