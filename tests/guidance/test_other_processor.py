"""The native fused step on another processor: cross-compiled, run under an emulator, compared with plain torch.

    GUIDERAIL_OTHER_CXX="python -m ziglang c++ -target aarch64-linux-musl" \
    GUIDERAIL_OTHER_RUN=qemu-aarch64-static python -m pytest tests/guidance/test_other_processor.py -s

The PyPI package ziglang carries a cross compiler for C++20, Debian's qemu-user-static the emulator. On an arm64 machine
nothing of this is needed: there `test_kernels.py` runs the same code from the compiled core.
"""

from __future__ import annotations

import math
import os
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from guidance.test_kernels import problem
from guiderail.logits.kernels import reference as plain_torch

ROOT = Path(__file__).parents[2]
COMPILER, RUN = (shlex.split(os.environ.get(name, "")) for name in ("GUIDERAIL_OTHER_CXX", "GUIDERAIL_OTHER_RUN"))
# As CMake's Release build; no instruction set is named, so what is compiled is what every machine of the kind gets.
FLAGS = ["-std=c++20", "-O3", "-DNDEBUG", f"-I{ROOT / 'src'}"]

pytestmark = pytest.mark.skipif(not COMPILER, reason="GUIDERAIL_OTHER_CXX names no cross compiler")


def packed(case: dict[str, torch.Tensor], plausibility: float | None) -> bytes:
    streams, store = case["streams"].float(), case["bitmask"]
    sizes = np.array([*streams.shape, store.shape[1], store.shape[0]], np.int32)
    log_plausibility = np.array([math.log(plausibility) if plausibility else -math.inf], np.float32)
    parts = [streams, case["weights"], case["temperature"], case["mask_rows"].int(), store]
    return b"".join(
        [sizes.tobytes(), log_plausibility.tobytes(), *(part.contiguous().numpy().tobytes() for part in parts)]
    )


def test_the_native_step_equals_plain_torch_on_another_processor(tmp_path: Path) -> None:
    program = tmp_path / "driver"
    sources = [ROOT / "src/core/fused_scores.cpp", Path(__file__).parent / "other_processor/driver.cpp"]
    subprocess.run([*COMPILER, *FLAGS, *map(str, sources), "-o", str(program)], check=True, timeout=300)
    cases = [
        (problem(seed, streams, 5, max(vocab, 2)), plausibility)
        for seed, streams in enumerate((1, 2, 3, 16))
        for vocab in (2, 31, 32, 256, 700, 5_003)
        for plausibility in (None, 0.0, 0.05, 1.0)
    ]
    given = b"".join(packed(*case) for case in cases)
    done = subprocess.run([*RUN, str(program)], input=given, stdout=subprocess.PIPE, check=True, timeout=300)
    got = torch.from_numpy(np.frombuffer(done.stdout, np.float32).copy())
    compared, worst, at = 0, 0.0, 0
    for case, plausibility in cases:
        want = plain_torch.guided_log_probs(**case, plausibility=plausibility)
        own = got[at : at + want.numel()].reshape(want.shape)
        at += want.numel()
        torch.testing.assert_close(own, want, atol=2e-4, rtol=1e-4)
        finite = want > -math.inf
        compared += int(finite.sum())
        worst = max(worst, float((own - want)[finite].abs().max()) if bool(finite.any()) else 0.0)
    assert at == got.numel()
    assert compared > 100_000
    print(f"{len(cases)} cases, {compared} finite log-probabilities, the largest difference {worst:.1e}")
