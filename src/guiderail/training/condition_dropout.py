"""Condition dropout: one model learns the conditional and the null distribution, so that guidance has its null.

Source: Ho & Salimans 2022, arXiv:2207.12598; for captions Kornblith et al. 2023; VoxInstruct drops text and semantic
tokens independently (arXiv:2408.15676).

A condition is whatever fields of a batch carry it; its null is a change of those fields in the dropped rows. The
collator remembers which combinations it can drop, in the form `guiderail.logits.require_trained_nulls` checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

Batch = Mapping[str, Any]
NullChange = Callable[[Batch, Tensor], dict[str, Tensor]]
"""(batch, rows to drop, bool (batch,)) -> the changed fields, new tensors."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition that training may hide.

    Args: name; probability of hiding it per example, independently of the others; null, how it is hidden.
    """

    name: str
    probability: float
    null: NullChange


class ConditionDropout:
    """Collator: batches as `collate` makes them, with conditions hidden at random.

    Works in front of any training loop: `DataLoader(collate_fn=...)`, the `data_collator` of a transformers `Trainer`.

    Args:
        conditions: what may be hidden.
        collate: examples -> a batch (mapping of tensors with the same first dimension); None = called with batches.
        generator: source of randomness; None = torch's.
    Raises: ValueError for a repeated name or a probability outside [0, 1].
    """

    def __init__(
        self,
        conditions: Iterable[Condition],
        collate: Callable[[Any], Batch] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        self.conditions = tuple(conditions)
        names = [condition.name for condition in self.conditions]
        if len(set(names)) < len(names):
            raise ValueError(f"repeated condition names: {names}")
        for condition in self.conditions:
            if not 0 <= condition.probability <= 1:
                raise ValueError(f"{condition.name}: {condition.probability} is no probability")
        self.collate = collate
        self.generator = generator

    def __call__(self, examples: Any) -> dict[str, Any]:
        """A batch with conditions hidden; the given tensors are not modified. Raises KeyError for an absent field."""
        batch = dict(examples if self.collate is None else self.collate(examples))
        size = next(len(value) for value in batch.values() if isinstance(value, Tensor))
        for condition in self.conditions:
            rows = torch.rand(size, generator=self.generator) < condition.probability
            if bool(rows.any()):
                batch.update(condition.null(batch, rows))
        return batch

    @property
    def trained_nulls(self) -> frozenset[frozenset[str]]:
        """Every combination of hidden conditions that occurs with probability above 0."""
        choices = [
            [kept for kept, chance in ((False, c.probability), (True, 1 - c.probability)) if chance > 0]
            for c in self.conditions
        ]
        return frozenset(
            frozenset(c.name for c, kept in zip(self.conditions, outcome, strict=True) if not kept)
            for outcome in product(*choices)
        )


def zeros(*fields: str) -> NullChange:
    """The named float fields become 0: blank pixels, absent text features."""
    return value(0.0, *fields)


def value(null: float | int | Tensor, *fields: str) -> NullChange:
    """The named fields become a constant: a null label, the id of a padding token, a learned embedding."""

    def change(batch: Batch, rows: Tensor) -> dict[str, Tensor]:
        return {name: _where(rows, torch.as_tensor(null, dtype=batch[name].dtype), batch[name]) for name in fields}

    return change


def segment(field: str, segments: str, which: int, null: int) -> NullChange:
    """The ids of one segment become `null`, positions and segment ids stay: VoxInstruct's hidden semantic tokens.

    Args: field and segments name int64 (batch, length) fields; which segment; null id.
    """

    def change(batch: Batch, rows: Tensor) -> dict[str, Tensor]:
        inside = (batch[segments] == which) & rows[:, None].to(batch[segments].device)
        return {field: batch[field].masked_fill(inside, null)}

    return change


def prefix(field: str, length: int, null: int | Tensor) -> NullChange:
    """The first `length` ids, which hold the condition, become null ids: class tokens, image tokens, prompts.

    Args: null one id, or (length,) ids.
    """

    def change(batch: Batch, rows: Tensor) -> dict[str, Tensor]:
        ids = batch[field].clone()
        ids[:, :length] = _where(rows, torch.as_tensor(null, dtype=ids.dtype), ids[:, :length])
        return {field: ids}

    return change


def _where(rows: Tensor, null: Tensor, values: Tensor) -> Tensor:
    shape = (-1, *([1] * (values.ndim - 1)))
    return torch.where(rows.to(values.device).reshape(shape), null.to(values.device), values)
