"""The fused step as one Triton kernel.

The step is bound by memory: K streams of V scores are read, V scores are written. The plain chain reads and writes each
intermediate again, about 6 K + 10 times V floats. One program per row does it in three sweeps over blocks of the
vocabulary:

    1  per stream: running maximum and sum (log-softmax in one sweep, Milakov & Gimelshein 2018, arXiv:1805.02867) and
    the
       least finite score, which stands in for bans; for the primary stream also the best legal score (plausibility)
    2  combine, filter, mask, divide by the temperature; write unnormalised; running maximum and sum of the result
    3  subtract the normaliser in place

so K V is read twice (the second time mostly from L2) and V is written twice and read once.

Runs under Triton's interpreter too, which is how machines without a GPU test it.
"""

# Triton's decorators carry no types.
# mypy: disallow-untyped-decorators=False

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 2048
_BAN = tl.constexpr(-1e20)
_WINNER = tl.constexpr(1e15)  # +inf: the winner, but finite


@triton.jit
def _kernel(
    streams: Any,
    weights: Any,
    bitmask: Any,
    mask_rows: Any,
    temperature: Any,
    partial: Any,
    output: Any,
    stream_stride: Any,
    row_stride: Any,
    vocab: Any,
    words: Any,
    log_plausibility: Any,
    STREAMS: tl.constexpr,
    BLOCK: tl.constexpr,
    HAS_MASK: tl.constexpr,
    HAS_PLAUSIBILITY: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, BLOCK)
    mask_row = tl.full((), 0, tl.int64)
    if HAS_MASK:
        mask_row = tl.load(mask_rows + row).to(tl.int64)

    # Sweep 1. `partial` holds (normaliser, stand-in for bans) per row and stream; registers cannot be indexed by k.
    best_legal = tl.full((), float("-inf"), tl.float32)
    for k in tl.static_range(STREAMS):
        top = tl.full((), float("-inf"), tl.float32)
        total = tl.full((), 0.0, tl.float32)
        least = tl.full((), float("inf"), tl.float32)
        for start in range(0, vocab, BLOCK):
            at = start + lanes
            inside = at < vocab
            x = tl.load(streams + k * stream_stride + row * row_stride + at, mask=inside, other=float("-inf"))
            x = x.to(tl.float32)
            finite = x > _BAN
            x = tl.where(finite, tl.minimum(x, _WINNER), float("-inf"))
            new_top = tl.maximum(top, tl.max(x, axis=0))
            shift = tl.where(new_top > float("-inf"), new_top, 0.0)
            total = total * tl.exp(tl.where(top > float("-inf"), top - shift, float("-inf")))
            total += tl.sum(tl.exp(x - shift), axis=0)
            top = new_top
            least = tl.minimum(least, tl.min(tl.where(finite, x, float("inf")), axis=0))
            if k == 0 and HAS_PLAUSIBILITY:
                legal = inside
                if HAS_MASK:
                    word = tl.load(
                        bitmask + tl.maximum(mask_row, 0) * words + at // 32, mask=inside & (at // 32 < words), other=0
                    )
                    legal = inside & ((((word >> (at % 32)) & 1) != 0) | (mask_row < 0))
                best_legal = tl.maximum(best_legal, tl.max(tl.where(legal, x, float("-inf")), axis=0))
        normaliser = tl.where(total > 0, tl.where(top > float("-inf"), top, 0.0) + tl.log(total), 0.0)
        # A stream without a finite score says nothing: every token gets 0.
        stand_in = tl.where(least < float("inf"), least - normaliser, 0.0)
        tl.store(partial + (row * STREAMS + k) * 2, normaliser)
        tl.store(partial + (row * STREAMS + k) * 2 + 1, stand_in)
    tl.debug_barrier()

    heat = tl.load(temperature + row)
    threshold = best_legal + log_plausibility
    top = tl.full((), float("-inf"), tl.float32)
    total = tl.full((), 0.0, tl.float32)
    for start in range(0, vocab, BLOCK):
        at = start + lanes
        inside = at < vocab
        keep = inside
        guided = tl.zeros((BLOCK,), tl.float32)
        for k in tl.static_range(STREAMS):
            x = tl.load(streams + k * stream_stride + row * row_stride + at, mask=inside, other=float("-inf"))
            x = x.to(tl.float32)
            finite = x > _BAN
            x = tl.minimum(x, _WINNER)
            if k == 0:
                keep = keep & finite
                if HAS_PLAUSIBILITY:
                    keep = keep & (x >= threshold)
            normaliser = tl.load(partial + (row * STREAMS + k) * 2)
            stand_in = tl.load(partial + (row * STREAMS + k) * 2 + 1)
            weight = tl.load(weights + row * STREAMS + k)
            guided += weight * tl.where(finite, x - normaliser, stand_in)
        if HAS_MASK:
            word = tl.load(
                bitmask + tl.maximum(mask_row, 0) * words + at // 32, mask=inside & (at // 32 < words), other=0
            )
            keep = keep & ((((word >> (at % 32)) & 1) != 0) | (mask_row < 0))
        guided = tl.where(keep, guided / heat, float("-inf"))
        tl.store(output + row * vocab + at, guided, mask=inside)
        new_top = tl.maximum(top, tl.max(guided, axis=0))
        shift = tl.where(new_top > float("-inf"), new_top, 0.0)
        total = total * tl.exp(tl.where(top > float("-inf"), top - shift, float("-inf")))
        total += tl.sum(tl.exp(guided - shift), axis=0)
        top = new_top
    tl.debug_barrier()

    normaliser = tl.where(total > 0, tl.where(top > float("-inf"), top, 0.0) + tl.log(total), 0.0)
    for start in range(0, vocab, BLOCK):
        at = start + lanes
        inside = at < vocab
        guided = tl.load(output + row * vocab + at, mask=inside, other=float("-inf"))
        tl.store(output + row * vocab + at, guided - normaliser, mask=inside)


def guided_log_probs(
    streams: Tensor,
    weights: Tensor,
    bitmask: Tensor | None,
    mask_rows: Tensor | None,
    plausibility: float | None,
    temperature: Tensor | None,
) -> Tensor:
    """See `dispatch.guided_log_probs`; all tensors on one device."""
    count, rows, vocab = streams.shape
    device = streams.device
    if streams.stride(-1) != 1:
        streams = streams.contiguous()
    if bitmask is None:
        masks, words = torch.zeros(1, dtype=torch.int32, device=device), 0
    else:
        masks, words = bitmask.to(device).contiguous(), bitmask.shape[1]
    if mask_rows is None:
        mask_rows = torch.arange(rows, device=device)
    if temperature is None:
        temperature = torch.ones(rows, device=device)
    output = torch.empty(rows, vocab, dtype=torch.float32, device=device)
    partial = torch.empty(rows, count, 2, dtype=torch.float32, device=device)
    log_plausibility = 0.0
    if plausibility is not None:
        log_plausibility = float(torch.tensor(plausibility).log().clamp(min=-1e30))
    if rows and vocab:
        _kernel[(rows,)](
            streams,
            weights.to(device, torch.float32).contiguous(),
            masks,
            mask_rows.to(device).contiguous(),
            temperature.to(device, torch.float32).contiguous(),
            partial,
            output,
            streams.stride(0),
            streams.stride(1),
            vocab,
            words,
            log_plausibility,
            STREAMS=count,
            BLOCK=_BLOCK,
            HAS_MASK=bitmask is not None,
            HAS_PLAUSIBILITY=plausibility is not None,
        )
    return output
