"""Terms that ask somebody who is no language model: a classifier of prefixes, a scorer of continuations.

A judge is a function of token ids, prompt included. It is asked about prefixes, so a classifier that was trained on
whole texts should be calibrated on prefixes first. Answers are remembered by tokens: beams, drafts and repeated calls
ask once.

Sources: FUDGE, Yang & Klein 2021, arXiv:2104.05218; the reference class and the choice of a scale by look-ahead follow
work on diffusion, their token forms are ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from guiderail.guidance.rules import ClassifierFree, TokenIds, prompt_condition
from guiderail.guidance.streams import Row, Stream
from guiderail.guidance.terms import Contribution, Scale, Step, Term, count_of
from guiderail.logits.controllers import choose_scale

Tokens = tuple[int, ...]


class PrefixClassifier(Term):
    """FUDGE: `g = c + weight * log P(attribute | text + v)` on the best candidates, nothing else; weight 0.0 = off.

    Args:
        classify: texts with a candidate appended, all of one row -> log-probability of the attribute for each.
        weight: the paper's lambda, a number, one per prompt or a schedule.
        candidates: how many of the guided model's best legal tokens are asked about, the paper's 200.
    """

    def __init__(
        self,
        classify: Callable[[Sequence[Tokens]], Sequence[float] | Tensor],
        weight: Scale = 1.0,
        candidates: int = 200,
    ) -> None:
        if candidates < 1:
            raise ValueError(f"at least one candidate is needed, got {candidates}")
        self.classify = classify
        self.weight = weight
        self.candidates = candidates

    def prompt_count(self) -> int:
        return count_of([self.weight], ())

    def wanted(self, step: Step) -> dict[Stream, list[bool]]:
        return {}

    def contribute(self, step: Step) -> Contribution | None:
        weights = step.per_row(self.weight)
        if not any(weights):
            return None
        base = step.conditional
        if step.legal is not None:
            base = base.masked_fill(~step.legal, -math.inf)
        additive = torch.zeros_like(base)
        keep = torch.zeros_like(base, dtype=torch.bool)
        for index, (row, weight) in enumerate(zip(step.rows, weights, strict=True)):
            best = base[index].topk(min(self.candidates, base.shape[-1]))
            chosen = best.indices[best.values > -math.inf]
            if weight == 0 or not chosen.numel():
                keep[index] = True
                continue
            text = (*row.prompt, *row.generated)
            answers = torch.as_tensor(self.classify([(*text, token) for token in chosen.tolist()])).to(additive)
            if answers.shape != chosen.shape or bool(torch.isnan(answers).any()):
                raise ValueError(f"a classifier must give a number for each of {chosen.numel()} texts")
            additive[index, chosen] = weight * answers.clamp(min=-1e4)
            keep[index, chosen] = True
        active = torch.tensor([weight != 0 for weight in weights], device=base.device)
        return Contribution(active, additive=additive, keep=keep)


class ConfusableClass(Term):
    """Gradient-free classifier guidance: away from the class the text is most easily mistaken for.

        g = c + s (c - l_other),    s = (scale - 1) (1 - P(target | text))

    Args:
        others: class name -> prompt (ids or text) under which the guided model writes that class.
        classify: text -> probability of every class, the target's under `target`.
        target: the name of the guided prompt's own class.
        scale: 1.0 = off. A text that is certainly of the target class is not guided either.
    Raises (when used): ValueError if the classifier leaves a class out, or gives what is no probability.
    """

    def __init__(
        self,
        others: Mapping[str, TokenIds | str],
        classify: Callable[[Tokens], Mapping[str, float]],
        target: str,
        scale: Scale = 2.0,
    ) -> None:
        if not others or target in others:
            raise ValueError("at least one class is needed besides the target")
        self.others = {name: Stream(prompt_condition(prompt)) for name, prompt in others.items()}
        self.classify = classify
        self.target = target
        self.scale = scale

    def streams(self) -> tuple[Stream, ...]:
        return tuple(self.others.values())

    def prompt_count(self) -> int:
        return count_of([self.scale], self.streams())

    def wanted(self, step: Step) -> dict[Stream, list[bool]]:
        flags: dict[Stream, list[bool]] = {}
        for index, (stream, strength) in enumerate(self._choices(step)):
            if strength != 0:
                flags.setdefault(stream, [False] * len(step.rows))[index] = True
        return flags

    def contribute(self, step: Step) -> Contribution | None:
        choices = self._choices(step)
        own = step.column([strength for _, strength in choices])
        weights = {
            stream: step.column([-strength if stream == chosen else 0.0 for chosen, strength in choices])
            for stream in self.wanted(step)
        }
        return Contribution(own.squeeze(-1) != 0, own, weights) if weights else None

    def _choices(self, step: Step) -> list[tuple[Stream, float]]:
        """For each row the stream to move away from, and how far."""
        chosen = []
        for row, scale in zip(step.rows, step.per_row(self.scale), strict=True):
            if scale == 1:
                chosen.append((next(iter(self.others.values())), 0.0))
                continue
            name, confidence = self._judged(step, row)
            chosen.append((self.others[name], (scale - 1) * (1 - confidence)))
        return chosen

    def _judged(self, step: Step, row: Row) -> tuple[str, float]:
        known = step.memory.at(self, row)
        if known is None:
            given = self.classify((*row.prompt, *row.generated))
            missing = {self.target, *self.others} - given.keys()
            if missing or not all(0 <= given[name] <= 1 for name in (self.target, *self.others)):
                raise ValueError(f"a classifier must give a probability for every class, got {dict(given)}")
            known = max(self.others, key=lambda name: given[name]), float(given[self.target])
            step.memory.put(self, row, known)
        name, confidence = known
        return name, confidence


class OnlineFeedback(ClassifierFree):
    """Classifier-free guidance whose scale a scorer chooses while decoding.

    Every `every` tokens each candidate scale takes one greedy step, the scorer rates the texts, and the best scale
    serves until the next choice. All candidates share the two streams of that step, so they cost the scorer alone.

    Args:
        scales: the candidates; the first of equals wins. score: texts -> higher is better.
        every: tokens between choices. Null as in `ClassifierFree`.
    """

    def __init__(
        self,
        scales: Sequence[float],
        score: Callable[[Sequence[Tokens]], Sequence[float] | Tensor],
        every: int = 8,
        **null: Any,
    ) -> None:
        if every < 1 or not scales or not all(math.isfinite(scale) for scale in scales):
            raise ValueError("online feedback needs finite candidate scales, and every >= 1")
        super().__init__(1.0, **null)
        self.scales = tuple(scales)
        self.score = score
        self.every = every

    def wanted(self, step: Step) -> dict[Stream, list[bool]]:
        needs = [step.memory.at(self, self._due(row)) != 1.0 for row in step.rows]
        return {self.stream: needs} if any(needs) else {}

    def contribute(self, step: Step) -> Contribution | None:
        open_rows: dict[Row, int] = {}  # where a choice is due -> the shortest row that waits for it
        for index, row in enumerate(step.rows):
            due = self._due(row)
            if step.memory.at(self, due) is None:
                shortest = open_rows.setdefault(due, index)
                open_rows[due] = min(shortest, index, key=lambda i: step.rows[i].step)
        if open_rows:
            for due, scale in zip(open_rows, self._choices(step, list(open_rows.values())), strict=True):
                step.memory.put(self, due, scale)
        scales = [float(step.memory.at(self, self._due(row))) for row in step.rows]
        active = torch.tensor([scale != 1.0 for scale in scales], device=step.raw.device)
        if not bool(active.any()):
            return None
        strength = step.column([scale - 1 for scale in scales])
        return Contribution(active, strength, {self.stream: -strength}, plausibility=self.plausibility)

    def _due(self, row: Row) -> Row:
        """The prefix at which this row's scale is chosen. Where a jump went over it, the first row after it chooses."""
        return Row(row.prompt, row.generated[: row.step - row.step % self.every], row.prompt_index, row.inputs)

    def _choices(self, step: Step, rows: list[int]) -> list[float]:
        index = torch.tensor(rows, device=step.raw.device)
        conditional = step.conditional[index]
        null = step.scores[self.stream].log_probs[index]
        allowed = conditional > -math.inf
        if step.legal is not None:
            allowed = allowed & step.legal[index]

        def evaluate(scale: float) -> Tensor:
            guided = (null + scale * (conditional.clamp(min=-1e15) - null)).masked_fill(~allowed, -math.inf)
            best = guided.argmax(dim=-1).tolist()
            texts = [
                (*step.rows[i].prompt, *step.rows[i].generated, token) for i, token in zip(rows, best, strict=True)
            ]
            return torch.as_tensor(self.score(texts)).float().reshape(len(rows))

        return [float(scale) for scale in choose_scale(self.scales, evaluate).tolist()]
