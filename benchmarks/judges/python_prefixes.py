"""Which texts begin a Python program, decided by CPython's own parser. Run by file: nothing but the library.

    python3.12 python_prefixes.py FILE   FILE: a JSON list of texts; prints [version, verdicts]

The compiler has a flag, made for interactive consoles, by which its first pass says 'incomplete input' if it went wrong
no earlier than at the end of the text. That is asked of the text with each of some continuations after it: the end of
a text may be half a word, and its line may have to go on. One that is taken, or is incomplete, shows that the text
begins a program. That none does is no proof: a disagreement has to be looked at. Null: the text ends inside the name
of a character (\\N{...), which is not decided here.
"""

from __future__ import annotations

import ast
import json
import keyword
import re
import sys
import warnings
from collections.abc import Iterator, Sequence

ALLOW_INCOMPLETE = 0x4000  # PyCF_ALLOW_INCOMPLETE_INPUT, which `codeop` uses
ENDS = [
    "", "(", "a", " a", " (", "0", ":", " a:", "a:", " in (", " else (", " import (", " as a:", " def f(",
    " = (", "=(", ")", "]", "}", "\na", "'", '"', "a'", 'a"', "00000000'", '00000000"', "'''", '"""', "a'''",
    'a"""', "{SPACE}'", '{SPACE}"', "0}'", '0}"', "a}'", 'a}"', "a}'''", 'a}"""', "}'", '}"', "r}'", 'r}"',
    "\\\n(", "\n(", ".a", "..", "=a", ">a:", "> (", ":(",
]  # fmt: skip
TAILS = [" (", ":", " a:", " a else (", " import (", " in (", " def f(", " f(", " a = ("]
WORDS = sorted({*keyword.kwlist, *keyword.softkwlist} - {"_"})


def complaint(text: str, flags: int = 0) -> str | None:
    """What the parser says against a text."""
    try:
        compile(text, "text", "exec", ast.PyCF_ONLY_AST | flags, dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return str(error)
    return None


def taken(text: str) -> bool:
    """Whether the parser takes the text, or has read it to its end and wants more.

    An open string of three quotes is 'incomplete' before it has been seen whether a string may stand there at all; the
    continuations close it.
    """
    said = complaint(text, ALLOW_INCOMPLETE)
    if said is None or "incomplete input" not in said:
        return said is None
    return "unterminated triple-quoted" not in (complaint(text) or "")


def continuations(text: str) -> Iterator[str]:
    yield from ENDS
    found = re.search(r"[^\W\d]+\Z", text)
    if found:
        for word in WORDS:
            if word.startswith(found[0]) and word != found[0]:
                yield from (word[len(found[0]) :] + tail for tail in TAILS)


def begins_a_program(text: str) -> bool | None:
    if re.search(r"\\N(?:\{[^}]*)?\Z", text):
        return None
    return any(taken(text + end) for end in continuations(text))


def prefixes(texts: Sequence[str]) -> list[bool | None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [begins_a_program(text) for text in texts]


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as given:
        print(json.dumps([list(sys.version_info[:2]), prefixes(json.load(given))]))
