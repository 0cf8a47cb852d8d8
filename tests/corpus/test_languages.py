"""The shipped grammars, quickly: small programs of each language, valid and not, and near misses against judges that
come with Python. The long runs over whole libraries are `python -m benchmarks languages`."""

from __future__ import annotations

import ast
import csv
import functools
import io
import random
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

import guiderail as gr
from guiderail.grammars import library

CASES = Path(__file__).parent / "languages"


@functools.cache
def builtin(name: str) -> gr.Grammar:
    return gr.Grammar.builtin(name)


def cases() -> list[tuple[str, str, str, bool]]:
    """(language, what it shows, text, valid) from languages/*.toml."""
    return [
        (file.stem, case["shows"], text, valid)
        for file in sorted(CASES.glob("*.toml"))
        for case in tomllib.loads(file.read_text(encoding="utf-8"))["case"]
        for key, valid in (("valid", True), ("invalid", False))
        for text in case.get(key, [])
    ]


@pytest.mark.parametrize("name", library.names())
def test_every_language_has_cases_of_both_kinds(name: str) -> None:
    assert {valid for language, _, _, valid in cases() if language == name} == {True, False}


@pytest.mark.parametrize("name", library.names())
def test_small_programs(name: str) -> None:
    wrong = [
        (shows, text, valid)
        for language, shows, text, valid in cases()
        if language == name and builtin(name).accepts(text) is not valid
    ]
    assert wrong == []


@pytest.mark.parametrize("name", library.names())
def test_headers_say_what_is_covered(name: str) -> None:
    header = library.text(name).split("\n\nstart:")[0]
    assert "Covered:" in header
    assert "Not covered:" in header
    assert "What no grammar of this kind can see:" in header


def judged_by_tomllib(text: str) -> bool | None:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        semantic = re.search("overwrite|declare|immutable|Duplicate", str(error))
        return None if semantic else False
    return True


def judged_by_csv(text: str) -> bool:
    try:
        list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error:
        return False
    # RFC 4180 also forbids a quote inside a plain field.
    return '"' not in re.sub(r'(?:(?<=[,\r\n])|\A)"(?:[^"]|"")*"', "", text)


ARITHMETIC = (ast.Module, ast.Expr, ast.Assign, ast.BinOp, ast.UnaryOp, ast.Call, ast.Name, ast.Constant, ast.operator)


def judged_by_python(text: str) -> bool | None:
    """Calculator expressions are Python's, as far as they go; None where they go further."""
    if re.search(r"[0-9][jJ_]|\b(?:0[0-9xXoObB]|True|False|None|lambda|if|else|for|in|is|not|and|or|as)", text):
        return None
    try:
        trees = [ast.parse(line.strip().replace("^", "**")) for line in re.split(r"[\n;]", text)]
    except SyntaxError:
        return False
    nodes = [node for tree in trees for node in ast.walk(tree)]
    further = any(
        (isinstance(node, ast.Call) and not isinstance(node.func, ast.Name))
        or (isinstance(node, ast.Assign) and len(node.targets) > 1)
        or not isinstance(node, (*ARITHMETIC, ast.unaryop, ast.expr_context))
        for node in nodes
    )
    if not any(tree.body for tree in trees):
        return False  # a calculation has at least one statement
    return None if further else True


JUDGES: dict[str, Callable[[str], bool | None]] = {
    "toml": judged_by_tomllib,
    "csv": judged_by_csv,
    "calc": judged_by_python,
}


@pytest.mark.parametrize("name", sorted(JUDGES))
def test_near_misses(name: str) -> None:
    """Edits of a character or two, judged by a parser of Python's own."""
    rng = random.Random(4180)
    texts = [text for language, _, text, valid in cases() if language == name and valid]
    pool = sorted({character for text in texts for character in text})
    wrong = []
    counts = {True: 0, False: 0}
    for _ in range(3000):
        text = list(rng.choice(texts))
        for _ in range(rng.choice((1, 1, 1, 2))):
            at = rng.randrange(len(text) + 1)
            text[at : at + rng.randrange(2)] = rng.choice(pool) if rng.random() < 0.7 else ""
        edited = "".join(text)
        verdict = JUDGES[name](edited)
        if verdict is None:
            continue
        counts[verdict] += 1
        if builtin(name).accepts(edited) is not verdict:
            wrong.append((edited, verdict))
    assert wrong == []
    assert min(counts.values()) > 200


def test_sql_stays_inside_postgresql() -> None:
    """Edits of words: what the grammar accepts, PostgreSQL's parser accepts."""
    parser = pytest.importorskip("pglast").parser
    rng = random.Random(92)
    texts = [text for language, _, text, valid in cases() if language == "sql" and valid]
    wrong, accepted = [], 0
    for _ in range(4000):
        parts = re.findall(r"\w+|\s+|[^\w\s]", rng.choice(texts))
        at = rng.randrange(len(parts))
        parts[at : at + rng.randrange(2)] = rng.choice(([], [" ", rng.choice(parts), " "]))
        edited = "".join(parts)
        if not builtin("sql").accepts(edited):
            continue
        accepted += 1
        try:
            parser.parse_sql_json(edited)
        except parser.ParseError:
            wrong.append(edited)
    assert wrong == []
    assert accepted > 500


def test_standard_library_of_this_python() -> None:
    """A sample of what `ast.parse` takes; all of it is read by `python -m benchmarks languages python`."""
    root = Path(ast.__file__).parent
    paths = random.Random(311).sample(sorted(root.glob("*.py")), 20)
    refused = []
    for path in paths:
        text = path.read_bytes().decode("utf-8", "strict")
        ast.parse(text)
        if not builtin("python").accepts(text):
            refused.append((path.name, builtin("python").longest_prefix(text)))
    assert refused == []
