"""The entries of tests/seeded_bugs.toml speak of the sources as they are."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parent.parent
BUGS = tomllib.loads((TESTS / "seeded_bugs.toml").read_text(encoding="utf-8"))["bug"]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug["name"])
def test_what_is_replaced_stands_once_in_its_file(bug: dict[str, Any]) -> None:
    source = (TESTS.parent / "src" / "core" / bug["file"]).read_text(encoding="utf-8")
    assert source.count(bug["find"]) == 1
