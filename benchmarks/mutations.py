"""Near misses: a program with one small edit, most of them no longer programs.

The text is cut into words, white space, comments and single other characters; an edit leaves one out, doubles one,
swaps two neighbours, or puts another piece of the same text in the place of one or beside it. Seeded, so a number names
a mutant.
"""

from __future__ import annotations

import random
import re

COMMENTS = {"python": r"#[^\n]*", "toml": r"#[^\n]*", "graphql": r"#[^\n]*", "sql": r"--[^\n]*", "csv": r"(?!)"}


def pieces(text: str, language: str) -> list[str]:
    comment = COMMENTS.get(language, r"//[^\n]*|/\*.*?\*/")
    return re.findall(rf"(?s:{comment})|\w+|[^\S\n]+|\n|[^\w\s]", text)


def mutant(parts: list[str], seed: int) -> str:
    """`parts` (see `pieces`; two at least) with one edit."""
    rng = random.Random(seed)
    at = rng.randrange(len(parts) - 1)
    edit = rng.randrange(5)
    if edit == 0:
        new = parts[:at] + parts[at + 1 :]
    elif edit == 1:
        new = [*parts[: at + 1], *parts[at:]]
    elif edit == 2:
        new = [*parts[:at], parts[at + 1], parts[at], *parts[at + 2 :]]
    else:
        new = [*parts[:at], rng.choice(parts), *parts[at + edit - 3 :]]
    return "".join(new)
