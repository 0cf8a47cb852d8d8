"""A static grammar: terminals, productions, a start symbol and a lexing discipline, all immutable.

Front ends write rules with the usual operators (`Expression`: sequences, choices, repetitions). `flatten` turns those
into plain productions, which is all that the core's parser reads. The parser takes any context-free grammar, so
nothing here cares whether a production is LALR, left-recursive or ambiguous; what it cares about is size, because a
grammar comes from outside:

    x*        L  where  L → ε | L x
    x{2,4}    x x O_2  where  O_2 → ε | x O_1,  O_1 → ε | x
    x{0,9999} powers of two instead of 9,999 rules (`_at_most`)

    >>> flat = flatten({"start": Sequence((Leaf(0), Repeat(Leaf(1), 0, None)))})
    >>> flat["start"], flat["start.1"]
    (((0, 'start.1'),), ((), ('start.1', 1)))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from guiderail.errors import GrammarError, LimitError

if TYPE_CHECKING:
    from guiderail import _core

TerminalKind: TypeAlias = Literal["literal", "regex", "ecma", "language", "special", "json", "block"]
Lexing: TypeAlias = Literal["free", "munch", "lark-dynamic", "lark-basic", "lark-contextual"]
Alternative: TypeAlias = tuple["int | str", ...]

# Beyond these a grammar is an accident or an attack. A generous real one (SQL, Python) stays below a hundredth.
MAX_SYMBOLS = 2_000_000
# Optional repeats up to this length are a chain of rules, one item per parser state; longer ones are built from
# powers of two.
LONGEST_CHAIN = 256


@dataclass(frozen=True, slots=True)
class Terminal:
    """One kind of lexeme.

    Args:
        kind: "literal" (`text` is bytes), "regex" (Python's dialect), "ecma" (ECMA-262's), "language" (a tree as
            JSON, see src/core/regex/terminal_language.h), "special" (a special token's text), "json" (a JSON Schema's
            text). text: see `kind`. flags: bits of Python's `re` module; for "regex" only. name: for messages.
        priority: higher wins where two terminals match the same longest text; "munch" only. mode: the terminals it
        competes with are those of its mode (`StaticGrammar.modes`); "munch" only.
    """

    kind: TerminalKind
    text: str | bytes
    flags: int = 0
    name: str = ""
    priority: int = 0
    mode: int = 0


# --- expressions: what front ends write ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Indentation:
    """Blocks by indentation; "munch" only. Terminals by index.

    After a `newline` outside of brackets, `indent` or as many `dedent` as blocks close stand between it and the next
    lexeme, by the width of the newline's last line; in brackets newlines vanish. Both have the kind "block".

    Args:
        opens, closes: brackets. tab_width: columns that a tab counts.
        as_python: as Python's tokenizer: text as if between two line breaks, a tab goes to the next multiple of
            `tab_width`, tabs and spaces must not be mixed so that their order of widths depends on it.
    """

    newline: int
    indent: int
    dedent: int
    opens: tuple[int, ...] = ()
    closes: tuple[int, ...] = ()
    tab_width: int = 8
    as_python: bool = False

    def renumbered(self, numbers: Mapping[int, int]) -> Indentation:
        def new(terminals: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(numbers[t] for t in terminals if t in numbers)

        return Indentation(
            numbers[self.newline],
            numbers[self.indent],
            numbers[self.dedent],
            new(self.opens),
            new(self.closes),
            self.tab_width,
            self.as_python,
        )


@dataclass(frozen=True, slots=True)
class OrderedLexer:
    """One lexer of Lark's; "lark-basic" and "lark-contextual" only. Terminals by index.

    Args:
        tried: terminals in the order in which they are tried; the first that `re.match` takes anything for wins.
        replaced: (terminal, others): what the terminal took is one of the others if that matches all of it.
    """

    tried: tuple[int, ...]
    replaced: tuple[tuple[int, tuple[int, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class Leaf:
    """A terminal, by its index."""

    terminal: int


@dataclass(frozen=True, slots=True)
class Reference:
    """A rule, by its name. `offset` is where the text refers to it, for messages."""

    name: str
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class Sequence:
    """One after the other; empty: the empty string."""

    items: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """Any one of the options; empty: nothing at all, not even the empty string."""

    options: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """`body` at least `least` and at most `most` times; `most` None: no upper bound."""

    body: Expression
    least: int
    most: int | None


Expression: TypeAlias = Leaf | Reference | Sequence | Choice | Repeat

EMPTY = Sequence(())


@dataclass(frozen=True)
class StaticGrammar:
    """Plain productions.

    Args:
        terminals: indices into this tuple are the integers of alternatives.
        rules: nonterminal → alternatives; an alternative is a tuple of terminal indices and nonterminal names.
        start: a key of `rules`.
        lexing: "free" (any segmentation the grammar admits), "munch" (longest match; see `Terminal.priority`),
            "lark-dynamic" (each terminal takes what `re.match` takes; terminals do not compete), "lark-basic" and
            "lark-contextual" (the first of several that matches; see `OrderedLexer`).
        ignored: terminals that may stand between any two lexemes and at both ends.
        indentation: which terminals make blocks, if any do.
        modes: of each mode of terminals from 1 on, whether ignored terminals may stand before its terminals. They may
            before those of mode 0, to which they belong, and at the end.
        lexers: of "lark-basic", one; of "lark-contextual", the text begins under the first.
        shifts: (terminal, index of the lexer that reads on behind it); in alternatives their integers come after those
            of `terminals`.
    """

    terminals: tuple[Terminal, ...]
    rules: Mapping[str, tuple[Alternative, ...]]
    start: str
    lexing: Lexing = "free"
    ignored: tuple[int, ...] = ()
    indentation: Indentation | None = None
    lexers: tuple[OrderedLexer, ...] = ()
    shifts: tuple[tuple[int, int], ...] = ()
    modes: tuple[bool, ...] = ()

    def priorities(self) -> list[int]:
        """One distinct integer per terminal, higher wins: by `Terminal.priority`, then in the order of definition."""
        order = sorted(range(len(self.terminals)), key=lambda i: (-self.terminals[i].priority, i))
        ranks = [0] * len(order)
        for place, terminal in enumerate(order):
            ranks[terminal] = len(order) - place
        return ranks

    def to_json(self) -> dict[str, Any]:
        """The grammar as JSON values."""
        terminals = [
            [t.kind, t.text.hex() if isinstance(t.text, bytes) else t.text, t.flags, t.name, t.priority]
            for t in self.terminals
        ]
        rules = [[name, [list(alternative) for alternative in rule]] for name, rule in self.rules.items()]
        values: dict[str, Any] = {
            "terminals": terminals,
            "rules": rules,
            "start": self.start,
            "lexing": self.lexing,
            "ignored": list(self.ignored),
        }
        if self.indentation is not None:
            values["indentation"] = astuple(self.indentation)
        if self.lexers:
            values |= {"lexers": [astuple(lexer) for lexer in self.lexers], "shifts": self.shifts}
        if self.modes:
            values |= {"modes": list(self.modes), "mode_of": [t.mode for t in self.terminals]}
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> StaticGrammar:
        """What `to_json` gave."""
        mode_of = values.get("mode_of", [0] * len(values["terminals"]))
        terminals = tuple(
            Terminal(kind, bytes.fromhex(text) if kind == "literal" else text, flags, name, priority, mode)
            for (kind, text, flags, name, priority), mode in zip(values["terminals"], mode_of, strict=True)
        )
        rules = {name: tuple(tuple(alternative) for alternative in rule) for name, rule in values["rules"]}
        indentation = None
        if "indentation" in values:
            newline, indent, dedent, opens, closes, *rest = values["indentation"]
            indentation = Indentation(newline, indent, dedent, tuple(opens), tuple(closes), *rest)
        ignored = tuple(values["ignored"])
        lexers = tuple(
            OrderedLexer(tuple(tried), tuple((terminal, tuple(others)) for terminal, others in replaced))
            for tried, replaced in values.get("lexers", ())
        )
        shifts = tuple((terminal, lexer) for terminal, lexer in values.get("shifts", ()))
        modes = tuple(values.get("modes", ()))
        return cls(terminals, rules, values["start"], values["lexing"], ignored, indentation, lexers, shifts, modes)

    def source(self) -> _core.GrammarSource:
        """Hand the grammar to the core.

        Raises:
            GrammarError: a terminal's expression is wrong, it can be empty under "munch", or the language is empty.
        """
        from guiderail import _core

        for t in self.terminals:
            if isinstance(t.text, str) and any("\ud800" <= character <= "\udfff" for character in t.text):
                raise GrammarError(f"terminal {t.name!r} holds a lone surrogate, which has no UTF-8 encoding")
        terminals = [_for_core(t) for t in self.terminals]
        rules = [(name, [list(alternative) for alternative in rule]) for name, rule in self.rules.items()]
        blocks = self.indentation
        return _core.static_source(
            terminals,
            rules,
            self.start,
            self.lexing,
            list(self.ignored),
            self.priorities(),
            None if blocks is None else astuple(blocks),
            [(lexer.tried, lexer.replaced) for lexer in self.lexers],
            self.shifts,
            [t.mode for t in self.terminals] if self.modes else [],
            list(self.modes),
        )


def _for_core(terminal: Terminal) -> tuple[str, str | bytes | _core.GrammarSource, int, str]:
    if terminal.kind != "json":
        return (terminal.kind, terminal.text, terminal.flags, terminal.name)
    from guiderail.grammars.json_schema import json_schema_source

    return ("part", json_schema_source(str(terminal.text))[0], 0, terminal.name)


class Terminals:
    """Collects terminals; equal ones are one."""

    def __init__(self) -> None:
        self._indices: dict[Terminal, int] = {}
        self._terminals: list[Terminal] = []

    def add(self, terminal: Terminal) -> Leaf:
        index = self._indices.setdefault(terminal, len(self._terminals))
        if index == len(self._terminals):
            self._terminals.append(terminal)
        return Leaf(index)

    def __getitem__(self, index: int) -> Terminal:
        return self._terminals[index]


def assemble(
    terminals: Terminals,
    rules: Mapping[str, Expression],
    start: str,
    lexing: Lexing = "free",
    ignored: Iterable[int] = (),
    indentation: Indentation | None = None,
    modes: tuple[bool, ...] = (),
) -> StaticGrammar:
    """The grammar of `rules`, flattened; only the rules and terminals that `start` needs, in order of appearance."""
    needed = reachable(rules, start)
    ignored = tuple(dict.fromkeys(ignored))
    in_rules = {leaf for body in needed.values() for leaf in leaves(body)}
    blocks = () if indentation is None else (indentation.newline, indentation.indent, indentation.dedent)
    used = sorted({*ignored, *blocks, *in_rules})
    renumbered = {old: new for new, old in enumerate(used)}
    flat = {
        name: tuple(
            tuple(renumbered[symbol] if isinstance(symbol, int) else symbol for symbol in alternative)
            for alternative in alternatives
        )
        for name, alternatives in flatten(needed).items()
    }
    kept = tuple(terminals[old] for old in used)
    placed = None if indentation is None else indentation.renumbered(renumbered)
    return StaticGrammar(kept, flat, start, lexing, tuple(renumbered[old] for old in ignored), placed, modes=modes)


def leaves(expression: Expression) -> list[int]:
    """The terminals in `expression`, in order of appearance."""
    return [node.terminal for node in _nodes(expression) if isinstance(node, Leaf)]


def references(expression: Expression) -> list[Reference]:
    """All references in `expression`, in order of appearance."""
    return [node for node in _nodes(expression) if isinstance(node, Reference)]


def _nodes(expression: Expression) -> Iterator[Expression]:
    pending: list[Expression] = [expression]
    while pending:
        node = pending.pop()
        yield node
        if isinstance(node, Sequence):
            pending.extend(reversed(node.items))
        elif isinstance(node, Choice):
            pending.extend(reversed(node.options))
        elif isinstance(node, Repeat):
            pending.append(node.body)


def reachable(rules: Mapping[str, Expression], start: str) -> dict[str, Expression]:
    """The rules that `start` needs, in the order of `rules`. References must be defined."""
    seen = {start}
    pending = [start]
    while pending:
        for reference in references(rules[pending.pop()]):
            if reference.name not in seen:
                seen.add(reference.name)
                pending.append(reference.name)
    return {name: body for name, body in rules.items() if name in seen}


def flatten(rules: Mapping[str, Expression]) -> dict[str, tuple[Alternative, ...]]:
    """Productions without operators that derive the same language.

    Rules made on the way are named after the rule they come from: `list.1`, `list.2`, … A name that is taken is
    skipped.
    Raises: LimitError (limit "grammar_size") when more than MAX_SYMBOLS symbols would come out.
    """
    return _Flattener(rules).run()


@dataclass
class _Flattener:
    rules: Mapping[str, Expression]
    flat: dict[str, tuple[Alternative, ...]] = field(default_factory=dict)
    symbols: int = 0
    # Equal sub-expressions share one rule: less to build, and the parser's states coincide.
    known: dict[Expression | tuple[object, ...], str] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    current: str = ""

    def run(self) -> dict[str, tuple[Alternative, ...]]:
        for name in self.rules:
            self.flat[name] = ()  # keeps the user's rules in order, ahead of ours
        for name, body in self.rules.items():
            self.current = name
            self.define(name, self.alternatives(body))
        return self.flat

    def define(self, name: str, alternatives: Iterable[Alternative]) -> None:
        unique = tuple(dict.fromkeys(alternatives))
        self.symbols += 1 + sum(1 + len(alternative) for alternative in unique)
        if self.symbols > MAX_SYMBOLS:
            raise LimitError(f"more than {MAX_SYMBOLS} symbols in the rules of the grammar", limit="grammar_size")
        self.flat[name] = unique

    def fresh(self) -> str:
        while True:
            number = self.counters[self.current] = self.counters.get(self.current, 0) + 1
            name = f"{self.current}.{number}"
            if name not in self.flat:
                self.flat[name] = ()
                return name

    def alternatives(self, expression: Expression) -> list[Alternative]:
        if isinstance(expression, Choice):
            return [alternative for option in expression.options for alternative in self.alternatives(option)]
        return [self.alternative(expression)]

    def alternative(self, expression: Expression) -> Alternative:
        """`expression` as one row of symbols; what has alternatives inside becomes a rule of its own."""
        if isinstance(expression, Leaf):
            return (expression.terminal,)
        if isinstance(expression, Reference):
            return (expression.name,)
        if isinstance(expression, Sequence):
            return tuple(symbol for item in expression.items for symbol in self.alternative(item))
        if isinstance(expression, Choice) and len(expression.options) == 1:
            return self.alternative(expression.options[0])
        if isinstance(expression, Repeat):
            return self.repeat(expression)
        return (self.rule(expression, lambda: self.alternatives(expression)),)

    def rule(self, key: Expression | tuple[object, ...], make: Callable[[], Iterable[Alternative]]) -> str:
        if key not in self.known:
            name = self.known[key] = self.fresh()
            self.define(name, make())
        return self.known[key]

    def unit(self, expression: Expression) -> Alternative:
        """At most one symbol that stands for `expression`."""
        row = self.alternative(expression)
        if len(row) <= 1:
            return row
        return (self.rule(("row", row), lambda: [row]),)

    def repeat(self, expression: Repeat) -> Alternative:
        least, most = expression.least, expression.most
        if least < 0 or (most is not None and most < least):
            raise GrammarError(f"a repetition of at least {least} and at most {most} times is not possible")
        unit = self.unit(expression.body)
        if not unit or most == 0:
            return ()
        exact = self.exactly(unit[0], least)
        if most is None:
            return (*exact, self.star(unit[0]))
        return (*exact, *self.at_most(unit[0], most - least))

    def star(self, symbol: int | str) -> str:
        key = ("star", symbol)
        if key not in self.known:
            name = self.known[key] = self.fresh()
            self.define(name, [(), (name, symbol)])  # left recursion: the state does not grow with the length
        return self.known[key]

    def exactly(self, symbol: int | str, count: int) -> Alternative:
        if count <= 8:
            return (symbol,) * count
        half = self.rule(("exactly", symbol, count // 2), lambda: [self.exactly(symbol, count // 2)])
        return (half, half, *((symbol,) if count % 2 else ()))

    def at_most(self, symbol: int | str, count: int) -> Alternative:
        if count == 0:
            return ()
        if count <= LONGEST_CHAIN:
            for length in range(1, count + 1):  # bottom up: no recursion as deep as the count
                shorter = self.known.get(("at most", symbol, length - 1))
                options: list[Alternative] = [(), (symbol,) if shorter is None else (symbol, shorter)]
                self.rule(("at most", symbol, length), options.copy)
            return (self.known["at most", symbol, count],)
        # Every number up to `count` is either below the largest power of two p <= count, or p plus at most count - p:
        # one way to write each, so the parser does not multiply its readings. Logarithmically many rules and live
        # items.
        power = 1 << (count.bit_length() - 1)
        return (
            self.rule(
                ("at most", symbol, count),
                lambda: [
                    self.at_most(symbol, power - 1),
                    (*self.exactly(symbol, power), *self.at_most(symbol, count - power)),
                ],
            ),
        )
