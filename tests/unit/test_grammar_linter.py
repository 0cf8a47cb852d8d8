"""`lint_grammar`: each kind of finding by hand, and nothing where there is nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

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
