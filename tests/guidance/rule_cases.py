"""Every guidance term next to the brute-force formula it must equal, for one decoder-only model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from guidance import models
from guiderail import guidance as gr
from oracles import guidance_reference as reference

Row = reference.Row
Guided = Callable[[tuple[int, ...]], Row]
NEGATIVE = [5, 9, 13, 4]


@dataclass(frozen=True)
class Case:
    """A term, and the reference: (model, prompt, prompt index) -> generated tokens -> guided log-probabilities."""

    name: str
    term: Callable[[], gr.Term]
    reference: Callable[[torch.nn.Module, list[int], int], Guided]

    def __repr__(self) -> str:
        return self.name


def _affine(*parts: tuple[Callable[[torch.nn.Module, list[int]], reference.NextLogits], float]):
    def build(model: torch.nn.Module, prompt: list[int], index: int) -> Guided:
        streams = [make(model, prompt) for make, _ in parts]
        weights = [weight for _, weight in parts]
        return lambda generated: reference.affine([stream(generated) for stream in streams], weights)

    return build


def own(model: torch.nn.Module, prompt: list[int]) -> reference.NextLogits:
    return reference.stream(model, prompt)


def last(model: torch.nn.Module, prompt: list[int]) -> reference.NextLogits:
    return reference.stream(model, prompt[-1:])


def negative(model: torch.nn.Module, prompt: list[int]) -> reference.NextLogits:
    return reference.stream(model, NEGATIVE)


def other(seed: int) -> Callable[[torch.nn.Module, list[int]], reference.NextLogits]:
    return lambda model, prompt: reference.stream(models.llama(seed), prompt)


def _contrastive(model: torch.nn.Module, prompt: list[int], index: int) -> Guided:
    expert, amateur = own(model, prompt), reference.stream(models.llama(1), prompt[-2:])
    return lambda generated: reference.contrastive(expert(generated), amateur(generated), 1.5, 0.1)


def _dola(model: torch.nn.Module, prompt: list[int], index: int) -> Guided:
    final = own(model, prompt)

    def early(generated: tuple[int, ...], layer: int) -> Row:
        with torch.no_grad():
            output = model.model(torch.tensor([[*prompt, *generated]]), output_hidden_states=True, use_cache=False)
            return model.lm_head(model.model.norm(output.hidden_states[layer][0, -1])).double().numpy()

    return lambda generated: reference.dola(final(generated), [early(generated, 0), early(generated, 1)], 0.1)


def _gedi(model: torch.nn.Module, prompt: list[int], index: int) -> Guided:
    guide = models.llama(2)
    base, good, bad = own(model, prompt), reference.stream(guide, [7, *prompt]), reference.stream(guide, [8, *prompt])

    def guided(generated: tuple[int, ...]) -> Row:
        text = [*prompt, *generated]
        sums = reference.log_likelihood(guide, [7, *text]), reference.log_likelihood(guide, [8, *text])
        rows = base(generated), good(generated), bad(generated)
        return reference.gedi(*rows, sums, len(text) + 1, 3.0, 2.0, (0.1, 0.0), 0.2, 0.8)

    return guided


def _projected(model: torch.nn.Module, prompt: list[int], index: int) -> Guided:
    c, u = own(model, prompt), negative(model, prompt)
    return lambda generated: reference.projected(c(generated), u(generated), 3.0, 0.25, 2.0)


def _scheduled(model: torch.nn.Module, prompt: list[int], index: int) -> Guided:
    c, u = own(model, prompt), last(model, prompt)

    def guided(generated: tuple[int, ...]) -> Row:
        scale = 3.0 if 2 <= len(generated) < 5 else 1.0
        return reference.affine([c(generated), u(generated)], [scale, 1 - scale])

    return guided


def _skipped(model: torch.nn.Module, prompt: list[int], index: int) -> Guided:
    def weak(generated: tuple[int, ...]) -> Row:
        # written out: the first layer alone, then norm and head
        tokens = torch.tensor([[*prompt, *generated]])
        with torch.no_grad():
            hidden = model.model(tokens, output_hidden_states=True, use_cache=False).hidden_states[1][0, -1]
            return model.lm_head(model.model.norm(hidden)).double().numpy()

    c = own(model, prompt)
    return lambda generated: reference.affine([c(generated), weak(generated)], [1.8, -0.8])


def _entropy_matched(model: torch.nn.Module, prompt: list[int], index: int) -> Guided:
    c, u = own(model, prompt), negative(model, prompt)

    def entropy(log_probs: Row) -> float:
        return float(-(np.exp(log_probs) * log_probs).sum())

    def guided(generated: tuple[int, ...]) -> Row:
        target = entropy(reference.log_softmax(c(generated)))
        sharp = reference.affine([c(generated), u(generated)], [3.0, -2.0])
        low, high = 1 / 64, 64.0
        for _ in range(60):
            middle = (low * high) ** 0.5
            low, high = (middle, high) if entropy(reference.log_softmax(sharp / middle)) < target else (low, middle)
        return reference.log_softmax(sharp / low)

    return guided


CASES = [
    Case("classifier-free", lambda: gr.ClassifierFree(1.7), _affine((own, 1.7), (last, -0.7))),
    Case("null only", lambda: gr.ClassifierFree(0.0, NEGATIVE), _affine((own, 0.0), (negative, 1.0))),
    Case("inverted", lambda: gr.ClassifierFree(-0.5, NEGATIVE), _affine((own, -0.5), (negative, 1.5))),
    Case("off", lambda: gr.ClassifierFree(1.0, NEGATIVE), _affine((own, 1.0))),
    Case(
        "sum of two",
        lambda: gr.ClassifierFree(1.5, NEGATIVE) + gr.ClassifierFree(2.0),
        _affine((own, 2.5), (negative, -0.5), (last, -1.0)),
    ),
    Case(
        "signed prompts",
        lambda: gr.Prompts([(NEGATIVE, -0.6), ([6, 6], 0.3)]),
        _affine((own, 1.3), (negative, -0.6), (lambda m, p: reference.stream(m, [6, 6]), 0.3)),
    ),
    Case("contrastive", lambda: gr.Contrastive(models.llama(1), 1.5, context=2), _contrastive),
    Case(
        "experts",
        lambda: gr.DExperts(models.llama(1), models.llama(2), 0.8),
        _affine((own, 1.0), (other(1), 0.8), (other(2), -0.8)),
    ),
    Case(
        "proxy",
        lambda: gr.ProxyTuning(models.llama(1), models.llama(2)),
        _affine((own, 1), (other(1), 1), (other(2), -1)),
    ),
    Case("realignment", lambda: gr.Realignment(models.llama(1), 2.0), _affine((own, 2.0), (other(1), -1.0))),
    Case("context-aware", lambda: gr.ContextAware(0.5, NEGATIVE), _affine((own, 1.5), (negative, -0.5))),
    Case("dola", lambda: gr.DoLa([0, 1]), _dola),
    Case("gedi", lambda: gr.GeDi(models.llama(2), 7, 8, 3.0, logit_scale=2.0, biases=(0.1, 0.0)), _gedi),
    Case("projected", lambda: gr.Projected(3.0, NEGATIVE, parallel_weight=0.25, norm_limit=2.0), _projected),
    Case("interval", lambda: gr.ClassifierFree(gr.schedules.interval(3.0, 2, 5)), _scheduled),
    Case("skipped layer", lambda: gr.Perturbed(gr.SkipLayers((1,)), 1.8), _skipped),
    Case("entropy matched", lambda: gr.EntropyMatched(gr.ClassifierFree(3.0, NEGATIVE)), _entropy_matched),
]
BY_NAME = {case.name: case for case in CASES}
