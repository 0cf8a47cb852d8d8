"""lint: our verdicts are the report's, the others' are the measured table's, and the exit statuses hold."""

from __future__ import annotations

import json
from typing import Any

import pytest

import guiderail as gr
from guiderail.cli import ACCEPTED, REFUSED, REJECTED, main


def verdicts(schema: Any) -> dict[str, dict[str, str]]:
    return {row.pointer: row.verdicts for row in gr.lint(schema).rows}


def test_each_engine_has_its_verdict() -> None:
    found = verdicts({"type": "array", "items": {"type": "string", "minLength": 2}, "uniqueItems": True})
    assert found["/uniqueItems"] == {
        "guiderail": "enforced",
        "xgrammar": "dropped",
        "llguidance": "refused",
        "outlines-core": "dropped",
        "openai": "unlisted",
    }
    assert found["/items/minLength"]["xgrammar"] == "enforced"


def test_a_keyword_without_its_type_has_a_verdict_of_its_own() -> None:
    assert verdicts({"minLength": 2})["/minLength"]["xgrammar"] == "dropped"
    assert verdicts({"type": "string", "minLength": 2})["/minLength"]["xgrammar"] == "enforced"


def test_openai_rules() -> None:
    strict = {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    assert gr.lint(strict).lost("openai") == []
    assert [row.pointer for row in gr.lint({**strict, "required": []}).lost("openai")] == ["/properties"]
    del strict["additionalProperties"]
    assert [row.pointer for row in gr.lint(strict).lost("openai")] == ["/additionalProperties (absent)"]


def test_parts_that_nothing_satisfies_are_named() -> None:
    schema = {
        "properties": {
            "a/b~ c": {"allOf": [{"type": "string"}, {"type": "integer"}]},
            "fine": {"type": "string"},
            "bounds": {"type": "integer", "minimum": 3, "maximum": 2},
        }
    }
    report = gr.lint(schema)
    assert set(report.unsatisfiable) == {"/properties/a~1b~0 c", "/properties/bounds"}
    assert report.unchecked == 0
    assert not report.refused


def test_parts_are_read_in_the_schemas_dialect_and_below_its_id() -> None:
    # In draft 7 a $ref hides its siblings, so only 2020-12 sees the contradiction.
    schema = {
        "$id": "https://example.org/s",
        "definitions": {"t": {"type": "string"}},
        "properties": {"a": {"$ref": "#/definitions/t", "type": "integer"}},
    }
    assert gr.lint({**schema, "$schema": "https://json-schema.org/draft/2020-12/schema"}).unsatisfiable == (
        "/properties/a",
    )
    assert gr.lint({**schema, "$schema": "http://json-schema.org/draft-07/schema#"}).unsatisfiable == ()


def test_a_schema_that_is_refused_is_reported_with_its_place() -> None:
    report = gr.lint({"items": {"$ref": "http://example.org/elsewhere"}})
    assert isinstance(report.error, gr.SchemaError)
    assert report.refused
    assert [row.pointer for row in report.lost("guiderail")] == ["/items/$ref"]
    assert gr.lint({"type": "string", "enum": [1]}).unsatisfiable == ("",)


def test_a_schema_too_large_says_what_was_not_tried() -> None:
    report = gr.lint({"properties": {f"p{i}": {"type": "string"} for i in range(600)}})
    assert report.unchecked == 101


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"a": NaN}', "\ud800", "nul"])
def test_what_is_no_json_is_a_typed_error(text: str) -> None:
    with pytest.raises(gr.GuiderailError):
        gr.lint(text)


@pytest.mark.parametrize(
    "schema", [True, False, "[1]", {"properties": 3, "oneOf": {}, "items": [1, None], "required": 1}]
)
def test_malformed_schemas_end_in_a_report(schema: Any) -> None:
    assert gr.lint(schema).refused is (schema is not True)


def test_cost_traps() -> None:
    report = gr.lint({"oneOf": [{"const": i} for i in range(40)], "items": {"uniqueItems": True}})
    assert [pointer for pointer, _ in report.costs] == ["/oneOf", "/items/uniqueItems"]
    assert gr.lint({"uniqueItems": True, "items": {"enum": [1, 2]}}).costs == ()


def test_unknown_engine() -> None:
    with pytest.raises(ValueError, match="engine must be one of"):
        gr.lint({}).lost("other")


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    schema = '{"type": "string", "not": {"enum": ["a"]}}'
    assert main(["lint", schema]) == ACCEPTED
    assert "/not: guiderail enforced; xgrammar dropped" in capsys.readouterr().out
    assert main(["lint", schema, "--target", "xgrammar"]) == REJECTED
    assert main(["lint", '{"$ref": "http://example.org/"}']) == REFUSED
    capsys.readouterr()
    assert main(["lint", schema, "--json"]) == ACCEPTED
    report = json.loads(capsys.readouterr().out)
    assert set(report["measured"]["versions"]) == {"xgrammar", "llguidance", "outlines-core"}
    assert report["documented"] == ["openai"]
