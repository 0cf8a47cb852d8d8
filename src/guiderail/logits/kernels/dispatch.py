"""Which implementation runs: Triton for tensors on a GPU, plain torch for everything else."""

from __future__ import annotations

import importlib.util
from functools import cache

from torch import Tensor

from guiderail.logits.kernels import reference


@cache
def _triton_is_installed() -> bool:
    return importlib.util.find_spec("triton") is not None


def guided_log_probs(
    streams: Tensor,
    weights: Tensor,
    *,
    bitmask: Tensor | None = None,
    mask_rows: Tensor | None = None,
    plausibility: float | None = None,
    temperature: Tensor | None = None,
) -> Tensor:
    """Final log-probabilities of a guided, constrained step in one pass over the vocabulary per read.

        g = log-softmax( (sum_k weights[k] log p_k  on legal, plausible tokens; -inf elsewhere) / temperature )

    Args:
        streams: (streams, rows, vocab) logits, float32, float16 or bfloat16; the first is the primary stream, whose
            bans hold.
        weights: float32 (rows, streams).
        bitmask: int32 (masks, words), packed, bit 1 = allowed; None = everything is legal.
        mask_rows: int32 or int64 (rows,), which mask a row uses, -1 for none; None = mask i for row i. Rows of one
            mask store are gathered here instead of being copied into a batch first.
        plausibility: keep tokens of the primary stream within this factor of its best legal one; None = no filter.
        temperature: float32 (rows,), > 0; None = 1.
    Returns: float32 (rows, vocab), renormalised; a row in which nothing is legal and possible is -inf throughout.
    Raises: ValueError on shapes that do not fit.
    """
    reference.check(streams, weights, bitmask, mask_rows, temperature)
    if streams.is_cuda and _triton_is_installed():
        from guiderail.logits.kernels import triton_kernel

        return triton_kernel.guided_log_probs(streams, weights, bitmask, mask_rows, plausibility, temperature)
    return reference.guided_log_probs(
        streams, weights, bitmask=bitmask, mask_rows=mask_rows, plausibility=plausibility, temperature=temperature
    )
