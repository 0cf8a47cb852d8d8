"""Print the requirements of the named extras of pyproject.toml, one per line, without the package itself.

`pip install .[dev]` would build the package; the Makefile wants its dependencies first and the build apart.
Usage: python tests/requirements.py dev demo
       python tests/requirements.py --of PACKAGE WITHOUT …     # of an installed package, as its own metadata says
"""

from __future__ import annotations

import importlib.metadata
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


def requirements_of(package: str, without: list[str]) -> list[str]:
    """What an installed package requires here, but for the packages `without`."""
    from packaging.requirements import Requirement

    found = []
    for text in importlib.metadata.requires(package) or []:
        requirement = Requirement(text)
        if requirement.name not in without and (
            requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        ):
            requirement.marker = None
            found.append(str(requirement))
    return sorted(found)


if __name__ == "__main__":
    if sys.argv[1] == "--of":
        print("\n".join(requirements_of(sys.argv[2], sys.argv[3:])))
    else:
        print("\n".join(requirements(sys.argv[1:])))
