"""`guiderail explain`: the place, what may come next, and why a text goes no further."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import guiderail
from guiderail import Grammar, Vocabulary
from guiderail.cli import main
from guiderail.explanation import explain

ASSIGNMENTS = 'start: line*\nline: NAME "=" INT ";"\nNAME: /[a-z]+/\nINT: /[0-9]+/\n%ignore /[ \\n]+/'


def names(grammar: Grammar, text: str) -> set[str]:
    return {("more of " if e.inside else "") + e.terminal for e in explain(grammar, text).expected}


@pytest.mark.parametrize("lexer", ["munch", "lark-dynamic", "lark-basic", "lark-contextual", "free"])
def test_the_place_and_what_may_come_next(lexer: str) -> None:
    grammar = Grammar.from_lark(ASSIGNMENTS, lexer=lexer)
    found = explain(grammar, "a = 1;\nbé = 2;")
    assert (found.fits, found.line, found.column, found.complete, found.may_end) == (8, 2, 2, False, False)
    assert str(found).splitlines()[1:3] == ["    bé = 2;", "     ^"]
    assert {"more of NAME", "EQUAL" if lexer in ("lark-basic", "lark-contextual") else '"="'} <= names(
        grammar, "a = 1;\nb"
    )
    assert explain(grammar, "a = 1;").complete
    assert "INT" in names(grammar, "a =")
    assert "NAME" not in names(grammar, "a =")


def test_examples_are_texts_of_their_terminals() -> None:
    grammar = Grammar.builtin("go")
    before = "package p\nfunc f() { return "
    for expected in explain(grammar, before).expected:
        assert expected.example, expected
        assert grammar.accepts_prefix(before + expected.example), expected


def test_why_a_text_goes_no_further() -> None:
    grammar = Grammar.from_lark('start: "if" NAME | NAME "."\nNAME: /[a-z]+/\n%ignore " "')
    assert explain(grammar, "if1").refused == [
        "NAME, which has begun, cannot go on with it",
        "nothing that may come next begins with it",
    ]
    assert explain(grammar, "if").open_rules == ['start → "if" · NAME']
    touching = Grammar.from_lark('start: A B\nA: "a" "b"?\nB: /b+/')
    assert explain(touching, "ac").refused == ["A, which has begun, cannot go on with it"]
    assert names(touching, "a") == {"more of A"}  # not B: longest match reads the b into A
    json_grammar = Grammar.from_json_schema({"properties": {"n": {"type": "integer"}}})
    found = explain(json_grammar, '{"n": "x"}')
    assert found.fits == 6
    assert found.refused
    assert names(json_grammar, '{"n": 1') >= {"more of number"}
    assert all(not e.inside for e in explain(Grammar.builtin("json"), '{"a": [').expected)


def test_programs_say_which_rules_are_open() -> None:
    found = explain(Grammar.builtin("python"), "def f(x:\n    return 1\n")
    assert (found.line, found.column) == (2, 11)
    assert any(rule.endswith('":" · expression') for rule in found.open_rules)
    assert explain(Grammar.builtin("python"), "x = 1\n").complete
    parts = explain(Grammar.from_lark('start: "x" %json {"type": "integer"}'), "x")
    assert not any("part" in e.terminal for e in parts.expected)


def test_a_matcher_says_why_a_token_is_refused() -> None:
    tokens = [*(bytes([b]) for b in range(256)), b"", b"b1"]
    compiled = guiderail.compile(Grammar.from_lark(ASSIGNMENTS), Vocabulary.from_bytes(tokens, eos_token_ids=[256]))
    matcher = compiled.matcher(prefix="a")
    said = matcher.explain(257)
    assert "first 1 byte(s) fit" in said
    assert "NAME, which has begun, cannot go on with it" in said
    assert said.index("cannot go on") < said.index("expected here: ")
    assert ("NAME", True, False, b"a") in matcher.expectations()
    assert matcher.refusals(b"b=") == []


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "program.py"
    program.write_text("x = (1,\n", encoding="utf-8")
    assert main(["explain", "--builtin", "python", "--file", str(program)]) == 1
    out = capsys.readouterr().out
    assert "line 2, column 1, byte 8 of 8" in out
    assert "complete:  no" in out
    assert main(["explain", "--builtin", "python", "--text", "x = 1"]) == 0
    assert "complete:  yes" in capsys.readouterr().out
    with program.open("rb") as stream:
        monkeypatch.setattr(sys, "stdin", type("Input", (), {"buffer": stream}))
        assert main(["explain", "--builtin", "python", "--file", "-"]) == 1
