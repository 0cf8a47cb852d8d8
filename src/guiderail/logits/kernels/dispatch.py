"""Which implementation runs: the compiled core on the CPU, Triton on a GPU, plain torch for everything else."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from guiderail.logits.kernels import native, reference


@cache
def _triton_is_installed() -> bool:
    return importlib.util.find_spec("triton") is not None


def guided_log_probs(
    streams: Tensor | Sequence[Tensor],
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
        streams: (streams, rows, vocab) logits, or a list of (rows, vocab), float32, float16 or bfloat16; the first is
            the primary stream, whose bans hold.
        weights: float32 (rows, streams).
        bitmask: int32 (masks, words), packed, bit 1 = allowed; None = everything is legal.
        mask_rows: int32 or int64 (rows,), which mask a row uses, -1 for none; None = mask i for row i. Rows of one
            mask store are gathered here instead of being copied into a batch first.
        plausibility: keep tokens of the primary stream within this factor of its best legal one; None = no filter.
        temperature: float32 (rows,), > 0; None = 1.
    Returns: float32 (rows, vocab), renormalised; a row in which nothing is legal and possible is -inf throughout.
    Raises: ValueError on shapes that do not fit, a plausibility outside [0, 1], a mask row that does not exist.
    """
    each = list(streams)
    reference.check(each, weights, bitmask, mask_rows, plausibility, temperature)
    if each[0].is_cuda and _triton_is_installed():
        from guiderail.logits.kernels import triton_kernel

        together = streams if isinstance(streams, Tensor) else torch.stack(each)
        return triton_kernel.guided_log_probs(together, weights, bitmask, mask_rows, plausibility, temperature)
    on_cpu = all(part.device.type == "cpu" for part in (*each, weights))
    if on_cpu and len(each) <= native.MOST_STREAMS and each[0].dtype != torch.float64:
        return native.guided_log_probs(each, weights, bitmask, mask_rows, plausibility, temperature)
    return reference.guided_log_probs(
        each, weights, bitmask=bitmask, mask_rows=mask_rows, plausibility=plausibility, temperature=temperature
    )
