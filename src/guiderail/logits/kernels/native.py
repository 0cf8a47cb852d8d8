"""The fused step in the compiled core: vector code for x86-64 (AVX-512, AVX2, chosen at run time) and for arm64.

Nothing is copied on the way in: streams may be any views whose rows are contiguous.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from guiderail import _core

MOST_STREAMS = 16
"""More than any rule has; the core keeps a block of each on its stack."""


def guided_log_probs(
    streams: Sequence[Tensor],
    weights: Tensor,
    bitmask: Tensor | None,
    mask_rows: Tensor | None,
    plausibility: float | None,
    temperature: Tensor | None,
) -> Tensor:
    """See `dispatch.guided_log_probs`; all tensors on the CPU, at most `MOST_STREAMS` streams."""
    rows, vocab = streams[0].shape
    output = torch.empty(rows, vocab, dtype=torch.float32)
    if mask_rows is None:
        places = list(range(rows)) if bitmask is not None else []
    else:
        places = [int(place) for place in mask_rows.tolist()]
    _core.guided_log_probs(
        [_plain(stream).numpy() for stream in streams],
        np.ascontiguousarray(weights.detach().float().numpy()),
        output.numpy(),
        None if bitmask is None else np.ascontiguousarray(bitmask.numpy()),
        places,
        -math.inf if plausibility is None or plausibility == 0 else math.log(plausibility),
        [] if temperature is None else [float(value) for value in temperature.tolist()],
        torch.get_num_threads() > 1,
    )
    return output


def _plain(stream: Tensor) -> Tensor:
    wide = stream.detach().float()
    return wide if wide.shape[-1] < 2 or wide.stride(-1) == 1 else wide.contiguous()
