"""Modes of longest match (`%mode`); against lexing by definition in tests/exhaustive/test_munch.py."""

from __future__ import annotations

import pytest

import guiderail as gr
from oracles import laws

STRINGS = r"""
start: item+
item: NAME | "{" item* "}" | string
string: OPEN (TEXT | FIELD item+ END_FIELD)* CLOSE
NAME: /[a-z]+/
OPEN: "f'"
TEXT: /(?:[^{}'\n]|\{\{|\}\})+/
FIELD: "{"
END_FIELD: "}"
CLOSE: "'"
%ignore / +/
%mode text: TEXT FIELD CLOSE
%mode end ignoring: END_FIELD
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("f'it s {a b} {{x}} '", True),
        ("f'{ {a} }'", True),  # the brace after the blank is the expression's
        ("f'a{b f'c{d}e' }'", True),
        ("f'{{{a}}}'", True),
        ("f'  ' ", True),
        ("a f'' b", True),
        ("f'{{a}'", False),  # two braces are the longer match
        ("f'{a}}'", False),
        ("f ''", False),
        ("f'{}'", False),
        ("fx'a'", False),
    ],
)
def test_each_mode_has_its_longest_match(text: str, expected: bool) -> None:
    assert gr.Grammar.from_lark(STRINGS).accepts(text) is expected


def test_masks_and_a_saved_grammar(tmp_path) -> None:  # type: ignore[no-untyped-def]
    grammar = gr.Grammar.from_lark(STRINGS)
    tokens = [b"f'", b"f", b"'", b"{", b"{{", b"{ {", b"}", b"}}", b" ", b"ab", b" }'", b"x{", b""]
    vocabulary = gr.Vocabulary.from_bytes(tokens, eos_token_ids=[len(tokens) - 1])
    compiled = gr.compile(grammar, vocabulary)
    compiled.save(tmp_path / "strings")
    loaded = gr.CompiledGrammar.load(tmp_path / "strings", vocabulary)
    for text in ["", "f'", "f'x", "f'{", "f'{ab", "f'{ab ", "f'{ {", "f'{{", "f'{ab}", "f'{ab}'", "ab"]:
        expected = {i for i, token in enumerate(tokens[:-1]) if grammar.accepts_prefix(text.encode() + token)}
        expected |= {len(tokens) - 1} if grammar.accepts(text) else set()
        for made in (compiled, loaded):
            assert laws.allowed(made.matcher(prefix=text.encode()), len(tokens)) == expected, text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("%mode a: A\n%mode b: A", "terminal A is of two modes"),
        ("%mode a: A\n%mode a: B", "mode a is defined twice"),
        ("%mode a: X", "terminal X, which %mode names, is not defined"),
        ("%mode a: W", "terminal 'W' is ignored"),
        ("%mode a: L", "terminal 'L' looks past its end"),
        ("%mode a: C", "terminal 'B' may be followed by terminals that ignored ones may stand before, and by others"),
        ("%mode a: B", "the text may begin with terminals that ignored ones may stand before, and with others"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    grammar = 'start: B (A | B C | L)*  | A\nC: "c"\nA: "a"\nB: "b"\nL: /c(?!a)/\nW: " "\n%ignore W\n' + text
    with pytest.raises(gr.errors.GrammarError, match=message):
        gr.Grammar.from_lark(grammar)


def test_modes_need_longest_match() -> None:
    with pytest.raises(gr.errors.GrammarError, match="need lexer='munch'"):
        gr.Grammar.from_lark('start: A\nA: "a"\n%mode a: A', lexer="lark-dynamic")


@pytest.mark.parametrize(
    "text", ["x = '{}'\n", "x = b'{}'\n", "# {}\n", "x = r'''{}'''\n", "x = f'{}'\n", "x = '\\{}'\n"]
)
def test_no_python_program_holds_a_null(text: str) -> None:
    grammar = gr.Grammar.builtin("python")
    assert grammar.accepts(text.replace("{}", "\x01"))
    assert not grammar.accepts(text.replace("{}", "\x00"))


@pytest.mark.parametrize("text", ['var x = "{}"\n', "var x = `{}`\n", "//{}\n", "/*{}*/\n", "var x = '{}'\n"])
def test_no_go_program_holds_a_null(text: str) -> None:
    grammar = gr.Grammar.builtin("go")
    assert grammar.accepts("package a\n" + text.replace("{}", "\x01"))
    assert not grammar.accepts("package a\n" + text.replace("{}", "\x00"))
    assert not grammar.accepts("package a\n" + text.replace("{}", "\ufeff"))


# After a lexeme that takes line breaks into itself, a semicolon is a written one (judged by `gofmt -e`).
@pytest.mark.parametrize(
    ("body", "valid"),
    [
        ("", True), (";\n;", True), ("a:", True), ("a:;", True), ("a: b: x\n;y", True), ("a:\n;b:\nx", True),
        ("switch x { case y:; z: case w: }", False), ("switch x { case y:; z:; case w: }", True),
        ("switch ; { default: ; }", True), ("for ;; {}", True), ("for ;\nx\n{}", True),
        ("for ;\n\n{}", False), ("for x\n;{}", True),
        ("if ;x {}", True), ("if x\nx {}", True), ("x y", False), ("a: }", False),
    ],
)  # fmt: skip
def test_go_statements_that_are_empty(body: str, valid: bool) -> None:
    assert gr.Grammar.builtin("go").accepts("package a\nfunc f() {" + body + "}\n") == valid


@pytest.mark.parametrize("text", ["SELECT 1 --{}", "SELECT 1 /*{}*/"])
def test_no_sql_comment_holds_a_null(text: str) -> None:
    grammar = gr.Grammar.builtin("sql")
    assert grammar.accepts(text.replace("{}", "\x01"))
    assert not grammar.accepts(text.replace("{}", "\x00"))


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("int é;", True), ("int a\u0300;", True), ("int \u0300;", False), ("int a\u2028b;", False), ("int 名;", True),
        ("int \x80;", False), ('char *a = "b\rc";', False), ("int a; // b\rint c;", True), ("int a; // b\rc", False),
    ],
)  # fmt: skip
def test_c_names_and_line_breaks_are_those_of_gcc(text: str, valid: bool) -> None:
    assert gr.Grammar.builtin("c").accepts(text) == valid
