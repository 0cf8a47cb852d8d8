"""The fused step in plain torch: the definition of what the kernels compute."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from guiderail.logits.bitmask import unpack_token_bitmask
from guiderail.logits.combination import log_probabilities, without_bans
from guiderail.logits.plausibility import plausible_tokens


def check(
    streams: Sequence[Tensor],
    weights: Tensor,
    bitmask: Tensor | None,
    mask_rows: Tensor | None,
    plausibility: float | None,
    temperature: Tensor | None,
) -> None:
    """Raise ValueError on shapes that do not fit; see `dispatch.guided_log_probs` for what they are."""
    shapes = {tuple(stream.shape) for stream in streams}
    if len(shapes) != 1 or len(shape := shapes.pop()) != 2:
        raise ValueError("streams are (streams, rows, vocab), at least one, all of one shape")
    count, rows = len(streams), shape[0]
    if tuple(weights.shape) != (rows, count):
        raise ValueError(f"weights are ({rows}, {count}), got {tuple(weights.shape)}")
    if mask_rows is not None and (bitmask is None or tuple(mask_rows.shape) != (rows,)):
        raise ValueError("mask_rows needs a bitmask and one entry per row")
    if bitmask is not None and (
        bitmask.ndim != 2 or bitmask.dtype != torch.int32 or (mask_rows is None and bitmask.shape[0] != rows)
    ):
        raise ValueError(f"bitmask is int32 (rows, words), got {bitmask.dtype} {tuple(bitmask.shape)}")
    on_host = mask_rows is not None and mask_rows.device.type == "cpu"
    if on_host and mask_rows is not None and bitmask is not None and bool((mask_rows >= bitmask.shape[0]).any()):
        raise ValueError(f"mask row {int(mask_rows.max())} of {bitmask.shape[0]} masks")
    if plausibility is not None and not 0 <= plausibility <= 1:
        raise ValueError(f"plausibility must lie in [0, 1], got {plausibility}")
    if temperature is not None and tuple(temperature.shape) != (rows,):
        raise ValueError(f"temperature is ({rows},), got {tuple(temperature.shape)}")


def guided_log_probs(
    streams: Tensor | Sequence[Tensor],
    weights: Tensor,
    *,
    bitmask: Tensor | None = None,
    mask_rows: Tensor | None = None,
    plausibility: float | None = None,
    temperature: Tensor | None = None,
) -> Tensor:
    """See `dispatch.guided_log_probs`."""
    log_probs = [log_probabilities(stream) for stream in streams]
    guided = sum(
        (weights[:, index, None].float() * without_bans(row) for index, row in enumerate(log_probs)),
        start=torch.zeros_like(log_probs[0]),
    )
    keep = log_probs[0] > -math.inf
    if bitmask is not None:
        keep = keep & _legal(bitmask, mask_rows, log_probs[0])
    if plausibility is not None:
        keep = keep & plausible_tokens(log_probs[0], plausibility, keep)
    guided = torch.where(keep, guided, -math.inf)
    if temperature is not None:
        guided = guided / temperature[:, None].float()
    return log_probabilities(guided)


def _legal(bitmask: Tensor, mask_rows: Tensor | None, like: Tensor) -> Tensor:
    legal = unpack_token_bitmask(bitmask, like.shape[-1], device=like.device)
    assert isinstance(legal, Tensor)
    if mask_rows is None:
        return legal
    index = mask_rows.to(like.device, torch.int64)
    return legal[index.clamp(min=0)] | (index < 0)[:, None]
