"""Adaptive projected guidance (APG) on token scores.

Source: Sadat et al. 2024, "Eliminating oversaturation and artifacts of high guidance scales", arXiv:2410.02416, for
diffusion. The difference of the two predictions is split along the conditional prediction; the parallel part
oversaturates and is scaled down. For tokens the split has an exact meaning (the derivation is ours): adding a
multiple of centred log-probabilities to themselves is a temperature change, so the parallel part only sharpens, and
the orthogonal part is what re-ranks. parallel_weight = 0 guides without sharpening.

    d = c - u,   d_par = <d, c> / <c, c> c,   g = c + (scale - 1) (d_perp + parallel_weight d_par)

The inner product is Fisher's, weighted by the conditional probabilities, with p-centred vectors: <a, b> = sum_v p(v)
a(v) b(v). A flat one lets the tail of 50 000 impossible tokens decide the direction. Momentum, part of the original,
is left out on purpose: successive positions predict different variables.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from guiderail.logits.combination import Weight, log_probabilities, row_weight, without_bans

_TINY = torch.finfo(torch.float64).tiny


def projected_direction(
    conditional_logits: Tensor, null_logits: Tensor, parallel_weight: Weight = 0.0, norm_limit: float | None = None
) -> Tensor:
    """The direction `d_perp + parallel_weight * d_par`, float32 (..., vocab), to be multiplied by scale - 1.

    Args:
        parallel_weight: eta; 1.0 = plain classifier-free guidance, 0.0 = no sharpening.
        norm_limit: rescale the difference to at most this Fisher norm (a standard deviation in nats) before splitting;
            None = no limit.
    """
    # Where one token has nearly everything, the variance of log-probabilities is a sum of tiny products; float32 loses
    # the winner's own, log(1 - 1e-12), and with it the axis.
    own = log_probabilities(conditional_logits.double())
    probabilities = own.exp()
    conditional = without_bans(own)
    difference = conditional - without_bans(log_probabilities(null_logits.double()))

    def centred(vector: Tensor) -> Tensor:
        return vector - (probabilities * vector).sum(dim=-1, keepdim=True)

    def inner(a: Tensor, b: Tensor) -> Tensor:
        return (probabilities * a * b).sum(dim=-1, keepdim=True)

    axis, difference = centred(conditional), centred(difference)
    if norm_limit is not None:
        norm = inner(difference, difference).sqrt()
        difference = difference * (norm_limit / norm.clamp(min=_TINY)).clamp(max=1.0)
    # A flat or one-point distribution has no axis: nothing is parallel to it.
    along = inner(difference, axis) / inner(axis, axis).clamp(min=_TINY)
    parallel = along * axis
    eta = row_weight(parallel_weight, difference)
    direction = difference - parallel + eta * parallel
    return direction if conditional_logits.dtype == torch.float64 else direction.float()


def adaptive_projected_guidance(
    conditional_logits: Tensor,
    null_logits: Tensor,
    guidance_scale: Weight,
    parallel_weight: Weight = 0.0,
    norm_limit: float | None = None,
) -> Tensor:
    """Classifier-free guidance with its sharpening part scaled by `parallel_weight`.

    Args: guidance_scale 1.0 = off (conditional scores untouched); the rest see `projected_direction`.
    Returns: float32 log-probabilities (..., vocab).
    """
    own = log_probabilities(conditional_logits)
    strength = row_weight(guidance_scale, own) - 1
    direction = projected_direction(conditional_logits, null_logits, parallel_weight, norm_limit)
    guided = log_probabilities(torch.where(own > -math.inf, without_bans(own) + strength * direction, -math.inf))
    return torch.where(strength == 0, conditional_logits.to(guided.dtype), guided)
