"""Does the suite notice a bug? Builds the core with each entry of seeded_bugs.toml in turn and runs the tests.

    python tests/seeded_bugs.py [--only NAME] [--work DIR] [pytest arguments]

Needs what a build needs (CMake, Ninja, nanobind); about half a minute per bug on two cores. Exits 1 if a bug survives
that is not marked `survives` (with its reason), or if the sound build fails. Nothing in the working tree is touched:
the sources are copied to DIR first.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUITE = [
    "tests/test_cases.py",
    "tests/exhaustive",
    "tests/property/test_matcher_laws.py",
    "tests/property/test_mutants.py",
    "tests/unit/test_lexeme_rows.py",
    "tests/unit/test_names_once.py",
]


def nanobind_directory() -> str:
    done = subprocess.run([sys.executable, "-m", "nanobind", "--cmake_dir"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


class Build:
    """A copy of the sources that is configured once and rebuilt after each change."""

    def __init__(self, work: Path) -> None:
        self.source, self.build, self.site = work / "tree", work / "build", work / "site"
        # Objects of an earlier run may be of one of its bugs, and as new as the sources.
        for directory in (self.source, self.build):
            shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(ROOT / "src", self.source / "src", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        shutil.copy(ROOT / "CMakeLists.txt", self.source)
        self._run(
            *("cmake", "-S", str(self.source), "-B", str(self.build), "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release"),
            *(f"-DPython_EXECUTABLE={sys.executable}", f"-Dnanobind_DIR={nanobind_directory()}"),
        )

    @staticmethod
    def _run(*command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")

    def make(self) -> None:
        self._run("cmake", "--build", str(self.build))
        shutil.rmtree(self.site, ignore_errors=True)
        shutil.copytree(self.source / "src" / "guiderail", self.site / "guiderail")
        (module,) = self.build.glob("_core*.so")
        shutil.copy(module, self.site / "guiderail")

    def test(self, arguments: list[str]) -> tuple[bool, str]:
        """(passed, the line that says what failed first)"""
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider", *SUITE, *arguments],
            cwd=ROOT,
            env=dict(os.environ, PYTHONPATH=str(self.site)),
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        failures = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        return done.returncode == 0, failures[0][:110] if failures else f"exit status {done.returncode}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", help="entries whose name contains one of these, separated by commas")
    parser.add_argument("--work", help="where to build (default: a temporary directory)")
    options, pytest_arguments = parser.parse_known_args()
    bugs = tomllib.loads((ROOT / "tests" / "seeded_bugs.toml").read_text(encoding="utf-8"))["bug"]
    with tempfile.TemporaryDirectory() as temporary:
        build = Build(Path(options.work or temporary))
        build.make()
        passed, line = build.test(pytest_arguments)
        print(f"{'sound build':60} {'passes' if passed else 'FAILS: ' + line}", flush=True)
        unexpected = not passed
        for bug in bugs:
            if options.only and not any(part in bug["name"] for part in options.only.split(",")):
                continue
            file = build.source / "src" / "core" / bug["file"]
            sound = file.read_text(encoding="utf-8")
            if bug["find"] not in sound:
                raise SystemExit(f"{bug['name']}: {bug['file']} no longer contains {bug['find']!r}")
            file.write_text(sound.replace(bug["find"], bug["put"]), encoding="utf-8")
            try:
                build.make()
                start = time.monotonic()
                passed, line = build.test(pytest_arguments)
            finally:
                file.write_text(sound, encoding="utf-8")
            verdict = "survives" if passed else f"caught in {time.monotonic() - start:.0f} s: {line}"
            print(f"{bug['name']:60} {verdict}", flush=True)
            unexpected |= passed != bug.get("survives", False)
    raise SystemExit(1 if unexpected else 0)


if __name__ == "__main__":
    main()
