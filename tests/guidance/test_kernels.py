"""The fused step: plain torch against the separate functions, Triton's interpreter against plain torch."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import guiderail
from guiderail import _core
from guiderail import logits as rules
from guiderail.logits.kernels import guided_log_probs, native
from guiderail.logits.kernels import reference as plain_torch


def problem(seed: int, streams: int, rows: int, vocab: int, dtype: torch.dtype = torch.float32) -> dict[str, object]:
    """Scores with bans and odd values, a mask store, one temperature per row."""
    rng = np.random.default_rng(seed)
    scores = torch.from_numpy(rng.normal(size=(streams, rows, vocab)).astype(np.float32) * 4)
    scores[torch.from_numpy(rng.random(scores.shape) < 0.1)] = -math.inf
    scores[0, 0, 0], scores[-1, 0, 1] = math.nan, torch.finfo(torch.float32).min
    scores[-1, -1] = -math.inf  # a stream that says nothing
    words = (vocab + 31) // 32
    store = torch.from_numpy(rng.integers(-(2**31), 2**31, size=(4, words)).astype(np.int32))
    return {
        "streams": scores.to(dtype),
        "weights": torch.from_numpy(rng.normal(size=(rows, streams)).astype(np.float32)),
        "bitmask": store,
        "mask_rows": torch.from_numpy(rng.integers(-1, 4, size=rows)),
        "temperature": torch.from_numpy(rng.uniform(0.3, 2.0, size=rows).astype(np.float32)),
    }


@pytest.mark.parametrize("plausibility", [None, 0.0, 0.05, 1.0])
def test_the_fused_step_is_the_chain_of_separate_functions(plausibility: float | None) -> None:
    case = problem(0, 3, 6, 70)
    fused = guided_log_probs(**case, plausibility=plausibility)
    scores, weights = case["streams"], case["weights"]
    guided = rules.unnormalized_combination(list(scores), [weights[:, k] for k in range(3)])
    legal = torch.ones(6, 70, dtype=torch.bool)
    bits = rules.unpack_token_bitmask(case["bitmask"], 70)
    for row, index in enumerate(case["mask_rows"].tolist()):
        if index >= 0:
            legal[row] = bits[index]
    keep = legal
    if plausibility is not None:
        keep = keep & rules.plausible_tokens(scores[0], plausibility, legal)
    expected = (guided.masked_fill(~keep, -math.inf) / case["temperature"][:, None]).log_softmax(-1)
    possible = (guided.masked_fill(~keep, -math.inf) > -math.inf).any(-1)
    torch.testing.assert_close(fused[possible], expected[possible], atol=1e-5, rtol=1e-5)
    assert (fused[~possible] == -math.inf).all()
    assert not torch.isnan(fused).any()


def test_nothing_legal_is_not_nan() -> None:
    fused = guided_log_probs(
        torch.randn(2, 1, 40),
        torch.tensor([[2.0, -1.0]]),
        bitmask=torch.zeros(1, 2, dtype=torch.int32),
        plausibility=0.1,
    )
    assert (fused == -math.inf).all()


def test_shapes_are_checked() -> None:
    scores = torch.randn(2, 3, 8)
    for arguments in (
        {"weights": torch.ones(3, 3)},
        {"weights": torch.ones(3, 2), "temperature": torch.ones(2)},
        {"weights": torch.ones(3, 2), "bitmask": torch.zeros(2, 1, dtype=torch.int32)},
        {"weights": torch.ones(3, 2), "mask_rows": torch.zeros(3)},
        {"weights": torch.ones(3, 2), "plausibility": 1.5},
        {
            "weights": torch.ones(3, 2),
            "bitmask": torch.zeros(1, 1, dtype=torch.int32),
            "mask_rows": torch.tensor([0, 1, -1]),
        },
    ):
        with pytest.raises(ValueError, match=r"weights|temperature|bitmask|mask_rows|mask row|plausibility"):
            guided_log_probs(scores, **arguments)


@pytest.mark.parametrize("build", range(len(_core.guided_log_probs_builds())))
@pytest.mark.parametrize("vocab", [1, 31, 32, 256, 700])
def test_every_native_build_equals_plain_torch(build: int, vocab: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = _core.guided_log_probs
    monkeypatch.setattr(native._core, "guided_log_probs", lambda *given: chosen(*given, build=build))
    checked = 0
    for seed, (streams, dtype) in enumerate([(1, torch.float32), (2, torch.bfloat16), (3, torch.float32)]):
        case = problem(seed, streams, 5, max(vocab, 2), dtype)
        case["streams"] = case["streams"][..., :vocab]  # rows that do not follow each other
        for plausibility in (None, 0.0, 0.05, 1.0):
            for without in ((), ("bitmask", "mask_rows"), ("temperature",)):
                given = {**case, **dict.fromkeys(without)}
                want = plain_torch.guided_log_probs(**given, plausibility=plausibility)
                got = guided_log_probs(**given, plausibility=plausibility)
                torch.testing.assert_close(got, want, atol=2e-4, rtol=1e-4)
                checked += int((want > -math.inf).any())
    assert checked


def test_numbers_without_end_stay_numbers() -> None:
    """Infinite scores win, infinite products do not make nan, and a heavy tail adds up right."""
    scores = torch.zeros(2, 3, 300)
    scores[0, 0, 7] = math.inf
    scores[0, 1], scores[1, 1] = -9e19, 9e19
    fused = guided_log_probs(scores, torch.tensor([[1.5, -0.5], [1e30, -1e30], [1.0, 0.0]]))
    assert not torch.isnan(fused).any()
    assert fused[0].argmax() == 7
    assert fused[0, 7] == 0
    torch.testing.assert_close(fused[2], torch.full((300,), -math.log(300)))
    want = plain_torch.guided_log_probs(scores[:, ::2], torch.tensor([[1.5, -0.5], [1.0, 0.0]]))
    torch.testing.assert_close(fused[::2], want)
    wide = torch.randn(2, 2, 200_000) * 5
    weights = torch.tensor([[2.0, -1.0], [0.0, 1.0]])
    exact = plain_torch.guided_log_probs(wide.double(), weights)
    torch.testing.assert_close(guided_log_probs(wide, weights).double(), exact.double(), atol=1e-4, rtol=1e-5)


INTERPRETED = """
import sys
import torch
torch.set_num_threads(1)
from guidance.test_kernels import problem
from guiderail.logits.kernels import reference, triton_kernel
triton_kernel._BLOCK = 64
checked = 0
for seed, (streams, rows, vocab) in enumerate([(1, 1, 40), (2, 2, 64), (3, 2, 130)]):
    for dtype in (torch.float32, torch.bfloat16):
        case = problem(seed, streams, rows, vocab, dtype)
        for plausibility in (None, 0.05):
            for without in ((), ("bitmask", "mask_rows"), ("temperature",)):
                given = {**case, **dict.fromkeys(without)}
                want = reference.guided_log_probs(**given, plausibility=plausibility)
                got = triton_kernel.guided_log_probs(
                    given["streams"], given["weights"], given["bitmask"], given["mask_rows"], plausibility,
                    given["temperature"]
                )
                torch.testing.assert_close(got, want, atol=2e-4, rtol=1e-4)
                checked += 1
print("checked", checked)
"""


@pytest.mark.slow
def test_the_triton_kernel_in_interpreter_mode() -> None:
    pytest.importorskip("triton")
    # The interpreter is chosen when triton is imported, so it needs a process of its own.
    package, tests = Path(guiderail.__file__).parents[1], Path(__file__).parents[1]
    path = os.pathsep.join([str(package), str(tests), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "checked 36"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_triton_kernel_on_a_gpu() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        case = problem(9, 3, 8, 50_257, dtype)
        on_gpu = {name: value.cuda() for name, value in case.items()}
        expected = guided_log_probs(**case, plausibility=0.01)
        torch.testing.assert_close(guided_log_probs(**on_gpu, plausibility=0.01).cpu(), expected, atol=1e-3, rtol=1e-3)
