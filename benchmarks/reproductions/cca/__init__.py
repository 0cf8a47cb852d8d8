"""CCA (Chen et al. 2024) on drawn glyphs with a small LlamaGen model, trained until held-out likelihood hardly falls.

The world draws ten glyphs, each a few strokes with jittered ends, on 8x8 pixels; 2x2 patches become 64 codes, 16 a
picture. The judge is a small convolutional network trained on the same drawings; the Fréchet distance is taken in
its last hidden layer against fresh drawings. The model is too small for the glyphs, as the published ones are for
ImageNet: one of 0.03 million parameters, trained to its end, draws them so well that guidance has nothing to add. CCA
takes one epoch at a tenth of the base model's rate, as published. Size, steps and rates were chosen on seed 100.
Nothing here is FID on ImageNet: the figures are analogues.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.reproductions.claims import Claim
from benchmarks.reproductions.small_models import trained
from guiderail.guidance.token_models import LlamaGen
from guiderail.training import RolledConditions, condition_contrastive_loss, sequence_log_prob
from guiderail.training.llamagen import LlamaGenModel, LlamaGenSettings, sample_codes

CODES, SIDE, CLASSES = 64, 4, 10
BATCH, EXAMPLES, BASE_STEPS = 64, 12_800, 6000
BETA = 0.02 * 576 / SIDE**2  # the paper's value, scaled by the length of the sequence
WEIGHTS = (1.0, 3.0, 10.0, 30.0)
SCALES = (1.0, 1.25, 1.5, 2.0, 3.0, 5.0)
BASE_RATE, CCA_RATE = 6e-3, 6e-4
SAMPLES = 5000

# Strokes (x, y) -> (x, y) in the unit square
GLYPHS = [
    [(0.2, 0.2, 0.8, 0.2), (0.8, 0.2, 0.8, 0.8), (0.8, 0.8, 0.2, 0.8), (0.2, 0.8, 0.2, 0.2)],
    [(0.5, 0.1, 0.5, 0.9)],
    [(0.2, 0.2, 0.8, 0.2), (0.8, 0.2, 0.2, 0.8), (0.2, 0.8, 0.8, 0.8)],
    [(0.2, 0.2, 0.8, 0.8), (0.8, 0.2, 0.2, 0.8)],
    [(0.2, 0.1, 0.2, 0.5), (0.2, 0.5, 0.8, 0.5), (0.7, 0.1, 0.7, 0.9)],
    [(0.8, 0.2, 0.2, 0.2), (0.2, 0.2, 0.2, 0.5), (0.2, 0.5, 0.8, 0.5), (0.8, 0.5, 0.8, 0.8), (0.8, 0.8, 0.2, 0.8)],
    [(0.2, 0.1, 0.2, 0.9), (0.2, 0.9, 0.8, 0.9)],
    [(0.2, 0.2, 0.8, 0.2), (0.8, 0.2, 0.4, 0.9)],
    [(0.5, 0.1, 0.5, 0.9), (0.1, 0.5, 0.9, 0.5)],
    [(0.5, 0.1, 0.1, 0.8), (0.5, 0.1, 0.9, 0.8)],
]


def drawings(count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Pictures float32 (count, 8, 8) in [0, 1] and labels (count,)."""
    labels = rng.integers(CLASSES, size=count)
    grid = (np.arange(8) + 0.5) / 8
    pixels = np.stack(np.meshgrid(grid, grid, indexing="xy"), -1).reshape(1, 64, 2)
    pictures = np.zeros((count, 64))
    for label, strokes in enumerate(GLYPHS):
        rows = np.flatnonzero(labels == label)
        shift = rng.normal(0, 0.04, (len(rows), 1, 2))
        width = rng.uniform(0.07, 0.12, (len(rows), 1))
        for stroke in strokes:
            a = np.array(stroke[:2]) + shift + rng.normal(0, 0.05, (len(rows), 1, 2))
            b = np.array(stroke[2:]) + shift + rng.normal(0, 0.05, (len(rows), 1, 2))
            along = np.clip(((pixels - a) * (b - a)).sum(-1) / ((b - a) ** 2).sum(-1), 0, 1)
            distance = np.linalg.norm(pixels - a - along[..., None] * (b - a), axis=-1)
            pictures[rows] = np.maximum(pictures[rows], np.exp(-((distance / width) ** 2)))
    return torch.tensor(pictures, dtype=torch.float32).reshape(-1, 8, 8), torch.tensor(labels)


def patches(pictures: Tensor, size: int = 2) -> Tensor:
    """Square patches row by row: (count, side, side) -> (count, (side / size)^2, size^2)."""
    side = pictures.shape[1] // size
    return pictures.reshape(-1, side, size, side, size).permute(0, 1, 3, 2, 4).reshape(-1, side**2, size**2)


def pictures_of(codes: Tensor, book: Tensor) -> Tensor:
    """Inverse of the quantiser: codes (count, n^2) and vectors of square patches -> pictures."""
    side, size = math.isqrt(codes.shape[1]), math.isqrt(book.shape[1])
    pixels = book[codes].reshape(-1, side, side, size, size).permute(0, 1, 3, 2, 4)
    return pixels.reshape(-1, side * size, side * size)


def codebook(vectors: Tensor, generator: torch.Generator, size: int = CODES) -> Tensor:
    """k-means, 30 rounds; an empty cluster restarts at a random vector."""
    book = vectors[torch.randperm(len(vectors), generator=generator)[:size]].clone()
    for _ in range(30):
        nearest = torch.cdist(vectors, book).argmin(1)
        counts = torch.bincount(nearest, minlength=size)
        book = torch.zeros_like(book).index_add(0, nearest, vectors) / counts.clamp(min=1)[:, None]
        empty = counts == 0
        book[empty] = vectors[torch.randint(len(vectors), (int(empty.sum()),), generator=generator)]
    return book


class Judge(nn.Module):
    """Classifier whose hidden layer is the space of the Fréchet distance."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(512, 32), nn.Tanh(),
        )  # fmt: skip
        self.head = nn.Linear(32, CLASSES)

    def forward(self, pictures: Tensor) -> Tensor:
        out: Tensor = self.head(self.features(pictures[:, None]))
        return out


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Squared Fréchet distance of the Gaussians fitted to two samples (count, width)."""
    a, b = a.double(), b.double()
    gap = (a.mean(0) - b.mean(0)).square().sum()
    first, second = torch.cov(a.T), torch.cov(b.T)
    values, vectors = torch.linalg.eigh(first)
    root = vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ second @ root).clamp(min=0).sqrt().sum()
    return float(gap + first.trace() + second.trace() - 2 * cross)


def recall(real: Tensor, made: Tensor, neighbours: int = 3) -> float:
    """Share of real features within reach of what was made: nearer to a made one than its own 3rd neighbour among the
    made is (Kynkäänniemi et al. 2019, arXiv:1904.06991). Args: features (count, width), the count should be alike."""
    reach = torch.cdist(made, made).kthvalue(neighbours + 1, dim=1).values
    return float((torch.cdist(real, made) <= reach).any(1).float().mean())


def sample(model: LlamaGenModel, labels: Tensor, scale: float, generator: torch.Generator) -> tuple[Tensor, int]:
    """Codes (batch, grid^2) and how many rows the model evaluated per picture and code."""
    codes, rows = sample_codes(model, labels, LlamaGen(scale=scale, top_k=0), generator)
    return codes, round(rows)


class World:
    """Everything a seed trains once: data, judge, base model."""

    base_steps, base_rate, judge_steps = BASE_STEPS, BASE_RATE, 400
    patch, vocab, batch = 2, CODES, BATCH
    width, layers = 16, 2
    beta, tuning_rate, samples = BETA, CCA_RATE, SAMPLES

    def __init__(self, seed: int, scratch: Path) -> None:
        self.seed, self.scratch = seed, scratch
        pictures, self.labels, fresh, fresh_labels = self.pictures(np.random.default_rng(seed))
        generator = torch.Generator().manual_seed(seed)
        self.book = codebook(patches(pictures[:2000], self.patch).flatten(0, 1), generator, self.vocab)
        self.codes = self.quantised(pictures)
        recon = pictures_of(self.quantised(fresh), self.book)
        torch.manual_seed(seed)
        judge = self.untrained_judge()
        seen = torch.cat([pictures, pictures_of(self.codes, self.book)])
        twice = self.labels.repeat(2)

        def judge_loss(step: int) -> Tensor:
            rows = torch.randint(len(seen), (128,), generator=torch.Generator().manual_seed(seed * 7919 + step))
            return cross_entropy(judge(seen[rows]), twice[rows])

        self.judge = trained(judge, judge_loss, "judge", scratch, steps=self.judge_steps)
        with torch.no_grad():
            self.truth = self.judge.features(recon[:, None])
            self.ceiling = float((self.judge(recon).argmax(1) == fresh_labels).float().mean())
        torch.manual_seed(seed)
        self.base = self.untrained()
        trained(
            self.base, lambda step: self.likelihood_loss(self.base, step), "base", scratch,
            steps=self.base_steps, rate=self.base_rate,
        )  # fmt: skip

    def pictures(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Pictures and labels to learn from, and others to compare with."""
        return *drawings(EXAMPLES, rng), *drawings(self.samples, rng)

    def quantised(self, pictures: Tensor) -> Tensor:
        """Codes (count, patches)."""
        return torch.cdist(patches(pictures, self.patch), self.book).argmin(-1)

    def untrained_judge(self) -> Judge:
        return Judge()

    def untrained(self) -> LlamaGenModel:
        return LlamaGenModel(
            LlamaGenSettings(
                vocab=CODES,
                width=self.width,
                layers=self.layers,
                heads=4,
                grid=SIDE,
                classes=CLASSES,
                multiple_of=32,
                dropout=0.05,
            )
        )

    def copy_of_base(self) -> LlamaGenModel:
        model = self.untrained()
        model.load_state_dict(self.base.state_dict())
        return model

    def rows(self, step: int) -> Tensor:
        """Indices of a batch; each epoch is a permutation."""
        per_epoch = len(self.labels) // self.batch
        epoch, index = divmod(step, per_epoch)
        order = torch.randperm(len(self.labels), generator=torch.Generator().manual_seed(self.seed * 1000 + epoch))
        return order[index * self.batch : (index + 1) * self.batch]

    def likelihood_loss(self, model: LlamaGenModel, step: int) -> Tensor:
        rows = self.rows(step)
        labels, codes = self.labels[rows], self.codes[rows]
        dropped = torch.rand(len(rows), generator=torch.Generator().manual_seed(step)) < 0.1
        logits = model(labels.masked_fill(dropped, CLASSES), codes[:, :-1])
        return cross_entropy(logits.transpose(1, 2), codes)

    def aligned(self, weight: float, steps: int) -> LlamaGenModel:
        """CCA from the base model."""
        model, reference = self.copy_of_base(), self.copy_of_base().eval()

        def loss(step: int) -> Tensor:
            rows = self.rows(step)
            halves = RolledConditions(
                self.labels[rows], CLASSES, 0.1, torch.Generator().manual_seed(self.seed * 31 + step)
            )
            conditions = torch.cat([halves.matched, halves.mismatched])
            codes = self.codes[rows].repeat(2, 1)
            with torch.no_grad():
                before = sequence_log_prob(reference(conditions, codes[:, :-1]), codes)
            ratio = sequence_log_prob(model(conditions, codes[:, :-1]), codes) - before
            matched, mismatched = ratio.chunk(2)
            return condition_contrastive_loss(
                matched, mismatched, beta=self.beta, negative_weight=weight, no_negative=halves.no_negative
            )

        return trained(model, loss, f"cca-{weight:g}-{steps}", self.scratch, steps=steps, rate=self.tuning_rate)

    @torch.no_grad()
    def figures(self, model: LlamaGenModel, scale: float) -> dict[str, float]:
        labels = torch.arange(self.samples) % CLASSES
        codes, rows = sample(model, labels, scale, torch.Generator().manual_seed(self.seed))
        pictures = pictures_of(codes, self.book)
        features = self.judge.features(pictures[:, None])
        probabilities = torch.softmax(self.judge.head(features), -1)
        marginal = probabilities.mean(0, keepdim=True)
        inception = (probabilities * (probabilities.clamp(min=1e-12) / marginal).log()).sum(-1).mean().exp()
        within = [torch.pdist(pictures[labels == k].flatten(1)).mean() for k in range(CLASSES)]
        return {
            "frechet": frechet_distance(features, self.truth),
            "accuracy": float((probabilities.argmax(1) == labels).float().mean()),
            "inception": float(inception),
            "recall": recall(self.truth, features),
            "diversity": float(torch.stack(within).mean()),
            "evaluations": rows,
        }


def run(seed: int, scratch: Path) -> dict[str, Any]:
    """All figures of one seed."""
    world = World(seed, scratch)
    base = {f"{scale:g}": world.figures(world.base, scale) for scale in SCALES}
    epoch = EXAMPLES // BATCH
    cca = {f"{weight:g}": world.figures(world.aligned(weight, epoch), 1.0) for weight in WEIGHTS}
    combined = {f"{scale:g}": world.figures(world.aligned(WEIGHTS[1], epoch), scale) for scale in (1.0, 1.25, 1.5)}
    return {
        "judge_on_reconstructions": world.ceiling,
        "epoch_steps": epoch,
        "beta": BETA,
        "base_by_scale": base,
        "cca_by_weight": cca,
        "cca_and_guidance_by_scale": combined,
        "cost": cost(),
    }


def draw_sheet(rows: Mapping[str, Tensor], path: Path) -> None:
    """Pictures (count, side, side) of every row side by side, in one image file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawing, panels = pyplot.subplots(len(rows), 1, figsize=(8, 0.62 * len(rows)))
    for panel, (name, pictures) in zip(panels, rows.items(), strict=True):
        panel.imshow(torch.nn.functional.pad(pictures, (1, 1)).transpose(0, 1).flatten(1), cmap="gray", vmin=0, vmax=1)
        panel.set(xticks=[], yticks=[])
        panel.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    drawing.tight_layout()
    drawing.savefig(path, dpi=100, metadata={"Software": ""})
    pyplot.close(drawing)


def sample_rows(world: World, models: Mapping[str, tuple[LlamaGenModel, float]], seed: int) -> dict[str, Tensor]:
    """Two pictures of every class: of the data, and by each (model, scale), with the same random numbers."""
    labels = torch.arange(2 * CLASSES) % CLASSES
    drawn = [int((world.labels == label).nonzero()[index // CLASSES]) for index, label in enumerate(labels.tolist())]
    rows = {"data": pictures_of(world.codes[drawn], world.book)}
    for name, (model, scale) in models.items():
        rows[name] = pictures_of(sample(model, labels, scale, torch.Generator().manual_seed(seed))[0], world.book)
    return rows


def sample_sheet(seed: int, scratch: Path, folder: Path) -> str:
    """Pictures of every class: drawn, unguided, guided at 2 and 5, CCA; the same seed for every row."""
    world = World(seed, scratch)
    tuned = world.aligned(WEIGHTS[1], EXAMPLES // BATCH)
    models = {
        "unguided": (world.base, 1.0), "guided at 2": (world.base, 2.0), "guided at 5": (world.base, 5.0),
        "CCA, unguided": (tuned, 1.0),
    }  # fmt: skip
    draw_sheet(sample_rows(world, models, seed), folder / "cca_samples.png")
    return "Two pictures of each of ten classes, rows as labelled; columns share the class.\n\n![](cca_samples.png)\n"


def cost() -> dict[str, float]:
    """CPU seconds of an unguided over a guided run at a width where arithmetic dominates; median of 5 pairs."""
    torch.manual_seed(0)
    model = LlamaGenModel(LlamaGenSettings(vocab=CODES, width=768, layers=4, heads=12, grid=SIDE, classes=CLASSES))
    model.eval()
    labels, ratios = torch.arange(32) % CLASSES, []
    for repeat in range(5):
        spent = {}
        for scale in (1.0, 2.0):
            start = time.process_time()
            sample(model, labels, scale, torch.Generator().manual_seed(repeat))
            spent[scale] = time.process_time() - start
        ratios.append(spent[1.0] / spent[2.0])
    return {"unguided_over_guided_seconds": sorted(ratios)[2]}


def _best(figures: Any) -> float:
    return min(row["frechet"] for row in figures["base_by_scale"].values())


def _recovered(figures: Any) -> float:
    none = figures["base_by_scale"]["1"]["frechet"]
    cca = min(row["frechet"] for row in figures["cca_by_weight"].values())
    return (none - cca) / (none - _best(figures))


def rank_correlation(xs: list[float], ys: list[float]) -> float:
    a = np.argsort(np.argsort(xs)).astype(float)
    b = np.argsort(np.argsort(ys)).astype(float)
    return float(np.corrcoef(a, b)[0, 1])


def _cost_ratio(figures: Any) -> float:
    """CPU time ratio; 1 unless the counted evaluations are exactly half."""
    rows = figures["base_by_scale"]
    halved = 2 * rows["1"]["evaluations"] == rows["2"]["evaluations"]
    return float(figures["cost"]["unguided_over_guided_seconds"]) if halved else 1.0


SETTING = "ten drawn glyphs, 16 codes a picture, LlamaGen of 0.01 M parameters trained to its end"
CLAIMS = [
    Claim("V1", "cca", "CCA without guidance is on par with guidance", "recovers >= 0.8 of the gap none -> best guided "
          "in Frechet distance (best lambda of the sweep against best scale of the sweep)", SETTING, _recovered,
          lambda v: v >= 0.8),
    Claim("V2", "cca", "half the sampling cost", "evaluations exactly 0.5; CPU time ratio <= 0.65",
          "width 768, batch 32, one thread", _cost_ratio, lambda v: v <= 0.65),
    Claim("V3", "cca", "one epoch of fine-tuning suffices", "recovers >= 0.8 of the gap after one epoch (200 steps of "
          "64); this is the run of V1", SETTING, _recovered,
          lambda v: v >= 0.8),
]  # fmt: skip
