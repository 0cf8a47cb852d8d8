"""Counters of all processes of a server, summed at its Prometheus endpoint.

vLLM's endpoint lives in the API server, grammars and guidance live in EngineCore processes, and the messages between
them have no room for other people's numbers. So each process keeps its counters in a small file of float64 that it
maps into memory, in a directory that the first process makes and names in the environment; the endpoint sums the files
when it is scraped. Counting costs an addition. Engines on other machines write to their own directory, and are seen by
their own machine's endpoint only.
"""

from __future__ import annotations

import atexit
import mmap
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["METRICS", "Metrics"]

DIRECTORY = "GUIDERAIL_METRICS_DIR"

# name -> what it counts
COUNTERS = {
    "compile_seconds_sum": "Seconds spent compiling grammars",
    "compile_seconds_count": "Grammars compiled or found compiled",
    "grammar_cache_hits_total": "Requests whose grammar had been compiled before",
    "grammar_cache_misses_total": "Requests whose grammar was compiled",
    "fill_seconds_sum": "Seconds of the engine thread spent on filling masks",
    "fill_seconds_count": "Steps in which masks were filled",
    "fill_rows_total": "Mask rows filled",
    "requests_refused_total": "Requests refused: their grammar or schema is malformed, unsupported or exceeds a limit",
    "requests_failed_total": "Requests given up while they ran, because a limit was met",
    "closed_early_total": "Texts closed because their token budget was about to end",
    "guided_requests_total": "Requests with guidance",
    "guidance_steps_discarded_total": "Sampled positions discarded because a companion was not there yet",
}
_ORDER = {name: index for index, name in enumerate(COUNTERS)}


class Metrics:
    """Counters of this process; the file comes into being with the first count."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: memoryview[float] | None = None  # float64; cheaper to count in than an array
        self._owner = 0

    def add(self, name: str, amount: float = 1.0) -> None:
        """Raises: KeyError for a counter that is not in `COUNTERS`."""
        self.add_all({name: amount})

    def add_all(self, amounts: Mapping[str, float]) -> None:
        """Several counters at once. Raises: as `add`."""
        with self._lock:
            values = self._values
            if values is None or self._owner != os.getpid():
                values, self._owner = _open(), os.getpid()
                self._values = values
            for name, amount in amounts.items():
                values[_ORDER[name]] += amount

    def totals(self) -> dict[str, float]:
        """Sums over all processes that share this one's directory."""
        sums = np.zeros(len(COUNTERS))
        directory = os.environ.get(DIRECTORY)
        for path in Path(directory).glob("*.counters") if directory else ():
            values = np.fromfile(path, dtype=np.float64)
            if len(values) == len(sums):
                sums += values
        return dict(zip(COUNTERS, sums.tolist(), strict=True))

    def collect(self) -> Iterator[Any]:
        """What prometheus_client asks of a collector."""
        from prometheus_client.core import CounterMetricFamily, SummaryMetricFamily

        totals = self.totals()
        for name, text in COUNTERS.items():
            if name.endswith("_total"):
                yield CounterMetricFamily(f"guiderail:{name.removesuffix('_total')}", text, value=totals[name])
        for name in ("compile_seconds", "fill_seconds"):
            yield SummaryMetricFamily(
                f"guiderail:{name}", COUNTERS[f"{name}_sum"], totals[f"{name}_count"], totals[f"{name}_sum"]
            )


METRICS = Metrics()


def share_directory() -> None:
    """Make the directory, if no parent process did, and let child processes inherit its name."""
    if os.environ.get(DIRECTORY):
        return
    directory = tempfile.mkdtemp(prefix="guiderail-metrics-")
    os.environ[DIRECTORY] = directory
    maker = os.getpid()

    def remove() -> None:
        if os.getpid() == maker:
            shutil.rmtree(directory, ignore_errors=True)

    atexit.register(remove)


def _open() -> memoryview[float]:
    share_directory()
    size = 8 * len(COUNTERS)
    path = Path(os.environ[DIRECTORY]) / f"{os.getpid()}.counters"
    with path.open("w+b") as file:
        file.truncate(size)
        return memoryview(mmap.mmap(file.fileno(), size)).cast("d")
