"""Context-free grammars over bytes: two recognisers that have nothing in common but the grammar.

1. Earley's algorithm as in the textbook (J. Earley 1970, CACM 13(2)), with one difference: each item set is closed by
   repeating predict and complete until nothing is new, which is slow and treats nullable rules right without a special
   case. Useless symbols are removed first, so an item set that is not empty means that the prefix has a completion.
2. The intersection with a finite automaton (Y. Bar-Hillel, M. Perles, E. Shamir 1961): the least set of triples
   (p, A, q) such that A derives some text that leads from state p to q. It answers every question at once, without
   trimming and without an order of reading: membership (the automaton is the text), viability (the text, then any
   bytes) and liveness in tokens (the text, then any tokens of a vocabulary).

Rules are trees of `regular_expressions`, with `Name` leaves for nonterminals; both work on the plain productions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from .regular_expressions import ByteSet, Choice, Name, Node, Repeat, Sequence

Symbol = str | frozenset[int]
"""A nonterminal's name, or a set of bytes (a terminal)."""

Production = tuple[Symbol, ...]


@dataclass
class Grammar:
    """`rules[name]` is the right-hand side of a nonterminal; the language is that of `start`."""

    start: str
    rules: dict[str, Node]
    productions: dict[str, list[Production]] = field(init=False)

    def __post_init__(self) -> None:
        self.productions = {}
        for name, node in self.rules.items():
            options = node.options if isinstance(node, Choice) else (node,)
            self.productions[name] = [self._expand(option) for option in options]

    def _expand(self, node: Node) -> Production:
        """One production for a tree; groups and repetitions become nonterminals of their own."""
        match node:
            case ByteSet(members):
                return (members,)
            case Name(name):
                return (name,)
            case Sequence(parts):
                return tuple(symbol for part in parts for symbol in self._expand(part))
            case Choice(options):
                return (self._fresh([self._expand(option) for option in options]),)
            case Repeat(item, low, None):
                body = self._expand(item)
                rest = self._fresh([])
                self.productions[rest] = [(), (*body, rest)]
                return body * low + (rest,)
            case Repeat(item, low, high):
                assert high is not None
                body = self._expand(item)
                tail: Production = ()
                for _ in range(high - low):
                    tail = (self._fresh([(), (*body, *tail)]),)
                return body * low + tail
        raise TypeError(node)

    def _fresh(self, productions: list[Production]) -> str:
        name = f"_{len(self.productions)}"
        self.productions[name] = productions
        return name


# Trimming -----------------------------------------------------------------------------------------------------------


def productive(grammar: Grammar) -> set[str]:
    """Nonterminals that derive some text."""
    found: set[str] = set()
    while True:
        more = {
            name
            for name, productions in grammar.productions.items()
            if any(all(s in found if isinstance(s, str) else s for s in production) for production in productions)
        }
        if more == found:
            return found
        found = more


def is_empty(grammar: Grammar) -> bool:
    return grammar.start not in productive(grammar)


def nullable_names(grammar: Grammar) -> set[str]:
    """Nonterminals that derive the empty text."""
    found: set[str] = set()
    while True:
        more = {n for n, ps in grammar.productions.items() if any(all(s in found for s in p) for p in ps)}
        if more == found:
            return found
        found = more


# Earley -------------------------------------------------------------------------------------------------------------

Item = tuple[str, Production, int, int]
"""(left-hand side, production, dot, origin)"""


class Earley:
    """Item sets of one prefix; `step` gives a new object for one more byte and shares the earlier sets."""

    def __init__(self, grammar: Grammar) -> None:
        useful = productive(grammar)
        self._productions = {
            name: [p for p in productions if all(s in useful if isinstance(s, str) else s for s in p)]
            for name, productions in grammar.productions.items()
            if name in useful
        }
        self._start = grammar.start
        seed = {(self._start, p, 0, 0) for p in self._productions.get(self._start, [])}
        self._sets: list[frozenset[Item]] = []
        self._sets = [self._close(seed, 0)]

    def _close(self, items: set[Item], position: int) -> frozenset[Item]:
        closed = set(items)
        while True:
            new: set[Item] = set()
            for name, production, dot, origin in closed:
                if dot < len(production):
                    waited = production[dot]
                    if isinstance(waited, str):
                        new.update((waited, p, 0, position) for p in self._productions[waited])
                else:
                    earlier = closed if origin == position else self._sets[origin]
                    new.update((n, p, d + 1, o) for n, p, d, o in earlier if d < len(p) and p[d] == name)
            if new <= closed:
                return frozenset(closed)
            closed |= new

    def step(self, byte: int) -> Earley:
        position = len(self._sets)
        scanned: set[Item] = set()
        for name, production, dot, origin in self._sets[-1]:
            if dot < len(production):
                waited = production[dot]
                if not isinstance(waited, str) and byte in waited:
                    scanned.add((name, production, dot + 1, origin))
        after = object.__new__(Earley)
        after._productions, after._start, after._sets = self._productions, self._start, self._sets
        after._sets = [*self._sets, after._close(scanned, position)]
        return after

    def read(self, text: bytes) -> Earley:
        state = self
        for byte in text:
            state = state.step(byte)
        return state

    @property
    def viable(self) -> bool:
        return bool(self._sets[-1])

    @property
    def accepting(self) -> bool:
        return any(
            name == self._start and origin == 0 and dot == len(production)
            for name, production, dot, origin in self._sets[-1]
        )


# Intersection with an automaton -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Automaton:
    """A nondeterministic finite automaton: edges (state, bytes, state); state 0 is the start."""

    states: int
    edges: tuple[tuple[int, frozenset[int], int], ...]
    accepting: frozenset[int]


ANY_BYTE = frozenset(range(256))


def text_automaton(text: bytes) -> Automaton:
    """Accepts exactly `text`."""
    edges = tuple((i, frozenset([byte]), i + 1) for i, byte in enumerate(text))
    return Automaton(len(text) + 1, edges, frozenset([len(text)]))


def prefix_automaton(prefix: bytes) -> Automaton:
    """Accepts `prefix` followed by anything."""
    chain = text_automaton(prefix)
    return Automaton(chain.states, (*chain.edges, (len(prefix), ANY_BYTE, len(prefix))), chain.accepting)


def token_automaton(prefix: bytes, tokens: Iterable[bytes]) -> Automaton:
    """Accepts `prefix` followed by any concatenation of `tokens`."""
    end = len(prefix)
    edges = list(text_automaton(prefix).edges)
    states = end + 1
    for token in sorted({token for token in tokens if token}):
        state = end
        for index, byte in enumerate(token):
            target = end if index == len(token) - 1 else states
            states += target == states
            edges.append((state, frozenset([byte]), target))
            state = target
    return Automaton(states, tuple(edges), frozenset([end]))


def intersects(grammar: Grammar, automaton: Automaton) -> bool:
    """Is there a text in both languages?"""
    paths: dict[str, set[tuple[int, int]]] = {name: set() for name in grammar.productions}

    def along(production: Production) -> set[tuple[int, int]]:
        reached = {(state, state) for state in range(automaton.states)}
        for symbol in production:
            if isinstance(symbol, str):
                steps = paths[symbol]
            else:
                steps = {(p, q) for p, members, q in automaton.edges if members & symbol}
            reached = {(p, r) for p, q in reached for q2, r in steps if q == q2}
        return reached

    changed = True
    while changed:
        changed = False
        for name, productions in grammar.productions.items():
            found = set().union(*map(along, productions)) if productions else set()
            if not found <= paths[name]:
                paths[name] |= found
                changed = True
    return any((0, state) in paths[grammar.start] for state in automaton.accepting)


def accepts(grammar: Grammar, text: bytes) -> bool:
    return intersects(grammar, text_automaton(text))


def viable(grammar: Grammar, prefix: bytes) -> bool:
    """Does some text of the language start with `prefix`?"""
    return intersects(grammar, prefix_automaton(prefix))


def viable_in_tokens(grammar: Grammar, prefix: bytes, tokens: Iterable[bytes]) -> bool:
    """Is there a text `prefix` + tokens in the language? Asked where a vocabulary cannot write every byte."""
    return intersects(grammar, token_automaton(prefix, tokens))
