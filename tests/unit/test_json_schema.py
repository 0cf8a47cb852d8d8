"""JSON Schema end to end: what `Grammar.from_json_schema` accepts, refuses and reports.

The judge of values is the `jsonschema` library, which shares nothing with the engine; texts are json.dumps' and
variations of them.
"""

from __future__ import annotations

import itertools
import json
import random
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

import guiderail as gr
from oracles.random_schemas import VALIDATORS, decimals

from_json_schema = gr.Grammar.from_json_schema


def dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


# Schema, values that satisfy it, values that do not.
CASES: dict[str, tuple[Any, list[Any], list[Any]]] = {
    "anything": (True, [None, True, 1.5e-7, 'é\n"\\/', [], {}, [{"a": [[]]}]], []),
    "types": ({"type": ["string", "null"]}, ["", None], [1, True, [], {}]),
    "integer by value": ({"type": "integer"}, [0, -12, 3.0], [3.5, "3"]),
    "required": (
        {"properties": {"a": {"type": "string"}, "b": {}}, "required": ["b"], "additionalProperties": False},
        [{"b": 1}, {"a": "", "b": []}],
        [{}, {"a": "x"}, {"a": 1, "b": 1}, {"b": 1, "c": 1}],
    ),
    "required but not declared": ({"type": "object", "required": ["x"]}, [{"x": 1}, {"x": 1, "y": 2}], [{}, {"y": 1}]),
    "items": (
        {
            "type": "array",
            "prefixItems": [{"type": "string"}],
            "items": {"type": "number"},
            "minItems": 1,
            "maxItems": 3,
        },
        [["a"], ["a", 1], ["a", 1, 2.5]],
        [[], [1], ["a", "b"], ["a", 1, 2, 3]],
    ),
    "many items": ({"type": "array", "items": {"enum": [0]}, "minItems": 300}, [[0] * 300, [0] * 301], [[0] * 299]),
    "enum": ({"enum": ["a", 1, None, [1, {"k": 2}]]}, ["a", 1, 1.0, None, [1, {"k": 2}]], ["b", 2, [1], [1, {"k": 3}]]),
    "const object": ({"const": {"a": 1, "b": [2]}}, [{"a": 1, "b": [2]}], [{}, {"a": 1}, {"a": 1, "b": [2], "c": 3}]),
    "string length in characters": (
        {"type": "string", "minLength": 2, "maxLength": 3},
        ["𝄞é", "abc"],
        ["a", "abcd", ""],
    ),
    "pattern is searched": ({"type": "string", "pattern": "b+c"}, ["bc", "xbbcx"], ["b", "cb", ""]),
    "pattern that every string matches": (
        {"type": "string", "pattern": "^[a-z]*|x", "maxLength": 2},
        ["", "A", "é𝄞"],
        ["abc", 1],
    ),
    "pattern that looks as if every string matched": (
        {"type": "string", "pattern": "^[a-z]*(?:$|\\b)"},
        ["", "abc", "A d"],
        [" ", "-a"],
    ),
    "pattern properties that every name matches": (
        {
            "patternProperties": {"[a-z]*": {"type": "string"}, "^(?:b|)": {"minLength": 1}},
            "additionalProperties": False,
        },
        [{}, {"a": "x"}, {"B": "x"}],
        [{"a": 1}, {"B": ""}, {"": None}],
    ),
    "pattern and length": ({"type": "string", "pattern": "^[ab]*$", "maxLength": 2}, ["", "ab"], ["aba", "c"]),
    "bounds": ({"type": "number", "minimum": -1.5, "exclusiveMaximum": 10}, [-1.5, 0, 9.99], [-1.51, 10, 1e9]),
    "bounds of integers": (
        {"type": "integer", "minimum": 99, "maximum": 1001},
        [99, 100, 1000, 1001],
        [98, 1002, 0, -99],
    ),
    "multipleOf": ({"type": "number", "multipleOf": 0.25}, [0, 0.25, -7.5, 3], [0.1, 0.26]),
    "multipleOf 7": ({"type": "integer", "multipleOf": 7}, [0, 7, 7000, -49], [1, 8, -48]),
    "anyOf": (
        {
            "anyOf": [
                {"type": "string", "maxLength": 1},
                {"type": "integer"},
                {"properties": {"a": {"const": 1}}, "required": ["a"], "type": "object"},
            ]
        },
        ["x", 5, {"a": 1}],
        ["xx", {}, {"a": 2}, None],
    ),
    "multipleOf with many remainders": (
        {"type": "number", "multipleOf": 0.123456789},
        [0, -0.123456789, 123456789, 1.23456789],
        [0.12345678, 1e9, 0.1234567891, 123456788],
    ),
    "integers with many remainders": (
        {"type": "integer", "multipleOf": 0.123456789},
        [0, 123456789, -246913578],
        [10**308, 1, 0.123456789, 123456788],
    ),
    "multiples of several numbers": (
        {"allOf": [{"multipleOf": 0.75}, {"multipleOf": 65536}, {"type": "integer"}]},
        [0, 196608],
        [65536, 0.75, 3],
    ),
    "oneOf": ({"oneOf": [{"multipleOf": 2}, {"multipleOf": 3}], "type": "integer"}, [2, 3, 9], [6, 1, 12]),
    "allOf": (
        {
            "allOf": [{"properties": {"a": {"minimum": 3}}}, {"properties": {"a": {"maximum": 5}}, "required": ["a"]}],
            "type": "object",
        },
        [{"a": 4}, {"a": "x"}],
        [{"a": 2}, {"a": 6}, {}],
    ),
    "not": ({"not": {"type": "object", "properties": {"a": {"type": "string"}}}}, [1, "x", {"a": 1}], [{}, {"a": "x"}]),
    "if": (
        {
            "type": "object",
            "properties": {"k": {"enum": ["n", "s"]}, "v": {}},
            "required": ["k", "v"],
            "if": {"properties": {"k": {"const": "n"}}},
            "then": {"properties": {"v": {"type": "number"}}},
            "else": {"properties": {"v": {"type": "string"}}},
        },
        [{"k": "n", "v": 1}, {"k": "s", "v": "x"}],
        [{"k": "n", "v": "x"}, {"k": "s", "v": 1}, {"k": "n"}],
    ),
    "patternProperties": (
        {
            "type": "object",
            "patternProperties": {"^a": {"type": "integer"}, "b$": {"minimum": 5}},
            "additionalProperties": {"type": "null"},
        },
        [{"a": 1, "xb": "s", "ab": 6, "z": None}],
        [{"a": "s"}, {"ab": 4}, {"z": 1}],
    ),
    "propertyNames": (
        {"type": "object", "propertyNames": {"pattern": "^[a-z]+$", "maxLength": 2}},
        [{}, {"ab": 1}],
        [{"abc": 1}, {"A": 1}, {"": 1}],
    ),
    "propertyNames enum": (
        {"type": "object", "propertyNames": {"enum": ["x", "y"]}, "minProperties": 2},
        [{"x": 1, "y": 2}],
        [{"x": 1}, {}, {"x": 1, "z": 2}],
    ),
    "counts of properties": (
        {"type": "object", "minProperties": 1, "maxProperties": 2},
        [{"a": 1}, {"a": 1, "b": 2}],
        [{}, {"a": 1, "b": 2, "c": 3}],
    ),
    "dependentRequired": (
        {"type": "object", "dependentRequired": {"a": ["b"]}},
        [{}, {"b": 1}, {"a": 1, "b": 2}],
        [{"a": 1}],
    ),
    "dependentSchemas": (
        {
            "type": "object",
            "properties": {"a": {}, "b": {}},
            "dependentSchemas": {"a": {"properties": {"b": {"type": "string"}}}},
        },
        [{"b": 1}, {"a": 1, "b": "x"}, {"a": 1}],
        [{"a": 1, "b": 1}],
    ),
    "contains": (
        {"type": "array", "contains": {"type": "integer"}, "minContains": 2, "maxContains": 3},
        [[1, 2], ["x", 1, 2, 3]],
        [[1], ["x"], [1, 2, 3, 4]],
    ),
    "uniqueItems": (
        {"type": "array", "items": {"enum": ["a", "b", 1, True, None]}, "uniqueItems": True, "minItems": 2},
        [["a", "b"], [True, 1, None, "b", "a"]],
        [["a", "a"], [1, 1.0], ["a"], [None, 1, None]],
    ),
    "uniqueItems and its matching problem": (
        {
            "type": "array",
            "prefixItems": [{"enum": [1, 2]}, {"enum": [1]}],
            "items": False,
            "minItems": 2,
            "uniqueItems": True,
        },
        [[2, 1]],
        [[1, 1], [1, 2], [1]],
    ),
    "unevaluatedProperties": (
        {
            "type": "object",
            "anyOf": [
                {"properties": {"a": {"type": "integer"}}, "required": ["a"]},
                {"properties": {"b": {"type": "integer"}}, "required": ["b"]},
            ],
            "unevaluatedProperties": False,
        },
        [{"a": 1}, {"b": 1}, {"a": 1, "b": 2}],
        [{"a": 1, "b": "x"}, {"c": 1, "a": 1}, {}],
    ),
    "unevaluatedItems": (
        {"type": "array", "prefixItems": [True], "contains": {"type": "string"}, "unevaluatedItems": {"type": "null"}},
        [[1, "x"], ["x", None], [1, None, "x"]],
        [[1, 2, "x"], [1]],
    ),
    "recursion": (
        {
            "$ref": "#/$defs/tree",
            "$defs": {
                "tree": {
                    "type": "object",
                    "properties": {
                        "v": {"type": "integer"},
                        "kids": {"type": "array", "items": {"$ref": "#/$defs/tree"}},
                    },
                    "required": ["v"],
                    "additionalProperties": False,
                }
            },
        },
        [{"v": 1}, {"v": 1, "kids": [{"v": 2, "kids": []}]}],
        [{}, {"v": 1, "kids": [{}]}, {"v": 1, "kids": [{"v": "x"}]}],
    ),
    "dynamicRef": (
        {
            "$id": "https://example.org/strict",
            "$ref": "tree",
            "$dynamicAnchor": "node",
            "unevaluatedProperties": False,
            "$defs": {
                "tree": {
                    "$id": "tree",
                    "$dynamicAnchor": "node",
                    "type": "object",
                    "properties": {"kids": {"type": "array", "items": {"$dynamicRef": "#node"}}},
                }
            },
        },
        [{"kids": [{"kids": []}]}],
        [{"kids": [{"other": 1}]}, {"other": 1}],
    ),
    "items beside an unreachable branch": (
        {"oneOf": [{"type": "array", "items": False}, {"const": [1]}]},
        [[], [1]],
        [[2], [1, 1]],
    ),
    "date": (
        {"type": "string", "format": "date"},
        ["2024-02-29", "1999-12-31"],
        ["2023-02-29", "1999-13-01", "1999-1-1"],
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("order", ["declared", "free"])
def test_values(name: str, order: str) -> None:
    schema, good, bad = CASES[name]
    grammar = from_json_schema(schema, property_order=order)
    for value in good:
        assert grammar.accepts(dumps(value)), value
        assert grammar.accepts(json.dumps(value, indent=3)), value
    for value in bad:
        assert not grammar.accepts(dumps(value)), value


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("date",)])
def test_cases_are_what_jsonschema_says(name: str) -> None:
    schema, good, bad = CASES[name]
    validator = jsonschema.Draft202012Validator(schema)
    assert all(validator.is_valid(value) for value in good)
    assert not any(validator.is_valid(value) for value in bad)


@pytest.mark.parametrize("name", CASES)
def test_every_prefix_of_a_text_can_be_completed(name: str) -> None:
    schema, good, _ = CASES[name]
    grammar = from_json_schema(schema)
    for value in good:
        text = dumps(value).encode()
        if len(text) < 200:
            assert all(grammar.accepts_prefix(text[:i]) for i in range(len(text) + 1))


# --- no dead ends -------------------------------------------------------------------------------------------


def random_text(grammar: gr.Grammar, rng: random.Random, alphabet: bytes, limit: int = 60) -> bytes | None:
    """A random walk over bytes that the grammar allows. None if it did not finish; fails at a dead end."""
    text = b""
    for _ in range(limit):
        nexts = [text + bytes([byte]) for byte in alphabet if grammar.accepts_prefix(text + bytes([byte]))]
        if grammar.accepts(text) and (not nexts or rng.random() < 0.5):
            return text
        if not nexts:
            # A live prefix over this alphabet may only go on with other bytes; then nothing is shown.
            assert any(grammar.accepts_prefix(text + bytes([byte])) for byte in range(256)), text
            return None
        text = rng.choice(nexts)
    return None


@pytest.mark.parametrize("name", CASES)
def test_walks_end_in_valid_values(name: str) -> None:
    schema = CASES[name][0]
    rng = random.Random(name)
    grammar = from_json_schema(schema, whitespace="compact")
    # Decimal arithmetic: 2.222222202 / 0.123456789 is 18.
    validator = VALIDATORS["2020-12"](decimals(dumps(schema)), format_checker=jsonschema.FormatChecker())
    for _ in range(12):
        text = random_text(grammar, rng, b'{}[],:"abkvxs0123.-nulltrefalsid')
        if text is not None:
            assert validator.is_valid(decimals(text.decode())), text


# --- against jsonschema, on random schemas ------------------------------------------------------------------

VALUES: list[Any] = [
    None, True, 0, 1, 2, -1, 2.5, "", "a", "ab", "b", [], [1], [1, 1], ["a", 1], [[], None], {}, {"a": 1}, {"b": "a"},
    {"a": 1, "b": 2}, {"a": "b", "c": []}, {"a": {"a": 1}}, {"c": None},
]  # fmt: skip

leaves = st.one_of(
    st.booleans(),
    st.sampled_from([{"type": t} for t in ("null", "boolean", "integer", "number", "string", "array", "object")]),
    st.sampled_from(VALUES).map(lambda value: {"const": value}),
    st.sampled_from([{"minimum": 1}, {"exclusiveMaximum": 2}, {"multipleOf": 2}, {"multipleOf": 0.5}, {"minLength": 1},
                     {"maxLength": 1}, {"pattern": "^a"}, {"pattern": "b"}, {"minItems": 1}, {"maxItems": 1},
                     {"minProperties": 1}, {"maxProperties": 1}, {"required": ["a"]}, {"required": ["b", "c"]},
                     {"dependentRequired": {"a": ["b"]}}]),
)  # fmt: skip


def compound(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    some = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        some.map(lambda s: {"anyOf": s}),
        some.map(lambda s: {"oneOf": s}),
        some.map(lambda s: {"allOf": s}),
        inner.map(lambda s: {"not": s}),
        st.tuples(inner, inner, inner).map(lambda s: {"if": s[0], "then": s[1], "else": s[2]}),
        inner.map(lambda s: {"items": s}),
        st.tuples(inner, inner).map(lambda s: {"prefixItems": [s[0]], "items": s[1]}),
        st.tuples(inner, st.integers(0, 2)).map(lambda s: {"contains": s[0], "minContains": s[1]}),
        inner.map(lambda s: {"contains": s, "maxContains": 1}),
        st.tuples(inner, inner).map(lambda s: {"properties": {"a": s[0]}, "additionalProperties": s[1]}),
        st.tuples(inner, inner).map(lambda s: {"patternProperties": {"a": s[0], "^b": s[1]}}),
        inner.map(lambda s: {"propertyNames": s}),
        inner.map(lambda s: {"dependentSchemas": {"a": s}}),
        st.tuples(inner, inner).map(
            lambda s: {"anyOf": [s[0], {"properties": {"a": True}}], "unevaluatedProperties": s[1]}
        ),
        st.tuples(inner, inner).map(lambda s: {"anyOf": [s[0], {"prefixItems": [True]}], "unevaluatedItems": s[1]}),
        st.tuples(inner, inner).map(
            lambda s: {**(s[0] if isinstance(s[0], dict) else {}), **(s[1] if isinstance(s[1], dict) else {})}
        ),
    )


@given(st.recursive(leaves, compound, max_leaves=8))
def test_random_schemas_agree_with_jsonschema(schema: Any) -> None:
    validator = jsonschema.Draft202012Validator(schema)
    try:
        grammar = from_json_schema(schema, property_order="free")
        grammar.accepts_prefix("")
    except gr.UnsatisfiableError:
        assert not any(validator.is_valid(value) for value in VALUES)
        return
    for value in VALUES:
        assert grammar.accepts(dumps(value)) == validator.is_valid(value), (schema, value)


# --- serialisation ------------------------------------------------------------------------------------------

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "tags": {"type": "array", "items": {"type": "integer"}}},
    "required": ["name"],
}


def test_whitespace_flexible_is_bounded() -> None:
    grammar = from_json_schema(PERSON)
    assert grammar.accepts(' {\t"name" :\n"x" , "tags": [ 1 , 2 ] }')
    assert not grammar.accepts_prefix("{" + " " * 41)
    assert not grammar.accepts('{"name": "x"} ')


def test_whitespace_compact() -> None:
    grammar = from_json_schema(PERSON, whitespace="compact")
    assert grammar.accepts('{"name":"x","tags":[1,2]}')
    for text in ('{"name": "x"}', '{ "name":"x"}', '{"name":"x","tags":[1, 2]}', ' {"name":"x"}'):
        assert not grammar.accepts(text)


@pytest.mark.parametrize("indent", [0, 1, 2, 4])
def test_whitespace_indent_is_exactly_json_dumps(indent: int) -> None:
    grammar = from_json_schema(True, whitespace=f"indent={indent}")
    for value in ({}, [], {"a": {}, "b": [1, [2, {"c": []}]]}, "x", [[[]]]):
        assert grammar.accepts(json.dumps(value, indent=indent))
    for value in ({"a": 1}, [1]):
        assert not grammar.accepts(json.dumps(value))
        assert not grammar.accepts(json.dumps(value, indent=indent + 1))


def test_whitespace_pattern() -> None:
    grammar = from_json_schema(PERSON, whitespace=" ?")
    assert grammar.accepts('{ "name": "x" , "tags" :[ 1 ]}')
    assert not grammar.accepts('{  "name": "x"}')
    with pytest.raises(gr.GrammarError):
        from_json_schema(True, whitespace="[ab]")


def test_declared_order() -> None:
    schema = {"properties": {"z": {}, "a": {}, "m": {}}, "required": ["m"], "type": "object"}
    declared, free = from_json_schema(schema), from_json_schema(schema, property_order="free")
    for keys in itertools.permutations(["z", "a", "m", "other"]):
        text = dumps(dict.fromkeys(keys, 1))
        assert free.accepts(text)
        assert declared.accepts(text) == (keys == ("z", "a", "m", "other"))


def test_order_is_that_of_the_document_over_applicators() -> None:
    schema = {
        "allOf": [{"properties": {"b": {}}}],
        "properties": {"a": {}},
        "anyOf": [{"properties": {"c": {}}}],
        "type": "object",
    }
    grammar = from_json_schema(schema)
    assert grammar.accepts('{"b": 1, "a": 1, "c": 1}')
    assert not grammar.accepts('{"a": 1, "b": 1}')


@pytest.mark.parametrize("order", ["declared", "free"])
def test_no_declared_key_twice_in_any_spelling(order: str) -> None:
    grammar = from_json_schema({"properties": {"é": {}, "b": {}}, "type": "object"}, property_order=order)
    assert grammar.accepts('{"é": 1, "b": 2}')
    assert grammar.accepts('{"\\u00e9": 1, "b": 2}')
    for text in ('{"é": 1, "é": 2}', '{"é": 1, "\\u00e9": 2}', '{"b": 1, "\\u0062": 2}', '{"b": 1, "x": 1, "b": 1}'):
        assert not grammar.accepts(text)


def test_strict() -> None:
    schema = {"type": "object", "properties": {"a": {}, "free": {"type": "object"}}}
    grammar = from_json_schema(schema, strict=True)
    assert grammar.accepts('{"a": 1, "free": {"x": 1}}')
    assert not grammar.accepts('{"a": 1, "b": 2}')
    spoken = from_json_schema({**schema, "additionalProperties": {"type": "string"}}, strict=True)
    assert spoken.accepts('{"a": 1, "b": "x"}')
    assert not spoken.accepts('{"a": 1, "b": 2}')


def test_strings_in_every_spelling() -> None:
    grammar = from_json_schema({"type": "string", "maxLength": 1})
    for text in ('"a"', '"\\u0061"', '"\\n"', '"\\/"', '"/"', '"𝄞"', '"\\ud834\\udd1e"', '"\\uD834\\uDD1E"'):
        assert grammar.accepts(text), text
    for text in ('"\\ud834"', '"\n"', '"\\x"', '"ab"', '"\\u006"', "'a'"):
        assert not grammar.accepts(text), text


def test_numbers_under_bounds_keep_scientific_notation() -> None:
    grammar = from_json_schema({"type": "number", "minimum": 1e-7, "maximum": 2e16})
    for text in ("1e-07", "1.5e-7", "2e+16", "0.5", "12", "1E5"):
        assert grammar.accepts(text), text
    for text in ("9e-8", "0e5", "2.1e16", "1e17", "-1e3", "0"):
        assert not grammar.accepts(text), text


# --- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "pointer"),
    [
        ({"properties": {"a": {"type": "text"}}}, "/properties/a/type"),
        ({"items": {"minLength": -1}}, "/items/minLength"),
        ({"properties": {"x/y": {"pattern": "("}}}, "/properties/x~1y/pattern"),
        ({"$ref": "#/nowhere"}, "/$ref"),
        ({"$ref": "https://example.org/absent"}, "/$ref"),
        ({"allOf": []}, "/allOf"),
        ({"properties": {"a": 3}}, "/properties/a"),
    ],
)
def test_refused_with_its_place(schema: Any, pointer: str) -> None:
    with pytest.raises(gr.SchemaError) as caught:
        from_json_schema(schema)
    assert caught.value.pointer == pointer


@pytest.mark.parametrize(
    "schema",
    [
        False,
        {"type": "string", "minLength": 3, "maxLength": 2},
        {"allOf": [{"type": "string"}, {"type": "number"}]},
        {"type": "object", "properties": {"a": False}, "required": ["a"]},
        {"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 2},
        {"type": "string", "pattern": "^a", "not": {"pattern": "a"}},
        {
            "$ref": "#/$defs/a",
            "$defs": {"a": {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, "required": ["a"]}},
        },
        {"type": "array", "items": {"enum": [1, 2]}, "uniqueItems": True, "minItems": 3},
        {"type": "object", "propertyNames": {"enum": ["a"]}, "minProperties": 2},
        {"enum": []},
    ],
)
def test_unsatisfiable(schema: Any) -> None:
    with pytest.raises(gr.UnsatisfiableError):
        from_json_schema(schema).accepts("")


def test_unsatisfiable_names_the_place() -> None:
    schema = {
        "properties": {
            "a": {
                "properties": {"b": {"minimum": 2, "maximum": 1, "type": "number"}},
                "required": ["b"],
                "type": "object",
            }
        },
        "required": ["a"],
        "type": "object",
    }
    with pytest.raises(gr.UnsatisfiableError) as caught:
        from_json_schema(schema).accepts("")
    assert caught.value.pointer == "/properties/a/properties/b"


def test_warn_lists_what_it_leaves_out() -> None:
    grammar = from_json_schema({"pattern": "(?<x>a)\\k<x>", "maxLength": 2}, on_unsupported="warn")
    assert ("/pattern", "refused") in [(row.place, row.status) for row in grammar.report]
    assert grammar.accepts('"zz"')
    assert not grammar.accepts('"zzz"')


def test_report() -> None:
    schema = {
        "title": "t",
        "properties": {"a": {"type": "string", "format": "color", "x-note": 1}, "d": {"format": "date"}},
    }
    rows = {row.place: row.status for row in from_json_schema(schema).report}
    assert rows["/properties"] == rows["/properties/a/type"] == rows["/properties/d/format"] == "enforced"
    assert rows["/title"] == rows["/properties/a/format"] == rows["/properties/a/x-note"] == "annotation"
    assert from_json_schema(schema, formats=False).accepts('{"d": "never"}')
    assert not from_json_schema(schema).accepts('{"d": "never"}')


def test_registry_and_meta_schemas() -> None:
    grammar = from_json_schema(
        {"$ref": "https://example.org/point#/$defs/coordinate"},
        registry={"https://example.org/point": {"$defs": {"coordinate": {"type": "number"}}}},
    )
    assert grammar.accepts("1.5")
    assert not grammar.accepts('"x"')
    meta = from_json_schema({"$ref": "https://json-schema.org/draft/2020-12/meta/core"})
    assert meta.accepts('{"$id": "https://example.org/a"}')
    assert not meta.accepts('{"$defs": 1}')


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"property_order": "random"}, ValueError),
        ({"on_unsupported": "ignore"}, ValueError),
        ({"whitespace": 1}, TypeError),
    ],
)
def test_wrong_options(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        from_json_schema(True, **options)


@pytest.mark.parametrize("text", ["", "{", '{"a": 1,}', "[1", "nul", '"\\ud800"', "01", '{"a": NaN}', "\ufeff{}"])
def test_text_that_is_not_json(text: str) -> None:
    with pytest.raises(gr.SchemaError):
        from_json_schema(text)


def test_deep_and_large_schemas() -> None:
    deep: Any = True
    for _ in range(5000):
        deep = {"items": deep}
    with pytest.raises(gr.LimitError):
        from_json_schema(deep)
    chain = {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(3000)} | {"d3000": {"type": "null"}}
    with pytest.raises(gr.LimitError):
        from_json_schema({"$ref": "#/$defs/d0", "$defs": chain}).accepts("null")
    loop = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}
    with pytest.raises(gr.SchemaError):
        from_json_schema(loop).accepts("null")
    big = from_json_schema({"enum": [f"value {i}" for i in range(10000)]})
    assert big.accepts('"value 9999"')
    assert not big.accepts('"value 10000"')


def test_sixty_optional_properties_in_free_order() -> None:
    schema = {
        "type": "object",
        "properties": {f"p{i}": {"type": "integer"} for i in range(60)},
        "additionalProperties": False,
    }
    grammar = from_json_schema(schema, property_order="free")
    keys = [f"p{i}" for i in range(60)]
    random.Random(1).shuffle(keys)
    assert grammar.accepts(dumps(dict.fromkeys(keys, 1)))
    assert not grammar.accepts(dumps(dict.fromkeys(keys, 1))[:-1] + ', "p3": 1}')


# --- built-in json --------------------------------------------------------------------


def test_builtin_json_is_rfc_8259() -> None:
    grammar = gr.Grammar.builtin("json")
    for text in (
        "null",
        " [ ] ",
        '{"":1}',
        '"\\ud800"',
        "-0.0e+00",
        "\n1\r\t",
        '{"a":{"b":[1,2,{"c":null}]}}',
        " " * 200 + "1",
    ):
        assert grammar.accepts(text), text
    for text in (
        "",
        "01",
        "+1",
        ".5",
        "1.",
        "1.e5",
        '"\n"',
        '"\\q"',
        '"\\u00"',
        "\x0c1",
        "[1,]",
        "{,}",
        "{'a':1}",
        "nul",
        "1 2",
    ):
        assert not grammar.accepts(text), text


def test_international_hostnames_are_valid_by_idna() -> None:
    """What `idn-hostname` accepts, the package idna encodes: contexts, direction and the length of A-labels."""
    idna = pytest.importorskip("idna")
    grammar = gr.Grammar.from_json_schema('{"type": "string", "format": "idn-hostname"}', formats=True)
    names = [
        "münchen.de",
        "l·l",
        "α͵β",
        "א׳ב",
        "・か",
        "ب٠ب",
        "क्\u200dष",
        "می\u200cخواهم",
        "실례。테스트",
        "c" * 36 + "가あ",
    ]
    for name in names:
        assert grammar.accepts(json.dumps(name)), name
        assert grammar.accepts(json.dumps(name, ensure_ascii=False)), name
        assert idna.encode(name)
    for name in ["l·a", "α͵", "a׳", "・", "ب٠۰", "क\u200dष", "ü-", "ab--ü", "Ü", "ب1.1a", "é" * 12, "xn--é"]:
        assert not grammar.accepts(json.dumps(name)), name
    source = random.Random(5891)
    taken = 0
    for alphabet, longest in (
        ("aal-1lß·βα͵א׳״بي۰٠\u200c\u200d\u094dकの・か漢가..。あE", 6),
        ("ß힣鿿あ一א۾", 48),
        ("ß힣" + "a" * 12, 48),
    ):
        for _ in range(4000):
            name = "".join(source.choices(alphabet, k=source.randint(1, longest)))
            if longest == 48 and source.random() < 0.7:
                name = ".".join(name[i : i + 11] for i in range(0, len(name), 12))
            if grammar.accepts(json.dumps(name)):
                taken += 1
                idna.encode(name.lower() if name.isascii() else name)
    assert taken > 1000


@pytest.mark.parametrize(
    ("schema", "valid", "invalid"),
    [
        ({"allOf": [{"pattern": ":"}, {"format": "hostname"}]}, ["1"], ['"a:b"', '"a"']),
        ({"allOf": [{"pattern": "/a"}, {"format": "hostname"}], "minLength": 2}, ["{}"], ['"a/a"', '"aa"']),
        (
            {"format": "hostname", "anyOf": [{"maxLength": 1}, {"pattern": "(a|b)$"}], "pattern": "^..?1$"},
            ["null"],
            ['"a1"', '"1"'],
        ),
        ({"format": "hostname", "pattern": "(a|b)$", "maxLength": 3}, ['"x.b"', '"a"'], ['"x.c"', '"xx.a"', '"-a"']),
        ({"format": "hostname", "pattern": "^[a-c.]{200,}$"}, [f'"{"abc." * 60}abc"'], [f'"{"abc." * 64}a"']),
    ],
)
def test_host_names_beside_patterns_are_decided_without_their_lengths(
    schema: Any, valid: list[str], invalid: list[str]
) -> None:
    """The states of a host name with its lengths, times those of a pattern that no host name matches, met a limit."""
    grammar = gr.Grammar.from_json_schema(schema)
    assert all(map(grammar.accepts, valid))
    assert not any(map(grammar.accepts, invalid))
    if valid[0][0] != '"':
        with pytest.raises(gr.UnsatisfiableError):
            gr.Grammar.from_json_schema({**schema, "type": "string"})
