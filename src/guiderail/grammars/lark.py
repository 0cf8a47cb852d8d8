"""Lark grammars, read by Lark's own loader, lexed by longest match or as one of Lark's own lexers does.

    start: pair ("," pair)*
    pair: NAME "=" NUMBER
    %import common.CNAME -> NAME
    %import common.NUMBER
    %ignore " "

The loader (`lark.load_grammar`) resolves imports, templates' definitions, `%extend` and `%override`, and turns every
terminal into a regular expression in Python's dialect, so a grammar means here what it means to Lark, down to the
order of alternatives. Its own expansion of rules is not used: it multiplies optional parts out (2^n alternatives for
n of them), and rejects rules that coincide, which only matters to a table-driven parser. Ours takes any context-free
grammar.

What shapes the tree but not the language has no effect: aliases, `?rule`, `!rule`, `_rule`, rule priorities.

`lexer="munch"`: at each point the terminal that matches the longest text wins, ties go to the higher priority, then
to strings before patterns, then to the one defined first. It does not depend on what the parser could use: all
terminals that the rules use, and the ignored ones, compete everywhere.

Modes, an addition to Lark's notation: `%mode NAME: TERMINAL TERMINAL …` takes terminals out of that competition. They
compete among themselves, and ignored terminals may not stand before them; `%mode NAME ignoring: …` says that they may.
Which lexer reads on is decided by what the parser asks for, so the text of an f-string and the expressions in it can be
read by different ones:

    string: OPEN (TEXT | FIELD expression "}")* CLOSE      OPEN: "f\""    TEXT: /[^{}"]+/    FIELD: "{"    CLOSE: "\""
    %mode text: TEXT FIELD CLOSE

A terminal must not be followed by both kinds, those that ignored ones may stand before and those that they may not.
Literals inside rules are of no mode. `%mode` is read in the grammar itself, not in files that it imports.

`lexer="free"`: terminals are abbreviations, and any way to cut the text that the rules admit will do; the ignored ones
may stand before and behind each. Terminals may match the empty string and must not look around.

What llguidance adds to the notation (`lark_extensions.py`), `%json {…}`, `<|special|>`, `&`, `~` and others, is read
under "free", "munch" and "lark-dynamic"; llguidance's own language is a part of that under "free".

`lexer="lark-dynamic"`: the language of `lark.Lark(grammar, parser="earley", lexer="dynamic")`. Terminals do not
compete: where the parser may use one, it matches what `re.match` takes there and nothing shorter, so `/a|ab/` never
reads `ab`, `IF` may be a NAME, and priorities choose between trees only. Refused: a terminal that is ignored and stands
in a rule as well, blocks by indentation (Lark refuses them too), terminals that look before their start.

`lexer="lark-basic"`: the language of `lark.Lark(grammar, parser="earley", lexer="basic")`, and so of parser="lalr"
where the LALR table has no conflict. `lexer="lark-contextual"`: that of `lark.Lark(grammar, parser="lalr")`; a grammar
with a conflict is refused. See `lark_lexers.py`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from guiderail.errors import GrammarError, GuiderailError, LimitError, SchemaError
from guiderail.grammars.lark_extensions import UNBOUNDED, Extended, Tree, extended
from guiderail.grammars.lark_lexers import library_grammar
from guiderail.grammars.regular import escape_text
from guiderail.grammars.rules import (
    EMPTY,
    Choice,
    Expression,
    Indentation,
    Leaf,
    Lexing,
    Reference,
    Repeat,
    Sequence,
    StaticGrammar,
    Terminal,
    Terminals,
    assemble,
    leaves,
    reachable,
)

LEXERS = ("munch", "free", "lark-basic", "lark-contextual", "lark-dynamic")
MAX_TERMINAL_NODES = 100_000
MAX_NESTING = 100
MAX_TEMPLATE_USES = 10_000

_FLAGS = {"i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL, "x": re.VERBOSE, "u": re.RegexFlag(0)}


def parse_lark(
    text_or_path: str | os.PathLike[str], start: str = "start", lexer: str = "munch", postlex: Any = None
) -> tuple[StaticGrammar, list[tuple[str, str, str]]]:
    """Read a Lark grammar.

    Args:
        text_or_path: a path object or a string that ends in `.lark` names a file; any other string is the grammar.
            `%import .other` is looked for beside the file.
        start: the rule whose language it is.
        lexer: one of LEXERS.
        postlex: a `lark.indenter.Indenter`, or a class of them, as `lark.Lark` takes it. None: `PythonIndenter` for a
            grammar that declares its two terminals, _INDENT and _DEDENT, none for others.
    Returns: the grammar, and report rows (rule, status, reason).
    Raises:
        GrammarError: with line and column where Lark or a search for the name it complains about gives them.
        LimitError: a terminal or the rules would become too large.
        OSError: the file cannot be read.
        ValueError: `lexer` is none of LEXERS.
    """
    if lexer not in LEXERS:
        raise ValueError(f"lexer must be one of {', '.join(LEXERS)}; got {lexer!r}")
    lexing: Lexing = lexer  # type: ignore[assignment]  # one of LEXERS
    path = _as_path(text_or_path)
    text = str(text_or_path) if path is None else path.read_text(encoding="utf-8")
    text, modes = _take_modes(text)
    own = extended(text)
    if own.first is not None and lexing in ("lark-basic", "lark-contextual"):
        raise own.error(f"this is not Lark's own notation; lexer={lexing!r} knows nothing else", own.first)
    source = "<string>" if path is None else str(path.resolve())
    with _written_places(own), _lark_errors(own.text):
        return _Reader(own, source, lexing, postlex, modes).read(start)


@dataclass(frozen=True)
class _Mode:
    terminals: tuple[str, ...]
    ignoring: bool


def _take_modes(text: str) -> tuple[str, dict[str, _Mode]]:
    """The `%mode` lines, and the text with them left blank, so that places in it stay what they are."""
    modes: dict[str, _Mode] = {}

    def take(match: re.Match[str]) -> str:
        name, ignoring, terminals = match["name"], match["ignoring"] is not None, tuple(match["terminals"].split())
        if name in modes:
            raise GrammarError.at(f"mode {name} is defined twice", text, match.start())
        for terminal in terminals:
            if any(terminal in other.terminals for other in modes.values()):
                raise GrammarError.at(f"terminal {terminal} is of two modes", text, match.start())
        modes[name] = _Mode(terminals, ignoring)
        return ""

    line = r"^%mode[ \t]+(?P<name>\w+)(?P<ignoring>[ \t]+ignoring)?[ \t]*:(?P<terminals>(?:[ \t]+\w+)+)[ \t]*(?://.*)?$"
    return re.sub(line, take, text, flags=re.M), modes


def rule_names(text_or_path: str | os.PathLike[str]) -> list[str]:
    """The rules that a grammar defines, its templates aside, imported ones included. Raises: as `parse_lark`."""
    path = _as_path(text_or_path)
    text = str(text_or_path) if path is None else path.read_text(encoding="utf-8")
    own = extended(_take_modes(text)[0])
    with _written_places(own), _lark_errors(own.text):
        loaded = _Reader(own, "<string>" if path is None else str(path.resolve()), "munch").loaded
    return [str(name) for name, parameters, tree, _ in loaded.rule_defs if not parameters and tree is not None]


def placed(error: GrammarError, static: StaticGrammar, text_or_path: str | os.PathLike[str]) -> GrammarError:
    """The core's complaint about a grammar that Lark had accepted, with its place in the grammar's text.

    The core sees terminals, not the text: its offset counts into the expression of one terminal, which is not named.
    """
    from guiderail import _core

    path = _as_path(text_or_path)
    text = str(text_or_path) if path is None else path.read_text(encoding="utf-8")
    if error.offset is None:
        quoted = re.match(r"/.*/(?=: )", error.message, re.S)  # an expression among those that '&' and '~' combine
        place = -1 if quoted is None else text.find(quoted[0])
        return _with_place(error.message, text) if place < 0 else GrammarError.at(error.message, text, place)
    for terminal in static.terminals:
        if terminal.kind != "regex" or not isinstance(terminal.text, str):
            continue
        try:
            _core.Regex(terminal.text, "python", terminal.flags)
        except GrammarError as own:
            message = f"terminal {terminal.name}: {own.message}, at character {own.offset} of {terminal.text!r}"
            inline = text.find(terminal.name) if terminal.name.startswith("/") else -1
            offset = inline if inline >= 0 else _find_name(text, terminal.name)
            return GrammarError(message) if offset is None else GrammarError.at(message, text, offset)
    return error


def _as_path(text_or_path: str | os.PathLike[str]) -> Path | None:
    if isinstance(text_or_path, os.PathLike):
        return Path(text_or_path)
    return Path(text_or_path) if text_or_path.endswith(".lark") and "\n" not in text_or_path else None


class _Reader:
    def __init__(
        self, own: Extended, source: str, lexing: Lexing, postlex: Any = None, modes: Mapping[str, _Mode] | None = None
    ) -> None:
        # Imported here: `import guiderail` must stay light, and only users of Lark grammars need it.
        from lark import load_grammar as loader

        self.own = own
        self.text = own.text
        self.lexing = lexing
        # The loader follows references between terminals one by one: check how many there are before it starts.
        _check_terminal_sizes(own.text)
        load: Any = loader.load_grammar  # Lark does not annotate it
        self.loaded: Any = load(own.text, source, [], False)[0]
        self.terminals = Terminals()
        self.rules: dict[str, Expression] = {}
        self.patterns: dict[str, Any] = {}  # name -> (lark pattern, priority)
        self.names_of: dict[Any, str] = {}  # lark pattern -> the name that a rule's inline literal goes by
        self.definitions: dict[str, Any] = {}
        self.pending: list[tuple[str, Any, dict[str, Expression]]] = []
        self.rows: list[tuple[str, str, str]] = list(own.rows)
        self.trees: dict[str, tuple[Tree, int]] = {}  # terminals of `own`, complete, with their sizes
        self.parts: dict[str, Expression] = {}  # what `own` declared
        self.modes = list((modes or {}).values())
        self.mode_of = {name: number for number, mode in enumerate(self.modes, 1) for name in mode.terminals}
        self.indenter = postlex
        self.blocks: dict[str, Leaf] = {}  # the terminals that indentation makes

    def read(self, start: str) -> tuple[StaticGrammar, list[tuple[str, str, str]]]:
        self.definitions = {str(rule[0]): rule for rule in self.loaded.rule_defs}
        if start not in self.definitions:
            raise GrammarError(f"there is no rule {start!r}, where the language starts")
        if self.lexing in ("lark-basic", "lark-contextual"):
            return self.read_as_library(start)
        self.read_terminals()
        for name, parameters, tree, _ in self.loaded.rule_defs:
            if not parameters and tree is not None:
                self.pending.append((str(name), tree, {}))
        self.pending.reverse()
        uses = 0
        while self.pending:  # grows while templates are met
            name, tree, arguments = self.pending.pop()
            uses += 1
            if uses > MAX_TEMPLATE_USES + len(self.definitions):
                raise LimitError(f"templates are used in more than {MAX_TEMPLATE_USES} ways", limit="grammar_size")
            self.rules[name] = self.expression(tree, arguments, 0)
        if start not in self.rules:
            raise self.error(f"rule {start!r} is a template or only declared; the language cannot start there", start)
        return self.finish(start)

    def read_as_library(self, start: str) -> tuple[StaticGrammar, list[tuple[str, str, str]]]:
        """Rules and terminals as Lark compiles them."""

        def terminal_of(definition: Any) -> Terminal:
            pattern, name = definition.pattern, str(definition.name)
            if name.startswith("__ANON"):
                name = pattern.raw or repr(pattern.value)
            return _to_terminal(pattern, name, definition.priority)

        if self.modes:
            raise GrammarError("%mode is for lexer='munch'; Lark's own lexers know no modes")
        self.find_blocks()
        grammar = library_grammar(self.loaded, start, self.lexing, self.indenter, terminal_of)
        return grammar, [(name, "enforced", "") for name in self.definitions if name in grammar.rules]

    def finish(self, start: str) -> tuple[StaticGrammar, list[tuple[str, str, str]]]:
        # `assemble` keeps what the rules use: terminals of rules that nobody needs must not compete.
        ignored = [terminal for name in self.loaded.ignore for terminal in leaves(self.ignored(str(name)))]
        if self.lexing == "free" and ignored:
            start, ignored = self.write_ignored(start, ignored), []
        grammar = assemble(
            self.terminals,
            self.rules,
            start,
            self.lexing,
            ignored,
            self.indentation(),
            tuple(mode.ignoring for mode in self.modes),
        )
        for name in [name for name in reachable(self.rules, start) if name in self.definitions or "{" in name]:
            options = self.definitions[name][3] if name in self.definitions else None
            if options is not None and options.priority is not None:
                reason = "a rule's priority chooses between parses of a text, not between texts"
                self.rows.append((name, "annotation", reason))
            self.rows.append((name, "enforced", ""))
        return grammar, self.rows

    def ignored(self, name: str) -> Expression:
        return self.parts[name] if name in self.parts else self.named(name)

    def write_ignored(self, start: str, ignored: list[int]) -> str:
        """Under free lexing ignored terminals are rules like any other. Returns: where the language starts."""
        names = iter(f"{word}{'_' * n}" for n in range(len(self.rules) + 2) for word in ("ignored",))
        space = next(name for name in names if name not in self.rules)
        begin = f"{space} {start}"
        self.rules = {name: _behind_terminals(body, Reference(space)) for name, body in self.rules.items()}
        self.rules[space] = Repeat(Choice(tuple(Leaf(terminal) for terminal in ignored)), 0, None)
        self.rules[begin] = Sequence((Reference(space), Reference(start)))
        return begin

    def error(self, message: str, name: str) -> GrammarError:
        offset = _find_name(self.text, name)
        return GrammarError(message) if offset is None else GrammarError.at(message, self.text, offset)

    # --- terminals ------------------------------------------------------------------------------------------------

    def read_terminals(self) -> None:
        for name, (tree, priority) in self.loaded.term_defs:
            if tree is None:
                continue  # %declare: an error only where it is used
            self.patterns[str(name)] = (self.pattern(str(name), tree), int(priority))
        self.find_blocks()
        for name in self.mode_of:
            if name not in self.patterns:
                raise self.error(f"terminal {name}, which %mode names, is not defined", name)
        if self.modes and self.lexing != "munch":
            raise GrammarError("modes (%mode) need lexer='munch'")
        for name in self.own.terminals:
            self.parts[name] = self.tree_terminal(self.tree(name, ())[0], name, self.own.terminals[name][1])
        for name in self.own.parts:
            self.parts[name] = self.part(name)
        self.names_of = {p: name for name, (p, _) in self.patterns.items() if name not in self.mode_of}
        for name in self.patterns:  # numbered in the order of definition, which decides ties, whatever uses them first
            self.named(name)

    def pattern(self, name: str, tree: Any) -> Any:
        """The terminal as one of Lark's patterns: its definition with all it refers to written out."""
        from lark import load_grammar as loader
        from lark.exceptions import LarkError

        copy: Any = loader.nr_deepcopy_tree
        expansions = list(tree.find_data("expansion"))
        if len(expansions) == 1 and not expansions[0].children:
            raise self.error(f"terminal {name} is empty", name)
        try:
            return (loader.PrepareLiterals() * _terminal_to_pattern()).transform(copy(tree))
        except LarkError as error:
            if isinstance(getattr(error, "orig_exc", None), RecursionError):
                raise LimitError(f"terminal {name} is nested too deeply", limit="grammar_nesting") from error
            raise self.error(f"terminal {name}: {_first_line(error)}", name) from error

    def part(self, name: str) -> Expression:
        """What a terminal that `own` has declared stands for."""
        part = self.own.parts[name]
        if part.kind == "special":
            return Choice(tuple(self.terminals.add(Terminal("special", text, name=text)) for text in part.what))
        if part.kind == "tree":
            return self.tree_terminal(self.complete(part.what, (), [0]), part.name, 0)
        from guiderail.grammars.json_schema import json_schema_source

        line = self.own.original.count("\n", 0, part.offset) + 1
        try:
            _, report = json_schema_source(part.what)
        except SchemaError as error:
            raise type(error)(f"%json on line {line}: {error.message}", pointer=error.pointer) from None
        self.rows += [(f"%json on line {line}{pointer}", status, reason) for pointer, status, reason in report()]
        return self.terminals.add(Terminal("json", part.what, name=f"%json on line {line}"))

    def tree_terminal(self, tree: Tree, name: str, priority: int) -> Expression:
        """A terminal that may be empty stands for itself without the empty text, or for nothing."""
        empty = _may_be_empty(tree)
        if empty:
            tree = ["and", tree, ["re", "(?s:.+)", 0]]
        mode = self.mode_of.get(name, 0)
        leaf = self.terminals.add(Terminal("language", json.dumps(tree), name=name, priority=2 * priority, mode=mode))
        return Choice((leaf, EMPTY)) if empty else leaf

    def tree(self, name: str, inside: tuple[str, ...]) -> tuple[Tree, int]:
        """A terminal of `own`, what it refers to written out, and how large it is."""
        if name not in self.trees:
            if name in inside:
                raise self.own.error(f"recursion in terminal {name!r}", self.own.terminals[name][2])
            size = [0]
            self.trees[name] = (self.complete(self.own.terminals[name][0], (*inside, name), size), size[0])
        return self.trees[name]

    def complete(self, tree: Tree, inside: tuple[str, ...], size: list[int]) -> Tree:
        size[0] += len(tree)
        if tree[0] == "literal":
            with _positioned_at(self.own, tree[2]):
                made = _pattern_tree(_lark_pattern(tree[1]))
                _may_be_empty(made)  # reads the expression
                return made
        if tree[0] == "name":
            written, offset = tree[1], tree[2]
            if written in self.own.terminals:
                made, more = self.tree(written, inside)
                size[0] += more
                if size[0] > MAX_TERMINAL_NODES:
                    raise LimitError(f"terminal {written} becomes too large when written out", limit="terminal_size")
                return made
            if written not in self.patterns:
                raise self.own.error(f"terminal {written!r} is used but not defined", offset)
            with _positioned_at(self.own, offset):
                return _pattern_tree(self.patterns[written][0])
        return [self.complete(item, inside, size) if isinstance(item, list) else item for item in tree]

    def find_blocks(self) -> None:
        from lark.indenter import Indenter, PythonIndenter

        declared = {str(name) for name, (tree, _) in self.loaded.term_defs if tree is None}
        if self.indenter is None and {"_INDENT", "_DEDENT"} <= declared:
            self.indenter = PythonIndenter
        if self.indenter is None:
            return
        if self.lexing == "lark-dynamic":
            raise GrammarError("blocks by indentation (postlex) are not for lexer='lark-dynamic', nor are they in Lark")
        if self.lexing == "free":
            raise GrammarError("blocks by indentation (postlex) need a lexer; lexer='free' is none")
        kind = self.indenter if isinstance(self.indenter, type) else type(self.indenter)
        if not issubclass(kind, Indenter) or kind._process is not Indenter._process:
            raise GrammarError(
                f"postlex {kind.__name__} is not a lark.indenter.Indenter; its meaning is not known here"
            )
        if kind.handle_NL is not Indenter.handle_NL:
            raise GrammarError(f"postlex {kind.__name__} has a handle_NL of its own; its meaning is not known here")
        if isinstance(self.indenter, type):
            self.indenter = self.indenter()
        for name in (self.indenter.INDENT_type, self.indenter.DEDENT_type):
            if name not in declared:
                raise self.error(f"terminal {name}, which indentation makes, must be declared: %declare {name}", name)
            self.blocks[name] = self.terminals.add(Terminal("block", "", name=name))

    def indentation(self) -> Indentation | None:
        if not self.blocks:
            return None
        indenter = self.indenter
        if indenter.NL_type not in self.patterns:
            raise self.error(f"terminal {indenter.NL_type}, whose width is the indentation, is not defined", "_INDENT")

        def brackets(names: list[str]) -> tuple[int, ...]:
            leaves = (self.bracket(name) for name in names)
            return tuple(leaf.terminal for leaf in leaves if leaf is not None)

        return Indentation(
            self.named(indenter.NL_type).terminal,
            self.blocks[indenter.INDENT_type].terminal,
            self.blocks[indenter.DEDENT_type].terminal,
            brackets(indenter.OPEN_PAREN_types),
            brackets(indenter.CLOSE_PAREN_types),
            int(indenter.tab_len),
            bool(getattr(indenter, "as_python", False)),
        )

    def bracket(self, name: str) -> Leaf | None:
        """The terminal that Lark calls `name`: a defined one, or a character that a rule uses."""
        if name in self.patterns:
            return self.named(name)
        from lark.lexer import PatternStr
        from lark.load_grammar import _TERMINAL_NAMES

        for character, known in _TERMINAL_NAMES.items():
            if known == name:
                return self.inline(PatternStr(character, raw=f'"{character}"'))
        return None

    def named(self, name: str) -> Leaf:
        if name in self.blocks:
            return self.blocks[name]
        if name not in self.patterns:
            raise self.error(f"terminal {name} is only declared; its text must be defined", name)
        pattern, priority = self.patterns[name]
        try:
            return self.terminals.add(replace(_to_terminal(pattern, name, priority), mode=self.mode_of.get(name, 0)))
        except GrammarError as error:
            raise self.error(error.message, name) from error

    def inline(self, pattern: Any) -> Leaf:
        """A literal or regular expression inside a rule. One that equals a named terminal is that terminal."""
        if pattern in self.names_of:
            return self.named(self.names_of[pattern])
        return self.terminals.add(_to_terminal(pattern, pattern.raw or repr(pattern.value), 0))

    # --- rules ----------------------------------------------------------------------------------------------------

    def expression(self, tree: Any, arguments: dict[str, Expression], depth: int) -> Expression:
        if depth > 2 * MAX_NESTING:
            raise LimitError(f"groups are nested more than {MAX_NESTING} deep", limit="grammar_nesting")
        convert = getattr(self, f"on_{tree.data}")
        result: Expression = convert(tree.children, arguments, depth + 1)
        return result

    def on_expansions(self, children: list[Any], arguments: dict[str, Expression], depth: int) -> Expression:
        options = tuple(self.expression(child, arguments, depth) for child in children)
        return options[0] if len(options) == 1 else Choice(options)

    def on_expansion(self, children: list[Any], arguments: dict[str, Expression], depth: int) -> Expression:
        items = tuple(self.expression(child, arguments, depth) for child in children)
        return items[0] if len(items) == 1 else Sequence(items)

    def on_alias(self, children: list[Any], arguments: dict[str, Expression], depth: int) -> Expression:
        return self.expression(children[0], arguments, depth)

    def on_maybe(self, children: list[Any], arguments: dict[str, Expression], depth: int) -> Expression:
        return Choice((self.expression(children[0], arguments, depth), EMPTY))

    def on_expr(self, children: list[Any], arguments: dict[str, Expression], depth: int) -> Expression:
        body = self.expression(children[0], arguments, depth)
        operator = str(children[1])
        if operator != "~":
            least, most = {"?": (0, 1), "*": (0, None), "+": (1, None)}[operator]
            return Repeat(body, least, most)
        if any(len(count) > 10 for count in children[2:]):
            raise LimitError(f"repetition ~{children[2]} is too large", limit="repeats")
        least, most = int(children[2]), int(children[-1])
        if most == UNBOUNDED:
            return Repeat(body, least, None)
        if most < least or least < 0:
            line, column = getattr(children[1], "line", None), getattr(children[1], "column", None)
            raise GrammarError(f"the bounds of ~{least}..{most} are in the wrong order", line=line, column=column)
        return Repeat(body, least, most)

    def on_value(self, children: list[Any], arguments: dict[str, Expression], depth: int) -> Expression:
        from lark.grammar import NonTerminal
        from lark.grammar import Terminal as LarkTerminal

        child = children[0]
        if isinstance(child, LarkTerminal):
            return self.parts[child.name] if child.name in self.parts else self.named(child.name)
        if isinstance(child, NonTerminal):
            return self.reference(child.name, arguments)
        return self.expression(child, arguments, depth)

    def reference(self, name: str, arguments: dict[str, Expression]) -> Expression:
        if name in arguments:
            return arguments[name]
        definition = self.definitions[name]
        if definition[1]:
            raise self.error(f"template {name!r} is used without arguments", name)
        if definition[2] is None:
            raise self.error(f"rule {name!r} is only declared; it must be defined", name)
        return Reference(name)

    def on_literal(self, children: list[Any], arguments: dict[str, Expression], depth: int) -> Expression:
        return self.literal(children, "literal")

    def on_range(self, children: list[Any], arguments: dict[str, Expression], depth: int) -> Expression:
        return self.literal(children, "range")

    def literal(self, children: list[Any], data: str) -> Expression:
        from lark import Tree
        from lark.load_grammar import PrepareLiterals

        with _positioned(children[0]):
            return self.inline(PrepareLiterals().transform(Tree(data, list(children))).children[0])

    def on_template_usage(self, children: list[Any], arguments: dict[str, Expression], depth: int) -> Expression:
        template = children[0].name
        if template in arguments:
            bound = arguments[template]
            if not isinstance(bound, Reference) or bound.name not in self.definitions:
                raise self.error(f"template parameter {template!r} is not bound to a template", template)
            template = bound.name
        _, parameters, tree, _ = self.definitions[template]
        values = [self.argument(child, arguments, depth) for child in children[1:]]
        name = f"{template}{{{','.join(self.describe(value) for value in values)}}}"
        if len(name) > 1000:
            raise LimitError(f"template {template!r} is nested without end", limit="grammar_nesting")
        if name not in self.rules:
            self.rules[name] = EMPTY  # replaced when its turn comes
            self.pending.append((name, tree, dict(zip(parameters, values, strict=True))))
        return Reference(name)

    def argument(self, tree: Any, arguments: dict[str, Expression], depth: int) -> Expression:
        child = tree.children[0]
        name = getattr(child, "name", None)
        if name in self.definitions and name not in arguments and self.definitions[name][1]:
            return Reference(name)  # a template handed on by name
        return self.expression(tree, arguments, depth)

    def describe(self, value: Expression) -> str:
        return self.terminals[value.terminal].name if isinstance(value, Leaf) else getattr(value, "name", repr(value))


def _behind_terminals(body: Expression, space: Expression) -> Expression:
    if isinstance(body, Leaf):
        return Sequence((body, space))
    if isinstance(body, Sequence):
        return Sequence(tuple(_behind_terminals(item, space) for item in body.items))
    if isinstance(body, Choice):
        return Choice(tuple(_behind_terminals(option, space) for option in body.options))
    if isinstance(body, Repeat):
        return Repeat(_behind_terminals(body.body, space), body.least, body.most)
    return body


def _lark_pattern(text: str) -> Any:
    """One of Lark's patterns: of a string, a range of two strings, or a regular expression between slashes."""
    from lark import Token, Tree
    from lark.load_grammar import PrepareLiterals

    if text.startswith("/"):
        return PrepareLiterals().transform(Tree("literal", [Token("REGEXP", text)])).children[0]
    split = re.fullmatch(r'("(?:\\.|[^"\\\n])*"i?)\.\.("(?:\\.|[^"\\\n])*"i?)', text)
    if split is not None:
        ends: list[Any] = [Token("STRING", split[1]), Token("STRING", split[2])]
        return PrepareLiterals().transform(Tree("range", ends)).children[0]
    return PrepareLiterals().transform(Tree("literal", [Token("STRING", text)])).children[0]


def _pattern_tree(pattern: Any) -> Tree:
    terminal = _to_terminal(pattern, pattern.value, 0)
    if isinstance(terminal.text, bytes):
        return ["lit", terminal.text.decode("utf-8")]
    return ["re", terminal.text, terminal.flags]


def _may_be_empty(tree: Tree) -> bool:
    """Is the empty text in the language of a tree? Raises: GrammarError for an expression that is malformed."""
    kind, items = tree[0], tree[1:]
    if kind == "lit":
        return not items[0]
    if kind == "re":
        from guiderail import _core

        return _core.Regex(items[0], "python", items[1]).accepts(b"")
    if kind == "rep":
        return items[1] == 0 or _may_be_empty(items[0])
    if kind == "not":
        return not _may_be_empty(items[0])
    if kind == "or":
        return any(map(_may_be_empty, items))
    return kind == "factor" or all(map(_may_be_empty, items))


def _terminal_to_pattern() -> Any:
    from lark.lexer import PatternStr
    from lark.load_grammar import TerminalTreeToPattern
    from lark.utils import get_regexp_width

    def widths(pattern: Any) -> tuple[int, int]:
        if isinstance(pattern, PatternStr):
            return len(pattern.value), len(pattern.value)
        # Lark measures \p{…} with the `regex` package only; any one character measures the same.
        narrowest, widest = get_regexp_width(re.sub(r"\\[pP]\{[^}]*\}", "A", pattern.to_regexp()))
        return int(narrowest), int(widest)

    class TerminalToPattern(TerminalTreeToPattern):
        def expansions(self, exps: list[Any]) -> Any:
            if len(exps) > 1:
                order = {id(pattern): widths(pattern) for pattern in exps}
                # Longest option first, as Lark sorts: the expression is matched leftmost-first.
                exps.sort(key=lambda p: (-order[id(p)][1], -order[id(p)][0], -len(p.value)))
                from lark.lexer import PatternRE

                return PatternRE(f"(?:{'|'.join(pattern.to_regexp() for pattern in exps)})")
            return exps[0]

    return TerminalToPattern()


def _to_terminal(pattern: Any, name: str, priority: int) -> Terminal:
    from lark.lexer import PatternStr

    flags = re.RegexFlag(0)
    for letter in pattern.flags:
        if letter not in _FLAGS:
            raise GrammarError(f"flag {letter!r} of terminal {name} depends on the machine's locale")
        flags |= _FLAGS[letter]
    is_string = isinstance(pattern, PatternStr)
    rank = 2 * priority + is_string  # strings before patterns of the same priority
    if is_string and not flags:
        return Terminal("literal", pattern.value.encode("utf-8"), name=name, priority=rank)
    text = escape_text(pattern.value) if is_string else pattern.value
    return Terminal("regex", text, flags=int(flags), name=name, priority=rank)


_NOT_NAMES = r'//[^\n]*|#[^\n]*|"(?:\\.|[^"\\\n])*"|/(?!/)(?:\\.|[^/\\\n])*/'


def _check_terminal_sizes(text: str) -> None:
    """Refuse terminals that refer to each other so often that writing them out would explode.

    Raises: LimitError (limit "terminal_size").
    """
    bodies: dict[str, list[str]] = {}
    body: list[str] = []
    for match in re.finditer(
        rf"{_NOT_NAMES}|^(?P<defined>_?[A-Z][_A-Z0-9]*)(?:\.\d+)?[ \t]*:|(?P<used>\w+)", text, re.M
    ):
        if match["defined"] is not None:
            body = bodies.setdefault(match["defined"], [])
        elif match["used"] is not None:
            body.append(match["used"])
    sizes: dict[str, int] = {}
    for root in bodies:
        pending = [root]
        while pending:
            name = pending[-1]
            # A cycle is Lark's to report: a name that is being measured counts as one.
            missing = [used for used in bodies[name] if used in bodies and used not in sizes and name not in sizes]
            sizes.setdefault(name, 1)
            pending.extend(missing)
            if missing:
                continue
            pending.pop()
            sizes[name] = 1 + sum(sizes.get(used, 1) for used in bodies[name])
            if sizes[name] > MAX_TERMINAL_NODES:
                raise LimitError(f"terminal {name} becomes too large when written out", limit="terminal_size")


def _find_name(text: str, name: str) -> int | None:
    """Where `name` first stands as a whole word outside of comments, strings and regular expressions."""
    for match in re.finditer(rf"{_NOT_NAMES}|(?P<name>(?<![\w.]){re.escape(name)}(?!\w))", text):
        if match["name"] is not None:
            return match.start()
    return None


@contextmanager
def _positioned(token: Any) -> Iterator[None]:
    """Lark's complaint about one literal, with the literal's place."""
    from lark.exceptions import LarkError

    try:
        yield
    except (LarkError, UnicodeError, GrammarError) as error:
        line, column = getattr(token, "line", None), getattr(token, "column", None)
        raise GrammarError(_first_line(error), line=line, column=column) from error


@contextmanager
def _positioned_at(own: Extended, offset: int) -> Iterator[None]:
    """As `_positioned`, for a place of the text as written."""
    from lark.exceptions import LarkError

    try:
        yield
    except (LarkError, UnicodeError, GrammarError) as error:
        raise own.error(_first_line(error), offset) from error


@contextmanager
def _written_places(own: Extended) -> Iterator[None]:
    """Complaints about the text without extensions, with their places in the text as written."""
    try:
        yield
    except GrammarError as error:
        if own.first is None or error.line is None or error.column is None or error in own.placed:
            raise
        raise GrammarError.at(error.message, own.original, own.offset(error.line, error.column)) from error


@contextmanager
def _lark_errors(text: str) -> Iterator[None]:
    """Whatever Lark's loader raises, as ours."""
    from lark.exceptions import LarkError, UnexpectedInput

    try:
        yield
    except GuiderailError:
        raise
    except UnexpectedInput as error:
        raise GrammarError(_first_line(error), line=error.line, column=error.column) from error
    except (LarkError, AssertionError, ValueError, KeyError, re.error, ImportError) as error:
        raise _with_place(_first_line(error), text) from error
    except FileNotFoundError as error:
        missing = str(error.filename).removesuffix(".lark")
        raise _with_place(f"cannot import '{missing}': there is no such grammar", text) from error
    except RecursionError as error:
        raise LimitError("the grammar is nested too deeply", limit="grammar_nesting") from error


def _first_line(error: BaseException) -> str:
    if isinstance(error, GrammarError):
        return error.message
    # A visitor's error only says that there was one; the first is what went wrong.
    lines = str(getattr(error, "orig_exc", error)).strip().splitlines()
    return lines[0].rstrip(": ") if lines else type(error).__name__


def _with_place(message: str, text: str) -> GrammarError:
    """`message` with the place it states, or else the place of the first name it quotes."""
    stated = re.search(r",? at line (\d+),? column (\d+)(?: in <string>)?", message)
    if stated is not None:
        plain = message[: stated.start()] + message[stated.end() :]
        return GrammarError(plain.strip(), line=int(stated[1]), column=int(stated[2]))
    for name in re.findall(r"(?:['`]|\b[Rr]ule |\b[Tt]erminal |\b[Tt]emplate |: )([A-Za-z_]\w*)", message):
        offset = _find_name(text, name)
        if offset is not None:
            return GrammarError.at(message, text, offset)
    return GrammarError(message)
