"""A length beside a pattern: every short text, in several spellings, judged by Python's `re` and `len`.

The engine says a length inside the pattern where it can (lexicon_characters.cpp); this is what it must not change.
"""

from __future__ import annotations

import itertools
import json
import re

import pytest

import guiderail as gr

CHARACTERS = ["a", "b", "-", "é", "\n", "😀"]
TEXTS = ["".join(t) for n in range(5) for t in itertools.product(CHARACTERS, repeat=n)]

PATTERNS = [
    "[ab]+",  # somewhere
    "^[ab]+$",
    "^[ab]*$",
    "^a[ab-]*$",
    "^a[ab-]{1,2}b$",
    "^(a|b|-)+$",
    "^(ab)*$",
    "^(ab|b)*-?$",
    "a-b",
    "^a|b$",
    "^[^a]*$",
    "^(?:a|é|😀){2,3}$",
    "é.*é",
    "^.{1,3}$",
    "^(?=.{2,3}$)[ab]+(?:-[ab]+)*$",
    "^(?!a)[ab]*$",
    "^[ab]{0,2}[-é]{0,2}$",
    "^(?:|aab|[ab]{3})$",
    "^\\n?[ab]*$",
]
LENGTHS = [(0, 0), (0, 2), (1, 1), (2, None), (2, 3), (3, 3), (4, None), (5, 9)]


def spellings(text: str) -> set[bytes]:
    raw, ascii_only = json.dumps(text, ensure_ascii=False), json.dumps(text)
    hexed = '"' + "".join(f"\\u{unit:04X}" for unit in utf16(text)) + '"'
    return {raw.encode(), ascii_only.encode(), hexed.encode()}


def utf16(text: str) -> list[int]:
    data = text.encode("utf-16-be")
    return [int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2)]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_short_texts(pattern: str) -> None:
    # ECMA-262's `.` and `$` are Python's \Z and 'not a line terminator'.
    python = re.compile(pattern.replace("$", "\\Z"))
    matching = {text for text in TEXTS if python.search(text)}
    for least, most in LENGTHS:
        bounds = {"minLength": least} | ({} if most is None else {"maxLength": most})
        wanted = {text for text in matching if least <= len(text) and (most is None or len(text) <= most)}
        for schema in (
            {"type": "string", "pattern": pattern, **bounds},
            {"type": "string", "allOf": [bounds, {"pattern": pattern}]},
        ):
            try:
                grammar = gr.Grammar.from_json_schema(schema)
            except gr.UnsatisfiableError:
                assert not wanted
                continue
            for text in TEXTS:
                for spelling in spellings(text):
                    assert grammar.accepts(spelling) == (text in wanted), (schema, spelling)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_a_negation_leaves(pattern: str) -> None:
    python = re.compile(pattern.replace("$", "\\Z"))
    for least, most in LENGTHS:
        inner = {"pattern": pattern, "minLength": least} | ({} if most is None else {"maxLength": most})
        grammar = gr.Grammar.from_json_schema({"type": "string", "not": inner, "maxLength": 4})
        for text in TEXTS:
            inside = bool(python.search(text)) and least <= len(text) and (most is None or len(text) <= most)
            for spelling in spellings(text):
                assert grammar.accepts(spelling) == (not inside), (inner, spelling)


def test_an_alternative_may_be_longer_than_a_count_beside_it() -> None:
    """`at most 3 characters, or [ab]{1,9}`: the second is no part of the first."""
    grammar = gr.Grammar.from_json_schema(
        {"anyOf": [{"type": "string", "maxLength": 3}, {"type": "string", "pattern": "^[ab]{1,9}$"}]}
    )
    for text, expected in (("xyz", True), ("xyzx", False), ("abababab", True), ("ababababab", False), ("abax", False)):
        assert grammar.accepts(f'"{text}"') is expected, text
