"""Tests of the tests: a matcher that is wrong in one way breaks a law or the comparison with the oracle.

Each mutant wraps a right matcher and spoils one answer. They run over the oracle's own matcher, and over the engine's
where it is installed, so that what judges the engine is known to be able to find it guilty.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import guiderail as gr
from conftest import SEED
from oracles import context_free, laws, tokens
from oracles import regular_expressions as regex

# (ab)+ | a[bc]* : two ways to read `ab`, several tokens for each text.
TREE = regex.choice(
    [
        regex.Repeat(regex.literal(b"ab"), 1, None),
        regex.sequence([regex.literal(b"a"), regex.Repeat(regex.one_of(b"bc"), 0, None)]),
    ]
)
TOKEN_BYTES = [b"a", b"b", b"c", b"ab", b"ba", b"bc", b"aba", b"d", b"", b"", b""]
EOS = [9, 10]
SIZE = len(TOKEN_BYTES)


def reference() -> tokens.ReferenceMatcher:
    return tokens.ReferenceMatcher(
        lambda text: regex.viable(TREE, text), lambda text: regex.matches(TREE, text), TOKEN_BYTES, EOS
    )


def engine() -> gr.Matcher:
    vocabulary = gr.Vocabulary.from_bytes(TOKEN_BYTES, eos_token_ids=EOS)
    return gr.compile(gr.Grammar.from_regex(regex.to_pattern(TREE)), vocabulary).matcher()


class Mutant:
    """Hands everything through to `inner`; subclasses spoil one thing."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.count = 0

    def accept_token(self, token_id: int) -> bool:
        taken = bool(self.inner.accept_token(token_id))
        self.count += taken
        return taken

    def fill_next_token_bitmask(self, bitmask: Any, row: int = 0) -> None:
        self.inner.fill_next_token_bitmask(bitmask, row)

    @property
    def is_accepting(self) -> bool:
        return bool(self.inner.is_accepting)

    @property
    def is_terminated(self) -> bool:
        return bool(self.inner.is_terminated)

    def rollback(self, count: int) -> None:
        self.inner.rollback(count)
        self.count -= count

    def reset(self) -> None:
        self.inner.reset()
        self.count = 0

    def fork(self) -> Mutant:
        other = type(self)(self.inner.fork())
        other.count = self.count
        return other


def flip(bitmask: Any, row: int, token_id: int) -> None:
    bitmask[row, token_id // 32] ^= np.int32(1 << (token_id % 32))


class AllowsOneMore(Mutant):
    def fill_next_token_bitmask(self, bitmask: Any, row: int = 0) -> None:
        super().fill_next_token_bitmask(bitmask, row)
        bitmask[row, 0] |= np.int32(1 << TOKEN_BYTES.index(b"d"))


class ForbidsOneLater(Mutant):
    """Wrong only at depth two, and only about one token."""

    def fill_next_token_bitmask(self, bitmask: Any, row: int = 0) -> None:
        super().fill_next_token_bitmask(bitmask, row)
        if self.count == 2:
            bitmask[row, 0] &= ~np.int32(1 << TOKEN_BYTES.index(b"b"))


class EndsAnywhere(Mutant):
    def fill_next_token_bitmask(self, bitmask: Any, row: int = 0) -> None:
        super().fill_next_token_bitmask(bitmask, row)
        bitmask[row, 0] |= np.int32(1 << EOS[0])


class KnowsOneEnd(Mutant):
    """Of several EOS ids, only the first is offered."""

    def fill_next_token_bitmask(self, bitmask: Any, row: int = 0) -> None:
        super().fill_next_token_bitmask(bitmask, row)
        bitmask[row, 0] &= ~np.int32(1 << EOS[1])


class AllowsTokensWithoutBytes(Mutant):
    def fill_next_token_bitmask(self, bitmask: Any, row: int = 0) -> None:
        super().fill_next_token_bitmask(bitmask, row)
        bitmask[row, 0] |= np.int32(1 << TOKEN_BYTES.index(b""))


class SetsBitsBeyondTheVocabulary(Mutant):
    def fill_next_token_bitmask(self, bitmask: Any, row: int = 0) -> None:
        super().fill_next_token_bitmask(bitmask, row)
        flip(bitmask, row, SIZE)


class WritesIntoTheNextRow(Mutant):
    def fill_next_token_bitmask(self, bitmask: Any, row: int = 0) -> None:
        super().fill_next_token_bitmask(bitmask, row)
        if row + 1 < len(bitmask):
            bitmask[row + 1, 0] = 0


class OnlyAddsBits(Mutant):
    """Forgets to clear what the row held before."""

    def fill_next_token_bitmask(self, bitmask: Any, row: int = 0) -> None:
        before = bitmask[row].copy()
        super().fill_next_token_bitmask(bitmask, row)
        bitmask[row] |= before


class RollsBackOneTooFew(Mutant):
    def rollback(self, count: int) -> None:
        if count > 1:
            count -= 1
        super().rollback(count)


class ForkSharesState(Mutant):
    def fork(self) -> Mutant:
        return self


class ForkForgetsHistory(Mutant):
    """A fork starts over."""

    def fork(self) -> Mutant:
        other = super().fork()
        other.reset()
        return other


class ResetDoesNothing(Mutant):
    def reset(self) -> None:
        pass


class RefusalMoves(Mutant):
    """A refused token is half taken: the matcher falls back by one."""

    def accept_token(self, token_id: int) -> bool:
        taken = super().accept_token(token_id)
        if not taken and self.count:
            self.rollback(1)
        return taken


class NeverTerminates(Mutant):
    @property
    def is_terminated(self) -> bool:
        return False


class AcceptsEarly(Mutant):
    @property
    def is_accepting(self) -> bool:
        return True


class TokenBoundariesMatter(Mutant):
    """After two tokens the mask differs from that after one of the same bytes."""

    def fill_next_token_bitmask(self, bitmask: Any, row: int = 0) -> None:
        super().fill_next_token_bitmask(bitmask, row)
        if self.count == 2:
            bitmask[row, 0] &= ~np.int32(1 << TOKEN_BYTES.index(b"bc"))

    def accept_token(self, token_id: int) -> bool:
        return not (self.count == 2 and TOKEN_BYTES[token_id] == b"bc") and super().accept_token(token_id)


MUTANTS = list(Mutant.__subclasses__())


def judge(new_matcher: Callable[[], Any]) -> None:
    rng = random.Random(SEED)
    laws.all_laws(rng, new_matcher, SIZE, EOS, TOKEN_BYTES, walks=12, steps=4)


def compare_with_oracle(new_matcher: Callable[[], Any], depth: int) -> None:
    def visit(text: bytes, ids: list[int]) -> None:
        matcher = new_matcher()
        assert all(matcher.accept_token(token_id) for token_id in ids)
        expected = tokens.allowed_tokens(
            text, lambda t: regex.viable(TREE, t), lambda t: regex.matches(TREE, t), TOKEN_BYTES, EOS
        )
        assert laws.allowed(matcher, SIZE) == expected, text
        if len(ids) < depth:
            for token_id in sorted(expected - set(EOS)):
                visit(text + TOKEN_BYTES[token_id], [*ids, token_id])

    visit(b"", [])


@pytest.mark.parametrize("new_matcher", [reference, engine], ids=["oracle", "engine"])
def test_the_unspoilt_matcher_passes(new_matcher: Callable[[], Any]) -> None:
    judge(new_matcher)
    judge(lambda: Mutant(new_matcher()))
    compare_with_oracle(new_matcher, 3)


@pytest.mark.parametrize("new_matcher", [reference, engine], ids=["oracle", "engine"])
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda cls: cls.__name__)
def test_a_spoilt_matcher_is_caught_by_a_law(mutant: type[Mutant], new_matcher: Callable[[], Any]) -> None:
    with pytest.raises(AssertionError):
        judge(lambda: mutant(new_matcher()))


@pytest.mark.parametrize("mutant", [AllowsOneMore, ForbidsOneLater, EndsAnywhere, TokenBoundariesMatter])
def test_a_spoilt_mask_is_caught_by_the_oracle(mutant: type[Mutant]) -> None:
    with pytest.raises(AssertionError):
        compare_with_oracle(lambda: mutant(reference()), 3)


def test_an_overapproximating_viability_is_caught() -> None:
    """The mistake of lookahead-bounded masks: `a^n b^n` with a viability that only checks the shape a*b*."""
    grammar = context_free.Grammar(
        "s",
        {
            "s": regex.Choice(
                (
                    regex.EMPTY_TEXT,
                    regex.Sequence((regex.literal(b"a"), regex.Name("s"), regex.literal(b"b"))),
                )
            )
        },
    )
    shape = regex.sequence([regex.Repeat(regex.literal(b"a"), 0, None), regex.Repeat(regex.literal(b"b"), 0, None)])
    token_bytes, eos = [b"a", b"b", b"abb", b""], [3]

    def accepts(text: bytes) -> bool:
        return context_free.accepts(grammar, text)

    sloppy = tokens.allowed_tokens(b"", lambda text: regex.viable(shape, text), accepts, token_bytes, eos)
    exact = tokens.allowed_tokens(b"", lambda text: context_free.viable(grammar, text), accepts, token_bytes, eos)
    assert (sloppy, exact) == ({0, 1, 2, 3}, {0, 3})
    laws.can_finish(
        tokens.ReferenceMatcher(lambda t: context_free.viable(grammar, t), accepts, token_bytes, eos), 4, eos
    )
    matcher = tokens.ReferenceMatcher(lambda text: regex.viable(shape, text), accepts, token_bytes, eos)
    assert matcher.accept_token(2)
    with pytest.raises(AssertionError, match="no end within reach"):
        laws.can_finish(matcher, 4, eos)
