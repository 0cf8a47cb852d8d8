"""uniqueItems over items of which there are boundlessly many: the text of an item decides what may follow.

Oracles: `jsonschema` for finished texts, and `accepts_prefix`, which reads bytes and builds no masks, for masks.
"""

from __future__ import annotations

import json
import random
from decimal import Decimal
from typing import Any

import jsonschema
import numpy as np
import pytest

import guiderail as gr
from conftest import SEED
from oracles import laws

UNIQUE: dict[str, Any] = {"type": "array", "uniqueItems": True}


def accepts(schema: Any, text: str) -> bool:
    return gr.Grammar.from_json_schema(schema).accepts(text)


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("[]", True),
        ("[1, 2, 10]", True),
        ("[1, 2, 1]", False),
        ("[1, 1.0]", False),
        ("[0, -0]", False),
        ("[0, false]", True),
        ("[null, null]", False),
        ('["a" , "b"]', True),
        ('["a" , "a"]', False),
        (r'["a", "\u0061"]', False),
        (r'["\u0061", "b", "a"]', False),
        ('[{"a": 1, "b": 2}, {"b": 2, "a": 1}]', False),
        ('[{"a": 1, "b": 2}, {"b": 2, "a": 3}]', True),
        ('[{"a": [1, {"b": "x"}]}, {"a": [1.0, {"b": "\\u0078"}]}]', False),
        ("[[1], [true]]", True),
        ("[[1], [2], [1]]", False),
        ("[[1, 1]]", True),
    ],
)
def test_equality_of_items(text: str, valid: bool) -> None:
    assert accepts(UNIQUE, text) == valid


def test_nested_arrays_are_judged_each_by_itself() -> None:
    schema = {**UNIQUE, "items": {**UNIQUE, "items": {"type": "integer"}}}
    assert accepts(schema, "[[1, 2], [2, 1], [2]]")
    assert not accepts(schema, "[[1, 2], [2, 1], [2, 2]]")
    assert not accepts(schema, "[[1, 2], [3], [1, 2]]")


def test_what_has_run_out_is_not_offered() -> None:
    digits = gr.Grammar.from_json_schema({**UNIQUE, "items": {"type": "integer", "minimum": 1, "maximum": 2}})
    assert digits.accepts("[2, 1]")
    assert digits.accepts_prefix("[1,")
    assert not digits.accepts_prefix("[1, 2,")
    # The third item can only be "a", so the first two cannot.
    schema = {**UNIQUE, "prefixItems": [{"type": "string"}, {"enum": ["a", "b"]}, {"const": "a"}], "minItems": 3}
    places = gr.Grammar.from_json_schema(schema)
    assert places.accepts('["c", "b", "a"]')
    for text in ('["a"', '["b"', '["c", "a"'):
        assert not places.accepts_prefix(text + ","), text
    with pytest.raises(gr.UnsatisfiableError):
        twice = {**UNIQUE, "items": {"type": "integer"}, "contains": {"const": 5}, "minContains": 2}
        gr.Grammar.from_json_schema(twice).accepts_prefix("[")


@pytest.mark.parametrize(
    "schema",
    [
        {**UNIQUE, "items": {"type": "integer", "minimum": 1, "maximum": 3}, "minItems": 2},
    ],
)
def test_what_cannot_be_decided_is_refused_by_place(schema: Any) -> None:
    with pytest.raises(gr.SchemaError) as caught:
        gr.Grammar.from_json_schema(schema)
    assert caught.value.pointer.endswith("/uniqueItems")


REPEATED: dict[str, Any] = {"type": "array", "not": {"uniqueItems": True}}
INTEGERS: dict[str, Any] = {"items": {"type": "integer"}}


@pytest.mark.parametrize(
    ("schema", "valid", "invalid"),
    [
        (REPEATED, ["[1, 2, 1.0]", '["a", {}, "a"]', "[[], [0], []]"], ["[]", "[1]", "[0, false, null]"]),
        ({"not": {"uniqueItems": True}}, ["[2, 2]"], ["1", '"a"', "{}", "[2]"]),
        ({"items": REPEATED}, ["[]", "[[1, 1]]", "3"], ["[[1]]", "[[1, 1], []]"]),
        ({"not": {"properties": {"a": {"uniqueItems": True}}}}, ['{"a": [1, 1]}'], ["{}", '{"a": 1}', '{"a": [1]}']),
        # Exactly one: unique, or of three strings.
        (
            {"type": "array", "oneOf": [{"uniqueItems": True}, {"items": {"type": "string"}, "minItems": 3}]},
            ["[]", "[1, 2]", '["a", "b", "a"]', '["a", "b", "a", "c"]'],
            ["[1, 1]", '["a", "b", "c"]', '["a", "b", "a", 1]', '["a", "a"]'],
        ),
        ({"if": {"uniqueItems": True}, "then": {"maxItems": 2}}, ["[1, 2]", "[1, 2, 1]", "[1, 1]"], ["[1, 2, 3]"]),
        ({"contains": REPEATED, "type": "array"}, ["[[1, 1]]", "[[1], [2, 2]]"], ["[]", "[[1, 2]]"]),
    ],
)
def test_items_that_must_not_all_differ(schema: Any, valid: list[str], invalid: list[str]) -> None:
    for text in valid:
        assert accepts(schema, text), text
    for text in invalid:
        assert not accepts(schema, text), text


def test_an_item_that_cannot_be_repeated_is_not_offered() -> None:
    places = {"prefixItems": [{"type": "integer"}, {"type": "integer", "maximum": 3}], "items": False}
    grammar = gr.Grammar.from_json_schema({**REPEATED, **places})
    assert grammar.accepts("[2, 2]")
    assert not grammar.accepts_prefix("[4,")
    assert not grammar.accepts_prefix("[2, 3")
    with pytest.raises(gr.UnsatisfiableError):
        never = {"prefixItems": [{"type": "string"}, {"type": "integer"}], "items": False}
        gr.Grammar.from_json_schema({**REPEATED, **never}).accepts_prefix("[")


def test_forbidden_strings_are_forbidden_in_every_spelling() -> None:
    schema = {"type": "string", "not": {"anyOf": [{"const": "a"}, {"pattern": "^b$"}, {"enum": ["c", "d"]}]}}
    grammar = gr.Grammar.from_json_schema(schema)
    for text in ('"a"', r'"\u0061"', r'"\u0062"', r'"\u0063"', r'"\u0064"'):
        assert not grammar.accepts(text), text
    assert grammar.accepts('"e"')


def test_a_long_array_of_objects() -> None:
    items = {"type": "object", "properties": {"id": {"type": "integer"}, "name": {"type": "string"}}}
    grammar = gr.Grammar.from_json_schema({**UNIQUE, "items": items, "minItems": 1000})
    rows = [{"id": i, "name": f"n{i % 7}"} for i in range(60)]
    assert grammar.accepts_prefix(json.dumps(rows)[:-1])
    assert not grammar.accepts_prefix(json.dumps([*rows, rows[30]])[:-1] + ",")


WALKED: list[Any] = [
    UNIQUE,
    {**UNIQUE, "items": {"type": "string"}},
    {**UNIQUE, "items": {"type": "string", "maxLength": 1}},
    {**UNIQUE, "items": {"type": "string", "pattern": "^[ab]{1,2}$"}},
    {**UNIQUE, "items": {"type": "integer", "minimum": 1, "maximum": 3}},
    {**UNIQUE, "items": {"type": ["string", "boolean", "null"]}, "minItems": 3},
    {**UNIQUE, "items": {"type": "integer"}, "contains": {"const": 5}},
    {**UNIQUE, "items": {"anyOf": [{"type": "string"}, {"enum": [1, 2]}]}, "minItems": 2, "maxItems": 4},
    {**UNIQUE, "prefixItems": [{"type": "boolean"}, {"type": "boolean"}], "items": {"type": "integer"}},
    {
        **UNIQUE,
        "items": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "boolean"}}},
    },
    {**UNIQUE, "items": {**UNIQUE, "items": {"type": "integer"}}, "minItems": 2},
    {"anyOf": [{**UNIQUE, "items": {"type": "integer"}}, {"type": "array", "items": {"type": "string"}}]},
    # Strings that are names in the scope of their array, beside other items, inside and outside of other arrays.
    {**UNIQUE, "items": {"type": ["string", "array"], "items": {"type": "string"}}},
    {"type": "array", "items": {**UNIQUE, "items": {"type": "string"}}, "minItems": 1},
    {**UNIQUE, "items": {**UNIQUE, "items": {"type": "string"}}, "minItems": 1},
    {"anyOf": [{**UNIQUE, "items": {"type": "string"}}, {"type": "array", "items": {"pattern": "^a"}, "maxItems": 4}]},
    {**UNIQUE, "prefixItems": [{"type": "integer"}], "items": {"type": ["string", "null", "integer"]}},
    {**UNIQUE, "items": {"type": "string", "not": {"enum": ["a", "b"]}}, "minItems": 2, "maxItems": 5},
    {
        **UNIQUE,
        "items": {"type": ["object", "string"], "additionalProperties": {**UNIQUE, "items": {"type": "string"}}},
    },
    {"$defs": {"n": {**UNIQUE, "items": {"$ref": "#/$defs/n"}}}, "$ref": "#/$defs/n"},
    {**REPEATED, "items": {"type": ["boolean", "string"], "maxLength": 1}},
    {**REPEATED, **INTEGERS, "maxItems": 3},
    {**REPEATED, "prefixItems": [{"type": "integer"}, {"type": "integer", "maximum": 3}], "items": False},
    {**REPEATED, "items": {"type": "array", **INTEGERS}, "maxItems": 3},
    {"type": "array", **INTEGERS, "oneOf": [{"uniqueItems": True}, {"minItems": 3}]},
    {"type": "array", **INTEGERS, "if": {"uniqueItems": True}, "then": {"maxItems": 2}},
]
# Whole items and more in one token; and so many tokens after a quote that rows of lexemes are taken.
PIECES = b'"," ","a" ", 1, 2,1 1] 3, ab a"] "a" true, "],[ ],[ ]] },{" {"a": "a": "} "b": 11 [[ null'.split(b" ")
PIECES += [bytes([x, y]) for x in b'abcdefghij"' for y in b'klmnopqrstuvwxyzab",']
FREQUENT = [bytes([b]) for b in b'1235ab",]}']
TOKENS = list(dict.fromkeys([*(bytes([b]) for b in range(256)), *PIECES]))


@pytest.mark.parametrize("number", range(len(WALKED)))
def test_masks_along_random_walks(number: int) -> None:
    schema, rng = WALKED[number], random.Random(SEED + number)
    eos = len(TOKENS)
    vocabulary = gr.Vocabulary([*TOKENS, b""], eos_token_ids=[eos])
    validator = jsonschema.Draft202012Validator(schema)
    finished = 0
    for walk in range(40):
        grammar = gr.Grammar.from_json_schema(schema, whitespace="compact")
        matcher = gr.compile(grammar, vocabulary).matcher()
        text = b""
        for step in range(24):
            bits = gr.allocate_token_bitmask(1, eos + 1)
            matcher.fill_next_token_bitmask(bits, 0)
            words = np.asarray(bits).view(np.uint8)[0]
            allowed = np.flatnonzero(np.unpackbits(words, bitorder="little")[: eos + 1]).tolist()
            assert allowed, f"dead end after {text!r} in {schema}"
            if walk < 8 and step % 4 == 0:
                expected = [i for i, token in enumerate(TOKENS) if grammar.accepts_prefix(text + token)]
                assert [i for i in allowed if i != eos] == expected, (schema, text)
            if eos in allowed and (allowed == [eos] or rng.random() < 0.3):
                assert validator.is_valid(json.loads(text)), (schema, text)
                finished += 1
                break
            plain = [i for i in allowed if i != eos and (TOKENS[i] in PIECES or TOKENS[i] in FREQUENT)]
            token = rng.choice(plain or [i for i in allowed if i != eos])
            assert matcher.accept_token(token)
            text += TOKENS[token]
    assert finished > 0


RULES: dict[str, Any] = {"properties": {"severity": {"enum": ["warning", "error"]}, "message": {"type": "string"}}}
FEW: dict[str, Any] = {"on": {"type": "boolean"}, "at": {"enum": [1, 2]}}
OBJECTS: list[tuple[dict[str, Any], bool]] = [
    ({"allOf": [RULES], "properties": {"ignore": {"type": "boolean"}}}, True),
    ({"allOf": [RULES, {"properties": FEW}], "propertyNames": {"maxLength": 7}, "required": ["on"]}, True),
    ({"properties": FEW, "patternProperties": {"^o": {"enum": [True, 1]}}, "additionalProperties": False}, False),
    ({"properties": FEW, "patternProperties": {"^x": {"type": "integer"}}, "additionalProperties": False}, True),
    ({"properties": FEW, "additionalProperties": {"type": "integer"}, "propertyNames": {"enum": ["on", "at"]}}, False),
    ({"properties": FEW, "required": ["on", "at"], "maxProperties": 3}, True),
    ({"properties": FEW, "required": ["on", "at"], "maxProperties": 2}, False),
    ({"properties": {**FEW, "on": {"type": "string"}}, "required": ["on", "at"], "maxProperties": 2}, True),
]


@pytest.mark.parametrize(("item", "boundless"), OBJECTS, ids=[str(i) for i in range(len(OBJECTS))])
def test_objects_with_one_member_of_boundlessly_many_values_cannot_run_out(item: Any, boundless: bool) -> None:
    """Otherwise a least number of items is refused, not guessed."""
    schema = {**UNIQUE, "minItems": 2, "items": {"anyOf": [{"enum": ["always", {}]}, {**item, "type": "object"}]}}
    if not boundless:
        with pytest.raises(gr.SchemaError, match="finitely many"):
            gr.Grammar.from_json_schema(schema)
        return
    grammar = gr.Grammar.from_json_schema(schema, property_order="free")
    judge = jsonschema.Draft202012Validator(schema)
    members = [("on", True), ("on", "a"), ("at", 2), ("message", "m"), ("x", 7), ("severity", "error"), ("other", 1)]
    rng = random.Random(SEED)
    values: list[Any] = ["always", {}, {"on": "a", "at": 1}, {"on": "b", "at": 1}, {"at": 1, "on": "b"}]
    values += [dict(rng.sample(members, rng.randint(1, 3))) for _ in range(20)]
    outcomes = set()
    for _ in range(200):
        array = [rng.choice(values) for _ in range(rng.randint(1, 3))]
        outcomes.add(judge.is_valid(array))
        assert grammar.accepts(json.dumps(array)) == judge.is_valid(array), array
    assert outcomes == {True, False}


@pytest.mark.parametrize(
    ("item", "items", "request_bytes"),
    [
        ({"type": "number"}, [i * 2 for i in range(40)], 2_000_000),
        ({"type": "array", "items": {"type": "integer"}}, [[i, i] for i in range(40)], 4_000_000),
        (
            {"type": "object", "properties": {"id": {"type": "integer"}, "name": {"type": "string"}}},
            [{"id": i, "name": f"n{i}"} for i in range(20)],
            4_000_000,
        ),
    ],
    ids=["numbers", "arrays", "objects"],
)
def test_a_limit_far_away_does_not_look_at_every_token(item: Any, items: list[Any], request_bytes: int) -> None:
    """What a token adds to an item's text matters only where the item ends; it made a state, and a plan, of each."""
    token_bytes = [*(bytes([b]) for b in range(256)), *dict.fromkeys(PIECES), b""]
    vocabulary = gr.Vocabulary.from_bytes(token_bytes, eos_token_ids=[len(token_bytes) - 1])
    limits = gr.Limits(request_bytes=request_bytes)
    compiled = gr.compile(gr.Grammar.from_json_schema({**UNIQUE, "items": item}), vocabulary, limits=limits)
    text = json.dumps(items).encode()
    matcher = compiled.matcher(max_tokens=4 * len(text))
    for byte in text:
        assert byte in laws.allowed(matcher, len(token_bytes))
        assert matcher.accept_token(byte)
    assert not matcher.closed_early


@pytest.mark.parametrize("far", ["1e5000", "25e-3000", "-7e+2000", "1e123456789012"])
def test_numbers_of_many_zeros_may_be_items(far: str) -> None:
    grammar = gr.Grammar.from_json_schema({**UNIQUE, "items": {"type": "number"}})
    assert grammar.accepts(f"[{far}, 1, 2]")
    if len(far) < 10:
        plain = f"{Decimal(far):f}"
        assert not grammar.accepts(f"[{far}, {plain}]")
        assert grammar.accepts(f"[{far}, {plain.replace('7', '8').replace('25', '26').replace('10', '11')}]")
        assert gr.Grammar.from_json_schema(f'{{"enum": [{far}]}}').accepts(plain)
