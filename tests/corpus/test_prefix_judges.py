"""The judges of beginnings (benchmarks/judges/prefixes.py) know a beginning when they see one, and our masks agree."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import guiderail as gr

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks.judges import MissingJudge
from benchmarks.judges.prefixes import PREFIX_JUDGES

BEGINNINGS = {
    "json": (["", '{"a', "[1, -", "tru"], ["{1", "[01", '"\n', "truth"]),
    "python": (
        ["x = ", "def f(a) -", "async de", "from a im", "x no", "f'{a!", "'''(", "class A:\n  def f(self):\n    x\n  "],
        ["x = =", "x = 1 j", "f(a=1, b)", "print(a b", "print(a '''b", "for x in y: pass\n  z", "from a x"],
    ),
    "go": (
        ["pack", "package a\nfunc f() { ret", "package a\nvar x = '", "package a\nfunc f() { for i := ra"],
        ["package a\nfunc f() { x := )", "package a\nfunc f() { if {", "package a\nvar x = f[0, 1"],
    ),
    "sql": (
        ["selec", "select 'a", "select a from b order b", "select a /", "with x a"],
        ["select a, ,", "sel x", "select a from b order x", "select a b c"],
    ),
}


@pytest.mark.parametrize("language", sorted(BEGINNINGS))
def test_judges_of_beginnings(language: str) -> None:
    try:
        judge = PREFIX_JUDGES[language]()
    except MissingJudge as missing:
        pytest.skip(str(missing))
    good, bad = BEGINNINGS[language]
    assert judge(good) == [True] * len(good)
    assert judge(bad) == [False] * len(bad)


@pytest.mark.parametrize("language", sorted(BEGINNINGS))
def test_the_grammars_know_the_same_beginnings(language: str) -> None:
    grammar = gr.Grammar.builtin(language)
    good, bad = BEGINNINGS[language]
    assert [grammar.longest_prefix(text.encode()) == len(text.encode()) for text in good] == [True] * len(good)
    assert [grammar.longest_prefix(text.encode()) == len(text.encode()) for text in bad] == [False] * len(bad)
