"""Judges of beginnings: does any text of the language begin so? Decided by parsers that share no code with guiderail.

JSON is decided exactly (tests/oracles/json_prefix.py). The others ask a parser that goes wrong at the first word that
cannot stand where it stands: a text that, with one of some continuations after it, is a sentence or goes wrong behind
its own end, begins a sentence. Where none of the continuations does, it is taken not to, which is no proof: look at
every disagreement. None: not decided.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from . import HERE, PYTHONS, MissingJudge, package, program, python_prefixes, python_program

PrefixJudge = Callable[[Sequence[str]], list[bool | None]]

GO_WORDS = (
    *("break", "case", "chan", "const", "continue", "default", "defer", "else", "fallthrough", "for", "func", "go"),
    *("goto", "if", "import", "interface", "map", "package", "range", "return", "select", "struct", "switch", "type"),
    "var",
)
GO_ENDS = [
    "", "**/", "a", " a", "0", '"', "'", "a'", "0'", "00000000'", '00000000"', "`", "*/", " */", "(", ")", "]", "}",
    "\n", " {", "=a", "= a", "\na", "\n}", "&a", "|a", "..", ":", ":=", " main", " main\n",
]  # fmt: skip
SQL_ENDS = [
    "", "**/", "a", " a", "0", "'", "a'", '"', 'a"', "*/", " */", "(", ")", "]", "\na", "$$", "$ $", "=", "=a", ":a",
    ">a", "|a", "''", "+ 1", "1'", "-1", "0'", "0000'",
]  # fmt: skip


def json_texts() -> PrefixJudge:
    sys.path.insert(0, str(HERE.parents[1] / "tests"))
    from oracles.json_prefix import JsonPrefix

    return lambda texts: [JsonPrefix().read(text.encode()) is not None for text in texts]


def python() -> PrefixJudge:
    """CPython 3.12 or later: python_prefixes.py says how."""
    if sys.version_info >= (3, 12):
        return python_prefixes.prefixes
    name = python_program()
    if name is None:
        raise MissingJudge(f"none of {', '.join(PYTHONS)} is installed")
    command = [name, str(HERE / "python_prefixes.py")]

    def judge(texts: Sequence[str]) -> list[bool | None]:
        with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as given:
            json.dump(list(texts), given)
            given.flush()
            done = subprocess.run([*command, given.name], capture_output=True, text=True)
        if done.returncode:
            raise MissingJudge(f"{name} does not run ({done.stderr.strip()[-200:]})")
        _, verdicts = json.loads(done.stdout)
        return list(verdicts)

    return judge


def _word_ends(text: str, words: Sequence[str]) -> list[str]:
    found = re.search(r"[A-Za-z]+\Z", text)
    if found is None:
        return []
    begun = found[0].lower()
    rest = [word[len(begun) :] for word in words if word.startswith(begun) and word != begun]
    return [end + tail for end in rest for tail in ("", " a", " (")]


def go() -> PrefixJudge:
    """`gofmt -e`, by the place of the first error."""
    command = program("gofmt")

    def judge(texts: Sequence[str]) -> list[bool | None]:
        verdicts: list[bool | None] = [False] * len(texts)
        tried = [(number, end) for number, text in enumerate(texts) for end in (*GO_ENDS, *_word_ends(text, GO_WORDS))]
        with tempfile.TemporaryDirectory() as folder:
            for at, (number, end) in enumerate(tried):
                Path(folder, f"{at}.go").write_text(texts[number] + end, encoding="utf-8", newline="")
            done = subprocess.run([command, "-e", "-l", folder], capture_output=True, text=True, errors="replace")
        first: dict[int, tuple[int, int]] = {}
        for found in re.finditer(r"(\d+)\.go:(\d+):(\d+): ", done.stderr):
            at, line, column = map(int, found.groups())
            first[at] = min(first.get(at, (line, column)), (line, column))
        for at, (number, _) in enumerate(tried):
            data = texts[number].encode()
            # Columns count bytes from 1.
            end_of_text = (data.count(b"\n") + 1, len(data) - data.rfind(b"\n"))
            if at not in first or first[at] >= end_of_text:
                verdicts[number] = True
        return verdicts

    return judge


def sql() -> PrefixJudge:
    """PostgreSQL's parser (`pglast`), by the place of the error."""
    module = package("pglast")
    parse, failed = module.parser.parse_sql_json, module.parser.ParseError
    kinds = vars(package("pglast.keywords", "pglast"))
    words = sorted(word.lower() for name, kind in kinds.items() if name.endswith("_KEYWORDS") for word in kind)

    def reads(text: str, end: str) -> bool:
        try:
            parse(text + end)
        except failed as error:
            message, place = (*error.args, None)[:2]
            return "at end of input" in str(message) or (place is not None and place >= len(text))
        return True

    return lambda texts: [
        "\0" not in text and any(reads(text, end) for end in (*SQL_ENDS, *_word_ends(text, words))) for text in texts
    ]


PREFIX_JUDGES: dict[str, Callable[[], PrefixJudge]] = {"json": json_texts, "python": python, "go": go, "sql": sql}
