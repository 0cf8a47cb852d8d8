"""Free lexing, any context-free grammar: the engine against Earley's algorithm, on small worlds and at random.

A grammar is printed as GBNF and read by the public front end, so printer, front end and engine are judged together.
For every text up to a length: member?, viable?; and at every viable prefix the mask over a small vocabulary against
trying every token. GUIDERAIL_RANDOM_GRAMMARS sets how many random grammars are drawn.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest

import guiderail as gr
from conftest import SEED
from oracles import context_free, laws, random_grammars, tokens
from oracles import regular_expressions as regex
from oracles.context_free import Earley, Grammar
from oracles.scale import every, random_grammar_count


class Judge:
    """Earley's answers for one grammar, remembered per text."""

    def __init__(self, grammar: Grammar) -> None:
        self._states = {b"": Earley(grammar)}

    def _state(self, text: bytes) -> Earley:
        if text not in self._states:
            before = self._state(text[:-1])
            self._states[text] = before.step(text[-1]) if before.viable else before
        return self._states[text]

    def viable(self, text: bytes) -> bool:
        return self._state(text).viable

    def accepts(self, text: bytes) -> bool:
        state = self._state(text)
        return state.viable and state.accepting


def compiled_or_none(grammar: Grammar, text: str, vocabulary: gr.Vocabulary) -> gr.CompiledGrammar | None:
    """The engine's grammar; None where the language is empty, which must be refused by name."""
    if context_free.is_empty(grammar):
        with pytest.raises(gr.errors.GrammarError):
            gr.compile(gr.Grammar.from_gbnf(text), vocabulary)
        return None
    return gr.compile(gr.Grammar.from_gbnf(text), vocabulary)


def check_texts(judge: Judge, grammar: gr.Grammar, texts: list[bytes], shown: str) -> None:
    for text in texts:
        assert grammar.accepts(text) == judge.accepts(text), f"accepts({text!r}) in\n{shown}"
        assert grammar.accepts_prefix(text) == judge.viable(text), f"accepts_prefix({text!r}) in\n{shown}"


def check_masks(
    judge: Judge, compiled: gr.CompiledGrammar, token_bytes: list[bytes], eos: list[int], depth: int, shown: str
) -> None:
    """Depth first over tokens: the mask at every viable text of up to `depth` bytes that tokens can write."""
    seen: set[bytes] = set()

    def visit(matcher: gr.Matcher, text: bytes) -> None:
        seen.add(text)
        expected = tokens.allowed_tokens(text, judge.viable, judge.accepts, token_bytes, eos)
        assert laws.allowed(matcher, len(token_bytes)) == expected, f"mask after {text!r} in\n{shown}"
        assert matcher.is_accepting == judge.accepts(text), f"is_accepting after {text!r} in\n{shown}"
        for token_id in sorted(expected - set(eos)):
            longer = text + token_bytes[token_id]
            if len(longer) <= depth and longer not in seen:
                assert matcher.accept_token(token_id), f"{token_bytes[token_id]!r} after {text!r} in\n{shown}"
                visit(matcher, longer)
                matcher.rollback(1)

    visit(compiled.matcher(), b"")


ALPHABET = b"ab"
SHORT_TEXTS = regex.all_texts(4)


def check_grammar(rng: random.Random, grammar: Grammar, *, long_texts: int = 4, depth: int = 2) -> bool:
    """Everything about one grammar; False if its language is empty."""
    shown = random_grammars.to_gbnf(grammar)
    token_bytes, eos = tokens.random_vocabulary(rng, ALPHABET, rng.choice(["bytes", "alphabet"]))
    vocabulary = gr.Vocabulary.from_bytes(token_bytes, eos_token_ids=eos)
    compiled = compiled_or_none(grammar, shown, vocabulary)
    if compiled is None:
        return False
    judge = Judge(grammar)
    engine = gr.Grammar.from_gbnf(shown)
    check_texts(judge, engine, SHORT_TEXTS, shown)
    longer = [t[:14] for t in random_grammars.random_viable_texts(rng, grammar, long_texts, 12)]
    check_texts(judge, engine, longer + [bytes([*t[:-1], rng.choice(ALPHABET)]) for t in longer if t], shown)
    check_masks(judge, compiled, token_bytes, eos, depth, shown)
    return True


def test_random_grammars() -> None:
    count = random_grammar_count(200)
    rng = random.Random(SEED)
    judged = sum(check_grammar(rng, random_grammars.random_grammar(rng)) for _ in range(count))
    print(f"{judged} of {count} random grammars had a language; all texts to length 4, masks to depth 2")
    assert judged > count // 2


def test_random_grammars_without_every_byte() -> None:
    """Vocabularies that cannot write every text: allowed means completable in tokens."""
    rng = random.Random(SEED + 1)
    for _ in range(random_grammar_count(60) // 4):
        grammar = random_grammars.random_grammar(rng)
        while sum(map(len, grammar.productions.values())) > 12:  # the intersection is asked for every token
            grammar = random_grammars.random_grammar(rng)
        shown = random_grammars.to_gbnf(grammar)
        token_bytes, eos = tokens.random_vocabulary(rng, ALPHABET, "incomplete")
        vocabulary = gr.Vocabulary.from_bytes(token_bytes, eos_token_ids=eos)
        useful = [data for data in token_bytes if data and set(data) <= set(ALPHABET)]
        answers: dict[bytes, bool] = {}

        def writable(
            prefix: bytes,
            grammar: Grammar = grammar,
            useful: list[bytes] = useful,
            answers: dict[bytes, bool] = answers,
        ) -> bool:
            if prefix not in answers:
                answers[prefix] = context_free.viable_in_tokens(grammar, prefix, useful)
            return answers[prefix]

        def accepts(prefix: bytes, grammar: Grammar = grammar) -> bool:
            return context_free.accepts(grammar, prefix)

        if not writable(b""):
            with pytest.raises(gr.errors.GuiderailError):
                gr.compile(gr.Grammar.from_gbnf(shown), vocabulary).matcher()
            continue
        matcher = gr.compile(gr.Grammar.from_gbnf(shown), vocabulary).matcher()
        text = b""
        for _ in range(4):
            expected = tokens.allowed_tokens(text, writable, accepts, token_bytes, eos)
            assert laws.allowed(matcher, len(token_bytes)) == expected, f"mask after {text!r} with {useful} in\n{shown}"
            choices = sorted(expected - set(eos))
            if not choices:
                break
            token_id = rng.choice(choices)
            assert matcher.accept_token(token_id)
            text += token_bytes[token_id]


# Small worlds -------------------------------------------------------------------------------------------------------


def right_hand_sides(symbols: list[regex.Node], length: int) -> list[regex.Node]:
    return [regex.Sequence(parts) for size in range(length + 1) for parts in itertools.product(symbols, repeat=size)]


def alternatives(sides: list[regex.Node], most: int) -> list[regex.Node]:
    """One to `most` different right-hand sides."""
    found: list[regex.Node] = []
    for size in range(1, most + 1):
        found += [c[0] if size == 1 else regex.Choice(c) for c in itertools.combinations(sides, size)]
    return found


def one_rule_grammars() -> Iterator[Grammar]:
    """s with up to two alternatives of up to three symbols out of a, b, s: 820 grammars."""
    sides = right_hand_sides([regex.literal(b"a"), regex.literal(b"b"), regex.Name("s")], 3)
    for body in alternatives(sides, 2):
        yield Grammar("s", {"s": body})


def two_rule_grammars() -> Iterator[Grammar]:
    """s and t, each with up to two alternatives of up to two symbols out of a, s, t: 8,281 grammars."""
    sides = right_hand_sides([regex.literal(b"a"), regex.Name("s"), regex.Name("t")], 2)
    for first, second in itertools.product(alternatives(sides, 2), repeat=2):
        yield Grammar("s", {"s": first, "t": second})


def list_grammars() -> Iterator[Grammar]:
    """s one sequence of up to four symbols out of a, s, t; t nested in brackets, nullable or not: what stands beside
    and behind a symbol that waits for several of the same. 726 grammars."""
    sides = right_hand_sides([regex.literal(b"a"), regex.Name("s"), regex.Name("t")], 4)
    nested = regex.Sequence((regex.literal(b"a"), regex.Name("t"), regex.literal(b"b")))
    for first in sides:
        for others in ([regex.EMPTY_TEXT], [regex.literal(b"a")], [regex.EMPTY_TEXT, regex.Name("s")]):
            for end in ([], [regex.literal(b"b")]):
                body = regex.Choice((first, *end)) if end else first
                yield Grammar("s", {"s": body, "t": regex.Choice((nested, *others))})


@pytest.mark.parametrize(
    ("world", "step"),
    [(one_rule_grammars, 7), (two_rule_grammars, 67), (list_grammars, 7)],
    ids=["one rule", "two rules", "lists"],
)
def test_every_small_grammar(world: object, step: int) -> None:
    rng = random.Random(SEED)
    judged = sum(check_grammar(rng, grammar, long_texts=3) for grammar in every(step, world()))  # type: ignore[operator]
    assert judged > 20
