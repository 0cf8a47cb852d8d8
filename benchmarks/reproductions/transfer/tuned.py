"""Guidance trained into weights, and models trained to be guided away from: on the glyph model, beside the rules.

| here | source | trained on |
|---|---|---|
| adapters | AGD (adapter guidance distillation) | trajectories drawn at scales 1.25 to 3 |
| guided head, alone and refined | CoRe2 | the same |
| distilled | guidance baked into the weights | trajectories drawn at 1.5 |
| diversity-rewarded, merged | Cideron et al. 2024, arXiv:2410.06084 | its own samples, two for a class |
| negative model | Self-NPO | its own samples at a high temperature |
| CCA, DPO, unlearning | Chen et al. 2024 and its baselines | one epoch of the data, the same pairs |

World, judge, checkpoints and measures are those of `transfer`; its table shows both.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.reproductions import cca
from benchmarks.reproductions.cca import BATCH, CLASSES, EXAMPLES
from benchmarks.reproductions.claims import Claim
from benchmarks.reproductions.small_models import kept, trained
from benchmarks.reproductions.transfer import Rule, Streams, World
from guiderail.logits import classifier_free_guidance
from guiderail.logits.combination import affine_combination
from guiderail.training import (
    GuidanceAdapters,
    GuidedHead,
    RolledConditions,
    distillation_loss,
    diversity_reward,
    merged,
    merged_negative,
    preference_loss,
    reward_loss,
    sequence_log_prob,
    unlearning_loss,
)
from guiderail.training.llamagen import LlamaGenModel

TRAJECTORIES, STEPS, RATE = 1600, 200, 5e-4  # sequences a scale; of distillation
DRAWN_AT, BAKED = (1.25, 1.5, 2.0, 3.0), 1.5
PAIRS, DIVERSITY_STEPS, DIVERSITY = 32, 120, 5.0  # two samples each; weight of the reward
HEAT, TUNING = 1.5, World.tuning_rate


class Trained:
    """What a seed trains, from the base model of `world`."""

    def __init__(self, world: World, scratch: Path) -> None:
        self.world, self.scratch = world, scratch
        drawn = [self._trajectories(scale) for scale in DRAWN_AT]
        self.labels = drawn[0][0].repeat(len(DRAWN_AT))
        self.codes = torch.cat([codes for _, codes in drawn])
        self.scales = torch.tensor(DRAWN_AT).repeat_interleave(TRAJECTORIES)

    def _trajectories(self, scale: float) -> tuple[Tensor, Tensor]:
        labels = torch.arange(TRAJECTORIES) % CLASSES
        generator = torch.Generator().manual_seed(self.world.seed * 77 + round(100 * scale))
        return labels, cca.sample(self.world.base, labels, scale, generator)[0]

    def _batch(self, step: int, only: float | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Labels, codes, scales of trajectories, and the teacher's two streams on them."""
        pool = torch.arange(len(self.labels)) if only is None else (self.scales == only).nonzero()[:, 0]
        generator = torch.Generator().manual_seed(self.world.seed * 13 + step)
        rows = pool[torch.randint(len(pool), (BATCH,), generator=generator)]
        return (
            self.labels[rows],
            self.codes[rows],
            self.scales[rows],
            *self._teacher(self.labels[rows], self.codes[rows]),
        )

    @torch.no_grad()
    def _teacher(self, labels: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        base = self.world.base
        return base(labels, codes[:, :-1]), base(base.null_condition(len(labels)), codes[:, :-1])

    def adapters(self) -> tuple[LlamaGenModel, GuidanceAdapters]:
        torch.manual_seed(self.world.seed)
        model = self.world.copy_of_base().eval().requires_grad_(False)
        adapters = GuidanceAdapters(model, model.settings.width, rank=8)

        def loss(step: int) -> Tensor:
            labels, codes, scales, own, null = self._batch(step)
            with adapters.at(scales):
                return distillation_loss(model(labels, codes[:, :-1]), own, null, scales)

        return model, trained(adapters, loss, "adapters", self.scratch, steps=STEPS, rate=TUNING)

    def head(self) -> GuidedHead:
        torch.manual_seed(self.world.seed)
        settings = self.world.base.settings
        head = GuidedHead(settings.width, settings.vocab)

        def loss(step: int) -> Tensor:
            labels, codes, scales, own, null = self._batch(step)
            with torch.no_grad():
                hidden = hidden_states(self.world.base, labels, codes[:, :-1])
            return distillation_loss(head(own, hidden, scales), own, null, scales)

        return trained(head, loss, "head", self.scratch, steps=STEPS, rate=TUNING)  # type: ignore[no-any-return]

    def distilled(self) -> LlamaGenModel:
        model = self.world.copy_of_base()

        def loss(step: int) -> Tensor:
            labels, codes, scales, own, null = self._batch(step, BAKED)
            return distillation_loss(model(labels, codes[:, :-1]), own, null, scales)

        return trained(model, loss, "distilled", self.scratch, steps=STEPS, rate=RATE)  # type: ignore[no-any-return]

    def diverse(self, start: LlamaGenModel) -> LlamaGenModel:
        """From the distilled model, with a reward for pairs that the judge's features tell apart."""
        model = self.world.copy_of_base()
        model.load_state_dict(start.state_dict())

        def loss(step: int) -> Tensor:
            generator = torch.Generator().manual_seed(self.world.seed * 101 + step)
            labels = torch.randint(CLASSES, (PAIRS,), generator=generator).repeat_interleave(2)
            codes, _ = cca.sample(model.eval(), labels, 1.0, generator)
            with torch.no_grad():
                features = self.world.judge.features(cca.pictures_of(codes, self.world.book)[:, None])
            rewards = diversity_reward(features.view(PAIRS, 2, -1)).repeat_interleave(2)
            logits = model.train()(labels, codes[:, :-1])
            own, null = self._teacher(labels, codes)
            imitation = codes.shape[1] * distillation_loss(logits, own, null, BAKED)
            return imitation + DIVERSITY * reward_loss(sequence_log_prob(logits, codes), rewards)

        return trained(model, loss, "diverse", self.scratch, steps=DIVERSITY_STEPS, rate=RATE)  # type: ignore[no-any-return]

    def negative(self) -> LlamaGenModel:
        """Tuned on its own hot samples."""
        labels = torch.arange(TRAJECTORIES) % CLASSES
        streams, generator = Streams(self.world, labels), torch.Generator().manual_seed(self.world.seed * 3)
        with torch.no_grad():
            for _ in range(self.codes.shape[1]):
                chances = torch.softmax(streams("own") / HEAT, -1)
                streams.extend(torch.multinomial(chances, 1, generator=generator).squeeze(1))
        model = self.world.copy_of_base()

        def loss(step: int) -> Tensor:
            chosen = torch.randint(
                len(labels), (BATCH,), generator=torch.Generator().manual_seed(self.world.seed * 17 + step)
            )
            logits = model(labels[chosen], streams.codes[chosen, :-1])
            return torch.nn.functional.cross_entropy(logits.transpose(1, 2), streams.codes[chosen])

        return trained(model, loss, "negative", self.scratch, steps=STEPS, rate=RATE)  # type: ignore[no-any-return]

    def contrasted(self, name: str, rate: float, loss_of: Callable[[Tensor, Tensor], Tensor]) -> LlamaGenModel:
        """One epoch on matched and mismatched pairs; no row is without a condition, as these losses have no null."""
        model, reference = self.world.copy_of_base(), self.world.copy_of_base().eval()

        def loss(step: int) -> Tensor:
            rows = self.world.rows(step)
            halves = RolledConditions(self.world.labels[rows], None, 0.0)
            conditions = torch.cat([halves.matched, halves.mismatched])
            codes = self.world.codes[rows].repeat(2, 1)
            with torch.no_grad():
                before = sequence_log_prob(reference(conditions, codes[:, :-1]), codes)
            matched, mismatched = (sequence_log_prob(model(conditions, codes[:, :-1]), codes) - before).chunk(2)
            differ = ~halves.no_negative
            return loss_of(matched[differ], mismatched[differ])

        return trained(model, loss, f"{name}-{rate:g}", self.scratch, steps=EXAMPLES // BATCH, rate=rate)  # type: ignore[no-any-return]


def hidden_states(model: LlamaGenModel, labels: Tensor, codes: Tensor) -> Tensor:
    """What the output layer reads, (batch, 1 + length, width)."""
    found: list[Tensor] = []
    handle = model.output.register_forward_pre_hook(lambda _module, inputs: found.append(inputs[0]))
    try:
        model(labels, codes)
    finally:
        handle.remove()
    return found[0]


def alone(model: LlamaGenModel) -> Rule:
    """A tuned model, unguided: one row a code."""

    def rule(streams: Streams) -> Tensor:
        streams.cost += 1.0
        out: Tensor = model(streams.labels, streams.codes)[:, -1]
        return out

    return rule


def adapted(model: LlamaGenModel, adapters: GuidanceAdapters, scale: float) -> Rule:
    def rule(streams: Streams) -> Tensor:
        with adapters.at(scale):
            return alone(model)(streams)

    return rule


def headed(world: World, head: GuidedHead, scale: float, refined: float | None = None) -> Rule:
    """The head's scores; refined: further from them towards what guidance really says, with its second row."""

    def rule(streams: Streams) -> Tensor:
        own = streams("own")
        imitated = head(own, hidden_states(world.base, streams.labels, streams.codes)[:, -1], scale)
        if refined is None:
            return imitated
        guided = classifier_free_guidance(own, streams("null"), scale)
        return affine_combination([imitated, guided], (1 - refined, refined))

    return rule


def against(world: World, negative: LlamaGenModel, scale: float) -> Rule:
    def rule(streams: Streams) -> Tensor:
        return classifier_free_guidance(streams("own"), alone(negative)(streams), scale)

    return rule


def rules(world: World, own: Trained) -> dict[str, dict[str, Rule]]:
    """Method -> setting -> rule."""
    model, adapters = own.adapters()
    head, distilled, negative = own.head(), own.distilled(), own.negative()
    diverse = own.diverse(distilled)

    def between(share: float) -> LlamaGenModel:
        mixed = world.copy_of_base().eval()
        mixed.load_state_dict(merged(distilled.state_dict(), diverse.state_dict(), share))
        return mixed

    base = world.base.state_dict()
    degraded = world.copy_of_base().eval()
    degraded.load_state_dict(merged_negative(base, base, negative.state_dict(), 1.0))
    beta = cca.BETA
    contrasts: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "preference (DPO)": functools.partial(preference_loss, beta=beta),
        "unlearning": unlearning_loss,
    }
    return {
        "adapters (AGD)": {f"s {s:g}": adapted(model, adapters, s) for s in (1.25, 1.5, 2.0)},
        "guided head (CoRe2)": {
            **{f"s {s:g}": headed(world, head, s) for s in (1.25, 1.5, 2.0)},
            "s 1.5, refined by 1.5": headed(world, head, 1.5, 1.5),
        },
        "distilled": {f"s {BAKED:g}": alone(distilled)},
        "diversity-rewarded": {f"merged {share:g}": alone(between(share)) for share in (0.5, 1.0)},
        "negative model (Self-NPO)": {f"s {s:g}": against(world, degraded, s) for s in (1.25, 1.5, 2.0)},
        **{
            name: {f"rate {rate:g}": alone(own.contrasted(name, rate, loss)) for rate in (TUNING, TUNING / 10)}
            for name, loss in contrasts.items()
        },
    }


def run(seed: int, scratch: Path) -> dict[str, Any]:
    world = World(seed, scratch.parent.parent / "transfer" / str(seed))
    figures = {
        f"{method}: {setting}": kept(scratch, f"{method} {setting}", functools.partial(world.judged, rule))
        for method, settings in rules(world, Trained(world, scratch)).items()
        for setting, rule in settings.items()
    }
    return {"judge_on_reconstructions": world.ceiling, "rules": figures}


CLAIMS: list[Claim] = []
