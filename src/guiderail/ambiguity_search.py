"""A short text that a grammar derives in two ways, found by a bounded search.

For each rule the sequences of terminals that it derives are listed, shortest first, each with one derivation. A second
derivation of the same sequence, by another alternative or cut in another way, makes the rule ambiguous. What is found
is certain: a text is shown only if longest match cuts it into these terminals. What is not found may still be there,
in longer texts or beyond the limits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from guiderail.errors import GuiderailError
from guiderail.grammars.rules import StaticGrammar

__all__ = ["Ambiguity", "find_ambiguities"]

# Terminals in a sequence; sequences kept of each rule and length; steps of the whole search.
MAX_LENGTH = 8
MAX_SEQUENCES = 40
MAX_STEPS = 300_000
# Pairs of derivations of one rule for which a text is looked for.
MAX_TRIES = 3
# Symbols of an alternative.
MAX_SYMBOLS = 100

_Terminals = tuple[int, ...]
# An alternative, by its place, and how the sequence is shared out among its symbols.
_Derivation = tuple[int, tuple[_Terminals, ...]]


class Ambiguity(NamedTuple):
    """Two derivations of one text.

    Args:
        rule: by whose alternatives they differ. text: None if the terminals make no text of their own (blocks).
        derivations: 'rule[terminal rule[…]]', rules that only hold repetitions left out.
    """

    rule: str
    text: str | None
    derivations: tuple[str, str]


def find_ambiguities(grammar: StaticGrammar, examples: Mapping[int, str]) -> tuple[list[Ambiguity], bool]:
    """At most one ambiguity of each rule, and whether all sequences of MAX_LENGTH terminals were looked at.

    Args:
        grammar: under longest match. examples: short texts of terminals, by their numbers.
    """
    search = _Search(grammar, examples)
    complete = search.run()
    return search.found, complete


class _Search:
    def __init__(self, grammar: StaticGrammar, examples: Mapping[int, str]) -> None:
        self.grammar = grammar
        self.examples = examples
        self.known: dict[tuple[str, int], dict[_Terminals, _Derivation]] = {}
        self.found: list[Ambiguity] = []
        self.tries: dict[str, int] = {}  # by rule; MAX_TRIES: it is settled
        self.steps = 0
        self.cut = False

    def run(self) -> bool:
        for length in range(MAX_LENGTH + 1):
            changed = True
            while changed and self.steps < MAX_STEPS:
                changed = False
                for rule, alternatives in self.grammar.rules.items():
                    for place, alternative in enumerate(alternatives):
                        if len(alternative) > MAX_SYMBOLS:
                            self.cut = True
                            continue
                        for parts in self.shared_out(alternative, length):
                            changed |= self.derive(rule, length, (place, parts))
                            if self.steps >= MAX_STEPS:
                                return False
        return not self.cut

    def shared_out(self, symbols: tuple[int | str, ...], length: int) -> Iterator[tuple[_Terminals, ...]]:
        """The ways to derive `length` terminals from the symbols, by what is known so far."""
        self.steps += 1
        if self.steps > MAX_STEPS:
            return
        if not symbols:
            if length == 0:
                yield ()
            return
        first, rest = symbols[0], symbols[1:]
        if isinstance(first, int):
            if length:
                for others in self.shared_out(rest, length - 1):
                    yield ((first,), *others)
            return
        for own in range(length + 1):
            sequences = list(self.known.get((first, own), ()))
            if not sequences:
                continue
            for others in self.shared_out(rest, length - own):
                for sequence in sequences:
                    self.steps += 1
                    yield (sequence, *others)

    def derive(self, rule: str, length: int, derivation: _Derivation) -> bool:
        table = self.known.setdefault((rule, length), {})
        sequence = tuple(terminal for part in derivation[1] for terminal in part)
        if sequence not in table:
            if len(table) >= MAX_SEQUENCES:
                self.cut = True
                return False
            table[sequence] = derivation
            return True
        if table[sequence] != derivation and sequence and self.tries.get(rule, 0) < MAX_TRIES:
            self.tries[rule] = self.tries.get(rule, 0) + 1
            readable, text = self.text(sequence)
            if readable:
                self.tries[rule] = MAX_TRIES
                one, other = (self.show(rule, sequence, d, 0, False) for d in (table[sequence], derivation))
                if one == other:  # they differ in rules that `flatten` has made
                    one, other = (self.show(rule, sequence, d, 0, True) for d in (table[sequence], derivation))
                self.found.append(Ambiguity(rule, text, (one, other)))
        return False

    def show(self, rule: str, sequence: _Terminals, derivation: _Derivation, depth: int, every: bool) -> str:
        if depth > 3 * MAX_LENGTH:
            return f"{rule}[…]"
        place, parts = derivation
        pieces: list[str] = []
        for symbol, part in zip(self.grammar.rules[rule][place], parts, strict=True):
            if isinstance(symbol, int):
                pieces.append(self.grammar.terminals[symbol].name)
            elif part == sequence and symbol == rule:
                pieces.append(f"{rule}[…]")
            else:
                pieces.append(self.show(symbol, part, self.known[symbol, len(part)][part], depth + 1, every))
        body = " ".join(piece for piece in pieces if piece)
        made = "." in rule and rule.rpartition(".")[2].isdigit()  # by `flatten`, for a repetition or a group
        return body if made and not every else f"{rule}[{body}]"

    def text(self, sequence: _Terminals) -> tuple[bool, str | None]:
        """Whether the terminals may stand so, and a text that is cut into them."""
        terminals = self.grammar.terminals
        if any(terminals[t].kind == "block" for t in sequence) or self.grammar.indentation is not None:
            return True, None
        if any(t not in self.examples for t in sequence):
            return False, None
        between = ["", *(self.examples[t] for t in self.grammar.ignored if t in self.examples)]
        try:
            only = replace(self.grammar, rules={"start": (sequence,)}, start="start").source()
        except GuiderailError:
            return False, None
        for space in between:
            text = space.join(self.examples[t] for t in sequence)
            if only.accepts(text.encode("utf-8")):
                return True, text
        return False, None
