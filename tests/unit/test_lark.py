"""Lark grammars: what Lark reads means the same here, up to the lexer, and errors say where."""

from __future__ import annotations

import random
import re
from pathlib import Path

import lark
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guiderail import Grammar
from guiderail.errors import GrammarError, LimitError
from guiderail.grammars.lark import parse_lark

COMMON = """
start: statement*
statement: NAME "=" value ";" -> assignment
         | "print" value ";"
?value: NUMBER | NAME | ESCAPED_STRING | "(" value ("," value)* ")"
%import common.CNAME -> NAME
%import common.NUMBER
%import common.ESCAPED_STRING
%import common.WS
%import common.SH_COMMENT
%ignore WS
%ignore SH_COMMENT
"""

# (grammar, texts of the language, texts that are not)
ACCEPTED: list[tuple[str, list[str], list[str]]] = [
    (
        COMMON,
        ["", "a = 1;", 'print ("x", y, 2.5e3) ;', "a=b;# comment\nb=a;", "printer = 1;", " \n"],
        ["a = ;", "a 1;", "print", "a = 1"],
    ),
    ('start: "a" ["b"] "c"?', ["a", "ab", "ac", "abc", ], ["", "b"]),
    ('start: "a"~2 "b"~1..3', ["aab", "aabbb"], ["ab", "aa", "aabbbb"]),
    ('start: ("a" | "b" "c")+', ["a", "bc", "abca"], ["", "b"]),
    ('!start: "IF"i _x\n_x: "y" | ', ["IF", "if", "iFy"], ["IFY"]),
    ('start: /[a-c]+/i "."\n', ["a.", "ABC."], [".", "d."]),
    ('start: /a b # comment\n c/x', ["abc"], ["a b c"]),
    ('start: /a.b/s', ["a\nb"], ["ab"]),
    ('start: "0".."9" "\\u00e9" "\\n" /\\//', ["7é\n/"], ["7e\n/"]),
    ('start: x\nx: "(" x ")" | "."', [".", "((.))"], ["", "(."]),
    ('start: start "a" | "b"', ["b", "baa"], ["a"]),
    ("start: list{NUM, \",\"}\nlist{item, sep}: item (sep item)*\nNUM: /[0-9]/", ["1", "1,2,3"], ["", "1,", "12"]),
    ('start: pair{_w{"a"}}\npair{x}: x x\n_w{y}: "<" y ">"', ["<a><a>"], ["<a>"]),
    ('start: A B\nA.2: "a" | "ab"\nB: /b+/', ["abb", "ab" "b"], ["a"]),
    ("start: A\nA: B ~ 2 | C\nB: \"b\"\nC: \"c\"+", ["bb", "c", "cc"], ["b", ""]),
    ('start: "a" "b"\n%ignore " "\n%ignore /\\t/', ["ab", " a \t b "], ["a_b"]),
    ('start: a\na: "x"\n%extend a: "y"\n', ["x", "y"], ["xy"]),
    ('start: "a"?' * 1 + ' "a"?' * 20, ["", "aaa"], ["b", "a" * 22]),
    ("start: /\\p{Lu}/", ["A", "É"], ["a", "1"]),
    ("start: A\nA: /a|ab/", ["a"], ["ab"]),  # each terminal matches as its expression says, leftmost alternative first
    ('start: S S\nS: /".*?"/', ['"x""y"'], ['"x"y"', '"x"']),
    (
        "start: (ESCAPED_STRING | C_COMMENT)*\n%import common.ESCAPED_STRING\n%import common.C_COMMENT",
        ['"a\\\"b"/* x * y*/"x"', ""],
        ['"a', '"a"b"', "/*/", "/**/*/"],
    ),
    ("start: WORD\nWORD: /\\p{L}/ | \"_\"", ["é", "_"], ["1"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "members", "others"), ACCEPTED, ids=[text[:40] for text, _, _ in ACCEPTED])
def test_what_is_accepted_and_what_it_means(text: str, members: list[str], others: list[str]) -> None:
    grammar = Grammar.from_lark(text)
    for member in members:
        assert grammar.accepts(member), member
        assert all(grammar.accepts_prefix(member.encode()[:end]) for end in range(len(member.encode())))
    for other in others:
        assert not grammar.accepts(other), other


# (grammar, part of the message, line, column)
REFUSED: list[tuple[str, str, int | None, int | None]] = [
    ("start: b", "'b' used but not defined", 1, 8),
    ("start: A", "'A' used but not defined", 1, 8),
    ('begin: "a"', "no rule 'start'", None, None),
    ('start: "a', "Unexpected input", 1, 8),
    ('start: "x" (', "Unclosed parenthesis", 1, 13),
    ('start: "x"\n\nfoo bar: "y"', "Unexpected token", 3, 5),
    ('start: ""', "Empty terminals", 1, 8),
    ('start: A\nA: ""', "Empty terminals", 1, 8),
    ("start: A\nA: A", "Recursion in terminal 'A'", 1, 8),
    ("start: A\n%declare A", "only declared", 1, 8),
    ('start: "a"~3..2', "wrong order", 1, 11),
    ('start: A\nA: /(/ | "b"', "terminal A", 1, 8),
    ("%import nothing.X\nstart: X", "cannot import 'nothing'", 1, 9),
    ('start: x\nx: "a"\nx: "b"', "defined more than once", 1, 8),
    ('start: t\nt{x}: x "a"', "without arguments", 1, 8),
    ("start: /a/l", "locale", 1, 8),
    ("start: A\nA: /a/l", "locale", 1, 8),
    ('start: a\n%extend a: "y"\na: "x"', "extend rule a", 1, 8),
]


@pytest.mark.parametrize(("text", "message", "line", "column"), REFUSED, ids=[text for text, *_ in REFUSED])
def test_what_is_refused_and_where(text: str, message: str, line: int | None, column: int | None) -> None:
    with pytest.raises(GrammarError, match=re.escape(message)) as caught:
        Grammar.from_lark(text)
    assert (caught.value.line, caught.value.column) == (line, column)


@pytest.mark.parametrize(
    ("text", "message", "line", "column"),
    [
        (
            'start: "x" A\nA: /a(?P=n)/',
            "terminal A: backreferences are not supported: (?P=name), at character 1",
            1,
            12,
        ),
        ('start: "x"\n  | /(/', "terminal /(/: this group is never closed, at character 0", 2, 5),
        ("start: A\nA: /a*/", "A", 1, 8),
    ],
)
def test_expressions_that_only_the_core_refuses(text: str, message: str, line: int, column: int) -> None:
    with pytest.raises(GrammarError, match=re.escape(message)) as caught:
        Grammar.from_lark(text)
    assert (caught.value.line, caught.value.column) == (line, column)


@pytest.mark.parametrize("text", ["start: start", 'start: "a" start', 'start: x "b"\nx: "a" x'])
def test_an_empty_language_is_refused(text: str) -> None:
    with pytest.raises(GrammarError, match="empty"):
        Grammar.from_lark(text)


@pytest.mark.parametrize("text", ["start: /a*/", 'start: A\nA: "a"?'])
def test_terminals_that_can_be_empty_are_refused(text: str) -> None:
    with pytest.raises(GrammarError, match="empty"):
        Grammar.from_lark(text)


def test_an_unknown_lexer_is_an_error() -> None:
    with pytest.raises(ValueError, match="lexer must be one of munch"):
        Grammar.from_lark('start: "a"', lexer="basic")


def test_another_start_rule() -> None:
    assert Grammar.from_lark('a: "x" b\nb: "y"', start="b").accepts("y")


def test_files_and_their_imports(tmp_path: Path) -> None:
    (tmp_path / "main.lark").write_text('start: "<" word ">"\n%import .words.word\n', encoding="utf-8")
    (tmp_path / "words.lark").write_text('word: LETTER+\nLETTER: "a".."c" | "é"\n', encoding="utf-8")
    for path in (tmp_path / "main.lark", str(tmp_path / "main.lark")):
        assert Grammar.from_lark(path).accepts("<abé>")
    with pytest.raises(OSError, match=r"missing\.lark"):
        Grammar.from_lark(tmp_path / "missing.lark")


def test_ties_go_to_priority_then_strings_then_definition() -> None:
    static, _ = parse_lark(
        'start: (NAME | "if" | OTHER | HIGH | LOW)+\nNAME: /[a-z]+/\nOTHER: /[a-z]+/\nHIGH.3: /i./\nLOW.-1: "x"'
    )
    ranked = sorted(zip(static.priorities(), static.terminals, strict=True), key=lambda pair: -pair[0])
    assert [terminal.name for _, terminal in ranked] == ["HIGH", '"if"', "NAME", "OTHER", "LOW"]
    assert len(set(static.priorities())) == len(static.terminals)


def test_the_longest_terminal_wins() -> None:
    grammar = Grammar.from_lark('start: "if" NAME | NAME "=" NAME\nNAME: /[a-z]+/\n%ignore " "')
    assert grammar.accepts("if x")
    assert grammar.accepts("ifx=y")
    assert not grammar.accepts("ifx")  # one NAME, although "if" and "x" would fit
    assert not grammar.accepts("if=y")  # the keyword, although a NAME would fit


def test_unused_rules_and_terminals_do_not_compete() -> None:
    static, _ = parse_lark('start: "ab" C\nunused: EVERYTHING\nEVERYTHING: /.+/\nC: "c"')
    assert [terminal.text for terminal in static.terminals] == [b"c", b"ab"]
    assert Grammar.from_lark('start: "ab" C\nunused: EVERYTHING\nEVERYTHING: /.+/\nC: "c"').accepts("abc")


def test_what_shapes_only_the_tree_is_reported() -> None:
    report = Grammar.from_lark('start: a | b\na.2: "x" -> y\nb: "y"').report
    assert ("a", "annotation") in [(row.place, row.status) for row in report]
    assert {row.place for row in report if row.status == "enforced"} == {"start", "a", "b"}


@pytest.mark.parametrize(
    "text",
    [
        "start: A\n" + "\n".join(f"A{i or ''}: A{i + 1} A{i + 1}" for i in range(40)) + '\nA40: "x"\n',
        "start: " + "(" * 400 + '"a"' + ")" * 400,
        'start: a{"x"}\na{b}: a{a{b}}',
        'start: "a"~99999999999',
    ],
    ids=["doubling terminals", "nested groups", "endless templates", "eleven digits"],
)
def test_hostile_grammars_meet_a_limit(text: str) -> None:
    with pytest.raises(LimitError):
        parse_lark(text)


@pytest.mark.parametrize("count", [0, 1, 5, 300])
def test_counted_repeats(count: int) -> None:
    grammar = Grammar.from_lark(f'start: x~0..{count} "!"\nx: "a" | "(" x ")"')
    for length in {0, 1, count - 1, count, count + 1} - {-1}:
        assert grammar.accepts("a" * length + "!") == (length <= count)


def random_lark(rng: random.Random) -> str:
    """A grammar whose terminals cannot be confused, so that every lexer cuts a text alike."""
    terminals = ['"a"', '"b"', "NUM", '"+"i', "[NUM]"]
    names = ["start", "x", "y"][: rng.randint(1, 3)]

    def item(depth: int) -> str:
        if depth and rng.random() < 0.4:
            body = " | ".join(
                " ".join(item(depth - 1) for _ in range(rng.randint(1, 2))) for _ in range(rng.randint(1, 3))
            )
            return f"({body}){rng.choice(['', '', '?', '*', '+', '~2'])}"
        return rng.choice([*terminals, *terminals, *names, '"(" start ")"'])

    rules = [f"{name}: {item(2)} {item(1)} | {rng.choice(terminals)}" for name in names]
    return "\n".join([*rules, "NUM: /[0-9]+/", '%ignore " "'])


@pytest.mark.parametrize("seed", range(60))
def test_lark_itself_agrees(seed: int) -> None:
    """Lark's Earley parser over its basic lexer, on grammars whose terminals do not overlap."""
    rng = random.Random(seed)
    reference = None
    while reference is None:
        text = random_lark(rng)
        try:
            reference = lark.Lark(text, parser="earley", lexer="basic", ambiguity="resolve")
        except lark.exceptions.GrammarError:
            parse_lark(text)  # 'Rules defined twice' is a limit that we do not share
    ours = Grammar.from_lark(text)
    samples = ["".join(rng.choices("ab1+( )", k=rng.randint(0, 6))) for _ in range(40)]
    for sample in samples:
        try:
            reference.parse(sample)
        except lark.exceptions.UnexpectedInput:
            assert not ours.accepts(sample), (text, sample)
        else:
            assert ours.accepts(sample), (text, sample)


@given(st.text('aAB:"/|()[]*+?~.{},%\n\\_ 12', max_size=40))
def test_any_text_is_a_grammar_or_an_error(text: str) -> None:
    for grammar in (text, "start: " + text + '\nA: "a"\nB: /b/\na: "c"\n'):
        try:
            parse_lark(grammar)
        except (GrammarError, LimitError):
            continue
        except OSError:
            assert grammar.endswith(".lark")
