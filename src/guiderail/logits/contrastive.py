"""Contrastive decoding and DoLa: subtract what a weaker view of the same text already says.

Sources: Li et al. 2023, arXiv:2210.15097 (expert minus amateur); O'Brien & Lewis 2023, arXiv:2309.09117 (the form
with beta and unnormalised expert weight); Chuang et al. 2024, "DoLa", arXiv:2309.03883 (early layer as the amateur).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from guiderail.logits.combination import (
    Weight,
    affine_combination,
    log_probabilities,
    unnormalized_combination,
    without_bans,
)
from guiderail.logits.plausibility import plausible_tokens, restrict

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def contrastive_guidance(
    expert_logits: Tensor,
    amateur_logits: Tensor,
    guidance_scale: Weight = 1.5,
    alpha: Weight = 0.1,
    allowed: Tensor | npt.NDArray[np.int32] | None = None,
) -> Tensor:
    """Contrast with an amateur within the expert's plausible tokens.

        g = amateur + scale (expert - amateur)   on  { v : p_expert(v) >= alpha max p_expert },  -inf elsewhere

    With scale = 1 + beta this is the later form, (1 + beta) e - beta a; beta = 0.5 is its default.

    Args:
        expert_logits, amateur_logits: float (..., vocab).
        guidance_scale: 1.0 = off: the expert untouched and unfiltered.
        alpha: plausibility, see `plausible_tokens`.
        allowed: legal tokens; the plausible set is taken among them and never empty.
    Returns: float32 log-probabilities (..., vocab).
    """
    guided = affine_combination([expert_logits, amateur_logits], [guidance_scale, 1 - guidance_scale])
    filtered = restrict(guided, plausible_tokens(expert_logits, alpha, allowed))
    scale = torch.as_tensor(guidance_scale, device=guided.device)
    off = (scale == 1).reshape(*scale.shape, *([1] * (guided.ndim - scale.ndim)))
    return torch.where(off, guided, filtered)


def contrastive_difference(
    expert_logits: Tensor,
    amateur_logits: Tensor,
    alpha: Weight = 0.1,
    amateur_temperature: float = 1.0,
    allowed: Tensor | npt.NDArray[np.int32] | None = None,
) -> Tensor:
    """The first form of contrastive decoding: `log p_expert - log p_amateur` within the plausible set.

    Its coefficients sum to 0, so it has no neutral value, and it forgets how likely a token is once it is plausible.
    The original raises the amateur's temperature to soften it (0.5 to 1.5).

    Returns: float32 log-probabilities (..., vocab), renormalised over the plausible set.
    """
    streams = [expert_logits, amateur_logits.float() / amateur_temperature]
    difference = unnormalized_combination(streams, [1.0, -1.0])
    return restrict(difference, plausible_tokens(expert_logits, alpha, allowed))


def jensen_shannon_divergence(p_logits: Tensor, q_logits: Tensor) -> Tensor:
    """Jensen-Shannon divergence over the last dimension, in nats: 0 (equal) to log 2. Shapes broadcast."""
    p, q = log_probabilities(p_logits), log_probabilities(q_logits)
    middle = torch.logaddexp(p, q) - math.log(2)

    def divergence(from_log_probs: Tensor) -> Tensor:
        probabilities = from_log_probs.exp()
        terms = probabilities * (without_bans(from_log_probs) - without_bans(middle))
        return torch.where(probabilities > 0, terms, 0.0).sum(dim=-1)

    return 0.5 * (divergence(p) + divergence(q))


def most_divergent_layer(final_logits: Tensor, layer_logits: Tensor) -> Tensor:
    """DoLa's premature layer: for every row, the candidate whose distribution is farthest from the final one.

    Args: `final_logits` (..., vocab), `layer_logits` (layers, ..., vocab).
    Returns: int64 (...), index into the first dimension of `layer_logits`; the first of equals.
    """
    return jensen_shannon_divergence(final_logits.unsqueeze(0), layer_logits).argmax(dim=0)


def layer_contrast(
    final_logits: Tensor,
    layer_logits: Tensor,
    alpha: Weight = 0.1,
    allowed: Tensor | npt.NDArray[np.int32] | None = None,
) -> Tensor:
    """DoLa: final layer minus the most divergent early layer, within the final layer's plausible tokens.

    Args: `layer_logits` (layers, ..., vocab), the candidates' early exits through the output head.
    Returns: float32 log-probabilities (..., vocab).
    """
    choice = most_divergent_layer(final_logits, layer_logits)
    index = choice.unsqueeze(0).unsqueeze(-1).expand(1, *final_logits.shape)
    return contrastive_difference(final_logits, layer_logits.gather(0, index).squeeze(0), alpha, 1.0, allowed)
