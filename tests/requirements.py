"""Print the requirements of the named extras of pyproject.toml, one per line, without the package itself.

`pip install .[dev]` would build the package; the Makefile wants its dependencies first and the build apart.
Usage: python tests/requirements.py dev demo
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path


def requirements(extras: list[str]) -> list[str]:
    """Base dependencies and those of `extras`; an extra that names another of ours (`guiderail[x]`) is followed."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    found: list[str] = list(project["dependencies"])
    queue, seen = list(extras), set()
    while queue:
        extra = queue.pop()
        if extra in seen:
            continue
        seen.add(extra)
        for requirement in project["optional-dependencies"][extra]:
            own = re.fullmatch(r"guiderail\[(.*)\]", requirement)
            if own:
                queue += own.group(1).split(",")
            else:
                found.append(requirement)
    return sorted(set(found))


if __name__ == "__main__":
    print("\n".join(requirements(sys.argv[1:])))
