"""Which tokens a rule may promote: the adaptive plausibility constraint.

A ratio of two distributions is large where both are tiny. A token with p = 0.001 against 0.00001 goes from 0.1 % to
90 % at scale 3 against a mode at 0.6 against 0.7. The filter keeps the tokens the trusted stream finds plausible:

    V_head = { v : p(v) >= alpha * max p }            Li et al. 2023, "Contrastive Decoding", arXiv:2210.15097

The maximum is taken over the tokens the grammar allows. Taken over everything, the filter can keep only tokens that the
mask then removes; taken over the legal ones it always keeps at least one of them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from guiderail.logits.bitmask import unpack_token_bitmask
from guiderail.logits.combination import Weight, log_probabilities, row_weight

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def allowed_tokens(allowed: Tensor | npt.NDArray[np.int32] | None, like: Tensor) -> Tensor | None:
    """Legality as booleans shaped like the scores.

    Args: `allowed` None (everything), bool (..., vocab), or a packed int32 bitmask (..., ceil(vocab / 32)) from numpy
        or torch.
    """
    if allowed is None:
        return None
    if isinstance(allowed, Tensor) and allowed.dtype == torch.bool:
        return allowed
    unpacked = unpack_token_bitmask(allowed, like.shape[-1], device=like.device)
    assert isinstance(unpacked, Tensor)
    return unpacked


def plausible_tokens(scores: Tensor, alpha: Weight, allowed: Tensor | npt.NDArray[np.int32] | None = None) -> Tensor:
    """The tokens within a factor `alpha` of the most likely legal one.

    Args:
        scores: float (..., vocab) of the trusted stream (conditional, expert, final layer).
        alpha: 0 = keep everything, 1 = keep only the maximum (and its ties), 0.1 is usual. A tensor for one per row.
        allowed: the legal tokens, see `allowed_tokens`.
    Returns: bool (..., vocab). Contains at least one legal token wherever the stream leaves one finite; illegal
        tokens are False. Where the stream itself bans every legal token, the legal set is returned as it is: the mask
        must not be emptied by a filter that is only advice.
    Raises: ValueError if alpha is outside [0, 1].
    """
    log_probs = log_probabilities(scores)
    factor = row_weight(alpha, log_probs)
    if not (isinstance(alpha, Tensor) and alpha.device.type != "cpu") and not bool(
        ((factor >= 0) & (factor <= 1)).all()
    ):
        raise ValueError(f"alpha must lie in [0, 1], got {alpha}")
    legal = allowed_tokens(allowed, log_probs)
    candidates = log_probs if legal is None else torch.where(legal, log_probs, -math.inf)
    best = candidates.amax(dim=-1, keepdim=True)
    # log 0 = -inf keeps every finite candidate; banned ones fail the strict test below.
    keep = (candidates >= best + torch.log(factor)) & (candidates > -math.inf)
    # alpha = 1 keeps the maximum even where best + log(1) rounds; the comparison above is then exact.
    if legal is None:
        return keep
    return torch.where(best > -math.inf, keep, legal)


def restrict(log_probs: Tensor, keep: Tensor) -> Tensor:
    """Renormalised log-probabilities on the kept tokens; a row that would lose everything is left as it was."""
    kept = torch.where(keep, log_probs, -math.inf)
    empty = kept.amax(dim=-1, keepdim=True) == -math.inf
    return log_probabilities(torch.where(empty, log_probs, kept))
