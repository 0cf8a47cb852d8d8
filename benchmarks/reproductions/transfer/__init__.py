"""What the diffusion papers' guidance rules do for tokens: quality, diversity and evaluations on drawn glyphs.

World and judge are those of `cca`, the base model is a larger one after three epochs. Every rule is the library's;
what a row costs is the number of rows of the image model evaluated per picture and code, streams that ran for a part
of the steps counted for that part. Lower temperature is in the table because it is free: a rule that does not beat it
does nothing. A rule *helps* if no setting of plain guidance, temperature and cost dominates it: see `frontier`.

Token forms are ours (the originals treat diffusion): see each function of `guiderail.logits` and `guiderail.guidance`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.reproductions import cca
from benchmarks.reproductions.cca import BATCH, CLASSES, CODES, EXAMPLES, SIDE, frechet_distance
from benchmarks.reproductions.claims import Claim
from benchmarks.reproductions.gedi.prefix_judge import PrefixJudge
from benchmarks.reproductions.small_models import trained
from guiderail.logits import classifier_free_guidance, schedules
from guiderail.logits.combination import log_probabilities
from guiderail.logits.contrastive import jensen_shannon_divergence
from guiderail.logits.controllers import AdaptiveStop, StopState, choose_scale
from guiderail.logits.projected import adaptive_projected_guidance
from guiderail.logits.temperature import entropy_matched, rescale_temperature
from guiderail.training.llamagen import LlamaGenModel, LlamaGenSettings

STEPS, SAMPLES = SIDE**2, 1000


class IdentityAttention(nn.Module):
    """Stands in for a layer's attention: every token attends to itself only (PAG)."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.attention = attention

    def forward(
        self, hidden: Tensor, rotation: Tensor, past: list[Tensor] | None, seen: Tensor | None = None
    ) -> Tensor:
        assert past is None, "sequences of sixteen codes are read anew at every step"
        value = self.attention.wqkv(hidden).chunk(3, -1)[2]
        out: Tensor = self.attention.wo(value)
        return out


class Streams:
    """Lazily evaluated streams of one batch, with what they cost."""

    def __init__(self, world: World, labels: Tensor) -> None:
        self.world, self.labels, self.codes = world, labels, torch.zeros(len(labels), 0, dtype=torch.long)
        self.cost = 0.0
        self._seen: dict[str, Tensor] = {}

    def __call__(self, name: str, rows: Tensor | None = None) -> Tensor:
        """Logits of the next code. `rows` says which rows would be evaluated; all are, for they are cheap here."""
        if name not in self._seen:
            model, labels = self.world.stream(name, self.labels)
            self._seen[name] = model(labels, self.codes)[:, -1]
            self.cost += 1.0 if rows is None else float(rows.float().mean())
        return self._seen[name]

    def extend(self, drawn: Tensor) -> None:
        self.codes = torch.cat([self.codes, drawn[:, None]], 1)
        self._seen.clear()

    @property
    def step(self) -> int:
        return self.codes.shape[1]


Rule = Callable[[Streams], Tensor]


class World(cca.World):
    """The glyphs, and the weaker and other models that rules need."""

    width, layers, base_steps, base_rate, tuning_rate, samples = 64, 3, 600, 2e-3, 2e-3, 2000

    def __init__(self, seed: int, scratch: Path) -> None:
        super().__init__(seed, scratch)
        self.tuned = self.aligned(3.0, EXAMPLES // BATCH)
        torch.manual_seed(seed)
        self.weak = LlamaGenModel(
            LlamaGenSettings(vocab=CODES, width=32, layers=1, heads=2, grid=SIDE, classes=CLASSES, multiple_of=32)
        )
        trained(self.weak, lambda step: self.likelihood_loss(self.weak, step), "weak", scratch, steps=200)
        torch.manual_seed(seed)
        self.reader = PrefixJudge(CODES, CLASSES)

        def reading_loss(step: int) -> Tensor:
            rows = self.rows(step)
            labels = self.labels[rows, None].expand(-1, STEPS)
            return cross_entropy(self.reader(self.codes[rows]).transpose(1, 2), labels)

        trained(self.reader, reading_loss, "reader", scratch, steps=300)
        counts = torch.ones(STEPS, CODES)
        for place in range(STEPS):
            counts[place] += torch.bincount(self.codes[:, place], minlength=CODES)
        self.prior = (counts / counts.sum(1, keepdim=True)).log()
        self.perturbed = {"identity": self.copy_of_base().eval(), "short": self.copy_of_base().eval()}
        layer = self.perturbed["identity"].layers[1]
        layer.attention = IdentityAttention(layer.attention)
        del self.perturbed["short"].layers[1]

    def stream(self, name: str, labels: Tensor) -> tuple[LlamaGenModel, Tensor]:
        null = torch.full_like(labels, CLASSES)
        return {
            "own": (self.base, labels), "null": (self.base, null), "weak": (self.weak, labels),
            "tuned": (self.tuned, labels), "tuned null": (self.tuned, null),
            "identity": (self.perturbed["identity"], labels), "short": (self.perturbed["short"], labels),
        }[name]  # fmt: skip

    @torch.no_grad()
    def judged(self, rule: Rule) -> dict[str, float]:
        labels = torch.arange(SAMPLES) % CLASSES
        streams, generator = Streams(self, labels), torch.Generator().manual_seed(self.seed)
        for _ in range(STEPS):
            streams.extend(torch.multinomial(torch.softmax(rule(streams), -1), 1, generator=generator).squeeze(1))
        pictures = cca.pictures_of(streams.codes, self.book)
        features = self.judge.features(pictures[:, None])
        within = [torch.pdist(pictures[labels == k].reshape(-1, 64)).mean() for k in range(CLASSES)]
        return {
            "frechet": frechet_distance(features, self.truth),
            "accuracy": float((self.judge.head(features).argmax(1) == labels).float().mean()),
            "diversity": float(torch.stack(within).mean()),
            "evaluations": round(streams.cost / STEPS, 3),
        }

    @torch.no_grad()
    def readings(self, codes: Tensor) -> Tensor:
        """log P(class | codes so far), (rows, classes); uniform before the first."""
        if codes.shape[1] == 0:
            return torch.full((len(codes), CLASSES), -float(torch.tensor(float(CLASSES)).log()))
        return torch.log_softmax(self.reader(codes)[:, -1], -1)


def away(stream: str, scale: float | schedules.Schedule, own: str = "own") -> Rule:
    """own guided away from a stream, at a scale or schedule; the stream does not run where the scale is 1."""

    def rule(streams: Streams) -> Tensor:
        now = scale(streams.step) if callable(scale) else scale
        if now == 1:
            return streams(own)
        return classifier_free_guidance(streams(own), streams(stream), now)

    return rule


def cooler(temperature: float) -> Rule:
    return lambda streams: streams("own") / temperature


def projected(scale: float, parallel: float, limit: float | None = None) -> Rule:
    return lambda streams: adaptive_projected_guidance(streams("own"), streams("null"), scale, parallel, limit)


def same_entropy(scale: float) -> Rule:
    return lambda streams: entropy_matched(
        classifier_free_guidance(streams("own"), streams("null"), scale), streams("own")
    )


def rescaled(scale: float, share: float) -> Rule:
    def rule(streams: Streams) -> Tensor:
        guided = classifier_free_guidance(streams("own"), streams("null"), scale)
        return guided / rescale_temperature(guided, streams("own"), share)[:, None]

    return rule


def stopping(scale: float, threshold: float) -> Rule:
    """Adaptive guidance: the null stream stops, row by row, once it has agreed for two codes."""
    stop = AdaptiveStop(threshold, patience=2)
    states: list[StopState] = []

    def rule(streams: Streams) -> Tensor:
        if streams.step == 0:
            states[:] = [StopState()] * len(streams.labels)
        running = torch.tensor([stop.wants_stream(state, streams.step) for state in states])
        own = streams("own")
        if not bool(running.any()):
            return own
        null = streams("null", running)
        divergence = jensen_shannon_divergence(log_probabilities(own), log_probabilities(null)).tolist()
        for row, on in enumerate(running.tolist()):
            if on:
                states[row] = stop.advance(states[row], streams.step, divergence[row])
        return torch.where(running[:, None], classifier_free_guidance(own, null, scale), own)

    return rule


def stale(world: World, scale: float) -> Rule:
    """The stream moved away from is what the place usually holds: no second pass (after StreamDiffusion's RCFG)."""
    return lambda streams: classifier_free_guidance(
        streams("own"), world.prior[streams.step].expand(SAMPLES, -1), scale
    )


def classified(world: World, weight: float) -> Rule:
    """FUDGE: every code rated by a classifier of prefixes, whose cost is not counted (it is no image model)."""

    def rule(streams: Streams) -> Tensor:
        own = log_probabilities(streams("own"))
        candidates = torch.arange(CODES)
        ratings = torch.zeros_like(own)
        for code in candidates.tolist():
            codes = torch.cat([streams.codes, torch.full((SAMPLES, 1), code)], 1)
            ratings[:, code] = world.readings(codes).gather(1, streams.labels[:, None]).squeeze(1)
        return own + weight * ratings

    return rule


def confusable(world: World, scale: float) -> Rule:
    """Away from the class the picture so far is most easily mistaken for, the more the less certain it is."""

    def rule(streams: Streams) -> Tensor:
        chances = world.readings(streams.codes).exp()
        confidence = chances.gather(1, streams.labels[:, None])
        rival = chances.scatter(1, streams.labels[:, None], -1.0).argmax(1)
        streams.cost += 1.0
        other = world.base(rival, streams.codes)[:, -1]
        return classifier_free_guidance(streams("own"), other, (1 + (scale - 1) * (1 - confidence)).squeeze(1))

    return rule


def chosen_online(world: World, every: int = 4) -> Rule:
    """Dynamic guidance: every few codes the scale whose next code the reader likes best, per row."""
    current: list[Tensor] = []

    def rule(streams: Streams) -> Tensor:
        own, null = streams("own"), streams("null")
        if streams.step % every == 0:

            def evaluate(scale: float) -> Tensor:
                best = classifier_free_guidance(own, null, scale).argmax(-1, keepdim=True)
                codes = torch.cat([streams.codes, best], 1)
                return world.readings(codes).gather(1, streams.labels[:, None]).squeeze(1)

            current[:] = [choose_scale((1.0, 1.5, 2.0, 3.0), evaluate)]
        return classifier_free_guidance(own, null, current[0])

    return rule


def rules(world: World) -> dict[str, dict[str, Rule]]:
    """Method -> setting -> rule."""
    ramp, bell = schedules.linear_ramp, schedules.power_cosine
    return {
        "guidance": {f"s {s:g}": away("null", s) for s in (1.0, 1.25, 1.5, 2.0, 3.0)},
        "temperature": {f"T {t:g}": cooler(t) for t in (0.9, 0.8, 0.7)},
        "interval": {
            "s 2, first half": away("null", schedules.interval(2.0, 0, STEPS // 2)),
            "s 2, second half": away("null", schedules.interval(2.0, STEPS // 2)),
            "s 2, first quarter": away("null", schedules.interval(2.0, 0, STEPS // 4)),
        },
        "schedule": {
            "ramp to 2": away("null", ramp(2.0, STEPS)),
            "power-cosine to 2": away("null", bell(2.0, STEPS, 1.0)),
        },
        "adaptive stop": {f"s 2, below {t:g} nats": stopping(2.0, t) for t in (0.003, 0.01, 0.03)},
        "projected (APG)": {
            "s 2, parallel 0": projected(2.0, 0.0),
            "s 3, parallel 0": projected(3.0, 0.0),
            "s 3, parallel 0, norm <= 1": projected(3.0, 0.0, 1.0),
        },
        "entropy matched": {f"s {s:g}": same_entropy(s) for s in (2.0, 3.0)},
        "rescale": {"s 3, phi 0.7": rescaled(3.0, 0.7)},
        "autoguidance": {f"s {s:g}": away("weak", s) for s in (1.5, 2.0)},
        "identity attention (PAG)": {f"s {s:g}": away("identity", s) for s in (1.25, 1.5)},
        "skipped layer": {f"s {s:g}": away("short", s) for s in (1.25, 1.5)},
        "stale null (RCFG)": {f"s {s:g}": stale(world, s) for s in (1.1, 1.25, 1.5)},
        "prefix classifier (FUDGE)": {f"weight {w:g}": classified(world, w) for w in (0.5, 1.0)},
        "confusable class": {f"s {s:g}": confusable(world, s) for s in (2.0, 3.0)},
        "online feedback": {"1 to 3, every 4": chosen_online(world)},
        "CCA": {"lambda 3": away("tuned null", 1.0, own="tuned")},
        "CCA and guidance": {"s 1.25": away("tuned null", 1.25, own="tuned")},
        "realignment (RLG) of CCA": {f"s {s:g}": away("own", s, own="tuned") for s in (1.5, 2.0)},
    }


def run(seed: int, scratch: Path) -> dict[str, Any]:
    world = World(seed, scratch)
    figures: dict[str, Any] = {}
    for method, settings in rules(world).items():
        for setting, rule in settings.items():
            figures[f"{method}: {setting}"] = world.judged(rule)
            print(f"  {method}: {setting}: {figures[f'{method}: {setting}']}", flush=True)
    return {"judge_on_reconstructions": world.ceiling, "rules": figures}


CLAIMS: list[Claim] = []
