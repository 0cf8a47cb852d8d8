"""Context-free grammars over bytes: two recognisers that have nothing in common but the grammar.

1. Earley's algorithm as in the textbook (J. Earley 1970, CACM 13(2)). A rule completed in the set in which it began (a
   nullable one) also advances the items that come to wait for it later in the same set. Useless symbols are removed
   first, so an item set that is not empty means that the prefix has a completion.
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
        self._items: list[set[Item]] = []
        # For each set: nonterminal -> the items of the set that wait for it.
        self._waiting: list[dict[str, list[Item]]] = []
        self._add_set({(self._start, p, 0, 0) for p in self._productions.get(self._start, [])})

    def _add_set(self, items: set[Item]) -> None:
        """Close under predict and complete, and append."""
        position = len(self._items)
        closed: set[Item] = set()
        waiting: dict[str, list[Item]] = {}
        self._waiting.append(waiting)
        nullable: set[str] = set()  # completed within this very set, so whoever waits for them later advances at once
        frontier = list(items)
        while frontier:
            item = frontier.pop()
            if item in closed:
                continue
            closed.add(item)
            name, production, dot, origin = item
            if dot == len(production):
                if origin == position:
                    nullable.add(name)
                frontier += [(n, p, d + 1, o) for n, p, d, o in self._waiting[origin].get(name, ())]
            elif isinstance(waited := production[dot], str):
                waiting.setdefault(waited, []).append(item)
                frontier += [(waited, p, 0, position) for p in self._productions[waited]]
                if waited in nullable:
                    frontier.append((name, production, dot + 1, origin))
        self._items.append(closed)

    def step(self, byte: int) -> Earley:
        scanned: set[Item] = set()
        for name, production, dot, origin in self._items[-1]:
            if dot < len(production):
                waited = production[dot]
                if not isinstance(waited, str) and byte in waited:
                    scanned.add((name, production, dot + 1, origin))
        after = object.__new__(type(self))
        after._productions, after._start = self._productions, self._start
        after._items, after._waiting = list(self._items), list(self._waiting)
        after._add_set(scanned)
        return after

    def read(self, text: bytes) -> Earley:
        state = self
        for byte in text:
            state = state.step(byte)
        return state

    @property
    def viable(self) -> bool:
        return bool(self._items[-1])

    @property
    def accepting(self) -> bool:
        return any(
            name == self._start and origin == 0 and dot == len(production)
            for name, production, dot, origin in self._items[-1]
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
    # paths[A][p]: the states q such that A derives some text that leads from p to q.
    paths: dict[str, list[set[int]]] = {name: [set() for _ in range(automaton.states)] for name in grammar.productions}
    edges: dict[frozenset[int], list[set[int]]] = {}
    for symbol in {s for ps in grammar.productions.values() for p in ps for s in p if not isinstance(s, str)}:
        edges[symbol] = [set() for _ in range(automaton.states)]
        for source, members, target in automaton.edges:
            if members & symbol:
                edges[symbol][source].add(target)

    changed = True
    while changed:
        changed = False
        for name, productions in grammar.productions.items():
            for production in productions:
                for start in range(automaton.states):
                    reached = {start}
                    for symbol in production:
                        steps = paths[symbol] if isinstance(symbol, str) else edges[symbol]
                        reached = set().union(*(steps[state] for state in reached)) if reached else reached
                    if not reached <= paths[name][start]:
                        paths[name][start] |= reached
                        changed = True
    return not automaton.accepting.isdisjoint(paths[grammar.start][0])


def accepts(grammar: Grammar, text: bytes) -> bool:
    return intersects(grammar, text_automaton(text))


def viable(grammar: Grammar, prefix: bytes) -> bool:
    """Does some text of the language start with `prefix`?"""
    return intersects(grammar, prefix_automaton(prefix))


def viable_in_tokens(grammar: Grammar, prefix: bytes, tokens: Iterable[bytes]) -> bool:
    """Is there a text `prefix` + tokens in the language? Asked where a vocabulary cannot write every byte."""
    return intersects(grammar, token_automaton(prefix, tokens))
