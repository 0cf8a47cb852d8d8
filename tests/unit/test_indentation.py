"""Blocks by indentation, against Lark with its own Indenter."""

from __future__ import annotations

import random

import lark
import pytest
from lark.indenter import Indenter, PythonIndenter

import guiderail as gr
import real_tokenizers
from conftest import SEED
from oracles import laws

GRAMMAR = r"""
start: (_NEWLINE | stmt)*
stmt: simple | "if" NAME ":" suite | NAME "(" (NAME | list)* ")" _NEWLINE
list: "[" NAME* "]"
simple: NAME _NEWLINE
suite: simple | _NEWLINE _INDENT stmt+ _DEDENT
NAME: /[ab]+/
_NEWLINE: /(\r?\n[\t ]*|#[^\n]*\n[\t ]*)+/
%declare _INDENT _DEDENT
%ignore /[\t ]+/
"""
PIECES = [
    "a",
    "if b:",
    "a(b",
    ")",
    "a()",
    "[",
    "]",
    "\n",
    "\n",
    "\n",
    "\n  ",
    "\n  ",
    "\n    ",
    "\n\t",
    " ",
    "# a\n",
    ": b",
]


class FourColumns(Indenter):
    NL_type = "_NEWLINE"
    OPEN_PAREN_types = ["LPAR"]  # noqa: RUF012
    CLOSE_PAREN_types = ["RPAR"]  # noqa: RUF012
    INDENT_type = "_INDENT"
    DEDENT_type = "_DEDENT"
    tab_len = 4


def read_by_lark(parser: lark.Lark, text: str) -> bool:
    try:
        parser.parse(text)
    except (lark.exceptions.LarkError, AssertionError):  # it asserts that brackets are balanced
        return False
    return True


@pytest.mark.parametrize("indenter", [PythonIndenter, FourColumns])
def test_texts_are_read_as_lark_reads_them(indenter: type[Indenter]) -> None:
    rng = random.Random(SEED)
    parser = lark.Lark(GRAMMAR, parser="lalr", lexer="basic", postlex=indenter())
    grammar = gr.Grammar.from_lark(GRAMMAR, postlex=indenter)
    accepted = 0
    for _ in range(4000):
        text = "".join(rng.choices(PIECES, k=rng.randint(1, 12)))
        expected = read_by_lark(parser, text)
        accepted += expected
        assert grammar.accepts(text) == expected, text
        if expected:
            for end in range(len(text)):
                assert grammar.accepts_prefix(text[:end]), (text, end)
    assert accepted > 100


def test_masks_never_lead_into_a_dead_end() -> None:
    token_bytes = [piece.encode() for piece in dict.fromkeys(PIECES)] + [bytes([byte]) for byte in b"ab :()[]i#\tf"]
    token_bytes = [*dict.fromkeys(token_bytes), b"\n  if", b" a\n\n\t", b")\n  ", b"\n \t]", b""]
    eos = [len(token_bytes) - 1]
    compiled = gr.compile(gr.Grammar.from_lark(GRAMMAR), gr.Vocabulary.from_bytes(token_bytes, eos_token_ids=eos))
    parser = lark.Lark(GRAMMAR, parser="lalr", lexer="basic", postlex=PythonIndenter())
    rng = random.Random(SEED)
    for _ in range(40):
        matcher, text = compiled.matcher(), b""
        for _ in range(25):
            allowed = sorted(laws.allowed(matcher, len(token_bytes)) - set(eos))
            for token_id, token in enumerate(token_bytes[:-1]):
                assert (token_id in allowed) == compiled.grammar.accepts_prefix(text + token), (text, token)
            token_id = rng.choice(allowed)
            assert matcher.accept_token(token_id)
            text += token_bytes[token_id]
            assert matcher.is_accepting == read_by_lark(parser, text.decode()), text


def test_what_must_be_declared_and_defined() -> None:
    with pytest.raises(gr.GrammarError, match="_NEWLINE"):
        gr.Grammar.from_lark('start: "a" _INDENT _DEDENT\n%declare _INDENT _DEDENT')
    with pytest.raises(gr.GrammarError, match="must be declared"):
        gr.Grammar.from_lark("start: _NEWLINE\n_NEWLINE: /\\n/", postlex=PythonIndenter())
    with pytest.raises(gr.GrammarError, match="only declared"):
        gr.Grammar.from_lark('start: "a" _INDENT\n%declare _INDENT')


def test_larks_own_python_grammar() -> None:
    names = "file_input, _NEWLINE, _INDENT, _DEDENT, COMMENT"
    text = f"%import python ({names})\nstart: file_input\n%ignore /[\\t \\f]+/\n%ignore COMMENT\n"
    grammar = gr.Grammar.from_lark(text)
    for program in ["x = 1\n", "def f(a, b=2):\n    return a+b\n", "class A:\n  x = [1,\n 2]\n  y = '''\n'''\n"]:
        assert grammar.accepts(program), program
    for program in ["if x:\ny\n", "x = 1\n  y = 2\n", "if x:\n    y\n  z\n", "x = [1))\n"]:
        assert not grammar.accepts(program), program


def test_brackets_that_are_no_tokens() -> None:
    """Where a text must end in `]`, which only longer tokens hold, a few of them show that it can: no long search."""
    full = gr.Vocabulary.from_tokenizer(real_tokenizers.require(real_tokenizers.load, "smollm2"))
    lacking = [b"" if token in (b"[", b"]") else token for token in full.token_bytes]
    vocabulary = gr.Vocabulary.from_bytes(lacking, eos_token_ids=list(full.eos_token_ids))
    compiled = gr.compile(gr.Grammar.builtin("python"), vocabulary, gr.Limits(munch_states=100_000))
    matcher = compiled.matcher()
    tokens = vocabulary.encode("def f(a):\n    return []\n")
    bitmask = gr.allocate_token_bitmask(1, vocabulary)
    for token in tokens:
        matcher.fill_next_token_bitmask(bitmask)
        assert bitmask[0, token // 32] >> (token % 32) & 1
        assert matcher.accept_token(token)
    assert matcher.is_accepting
