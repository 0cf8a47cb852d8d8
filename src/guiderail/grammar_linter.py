"""What is odd about a Lark grammar: rules out of reach, rules and terminals that match nothing, terminals that collide,
neighbours that cannot be told apart, texts with two derivations, repetitions that cost a lexeme for each character.

Everything is decided by building the grammar, or a small one made of its parts: a rule is unproductive if the language
that starts there is empty, a terminal is shadowed if under longest match others win all its texts, and two patterns
collide if the text that both match is not empty. Under longest match a collision goes to the higher priority, then to
the one defined first, which is not always what was meant.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from guiderail.ambiguity_search import MAX_LENGTH, find_ambiguities
from guiderail.errors import GuiderailError, LimitError
from guiderail.explanation import explain
from guiderail.grammars.grammar import Grammar
from guiderail.grammars.lark import parse_lark, rule_names
from guiderail.grammars.regular import escape_text
from guiderail.grammars.rules import StaticGrammar, Terminal

__all__ = ["GrammarFinding", "lint_grammar"]

# Pairs of patterns that are intersected; a grammar with more is told so.
MAX_PAIRS = 2_000
# Seconds for trying which terminals may stand side by side: each pair is a grammar of its own.
MAX_NEIGHBOUR_SECONDS = 5.0


_TEXTS = ("literal", "regex", "language")


class GrammarFinding(NamedTuple):
    """One thing.

    Args:
        kind: "unreachable", "unproductive", "shadowed", "collision", "neighbours", "ambiguous", "cost" or "unchecked".
        name: the rule or terminal. message: what is wrong.
    """

    kind: str
    name: str
    message: str


def lint_grammar(text_or_path: str | os.PathLike[str], start: str = "start") -> list[GrammarFinding]:
    """What is odd about a grammar, read by longest match.

    Args: as in `Grammar.from_lark`.
    Raises: what `Grammar.from_lark` raises for a grammar that cannot be read; an empty language is a finding.
    """
    grammar, every_rule = _read(text_or_path, start)
    found = [
        GrammarFinding("unreachable", name, f"no text from rule {start!r} on uses it")
        for name in every_rule
        if name not in grammar.rules
    ]
    found += [
        GrammarFinding("unproductive", name, "no text can be read by it")
        for name in grammar.rules
        if name in every_rule and not _has_text(replace(grammar, start=name))
    ]
    examples = _examples(grammar)
    found += _shadowed(grammar, examples)
    found += _collisions(grammar)
    found += _neighbours(grammar, examples)
    found += _ambiguities(grammar, examples)
    found += _single_characters(grammar)
    return found


def _read(text_or_path: str | os.PathLike[str], start: str) -> tuple[StaticGrammar, list[str]]:
    grammar, _ = parse_lark(text_or_path, start)
    return grammar, rule_names(text_or_path)


def _has_text(grammar: StaticGrammar) -> bool:
    try:
        grammar.source()
    except LimitError:
        raise
    except GuiderailError as error:
        if "empty" in error.message:
            return False
        raise
    return True


def _examples(grammar: StaticGrammar) -> dict[int, str]:
    """A short text of each terminal that wins any, by its number."""
    numbered = tuple(replace(terminal, name=str(number)) for number, terminal in enumerate(grammar.terminals))
    each = tuple((number,) for number, terminal in enumerate(grammar.terminals) if terminal.kind in _TEXTS)
    alone = replace(
        grammar, terminals=numbered, rules={"start": each}, start="start", ignored=(), indentation=None, modes=()
    )
    alone = replace(alone, terminals=tuple(replace(t, mode=0) for t in numbered)) if grammar.modes else alone
    return {int(e.terminal): e.example for e in explain(Grammar._from_static(alone, ()), b"").expected}


def _shadowed(grammar: StaticGrammar, examples: Mapping[int, str]) -> list[GrammarFinding]:
    return [
        GrammarFinding("shadowed", terminal.name, "other terminals win every text that it matches")
        for number, terminal in enumerate(grammar.terminals)
        if terminal.kind in _TEXTS and number not in examples
    ]


def _collisions(grammar: StaticGrammar) -> list[GrammarFinding]:
    patterns = [t for t in grammar.terminals if t.kind == "regex"]
    pairs = [(a, b) for i, a in enumerate(patterns) for b in patterns[i + 1 :]]
    found = []
    for first, second in pairs[:MAX_PAIRS]:
        try:
            both = Grammar.from_regex(f"(?=(?:{_expression(first)})\\Z)(?:{_expression(second)})")
        except LimitError:
            found.append(GrammarFinding("unchecked", first.name, f"comparing it with {second.name} takes too much"))
            continue
        except GuiderailError:
            continue  # the empty language: nothing that both match
        winner = first.name if first.priority >= second.priority else second.name
        found.append(
            GrammarFinding("collision", first.name, f"{second.name} also matches {_example(both)!r}; {winner} wins")
        )
    if len(pairs) > MAX_PAIRS:
        found.append(GrammarFinding("unchecked", "", f"{len(pairs) - MAX_PAIRS} pairs of patterns were not compared"))
    return found


def _neighbours(grammar: StaticGrammar, examples: Mapping[int, str]) -> list[GrammarFinding]:
    """Terminals that some rule lets stand side by side and that longest match never reads so."""
    found: list[GrammarFinding] = []
    until = time.monotonic() + MAX_NEIGHBOUR_SECONDS
    pairs = [pair for pair in _adjacent(grammar) if set(pair) <= examples.keys()]
    if not pairs:
        return []
    any_pair = replace(grammar, rules={"start": tuple(pairs)}, start="start", indentation=None).source()
    between = ["", *(examples[number] for number in grammar.ignored if number in examples)]
    for number, (first, second) in enumerate(pairs):
        if any(any_pair.accepts((examples[first] + space + examples[second]).encode()) for space in between):
            continue
        if time.monotonic() > until:
            message = f"{len(pairs) - number} of {len(pairs)} pairs of neighbours were not tried: it takes too long"
            return [*found, GrammarFinding("unchecked", "", message)]
        pair = replace(grammar, rules={"start": ((first, second),)}, start="start", indentation=None)
        if not _has_text(pair):
            before, after = grammar.terminals[first].name, grammar.terminals[second].name
            found.append(
                GrammarFinding(
                    "neighbours", before, f"{after} may follow, but longest match reads the two as something else"
                )
            )
    return found


def _adjacent(grammar: StaticGrammar) -> list[tuple[int, int]]:
    """Pairs of terminals with texts of their own that may come one after the other, in the order of their numbers."""
    nullable: set[str] = set()
    first: dict[str, set[int]] = {name: set() for name in grammar.rules}
    last: dict[str, set[int]] = {name: set() for name in grammar.rules}

    def empty(symbol: int | str) -> bool:
        return symbol in nullable if isinstance(symbol, str) else grammar.terminals[symbol].kind == "block"

    def ends(symbols: Iterable[int | str], of: dict[str, set[int]]) -> set[int]:
        result: set[int] = set()
        for symbol in symbols:
            result |= of[symbol] if isinstance(symbol, str) else {symbol}
            if not empty(symbol):
                break
        return result

    size = -1
    while size != (size := len(nullable) + sum(map(len, first.values())) + sum(map(len, last.values()))):
        for name, alternatives in grammar.rules.items():
            for alternative in alternatives:
                if all(map(empty, alternative)):
                    nullable.add(name)
                first[name] |= ends(alternative, first)
                last[name] |= ends(reversed(alternative), last)
    pairs: set[tuple[int, int]] = set()
    for alternatives in grammar.rules.values():
        for alternative in alternatives:
            for place in range(1, len(alternative)):
                before = ends(reversed(alternative[:place]), last)
                pairs |= {(a, b) for a in before for b in ends(alternative[place:], first)}
    texts = {number for number, t in enumerate(grammar.terminals) if t.kind in _TEXTS}
    return sorted((a, b) for a, b in pairs if a in texts and b in texts)


def _ambiguities(grammar: StaticGrammar, examples: Mapping[int, str]) -> list[GrammarFinding]:
    ambiguities, complete = find_ambiguities(grammar, examples)
    found = []
    for rule, text, (one, other) in ambiguities:
        what = "a text" if text is None else repr(text)
        found.append(GrammarFinding("ambiguous", rule, f"{what} is derived as {one} and as {other}"))
    if not complete:
        message = f"not all texts of up to {MAX_LENGTH} terminals were searched for two derivations"
        found.append(GrammarFinding("unchecked", "", message))
    return found


def _single_characters(grammar: StaticGrammar) -> list[GrammarFinding]:
    """Repetitions of a terminal that is one character: each costs the parser a lexeme."""
    found = []
    for name, alternatives in grammar.rules.items():
        for alternative in alternatives[1:] if alternatives[:1] == ((),) else ():  # as `flatten` writes x*
            if len(alternative) != 2 or alternative[0] != name:
                continue
            number = alternative[1]
            if not isinstance(number, int) or grammar.terminals[number].kind != "regex":
                continue
            terminal = grammar.terminals[number]
            try:
                Grammar.from_regex(f"(?=(?:{_expression(terminal)})\\Z)(?s:..+)")
            except LimitError:
                continue
            except GuiderailError:  # no text of two characters or more
                rule = name.rpartition(".")[0] or name
                message = f"repeats {terminal.name}, one character: a lexeme each; one terminal for all is cheaper"
                found.append(GrammarFinding("cost", rule, message))
    return found


def _expression(terminal: Terminal) -> str:
    text = terminal.text if isinstance(terminal.text, str) else escape_text(terminal.text.decode("utf-8"))
    letters = "".join(letter for letter, bit in (("i", 2), ("m", 8), ("s", 16), ("x", 64)) if terminal.flags & bit)
    return f"(?{letters}:{text})" if letters else f"(?:{text})"


def _example(grammar: Grammar) -> str:
    """A short text of the grammar."""
    return next((e.example for e in explain(grammar, b"").expected if e.example), "a longer text")
