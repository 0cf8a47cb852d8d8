"""Parts of a schema that no value satisfies: rows of the report with place and reason, and of `guiderail lint`."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

import guiderail as gr
from guiderail.cli import main

EMPTY = {"type": "string", "enum": [1]}
BRANCH = "no value satisfies it and the schema that it is a branch of"
CONTRADICTION = "its keywords contradict each other"


def found(schema: dict[str, Any]) -> dict[str, str]:
    report = gr.Grammar.from_json_schema(schema).report
    return {row.place: row.reason for row in report if row.status == "unsatisfiable"}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"properties": {"a": EMPTY, "b": {"type": "string"}}}, {"/properties/a": CONTRADICTION}),
        ({"items": {"type": "integer", "minimum": 1.2, "maximum": 1.8}}, {"/items": CONTRADICTION}),
        ({"anyOf": [{"type": "string"}, EMPTY]}, {"/anyOf/1": CONTRADICTION}),
        ({"type": "object", "anyOf": [{"type": "string"}, {"required": ["a"]}]}, {"/anyOf/0": BRANCH}),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, {"/oneOf/0": BRANCH}),
        (
            {"properties": {"a": False}, "required": ["a"]},
            {"/required": '"a" is required, and nothing can be its value'},
        ),
        (
            {"required": ["b"], "additionalProperties": False, "properties": {"a": {}}},
            {"/required": '"b" is required, and nothing can be its value'},
        ),
        (
            {"properties": {"a": {"type": "string"}}, "patternProperties": {"^a": {"type": "integer"}}},
            {"/properties/a": "beside what else is said of this property, no value satisfies it"},
        ),
        (
            {"properties": {"a": {"$ref": "#/$defs/n"}}, "$defs": {"n": EMPTY}},
            {"/properties/a": "no value satisfies /$defs/n, which it needs", "/$defs/n": CONTRADICTION},
        ),
        ({"properties": {"a": {"anyOf": [EMPTY]}}}, {
            "/properties/a": "no branch can be satisfied", "/properties/a/anyOf/0": CONTRADICTION,
        }),
        ({"properties": {"a": False, "b": {"type": "string"}}, "anyOf": [{"minLength": 2}, {}]}, {}),
        ({"properties": {"next": {"$ref": "#"}}, "required": ["name"]}, {}),
    ],
    ids=json.dumps,
)  # fmt: skip
def test_the_report_names_what_nothing_satisfies(schema: dict[str, Any], expected: dict[str, str]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)
    assert found(schema) == expected


def test_lint_prints_them(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    schema = {"type": "object", "properties": {"a": EMPTY}, "anyOf": [{"type": "string"}, {"required": ["b"]}]}
    report = gr.lint(schema)
    assert report.unsatisfiable == ("/properties/a", "/anyOf/0")
    assert dict(report.why) == {"/properties/a": CONTRADICTION, "/anyOf/0": BRANCH}
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(schema))
    main(["lint", str(file)])
    printed = capsys.readouterr().out
    assert f"unsatisfiable: /properties/a: {CONTRADICTION}" in printed
    assert f"unsatisfiable: /anyOf/0: {BRANCH}" in printed
