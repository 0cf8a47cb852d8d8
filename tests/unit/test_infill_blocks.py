"""Infilling where blocks are made by indentation: `lark` with its Indenter judges every text up to a length."""

from __future__ import annotations

import ast
import itertools
import random
import textwrap

import lark
import pytest
from lark.indenter import Indenter

import guiderail as gr
from guiderail.errors import GrammarError
from oracles import laws


class Lines(Indenter):
    NL_type = "_NL"
    OPEN_PAREN_types: list[str] = []  # noqa: RUF012
    CLOSE_PAREN_types: list[str] = []  # noqa: RUF012
    INDENT_type = "_INDENT"
    DEDENT_type = "_DEDENT"
    tab_len = 2


class BracketLines(Lines):
    OPEN_PAREN_types = ["LPAR"]  # noqa: RUF012
    CLOSE_PAREN_types = ["RPAR"]  # noqa: RUF012


DECLARED = "\n%declare _INDENT _DEDENT"
STATEMENT = 'start: _s+\n_s: {} | ":" _NL _INDENT _s+ _DEDENT\n_NL: /(\\n *)+/' + DECLARED
GRAMMARS: dict[str, tuple[str, type[Indenter], str]] = {
    "blocks": (STATEMENT.format('"a" _NL'), Lines, "a:\n "),
    "ignored": (STATEMENT.format('"a"+ _NL') + '\n%ignore " "', Lines, "a:\n "),
    "else": (
        'start: _s+\n_s: "a" _NL | "i" _b ["e" _b]\n_b: _NL _INDENT _s+ _DEDENT\n_NL: /(\\n *)+/' + DECLARED,
        *(Lines, "aie\n "),
    ),
    "opened by a rule": (
        'start: _s+\n_s: "a" _NL | ":" _NL _b _DEDENT\n_b: _INDENT | _b _s\n_NL: /(\\n *)+/' + DECLARED,
        *(Lines, "a:\n "),
    ),
    "tabs": ("start: _NL? t+\nt: /a/ _NL [_INDENT t+ _DEDENT]\n_NL: /(\\n[ \\t]*)+/" + DECLARED, Lines, "a\n \t"),
    "brackets": (
        STATEMENT.format("e _NL") + '\ne: "a" | LPAR e* RPAR\nLPAR: "("\nRPAR: ")"',
        *(BracketLines, "a:\n ()"),
    ),
    "closed by a rule": (
        STATEMENT.format('"a" _NL | _p _NL') + '\n_p: LPAR _rest\n_rest: "a"* RPAR | ":" _rest\nLPAR: "("\nRPAR: ")"',
        *(BracketLines, "a:\n ()"),
    ),
}  # fmt: skip
# Grammar, prefix, suffix, longest text in between that is tried, longest that is checked.
CASES = [
    ("blocks", ":\n a\n", " a\na\n", 5, 2),  # the line goes on in the suffix
    ("blocks", ":\n  :\n    a\n", "\n   a\n a\n", 5, 1),  # two widths that x must open
    ("blocks", ":\n  a\n", " a\n  a\n", 5, 2),
    ("blocks", ":\n :", "\n   a\n  a\n a\n", 6, 1),  # room for the one block that it takes
    ("blocks", ":", "\n   a\n  a\n", 6, 1),
    ("ignored", ":\n a\n", "a\n  a\na\n", 5, 1),
    ("else", "i\n i\n  a\n", "e\n  a\n", 5, 2),  # which block the else belongs to is a matter of its width
    ("else", "i\n i\n   a\n", " e\n  a\n", 4, 2),
    ("opened by a rule", ":\n  a", " a\n:\n a\n", 5, 2),
    ("tabs", "a\n\ta\n", "a\n\ta\n a\n", 5, 2),
    ("tabs", "a\n a\n", "\n\ta\n", 4, 2),
    ("brackets", ":\n (", "\n a)\n", 5, 1),  # a newline in brackets has no width
    ("brackets", ":\n (\n", ")\na\n", 5, 1),
    ("closed by a rule", ":\n (:", ")\n a\n", 4, 1),
]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_masks_against_every_text(case: int) -> None:
    name, prefix, suffix, longest, checked = CASES[case]
    text, indenter, alphabet = GRAMMARS[name]
    judge = lark.Lark(text, parser="lalr", postlex=indenter())

    def accepts(whole: str) -> bool:
        try:
            judge.parse(whole)
        except (lark.exceptions.LarkError, AssertionError):
            return False
        return True

    between = {
        x
        for length in range(longest + 1)
        for x in map("".join, itertools.product(alphabet, repeat=length))
        if accepts(prefix + x + suffix)
    }
    tokens = [*alphabet, "\n ", "  ", "a\n"]
    encoded = [token.encode() for token in tokens]
    encoded += [bytes([b]) for b in range(256) if bytes([b]) not in encoded]
    end = len(encoded)
    grammar = gr.Grammar.from_lark(text, postlex=indenter)
    compiled = gr.compile(grammar, gr.Vocabulary.from_bytes([*encoded, b""], eos_token_ids=[end]))
    assert between
    for length in range(checked + 1):
        for beginning in map("".join, itertools.product(alphabet, repeat=length)):
            matcher = compiled.matcher(prefix=prefix, suffix=suffix)
            if not all(matcher.accept_token(tokens.index(c)) for c in beginning):
                assert not any(x.startswith(beginning) for x in between), beginning
                continue
            allowed = laws.allowed(matcher, end + 1)
            assert (end in allowed) == (beginning in between), beginning
            for number, token in enumerate(tokens):
                if any(x.startswith(beginning + token) for x in between):
                    assert number in allowed, (beginning, token)
                elif number in allowed:
                    assert connects(compiled, prefix, beginning + token, suffix, encoded, accepts), (beginning, token)


def connects(compiled, prefix, beginning, suffix, encoded, accepts) -> bool:  # type: ignore[no-untyped-def]
    """Does a longer text do what none of those tried does?"""
    rng = random.Random(0)
    for _ in range(40):
        matcher, x = compiled.matcher(prefix=prefix + beginning, suffix=suffix), beginning
        for _ in range(40):
            allowed = laws.allowed(matcher, len(encoded) + 1)
            assert allowed, (prefix, x, suffix)
            if len(encoded) in allowed:
                assert accepts(prefix + x + suffix), x
                return True
            token = rng.choice(sorted(allowed))
            assert matcher.accept_token(token)
            x += encoded[token].decode()
    return False


@pytest.mark.parametrize(
    ("name", "prefix", "suffix"),
    [
        ("blocks", "", "\n   a\n a\n  a\n"),  # a width that no block can have
        ("blocks", ":\n    a\n  ", "\na\n a\n"),
        ("brackets", "", "(\n a)\n  a\n a\n   a\n"),
    ],
)
def test_what_no_text_connects_is_refused(name: str, prefix: str, suffix: str) -> None:
    text, indenter, _ = GRAMMARS[name]
    compiled = gr.compile(
        gr.Grammar.from_lark(text, postlex=indenter),
        gr.Vocabulary.from_bytes([bytes([b]) for b in range(256)] + [b""], eos_token_ids=[256]),
    )
    with pytest.raises(GrammarError, match="no text leads"):
        compiled.matcher(prefix=prefix, suffix=suffix)


def test_rules_that_leave_blocks_open_are_refused() -> None:
    text = 'start: _open "a" _NL _close _close\n_open: "a" _NL _INDENT "a" _NL _INDENT\n_close: _DEDENT\n_NL: /\\n */'
    compiled = gr.compile(
        gr.Grammar.from_lark(text + DECLARED, postlex=Lines),
        gr.Vocabulary.from_bytes([bytes([b]) for b in range(256)] + [b""], eos_token_ids=[256]),
    )
    with pytest.raises(GrammarError, match="does not close what it opens"):
        compiled.matcher(suffix="a\n")


PROGRAM = textwrap.dedent(
    '''
    def area(shape, r):
        """What it
      says."""
        if shape == "circle":
            return math.pi * r ** 2
        elif shape == "square":
            sides = [r,  # a comment
      r]
            for side in sides:
                print(side)

        # a line of its own
        else:
            return None
    \treturn 1
    class A:
        def f(self): pass
    '''
).replace("\n\treturn 1", "")


def test_a_program_cut_in_three() -> None:
    ast.parse(PROGRAM)
    words = [b"\n", b"    ", b"return", b" x", b"if", b" x", b":", b"(", b")", b"pass", b"else", b"\n\n", b" = 1", b"#"]
    encoded = [*dict.fromkeys(words)]
    encoded += [bytes([b]) for b in range(256) if bytes([b]) not in encoded]
    end = len(encoded)
    compiled = gr.compile(gr.Grammar.builtin("python"), gr.Vocabulary.from_bytes([*encoded, b""], eos_token_ids=[end]))
    rng = random.Random(1)
    connected = 0
    for cut in range(8):
        first, second = sorted(rng.sample(range(len(PROGRAM)), 2))
        second = min(second, first + 60)
        prefix, middle, suffix = PROGRAM[:first], PROGRAM[first:second], PROGRAM[second:]
        matcher = compiled.matcher(prefix=prefix, suffix=suffix)
        for byte in middle.encode():
            assert matcher.accept_token(encoded.index(bytes([byte]))), (cut, middle)
        assert matcher.is_accepting
        matcher, written = compiled.matcher(prefix=prefix, suffix=suffix), ""
        for _ in range(25):
            allowed = laws.allowed(matcher, end + 1)
            assert allowed, (prefix, written, suffix)
            if end in allowed and rng.random() < 0.5:
                ast.parse(prefix + written + suffix)
                connected += 1
                break
            known = [t for t in allowed if t < len(words) - 1]
            if not known:
                break
            token = rng.choice(known)
            assert matcher.accept_token(token)
            written += encoded[token].decode()
    assert connected >= 3
