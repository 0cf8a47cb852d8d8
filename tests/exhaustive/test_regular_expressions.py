"""Every small regular expression on every short text, against derivatives and against Python's `re`.

Two worlds: syntax trees of letters, sequence, choice and repetition, judged by derivatives (membership, viability,
masks); and sequences of the constructs that depend on order or on what stands around (lookaround, anchors, lazy,
possessive, atomic), judged by `re.fullmatch`.
"""

from __future__ import annotations

import itertools
import random
import re

import pytest

import guiderail as gr
from conftest import SEED
from oracles import laws, tokens
from oracles import regular_expressions as regex
from oracles.scale import every

TOKEN_BYTES = [b"a", b"b", b"ab", b"ba", b"aa", b"bbb", b"aab", b"abab", b"c", b"\xc3", b"", b""]
EOS = [11]
TEXTS = regex.all_texts(5)
PREFIXES = regex.all_texts(3)


@pytest.fixture(scope="module")
def vocabulary() -> gr.Vocabulary:
    return gr.Vocabulary.from_bytes(TOKEN_BYTES, eos_token_ids=EOS)


def check_tree(tree: regex.Node, pattern: str, vocabulary: gr.Vocabulary) -> None:
    grammar = gr.Grammar.from_regex(pattern)
    for text in TEXTS:
        assert grammar.accepts(text) == regex.matches(tree, text), (pattern, text)
        assert grammar.accepts_prefix(text) == regex.viable(tree, text), (pattern, text)
    compiled = gr.compile(grammar, vocabulary)
    for prefix in PREFIXES:
        if not regex.viable(tree, prefix):
            continue
        matcher = compiled.matcher()
        assert all(matcher.accept_token(TOKEN_BYTES.index(bytes([byte]))) for byte in prefix), (pattern, prefix)
        expected = tokens.allowed_tokens(
            prefix,
            lambda text: regex.viable(tree, text),
            lambda text: regex.matches(tree, text),
            TOKEN_BYTES,
            EOS,
        )
        assert laws.allowed(matcher, len(TOKEN_BYTES)) == expected, (pattern, prefix)


@pytest.mark.parametrize(("size", "step"), [(1, 1), (2, 1), (3, 1), (4, 4), (5, 60)])
def test_every_small_expression(size: int, step: int, vocabulary: gr.Vocabulary) -> None:
    for tree in every(step, regex.all_expressions(size)):
        check_tree(tree, regex.to_pattern(tree), vocabulary)


def test_random_expressions(vocabulary: gr.Vocabulary) -> None:
    rng = random.Random(SEED)
    for _ in range(150):
        tree = regex.random_expression(rng, rng.randint(4, 12), b"ab")
        check_tree(tree, regex.to_pattern(tree), vocabulary)


# What depends on order and on what stands around --------------------------------------------------------------------

CONSTRUCTS = [
    "a",
    "b",
    ".",
    "a*",
    "(?:ab)*",
    "a+?",
    "[ab]*?",
    "(?:a|ab)",
    "(?:|a)",
    "a*+",
    "(?>a|ab)",
    "(?=a)",
    "(?!a)",
    "(?=[ab]*b)",
    "(?!ab)",
    "(?<=a)",
    "(?<!a)",
    r"\b",
    r"\B",
    "^",
    "$",
    r"\Z",
]


def viable_by_search(pattern: re.Pattern[str], prefix: str, more: int) -> bool:
    return any(pattern.fullmatch(prefix + tail) for tail in TAILS[more])


# With a character that is no part of a word, for the boundaries.
TAILS = {length: [text.decode() for text in regex.all_texts(length, b"ab-")] for length in (2, 3, 4)}


@pytest.mark.parametrize(("length", "step"), [(1, 1), (2, 1), (3, 13)])
def test_every_sequence_of_constructs(length: int, step: int) -> None:
    r"""Language and prefixes of each sequence; what has no text at all must be refused, not accepted.

    Every viable prefix here is completed by at most four more bytes: `(?:ab)*\B(?:ab)*` needs them all.
    """
    for parts in every(step, itertools.product(CONSTRUCTS, repeat=length)):
        pattern = "".join(parts)
        reference = re.compile(pattern)
        texts = TAILS[4]
        members = {text for text in texts if reference.fullmatch(text)}
        if not members:
            with pytest.raises(gr.errors.GrammarError):
                gr.Grammar.from_regex(pattern).accepts(b"")
            continue
        grammar = gr.Grammar.from_regex(pattern)
        assert {text for text in texts if grammar.accepts(text.encode())} == members, pattern
        viable = {text for text in TAILS[2] if viable_by_search(reference, text, 4)}
        assert {text for text in TAILS[2] if grammar.accepts_prefix(text.encode())} == viable, pattern
