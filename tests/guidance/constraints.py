"""A constraint over token ids written as an automaton: the public interface of a compiled grammar, none of its
insides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from guiderail.errors import LimitError


@dataclass(frozen=True)
class TokenNames:
    """Stands for a vocabulary: as many tokens, decoded as letters."""

    size: int
    eos_token_ids: tuple[int, ...] = (1,)

    def __len__(self) -> int:
        return self.size

    def decode(self, tokens: Sequence[int]) -> bytes:
        return bytes(65 + token % 26 for token in tokens)


@dataclass
class AutomatonConstraint:
    """`edges[state][token] = next state`; the end token is legal in accepting states."""

    edges: dict[int, dict[int, int]]
    accepting: frozenset[int]
    eos: int
    vocabulary: TokenNames

    def matcher(self, max_tokens: int | None = None, prefix: bytes = b"") -> AutomatonMatcher:
        assert prefix == b""
        if max_tokens is not None and self.shortest(0) > max_tokens:
            raise LimitError("the automaton cannot be completed in time", limit="max_tokens")
        return AutomatonMatcher(self, 0, max_tokens)

    def shortest(self, state: int, seen: frozenset[int] = frozenset()) -> float:
        """Tokens still needed to reach an accepting state."""
        if state in self.accepting:
            return 0
        lengths = [1 + self.shortest(t, seen | {state}) for t in self.edges.get(state, {}).values() if t not in seen]
        return min(lengths, default=float("inf"))


@dataclass
class AutomatonMatcher:
    owner: AutomatonConstraint
    state: int
    left: int | None
    is_terminated: bool = False
    history: list[tuple[int, int | None, bool]] = field(default_factory=list)

    def legal(self) -> set[int]:
        if self.is_terminated:
            return set()
        tokens = {
            token
            for token, state in self.owner.edges.get(self.state, {}).items()
            if self.left is None or 1 + self.owner.shortest(state) <= self.left
        }
        return tokens | ({self.owner.eos} if self.is_accepting else set())

    @property
    def is_accepting(self) -> bool:
        return self.state in self.owner.accepting

    def accept_token(self, token: int) -> bool:
        if token not in self.legal():
            return False
        self.history.append((self.state, self.left, self.is_terminated))
        if token == self.owner.eos:
            self.is_terminated = True
        else:
            self.state = self.owner.edges[self.state][token]
            self.left = None if self.left is None else self.left - 1
        return True

    def rollback(self, count: int) -> None:
        for _ in range(count):
            self.state, self.left, self.is_terminated = self.history.pop()

    def fork(self) -> AutomatonMatcher:
        return AutomatonMatcher(self.owner, self.state, self.left, self.is_terminated, list(self.history))

    def fill_next_token_bitmask(self, bitmask: np.ndarray, row: int = 0) -> None:
        bits = np.zeros(bitmask.shape[1] * 32, dtype=np.uint8)
        bits[sorted(self.legal())] = 1
        bitmask[row] = np.packbits(bits, bitorder="little").view("<i4")

    def forced_tokens(self) -> list[int]:
        walker, forced = self.fork(), []
        while len(legal := walker.legal()) == 1 and not walker.is_terminated:
            (token,) = legal
            walker.accept_token(token)
            forced.append(token)
        return forced


def record(vocab: int, eos: int) -> AutomatonConstraint:
    """`<10> <11> value <12> value (<12> value)? <13>` with values from 20..30: brackets are forced, values are not."""
    values = range(20, 31)
    edges = {
        0: {10: 1},
        1: {11: 2},
        2: dict.fromkeys(values, 3),
        3: {12: 4},
        4: dict.fromkeys(values, 5),
        5: {12: 6, 13: 7},
        6: dict.fromkeys(values, 8),
        8: {13: 7},
    }
    return AutomatonConstraint(edges, frozenset({7}), eos, TokenNames(vocab))
