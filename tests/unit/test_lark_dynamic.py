"""`lexer="lark-dynamic"` against the library: `lark.Lark(grammar, parser="earley", lexer="dynamic")` is the oracle.

Every string over a small alphabet up to a length is asked of both. A short prefix must be viable exactly if the library
accepts a string that begins with it; each grammar says up to which length all completions are among the strings asked.
"""

from __future__ import annotations

import itertools

import lark
import pytest

import guiderail as gr
from guiderail.errors import GrammarError
from oracles import laws

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
    "nullable rules": ('start: x x\nx: | "a" x | B\nB: /b+/\n%ignore " "', "ab ", 7, 6),
    "nullable start": ('start: | start "a"\n%ignore " "', "a b", 6, 5),
    "left recursion": ('start: e\ne: e "+" e | N\nN: /1+/', "1+", 8, 6),
    "numbers and ranges": ('start: n ".." n\nn: I | F\nI: /1+/\nF: /1+\\.1*/', "1.", 8, 4),
    "priorities": ('start: A "b" | B "c"\nA.2: /a/\nB: /a+/', "abc", 6, 3),
    "case": ('start: "if"i X?\nX: /f/', "iIfF", 5, 3),
    "equal terminals": ('start: A "x" | B "y"\nA: /a+/\nB: /aa*/', "axy", 6, 4),
    # Lexemes so broad that masks take their cached rows.
    "broad, greedy": ('start: W "b" | W " " W\nW: /[^ b]+/', "ab ", 7, 3),
    "broad, lazy": ('start: Q (Q | "x")\nQ: /".*?"/', '"ax', 7, 3),
    "broad, ordered": ('start: W "b"+ | "a"+ "c"\nW: /[^ab]+(ab)?|[^b]/', "abc", 7, 3),
    "broad, lookahead": ('start: W "b"+ | W "c"\nW: /[^b]+(?=b)|a+/', "abc", 7, 3),
}


@pytest.mark.parametrize("name", GRAMMARS)
def test_same_language_as_lark(name: str) -> None:
    text, alphabet, length, prefix_length = GRAMMARS[name]
    grammar = gr.Grammar.from_lark(text, lexer="lark-dynamic")
    parser = lark.Lark(text, parser="earley", lexer="dynamic")
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
    except lark.exceptions.UnexpectedInput:
        return False
    return True


@pytest.mark.parametrize("every_byte", [False, True])
@pytest.mark.parametrize("name", GRAMMARS)
def test_masks_allow_what_prefixes_allow(name: str, every_byte: bool) -> None:
    text, alphabet, _, prefix_length = GRAMMARS[name]
    grammar = gr.Grammar.from_lark(text, lexer="lark-dynamic")
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
