"""`Grammar`: its constructors, what it answers without a vocabulary, and its identity."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guiderail import Grammar
from guiderail.errors import GrammarError
from guiderail.grammars.rules import (
    Choice,
    Leaf,
    Reference,
    Repeat,
    Sequence,
    StaticGrammar,
    Terminal,
    Terminals,
    assemble,
    flatten,
)

EXAMPLES = {
    "regex": lambda: Grammar.from_regex(r"a{2,3}|b"),
    "choices": lambda: Grammar.from_choices(["a", "b"]),
    "gbnf": lambda: Grammar.from_gbnf('root ::= "a" root | "b"'),
    "lark": lambda: Grammar.from_lark('start: "a" start | "b"'),
    "builtin": lambda: Grammar.builtin("json"),
}


def test_there_is_no_constructor_without_a_source() -> None:
    with pytest.raises(TypeError, match="from_regex"):
        Grammar()


@pytest.mark.parametrize("name", EXAMPLES)
def test_equal_content_has_equal_fingerprints(name: str) -> None:
    assert EXAMPLES[name]().fingerprint == EXAMPLES[name]().fingerprint
    assert len({make().fingerprint for make in EXAMPLES.values()}) == len(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_recipe_makes_the_same_grammar(name: str) -> None:
    grammar = EXAMPLES[name]()
    again = Grammar._from_recipe(json.loads(json.dumps(grammar._make_recipe())))
    assert again.fingerprint == grammar.fingerprint
    assert again.report == grammar.report
    for text in ("a", "b", "aa", "ab", "aab", "{}", "[1, 2]", ""):
        assert again.accepts(text) == grammar.accepts(text)


@pytest.mark.parametrize("name", EXAMPLES)
def test_text_may_be_bytes_or_a_string(name: str) -> None:
    grammar = EXAMPLES[name]()
    for text in ("b", "é", "\ud800", "", "\0"):
        data = text.encode("utf-8", "surrogatepass")
        assert grammar.accepts(text) == grammar.accepts(data) == grammar.accepts(bytearray(data))
        assert grammar.accepts_prefix(text) == grammar.accepts_prefix(data)
        assert grammar.longest_prefix(text) == grammar.longest_prefix(data)


@given(st.text("ab{}[]1,: \n", max_size=12))
def test_longest_prefix_is_the_longest_that_can_be_completed(text: str) -> None:
    for make in EXAMPLES.values():
        grammar = make()
        data = text.encode()
        assert grammar.longest_prefix(data) == max(
            end for end in range(len(data) + 1) if grammar.accepts_prefix(data[:end])
        )


class TestRegex:
    def test_the_whole_text_matches(self) -> None:
        grammar = Grammar.from_regex(r"[a-z]+@[a-z]+\.org")
        assert grammar.accepts("me@example.org")
        assert grammar.accepts_prefix("me@")
        assert not grammar.accepts("me@")
        assert not grammar.accepts("me@example.org ")
        assert [row.status for row in grammar.report] == ["enforced"]

    @pytest.mark.parametrize("flags", [0, re.IGNORECASE, re.DOTALL, re.VERBOSE, re.ASCII, re.MULTILINE | re.IGNORECASE])
    def test_flags_are_those_of_python(self, flags: int) -> None:
        pattern = "a b.\\w # c\n|X"
        grammar = Grammar.from_regex(pattern, flags)
        for text in ("a b.\\w # c\n", "ab1x", "ab\nx", "AB1X", "x", "X", "ab1é", "a b1x # c\n", ""):
            assert grammar.accepts(text) == bool(re.fullmatch(pattern, text, flags)), text

    @pytest.mark.parametrize(("pattern", "offset"), [("(", None), ("ab[c", None), (r"(a)\1", 3), ("a**", None)])
    def test_refused_with_the_offset(self, pattern: str, offset: int | None) -> None:
        with pytest.raises(GrammarError) as caught:
            Grammar.from_regex(pattern)
        assert caught.value.offset is not None
        assert offset is None or caught.value.offset == offset

    def test_an_empty_language_is_refused(self) -> None:
        with pytest.raises(GrammarError, match="empty"):
            Grammar.from_regex("(?!)")

    def test_the_pattern_is_a_string(self) -> None:
        with pytest.raises(TypeError, match="bytes"):
            Grammar.from_regex(b"a")  # type: ignore[arg-type]


class TestChoices:
    def test_exactly_these(self) -> None:
        choices = ["yes", "yes!", "", "no\n", "a|b", "[x]", "é", "😀", "\0", "\\d", "yes"]
        grammar = Grammar.from_choices(choices)
        assert all(grammar.accepts(choice) for choice in choices)
        assert not any(grammar.accepts(other) for other in ("y", "yes!!", "no", "a", "x", "1", "d"))

    @given(st.lists(st.text(max_size=4), min_size=1, max_size=5), st.text(max_size=4))
    def test_any_strings(self, choices: list[str], other: str) -> None:
        grammar = Grammar.from_choices(choices)
        assert all(grammar.accepts(choice) for choice in choices)
        assert grammar.accepts(other) == (other in choices)

    def test_many(self) -> None:
        grammar = Grammar.from_choices(f"choice {number:05}" for number in range(5000))
        assert grammar.accepts("choice 04999")
        assert not grammar.accepts("choice 05000")

    def test_refused(self) -> None:
        with pytest.raises(GrammarError, match="no choices"):
            Grammar.from_choices([])
        with pytest.raises(GrammarError, match="choice 1 holds a lone surrogate"):
            Grammar.from_choices(["a", "\udc00"])
        with pytest.raises(TypeError, match="not one string"):
            Grammar.from_choices("abc")
        with pytest.raises(TypeError, match="int"):
            Grammar.from_choices(["a", 1])  # type: ignore[list-item]


class TestBuiltin:
    def test_json(self) -> None:
        grammar = Grammar.builtin("json")
        for text in ('{"a": [1, 2.5e-3, true, null, "\\u00e9é"]}', " [ ] ", "0", '""', "\t{}\n"):
            assert grammar.accepts(text), text
        for text in ("", "01", "{a: 1}", "[1,]", "'a'", '"\t"', "NaN", "[1] x", '"\\x"', "\ufeff{}", "\v1"):
            assert not grammar.accepts(text), text

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        ),
        st.booleans(),
    )
    def test_whatever_json_writes(self, value: object, ascii_only: bool) -> None:
        text = json.dumps(value, ensure_ascii=ascii_only, indent=1 if ascii_only else None)
        assert Grammar.builtin("json").accepts(text)

    def test_unknown(self) -> None:
        with pytest.raises(GrammarError, match="no built-in grammar 'klingon'"):
            Grammar.builtin("klingon")


class TestRules:
    def test_operators_become_productions(self) -> None:
        rules = {
            "start": Sequence((Repeat(Leaf(0), 2, None), Choice((Leaf(1), Sequence(()))), Reference("other"))),
            "other": Repeat(Sequence((Leaf(0), Leaf(1))), 0, 2),
        }
        assert flatten(rules) == {
            "start": ((0, 0, "start.1", "start.2", "other"),),
            "start.1": ((), ("start.1", 0)),
            "start.2": ((1,), ()),
            "other": (("other.3",),),
            "other.1": ((0, 1),),
            "other.2": ((), ("other.1",)),
            "other.3": ((), ("other.1", "other.2")),
        }

    def test_names_that_are_taken_are_skipped(self) -> None:
        flat = flatten({"a": Repeat(Leaf(0), 0, None), "a.1": Leaf(1)})
        assert flat == {"a": (("a.2",),), "a.1": ((1,),), "a.2": ((), ("a.2", 0))}

    def test_impossible_bounds(self) -> None:
        with pytest.raises(GrammarError, match="at least 3 and at most 2"):
            flatten({"a": Repeat(Leaf(0), 3, 2)})

    def test_only_what_is_needed_is_kept(self) -> None:
        terminals = Terminals()
        a, b, c = (terminals.add(Terminal("literal", text, name="")) for text in (b"a", b"b", b"c"))
        assert terminals.add(Terminal("literal", b"b", name="")) == b
        rules = {"start": Choice((b, c)), "unused": a}
        grammar = assemble(terminals, rules, "start", "munch", [c.terminal])
        assert [terminal.text for terminal in grammar.terminals] == [b"b", b"c"]
        assert grammar.rules == {"start": ((0,), (1,))}
        assert grammar.ignored == (1,)

    @pytest.mark.parametrize(
        ("terminal", "lexing", "message"),
        [
            (Terminal("regex", "(", name="PAREN"), "free", ""),
            (Terminal("regex", "a*", name="STAR"), "munch", "STAR"),
        ],
    )
    def test_terminals_that_are_wrong(self, terminal: Terminal, lexing: str, message: str) -> None:
        with pytest.raises(GrammarError, match=message or "."):
            StaticGrammar((terminal,), {"start": ((0,),)}, "start", lexing).source()  # type: ignore[arg-type]

    def test_json_and_back(self) -> None:
        terminals = (
            Terminal("literal", b"\xff", name="x"),
            Terminal("regex", "é", 2, "y", 3),
            Terminal("special", "<s>"),
        )
        grammar = StaticGrammar(terminals, {"start": ((0, "b"), ()), "b": ((1, 2),)}, "start", "munch", (1,))
        assert StaticGrammar.from_json(json.loads(json.dumps(grammar.to_json()))) == grammar
