"""The munch discipline against lexing by definition.

Finite languages: every text is enumerated, so membership *and* the viability of every prefix are decided exactly, masks
included. Languages with recursion, repetition and ignored terminals: membership is decided by definition; a prefix that
the engine calls viable must come with a witness (a completion, found by walking its masks, that lexing by definition
accepts), and a prefix it calls dead must have no completion among all short ones.
"""

from __future__ import annotations

import random

import pytest

import guiderail as gr
from conftest import SEED
from oracles import laws, munch, tokens
from oracles import regular_expressions as regex
from oracles.scale import random_grammar_count

ALPHABET = b"ab"


def finite_grammar(rng: random.Random, modes: bool) -> tuple[munch.MunchGrammar, set[bytes]]:
    """A grammar and its whole language."""
    looking = rng.choice([0.0, 0.6])
    while True:
        grammar = munch.random_munch_grammar(rng, rng.choice([b"ab", b"abc"]), looking=looking)
        if modes:
            grammar = munch.with_modes(rng, grammar)
        texts = grammar.texts(300)
        if texts is not None:
            return grammar, texts


@pytest.mark.parametrize("modes", [False, True])
def test_finite_languages(modes: bool) -> None:
    count = random_grammar_count(200)
    rng = random.Random(SEED + modes)
    empty = checked_prefixes = 0
    for _ in range(count):
        grammar, texts = finite_grammar(rng, modes)
        shown = grammar.to_lark()
        token_bytes, eos = tokens.random_vocabulary(rng, b"abc", rng.choice(["bytes", "alphabet"]))
        vocabulary = gr.Vocabulary.from_bytes(token_bytes, eos_token_ids=eos)
        if not texts:
            empty += 1
            with pytest.raises(gr.errors.GrammarError):
                gr.compile(gr.Grammar.from_lark(shown, lexer="munch"), vocabulary)
            continue
        engine = gr.Grammar.from_lark(shown, lexer="munch")
        viable = munch.prefixes(texts)
        longer = {prefix + bytes([byte]) for prefix in viable for byte in b"abc"}
        for text in sorted(viable | longer | set(regex.all_texts(4))):
            assert engine.accepts(text) == (text in texts), f"accepts({text!r}) in\n{shown}"
            assert engine.accepts_prefix(text) == (text in viable), f"accepts_prefix({text!r}) in\n{shown}"
        compiled = gr.compile(engine, vocabulary)
        for prefix in rng.sample(sorted(viable), min(6, len(viable))):
            checked_prefixes += 1
            matcher = compiled.matcher(prefix=prefix)
            expected = tokens.allowed_tokens(prefix, viable.__contains__, texts.__contains__, token_bytes, eos)
            assert laws.allowed(matcher, len(token_bytes)) == expected, f"mask after {prefix!r} in\n{shown}"
            assert matcher.is_accepting == (prefix in texts), f"is_accepting after {prefix!r} in\n{shown}"
    print(f"{count} finite munch grammars, {empty} of them empty; masks at {checked_prefixes} prefixes")
    assert count > 3 * empty > 0 or count < 20


@pytest.mark.parametrize("modes", [False, True])
def test_languages_without_bound(modes: bool) -> None:
    """Recursive rules, unbounded terminals, an ignored terminal that competes."""
    rng = random.Random(SEED + 1 + modes)
    letters = [b"a", b"b", b" ", b""]
    eos = [3]
    vocabulary = gr.Vocabulary.from_bytes(letters, eos_token_ids=eos)
    judged = skipped = mixed = 0
    for _ in range(random_grammar_count(120) // 2):
        looking = rng.choice([0.0, 0.5])
        grammar = munch.random_munch_grammar(rng, ALPHABET, finite=False, ignored=rng.random() < 0.7, looking=looking)
        if modes:
            grammar = munch.with_modes(rng, grammar)
        shown = grammar.to_lark()
        texts = {text for text in regex.all_texts(6, b"ab ") if grammar.accepts(text)}
        try:
            engine = gr.Grammar.from_lark(shown, lexer="munch")
            compiled = gr.compile(engine, vocabulary)
        except gr.errors.GrammarError as error:
            if modes and "that ignored ones may stand before" in str(error):
                mixed += 1
                continue
            assert not texts, f"refused, but {min(texts)!r} is in the language of\n{shown}"
            continue
        short = munch.prefixes(texts)
        for text in regex.all_texts(4, b"ab "):
            assert engine.accepts(text) == (text in texts), f"accepts({text!r}) in\n{shown}"
            claimed = engine.accepts_prefix(text)
            if text in short:
                assert claimed, f"accepts_prefix({text!r}) in\n{shown}"
            elif claimed and len(text) <= 3:
                path = laws.completion(compiled.matcher(prefix=text), len(letters), eos, 4000)
                if path is None:
                    skipped += 1
                else:
                    rest = b"".join(letters[token_id] for token_id in path)
                    assert grammar.accepts(text + rest), f"{text + rest!r} completes {text!r} by masks, not in\n{shown}"
        judged += 1
    print(f"{judged} unbounded munch grammars; {skipped} viable prefixes without a short witness; {mixed} refused")
    assert skipped <= judged
    assert mixed <= judged
