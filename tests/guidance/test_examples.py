"""The examples run; those that need no real model run here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import guiderail

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "example",
    [
        ("guidance_token_models.py", "(4.5, -3.0, -0.5)", "Emu3: ['visual', 'visual', 'visual', 'eol', 'visual',"),
        ("guidance_captioning.py", "scale 3.0: [["),
        ("guidance_gedi.py", "classifier of whole texts: 9"),
    ],
)
@pytest.mark.slow
def test_example(example: tuple[str, ...]) -> None:
    name, *shown = example
    # The package under test, wherever it was imported from: a checkout has no compiled core.
    package = str(Path(guiderail.__file__).parents[1])
    path = os.pathsep.join([package, os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert all(line in done.stdout for line in shown)
