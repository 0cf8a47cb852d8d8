"""What other engines do with each JSON Schema keyword, measured: writes src/guiderail/lint_table.json.

    PYTHONPATH=src python tools/probe_engines.py

Each probe is a tiny schema with instances whose validity jsonschema decides. Each installed engine compiles the schema
and is asked whether it accepts each instance, as bytes. As engines may fix the order of keys and the white space, an
instance counts as accepted if one of its serialisations is (every order of the keys; compact and spaced). Each schema
with a `type` is probed without it as well: some engines look at a keyword only beside its `type`.
"""

from __future__ import annotations

import datetime
import itertools
import json
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker

TABLE = Path(__file__).parent.parent / "src" / "guiderail" / "lint_table.json"

INTEGER, STRING = {"type": "integer"}, {"type": "string"}
OBJECT, ARRAY, NUMBER = {"type": "object"}, {"type": "array"}, {"type": "number"}
OPEN = {"type": "object", "additionalProperties": INTEGER}
LIST = {"type": "array", "items": INTEGER}

# keyword (formats: "format: name") -> probes: (schema, instances, valid and invalid ones)
PROBES: dict[str, list[tuple[Any, list[Any]]]] = {
    "type": [(INTEGER, [1, "a"]), ({"type": ["string", "null"]}, ["a", None, 1])],
    "enum": [({"enum": ["a", 1]}, ["a", 1, "b"]), ({"enum": [{"a": 1}, [1]]}, [{"a": 1}, [1], {"a": 2}, [2]])],
    "const": [({"const": "a"}, ["a", "b"]), ({"const": {"a": [1]}}, [{"a": [1]}, {"a": [2]}])],
    "properties": [({**OBJECT, "properties": {"a": INTEGER}, "required": ["a"]}, [{"a": 1}, {"a": "x"}])],
    "required": [
        (
            {**OBJECT, "properties": {"a": INTEGER, "b": INTEGER}, "required": ["b"]},
            [{"b": 1}, {"a": 1, "b": 1}, {"a": 1}],
        ),
        ({**OPEN, "required": ["a"]}, [{"a": 1}, {"b": 1}, {}]),
    ],
    "additionalProperties": [
        ({**OBJECT, "properties": {"a": INTEGER}, "additionalProperties": False}, [{"a": 1}, {"a": 1, "b": 2}]),
        (OPEN, [{"b": 1}, {"b": "x"}]),
        ({**OBJECT, "properties": {"a": STRING}, "additionalProperties": INTEGER}, [{"a": "x", "b": 1}, {"b": "x"}]),
    ],
    "additionalProperties (absent)": [
        ({**OBJECT, "properties": {"a": INTEGER}}, [{"a": 1}, {"a": 1, "b": 2}, {"a": "x"}])
    ],
    "patternProperties": [
        (
            {**OBJECT, "patternProperties": {"^a": INTEGER}, "additionalProperties": False},
            [{"ab": 1}, {"ab": "x"}, {"b": 1}],
        ),
        (
            {**OBJECT, "properties": {"ab": {}}, "patternProperties": {"^a": INTEGER}},
            [{"ab": 1}, {"ab": "x"}, {"ac": "x"}],
        ),
    ],
    "propertyNames": [({**OPEN, "propertyNames": {"pattern": "^a"}}, [{"ab": 1}, {"b": 1}])],
    "minProperties": [
        ({**OPEN, "minProperties": 2}, [{"a": 1, "b": 2}, {"a": 1}, {}]),
        (
            {**OBJECT, "properties": {"a": INTEGER, "b": INTEGER}, "additionalProperties": False, "minProperties": 1},
            [{"b": 1}, {}],
        ),
    ],
    "maxProperties": [
        ({**OPEN, "maxProperties": 1}, [{}, {"a": 1}, {"a": 1, "b": 2}]),
        (
            {**OBJECT, "properties": {"a": INTEGER, "b": INTEGER}, "additionalProperties": False, "maxProperties": 1},
            [{"b": 1}, {"a": 1, "b": 1}],
        ),
    ],
    "dependentRequired": [
        (
            {**OBJECT, "properties": {"a": INTEGER, "b": INTEGER}, "dependentRequired": {"a": ["b"]}},
            [{}, {"b": 1}, {"a": 1, "b": 1}, {"a": 1}],
        ),
    ],
    "dependentSchemas": [
        (
            {**OBJECT, "properties": {"a": INTEGER, "b": INTEGER}, "dependentSchemas": {"a": {"required": ["b"]}}},
            [{}, {"b": 1}, {"a": 1, "b": 1}, {"a": 1}],
        ),
    ],
    "unevaluatedProperties": [
        ({**OBJECT, "properties": {"a": INTEGER}, "unevaluatedProperties": False}, [{"a": 1}, {"a": 1, "b": 1}]),
        (
            {
                **OBJECT,
                "allOf": [{"properties": {"a": INTEGER}}],
                "properties": {"b": INTEGER},
                "unevaluatedProperties": False,
            },
            [{"b": 1}, {"a": 1, "b": 1}, {"c": 1}],
        ),
    ],
    "items": [(LIST, [[], [1], ["x"], [1, "x"]])],
    "prefixItems": [
        ({**ARRAY, "prefixItems": [INTEGER, STRING], "items": False, "minItems": 2}, [[1, "x"], ["x", 1], [1, "x", 2]]),
        ({**ARRAY, "prefixItems": [INTEGER], "items": STRING}, [[1], [1, "x"], [], ["x"], [1, 1]]),
    ],
    "minItems": [({**LIST, "minItems": 2}, [[1, 2], [1], []])],
    "maxItems": [({**LIST, "maxItems": 1}, [[], [1], [1, 2]])],
    "uniqueItems": [({**LIST, "uniqueItems": True}, [[], [1, 2], [1, 1]])],
    "contains": [({**ARRAY, "items": {"enum": [1, 2]}, "contains": {"const": 1}}, [[1], [2, 1], [2], []])],
    "minContains": [
        ({**ARRAY, "items": {"enum": [1, 2]}, "contains": {"const": 1}, "minContains": 2}, [[1, 1], [1, 2, 1], [1, 2]])
    ],
    "maxContains": [
        ({**ARRAY, "items": {"enum": [1, 2]}, "contains": {"const": 1}, "maxContains": 1}, [[1], [1, 2], [1, 1]])
    ],
    "unevaluatedItems": [
        ({**ARRAY, "prefixItems": [INTEGER], "unevaluatedItems": False}, [[1], [1, 2]]),
        ({**ARRAY, "allOf": [{"prefixItems": [INTEGER]}], "unevaluatedItems": False}, [[1], [1, 2]]),
    ],
    "minLength": [({**STRING, "minLength": 2}, ["ab", "\u00e9\u00e9", "a", ""])],
    "maxLength": [({**STRING, "maxLength": 1}, ["", "a", "\u00e9", "ab"])],
    "pattern": [
        ({**STRING, "pattern": "^a[0-9]+$"}, ["a1", "a", "b1", "a1b"]),
        ({**STRING, "pattern": "b"}, ["abc", "b", "ac"]),
        ({**STRING, "pattern": "^(?=.*b)a.*$"}, ["ab", "ac"]),
        ({**STRING, "pattern": "^[a-z]+$", "maxLength": 2}, ["ab", "abc", "1"]),
    ],
    "minimum": [({**INTEGER, "minimum": 3}, [3, 20, 2, -4]), ({**NUMBER, "minimum": 0.5}, [0.5, 1, 0.25, -1])],
    "maximum": [({**INTEGER, "maximum": 3}, [3, -20, 4, 30]), ({**NUMBER, "maximum": 0.5}, [0.5, -1, 0.75, 1])],
    "exclusiveMinimum": [
        ({**INTEGER, "exclusiveMinimum": 3}, [4, 3, 2]),
        ({**NUMBER, "exclusiveMinimum": 0.5}, [0.75, 0.5, 0]),
    ],
    "exclusiveMaximum": [
        ({**INTEGER, "exclusiveMaximum": 3}, [2, 3, 4]),
        ({**NUMBER, "exclusiveMaximum": 0.5}, [0.25, 0.5, 1]),
    ],
    "multipleOf": [({**INTEGER, "multipleOf": 3}, [0, 3, 12, 4]), ({**NUMBER, "multipleOf": 0.25}, [0.5, 1, 0.3])],
    "allOf": [
        ({"allOf": [{**INTEGER, "minimum": 3}, {**INTEGER, "maximum": 5}]}, [3, 5, 2, 6]),
        (
            {
                **OBJECT,
                "allOf": [
                    {"properties": {"a": INTEGER}, "required": ["a"]},
                    {"properties": {"b": INTEGER}, "required": ["b"]},
                ],
            },
            [{"a": 1, "b": 1}, {"a": 1}, {"b": 1}],
        ),
    ],
    "anyOf": [
        ({"anyOf": [INTEGER, STRING]}, [1, "a", None]),
        ({**STRING, "anyOf": [{"maxLength": 1}, {"pattern": "^ab+$"}]}, ["a", "abb", "ac"]),
    ],
    "oneOf": [
        ({"oneOf": [INTEGER, STRING]}, [1, "a", None]),
        ({"oneOf": [{**INTEGER, "minimum": 3}, {**INTEGER, "maximum": 5}]}, [2, 6, 4]),
    ],
    "not": [
        ({"not": INTEGER}, ["a", None, 1]),
        ({**STRING, "not": {"enum": ["a"]}}, ["b", "ab", "a"]),
    ],
    "if": [
        (
            {
                **OBJECT,
                "properties": {"a": {"enum": [1, 2]}, "b": INTEGER},
                "required": ["a"],
                "if": {"properties": {"a": {"const": 1}}},
                "then": {"required": ["b"]},
            },
            [{"a": 1, "b": 1}, {"a": 2}, {"a": 1}],
        ),
        ({"if": STRING, "then": {"maxLength": 1}, "else": INTEGER}, ["a", 1, "ab", None]),
    ],
    "$ref": [
        ({"$ref": "#/$defs/a", "$defs": {"a": INTEGER}}, [1, "a"]),
        ({"$ref": "#/$defs/a", "minimum": 3, "$defs": {"a": INTEGER}}, [3, 2, "a"]),
        (
            {**OBJECT, "properties": {"a": {"$ref": "#"}}, "additionalProperties": False},
            [{}, {"a": {"a": {}}}, {"a": {"b": 1}}, {"a": 1}],
        ),
    ],
    "$dynamicRef": [
        ({**OBJECT, "$dynamicAnchor": "n", "additionalProperties": {"$dynamicRef": "#n"}}, [{}, {"a": {}}, {"a": 1}])
    ],
    "format: date": [({**STRING, "format": "date"}, ["2024-02-29", "2023-02-29", "2024-13-01", "x"])],
    "format: date-time": [
        (
            {**STRING, "format": "date-time"},
            ["2024-02-29T10:00:00Z", "2023-02-29T10:00:00Z", "2024-01-01T25:00:00Z", "x"],
        )
    ],
    "format: time": [({**STRING, "format": "time"}, ["10:00:00Z", "25:00:00Z", "10:00:00", "x"])],
    "format: duration": [({**STRING, "format": "duration"}, ["P1D", "PT1H", "P", "x"])],
    "format: email": [({**STRING, "format": "email"}, ["a@b.org", "a.org"])],
    "format: hostname": [({**STRING, "format": "hostname"}, ["a.org", "-a.org", "a b"])],
    "format: ipv4": [({**STRING, "format": "ipv4"}, ["1.2.3.4", "1.2.3.256", "1.2.3"])],
    "format: ipv6": [({**STRING, "format": "ipv6"}, ["::1", "1::2::3", "x"])],
    "format: uuid": [({**STRING, "format": "uuid"}, ["2eb8aa08-aa98-11ea-b4aa-73b441d16380", "2eb8aa08", "x"])],
    "format: uri": [({**STRING, "format": "uri"}, ["http://a.org/b?c=d", "//a.org", "a b"])],
    "format: uri-reference": [({**STRING, "format": "uri-reference"}, ["/a/b", "a b"])],
    "format: json-pointer": [({**STRING, "format": "json-pointer"}, ["/a/~0b", "/a/~2b", "a"])],
    "format: regex": [({**STRING, "format": "regex"}, ["^a+$", "^(a"])],
}

# Formats that jsonschema checks only with further packages: judged by hand, from the RFCs.
BY_HAND = {
    "date-time": {"2024-02-29T10:00:00Z"},
    "time": {"10:00:00Z"},
    "duration": {"P1D", "PT1H"},
    "uri": {"http://a.org/b?c=d"},
    "uri-reference": {"/a/b"},
    "json-pointer": {"/a/~0b"},
    "hostname": {"a.org"},
}

Accepts = Callable[[bytes], bool]


class Refused(Exception):
    """The engine does not take this schema."""


def xgrammar(schema: str) -> Accepts:
    import xgrammar as xgr
    from xgrammar.testing import _is_grammar_accept_string

    try:
        grammar = xgr.Grammar.from_json_schema(schema)
    except (RuntimeError, ValueError) as error:
        raise Refused(str(error)) from None
    return lambda text: bool(_is_grammar_accept_string(grammar, text.decode()))


def llguidance(schema: str) -> Accepts:
    import llguidance as llg

    tokenizer = llg.LLTokenizer("byte")
    try:
        grammar = llg.LLMatcher.grammar_from_json_schema(schema)
    except ValueError as error:
        raise Refused(str(error)) from None
    matcher = llg.LLMatcher(tokenizer, grammar, log_level=0)
    if matcher.is_error():
        raise Refused(matcher.get_error())

    def accepts(text: bytes) -> bool:
        copy = matcher.deep_copy()
        return all(copy.consume_token(byte) for byte in text) and copy.is_accepting()

    return accepts


def outlines_core(schema: str) -> Accepts:
    import outlines_core as outlines
    from outlines_core.json_schema import build_regex_from_schema

    vocabulary = outlines.Vocabulary(256, {bytes([byte]): [byte] for byte in range(256)})
    try:
        index = outlines.Index(build_regex_from_schema(schema), vocabulary)
    except (RuntimeError, ValueError, TypeError) as error:
        raise Refused(str(error)) from None
    start, final, moves = index.get_initial_state(), index.get_final_states(), index.get_transitions()

    def accepts(text: bytes) -> bool:
        state = start
        for byte in text:
            following = moves.get(state, {}).get(byte)
            if following is None:
                return False
            state = following
        return state in final

    return accepts


ENGINES: dict[str, Callable[[str], Accepts]] = {
    "xgrammar": xgrammar,
    "llguidance": llguidance,
    "outlines-core": outlines_core,
}


def orders(value: Any) -> Iterator[Any]:
    """The value with its objects' keys in every order."""
    if isinstance(value, dict):
        for keys in itertools.permutations(value):
            for values in itertools.product(*(list(orders(value[key])) for key in keys)):
                yield dict(zip(keys, values, strict=True))
    elif isinstance(value, list):
        yield from (list(items) for items in itertools.product(*(list(orders(item)) for item in value)))
    else:
        yield value


def serialisations(instance: Any) -> Iterator[bytes]:
    for value in orders(instance):
        yield json.dumps(value, ensure_ascii=False).encode()
        yield json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def is_valid(schema: Any, instance: Any) -> bool:
    name = schema.get("format")
    if name in BY_HAND:
        return not isinstance(instance, str) or instance in BY_HAND[name]
    return Draft202012Validator(schema, format_checker=FormatChecker()).is_valid(instance)


def probe(engine: Callable[[str], Accepts], schema: Any, instances: list[Any]) -> tuple[str, str]:
    """(status, evidence) of one engine on one schema."""
    text = json.dumps(schema)
    try:
        accepts = engine(text)
    except Refused as refusal:
        return "refused", f"{text}: {str(refusal).splitlines()[0][:160]}"
    accepted = {repr(i): any(accepts(text) for text in serialisations(i)) for i in instances}
    invalid = [i for i in instances if not is_valid(schema, i)]
    wrongly_accepted = [i for i in invalid if accepted[repr(i)]]
    wrongly_rejected = [i for i in instances if is_valid(schema, i) and not accepted[repr(i)]]
    if wrongly_accepted:
        status = "dropped" if wrongly_accepted == invalid and not wrongly_rejected else "partial"
        return status, f"{text} accepts {json.dumps(wrongly_accepted[0])}"
    if wrongly_rejected:
        return "narrowed", f"{text} rejects {json.dumps(wrongly_rejected[0])}"
    return "enforced", ""


def combined(results: list[tuple[str, str]]) -> dict[str, str]:
    """One verdict over a keyword's probes: silent losses weigh more than refusals, refusals more than narrowing."""
    found = {status for status, _ in results}
    if len(found) == 1:
        status = results[0][0]
    elif found & {"dropped", "partial"}:
        status = "partial"
    else:
        status = "sometimes refused" if "refused" in found else "narrowed"
    for worst in ("dropped", "partial", "refused", "narrowed", "enforced"):
        for each, evidence in results:
            if each == worst:
                return {"status": status, "evidence": evidence}
    raise AssertionError("a keyword without probes")


def main() -> None:
    table: dict[str, Any] = {
        "measured": {
            "date": datetime.date.today().isoformat(),
            "command": "python tools/probe_engines.py",
            "versions": {name: version(name) for name in ENGINES},
        },
        "keywords": {},
    }
    for keyword, probes in PROBES.items():
        for schema, instances in probes:
            labels = {is_valid(schema, instance) for instance in instances}
            assert labels == {True, False}, f"{keyword}: a probe needs valid and invalid instances: {schema}"
        untyped = [
            (bare, instances)
            for schema, instances in probes
            if "type" in schema and keyword != "type"
            for bare in [{key: value for key, value in schema.items() if key != "type"}]
            if {is_valid(bare, instance) for instance in instances} == {True, False}
        ]
        row: dict[str, Any] = {}
        for name, engine in ENGINES.items():
            row[name] = {"typed": combined([probe(engine, *one) for one in probes])}
            if untyped:
                row[name]["untyped"] = combined([probe(engine, *one) for one in untyped])
        table["keywords"][keyword] = row
        print(f"{keyword:32}" + "  ".join(f"{n}: {'/'.join(r['status'] for r in row[n].values())}" for n in ENGINES))
    TABLE.write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
