"""Guidance terms: rules over streams that compose by `+` and share what they have in common.

A term changes the conditional scores c in up to three ways, all gathered in a `Contribution`:

    weights     streams to add, affine:       g = c + sum_k a_k l_k + own * c
    additive    anything else, per token:     g = g + additive        (GeDi's posterior, an orthogonal direction)
    keep        tokens worth considering      (plausibility)

so the sum of terms is the sum of their contributions and the intersection of what they keep: independent of order, one
evaluation per distinct stream, one renormalisation at the end. Two classifier-free terms compose into the factored rule
`c + (s1 - 1)(c - n1) + (s2 - 1)(c - n2)`.

The grammar never enters the arithmetic. Terms see which tokens are legal for one purpose: a filter must leave a legal
one.

A term holds no state of any sequence. Whatever accumulates (a stop decision, GeDi's sums) is a function of the tokens
and is looked up by them; see `runner.StreamRunner` and `Step.memory`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor

from guiderail.guidance.streams import PromptText, PromptTokens, Row, Stream, row_of
from guiderail.logits.combination import beliefs, log_probabilities, without_bans
from guiderail.logits.kernels import guided_log_probs
from guiderail.logits.plausibility import plausible_tokens

Schedule: TypeAlias = Callable[[int], float]
Scale: TypeAlias = float | Sequence[float | Schedule] | Tensor | Callable[[int], float | Sequence[float]]
"""A number, one number or schedule per prompt (sequence or 1-D tensor), or a schedule: step -> number or numbers."""


@dataclass(slots=True)
class StreamScores:
    """What a stream said, for the rows that asked; rows that did not ask hold the conditional scores.

    Args: raw (rows, vocab), as the model gave them; log_likelihood (rows,); early_log_probs (layers, rows, vocab) or
        None.
    """

    raw: Tensor
    log_likelihood: Tensor
    early_log_probs: Tensor | None = None
    _log_probs: Tensor | None = field(default=None, repr=False)

    @property
    def log_probs(self) -> Tensor:
        """float32 (rows, vocab), finite; computed when a rule first asks (the fused step never does)."""
        if self._log_probs is None:
            self._log_probs = beliefs(self.raw)
        return self._log_probs


@dataclass(slots=True)
class Step:
    """One decoding step of a batch, as terms see it.

    Args:
        rows: the sequences, prompt and generated tokens.
        raw: (rows, vocab), what the guided model gave.
        legal: bool (rows, vocab) or None: what a constraint allows.
        bitmask: the same, packed, if the caller wants illegal tokens removed in the same pass over the vocabulary.
        scores: filled by the caller of `contribute`: stream -> its scores.
        memory: decisions that depend on earlier steps, keyed by tokens; belongs to one decoding loop.
    """

    rows: Sequence[Row]
    raw: Tensor
    legal: Tensor | None = None
    bitmask: Tensor | None = None
    scores: dict[Stream, StreamScores] = field(default_factory=dict)
    memory: TokenMemory = field(default_factory=lambda: TokenMemory())
    _conditional: Tensor | None = field(default=None, repr=False)

    @property
    def conditional(self) -> Tensor:
        """float32 log-probabilities (rows, vocab) of the guided model; bans are -inf."""
        if self._conditional is None:
            self._conditional = log_probabilities(self.raw)
        return self._conditional

    def per_row(self, scale: Scale) -> list[float]:
        """A scale for each row at its own step."""
        return [scale_at(scale, row) for row in self.rows]

    def column(self, values: Sequence[float]) -> Tensor:
        """Values per row as a (rows, 1) tensor next to the scores."""
        dtype = torch.float64 if self.raw.dtype == torch.float64 else torch.float32
        return torch.tensor(values, dtype=dtype, device=self.raw.device).unsqueeze(-1)


class TokenMemory:
    """A bounded map from token sequences to values: state that follows tokens instead of time."""

    def __init__(self, capacity: int = 4096) -> None:
        self._capacity = capacity
        self._values: OrderedDict[Any, Any] = OrderedDict()

    def get(self, owner: Any, row: Row, default: Any) -> Any:
        """The value recorded for the longest known proper prefix of a row's generated tokens."""
        prompt = hash(row.prompt)
        for length in range(len(row.generated) - 1, -1, -1):
            key = (owner, row.prompt_index, row.inputs, prompt, hash(row.generated[:length]), length)
            if key in self._values:
                return self._values[key]
        return default

    def at(self, owner: Any, row: Row) -> Any:
        """The value recorded for exactly this row's tokens, or None."""
        return self._values.get(self._key(owner, row))

    def put(self, owner: Any, row: Row, value: Any) -> None:
        """Record a value for exactly this row's tokens."""
        self._values[self._key(owner, row)] = value
        if len(self._values) > self._capacity:
            self._values.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        self._values.clear()

    @staticmethod
    def _key(owner: Any, row: Row) -> Any:
        # Prompts of equal tokens may differ in their image or source.
        return owner, row.prompt_index, row.inputs, hash(row.prompt), hash(row.generated), len(row.generated)


@dataclass(slots=True)
class Contribution:
    """What one term adds. Fields of rows in which the term is off are ignored.

    Args:
        active: bool (rows,).
        own: (rows, 1) added to the weight of the conditional stream, which starts at 1.
        weights: stream -> (rows, 1).
        additive: (rows, vocab), finite, or None.
        keep: bool (rows, vocab), or None for everything.
        plausibility: keep what is within this factor of the guided model's best legal token; None for everything.
    """

    active: Tensor
    own: Tensor | None = None
    weights: dict[Stream, Tensor] = field(default_factory=dict)
    additive: Tensor | None = None
    keep: Tensor | None = None
    plausibility: float | None = None

    def filtered(self, step: Step) -> Contribution:
        """The same with `plausibility` turned into `keep`."""
        if self.plausibility is None:
            return self
        keep = plausible_tokens(step.conditional, self.plausibility, step.legal)
        both = keep if self.keep is None else keep & self.keep
        return Contribution(self.active, self.own, self.weights, self.additive, both)


class Term(ABC):
    """A guidance rule. Stateless and reusable: one object serves any number of calls, batches and beams."""

    @abstractmethod
    def wanted(self, step: Step) -> dict[Stream, list[bool]]:
        """The streams this step needs, and for which rows. Rows where the term is off ask for nothing."""

    @abstractmethod
    def contribute(self, step: Step) -> Contribution | None:
        """The change to the scores; None if off in every row. `step.scores` holds what `wanted` asked for."""

    def streams(self) -> tuple[Stream, ...]:
        """All streams this term may ever ask for."""
        return ()

    def prompt_count(self) -> int:
        """How many prompts this term tells apart: 1, or the length of its per-prompt values."""
        return 1

    def __add__(self, other: Term) -> Sum:
        if not isinstance(other, Term):
            return NotImplemented
        return Sum((*_parts(self), *_parts(other)))


def _parts(term: Term) -> tuple[Term, ...]:
    return term.terms if isinstance(term, Sum) else (term,)


class Sum(Term):
    """Several terms at once; what `a + b` makes."""

    def __init__(self, terms: Sequence[Term]) -> None:
        self.terms = tuple(terms)

    def __repr__(self) -> str:
        return " + ".join(map(repr, self.terms)) or "Sum(())"

    def streams(self) -> tuple[Stream, ...]:
        return tuple(dict.fromkeys(stream for term in self.terms for stream in term.streams()))

    def prompt_count(self) -> int:
        return agreed_count(term.prompt_count() for term in self.terms)

    def wanted(self, step: Step) -> dict[Stream, list[bool]]:
        merged: dict[Stream, list[bool]] = {}
        for term in self.terms:
            for stream, rows in term.wanted(step).items():
                before = merged.get(stream, [False] * len(rows))
                merged[stream] = [a or b for a, b in zip(before, rows, strict=True)]
        return merged

    def contribute(self, step: Step) -> Contribution | None:
        parts = [part for part in (term.contribute(step) for term in self.terms) if part is not None]
        if len(parts) <= 1:
            return parts[0] if parts else None
        total = _silenced(parts[0].filtered(step))
        for part in parts[1:]:
            total = _added(total, _silenced(part.filtered(step)))
        return total


def _silenced(part: Contribution) -> Contribution:
    """The contribution with its inactive rows turned into nothing, so that others can be added to it."""
    on = part.active.unsqueeze(-1)
    return Contribution(
        part.active,
        None if part.own is None else torch.where(on, part.own, 0.0),
        {stream: torch.where(on, weight, 0.0) for stream, weight in part.weights.items()},
        None if part.additive is None else torch.where(on, part.additive, 0.0),
        None if part.keep is None else part.keep | ~on,
    )


def _added(a: Contribution, b: Contribution) -> Contribution:
    def plus(x: Tensor | None, y: Tensor | None) -> Tensor | None:
        return y if x is None else x if y is None else x + y

    weights = dict(a.weights)
    for stream, weight in b.weights.items():
        weights[stream] = weights[stream] + weight if stream in weights else weight
    keep = b.keep if a.keep is None else a.keep if b.keep is None else a.keep & b.keep
    return Contribution(a.active | b.active, plus(a.own, b.own), weights, plus(a.additive, b.additive), keep)


def agreed_count(counts: Iterable[int]) -> int:
    """The one count above 1, or 1. Raises ValueError if two parts of a term count different numbers of prompts."""
    several = {count for count in counts if count > 1}
    if len(several) > 1:
        raise ValueError(f"per-prompt values of different lengths: {sorted(several)}")
    return several.pop() if several else 1


def count_of(scales: Iterable[Scale], streams: Iterable[Stream]) -> int:
    """The number of prompts that scales and stream conditions tell apart."""
    counts = []
    for scale in scales:
        value = scale(0) if callable(scale) else scale
        counts.append(
            1 if isinstance(value, int | float) else value.numel() if isinstance(value, Tensor) else len(value)
        )
    for stream in streams:
        if isinstance(stream.condition, PromptTokens):
            counts.append(len(stream.condition.prompts))
        elif isinstance(stream.condition, PromptText):
            counts.append(len(stream.condition.texts))
    return agreed_count(counts)


def scale_at(scale: Scale, row: Row) -> float:
    """The value of a scale for one row. Raises ValueError if it is not finite or no value is given for the row's
    prompt."""
    value = scale(row.step) if callable(scale) else scale
    if isinstance(value, Tensor):
        value = value.tolist()
    own = value if isinstance(value, int | float) else row_of(value, row.prompt_index, "guidance scale")
    number = float(own(row.step) if callable(own) else own)
    if not math.isfinite(number):
        raise ValueError(f"guidance scales must be finite, got {number}")
    return number


def apply_contribution(step: Step, raw_scores: Tensor, contribution: Contribution | None) -> Tensor:
    """The guided scores of a step.

    Affine contributions, which is nearly all, go through the fused kernel; the others through the chain below.

    Args: raw_scores (rows, vocab), what the model gave; step.conditional are its log-probabilities.
    Returns: float32 (rows, vocab): renormalised log-probabilities, or `raw_scores` bit for bit where no term is active.
    """
    if contribution is None:
        return raw_scores
    if _is_affine(contribution, step, raw_scores):
        return _fused(step, raw_scores, contribution)
    contribution = contribution.filtered(step)
    conditional = step.conditional
    base = without_bans(conditional)
    guided = base if contribution.own is None else (1 + contribution.own) * base
    for stream, weight in contribution.weights.items():
        guided = guided + weight * step.scores[stream].log_probs
    if contribution.additive is not None:
        guided = guided + contribution.additive
    if base is not conditional:  # some token is banned, and stays so
        guided = torch.where(conditional > -math.inf, guided, -math.inf)
    if contribution.keep is not None:
        guided = _filtered(guided, contribution.keep, step.legal)
    guided = log_probabilities(guided)
    if contribution.active.device.type == "cpu" and bool(contribution.active.all()):
        return guided
    return torch.where(contribution.active.unsqueeze(-1), guided, raw_scores.to(guided.dtype))


def _is_affine(contribution: Contribution, step: Step, raw_scores: Tensor) -> bool:
    # A filter looks at legal tokens, and the kernel's mask removes the others: it serves callers that want both.
    looks_at_legal = contribution.plausibility is not None and step.legal is not None and step.bitmask is None
    simple = contribution.additive is None and contribution.keep is None and not looks_at_legal
    return simple and raw_scores.dtype != torch.float64


def _fused(step: Step, raw_scores: Tensor, contribution: Contribution) -> Tensor:
    used = contribution.weights
    first = torch.zeros_like(contribution.active, dtype=torch.float32).unsqueeze(-1)
    own = 1 + (first if contribution.own is None else contribution.own)
    guided = guided_log_probs(
        [raw_scores, *(step.scores[stream].raw for stream in used)],
        torch.cat([own, *used.values()], dim=-1),
        bitmask=step.bitmask,
        plausibility=contribution.plausibility,
    )
    if contribution.active.device.type == "cpu" and bool(contribution.active.all()):
        return guided
    return torch.where(contribution.active.unsqueeze(-1), guided, raw_scores.to(guided.dtype))


def _filtered(guided: Tensor, keep: Tensor, legal: Tensor | None) -> Tensor:
    """Drop what filters dropped, except in rows where that would leave nothing that is possible and legal."""
    survivors = keep & (guided > -math.inf)
    if legal is not None:
        survivors = survivors & legal
    return torch.where(keep | ~survivors.any(dim=-1, keepdim=True), guided, -math.inf)
