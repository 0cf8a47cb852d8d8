"""Regular expressions over bytes as syntax trees, matched by derivatives.

The derivative of a language by a byte `b` is what may follow once `b` has been read: b⁻¹L = {w : bw ∈ L}. For syntax
trees it is computed by structure (J. A. Brzozowski 1964, "Derivatives of regular expressions", JACM 11(4)), so a text
is matched by taking derivatives byte by byte and asking whether the rest may be empty. The smart constructors below
remove the empty language wherever it arises; with no intersection and no complement in the trees, what remains is then
never empty, hence a prefix is viable exactly if its derivative is not `NOTHING`.

A tree may also hold `Name` leaves (nonterminals); then it is a rule's right-hand side and `context_free` expands it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class ByteSet:
    """One byte out of `members`; the empty set is the empty language."""

    members: frozenset[int]


@dataclass(frozen=True)
class Sequence:
    """All parts in order; no parts: the empty text."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Choice:
    """Any of the options (two or more)."""

    options: tuple[Node, ...]


@dataclass(frozen=True)
class Repeat:
    """`item` at least `low` times and at most `high` times (None: no upper bound)."""

    item: Node
    low: int
    high: int | None


@dataclass(frozen=True)
class Name:
    """A nonterminal; only in right-hand sides of rules."""

    name: str


Node = ByteSet | Sequence | Choice | Repeat | Name

NOTHING = ByteSet(frozenset())
EMPTY_TEXT = Sequence(())


def literal(text: bytes | str) -> Node:
    """The one text, in UTF-8."""
    data = text.encode() if isinstance(text, str) else text
    return sequence([ByteSet(frozenset([byte])) for byte in data])


def one_of(members: bytes) -> Node:
    return ByteSet(frozenset(members))


def sequence(parts: list[Node]) -> Node:
    """Concatenation, flattened; NOTHING absorbs everything."""
    flat: list[Node] = []
    for part in parts:
        if part == NOTHING:
            return NOTHING
        flat.extend(part.parts if isinstance(part, Sequence) else [part])
    return flat[0] if len(flat) == 1 else Sequence(tuple(flat))


def choice(options: list[Node]) -> Node:
    """Union, flattened, without repetitions and without NOTHING."""
    flat: list[Node] = []
    for option in options:
        for each in option.options if isinstance(option, Choice) else (option,):
            if each != NOTHING and each not in flat:
                flat.append(each)
    if not flat:
        return NOTHING
    return flat[0] if len(flat) == 1 else Choice(tuple(flat))


@lru_cache(maxsize=1 << 16)
def nullable(node: Node) -> bool:
    """Is the empty text in the language?"""
    match node:
        case ByteSet():
            return False
        case Sequence(parts):
            return all(nullable(part) for part in parts)
        case Choice(options):
            return any(nullable(option) for option in options)
        case Repeat(item, low, _):
            return low == 0 or nullable(item)
        case Name():
            raise ValueError("a rule's right-hand side has no language of its own")


@lru_cache(maxsize=1 << 16)
def derivative(node: Node, byte: int) -> Node:
    """What may follow after `byte`."""
    match node:
        case ByteSet(members):
            return EMPTY_TEXT if byte in members else NOTHING
        case Sequence(()):
            return NOTHING
        case Sequence((head, *tail)):
            after_head = sequence([derivative(head, byte), *tail])
            return choice([after_head, derivative(sequence(list(tail)), byte)]) if nullable(head) else after_head
        case Choice(options):
            return choice([derivative(option, byte) for option in options])
        case Repeat(_, _, 0):
            return NOTHING
        case Repeat(item, low, high):
            # A nullable item can fill the lower bound with empty texts, so only the upper bound counts down.
            rest = Repeat(item, max(0, low - 1), None if high is None else high - 1)
            return sequence([derivative(item, byte), rest])
        case _:
            raise ValueError("a rule's right-hand side has no derivative")


def after(node: Node, text: bytes) -> Node:
    for byte in text:
        node = derivative(node, byte)
    return node


def matches(node: Node, text: bytes) -> bool:
    return nullable(after(node, text))


def viable(node: Node, prefix: bytes) -> bool:
    """Does some text of the language start with `prefix`?"""
    return after(node, prefix) != NOTHING


def is_nothing(node: Node) -> bool:
    """Trees built by the constructors above are empty only as NOTHING itself, save for a `Repeat` of it."""
    return node == NOTHING or (isinstance(node, Repeat) and is_nothing(node.item) and node.low > 0)


# Printing -----------------------------------------------------------------------------------------------------------


def _set_pattern(members: frozenset[int]) -> str:
    if not members <= set(range(0x20, 0x7F)):
        raise ValueError("only printable ASCII sets are printed; write UTF-8 as literals")
    if len(members) == 1:
        character = chr(next(iter(members)))
        return character if character.isalnum() else "\\" + character
    return "[" + "".join(c if c.isalnum() else "\\" + c for c in map(chr, sorted(members))) + "]"


def _quantifier(low: int, high: int | None) -> str:
    match (low, high):
        case (0, None):
            return "*"
        case (1, None):
            return "+"
        case (0, 1):
            return "?"
        case (_, None):
            return f"{{{low},}}"
        case _:
            return f"{{{low},{high}}}"


def to_pattern(node: Node) -> str:
    """The tree in the syntax that Python's `re`, ECMA-262 and most others share. Every group is non-capturing."""
    match node:
        case ByteSet(members):
            return _set_pattern(members) if members else "[^\\s\\S]"
        case Sequence(parts):
            return "".join(f"(?:{to_pattern(p)})" if isinstance(p, Choice) else to_pattern(p) for p in parts) or "(?:)"
        case Choice(options):
            return "|".join(to_pattern(option) for option in options)
        case Repeat(item, low, high):
            atom = to_pattern(item)
            return (atom if isinstance(item, ByteSet) else f"(?:{atom})") + _quantifier(low, high)
        case Name(name):
            raise ValueError(f"nonterminal {name} in a regular expression")


# Generation ---------------------------------------------------------------------------------------------------------


def all_expressions(size: int, alphabet: bytes = b"ab") -> Iterator[Node]:
    """Every tree with exactly `size` nodes: letters, the empty text, binary sequence and choice, `*`, `+`, `?`, `{2}`.

    The counts for two letters grow by about nine per node: 3, 12, 66, 444, 3,108 ...
    """
    for node, _ in _all_raw(size, alphabet):
        yield node


def _all_raw(size: int, alphabet: bytes) -> list[tuple[Node, int]]:
    return _all_cached(size, alphabet)


@lru_cache(maxsize=64)
def _all_cached(size: int, alphabet: bytes) -> list[tuple[Node, int]]:
    if size == 1:
        return [(EMPTY_TEXT, 1), *((ByteSet(frozenset([byte])), 1) for byte in alphabet)]
    trees: list[Node] = []
    for item, _ in _all_cached(size - 1, alphabet):
        trees += [Repeat(item, 0, None), Repeat(item, 1, None), Repeat(item, 0, 1), Repeat(item, 2, 2)]
    for left_size in range(1, size - 1):
        for left, _ in _all_cached(left_size, alphabet):
            for right, _ in _all_cached(size - 1 - left_size, alphabet):
                # Raw nodes: the engine must see `(?:)a` and `a|a` as they are written.
                trees += [Sequence((left, right)), Choice((left, right))]
    return [(tree, size) for tree in trees]


def all_texts(length: int, alphabet: bytes = b"ab") -> list[bytes]:
    """All texts up to `length`, shortest first."""
    texts = layer = [b""]
    for _ in range(length):
        layer = [text + bytes([byte]) for text in layer for byte in alphabet]
        texts = texts + layer
    return texts


def random_expression(rng: random.Random, size: int, alphabet: bytes = b"abc", finite: bool = False) -> Node:
    """A tree of about `size` nodes; `finite`: no unbounded repetition."""
    if size <= 1:
        roll = rng.random()
        if roll < 0.1:
            return EMPTY_TEXT
        if roll < 0.7:
            return literal(bytes([rng.choice(alphabet)]))
        return one_of(bytes(rng.sample(list(alphabet), rng.randint(1, len(alphabet)))))
    kind = rng.choice(["sequence", "sequence", "choice", "repeat"])
    if kind == "repeat":
        low = rng.choice([0, 0, 1, 2])
        high = low + rng.randint(0, 2) if finite else rng.choice([None, None, low, low + 1, low + 2])
        return Repeat(random_expression(rng, size - 1, alphabet, finite), low, high)
    left = rng.randint(1, size - 1)
    pair = [random_expression(rng, left, alphabet, finite), random_expression(rng, size - left, alphabet, finite)]
    return sequence(pair) if kind == "sequence" else choice(pair)


def texts_of(node: Node, limit: int) -> set[bytes] | None:
    """All texts of a finite language, or None if there are more than `limit` or infinitely many."""
    match node:
        case ByteSet(members):
            return {bytes([byte]) for byte in members}
        case Sequence(parts):
            texts: set[bytes] = {b""}
            for part in parts:
                of_part = texts_of(part, limit)
                if of_part is None or len(texts) * len(of_part) > 16 * limit:
                    return None
                texts = {left + right for left in texts for right in of_part}
        case Choice(options):
            texts = set()
            for option in options:
                of_option = texts_of(option, limit)
                if of_option is None:
                    return None
                texts |= of_option
        case Repeat(item, low, high):
            of_item = texts_of(item, limit)
            if of_item is None or (high is None and of_item - {b""}):
                return None
            return texts_of(Sequence((item,) * low + (choice([item, EMPTY_TEXT]),) * ((high or low) - low)), limit)
        case Name():
            raise ValueError("a rule's right-hand side has no language of its own")
    return texts if len(texts) <= limit else None
