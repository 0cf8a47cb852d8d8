"""Packed token masks: allocation, application, unpacking.

A token bitmask is an int32 array of shape (batch, ceil(vocab / 32)). Bit `t % 32` of word `t // 32` belongs to token
`t`; 1 means allowed. This is the layout of XGrammar (Dong et al. 2024, arXiv:2411.15100), so masks can be handed to
any engine that reads it.

    vocab = 40, tokens 0, 31 and 33 allowed    ->    words [0x80000001, 0x00000002]

Masks arrive packed because that is what crosses the boundary to the native engine and to a GPU cheaply: 16 KiB
instead of 128 KiB or 512 KiB per row at a vocabulary of 128k. They are unpacked where the logits live.

torch is never imported here. A tensor argument proves that the caller has, so `sys.modules` is enough.
"""

from __future__ import annotations

import operator
import sys
from typing import TYPE_CHECKING, Any, SupportsIndex, cast

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sized

    import torch

    Logits = npt.NDArray[np.floating[Any]] | torch.Tensor
    Bitmask = npt.NDArray[np.int32] | torch.Tensor

_ALL_ALLOWED = -1


def _is_tensor(value: object) -> bool:
    torch_module = sys.modules.get("torch")
    return torch_module is not None and isinstance(value, torch_module.Tensor)


def allocate_token_bitmask(batch: int, vocab_or_size: Sized | SupportsIndex) -> npt.NDArray[np.int32]:
    """A bitmask that allows everything.

    Args:
        batch: number of rows, >= 0.
        vocab_or_size: a `Vocabulary` (anything with `len`) or the number of tokens.
    Returns: int32 (batch, ceil(size / 32)), C-contiguous, every bit 1: a row that nobody fills bans nothing.
    Raises: ValueError if batch or size is negative.
    """
    size = operator.index(vocab_or_size) if isinstance(vocab_or_size, SupportsIndex) else len(vocab_or_size)
    if batch < 0 or size < 0:
        raise ValueError(f"batch and vocabulary size must not be negative, got {batch} and {size}")
    return np.full((batch, (size + 31) // 32), _ALL_ALLOWED, dtype=np.int32)


def apply_token_bitmask_inplace(logits: Logits, bitmask: Bitmask) -> None:
    """Set the logits of banned tokens to -inf, in place.

    Logits wider than the mask (models pad their output layer) are banned beyond it; a mask wider than the logits is
    read as far as the logits go.

    Args:
        logits: float (batch, vocab), or (vocab,) with a one-row mask. A numpy array, or a torch tensor of any floating
            dtype on any device, contiguous or not.
        bitmask: int32 (batch, words) or (words,), numpy or torch, on any device.
    Raises:
        TypeError: logits are not floating point (they cannot hold -inf), or the mask is not int32.
        ValueError: batch sizes or ranks do not fit.
    """
    if not _is_tensor(logits):
        _apply_on_host(cast("npt.NDArray[Any]", logits), bitmask)
        return
    tensor = cast("torch.Tensor", logits)
    if not tensor.is_floating_point():
        raise TypeError(f"logits must be floating point, got {tensor.dtype}")
    rows = _rows_for(tuple(tensor.shape), bitmask)
    allowed = unpack_token_bitmask(rows, tensor.shape[-1], device=tensor.device)
    tensor.masked_fill_(~allowed.reshape(tensor.shape), float("-inf"))


def _apply_on_host(logits: npt.NDArray[Any], bitmask: Bitmask) -> None:
    if not np.issubdtype(logits.dtype, np.floating):
        raise TypeError(f"logits must be floating point, got {logits.dtype}")
    words = cast("torch.Tensor", bitmask).detach().cpu().numpy() if _is_tensor(bitmask) else bitmask
    allowed = unpack_token_bitmask(_rows_for(logits.shape, words), logits.shape[-1])
    np.putmask(logits, ~allowed.reshape(logits.shape), -np.inf)


def unpack_token_bitmask(bitmask: Bitmask, vocab_size: int, *, device: torch.device | str | None = None) -> Any:
    """One boolean per token.

    Args:
        bitmask: int32 (..., words), numpy or torch.
        vocab_size: width of the result; tokens beyond the mask are False.
        device: None keeps the kind of the input (numpy stays numpy). A torch device moves the *packed* words there
            first and returns a tensor.
    Returns: bool (..., vocab_size), True where the token is allowed; a new array, never a view of the mask.
    Raises: TypeError if the mask is not int32.
    """
    if device is None and not _is_tensor(bitmask):
        return _unpack_on_host(np.asarray(bitmask), vocab_size)
    import torch  # present already: either argument is torch's

    words = bitmask if isinstance(bitmask, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(bitmask))
    if words.dtype != torch.int32:
        raise TypeError(f"a token bitmask is int32, got {words.dtype}")
    target = words.device if device is None else torch.device(device)
    if target.type == "cpu":
        return torch.from_numpy(_unpack_on_host(words.detach().cpu().numpy(), vocab_size))
    return _unpack_on_device(words.to(target, non_blocking=True), vocab_size)


def _unpack_on_device(words: torch.Tensor, vocab_size: int) -> torch.Tensor:
    import torch

    # The sign bit shifts in ones from the left, but only the lowest bit of each shifted word is read.
    bits = (words.unsqueeze(-1) >> torch.arange(32, device=words.device, dtype=torch.int32)) & 1
    bits = bits.flatten(-2).to(torch.bool)
    if bits.shape[-1] < vocab_size:
        missing = bits.new_zeros((*bits.shape[:-1], vocab_size - bits.shape[-1]))
        return torch.cat([bits, missing], dim=-1)
    return bits[..., :vocab_size].clone()


def _unpack_on_host(words: npt.NDArray[Any], vocab_size: int) -> npt.NDArray[np.bool_]:
    if words.dtype != np.int32:
        raise TypeError(f"a token bitmask is int32, got {words.dtype}")
    # Little-endian bytes make numpy's bit order that of the mask on every machine.
    as_bytes = np.ascontiguousarray(words).astype("<i4", copy=False).view(np.uint8)
    covered = min(vocab_size, words.shape[-1] * 32)
    bits = np.unpackbits(as_bytes, axis=-1, count=covered, bitorder="little").view(np.bool_)
    if covered == vocab_size:
        return bits
    wide = np.zeros((*words.shape[:-1], vocab_size), dtype=np.bool_)
    wide[..., :covered] = bits
    return wide


def _rows_for(logits_shape: tuple[int, ...], bitmask: Any) -> Any:
    """The mask shaped (batch, words) to go with logits of this shape."""
    rows = bitmask if bitmask.ndim == 2 else bitmask[None] if bitmask.ndim == 1 else None
    batch = 1 if len(logits_shape) == 1 else logits_shape[0]
    if rows is None or len(logits_shape) not in (1, 2) or rows.shape[0] != batch:
        raise ValueError(f"logits {logits_shape} and bitmask {tuple(bitmask.shape)} do not fit together")
    return rows
