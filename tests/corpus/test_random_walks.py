"""A slice of the random walks that `python -m benchmarks walks` runs (random_walks.py)."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jsonschema")
sys.path.insert(0, str(Path(__file__).parent))

from random_walks import Outcome, Walks, judge
from real_schemas import find_schemas, read_rows

import guiderail as gr

SMALL = Path(__file__).parent.parent.parent / "benchmarks" / "schemas-small.jsonl"
PIECES = [
    '{"',
    '":',
    '","',
    '"}',
    '"]',
    "[[",
    "]]",
    ', "',
    '": "',
    "true",
    "null",
    "false",
    "name",
    "the ",
    "id",
    "00",
    "2026-",
]


def small_vocabulary() -> gr.Vocabulary:
    rng = random.Random(0)
    words = {"".join(rng.choices("aeinorst", k=rng.randint(2, 6))) for _ in range(300)}
    token_bytes = [bytes([i]) for i in range(256)] + [p.encode() for p in PIECES + sorted(words)] + [b""]
    return gr.Vocabulary.from_bytes(token_bytes, eos_token_ids=[len(token_bytes) - 1])


def test_walks_over_real_schemas_are_valid_and_in_time() -> None:
    outcome, walks = Outcome(), Walks(small_vocabulary())
    for number, row in enumerate(read_rows(SMALL)):
        walks.over_schema(row["schema"], f"small {number}", 25, outcome)
    path = find_schemas()
    for row in read_rows(path, 60) if path else ():
        walks.over_schema(row["schema"], row["id"], 10, outcome)
    assert outcome.judged >= 200
    assert not outcome.stopped
    assert not outcome.faults


SCHEMAS: list[Any] = [
    {"type": "array", "uniqueItems": True, "minItems": 2, "items": {"enum": ["a", "b", 1, None, [2]]}},
    {"type": "array", "contains": {"multipleOf": 0.25}, "minContains": 2, "maxContains": 3},
    {"oneOf": [{"minimum": 3}, {"maximum": 5}, {"type": "string", "pattern": "^(a|b)*c$"}]},
    {"type": "object", "propertyNames": {"pattern": "^[a-c]+$"}, "minProperties": 2, "required": ["cab"]},
    {"if": {"required": ["a"]}, "then": {"required": ["b"]}, "else": {"minProperties": 1}, "type": "object"},
    {
        "$defs": {"t": {"properties": {"n": {"$ref": "#/$defs/t"}}, "required": ["v"]}},
        "$ref": "#/$defs/t",
        "type": "object",
    },
    {"type": "string", "format": "date-time"},
    {"type": "object", "properties": {"a": {"type": "integer"}}, "unevaluatedProperties": False, "minProperties": 1},
]


@pytest.mark.parametrize("number", range(len(SCHEMAS)))
def test_walks_over_every_kind_of_keyword(number: int) -> None:
    outcome, walks = Outcome(), Walks(small_vocabulary(), seed=number)
    walks.over_schema(SCHEMAS[number], str(number), 25, outcome)
    assert outcome.judged == 25
    assert not outcome.stopped
    assert not outcome.faults


def test_the_judge_finds_faults() -> None:
    problem = judge({"type": "object", "required": ["a"], "properties": {"a": {"multipleOf": 0.1}}})
    assert problem('{"a": 0.3}') is None
    assert judge({"type": "integer", "maximum": 7})("-1e99999999999999999999") is None
    assert problem('{"a": 0.35}')
    assert problem("{}")
    assert judge({"format": "date"})('"0000-02-29"') is None
    assert judge({"format": "date"})('"0000-02-30"')
    with pytest.raises(ValueError, match="Expecting"):
        problem("{")


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [("^.$", r'"\r"', False), ("^[.]$", r'"."', True), ("^a$", r'"a\n"', False), (r"^[\d]\d\.$", '"12."', True)],
)
def test_the_judge_reads_patterns_as_ecma_262_does(pattern: str, text: str, matches: bool) -> None:
    assert (judge({"pattern": pattern})(text) is None) == matches
    named = judge({"patternProperties": {pattern: False}})
    assert (named(f"{{{text}: 1}}") is None) == (not matches)
