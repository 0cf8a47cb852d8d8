"""The munch discipline by its definition: the longest match among all terminals of the grammar, at each position.

A terminal's match at a position is what its own expression says there (`re`: ordered alternatives, lazy quantifiers),
found by Python's `re`; the lexeme is the longest of these, ties by priority, then a string before a pattern, then the
one defined first. Ignored terminals compete like the others and vanish afterwards. A text is in the language if it can
be cut to its end in this way and the sequence of terminals is a sentence of the grammar.

Terminals may be of several modes. Then each position has one longest match per mode, a text may be cut in several ways,
and it is in the language if one of them is a sentence. Ignored terminals are of mode 0; they may stand before terminals
of mode 0, of the modes that say so, and at the end.

Viability of a prefix is the hard part, because a lexeme's end may depend on bytes to come. Here it is found by
enumeration: for a grammar with finitely many sentences over terminals with finitely many lexemes and nothing ignored,
every text that could possibly be cut into a sentence is written down, those that lexing by definition gives back are
kept, and a prefix is viable if a kept text starts with it.
"""

from __future__ import annotations

import itertools
import random
import re
from dataclasses import dataclass, field, replace
from functools import cached_property

from .context_free import Earley, Grammar, is_empty
from .regular_expressions import (
    Choice,
    Name,
    Node,
    Sequence,
    literal,
    nullable,
    random_expression,
    texts_of,
    to_pattern,
)


@dataclass(frozen=True)
class Terminal:
    """`tree` describes the lexemes; a `is_string` terminal has exactly one.

    before, after: zero-width assertions around the expression, which may look past the end of the lexeme.
    """

    name: str
    tree: Node
    is_string: bool
    priority: int = 0
    ignored: bool = False
    before: str = ""
    after: str = ""
    mode: int = 0

    @property
    def expression(self) -> str:
        tree = to_pattern(self.tree)
        return f"{self.before}(?:{tree}){self.after}" if self.before or self.after else tree

    @cached_property
    def pattern(self) -> re.Pattern[bytes]:
        return re.compile(self.expression.encode())


@dataclass
class MunchGrammar:
    """Rules over terminal names: a production is a tuple of names, upper case for terminals."""

    start: str
    rules: dict[str, list[tuple[str, ...]]]
    terminals: list[Terminal]
    skips: tuple[bool, ...] = (True,)  # by mode
    _symbol_grammar: Grammar = field(init=False)

    def __post_init__(self) -> None:
        # Each terminal is one letter of the sentence grammar: byte number = its index.
        self._letter = {terminal.name: index for index, terminal in enumerate(self.terminals)}

        def tree(symbol: str) -> Node:
            return literal(bytes([self._letter[symbol]])) if symbol in self._letter else Name(symbol)

        options = {name: [Sequence(tuple(map(tree, p))) for p in ps] for name, ps in self.rules.items()}
        self._symbol_grammar = Grammar(
            self.start, {name: Choice(tuple(nodes)) if len(nodes) != 1 else nodes[0] for name, nodes in options.items()}
        )
        self._parser = None if is_empty(self._symbol_grammar) else Earley(self._symbol_grammar)

    # By definition --------------------------------------------------------------------------------------------------

    def longest(self, text: bytes, position: int, mode: int) -> tuple[Terminal, int] | None:
        """The lexeme of `mode` at `position`: its terminal and its end."""
        best: tuple[int, int, bool] | None = None
        winner = None
        for terminal in self.terminals:
            if terminal.mode != mode:
                continue
            found = terminal.pattern.match(text, position)
            if found is None or found.end() == position:
                continue
            rank = (found.end(), terminal.priority, terminal.is_string)
            if best is None or rank > best:
                best, winner = rank, terminal
        return None if best is None or winner is None else (winner, best[0])

    def readings(self, text: bytes) -> list[list[str]]:
        """The ways to cut `text`: names of the lexemes' terminals, ignored ones left out. One mode: at most one."""
        found: list[list[str]] = []
        pending: list[tuple[int, bool, tuple[str, ...]]] = [(0, False, ())]  # position, after an ignored one, names
        while pending:
            position, ignored, names = pending.pop()
            if position == len(text):
                found.append(list(names))
                continue
            for mode, skips in enumerate(self.skips):
                lexeme = self.longest(text, position, mode)
                if lexeme is None:
                    continue
                terminal, end = lexeme
                if terminal.ignored:
                    pending.append((end, True, names))
                elif skips or not ignored:
                    pending.append((end, False, (*names, terminal.name)))
        return found

    def lex(self, text: bytes) -> list[str] | None:
        """The one reading there is if all terminals are of one mode; None if there is none."""
        found = self.readings(text)
        return found[0] if found else None

    def is_sentence(self, names: list[str]) -> bool:
        return self._parser is not None and self._parser.read(bytes(self._letter[name] for name in names)).accepting

    def accepts(self, text: bytes) -> bool:
        return any(self.is_sentence(names) for names in self.readings(text))

    # Finite languages -----------------------------------------------------------------------------------------------

    def sentences(self, limit: int) -> set[tuple[str, ...]] | None:
        """All terminal sequences, or None if there are more than `limit` (or infinitely many)."""
        known: dict[str, set[tuple[str, ...]]] = {name: set() for name in self.rules}
        for _ in range(len(self.rules) + 1):
            changed = False
            for name, productions in self.rules.items():
                for production in productions:
                    parts = [known.get(s, {(s,)}) for s in production]
                    size = 1
                    for part in parts:
                        size *= len(part)
                    if size > limit:
                        return None
                    for combination in itertools.product(*parts):
                        sentence = tuple(itertools.chain.from_iterable(combination))
                        if sentence not in known[name]:
                            known[name].add(sentence)
                            changed = True
                if len(known[name]) > limit:
                    return None
            if not changed:
                return known[self.start]
        return None

    def texts(self, limit: int) -> set[bytes] | None:
        """The whole language, or None if it is not finite or enumeration would pass `limit` candidates."""
        if any(terminal.ignored for terminal in self.terminals):
            return None
        lexemes = {terminal.name: texts_of(terminal.tree, limit) for terminal in self.terminals}
        sentences = self.sentences(limit)
        if sentences is None or any(found is None for found in lexemes.values()):
            return None
        candidates: set[bytes] = set()
        for sentence in sentences:
            layer = {b""}
            for name in sentence:
                layer = {left + right for left in layer for right in lexemes[name] or ()}
                if len(layer) > limit:
                    return None
            candidates |= layer
            if len(candidates) > limit:
                return None
        return {text for text in candidates if self.accepts(text)}

    # Printing -------------------------------------------------------------------------------------------------------

    def to_lark(self) -> str:
        lines = [
            f"{name}: " + " | ".join(" ".join(production) for production in productions)
            for name, productions in self.rules.items()
        ]
        for terminal in self.terminals:
            name = f"{terminal.name}.{terminal.priority}" if terminal.priority else terminal.name
            if terminal.is_string:
                (lexeme,) = texts_of(terminal.tree, 1) or {b""}
                lines.append(f'{name}: "{lexeme.decode()}"')
            else:
                lines.append(f"{name}: /{terminal.expression}/")
        lines += [f"%ignore {terminal.name}" for terminal in self.terminals if terminal.ignored]
        for mode, skips in enumerate(self.skips):
            names = " ".join(terminal.name for terminal in self.terminals if terminal.mode == mode)
            if mode and names:
                lines.append(f"%mode m{mode}{' ignoring' if skips else ''}: {names}")
        return "\n".join(lines) + "\n"


def with_modes(rng: random.Random, grammar: MunchGrammar) -> MunchGrammar:
    """The grammar with its terminals spread over modes. Those of the first mode stay if they are ignored or look past
    their end."""
    skips = (True, *(rng.random() < 0.5 for _ in range(rng.randint(1, 2))))
    terminals = [
        terminal
        if terminal.ignored or terminal.before or terminal.after
        else replace(terminal, mode=rng.randrange(len(skips)))
        for terminal in grammar.terminals
    ]
    used = [mode for mode in range(len(skips)) if not mode or any(t.mode == mode for t in terminals)]
    numbered = [replace(terminal, mode=used.index(terminal.mode)) for terminal in terminals]
    return MunchGrammar(grammar.start, grammar.rules, numbered, tuple(skips[mode] for mode in used))


def prefixes(texts: set[bytes]) -> set[bytes]:
    return {text[:end] for text in texts for end in range(len(text) + 1)}


def random_munch_grammar(
    rng: random.Random, alphabet: bytes = b"ab", *, finite: bool = True, ignored: bool = False, looking: float = 0.0
) -> MunchGrammar:
    """Terminals that overlap as much as a small alphabet makes them: prefixes of each other, equal in part, repeated.

    finite: no recursion and no unbounded terminal, so that `texts` can enumerate.
    looking: how likely a pattern looks past its end.
    """
    terminals: list[Terminal] = []
    names = [chr(ord("A") + index) for index in range(rng.randint(2, 4))]
    seen: set[str] = set()
    for name in names:
        is_string = rng.random() < 0.4
        while True:
            if is_string:
                tree = literal(bytes(rng.choices(alphabet, k=rng.randint(1, 3))))
            else:
                tree = random_expression(rng, rng.randint(1, 4), alphabet, finite)
            if not nullable(tree) and to_pattern(tree) not in seen:
                break
        seen.add(to_pattern(tree))
        before = after = ""
        if not is_string and rng.random() < looking:
            body = rng.choice(["a", "b", "ab", "a|bb", "b+", "a*b", "[ab][ab]", "$", "a|$", "."])
            if rng.random() < 0.3:
                before = rng.choice([f"(?={body})", f"(?!{body})"])
            else:
                after = rng.choice([f"(?={body})", f"(?!{body})", f"(?!{body})", r"\b", r"\B", "$", r"\Z"])
        terminals.append(Terminal(name, tree, is_string, rng.choice([0, 0, 0, 1, 2]), before=before, after=after))
    if ignored:
        letter = rng.choice([b" ", b" ", bytes([rng.choice(alphabet)])])
        tree = literal(letter)
        if to_pattern(tree) not in seen:
            terminals.append(Terminal("IGNORED", tree, False, rng.choice([0, 1]), ignored=True))
    depth = rng.randint(1, 3)
    rules: dict[str, list[tuple[str, ...]]] = {}
    for level in range(depth):
        deeper = [f"r{other}" for other in range(depth if not finite else 0)] or [
            f"r{other}" for other in range(level + 1, depth)
        ]
        productions = []
        for _ in range(rng.randint(1, 3)):
            productions.append(tuple(rng.choice(names + deeper) for _ in range(rng.randint(1, 3))))
        rules["start" if level == 0 else f"r{level}"] = productions
    if not finite:
        rules = {
            name: [tuple("start" if symbol == "r0" else symbol for symbol in p) for p in ps]
            for name, ps in rules.items()
        }
    return MunchGrammar("start", *_used(rules, terminals))


def _used(
    rules: dict[str, list[tuple[str, ...]]], terminals: list[Terminal]
) -> tuple[dict[str, list[tuple[str, ...]]], list[Terminal]]:
    """Without rules that `start` does not reach and terminals that no rule uses: those are not of the grammar."""
    reached: set[str] = set()
    waiting = ["start"]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += [symbol for production in rules.get(name, ()) for symbol in production]
    return (
        {name: productions for name, productions in rules.items() if name in reached},
        [terminal for terminal in terminals if terminal.ignored or terminal.name in reached],
    )
