"""What every matcher must obey, as assertions that take any object with the matcher's methods.

They run on the engine's matchers and on `tokens.ReferenceMatcher`, and tests/property/test_mutants.py checks that each
of a list of broken matchers breaks one of them: a law that nothing can break proves nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .tokens import mask_to_set

Matcher = Any
"""The matcher's surface: accept_token, fill_next_token_bitmask, is_accepting, is_terminated, rollback, fork, reset."""


def allowed(matcher: Matcher, vocabulary_size: int) -> set[int]:
    """The mask as a set of token ids, filled into a row that starts as garbage among rows that must stay untouched."""
    words = (vocabulary_size + 31) // 32
    bitmask = np.full((3, words), 0x5A5A5A5A, dtype=np.int32)
    matcher.fill_next_token_bitmask(bitmask, 1)
    assert (bitmask[0] == 0x5A5A5A5A).all(), "a fill wrote outside its row"
    assert (bitmask[2] == 0x5A5A5A5A).all(), "a fill wrote outside its row"
    return mask_to_set(bitmask[1], vocabulary_size)


def mask_is_what_accept_takes(matcher: Matcher, vocabulary_size: int) -> None:
    """allowed <=> accept_token succeeds, for every token; a refused token changes nothing."""
    ids = allowed(matcher, vocabulary_size)
    for token_id in range(vocabulary_size):
        attempt = matcher.fork()
        taken = attempt.accept_token(token_id)
        assert taken == (token_id in ids), f"token {token_id}: mask says {token_id in ids}, accept_token says {taken}"
        if not taken:
            assert allowed(attempt, vocabulary_size) == ids, f"refusing token {token_id} moved the matcher"
            assert attempt.is_accepting == matcher.is_accepting


def eos_iff_accepting(matcher: Matcher, vocabulary_size: int, eos_token_ids: Sequence[int]) -> None:
    ids = allowed(matcher, vocabulary_size)
    for eos in eos_token_ids:
        assert (eos in ids) == matcher.is_accepting, (
            f"EOS {eos} in mask: {eos in ids}, is_accepting: {matcher.is_accepting}"
        )


def no_dead_end(matcher: Matcher, vocabulary_size: int) -> None:
    """Where not terminated, something may come next: a token, or the end."""
    if not matcher.is_terminated:
        assert allowed(matcher, vocabulary_size), "nothing may follow, not even the end of the text"


def completion(
    matcher: Matcher, vocabulary_size: int, eos_token_ids: Sequence[int], states: int = 400
) -> list[int] | None:
    """Token ids that lead to acceptance, found breadth first by masks alone; None if `states` states did not get there.

    From each state at most 24 tokens are tried, spread over the mask, so that a string's 100,000 do not hide the quote.
    """
    layer: list[tuple[Matcher, list[int]]] = [(matcher.fork(), [])]
    seen = 0
    while layer:
        following = []
        for state, path in layer:
            if state.is_accepting:
                return path
            ids = sorted(allowed(state, vocabulary_size) - set(eos_token_ids))
            for token_id in ids[:: max(1, len(ids) // 24)]:
                after = state.fork()
                assert after.accept_token(token_id), f"token {token_id} is in the mask and was refused"
                following.append((after, [*path, token_id]))
                seen += 1
                if seen > states:
                    return next((path for state, path in following if state.is_accepting), None)
        layer = following
    return None


def can_finish(matcher: Matcher, vocabulary_size: int, eos_token_ids: Sequence[int], states: int = 400) -> None:
    """Some continuation ends the text. For small languages and vocabularies, where `states` is plenty."""
    found = completion(matcher, vocabulary_size, eos_token_ids, states)
    assert found is not None, "no end within reach"


def random_walk(
    rng: random.Random, matcher: Matcher, vocabulary_size: int, eos_token_ids: Sequence[int], steps: int
) -> list[int]:
    """Accept up to `steps` random allowed tokens, none of them EOS; the ids."""
    taken: list[int] = []
    for _ in range(steps):
        ids = sorted(allowed(matcher, vocabulary_size) - set(eos_token_ids))
        if not ids:
            break
        token_id = rng.choice(ids)
        assert matcher.accept_token(token_id), f"token {token_id} is in the mask and was refused"
        taken.append(token_id)
    return taken


def rollback_is_identity(
    rng: random.Random, matcher: Matcher, vocabulary_size: int, eos_token_ids: Sequence[int], steps: int = 6
) -> None:
    """Accept and rollback, in all portions, leads back to the same masks; EOS can be taken back as well."""
    seen = [(allowed(matcher, vocabulary_size), matcher.is_accepting)]
    depth = 0
    while depth < steps:
        if not random_walk(rng, matcher, vocabulary_size, eos_token_ids, 1):
            break
        depth += 1
        seen.append((allowed(matcher, vocabulary_size), matcher.is_accepting))
    if matcher.is_accepting:
        assert matcher.accept_token(eos_token_ids[0])
        assert matcher.is_terminated, "EOS was accepted and the matcher is not terminated"
        matcher.rollback(1)
        assert not matcher.is_terminated, "the end was rolled back and the matcher is still terminated"
        assert (allowed(matcher, vocabulary_size), matcher.is_accepting) == seen[depth]
    while depth:
        back = rng.randint(1, depth)
        matcher.rollback(back)
        depth -= back
        assert (allowed(matcher, vocabulary_size), matcher.is_accepting) == seen[depth], f"rollback({back}) to {depth}"


def forks_are_independent(
    rng: random.Random, matcher: Matcher, vocabulary_size: int, eos_token_ids: Sequence[int]
) -> None:
    """What happens to a fork is not seen by its origin, nor the other way round."""
    before = allowed(matcher, vocabulary_size)
    fork = matcher.fork()
    taken = random_walk(rng, fork, vocabulary_size, eos_token_ids, 3)
    assert allowed(matcher, vocabulary_size) == before, "moving a fork moved its origin"
    after = allowed(fork, vocabulary_size)
    moved = random_walk(rng, matcher, vocabulary_size, eos_token_ids, 2)
    assert allowed(fork, vocabulary_size) == after, "moving the origin moved its fork"
    fork.rollback(len(taken))
    assert allowed(fork, vocabulary_size) == before, "a fork cannot roll back what it accepted itself"
    matcher.rollback(len(moved))


def reset_is_the_start(
    rng: random.Random, matcher: Matcher, vocabulary_size: int, eos_token_ids: Sequence[int], start: set[int]
) -> None:
    random_walk(rng, matcher, vocabulary_size, eos_token_ids, 3)
    matcher.reset()
    assert allowed(matcher, vocabulary_size) == start, "reset does not lead back to the first mask"


def only_bytes_matter(
    rng: random.Random,
    new_matcher: Callable[[], Matcher],
    text: bytes,
    token_bytes: Sequence[bytes],
    vocabulary_size: int,
    tries: int = 4,
) -> None:
    """Any tokenization of a viable text is accepted and leads to the same next mask."""
    by_first: dict[int, list[int]] = {}
    for token_id, data in enumerate(token_bytes):
        if data:
            by_first.setdefault(data[0], []).append(token_id)
    seen: tuple[set[int], bool] | None = None
    for _ in range(tries):
        matcher, position = new_matcher(), 0
        while position < len(text):
            fitting = [t for t in by_first.get(text[position], ()) if text.startswith(token_bytes[t], position)]
            if not fitting:
                return
            token_id = rng.choice(fitting)
            before = position
            position += len(token_bytes[token_id])
            assert matcher.accept_token(token_id), (
                f"{token_bytes[token_id]!r} refused after {text[:before]!r} in {text!r}"
            )
        now = (allowed(matcher, vocabulary_size), matcher.is_accepting)
        assert seen is None or now == seen, f"two tokenizations of {text!r} lead to different masks"
        seen = now


def all_laws(
    rng: random.Random,
    new_matcher: Callable[[], Matcher],
    vocabulary_size: int,
    eos_token_ids: Sequence[int],
    token_bytes: Sequence[bytes],
    walks: int = 2,
    steps: int = 5,
) -> None:
    """Every law, along `walks` random walks."""
    start = allowed(new_matcher(), vocabulary_size)
    for _ in range(walks):
        matcher = new_matcher()
        text = b""
        for _ in range(rng.randint(1, steps)):
            no_dead_end(matcher, vocabulary_size)
            eos_iff_accepting(matcher, vocabulary_size, eos_token_ids)
            for token_id in random_walk(rng, matcher, vocabulary_size, eos_token_ids, 1):
                text += token_bytes[token_id]
        mask_is_what_accept_takes(matcher, vocabulary_size)
        eos_iff_accepting(matcher, vocabulary_size, eos_token_ids)
        rollback_is_identity(rng, matcher, vocabulary_size, eos_token_ids)
        forks_are_independent(rng, matcher, vocabulary_size, eos_token_ids)
        only_bytes_matter(rng, new_matcher, text, token_bytes, vocabulary_size)
        reset_is_the_start(rng, matcher, vocabulary_size, eos_token_ids, start)
