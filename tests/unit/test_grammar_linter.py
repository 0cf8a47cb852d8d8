"""`lint_grammar`: each kind of finding by hand, and nothing where there is nothing."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import lark
import pytest

from guiderail import Grammar
from guiderail.cli import main
from guiderail.grammar_linter import lint_grammar


def kinds(text: str) -> dict[tuple[str, str], str]:
    return {(finding.kind, finding.name): finding.message for finding in lint_grammar(text)}


def test_each_kind() -> None:
    found = kinds(
        "start: A | B | C | D | loop\nloop: A loop\nlost: A\n"
        'A: /[a-z]+/\nB: /[a-c]+[0-9]*/\nC: "x"\nD: /[a-z]/\n%ignore " "'
    )
    assert ("unreachable", "lost") in found
    assert ("unproductive", "loop") in found
    assert ("shadowed", "D") in found
    assert found["collision", "A"].endswith("A wins")
    assert ("shadowed", "C") not in found
    assert not [key for key in found if key[1] in ("start", "C")]


def test_nothing_odd() -> None:
    assert lint_grammar('start: A ("," A)*\nA: /[a-z]+/\n%ignore " "') == []


@pytest.mark.parametrize(
    ("grammar", "rule", "text"),
    [
        ('start: e\ne: e "+" e | "1"', "e", "1+1+1"),
        ('start: s\ns: "if" s | "if" s "else" s | "x"\n%ignore " "', "s", "ififxelsex"),
        ('start: a? b\na: "x"\nb: "x"? "y"', "start", "xy"),
        ('start: NAME+ | pair\npair: NAME NAME\nNAME: /[a-z]+/\n%ignore " "', "start", "a a"),
    ],
)
def test_ambiguous_by_example(grammar: str, rule: str, text: str) -> None:
    message = kinds(grammar)["ambiguous", rule]
    shown, one, other = re.fullmatch(r"('.*') is derived as (.*) and as (.*)", message).groups()  # type: ignore[union-attr]
    assert ast.literal_eval(shown) == text
    assert Grammar.from_lark(grammar).accepts(text)
    assert one != other
    # Both have the same terminals, in the same order.
    read = [re.findall(r'"[^"]*"|NAME', derivation) for derivation in (one, other)]
    assert read[0] == read[1]
    parses = lark.Lark(grammar, parser="earley", lexer="dynamic", ambiguity="explicit").parse(text)
    assert any(True for _ in parses.find_data("_ambig"))


def test_what_is_not_ambiguous() -> None:
    for grammar in ('start: "(" start ")" | "x"', 'start: ("a" | "b")*', 'start: t ("+" t)*\nt: "1" | "(" start ")"'):
        assert "ambiguous" not in {kind for kind, _ in kinds(grammar)}


def test_neighbours_that_cannot_be_told_apart() -> None:
    text = "start: (NAME NAME)* INT?\nNAME: /[a-z]+/\nINT: /[0-9]+/\n"
    assert {name for kind, name in kinds(text) if kind == "neighbours"} == {"NAME"}
    assert not [kind for kind, _ in kinds(text + '%ignore " "') if kind == "neighbours"]


def test_a_lexeme_for_each_character_costs() -> None:
    assert ("cost", "word") in kinds("start: word\nword: LETTER+\nLETTER: /[a-z]/")
    assert not [kind for kind, _ in kinds("start: WORD\nWORD: LETTER+\nLETTER: /[a-z]/") if kind == "cost"]


def test_no_collision_between_keyword_and_name() -> None:
    assert lint_grammar('start: "if" A\nA: /[a-z]+/\n%ignore " "') == []


@pytest.mark.parametrize(
    ("text", "status"), [('start: "a"', 0), ("start: A | B\nA: /a+/\nB: /[ab]/", 1), ("start:: x", 2)]
)
def test_command(text: str, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "g.lark"
    path.write_text(text, encoding="utf-8")
    assert main(["lint", str(path)]) == status
    assert ("collision: A" in capsys.readouterr().out) == (status == 1)
