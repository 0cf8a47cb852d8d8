"""SynCode's own environment: its dependencies are of other versions than ours, so it never meets them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "guiderail" / "syncode"
VERSION = "0.4.16"
# torch first: the version that SynCode's open range would pick has no wheel everywhere.
PACKAGES = ("torch==2.13.0", f"syncode=={VERSION}")


def interpreter() -> Path:
    """Its Python, installed at the first call (about a minute, 1.4 GB). Raises: CalledProcessError."""
    folder = CACHE / f"environment-{VERSION}"
    python = folder / "bin" / "python"
    done = folder / "complete"
    if not done.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        for package in PACKAGES:
            subprocess.run([str(python), "-m", "pip", "install", "-q", package], check=True)
        done.touch()
    return python


def grammar_file(language: str) -> Path:
    """The grammar that SynCode ships for a language."""
    (found,) = (CACHE / f"environment-{VERSION}").glob(
        f"lib/python*/site-packages/syncode/parsers/grammars/{language}.lark"
    )
    return found


class SynCode:
    """The worker (worker.py) with one tokenizer. It keeps its parser and mask store in `store`.

    Raises: RuntimeError if it dies or says that a job failed.
    """

    def __init__(self, tokenizer_folder: Path, store: Path) -> None:
        environment = dict(os.environ, SYNCODE_CACHE=f"{store}/", HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")
        environment.pop("PYTHONPATH", None)
        self._log = (CACHE / "worker.log").open("w")
        self._process = subprocess.Popen(
            [str(interpreter()), "-I", str(HERE / "worker.py"), str(tokenizer_folder)],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
        )  # fmt: skip
        self.hello = self._read()

    def ask(self, **job: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        print(json.dumps(job), file=self._process.stdin, flush=True)
        answer = self._read()
        if answer.pop("status") != "ok":
            raise RuntimeError(f"SynCode, {job['kind']}: {answer['reason']}")
        return answer

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"SynCode's worker is gone, see {self._log.name}")
        return dict(json.loads(line))

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
