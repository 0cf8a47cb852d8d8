"""The examples run; those that need no real model run here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("example", "shown"),
    [
        ("guidance_token_models.py", "acoustic weights of (conditional, no text, no semantics) (4.5, -3.0, -0.5)"),
        ("guidance_captioning.py", "scale 3.0: [["),
    ],
)
def test_example(example: str, shown: str) -> None:
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / example)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert shown in done.stdout
