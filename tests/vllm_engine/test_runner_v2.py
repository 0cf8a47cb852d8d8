"""Guidance under model runner V2, vLLM's default on GPUs, on the CPU by Triton's interpreter, against transformers."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed; `make vllm-test` has an environment with it")

from vllm_engine.engine import MODEL, reference
from vllm_engine.equality import sentence
from vllm_engine.runner_v2 import BOUND_TOKENS, CHOSEN, SCALES, TOKENS

pytestmark = [pytest.mark.vllm, pytest.mark.slow]


def test_guidance_equals_transformers_whatever_the_load():
    if not MODEL.is_dir():
        pytest.skip(f"no model in {MODEL}: run `make demo` once")
    # Triton reads its settings when it is imported, so the engine has a process of its own.
    run = subprocess.run(
        [sys.executable, "-m", "vllm_engine.runner_v2"], env=os.environ, capture_output=True, text=True, timeout=1200
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-4000:]
    found = json.loads(next(line for line in run.stdout.splitlines() if line.startswith("RESULT "))[7:])
    constraint = sentence()
    free = [reference(prompt, negative, scale, TOKENS) for prompt, negative in CHOSEN for scale in SCALES]
    bound = [reference(prompt, negative, 1.5, BOUND_TOKENS, constraint) for prompt, negative in CHOSEN]
    for load in found.values():
        assert load["answers"]["free"] == free
        assert load["answers"]["grammar"] == bound
        assert load["answers"]["seeded"] == found["default"]["answers"]["seeded"]
    assert found["crowded"]["taken_back"] > 0
    assert found["crowded"]["preemptions"] > 0
