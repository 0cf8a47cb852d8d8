"""Parts under longest match put together: finite languages, so every text and prefix is decided by enumeration."""

from __future__ import annotations

import random

import pytest

import guiderail as gr
from conftest import SEED
from guiderail.grammars.tags import Composite
from oracles import laws, munch, tokens
from oracles.scale import random_grammar_count


def part(rng: random.Random) -> tuple[gr.Grammar, set[bytes], str]:
    """A grammar under longest match, with modes and lookaheads at times, its whole language, and its text."""
    while True:
        grammar = munch.random_munch_grammar(rng, b"ab", looking=rng.choice([0.0, 0.6]))
        if rng.random() < 0.4:
            grammar = munch.with_modes(rng, grammar)
        texts = grammar.texts(60)
        if texts:
            return gr.Grammar.from_lark(grammar.to_lark(), lexer="munch"), texts, grammar.to_lark()


@pytest.mark.parametrize("shape", ["one after the other", "either", "nested"])
def test_finite_languages(shape: str) -> None:
    rng = random.Random(f"{SEED} {shape}")
    for _ in range(random_grammar_count(60)):
        (one, first, shown), (two, second, also_shown) = part(rng), part(rng)
        between = rng.choice(["", "a", "b", "ab"])
        composite = Composite()
        symbols = [composite.grammar(one, "one"), *composite.literal(between), composite.grammar(two, "two")]
        start = composite.rule("start")
        if shape == "either":
            composite.define(start, [[symbols[0]], [symbols[-1]], symbols])
            texts = first | second
        else:
            composite.define(start, [symbols])
            texts = set()
        texts |= {x + between.encode() + y for x in first for y in second}
        grammar = composite.build(start)
        if shape == "nested":
            outer = Composite()
            start = outer.rule("outer")
            outer.define(start, [[*outer.literal("b"), outer.grammar(grammar, "inner")], [outer.grammar(two, "two")]])
            grammar, texts = outer.build(start), {b"b" + x for x in texts} | second
        what = f"{shape}, {between!r} between\n{shown}\n{also_shown}"
        viable = munch.prefixes(texts)
        for text in sorted(viable | {prefix + bytes([byte]) for prefix in viable for byte in b"abc"}):
            assert grammar.accepts(text) == (text in texts), f"accepts({text!r}): {what}"
            assert grammar.accepts_prefix(text) == (text in viable), f"accepts_prefix({text!r}): {what}"
        token_bytes, eos = tokens.random_vocabulary(rng, b"abc", "bytes")
        compiled = gr.compile(grammar, gr.Vocabulary.from_bytes(token_bytes, eos_token_ids=eos))
        for prefix in rng.sample(sorted(viable), min(4, len(viable))):
            matcher = compiled.matcher(prefix=prefix)
            expected = tokens.allowed_tokens(prefix, viable.__contains__, texts.__contains__, token_bytes, eos)
            assert laws.allowed(matcher, len(token_bytes)) == expected, f"mask after {prefix!r}: {what}"
