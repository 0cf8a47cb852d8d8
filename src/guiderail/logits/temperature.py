"""Temperatures that undo the sharpening of guidance.

Guidance above scale 1 lowers the entropy. 'CFG rescale', taken from diffusion, divides guided logits by their standard
deviation relative to the conditional ones; on logits that is exactly a temperature (`rescale_temperature`), so it
changes nothing under greedy decoding. If the aim is to keep the conditional entropy, match the entropy
(`entropy_matched`), not a standard deviation that the tail of the vocabulary dominates.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from guiderail.logits.combination import log_probabilities


def entropy(scores: Tensor) -> Tensor:
    """Shannon entropy in nats over the last dimension; 0 for a row with one token or none."""
    log_probs = log_probabilities(scores)
    probabilities = log_probs.exp()
    return -torch.where(probabilities > 0, probabilities * log_probs, 0.0).sum(dim=-1)


def apply_temperature(scores: Tensor, temperature: float | Tensor) -> Tensor:
    """`scores / temperature`, untouched at 1.0. Raises ValueError unless positive and finite.

    Args: a tensor gives one temperature per leading dimension.
    """
    if isinstance(temperature, Tensor):
        return scores / temperature.reshape(*temperature.shape, *([1] * (scores.ndim - temperature.ndim)))
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature must be positive and finite, got {temperature}")
    return scores if temperature == 1.0 else scores / temperature


def rescale_temperature(guided_logits: Tensor, conditional_logits: Tensor, rescale: float) -> Tensor:
    """The temperature that guidance rescale with factor `rescale` (phi) amounts to: 1 / (phi std_c / std_g + 1 - phi).

    Args: rescale 0.0 = off. Returns: (...), one temperature per row; finite logits are expected.
    """
    ratio = conditional_logits.float().std(dim=-1) / guided_logits.float().std(dim=-1).clamp(min=1e-12)
    return 1 / (rescale * ratio + 1 - rescale)


def entropy_matching_temperature(guided_scores: Tensor, target_entropy: Tensor, iterations: int = 40) -> Tensor:
    """The temperature at which the guided distribution has a given entropy, per row.

    Entropy grows with temperature, so bisection on log T over [1/64, 64] is safe; 40 halvings are below float32
    resolution. A row whose guided distribution cannot reach the target (ties, a single token) gets the nearer end.

    Returns: float32 (...).
    """
    scores = log_probabilities(guided_scores)
    low = torch.full_like(target_entropy.float(), -math.log(64.0))
    high = -low
    for _ in range(iterations):
        middle = (low + high) / 2
        too_cold = entropy(scores / middle.exp().unsqueeze(-1)) < target_entropy
        low, high = torch.where(too_cold, middle, low), torch.where(too_cold, high, middle)
    return ((low + high) / 2).exp()


def entropy_matched(guided_scores: Tensor, conditional_scores: Tensor) -> Tensor:
    """Guided scores at the conditional entropy: new order, old decisiveness.

    Returns: float32 log-probabilities (..., vocab); the order of tokens is that of `guided_scores`.
    """
    temperature = entropy_matching_temperature(guided_scores, entropy(conditional_scores))
    return log_probabilities(log_probabilities(guided_scores) / temperature.unsqueeze(-1))
