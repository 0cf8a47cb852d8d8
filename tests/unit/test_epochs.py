"""Full tables are replaced while sequences run: with tiny limits the masks are those of roomy ones, and a limit that a
fresh epoch exceeds too is an error for that call alone, after which the matcher stands where it stood."""

from __future__ import annotations

import random

import numpy as np
import pytest

import guiderail as gr
from conftest import SEED
from oracles import laws

BYTES = [bytes([byte]) for byte in range(256)]
WORDS = [b'{"', b'": ', b'"}', b"},", b"[[", b"]]", b", ", b"true", b"((", b"))", b"ab", b"12", b"+1"]
TOKENS = [*BYTES, *WORDS, b""]
EOS = [len(TOKENS) - 1]

GRAMMARS = {
    "json": lambda: gr.Grammar.builtin("json"),
    "brackets": lambda: gr.Grammar.from_gbnf('root ::= ("[" root "]" | "(" root ")" | [a-c]{0,20})*'),
    "ambiguous": lambda: gr.Grammar.from_gbnf('root ::= root root | "a" | "b" | "(" root ")"'),
    "counting": lambda: gr.Grammar.from_regex("(?:[a-c]{1,30},){0,30}"),
    "arithmetic": lambda: gr.Grammar.from_lark(
        'start: sum\nsum: term | sum "+" term\nterm: NUMBER | NAME | "(" sum ")"\n'
        "NUMBER: /[0-9]+(\\.[0-9]+)?/\nNAME: /[a-z]+/\n%ignore / +/",
        lexer="munch",
    ),
}


def vocabulary() -> gr.Vocabulary:
    return gr.Vocabulary.from_bytes(TOKENS, eos_token_ids=EOS)


def walk(rng: random.Random, matcher: gr.Matcher, steps: int) -> list[tuple[int, frozenset[int]]]:
    """(token taken, mask before it), preferring tokens that nest."""
    trail = []
    for _ in range(steps):
        mask = laws.allowed(matcher, len(TOKENS))
        choices = sorted(mask - set(EOS))
        if not choices:
            break
        nesting = [t for t in choices if TOKENS[t][:1] in (b"[", b"(", b"{", b"a", b'"')]
        token = rng.choice(nesting if nesting and rng.random() < 0.6 else choices)
        trail.append((token, frozenset(mask)))
        assert matcher.accept_token(token)
    return trail


@pytest.mark.parametrize("name", GRAMMARS)
@pytest.mark.parametrize("limit", [{"states": 40}, {"mask_bytes": 3_000}, {"grammar_bytes": 60_000}], ids=str)
def test_renewals_change_no_mask(name: str, limit: dict[str, int]) -> None:
    rng = random.Random(f"{SEED} {name}")
    grammar = GRAMMARS[name]()
    roomy = gr.compile(grammar, vocabulary())
    tight = gr.compile(grammar, vocabulary(), limits=gr.Limits(**limit))
    refused = 0
    for _ in range(6):
        trail = walk(rng, roomy.matcher(), 30)
        matcher = tight.matcher()
        fork = matcher.fork()
        for position, (token, mask) in enumerate(trail):
            try:
                assert laws.allowed(matcher, len(TOKENS)) == mask
                assert matcher.accept_token(token)
                if position % 7 == 3:
                    fork = matcher.fork()
                    matcher.rollback(2)
                    assert laws.allowed(matcher, len(TOKENS)) == trail[position - 1][1]
                    assert matcher.accept_tokens([trail[position - 1][0], token]) == 2
                if position % 7 == 5:
                    assert laws.allowed(fork, len(TOKENS)) == trail[position - 1][1]
            except gr.errors.LimitError as error:
                assert error.limit in limit
                refused += 1
                break
    assert refused < 6, "no sequence came to its end"


def test_renewals_happen() -> None:
    """Otherwise the test above tests nothing: states met by all sequences exceed what one epoch may hold."""
    grammar = GRAMMARS["brackets"]()
    tight = gr.compile(grammar, vocabulary(), limits=gr.Limits(states=40))
    matchers = []
    for letter in b"abc":
        matcher = tight.matcher()
        matchers.append(matcher)
        for byte in b"[(" * 6 + bytes([letter]):
            assert matcher.accept_token(byte)
            laws.allowed(matcher, len(TOKENS))
    seen = 0
    for depth in range(1, 12):
        matcher = tight.matcher()
        for byte in b"([" * depth + b"a" * depth:
            assert matcher.accept_token(byte)
        seen += tight.counters()["sequence_states"]
        assert tight.counters()["sequence_states"] <= 40
    assert seen > 40
    for matcher in matchers:  # in epochs that were replaced long ago
        assert matcher.accept_token(ord("a"))
        assert ord(")") in laws.allowed(matcher, len(TOKENS))


def test_a_limit_that_a_fresh_epoch_exceeds_too() -> None:
    """The call fails, by name; the matcher is where it was and goes back and on from there."""
    tight = gr.compile(GRAMMARS["brackets"](), vocabulary(), limits=gr.Limits(states=12))
    matcher = tight.matcher()
    taken = 0
    with pytest.raises(gr.errors.LimitError) as raised:
        for taken in range(100):  # noqa: B007  (asked for after the loop)
            matcher.accept_token(ord("["))
    assert raised.value.limit == "states"
    assert matcher.num_tokens == taken
    matcher.rollback(taken - 3)
    assert matcher.num_tokens == 3
    assert ord("]") in laws.allowed(matcher, len(TOKENS))
    assert matcher.accept_tokens(list(b"a]]]")) == 4
    assert matcher.is_accepting


def test_growth_is_the_request_s_own() -> None:
    """A sequence that makes the tables grow without end is refused; its neighbour on the same tables is not."""
    compiled = gr.compile(GRAMMARS["brackets"](), vocabulary(), limits=gr.Limits(request_bytes=50_000))
    greedy, modest = compiled.matcher(), compiled.matcher()
    with pytest.raises(gr.errors.LimitError) as raised:
        for _ in range(5_000):
            greedy.accept_token(ord("["))
    assert raised.value.limit == "request_bytes"
    bitmask = np.zeros((1, (len(TOKENS) + 31) // 32), dtype=np.int32)
    modest.fill_next_token_bitmask(bitmask)
    assert modest.accept_tokens(list(b"[a]")) == 3
    greedy.reset()
    assert greedy.accept_tokens(list(b"[a]")) == 3
    assert greedy == modest
