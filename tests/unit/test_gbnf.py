"""GBNF: what llama.cpp and XGrammar accept, what each character means, and where errors are."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guiderail import Grammar
from guiderail.errors import GrammarError, LimitError
from guiderail.grammars.gbnf import parse_gbnf
from guiderail.grammars.regular import MAX_POSITIONS, escape_text
from oracles import context_free, random_grammars

# (grammar, texts of the language, texts that are not)
ACCEPTED: list[tuple[str, list[str], list[str]]] = [
    ('root::="a"', ["a"], ["", "aa", "b"]),
    ('root ::= ("a" | )', ["a", ""], ["aa"]),
    ('root ::= "a" |', ["a", ""], ["aa"]),
    ('root ::=\n | "a"\n | "b"', ["a", "b", ""], ["ab"]),
    ("root ::=", [""], ["a"]),
    ('root ::= ()"a"()', ["a"], [""]),
    ('root ::= "" "a"', ["a"], [""]),
    ('root ::= "a"{2}', ["aa"], ["a", "aaa"]),
    ('root ::= "a"{2,}', ["aa", "aaaaa"], ["a"]),
    ('root ::= "a"{ 1 , 2 }', ["a", "aa"], ["", "aaa"]),
    ('root ::= "a"{0} "b"', ["b"], ["ab"]),
    ('root ::= "a"+*', ["", "a", "aaa"], ["b"]),
    ('root ::= ("a"? "b")+', ["b", "ab", "bab"], ["", "a", "aab"]),
    ("root ::= [a-c]", ["a", "b", "c"], ["d", "-"]),
    ("root ::= [a-]", ["a", "-"], ["b"]),
    ("root ::= [-a]", ["a", "-"], ["b"]),
    ("root ::= [^a-c]", ["d", "-", "é", "\n", "😀"], ["a", "b", "", "dd"]),
    ("root ::= [^]", ["x", "\n", "😀"], [""]),
    ('root ::= [] | "b"', ["b"], ["", "a"]),
    (r"root ::= [\]\[\-\\\"^]", ["]", "[", "-", "\\", '"', "^"], ["a"]),
    (r"root ::= [\x41-\x43é\u4e00-\u9fff\U0001F600]", ["A", "C", "é", "中", "😀"], ["D", "e", "😁"]),
    ("root ::= [\ud7ff-\ue000]", ["\ud7ff", "\ue000"], ["a"]),
    ("root ::= .", ["a", "\n", "é", "😀"], ["", "ab"]),
    ('root ::= "a".*', ["a", "abc\n"], ["b"]),
    (r'root ::= "\n\t\r\\\"\[\]\x41\u00e9\U0001f600\a\b\f\v\0\e\'\?\/"', ["\n\t\r\\\"[]Aé😀\a\b\f\v\0\x1b'?/"], [""]),
    ('root ::= "a\nb"', ["a\nb"], ["ab"]),
    ('# comment\nroot ::= "a" # another "x"\n  "b"\n# and one', ["ab"], ["a"]),
    ('root ::= a-b a_c 1d\na-b ::= "x"\na_c ::= "y"\n1d ::= "z"', ["xyz"], ["x"]),
    ('root ::= a.b\na.b ::= "x"', ["x"], ["axb"]),
    ('root ::= a.b\na ::= "x"\nb ::= "y"', ["x?y", "x\ny"], ["xy"]),
    ('root ::= "a" (="b") "b"', ["ab"], ["a", "abb"]),
    ('root ::= root "a" | "b"', ["b", "ba", "baaa"], ["a", "ab"]),
    ('root ::= "(" root ")" | ', ["", "(())"], ["(", "())"]),
    ('root ::= x y\nx ::= y | "a"\ny ::= "b"? | x', ["", "a", "ab", "ba", "aa", "bb"], ["aaa", "c"]),
    ('root ::= "a"\nunused ::= undefined-is-checked-too | "x"\nundefined-is-checked-too ::= "y"', ["a"], ["x"]),
]


@pytest.mark.parametrize(("text", "members", "others"), ACCEPTED, ids=[text for text, _, _ in ACCEPTED])
def test_what_is_accepted_and_what_it_means(text: str, members: list[str], others: list[str]) -> None:
    grammar = Grammar.from_gbnf(text)
    for member in members:
        assert grammar.accepts(member), member
        assert all(grammar.accepts_prefix(member.encode()[:end]) for end in range(len(member.encode())))
    for other in others:
        assert not grammar.accepts(other), other


# (grammar, part of the message, line, column)
REFUSED: list[tuple[str, str, int | None, int | None]] = [
    ("", "no rule 'root'", None, None),
    ('start ::= "a"', "no rule 'root'", None, None),
    ('root ::= "a"\n   b ::= c', "rule 'c' is not defined", 2, 10),
    ('root ::= x.y\nx ::= "a"', "rule 'y' is not defined", 1, 12),
    ('root ::= "a"\nroot ::= "b"', "defined twice", 2, 1),
    ('root ::= "a', "not closed", 1, 12),
    ("root ::= [a", "not closed", 1, 12),
    ('root ::= ("a"', "')' was expected", 1, 14),
    ('root ::= "a")', "unexpected ')'", 1, 13),
    ("root ::= +", "nothing to repeat", 1, 10),
    ('root ::= ("a" | *)', "nothing to repeat", 1, 17),
    ("root ::= [z-a]", "wrong order", 1, 11),
    ('root ::= "a"{5,2}', "wrong order", 1, 13),
    ('root ::= "a"{2 3}', "comma", 1, 13),
    ('root ::= "a"{,3}', "unexpected '{'", 1, 13),
    ("root ::= 'a'", 'unexpected "\'"', 1, 10),
    ("root ::= /a/", "unexpected '/'", 1, 10),
    (r'root ::= "\q"', r"unknown escape \q", 1, 11),
    (r"root ::= [\w]", r"unknown escape \w", 1, 11),
    (r'root ::= "\u12"', "4 hexadecimal digits", 1, 11),
    (r'root ::= "\U00110000"', "beyond the last code point", 1, 11),
    (r'root ::= "\ud83d"', "surrogate", 1, 11),
    ('root ::= "a"\n"b" ::= "c"', "unexpected '::='", 2, 5),
    ("root", "'::=' was expected", 1, 5),
    ('root ::= TagDispatch(("a", b))', r"TagDispatch(…) is not supported", 1, 10),
    ("root ::= Token(5)", r"Token(…) is not supported", 1, 10),
    ("root ::= <[12]>", "by its number", 1, 10),
    ("root ::= !<x>", "any token but one", 1, 10),
]


@pytest.mark.parametrize(("text", "message", "line", "column"), REFUSED, ids=[text for text, *_ in REFUSED])
def test_what_is_refused_and_where(text: str, message: str, line: int | None, column: int | None) -> None:
    with pytest.raises(GrammarError, match=re.escape(message)) as caught:
        Grammar.from_gbnf(text)
    assert (caught.value.line, caught.value.column) == (line, column)


@pytest.mark.parametrize("text", ["root ::= root", 'root ::= "a" root', "root ::= []", "root ::= x\nx ::= x | []"])
def test_an_empty_language_is_refused(text: str) -> None:
    with pytest.raises(GrammarError, match="empty"):
        Grammar.from_gbnf(text)


def test_the_start_rule_can_be_named() -> None:
    assert Grammar.from_gbnf('a ::= "x" b\nb ::= "y"', root="a").accepts("xy")


def test_readings_that_differ_between_engines_are_reported() -> None:
    report = Grammar.from_gbnf('root ::= "\\x41b" (="c")').report
    assert [(row.place, row.status) for row in report] == [
        ("offset 10", "annotation"),
        ("root", "annotation"),
        ("root", "enforced"),
    ]
    assert "two digits" in report[0].reason
    assert Grammar.from_gbnf('root ::= "\\x41b"').accepts("Ab")


def test_special_tokens_are_symbols_of_their_own() -> None:
    grammar, _ = parse_gbnf('root ::= <think> "x" </think>')
    assert [(terminal.kind, terminal.text) for terminal in grammar.terminals] == [
        ("special", "<think>"),
        ("literal", b"x"),
        ("special", "</think>"),
    ]
    assert not Grammar.from_gbnf('root ::= <think> "x" </think>').accepts("<think>x</think>")


def test_rules_without_recursion_become_terminals() -> None:
    text = r"""
    root   ::= value
    value  ::= array | string | number
    array  ::= "[" ws (value ("," ws value)*)? "]" ws
    string ::= "\"" ([^"\\] | "\\" ["\\nt])* "\"" ws
    number ::= "-"? ([0-9] | [1-9] [0-9]*) ws
    ws     ::= [ \t\n]*
    """
    grammar, _ = parse_gbnf(text)
    names = [terminal.name for terminal in grammar.terminals]
    assert {"string", "number"} <= set(names)
    assert set(grammar.rules) >= {"root", "value", "array"}
    assert not {"string", "number", "ws"} & set(grammar.rules)
    accepted = Grammar.from_gbnf(text)
    assert accepted.accepts('[ "a\\"b", -12 , [], [[ 0] ]]')
    assert not accepted.accepts("[01]")


def test_a_long_rule_stays_a_rule() -> None:
    text = "root ::= " + " ".join(f'"{i:03}" [x-z]*' for i in range(MAX_POSITIONS))
    grammar, _ = parse_gbnf(text)
    assert len(grammar.terminals) > 1
    member = "".join(f"{i:03}{'xyz' * (i % 3)}" for i in range(MAX_POSITIONS))
    assert Grammar.from_gbnf(text).accepts(member)
    assert not Grammar.from_gbnf(text).accepts(member[1:])


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 255, 256, 257, 300, 1000])
def test_counts_of_what_cannot_be_a_terminal(count: int) -> None:
    """A recursive body is repeated by rules: chains, and powers of two where chains would be long."""
    grammar = Grammar.from_gbnf(f'root ::= x{{0,{count}}}\nx ::= "(" x ")" | "."')
    exact = Grammar.from_gbnf(f'root ::= x{{{count}}} "!"\nx ::= "(" x ")" | "."')
    for length in {0, 1, count // 2, count - 1, count, count + 1, 2 * count} - {-1}:
        assert grammar.accepts("." * length) == (length <= count)
        assert grammar.accepts_prefix("." * length) == (length <= count)
        assert exact.accepts("." * length + "!") == (length == count)
    if count:
        assert grammar.accepts("((.))" + "." * (count - 1))


@pytest.mark.parametrize(
    "text",
    [
        "root ::= " + "(" * 100_000 + '"a"' + ")" * 100_000,
        'root ::= "a"{99999999999}',
        'root ::= "a"{0,4294967296}',
    ],
    ids=["nested groups", "eleven digits", "2^32"],
)
def test_hostile_grammars_meet_a_limit(text: str) -> None:
    with pytest.raises(LimitError):
        parse_gbnf(text)


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(f"r{i} ::= r{i + 1} r{i + 1}" for i in range(40)) + '\nr40 ::= "a" |\nroot ::= r0',
        "\n".join(f'r{i} ::= r{i + 1} "a"?' for i in range(3000)) + '\nr3000 ::= "a"\nroot ::= r0',
        "root ::= " + " | ".join(f'"word{i}"' for i in range(20_000)),
        'root ::= (root "a"){1000000} | "x"',
    ],
    ids=["doubling", "a long chain of rules", "many alternatives", "a million repeats"],
)
def test_large_grammars_are_read(text: str) -> None:
    grammar, _ = parse_gbnf(text)
    symbols = sum(len(alternative) for rule in grammar.rules.values() for alternative in rule)
    assert symbols + sum(len(terminal.text) for terminal in grammar.terminals) < 20 * len(text)


@pytest.mark.parametrize("seed", range(150))
def test_random_grammars_mean_what_a_textbook_recogniser_says(seed: int) -> None:
    rng = random.Random(seed)
    grammar = random_grammars.random_grammar(rng)
    if context_free.is_empty(grammar):
        with pytest.raises(GrammarError, match="empty"):
            Grammar.from_gbnf(random_grammars.to_gbnf(grammar))
        return
    ours = Grammar.from_gbnf(random_grammars.to_gbnf(grammar))
    parser = context_free.Earley(grammar)
    texts = [bytes(rng.choices(b"ab", k=rng.randint(0, 7))) for _ in range(20)]
    for text in [*texts, *random_grammars.random_viable_texts(rng, grammar, 10, 10)]:
        after = parser.read(text)
        assert ours.accepts(text) == after.accepting, text
        assert ours.accepts_prefix(text) == after.viable, text


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_escaped_text_matches_itself(text: str) -> None:
    assert re.fullmatch(escape_text(text), text) is not None
    assert re.fullmatch(f"[{escape_text(text)}]*" if text else "", text) is not None


@given(st.text('ab"[]()|*+?{}0123,.:=-^\\nx#<>! \n', max_size=40))
def test_any_text_is_a_grammar_or_an_error_with_its_place(text: str) -> None:
    for grammar in (text, "root ::= " + text):
        problem = refusal(grammar)
        # A rule that is missing as a whole has no place; everything else has.
        assert problem is None or problem.line is not None or "no rule 'root'" in problem.message


def refusal(text: str) -> GrammarError | None:
    try:
        parse_gbnf(text)
    except GrammarError as error:
        return error
    except LimitError:
        return None
    return None
