"""Grammars as the `lark` library itself reads them: its basic and its contextual lexer, as data for the core.

Lark's basic lexer does not look for the longest match. It sorts the terminals (by priority, then by how long a match
can be, then by the length of the expression, then by name) and takes the first that `re.match` takes anything for. A
string that a regular expression of the same priority also matches in full is not tried on its own: what the expression
took is compared with it afterwards. The contextual lexer does the same among the terminals that the LALR state accepts,
the state being the one in which the parser is when it has shifted the terminal read last.

Everything that decides this is Lark's own: its compiled rules, its terminals, its LALR analysis.

*From LALR states to productions* (contextual). The core's parser knows no LALR states, so they are written into the
grammar: a nonterminal X that is read in state p becomes (p, X), with productions (p, Y₁) (p₁, Y₂) … where pᵢ is the
state behind Yᵢ, and a terminal becomes a shift (terminal, lexer of the state behind it). These are the nonterminal
transitions of DeRemer and Pennello 1982. States that read on alike are one (Moore 1956), so most grammars hardly grow.
It is exact where the LALR table has no conflict: then the state follows from the text read. Where Lark resolves a
conflict, by shifting or by a rule's priority, it drops parses without a word, and the grammar is refused here.
"""

from __future__ import annotations

import importlib
import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from guiderail.errors import GrammarError, LimitError
from guiderail.grammars.rules import Alternative, Indentation, OrderedLexer, StaticGrammar, Terminal

# Lark multiplies optional parts out. Beyond this many alternatives it takes minutes, or all memory.
MAX_EXPANSIONS = 50_000


def count_expansions(tree: Any) -> int:
    """The alternatives that Lark makes of a rule's tree, at most MAX_EXPANSIONS + 1."""
    if not hasattr(tree, "data"):
        return 1
    if tree.data == "expr":
        body, operator = count_expansions(tree.children[0]), str(tree.children[1])
        if operator == "?":
            result = 1 + body
        elif operator == "*":
            result = 2
        elif operator == "~" and len(str(tree.children[-1])) < 3:
            least, most = int(tree.children[2]), int(tree.children[-1])
            result = sum(min(body**times, MAX_EXPANSIONS + 1) for times in range(least, most + 1))
        else:
            result = 1
    elif tree.data == "maybe":
        result = 1 + count_expansions(tree.children[0])
    elif tree.data == "expansions":
        result = sum(count_expansions(child) for child in tree.children)
    elif tree.data in ("expansion", "alias", "value"):
        result = 1
        for child in tree.children:
            result = min(result * count_expansions(child), MAX_EXPANSIONS + 1)
    else:
        result = 1
    return min(result, MAX_EXPANSIONS + 1)


def compile_as_lark(loaded: Any, start: str, kept: Iterable[str]) -> tuple[list[Any], list[Any]]:
    """Lark's terminals and rules.

    Args:
        loaded: a `lark.load_grammar.Grammar`. kept: names of terminals to keep although no rule uses them.
    Raises: LimitError (limit "grammar_size"); what Lark raises.
    """
    total = 0
    for name, _, tree, _ in loaded.rule_defs:
        total += count_expansions(tree) if tree is not None else 0
        if total > MAX_EXPANSIONS:
            raise LimitError(
                f"Lark multiplies optional parts out: at rule {name!r} there are more than {MAX_EXPANSIONS} "
                "alternatives; lexer='munch' and lexer='lark-dynamic' do not",
                limit="grammar_size",
            )
    terminals, rules, _ = loaded.compile([start], set(kept))
    return list(terminals), list(rules)


def library_grammar(loaded: Any, start: str, lexing: str, indenter: Any, terminal_of: Any) -> StaticGrammar:
    """The grammar under Lark's own lexer.

    Args:
        loaded: a `lark.load_grammar.Grammar`. lexing: "lark-basic" or "lark-contextual". indenter: a
        `lark.indenter.Indenter` or None. terminal_of: from a `lark.lexer.TerminalDef` to a Terminal.
    Raises: GrammarError, LimitError; what Lark raises.
    """
    definitions, rules = compile_as_lark(loaded, start, () if indenter is None else indenter.always_accept)
    definitions = _in_order(definitions)
    table = [terminal_of(definition) for definition in definitions]
    numbers = {str(definition.name): number for number, definition in enumerate(definitions)}
    blocks = None
    if indenter is not None:
        for name in (indenter.INDENT_type, indenter.DEDENT_type):
            numbers[name] = len(table)
            table.append(Terminal("block", "", name=name))
        if indenter.NL_type not in numbers:
            raise GrammarError(f"terminal {indenter.NL_type}, whose width is the indentation, is not defined")
        blocks = Indentation(
            numbers[indenter.NL_type],
            numbers[indenter.INDENT_type],
            numbers[indenter.DEDENT_type],
            tuple(numbers[name] for name in indenter.OPEN_PAREN_types if name in numbers),
            tuple(numbers[name] for name in indenter.CLOSE_PAREN_types if name in numbers),
            int(indenter.tab_len),
        )
    for rule in rules:
        for symbol in rule.expansion:
            if symbol.is_term and symbol.name not in numbers:
                raise GrammarError(f"terminal {symbol.name} is only declared; its text must be defined")
    ignored = tuple(dict.fromkeys(numbers[str(name)] for name in loaded.ignore))
    if lexing == "lark-basic":
        plain = productions(rules, numbers)
        lexers: tuple[OrderedLexer, ...] = (ordered_lexer(definitions, numbers),)
        return StaticGrammar(tuple(table), plain, start, "lark-basic", ignored, blocks, lexers)
    if blocks is not None and blocks.opens:
        raise GrammarError("blocks by indentation with brackets need lexer='munch' or lexer='lark-basic'")
    states = _LalrStates(rules, start)
    always = {str(name) for name in loaded.ignore} | (set() if indenter is None else set(indenter.always_accept))
    lexers, lexer_of = states.lexers(definitions, numbers, always)
    split, first, shifts = states.split(numbers, len(table), lexer_of)
    return StaticGrammar(tuple(table), split, first, "lark-contextual", ignored, blocks, lexers, shifts)


def productions(rules: Sequence[Any], numbers: Mapping[str, int]) -> dict[str, tuple[Alternative, ...]]:
    """Lark's compiled rules as alternatives; terminals as their numbers."""
    result: dict[str, list[Alternative]] = {}
    for rule in rules:
        symbols = tuple(numbers[s.name] if s.is_term else str(s.name) for s in rule.expansion)
        result.setdefault(str(rule.origin.name), []).append(symbols)
    return {name: tuple(alternatives) for name, alternatives in result.items()}


def _in_order(definitions: Iterable[Any]) -> list[Any]:
    """As Lark's basic lexer sorts terminals."""
    return sorted(definitions, key=lambda t: (-t.priority, -t.pattern.max_width, -len(t.pattern.value), t.name))


def ordered_lexer(definitions: Sequence[Any], numbers: Mapping[str, int]) -> OrderedLexer:
    """What Lark's basic lexer does with `definitions`, which are in its order."""
    from lark.lexer import PatternStr

    strings = [t for t in definitions if isinstance(t.pattern, PatternStr)]
    embedded: set[str] = set()
    replaced: list[tuple[int, tuple[int, ...]]] = []
    for definition in definitions:
        if isinstance(definition.pattern, PatternStr):
            continue
        expression = _compiled(definition.pattern.to_regexp())
        texts = []
        for string in strings:
            match = expression.match(string.pattern.value) if string.priority == definition.priority else None
            if match is None or match.group() != string.pattern.value:
                continue
            texts.append(numbers[string.name])
            if string.pattern.flags <= definition.pattern.flags:
                embedded.add(string.name)
        if texts:
            replaced.append((numbers[definition.name], tuple(texts)))
    tried = tuple(numbers[t.name] for t in definitions if t.name not in embedded)
    return OrderedLexer(tried, tuple(replaced))


def _compiled(expression: str) -> re.Pattern[str]:
    try:
        return re.compile(expression)
    except re.error:  # Lark reads categories of Unicode with its option regex=True, and so with this package
        try:
            regex: Any = importlib.import_module("regex")
        except ImportError as error:
            raise GrammarError(f"{expression!r} needs the package `regex` under Lark's own lexers") from error
        compiled: re.Pattern[str] = regex.compile(expression)
        return compiled


class _LalrStates:
    """Lark's LALR automaton of a grammar without conflicts."""

    def __init__(self, rules: Sequence[Any], start: str) -> None:
        from lark.common import ParserConf
        from lark.parsers.lalr_analysis import LALR_Analyzer

        conf: Any = ParserConf
        analyzer: Any = LALR_Analyzer(conf(list(rules), {}, [start]))
        analyzer.compute_lr0_states()
        analyzer.compute_reads_relations()
        analyzer.compute_includes_lookback()
        analyzer.compute_lookaheads()
        self.start = start
        self.root = analyzer.lr0_start_states[start]
        self.accepts: dict[Any, frozenset[str]] = {}
        for state in analyzer.lr0_itemsets:
            shifted = {symbol.name for symbol in state.transitions if symbol.is_term}
            for symbol, reduced in state.lookaheads.items():
                if len(reduced) > 1 or symbol.name in shifted:
                    options = [f"reduce {rule}" for rule in sorted(map(str, reduced))]
                    options += [f"shift {symbol.name}"] if symbol.name in shifted else []
                    raise GrammarError(
                        f"lexer='lark-contextual' needs an LALR(1) grammar; before {symbol.name} there is a choice: "
                        + ", or ".join(options)
                    )
            self.accepts[state] = frozenset(shifted | {symbol.name for symbol in state.lookaheads})
        self.rules_of: dict[str, list[Any]] = {}
        for rule in rules:
            self.rules_of.setdefault(rule.origin.name, []).append(rule)
        # The state in which the parser is when a terminal has been shifted is entered by that terminal.
        self.after_terminal = {
            target for state in analyzer.lr0_itemsets for symbol, target in state.transitions.items() if symbol.is_term
        }

    def lexers(
        self, definitions: Sequence[Any], numbers: Mapping[str, int], always: set[str]
    ) -> tuple[tuple[OrderedLexer, ...], dict[Any, int]]:
        """One lexer for each set of accepted terminals, the one of the start first; and each state's lexer."""
        known: dict[frozenset[str], int] = {}
        distinct: dict[OrderedLexer, int] = {}
        lexer_of: dict[Any, int] = {}
        for state in [self.root, *self.after_terminal]:
            accepts = self.accepts[state]
            if accepts not in known:
                lexer = ordered_lexer([t for t in definitions if t.name in accepts or t.name in always], numbers)
                known[accepts] = distinct.setdefault(lexer, len(distinct))
            lexer_of[state] = known[accepts]
        return tuple(distinct), lexer_of

    def split(
        self, numbers: Mapping[str, int], first_shift: int, lexer_of: Mapping[Any, int]
    ) -> tuple[dict[str, tuple[Alternative, ...]], str, tuple[tuple[int, int], ...]]:
        """Productions by state, the start symbol, and the shifts, whose numbers begin at `first_shift`."""
        classes = self.alike(lexer_of)
        shifts: dict[tuple[int, int], int] = {}
        table: dict[str, tuple[Alternative, ...]] = {}
        names: dict[tuple[int, str], str] = {}
        pending: deque[tuple[Any, str]] = deque()

        def nonterminal(state: Any, name: str) -> str:
            key = (classes[state], name)
            if key not in names:
                names[key] = name if name not in table else f"{name}@{classes[state]}"
                table[names[key]] = ()  # replaced when its turn comes
                pending.append((state, name))
            return names[key]

        first = nonterminal(self.root, self.start)
        while pending:
            state, name = pending.popleft()
            alternatives = []
            for rule in self.rules_of.get(name, ()):
                at = state
                symbols: list[int | str] = []
                for symbol in rule.expansion:
                    target = at.transitions[symbol]
                    if symbol.is_term:
                        shift = (numbers[symbol.name], lexer_of[target])
                        symbols.append(first_shift + shifts.setdefault(shift, len(shifts)))
                    else:
                        symbols.append(nonterminal(at, symbol.name))
                    at = target
                alternatives.append(tuple(symbols))
            table[names[classes[state], name]] = tuple(alternatives)
        return table, first, tuple(shifts)

    def alike(self, lexer_of: Mapping[Any, int]) -> dict[Any, int]:
        """States that lead to the same lexers by the same symbols have the same number."""
        states = list(self.accepts)
        classes = dict.fromkeys(states, 0)
        count = 1
        while True:
            signatures: dict[Any, int] = {}
            refined = {}
            for state in states:
                reads = frozenset(
                    (symbol, classes[target], lexer_of[target] if symbol.is_term else -1)
                    for symbol, target in state.transitions.items()
                )
                refined[state] = signatures.setdefault((classes[state], reads), len(signatures))
            if len(signatures) == count:
                return classes
            classes, count = refined, len(signatures)
