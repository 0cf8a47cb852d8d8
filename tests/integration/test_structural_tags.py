"""Structural tags as servers take them: languages worked by hand, special tokens, refusals."""

from __future__ import annotations

import json
from typing import Any

import pytest

import guiderail as gr
from guiderail.integrations.structural_tags import read_structural_tag

SCHEMA = {"type": "object", "properties": {"q": {"type": "integer"}}, "required": ["q"], "additionalProperties": False}
ARGUMENTS = {"type": "json_schema", "json_schema": SCHEMA, "style": "json", "any_order": False, "excludes": []}
CALL = '<call>f{"q": 3}</call>'
TAG = {"type": "tag", "begin": "<call>f", "content": ARGUMENTS, "end": "</call>"}
THINK = {"type": "tag", "begin": "<think>", "content": {"type": "any_text"}, "end": "</think>"}


def triggered(**options: Any) -> dict[str, Any]:
    return {"type": "triggered_tags", "triggers": ["<call>"], "tags": [TAG], **options}


def separated(**options: Any) -> dict[str, Any]:
    return {"type": "tags_with_separator", "tags": [TAG], "separator": ",", **options}


def word(kind: str, **options: Any) -> dict[str, Any]:
    return {"type": kind, "content": {"type": "const_string", "value": "ab"}, **options}


def read(form: Any) -> gr.Grammar:
    return read_structural_tag(json.dumps({"type": "structural_tag", "format": form}))


CASES: list[tuple[Any, list[str], list[str]]] = [
    (triggered(), ["", "a", "a<call", CALL, f"a{CALL}b{CALL}"], ["<call>", "<call>g", '<call>f{"q": ""}</call>']),
    (triggered(at_least_one=True), [CALL, f"{CALL}a"], ["", "a", f"a{CALL}"]),
    (triggered(stop_after_first=True), ["a", f"a{CALL}"], [f"{CALL}a", f"{CALL}{CALL}"]),
    (triggered(at_least_one=True, stop_after_first=True), [CALL], ["", f"a{CALL}", f"{CALL}a"]),
    (separated(), ["", CALL, f"{CALL},{CALL}"], ["a", f"{CALL},", f"{CALL}{CALL}"]),
    (separated(at_least_one=True), [CALL, f"{CALL},{CALL}"], [""]),
    (separated(stop_after_first=True), ["", CALL], [f"{CALL},{CALL}"]),
    (THINK, ["<think></think>", "<think>a<b</think>"], ["<think>a", "<think>a</think>b</think>", "a"]),
    ({"type": "sequence", "elements": [THINK, triggered()]}, [f"<think>a</think>b{CALL}"], [CALL]),
    (
        {**THINK, "content": triggered()},
        [f"<think>a{CALL}b</think>"],
        [f"<think>a{CALL}b", "<think><call></think>"],
    ),
    ({"type": "or", "elements": [separated(at_least_one=True), ARGUMENTS]}, [CALL, '{"q":1}'], ["", "a"]),
    ({"type": "any_text", "excludes": ["no"]}, ["", "yes n"], ["a no b"]),
    (word("optional"), ["", "ab"], ["abab"]),
    (word("star"), ["", "abab"], ["aba"]),
    (word("plus"), ["ab", "abab"], [""]),
    (word("repeat", min=1, max=2), ["ab", "abab"], ["", "ababab"]),
    (word("repeat", min=2, max=-1), ["abab", "ababab"], ["ab"]),
    ({"type": "dispatch", "rules": [["#", {"type": "regex", "pattern": "[0-9]"}]]}, ["a#1b#2"], ["#a", "#"]),
    ({"type": "dispatch", "loop": False, "rules": [["#", ARGUMENTS]]}, ['a#{"q": 1}'], ['#{"q": 1}a']),
    ({"type": "grammar", "grammar": 'root ::= "x"+'}, ["xx"], ["", "y"]),
]


@pytest.mark.parametrize(("form", "inside", "outside"), CASES)
def test_language(form, inside, outside):
    grammar = read(form)
    assert [text for text in inside if not grammar.accepts(text)] == []
    assert [text for text in outside if grammar.accepts(text)] == []


@pytest.mark.parametrize(("form", "inside", "outside"), CASES)
def test_xgrammar_reads_them_alike(form, inside, outside):
    xgrammar = pytest.importorskip("xgrammar")
    from xgrammar.testing import _is_grammar_accept_string as accepts

    other = xgrammar.Grammar.from_structural_tag({"type": "structural_tag", "format": form})
    assert [accepts(other, text) for text in inside + outside] == [True] * len(inside) + [False] * len(outside)


def test_older_shape():
    structure = {"begin": "<call>f", "schema": SCHEMA, "end": "</call>"}
    grammar = read_structural_tag(json.dumps({"structures": [structure], "triggers": ["<call>"]}))
    assert grammar.accepts(f"a{CALL}b")
    assert not grammar.accepts("a<call>b")


def test_markers_match_as_special_tokens_and_spelled_out():
    texts = [bytes([byte]) for byte in range(256)] + [b"", b"", b""]
    special = {"<call>": 256, "</call>": 257}
    vocabulary = gr.Vocabulary.from_bytes(texts, eos_token_ids=[258], special_tokens=special)
    for form in (triggered(), {**triggered(), "triggers": ["<call>f"]}):
        compiled = gr.compile(read(form), vocabulary)
        arguments = list(b'{"q": 3}')
        for tokens in ([*b"a", 256, *b"f", *arguments, 257, *b"b"], list(f"a{CALL}b".encode())):
            matcher = compiled.matcher()
            assert matcher.count_valid([*tokens, 258]) == len(tokens) + 1
        assert compiled.matcher().count_valid([256, *b"g"]) == 1
    begun = {"type": "token", "token": "<call>"}
    form = {"type": "token_triggered_tags", "trigger_tokens": ["<call>"], "tags": [{**TAG, "begin": begun}]}
    compiled = gr.compile(read(form), vocabulary)
    assert compiled.matcher().count_valid([*b"a", 256, *arguments, 257, *b"b", 258]) == len(arguments) + 5
    assert compiled.matcher().count_valid([256, *b"b"]) == 1


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"type": "any_tokens"}, "/format: .*'any_tokens' is not supported"),
        ({"type": "sequence", "elements": [{**ARGUMENTS, "style": "qwen_xml"}]}, "/format/elements/0/style"),
        ({**ARGUMENTS, "excludes": ["x"]}, "/format/excludes"),
        ({"type": "any_text", "max_tokens": 4}, "/format/max_tokens"),
        ({"type": "token", "token": 7}, "/format/token: str expected"),
        (triggered(triggers=["<other>"]), "/format/tags/0/begin"),
        (word("repeat", min=0, max=10**9), "at most 256"),
        ({"type": "tag", "begin": "a", "content": {}, "end": "b"}, "/format/content"),
        ({"type": "tag", "begin": "a", "content": ARGUMENTS, "end": 3}, "/format/end"),
        ([], "/format"),
    ],
)
def test_what_is_not_enforced_is_refused_with_its_place(form, message):
    with pytest.raises(gr.errors.GrammarError, match=message):
        read(form)


def test_deep_formats_are_refused():
    form: dict[str, Any] = {"type": "any_text"}
    for _ in range(100):
        form = {"type": "optional", "content": form}
    with pytest.raises(gr.errors.GrammarError, match="nested deeper"):
        read(form)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"structures": 1}'])
def test_texts_that_are_no_tags(text):
    with pytest.raises(gr.errors.GrammarError):
        read_structural_tag(text)
