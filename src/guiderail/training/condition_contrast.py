"""Condition contrastive alignment (CCA): training that replaces guidance, and the baselines it is compared with.

Source: Chen et al. 2024, "Toward Guidance-Free AR Visual Generation via Condition Contrastive Alignment",
arXiv:2410.09347. The model p is tuned from a frozen copy p_ref to tell matched pairs (x, c) from mismatched ones
(x, c'), where both read the same x:

    r(x, c)  =  sum over tokens of  log p(x | c) - log p_ref(x | c)                        a sum, never a mean
    loss     =  [ -log sigmoid(beta r(x, c)) - lambda log sigmoid(-beta r(x, c')) ] / max(lambda, 1)

c' are the batch's conditions rolled by one. Rows whose condition is dropped (kept so that the null, and with it
guidance, survives) and rows whose rolled condition is their own have no mismatched pair: there the second term is a
positive one with weight 1.

What it converges to. Were r a free function, the optimum would be r* = (log p(x|c)/p(x) - log lambda) / beta: guidance
with canonical scale 1 + 1/beta. A normalised p cannot absorb the constants, so the paper's loss leaves the family of
guided distributions (for beta = 1, lambda = 10 by 0.2 nats on an enumerable example). `ConditionOffsets`, one learned
scalar per condition added to beta r, absorbs them: the optimum is then exactly the guided distribution, whatever
lambda. The offset is ours, not the paper's.

beta, lambda, learning rate and epochs set the strength together. r grows with length, so beta is to shrink with it:
the paper's 0.02 at 576 tokens is 0.18 at 64.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid


def condition_contrastive_loss(
    matched: Tensor,
    mismatched: Tensor,
    *,
    beta: float = 0.02,
    negative_weight: float = 1.0,
    no_negative: Tensor | None = None,
    matched_offset: Tensor | float = 0.0,
    mismatched_offset: Tensor | float = 0.0,
) -> Tensor:
    """Mean CCA loss of a batch.

    Args:
        matched: float (batch,), r(x, c).
        mismatched: float (batch,), r(x, c') for the same x.
        beta: inverse strength, > 0. negative_weight: lambda >= 0.
        no_negative: bool (batch,), rows of `RolledConditions.no_negative`; None = no such row.
        matched_offset, mismatched_offset: (batch,) from `ConditionOffsets`; 0.0 = the paper's loss.
    Returns: float32 scalar.
    Raises: ValueError for beta <= 0, lambda < 0 or unequal shapes.
    """
    if beta <= 0 or negative_weight < 0:
        raise ValueError(f"beta must be positive and negative_weight not negative, got {beta} and {negative_weight}")
    if matched.shape != mismatched.shape:
        raise ValueError(f"matched {tuple(matched.shape)} and mismatched {tuple(mismatched.shape)} ratios differ")
    positive = -logsigmoid(beta * matched + matched_offset)
    away = beta * mismatched + mismatched_offset
    negative = -negative_weight * logsigmoid(-away)
    if no_negative is not None:
        negative = torch.where(no_negative, -logsigmoid(away), negative)
    return (positive + negative).mean() / max(negative_weight, 1.0)


def preference_loss(matched: Tensor, mismatched: Tensor, *, beta: float = 0.02) -> Tensor:
    """DPO (Rafailov et al. 2023, arXiv:2305.18290) with the mismatched pair as the rejected one; a baseline.

    It sees only the difference of the two ratios, so both may fall together. Shapes as `condition_contrastive_loss`.
    """
    if beta <= 0:
        raise ValueError(f"beta must be positive, got {beta}")
    return -logsigmoid(beta * (matched - mismatched)).mean()


def unlearning_loss(matched: Tensor, mismatched: Tensor, *, negative_weight: float = 1.0) -> Tensor:
    """Likelihood up on matched pairs, down on mismatched ones, without a sigmoid; a baseline that is unbounded below.

    Shapes as `condition_contrastive_loss`; the reference cancels in the gradient.
    """
    return (negative_weight * mismatched - matched).mean() / max(negative_weight, 1.0)


class ConditionOffsets(nn.Module):
    """One learned scalar per condition, 0 at first: what makes the optimum of CCA exactly a guided distribution.

    Used in training only; the tuned model does not need it.
    """

    def __init__(self, conditions: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(conditions))

    def forward(self, condition: Tensor) -> Tensor:
        """Offsets (batch,) for int64 conditions (batch,)."""
        return self.values[condition]


class RolledConditions:
    """The conditions of the two halves of a CCA batch.

    Args:
        conditions: int64 (batch,), labels of the examples. Shuffle the data: with sorted labels most rolled ones agree.
        null: the null condition, or None if the model has none.
        null_probability: rows that keep the null alive, the paper's 0.1.
        generator: for the null rows.
    Attributes:
        matched, mismatched: int64 (batch,); no_negative: bool (batch,).
    Raises: ValueError for a probability above 0 without a null.
    """

    def __init__(
        self,
        conditions: Tensor,
        null: int | None = None,
        null_probability: float = 0.1,
        generator: torch.Generator | None = None,
    ) -> None:
        if null is None and null_probability > 0:
            raise ValueError("null rows need a null condition")
        rolled = conditions.roll(1)
        dropped = torch.zeros_like(conditions, dtype=torch.bool)
        if null is not None:
            draws = torch.rand(conditions.shape, generator=generator, device=conditions.device)
            dropped = draws < null_probability
            conditions, rolled = conditions.masked_fill(dropped, null), rolled.masked_fill(dropped, null)
        self.matched, self.mismatched = conditions, rolled
        self.no_negative = conditions == rolled
