"""Rules that need no stack become terminals, where the grammar is lexed freely.

GBNF has no terminals of its own: `string ::= "\\"" char* "\\""` is spelled out to the character. Taken literally,
every character would be a lexeme, and a mask would consult the parser at every byte. But where any segmentation is
allowed, a rule that does not refer to itself is just a regular expression, and as one terminal it costs one automaton
state per byte, the same state in every grammar that has such a string. Merging changes no language; it moves work
from the parser to the lexer.

How much to merge is a judgement. A terminal keeps to MAX_POSITIONS, so that a large flat grammar stays rules with
shared parts; and a named rule with a loop over most characters (a string, free text) ends its terminal: what follows
it would otherwise make the loop's state, whose mask walks the whole vocabulary, a different one for every place that
uses the rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from guiderail.grammars.rules import (
    Choice,
    Expression,
    Leaf,
    Reference,
    Repeat,
    Sequence,
    Terminal,
    Terminals,
    reachable,
    references,
)

MAX_POSITIONS = 64
MAX_NESTING = 32

_ALTERNATION, _SEQUENCE, _ATOM = range(3)


ANY_CHARACTER = r"[\s\S]"


def escape_point(point: int) -> str:
    """One code point as it may stand in a regular expression, inside and outside of a set."""
    character = chr(point)
    if character.isascii() and character.isalnum():
        return character
    return f"\\x{point:02x}" if point < 0x100 else f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"


def escape_text(text: str) -> str:
    """A regular expression, in Python's dialect, that matches exactly `text`."""
    return "".join(escape_point(ord(character)) for character in text)


class _Regular(NamedTuple):
    """A regular expression in Python's dialect, and what decides whether it may grow."""

    text: str
    label: str  # for people: rules by name, operators as in the grammar
    binding: int  # the loosest operator at the top: _ALTERNATION < _SEQUENCE < _ATOM
    positions: int
    nesting: int
    wide: bool  # contains a class of most characters
    wide_loop: bool

    def at_least(self, binding: int) -> str:
        return self.text if self.binding >= binding else f"(?:{self.text})"


def merge_regular_rules(rules: Mapping[str, Expression], start: str, terminals: Terminals) -> dict[str, Expression]:
    """Rules for the same language with regular parts replaced by terminals, which are added to `terminals`.

    Only right where lexing is free. Rules that nothing needs any more are dropped.
    """
    merger = _Merger(terminals)
    for name in _dependencies_first(rules, start):
        merger.take(name, rules[name])
    return reachable(merger.rewritten, start)


class _Merger:
    def __init__(self, terminals: Terminals) -> None:
        self.terminals = terminals
        self.regular: dict[str, _Regular] = {}  # rules that are regular and small; a recursive one never enters
        self.rewritten: dict[str, Expression] = {}

    def take(self, name: str, body: Expression) -> None:
        regular = self.as_regular(body)
        if regular is not None:
            self.regular[name] = regular._replace(label=name)
            self.rewritten[name] = self.leaf(regular, name)
        else:
            self.rewritten[name] = self.rewrite(body)

    def leaf(self, regular: _Regular, name: str = "") -> Leaf:
        return self.terminals.add(Terminal("regex", regular.text, name=name or _shortened(regular.label)))

    def rewrite(self, node: Expression) -> Expression:
        """`node` with its largest regular parts as terminals."""
        if isinstance(node, Leaf):
            return node
        regular = self.as_regular(node)
        if regular is not None:
            return self.rewritten[node.name] if isinstance(node, Reference) else self.leaf(regular)
        if isinstance(node, Sequence):
            return self.rewrite_sequence(node)
        if isinstance(node, Choice):
            return Choice(tuple(self.rewrite(option) for option in node.options))
        if isinstance(node, Repeat):
            return Repeat(self.rewrite(node.body), node.least, node.most)
        return node

    def rewrite_sequence(self, node: Sequence) -> Sequence:
        items: list[Expression] = []
        run: list[Expression] = []
        for item in node.items:
            longer = Sequence((*run, item))
            if self.as_regular(longer) is not None:
                run.append(item)
                continue
            items += self.close(run)
            run = [item] if self.as_regular(item) is not None else []
            if not run:
                items.append(self.rewrite(item))
        return Sequence((*items, *self.close(run)))

    def close(self, run: list[Expression]) -> list[Expression]:
        return [self.rewrite(run[0])] if len(run) == 1 else [self.rewrite(Sequence(tuple(run)))] if run else []

    # --- regular expressions --------------------------------------------------------------------------------------

    def as_regular(self, node: Expression) -> _Regular | None:
        """`node` as a regular expression, or None if it needs a stack or would be too large."""
        if isinstance(node, Leaf):
            return _from_terminal(self.terminals[node.terminal])
        if isinstance(node, Reference):
            return self.regular.get(node.name)
        if isinstance(node, Sequence):
            return self.sequence(node)
        if isinstance(node, Choice):
            return self.choice(node)
        return self.repetition(node)

    def sequence(self, node: Sequence) -> _Regular | None:
        parts = self.parts(node.items)
        if parts is None:
            return None
        for item, part in zip(node.items[:-1], parts[:-1], strict=True):
            if isinstance(item, Reference) and part.wide_loop:
                return None
        if len(parts) == 1:
            return parts[0]
        return _combined("".join(part.at_least(_SEQUENCE) for part in parts), _SEQUENCE, parts)

    def choice(self, node: Choice) -> _Regular | None:
        parts = self.parts(node.options)
        if not parts:
            return None
        if len(parts) == 1:
            return parts[0]
        return _combined("|".join(part.at_least(_SEQUENCE) for part in parts), _ALTERNATION, parts)

    def repetition(self, node: Repeat) -> _Regular | None:
        body = self.as_regular(node.body)
        if body is None or not body.text:
            return body
        if node.most is None:
            bounds = {0: "*", 1: "+"}.get(node.least, f"{{{node.least},}}")
        else:
            exact = f"{{{node.least}}}" if node.least == node.most else f"{{{node.least},{node.most}}}"
            bounds = "?" if (node.least, node.most) == (0, 1) else exact
        long = node.most is None or node.most > 8
        text = body.at_least(_ATOM) + bounds
        label = f"({body.label}){bounds}" if " " in body.label else body.label + bounds
        return body._replace(
            text=text, label=label, binding=_SEQUENCE, wide_loop=body.wide_loop or (body.wide and long)
        )

    def parts(self, nodes: tuple[Expression, ...]) -> list[_Regular] | None:
        found: list[_Regular] = []
        positions = 0
        for node in nodes:
            part = self.as_regular(node)
            if part is None:
                return None
            positions += part.positions
            if positions > MAX_POSITIONS or part.nesting >= MAX_NESTING:
                return None
            found.append(part)
        return found


def _from_terminal(terminal: Terminal) -> _Regular | None:
    if terminal.kind == "literal" and isinstance(terminal.text, bytes):
        try:
            text = terminal.text.decode("utf-8")
        except UnicodeDecodeError:
            return None
        if len(text) > MAX_POSITIONS:
            return None
        binding = _ATOM if len(text) == 1 else _SEQUENCE
        return _Regular(escape_text(text), terminal.name, binding, len(text), 0, wide=False, wide_loop=False)
    if terminal.kind != "regex" or not isinstance(terminal.text, str) or terminal.flags:
        return None
    # The only expressions that a freely lexed front end writes itself are single sets.
    wide = terminal.text.startswith("[^") or "\\U" in terminal.text or terminal.text == ANY_CHARACTER
    return _Regular(terminal.text, terminal.name, _ATOM, 1, 0, wide=wide, wide_loop=False)


def _combined(text: str, binding: int, parts: list[_Regular]) -> _Regular:
    return _Regular(
        text,
        (" " if binding == _SEQUENCE else " | ").join(_shortened(part.label) for part in parts if part.label),
        binding,
        positions=sum(part.positions for part in parts),
        nesting=1 + max((part.nesting for part in parts), default=0),
        wide=any(part.wide for part in parts),
        wide_loop=any(part.wide_loop for part in parts),
    )


def _dependencies_first(rules: Mapping[str, Expression], start: str) -> list[str]:
    """The rules that `start` needs; each after those it refers to, except where they refer back."""
    order: list[str] = []
    entered = {start}
    stack = [(start, iter(references(rules[start])))]
    while stack:
        name, remaining = stack[-1]
        for reference in remaining:
            if reference.name not in entered:
                entered.add(reference.name)
                stack.append((reference.name, iter(references(rules[reference.name]))))
                break
        else:
            order.append(name)
            stack.pop()
    return order


def _shortened(label: str) -> str:
    return label if len(label) <= 60 else label[:59] + "…"
