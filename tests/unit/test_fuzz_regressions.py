"""Inputs on which a fuzz target once failed, and seeds of each construct, replayed through the fuzz binaries.

`make fuzz` builds them (under sanitizers) and then fuzzes on from here; without them there is nothing to replay with.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TARGETS = sorted(path.stem for path in (ROOT / "tests" / "fuzz").glob("fuzz_*.cpp"))


def test_each_target_has_inputs() -> None:
    assert TARGETS
    for target in TARGETS:
        assert any((ROOT / "tests" / "fuzz" / "regressions" / target).iterdir())


@pytest.mark.parametrize("target", TARGETS)
def test_replay(target: str, tmp_path: Path) -> None:
    binary = ROOT / "build" / "fuzz" / target
    if not binary.exists():
        pytest.skip("no fuzz binaries: `make fuzz` builds them")
    inputs = ROOT / "tests" / "fuzz" / "regressions" / target
    done = subprocess.run(
        [binary, "-runs=0", inputs], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{sum(1 for _ in inputs.iterdir())} inputs replayed" in done.stdout
