"""The grammars that come with guiderail: one .lark file per language, each with a header that says what it covers.

They are written from the languages' references, for longest match. `Grammar.builtin(name)` reads them; JSON is not
among the files because the core has it in code.
"""

from __future__ import annotations

import re
from importlib import resources
from typing import Any


def names() -> list[str]:
    """The languages that have a file, in alphabetical order."""
    files = resources.files(__package__).iterdir()
    return sorted(file.name.removesuffix(".lark") for file in files if file.name.endswith(".lark"))


def text(name: str) -> str:
    """The grammar of a language in Lark's notation; `name` is one of `names()`."""
    return resources.files(__package__).joinpath(f"{name}.lark").read_text(encoding="utf-8")


def indenter(name: str) -> Any:
    """What finds the blocks of a language, as `postlex` of `Grammar.from_lark` takes it; None for most."""
    return python_lines(text(name)) if name == "python" else None


def python_lines(grammar: str) -> Any:
    """Line breaks and blocks as Python's tokenizer finds them, for a grammar with its f-strings."""
    from lark.indenter import PythonIndenter

    class PythonLines(PythonIndenter):
        OPEN_PAREN_types = [*PythonIndenter.OPEN_PAREN_types, *re.findall(r"^(F_\w*FIELD):", grammar, re.M)]  # noqa: RUF012
        CLOSE_PAREN_types = [*PythonIndenter.CLOSE_PAREN_types, *re.findall(r"^(F_\w*STOP):", grammar, re.M)]  # noqa: RUF012
        as_python = True

    return PythonLines
