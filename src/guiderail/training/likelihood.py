"""Log-likelihoods of whole sequences, in float32: what every loss here is made of."""

from __future__ import annotations

import torch
from torch import Tensor


def token_log_probs(logits: Tensor, targets: Tensor) -> Tensor:
    """log p of each target under the logits at its own position.

    Args: logits float (..., length, vocab), already aligned: `logits[..., i, :]` predicts `targets[..., i]`;
        targets int64 (..., length).
    Returns: float32 (..., length).
    Raises: ValueError if the shapes do not agree.
    """
    if logits.shape[:-1] != targets.shape:
        raise ValueError(f"logits {tuple(logits.shape)} do not predict targets {tuple(targets.shape)}")
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return torch.log_softmax(wide, dim=-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def sequence_log_prob(logits: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
    """Sum (not mean) of token log-probabilities: the logarithm of the probability of the sequence.

    Args: as `token_log_probs`; mask bool or 0/1 (..., length), True where a target counts.
    Returns: float32 (...).
    """
    values = token_log_probs(logits, targets)
    return values.sum(-1) if mask is None else torch.where(mask.bool(), values, 0.0).sum(-1)
