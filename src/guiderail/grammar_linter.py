"""What is odd about a Lark grammar: rules out of reach, rules and terminals that match nothing, terminals that collide.

Everything is decided by building the grammar, or a small one made of its parts: a rule is unproductive if the language
that starts there is empty, a terminal is shadowed if under longest match others win all its texts, and two patterns
collide if the text that both match is not empty. Under longest match a collision goes to the higher priority, then to
the one defined first, which is not always what was meant.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import NamedTuple

from guiderail.errors import GuiderailError, LimitError
from guiderail.grammars.grammar import Grammar
from guiderail.grammars.lark import parse_lark, rule_names
from guiderail.grammars.regular import escape_text
from guiderail.grammars.rules import StaticGrammar, Terminal

__all__ = ["GrammarFinding", "lint_grammar"]

# Pairs of patterns that are intersected; a grammar with more is told so.
MAX_PAIRS = 2_000


class GrammarFinding(NamedTuple):
    """One thing.

    Args:
        kind: "unreachable", "unproductive", "shadowed", "collision" or "unchecked".
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
    found += _shadowed(grammar)
    found += _collisions(grammar)
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


def _shadowed(grammar: StaticGrammar) -> list[GrammarFinding]:
    found = []
    for number, terminal in enumerate(grammar.terminals):
        if terminal.kind not in ("literal", "regex"):
            continue
        alone = replace(grammar, rules={"start": ((number,),)}, start="start", ignored=(), indentation=None)
        if not _has_text(alone):
            found.append(GrammarFinding("shadowed", terminal.name, "other terminals win every text that it matches"))
    return found


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


def _expression(terminal: Terminal) -> str:
    text = terminal.text if isinstance(terminal.text, str) else escape_text(terminal.text.decode("utf-8"))
    letters = "".join(letter for letter, bit in (("i", 2), ("m", 8), ("s", 16), ("x", 64)) if terminal.flags & bit)
    return f"(?{letters}:{text})" if letters else f"(?:{text})"


def _example(grammar: Grammar) -> str:
    """A short text of the grammar, printable if there is one."""
    frontier = [b""]
    preferred = [*b"abcxyz0123456789ABC_-+.,;:=<>()[]{}\"'/\\# \n\t", *range(128)]
    seen = 0
    while frontier and seen < 2_000:
        following: list[bytes] = []
        for text in frontier:
            for byte in dict.fromkeys(preferred):
                longer = text + bytes([byte])
                seen += 1
                if grammar.accepts(longer):
                    return longer.decode("utf-8", "replace")
                if len(following) < 8 and grammar.accepts_prefix(longer):
                    following.append(longer)
        frontier = following
    return "a longer text"
