"""Packed masks against the definition: bit t % 32 of word t // 32, 1 = allowed."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guiderail.logits.bitmask import (
    _unpack_on_device,
    allocate_token_bitmask,
    apply_token_bitmask_inplace,
    unpack_token_bitmask,
)


def pack(allowed: np.ndarray) -> np.ndarray:
    words = np.zeros((allowed.shape[0], (allowed.shape[1] + 31) // 32), dtype=np.uint32)
    for row, token in zip(*np.nonzero(allowed), strict=True):
        words[row, token // 32] |= np.uint32(1 << (token % 32))
    return words.view(np.int32)


def test_a_fresh_mask_allows_everything() -> None:
    mask = allocate_token_bitmask(3, 70)
    assert mask.shape == (3, 3)
    assert mask.dtype == np.int32
    assert mask.flags.c_contiguous
    assert unpack_token_bitmask(mask, 70).all()
    assert allocate_token_bitmask(2, ["a"] * 33).shape == (2, 2)
    with pytest.raises(ValueError, match="negative"):
        allocate_token_bitmask(1, -1)


@settings(max_examples=40)
@given(st.integers(1, 3), st.integers(1, 100), st.integers(1, 130), st.integers(0, 2**32 - 1))
def test_masked_logits_follow_the_definition(batch: int, vocab: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    allowed = rng.random((batch, vocab)) < 0.5
    mask = pack(allowed)
    expected = rng.normal(size=(batch, width)).astype(np.float32)
    arrays = expected.copy()
    tensors = {dtype: torch.from_numpy(expected).to(dtype) for dtype in (torch.float32, torch.float16, torch.float64)}
    for row in range(batch):
        for token in range(width):
            # bits between the vocabulary and the end of its last word are zero in a packed mask, hence banned
            if token >= vocab or not allowed[row, token]:
                expected[row, token] = -np.inf
    apply_token_bitmask_inplace(arrays, mask)
    np.testing.assert_array_equal(arrays, expected)
    for dtype, tensor in tensors.items():
        apply_token_bitmask_inplace(tensor, mask if dtype == torch.float32 else torch.from_numpy(mask))
        torch.testing.assert_close(tensor, torch.from_numpy(expected).to(dtype), rtol=0, atol=0)


def test_one_row_and_strided_logits() -> None:
    mask = pack(np.array([[True, False, True]]))
    row = np.zeros(3, dtype=np.float32)
    apply_token_bitmask_inplace(row, mask[0])
    assert row.tolist() == [0.0, -np.inf, 0.0]
    strided = torch.zeros(3, 2).t()
    apply_token_bitmask_inplace(strided, np.repeat(mask, 2, axis=0))
    assert torch.isinf(strided[:, 1]).all()
    assert not torch.isinf(strided[:, ::2]).any()


@pytest.mark.parametrize("width", [1, 31, 32, 33, 64, 90])
def test_the_accelerator_path_equals_the_host_path(width: int) -> None:
    mask = np.random.default_rng(width).integers(-(2**31), 2**31, size=(3, 2)).astype(np.int32)
    on_host = unpack_token_bitmask(mask, width)
    on_device = _unpack_on_device(torch.from_numpy(mask), width)
    np.testing.assert_array_equal(on_device.numpy(), on_host)
    assert unpack_token_bitmask(mask, width, device="meta").shape == (3, width)


def test_refusals() -> None:
    mask = allocate_token_bitmask(2, 8)
    with pytest.raises(TypeError, match="floating"):
        apply_token_bitmask_inplace(np.zeros((2, 8), dtype=np.int64), mask)
    with pytest.raises(TypeError, match="floating"):
        apply_token_bitmask_inplace(torch.zeros(2, 8, dtype=torch.int64), mask)
    with pytest.raises(TypeError, match="int32"):
        apply_token_bitmask_inplace(torch.zeros(2, 8), mask.astype(np.int64))
    with pytest.raises(ValueError, match="do not fit"):
        apply_token_bitmask_inplace(torch.zeros(3, 8), mask)


def test_importing_it_does_not_import_torch() -> None:
    program = "import sys, guiderail.logits.bitmask; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
