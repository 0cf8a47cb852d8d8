"""Affine combination of next-token distributions: the frame of nearly every guidance rule.

A rule over K streams is a row of weights:

    g  =  sum_k  a_k * log p_k          classifier-free guidance at scale s:  a = (s, 1 - s)  over (conditional, null)

Streams enter as log-probabilities, not as logits. The two sample the same distribution as long as only a softmax
follows, but penalties, thresholds, beam scores and importance weights read absolute values, so the result leaves
renormalised.

Bans. A stream says what a model believes, and beliefs are finite; a -inf is a ban, and one stream is entitled to it:
the first, the *primary* stream. Its bans survive every weight, including 0. A -inf in any other stream would turn
into +inf under a negative weight, or into nan against the primary's own, so it is read as "as unlikely as the least
likely token this stream still allows". Scores below -1e20 (models that ban with the smallest float) count as bans,
and so does nan.

Everything is computed in float32 (float64 stays float64): half precision loses the difference of two close streams.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

Weight: TypeAlias = float | Tensor
"""One number, or a tensor that broadcasts against the leading (batch) dimensions of the scores."""

BAN_THRESHOLD = -1e20
"""Scores at or below this are bans. Half of float32's exponent range away from anything a model computes."""

WINNER = 1e15
"""What +inf counts as: far above every other score, and its distance to them still far from a ban."""


def log_probabilities(scores: Tensor) -> Tensor:
    """Log-softmax over the last dimension that knows about bans.

    Args:
        scores: float (..., vocab); logits or log-probabilities in any floating dtype.
    Returns: float32 (float64 for float64 input), same shape, a new tensor. Bans are exactly -inf; a row in which
        everything is banned stays -inf throughout instead of becoming nan.
    """
    wide = scores if scores.dtype == torch.float64 else scores.float()
    if wide.device.type == "cpu" and wide.numel():
        # The usual row has no ban. One reduction proves it and spares five passes; on a GPU asking would cost a wait.
        plain = torch.log_softmax(wide, dim=-1)
        if bool(plain.amin() > -WINNER):
            return plain
    # A comparison with nan is false, so nan lands among the bans. +inf would give inf - inf; the clamp keeps it the
    # winner.
    wide = torch.where(wide > BAN_THRESHOLD, wide.clamp(max=WINNER), -math.inf)
    nothing_left = wide.amax(dim=-1, keepdim=True) == -math.inf
    return torch.where(nothing_left, -math.inf, torch.log_softmax(wide, dim=-1))


def without_bans(log_probs: Tensor) -> Tensor:
    """A stream's beliefs with every -inf replaced by the row's least finite value (0 where nothing is finite)."""
    if log_probs.device.type == "cpu" and log_probs.numel() and bool(log_probs.amin() > BAN_THRESHOLD):
        return log_probs
    finite = log_probs > BAN_THRESHOLD
    floor = torch.where(finite, log_probs, math.inf).amin(dim=-1, keepdim=True)
    floor = torch.where(floor == math.inf, 0.0, floor)
    return torch.where(finite, log_probs, floor)


def beliefs(scores: Tensor) -> Tensor:
    """`without_bans(log_probabilities(scores))`: what a stream other than the primary contributes."""
    if scores.device.type == "cpu" and scores.numel():
        plain = torch.log_softmax(scores if scores.dtype == torch.float64 else scores.float(), dim=-1)
        if bool(plain.amin() > BAN_THRESHOLD):
            return plain
    return without_bans(log_probabilities(scores))


def row_weight(weight: Weight, like: Tensor) -> Tensor:
    """A weight as a tensor that broadcasts over `like` (..., vocab).

    Raises: ValueError if a weight held on the host is nan or infinite, or has more dimensions than the batch.
    """
    tensor = torch.as_tensor(weight, dtype=like.dtype, device=like.device)
    on_host = not isinstance(weight, Tensor) or weight.device.type == "cpu"
    if on_host and not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"guidance weights must be finite, got {weight}")
    if tensor.ndim > like.ndim - 1:
        raise ValueError(f"a weight of shape {tuple(tensor.shape)} does not fit scores of shape {tuple(like.shape)}")
    if tensor.ndim == 0:
        return tensor
    # A (batch,) weight belongs to the first dimension, also for (batch, codebooks, vocab) scores.
    return tensor.reshape(*tensor.shape, *([1] * (like.ndim - tensor.ndim)))


def affine_combination(streams: Sequence[Tensor], weights: Sequence[Weight]) -> Tensor:
    """Renormalised `sum_k weights[k] * log p_k`.

    With weights that sum to 1 the temperature stays that of the streams; other sums also change the temperature (and
    the sum 0 with everything at 0 is the uniform distribution over what the primary stream allows).

    Args:
        streams: K float tensors (..., vocab) of one shape. The first is the primary stream: its bans stay bans.
        weights: K weights; a number, or a tensor over the leading dimensions for one weight per row.
    Returns: float32 log-probabilities (..., vocab). Rows whose weights are exactly (1, 0, ..., 0) carry the primary
        scores as they came, bit for bit, not renormalised.
    Raises: ValueError on mismatched shapes, an empty list, or a non-finite weight.
    """
    if not streams or len(streams) != len(weights):
        raise ValueError(f"{len(streams)} streams need as many weights, got {len(weights)}")
    if any(stream.shape != streams[0].shape for stream in streams):
        raise ValueError(f"streams differ in shape: {[tuple(stream.shape) for stream in streams]}")
    primary = log_probabilities(streams[0])
    columns = [row_weight(weight, primary) for weight in weights]
    guided = columns[0] * without_bans(primary)
    for stream, column in zip(streams[1:], columns[1:], strict=True):
        guided = guided + column * without_bans(log_probabilities(stream))
    guided = log_probabilities(torch.where(primary > -math.inf, guided, -math.inf))
    off = columns[0] == 1
    for column in columns[1:]:
        off = off & (column == 0)
    return torch.where(off, streams[0].to(guided.dtype), guided)


def log_normalizer(guided_log_probs: Tensor, allowed: Tensor | None = None) -> Tensor:
    """log Z_t: what the local normalisation of one step throws away.

    Sampling token by token from normalised guided scores does not sample the normalised guided *sequence* distribution;
    the missing factor per step is `Z_t = sum over allowed v of exp(g_t(v))`. Its logarithm is the weight increment of
    sequential Monte Carlo, whatever the rule and the mask.

    Args:
        guided_log_probs: float (..., vocab), **not** renormalised: `unnormalized_combination`, or any sum of
            log-scores.
        allowed: bool (..., vocab), or None for all.
    Returns: float32 (...); -inf where nothing is allowed.
    """
    scores = guided_log_probs if guided_log_probs.dtype == torch.float64 else guided_log_probs.float()
    if allowed is not None:
        scores = torch.where(allowed, scores, -math.inf)
    return torch.logsumexp(scores, dim=-1)


def unnormalized_combination(streams: Sequence[Tensor], weights: Sequence[Weight]) -> Tensor:
    """`sum_k weights[k] * log p_k` before renormalisation, with the primary stream's bans; input of
    `log_normalizer`."""
    primary = log_probabilities(streams[0])
    total = torch.zeros_like(primary)
    for index, (stream, weight) in enumerate(zip(streams, weights, strict=True)):
        log_probs = primary if index == 0 else log_probabilities(stream)
        total = total + row_weight(weight, primary) * without_bans(log_probs)
    return torch.where(primary > -math.inf, total, -math.inf)


def renyi_divergence(p_logits: Tensor, q_logits: Tensor, order: float) -> Tensor:
    """Renyi divergence D_order(p || q) in nats over the last dimension; Kullback-Leibler at order 1.

    For plain classifier-free guidance, `log Z_t = (s - 1) * D_s(p_conditional || p_null)`: how much the condition
    matters at this step, for free.
    """
    p, q = log_probabilities(p_logits), without_bans(log_probabilities(q_logits))
    if order == 1.0:
        return (p.exp() * (without_bans(p) - q)).sum(dim=-1)
    terms = torch.where(p > -math.inf, order * without_bans(p) + (1 - order) * q, -math.inf)
    return torch.logsumexp(terms, dim=-1) / (order - 1)
