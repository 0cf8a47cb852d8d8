"""Lark's own lexers against the library: `lark.Lark` with the parser and lexer of each mode is the oracle.

Every string over a small alphabet up to a length is asked of both. A short prefix must be viable exactly if the library
accepts a string that begins with it; each grammar says up to which length all completions are among the strings asked.
"""

from __future__ import annotations

import itertools
import json
from typing import ClassVar

import lark
import lark.indenter
import pytest

import guiderail as gr
from guiderail.errors import GrammarError, LimitError
from guiderail.grammars.lark import parse_lark
from guiderail.grammars.rules import StaticGrammar
from oracles import laws

MODES = {
    "lark-dynamic": {"parser": "earley", "lexer": "dynamic"},
    "lark-basic": {"parser": "earley", "lexer": "basic"},
    "lark-contextual": {"parser": "lalr", "lexer": "contextual"},
}

# Grammar, alphabet, longest string, longest prefix whose completions all stay within that length.
GRAMMARS = {
    "ordered alternatives": ("start: A B?\nA: /a|ab/\nB: /b+c?/", "abc", 6, 4),
    "alternatives that need what follows": ('start: A "c"? | A "b" "d"\nA: /(a|ab)(c|bcd)?/', "abcd", 6, 3),
    "keyword or name": ('start: IF NAME | NAME "=" NAME\nIF: "if"\nNAME: /[fi]+/\n%ignore " "', "if= ", 6, 3),
    "keyword without space": ('start: "if" NAME | NAME\nNAME: /[ifx]+/', "ifx", 6, 5),
    "names that touch": ("start: A A | A B\nA: /a+/\nB: /[ab]/", "ab", 7, 5),
    "both readings": ("start: (A | B)+ C\nA: /a+/\nB: /ab?/\nC: /b+c/", "abc", 7, 4),
    "lazy": ("start: Q Q?\nQ: /a.*?a/", "ab", 7, 4),
    "lazy, then greedy": ("start: A A\nA: /a+?b*/", "ab", 7, 5),
    "lookahead": ('start: A B | A "b"\nA: /a(?=b)|aa(?!b)/\nB: /b+/', "ab", 7, 4),
    "end of text": ("start: A+\nA: /a$|ab|b(?!b)/", "ab", 7, 4),
    "ignored in between": ('start: "a" start "b" | "c"\n%ignore /[ ]+/', "abc ", 6, 2),
    "ignored takes all": ('start: "a" B\nB: / ?b/\n%ignore /[ ]+/', "ab ", 7, 4),
    "ignored competes": ('start: "a" X\nX: /xy/\n%ignore /x/', "axy", 7, 3),
    "ignored lazily": ('start: "a" "b"\n%ignore /x+?/', "abx", 7, 4),
    "two ignored": ('start: N+\nN: /[0-9]+/\n%ignore " "\n%ignore /#[^#]*#/', "1 #", 7, 4),
    "nullable rules": ('start: x x\nx: | "a" x | B\nB: /b+/\n%ignore " "', "ab ", 6, 5),
    "nullable start": ('start: | start "a"\n%ignore " "', "a b", 6, 5),
    "left recursion": ('start: e\ne: e "+" e | N\nN: /1+/', "1+", 8, 6),
    "numbers and ranges": ('start: n ".." n\nn: I | F\nI: /1+/\nF: /1+\\.1*/', "1.", 8, 4),
    "priorities": ('start: A "b" | B "c"\nA.2: /a/\nB: /a+/', "abc", 6, 3),
    "case": ('start: "if"i X?\nX: /f/', "iIfF", 5, 3),
    "equal terminals": ('start: A "x" | B "y"\nA: /a+/\nB: /aa*/', "axy", 6, 4),
    "soft keyword": ('start: "if" NAME ":" | NAME "=" NAME\nNAME: /[if]+/\n%ignore " "', "if=: ", 5, 2),
    "by context": ('start: "a" B | "b" A\nA: /[ab]+/\nB: /[bc]+/', "abc", 6, 4),
    "text and tags": ('start: (x | y)+\nx: "<" N ">"\ny: T\nN: /[ab]+/\nT: /[^<]+/', "<ab>", 5, 3),
    "priority before length": ("start: A B C? | B C\nA.2: /a/\nB: /[ab]b?/\nC: /c|ab/", "abc", 6, 4),
    "names of one sort": ('start: "if"i N | N N?\nN: /[a-z]+/\n%ignore " "', "iIf ", 6, 4),
    "lists": ('start: v\nv: "[" [v ("," v)*] "]" | N | "n"\nN: /-?1+/\n%ignore " "', "[1,]-n", 5, 2),
    "ignored string of a pattern": ('start: N+\nN: /[ab]+/\n%ignore "ab"', "abc", 6, 5),
    "string of an ignored pattern": ('start: (X | "b")+\nX: "a"\nI: /[ac]+/\n%ignore I', "abc", 6, 5),
    "unused terminal": ("start: A+\nA: /a/\nB: /a+b/", "ab", 6, 5),
    "unused rules": ("start: A+\nA: /a/\nB: /a+b/\nx: y B\ny: x | B", "ab", 6, 5),
    "template": ('start: list{N}\nlist{x}: x ("," x)*\nN: /1+/', "1,", 7, 6),
    # Lexemes so broad that masks take their cached rows.
    "broad, greedy": ('start: W "b" | W " " W\nW: /[^ b]+/', "ab ", 7, 3),
    "broad, lazy": ('start: Q (Q | "x")\nQ: /".*?"/', '"ax', 7, 3),
    "broad, ordered": ('start: W "b"+ | "a"+ "c"\nW: /[^ab]+(ab)?|[^b]/', "abc", 7, 3),
    "broad, lookahead": ('start: W "b"+ | W "c"\nW: /[^b]+(?=b)|a+/', "abc", 7, 3),
}


# Lark reads them, we refuse: (lexer, grammar) → our words.
REFUSED = {
    ("lark-contextual", "nullable rules"): "there is a choice",  # x: | "a" x, twice
    ("lark-contextual", "left recursion"): "there is a choice",  # e: e "+" e
    ("lark-dynamic", "ignored string of a pattern"): None,
    ("lark-dynamic", "string of an ignored pattern"): None,
}
CASES = [(lexer, name) for lexer in MODES for name in GRAMMARS if REFUSED.get((lexer, name), "") is not None]


def read(lexer: str, name: str) -> gr.Grammar | None:
    """None for a grammar that must be refused, and is."""
    message = REFUSED.get((lexer, name))
    if message is None:
        return gr.Grammar.from_lark(GRAMMARS[name][0], lexer=lexer)
    with pytest.raises(GrammarError, match=message):
        gr.Grammar.from_lark(GRAMMARS[name][0], lexer=lexer)
    return None


@pytest.mark.parametrize(("lexer", "name"), CASES)
def test_same_language_as_lark(lexer: str, name: str) -> None:
    text, alphabet, length, prefix_length = GRAMMARS[name]
    parser = lark.Lark(text, **MODES[lexer])
    grammar = read(lexer, name)
    if grammar is None:
        return
    beginnings, accepted, refused = set(), 0, 0
    texts = ["".join(t) for n in range(length + 1) for t in itertools.product(alphabet, repeat=n)]
    for candidate in texts:
        expected = parses(parser, candidate)
        assert grammar.accepts(candidate) == expected, candidate
        accepted += expected
        refused += not expected
        if expected:
            beginnings.update(candidate[:n] for n in range(len(candidate) + 1))
    assert accepted
    assert refused
    for candidate in texts:
        if len(candidate) <= prefix_length:
            assert grammar.accepts_prefix(candidate) == (candidate in beginnings), candidate
        elif candidate in beginnings:
            assert grammar.accepts_prefix(candidate), candidate


def parses(parser: lark.Lark, text: str) -> bool:
    try:
        parser.parse(text)
    except (lark.exceptions.UnexpectedInput, lark.indenter.DedentError):
        return False
    return True


@pytest.mark.parametrize("every_byte", [False, True])
@pytest.mark.parametrize(("lexer", "name"), CASES)
def test_masks_allow_what_prefixes_allow(lexer: str, name: str, every_byte: bool) -> None:
    _, alphabet, _, prefix_length = GRAMMARS[name]
    grammar = read(lexer, name)
    if grammar is None:
        return
    tokens = ["".join(t).encode() for n in (1, 2, 3) for t in itertools.product(alphabet, repeat=n)]
    if every_byte:
        tokens += [bytes([b]) for b in range(256) if bytes([b]) not in tokens]
    end = len(tokens)
    compiled = gr.compile(grammar, gr.Vocabulary.from_bytes([*tokens, b""], eos_token_ids=[end]))
    for n in range(min(prefix_length, 3) + 1):
        for beginning in map("".join, itertools.product(alphabet, repeat=n)):
            matcher = compiled.matcher()
            if not all(matcher.accept_token(tokens.index(c.encode())) for c in beginning):
                assert not grammar.accepts_prefix(beginning)
                continue
            expected = {i for i, t in enumerate(tokens) if grammar.accepts_prefix(beginning.encode() + t)}
            if grammar.accepts(beginning):
                expected.add(end)
            assert laws.allowed(matcher, end + 1) == expected, beginning


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("start: A\nA: /a*/", "empty"),
        ('start: A " " A\nA: "a"\n%ignore " "', "ignored and stands in a rule"),
        ('start: A S A\nA: "a"\nS: /[ ]/\n%ignore " "', "ignored and stands in a rule"),
        ("start: A\nA: /(?<=b)a/", "lookbehind"),
        ("start: A _INDENT _DEDENT\nA: /a/\n_NL: /\\n/\n%declare _INDENT _DEDENT", "indentation"),
        ("start: A A\nA: /a+/", "empty"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(GrammarError, match=message):
        gr.Grammar.from_lark(text, lexer="lark-dynamic")


@pytest.mark.parametrize(
    ("lexer", "text", "message"),
    [
        ("lark-basic", "start: A\nA: /a*/", "empty|zero-width"),
        ("lark-contextual", 'start: x "c" | y "c"\nx: "a"\ny: "a"', "Reduce/Reduce|there is a choice"),
        ("lark-basic", "start: A A\nA.2: /a/\nB: /(?<=a)b/\n%ignore B", "lookbehind"),
        ("lark-basic", "start: A\n%declare A", "declared"),
        ("lark-contextual", "start: A _I _D\nA: /a/\n_NL: /\\n/\n%declare _I _D", "declared"),
    ],
)
def test_refused_by_ordered_lexers(lexer: str, text: str, message: str) -> None:
    with pytest.raises(GrammarError, match=message):
        gr.Grammar.from_lark(text, lexer=lexer)


def test_what_lark_would_multiply_out_is_refused() -> None:
    text = "start: " + " ".join(f'"{n}x"?' for n in range(60))
    assert gr.Grammar.from_lark(text).accepts("3x7x")
    with pytest.raises(LimitError, match="multiplies optional parts"):
        gr.Grammar.from_lark(text, lexer="lark-basic")


class Blocks(lark.indenter.Indenter):
    NL_type = "_NL"
    OPEN_PAREN_types: ClassVar[list[str]] = ["LPAR"]
    CLOSE_PAREN_types: ClassVar[list[str]] = ["RPAR"]
    INDENT_type = "_INDENT"
    DEDENT_type = "_DEDENT"
    tab_len = 8


@pytest.mark.parametrize("lexer", ["basic", "contextual"])
def test_blocks(lexer: str) -> None:
    text = (
        'start: (line | _NL)*\nline: N ["(" N* ")"] _NL [_INDENT line+ _DEDENT]\n'
        "N: /a/\n_NL: /\\n */\n%declare _INDENT _DEDENT"
    )
    if lexer == "contextual":
        with pytest.raises(GrammarError, match="brackets"):
            gr.Grammar.from_lark(text, lexer="lark-contextual", postlex=Blocks)
        text = text.replace(' ["(" N* ")"]', "")
    parser = lark.Lark(text, parser="lalr", lexer=lexer, postlex=Blocks())
    grammar = gr.Grammar.from_lark(text, lexer=f"lark-{lexer}", postlex=Blocks)
    accepted = 0
    for length in range(9):
        for candidate in map("".join, itertools.product("a \n", repeat=length)):
            expected = parses(parser, candidate)
            assert grammar.accepts(candidate) == expected, candidate
            accepted += expected
    for candidate in ("a(\na\n  a)\n", "a\n a(\na)\na\n", "a(\n", "a\n a(\n)\n  a\na\n"):
        assert grammar.accepts(candidate) == parses(parser, candidate), candidate
    assert accepted


def test_saved_as_json_values() -> None:
    for lexer in MODES:
        text = 'start: "if" N ":" | N "=" N\nN: /[a-z]+/\n%ignore " "'
        static, _ = parse_lark(text, lexer=lexer)
        assert StaticGrammar.from_json(json.loads(json.dumps(static.to_json()))) == static
