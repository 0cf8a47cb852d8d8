"""Top-k, nucleus and min-p: which tokens a sampler keeps.

All three answer with a boolean mask and never an empty one where anything is finite, so they compose with `&` only
through `truncate`, which applies them in sequence: each looks at the distribution the previous one left. They run
after the grammar mask. Truncating first can leave no legal token at all.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from guiderail.logits.combination import log_probabilities


def top_k_tokens(scores: Tensor, k: int) -> Tensor:
    """The k best tokens of every row, ties at the threshold included. k >= vocab keeps everything; k must be
    positive."""
    if k < 1:
        raise ValueError(f"top-k needs k >= 1, got {k}")
    finite = scores > -math.inf
    if k >= scores.shape[-1]:
        return finite
    threshold = scores.topk(k, dim=-1).values[..., -1:]
    return (scores >= threshold) & finite


def top_p_tokens(scores: Tensor, p: float) -> Tensor:
    """The smallest set of best tokens whose probability reaches p, the token that crosses p included.

    p = 1 keeps everything finite, p = 0 keeps the best token only.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"top-p needs 0 <= p <= 1, got {p}")
    log_probs = log_probabilities(scores)
    finite = log_probs > -math.inf
    if p >= 1:
        return finite
    ordered, order = log_probs.sort(dim=-1, descending=True, stable=True)
    mass_before = ordered.exp().cumsum(dim=-1) - ordered.exp()
    keep = mass_before < p
    keep[..., 0] = True
    return torch.zeros_like(finite).scatter(-1, order, keep) & finite


def min_p_tokens(scores: Tensor, min_p: float) -> Tensor:
    """Tokens at least `min_p` times as likely as the best one (Nguyen et al. 2024, arXiv:2407.01082)."""
    if not 0 <= min_p <= 1:
        raise ValueError(f"min-p needs 0 <= min_p <= 1, got {min_p}")
    finite = scores > -math.inf
    if min_p == 0:
        return finite
    return (scores >= scores.amax(dim=-1, keepdim=True) + math.log(min_p)) & finite


def truncate(
    scores: Tensor, *, top_k: int | None = None, top_p: float | None = None, min_p: float | None = None
) -> Tensor:
    """Top-k, then top-p, then min-p; removed tokens become -inf, kept scores are not touched."""
    if top_k is not None:
        scores = scores.masked_fill(~top_k_tokens(scores, top_k), -math.inf)
    if top_p is not None:
        scores = scores.masked_fill(~top_p_tokens(scores, top_p), -math.inf)
    if min_p is not None:
        scores = scores.masked_fill(~min_p_tokens(scores, min_p), -math.inf)
    return scores
