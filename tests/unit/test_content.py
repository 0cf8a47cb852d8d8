"""Draft 7's contentEncoding and contentMediaType: base64 and JSON inside a string are checked, and only there."""

import json

import pytest

import guiderail as gr

DRAFT7 = "http://json-schema.org/draft-07/schema#"
JSON = {"$schema": DRAFT7, "contentMediaType": "application/json"}
BASE64 = {"$schema": DRAFT7, "contentEncoding": "base64"}


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        (JSON, '{"foo": "bar"}', True),
        (JSON, ' [1,{"a":[[-2.5e3]]}, null]\n', True),
        (JSON, '"\\u00e9\\n"', True),
        (JSON, "{:}", False),
        (JSON, "", False),
        (JSON, "01", False),
        (JSON, "[1,]", False),
        (JSON, '{"a":1,}', False),
        (JSON, '"a\nb"', False),
        (JSON, 3, True),
        (BASE64, "eyJmb28iOiAiYmFyIn0K", True),
        (BASE64, "", True),
        (BASE64, "QQ==", True),
        (BASE64, "QUI=", True),
        (BASE64, "QR==", False),
        (BASE64, "QQ=", False),
        (BASE64, "eyJmb28iOi%iYmFyIn0K", False),
        (BASE64, [1], True),
        (BASE64 | {"maxLength": 4}, "QUJDREVG", False),
        (BASE64 | {"contentMediaType": "image/png"}, "QUJD", True),
        (BASE64 | {"contentMediaType": "image/png"}, "QUJ", False),
    ],
)
def test_what_the_content_of_a_string_is(schema: dict[str, object], value: object, expected: bool) -> None:
    for ascii_only in (True, False):
        text = json.dumps(value, ensure_ascii=ascii_only)
        assert gr.Grammar.from_json_schema(schema).accepts(text) is expected
        # Elsewhere these are annotations.
        later = {key: part for key, part in schema.items() if key != "$schema"}
        assert gr.Grammar.from_json_schema(later | {"maxLength": 99}).accepts(text)
        if "maxLength" not in schema:
            assert gr.Grammar.from_json_schema(schema, formats=False).accepts(text)


def test_json_in_a_string_nests_so_deep_and_the_report_says_so() -> None:
    grammar = gr.Grammar.from_json_schema(JSON)
    assert grammar.accepts(json.dumps("[" * 4 + "]" * 4))
    assert not grammar.accepts(json.dumps("[" * 5 + "]" * 5))
    assert [(row.place, row.status) for row in grammar.report] == [("/contentMediaType", "approximated")]


def test_json_inside_base64_is_refused_not_dropped() -> None:
    both = JSON | BASE64
    with pytest.raises(gr.SchemaError, match="base64"):
        gr.Grammar.from_json_schema(both)
    grammar = gr.Grammar.from_json_schema(both, on_unsupported="warn")
    assert ("/contentMediaType", "refused") in [(row.place, row.status) for row in grammar.report]
    assert not grammar.accepts('"{}"')
