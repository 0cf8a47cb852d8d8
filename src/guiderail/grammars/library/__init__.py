"""The grammars that come with guiderail: one .lark file per language, each with a header that says what it covers.

They are written from the languages' references, for longest match. `Grammar.builtin(name)` reads them; JSON is not
among the files because the core has it in code.
"""

from __future__ import annotations

from importlib import resources


def names() -> list[str]:
    """The languages that have a file, in alphabetical order."""
    files = resources.files(__package__).iterdir()
    return sorted(file.name.removesuffix(".lark") for file in files if file.name.endswith(".lark"))


def text(name: str) -> str:
    """The grammar of a language in Lark's notation; `name` is one of `names()`."""
    return resources.files(__package__).joinpath(f"{name}.lark").read_text(encoding="utf-8")
