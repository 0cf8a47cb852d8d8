"""Isolation: an engine in a process of its own, watched from here, killed and restarted when a job takes too long.

The CPU limit is kept by looking at the worker's CPU time ten times a second. A CPU timer inside the worker
(`setitimer(ITIMER_PROF)`) would be simpler, but while one is armed Linux answers `CLOCK_PROCESS_CPUTIME_ID`, our
stopwatch, in scheduler ticks of 4 ms (measured here: every mask then takes 0 or 4,000 µs).
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, TextIO

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class EngineProcess:
    """`ask(job)` answers a dict whose 'status' is ok, refused, raised, timeout or crashed.

    cpu_limit_s bounds one job's CPU time inside the worker; wall_limit_s catches a worker that sleeps instead.
    `warm_up` jobs are run after every start, so that a restart measures under the same conditions; their answers are
    dropped. `vocabulary`: a key of `llama3_vocabulary.VOCABULARIES`.
    """

    def __init__(
        self,
        engine: str,
        *,
        cpu_limit_s: float,
        wall_limit_s: float,
        warm_up: list[dict[str, Any]],
        log: TextIO | int = subprocess.DEVNULL,
        vocabulary: str = "llama3",
    ) -> None:
        self.engine = engine
        self.vocabulary = vocabulary
        self.cpu_limit_s = cpu_limit_s
        self.wall_limit_s = wall_limit_s
        self.warm_up = warm_up
        self.log = log
        self.hello: dict[str, Any] = {}
        self.starts = 0
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        environment = dict(os.environ, OMP_NUM_THREADS="1", RAYON_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", self.engine, self.vocabulary],
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        self.starts += 1
        answer = self._read(120.0)
        if answer is None:
            raise RuntimeError(f"{self.engine}: the worker did not start")
        self.hello = answer
        for job in self.warm_up:
            self._exchange(job)
            if self._process is None:
                raise RuntimeError(f"{self.engine}: the warm-up killed the worker")

    def ask(self, job: dict[str, Any]) -> dict[str, Any]:
        if self._process is None:
            self.start()
        return self._exchange(job)

    def _exchange(self, job: dict[str, Any]) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdin is not None
        used = self._cpu_s()
        deadline = time.monotonic() + self.wall_limit_s
        try:
            print(json.dumps(job), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            return self._crashed()
        while (answer := self._read(0.1)) is None:
            if self._process.poll() is not None:
                return self._crashed()
            if self._cpu_s() - used > self.cpu_limit_s:
                self.stop()
                return {"status": "timeout", "reason": f"over {self.cpu_limit_s:g} s of CPU"}
            if time.monotonic() > deadline:
                self.stop()
                return {"status": "timeout", "reason": f"no answer within {self.wall_limit_s:g} s"}
        return answer

    def _read(self, limit_s: float) -> dict[str, Any] | None:
        assert self._process is not None
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], limit_s)
        line = self._process.stdout.readline() if ready else ""
        return json.loads(line) if line else None

    def _cpu_s(self) -> float:
        """User and system seconds of the worker so far; 0 once it is gone."""
        assert self._process is not None
        try:
            with open(f"/proc/{self._process.pid}/stat") as stat:
                fields = stat.read().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _crashed(self) -> dict[str, Any]:
        assert self._process is not None
        status = self._process.wait()
        self._process = None
        return {"status": "crashed", "reason": f"the process ended with status {status}"}

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> EngineProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def read_jsonl(path: str) -> Iterator[dict[str, Any]]:
    """Rows of a JSON-lines file, gzipped or not."""
    import gzip

    with gzip.open(path, "rt") if path.endswith(".gz") else open(path) as lines:
        for line in lines:
            if line.strip():
                yield json.loads(line)
