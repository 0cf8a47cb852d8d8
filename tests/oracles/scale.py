"""How much of a test's world is visited: modest in the everyday run, everything on request.

    GUIDERAIL_RANDOM_GRAMMARS=5000 make test ARGS='tests/exhaustive tests/property'

GUIDERAIL_RANDOM_GRAMMARS   random grammars per test that draws them (each test has a default of its own)
GUIDERAIL_EXHAUSTIVE=1      the whole enumeration where the everyday run takes every n-th member
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def random_grammar_count(default: int) -> int:
    return int(os.environ.get("GUIDERAIL_RANDOM_GRAMMARS", default))


def every(step: int, members: Iterable[T]) -> Iterator[T]:
    """All members under GUIDERAIL_EXHAUSTIVE=1, otherwise one in `step`."""
    return islice(members, 0, None, 1 if os.environ.get("GUIDERAIL_EXHAUSTIVE") == "1" else step)
