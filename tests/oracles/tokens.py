"""Masks by trying every token, and a matcher that knows nothing but membership and viability.

The oracle's side of `Matcher`: same method names, same bit layout (int32 words, bit `j % 32` of word `j // 32`,
1 = allowed), so that the laws in tests/property run on it as on the engine. Time per mask: one viability question per
token.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Decide = Callable[[bytes], bool]


def allowed_tokens(
    prefix: bytes, viable: Decide, accepts: Decide, token_bytes: Sequence[bytes], eos_token_ids: Sequence[int]
) -> set[int]:
    """Token t is allowed if the prefix stays viable with its bytes; EOS if the prefix is a text of the language.

    `viable` must already say 'completable in tokens of this vocabulary' where that differs from 'completable'.
    A token without bytes that is not EOS is never allowed.
    """
    answers: dict[bytes, bool] = {}
    allowed = {token_id for token_id in eos_token_ids if accepts(prefix)}
    for token_id, data in enumerate(token_bytes):
        if data and token_id not in eos_token_ids:
            if data not in answers:
                answers[data] = viable(prefix + data)
            if answers[data]:
                allowed.add(token_id)
    return allowed


def mask_to_set(row: npt.NDArray[np.int32], vocabulary_size: int) -> set[int]:
    """Ids whose bit is set; bits beyond the vocabulary are an error."""
    bits = np.unpackbits(np.ascontiguousarray(row).view(np.uint8), bitorder="little")
    ids = np.flatnonzero(bits)
    if ids.size and ids[-1] >= vocabulary_size:
        raise AssertionError(f"bit {ids[-1]} is set in a mask for {vocabulary_size} tokens")
    return set(ids.tolist())


class ReferenceMatcher:
    """The matcher's contract in thirty lines; the state is the text itself."""

    def __init__(
        self, viable: Decide, accepts: Decide, token_bytes: Sequence[bytes], eos_token_ids: Sequence[int]
    ) -> None:
        self._viable, self._accepts = viable, accepts
        self._token_bytes, self._eos = token_bytes, list(eos_token_ids)
        self._history: list[int] = []

    @property
    def _text(self) -> bytes:
        return b"".join(self._token_bytes[token_id] for token_id in self._history)

    @property
    def is_terminated(self) -> bool:
        return bool(self._history) and self._history[-1] in self._eos

    @property
    def is_accepting(self) -> bool:
        return self._accepts(self._text)

    def _allowed(self) -> set[int]:
        if self.is_terminated:
            return set()
        return allowed_tokens(self._text, self._viable, self._accepts, self._token_bytes, self._eos)

    def accept_token(self, token_id: int) -> bool:
        if token_id not in self._allowed():
            return False
        self._history.append(token_id)
        return True

    def accept_tokens(self, token_ids: Sequence[int]) -> int:
        for count, token_id in enumerate(token_ids):
            if not self.accept_token(token_id):
                return count
        return len(token_ids)

    def fill_next_token_bitmask(self, bitmask: npt.NDArray[np.int32], row: int = 0) -> None:
        bits = np.zeros(bitmask.shape[1] * 32, dtype=np.uint8)
        bits[sorted(self._allowed())] = 1
        bitmask[row] = np.packbits(bits, bitorder="little").view(np.int32)

    def rollback(self, count: int) -> None:
        del self._history[len(self._history) - count :]

    def reset(self) -> None:
        self._history.clear()

    def fork(self) -> ReferenceMatcher:
        other = ReferenceMatcher(self._viable, self._accepts, self._token_bytes, self._eos)
        other._history = list(self._history)
        return other


# Vocabularies -------------------------------------------------------------------------------------------------------


def byte_vocabulary() -> tuple[list[bytes], list[int]]:
    """257 tokens: every byte, and EOS. (token bytes, EOS ids)"""
    return [bytes([byte]) for byte in range(256)] + [b""], [256]


def random_vocabulary(rng: random.Random, alphabet: bytes, kind: str) -> tuple[list[bytes], list[int]]:
    """A few dozen tokens, shuffled ids, with repetitions and tokens that no text contains. (token bytes, EOS ids)

    kind: 'bytes'      every byte, and words over the alphabet;
          'alphabet'   only the alphabet's letters, and words;
          'incomplete' words and some of the letters: not every text can be written.
    """
    words = {bytes(rng.choices(alphabet, k=rng.randint(2, 5))) for _ in range(rng.randint(6, 20))}
    if kind == "bytes":
        letters = [bytes([byte]) for byte in range(256)]
    elif kind == "alphabet":
        letters = [bytes([byte]) for byte in alphabet]
    elif kind == "incomplete":
        letters = [bytes([byte]) for byte in rng.sample(list(alphabet), len(alphabet) - 1)]
    else:
        raise ValueError(kind)
    tokens = [*letters, *sorted(words), rng.choice(sorted(words)), b"\xff" + alphabet[:1], alphabet[:1] + b"\x00", b""]
    rng.shuffle(tokens)
    eos = [len(tokens), len(tokens) + 1][: rng.randint(1, 2)]
    return tokens + [b""] * len(eos), eos
