"""`Grammar`: what may be said, independent of any vocabulary."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from guiderail.errors import GrammarError
from guiderail.grammars.regular import escape_text
from guiderail.grammars.rules import StaticGrammar, Terminal

if TYPE_CHECKING:
    from guiderail import _core

_Rows: TypeAlias = "Sequence[tuple[str, str, str]]"


class ReportRow(NamedTuple):
    """What becomes of one part of a grammar or schema.

    Args:
        place: the rule, or the JSON pointer into the schema.
        status: "enforced", "approximated", "annotation" (no effect on the language), "refused" or "unsatisfiable".
        reason: why, where it is not plainly enforced.
    """

    place: str
    status: str
    reason: str


class Grammar:
    """A language of texts, read from one of several notations. Immutable; make one with a `from_…` constructor.

    A grammar knows no vocabulary: `guiderail.compile(grammar, vocabulary)` brings the two together.

        >>> grammar = Grammar.from_regex(r"[a-z]+@[a-z]+\\.org")     # doctest: +SKIP
        >>> grammar.accepts("me@example.org"), grammar.accepts_prefix("me@"), grammar.accepts("me@")  # doctest: +SKIP
        (True, True, False)
    """

    __slots__ = ("_fingerprint", "_make_recipe", "_parse", "_report", "_source")

    _source: _core.GrammarSource
    # What few ask for is worked out when it is asked for: making a grammar is on the way to the first token.
    _report: _Rows | Callable[[], _Rows]
    # How to make this grammar again: JSON values, so that a file can hold them. The fingerprint is their digest.
    _make_recipe: Callable[[], dict[str, Any]]
    _fingerprint: str | None
    # What a text of the language means, where the constructor knows: from_type, from_tags, from_tools, from_openai.
    _parse: Callable[[str], Any] | None

    def __init__(self) -> None:
        raise TypeError("use one of Grammar's constructors: from_regex, from_json_schema, from_lark, …")

    @classmethod
    def _make(
        cls,
        source: _core.GrammarSource,
        report: _Rows | Callable[[], _Rows],
        recipe: Callable[[], dict[str, Any]],
        parse: Callable[[str], Any] | None = None,
    ) -> Grammar:
        grammar = object.__new__(cls)
        grammar._parse = parse
        grammar._source = source
        grammar._report = report
        grammar._make_recipe = recipe
        grammar._fingerprint = None
        return grammar

    @classmethod
    def _from_static(cls, static: StaticGrammar, report: Iterable[tuple[str, str, str]]) -> Grammar:
        rows = tuple(report)
        recipe = {"kind": "static", "report": rows}
        return cls._make(static.source(), rows, lambda: {**recipe, "rules": static.to_json()})

    @classmethod
    def _from_recipe(cls, recipe: Mapping[str, Any]) -> Grammar:
        """The grammar that `recipe` was taken from. Raises: ValueError, KeyError or TypeError for anything else."""
        if recipe["kind"] == "static":
            return cls._from_static(StaticGrammar.from_json(recipe["rules"]), recipe["report"])
        if recipe["kind"] == "json schema":
            return cls.from_json_schema(recipe["schema"], **recipe["options"])
        if recipe["kind"] == "builtin":
            return cls.builtin(recipe["name"])
        if recipe["kind"] == "composite":
            from guiderail.grammars.tags import composite_from_recipe

            return composite_from_recipe(recipe)
        raise ValueError(f"a grammar of unknown kind {recipe['kind']!r}")

    # --- constructors ---------------------------------------------------------------------------------------------

    @classmethod
    def from_regex(cls, pattern: str, flags: int = 0) -> Grammar:
        """The texts that a regular expression matches from end to end, as `re.fullmatch` would.

        Args:
            pattern: Python's dialect, and `\\p{…}`.
            flags: bits of Python's `re`: IGNORECASE, MULTILINE, DOTALL, VERBOSE, ASCII.
        Raises: GrammarError, with the offset, for what is malformed or not regular (backreferences).
        """
        if not isinstance(pattern, str):
            raise TypeError(f"a pattern is a str, got {type(pattern).__name__}")
        terminal = Terminal("regex", pattern, flags=int(flags), name="regex")
        static = StaticGrammar((terminal,), {"start": ((0,),)}, "start")
        return cls._from_static(static, [("regex", "enforced", "")])

    @classmethod
    def from_choices(cls, choices: Iterable[str]) -> Grammar:
        """Exactly these texts.

        Raises: GrammarError if there are none, or one holds a lone surrogate (it has no UTF-8 encoding).
        """
        if isinstance(choices, (str, bytes)):
            raise TypeError("choices is an iterable of strings, not one string")
        unique = dict.fromkeys(choices)
        for number, choice in enumerate(unique):
            if not isinstance(choice, str):
                raise TypeError(f"a choice is a str, got {type(choice).__name__}")
            if any("\ud800" <= character <= "\udfff" for character in choice):
                raise GrammarError(f"choice {number} holds a lone surrogate, which has no UTF-8 encoding: {choice!r}")
        if not unique:
            raise GrammarError("no choices: the language is empty")
        terminal = Terminal("regex", "|".join(map(escape_text, unique)), name="choice")
        static = StaticGrammar((terminal,), {"start": ((0,),)}, "start")
        return cls._from_static(static, [("choices", "enforced", "")])

    @classmethod
    def from_gbnf(cls, text: str, root: str = "root") -> Grammar:
        """A GBNF grammar, as llama.cpp and XGrammar write them; see `guiderail.grammars.gbnf`.

        Raises: GrammarError with offset, line and column; LimitError.
        """
        from guiderail.grammars.gbnf import parse_gbnf

        return cls._from_static(*parse_gbnf(text, root))

    @classmethod
    def from_lark(
        cls,
        text_or_path: str | os.PathLike[str],
        start: str = "start",
        lexer: str = "munch",
        postlex: Any = None,
    ) -> Grammar:
        """A Lark grammar; see `guiderail.grammars.lark`.

        Args:
            text_or_path: a path object or a string that ends in `.lark` names a file; any other string is the grammar.
            start: the rule whose language it is.
            lexer: how text is cut into lexemes. "munch": longest match among all terminals. "free": in any way that the
                rules admit (for llguidance's grammars). "lark-basic", "lark-contextual", "lark-dynamic": as Lark's
                lexers of these names do.
            postlex: a `lark.indenter.Indenter`, for blocks by indentation; None: Python's where _INDENT and _DEDENT are
                declared.
        Raises: GrammarError with line and column; LimitError; OSError if the file cannot be read.
        """
        from guiderail.grammars.lark import parse_lark, placed

        static, report = parse_lark(text_or_path, start, lexer, postlex)
        try:
            return cls._from_static(static, report)
        except GrammarError as error:
            raise placed(error, static, text_or_path) from None

    @classmethod
    def from_json_schema(
        cls,
        schema: Mapping[str, Any] | bool | str,
        *,
        whitespace: str = "flexible",
        escapes: str = "any",
        property_order: str = "declared",
        strict: bool = False,
        on_unsupported: str = "error",
        registry: Mapping[str, Mapping[str, Any] | bool | str] | None = None,
        formats: bool = True,
        dialect: str | None = None,
    ) -> Grammar:
        """The JSON texts whose value satisfies a JSON Schema; see `guiderail.grammars.json_schema`.

        Args:
            schema: a dict, a bool, or the schema's JSON text.
            whitespace: "flexible": JSON white space, at most 40 characters in one place. "compact": none. "indent=N":
                as `json.dumps(indent=N)` writes. Anything else: a regular expression of what stands between tokens.
            escapes: "any": characters of strings raw or escaped, as the writer likes. "needed": escaped where JSON asks
                for it, and in one way, as `json.dumps(ensure_ascii=False)` writes. "ascii": as `json.dumps` writes.
            property_order: "declared": declared properties in the order of the schema, then others. "free": any order.
            strict: an object with declared properties has no others, unless a schema speaks about them.
            on_unsupported: "error": refuse by raising. "warn": leave the keyword out and report it as 'refused'.
            registry: URI → schema, for `$ref` and `$schema` beyond the schema itself; the meta-schemas are built in.
            formats: whether `format` is enforced (unknown formats never are; the report lists them).
            dialect: URI of a dialect. None: what `$schema` says, else 2020-12.
        Raises: SchemaError with the JSON pointer; UnsatisfiableError where no value satisfies the schema.
        """
        from guiderail.grammars.json_schema import json_schema_source, schema_text

        # As text from here on: what the caller does to a dict later must not show.
        text = schema_text(schema)
        options: dict[str, Any] = {
            "whitespace": whitespace,
            "escapes": escapes,
            "property_order": property_order,
            "strict": strict,
            "on_unsupported": on_unsupported,
            "registry": {uri: schema_text(document) for uri, document in (registry or {}).items()},
            "formats": formats,
            "dialect": dialect,
        }
        source, report = json_schema_source(text, **options)
        return cls._make(source, report, lambda: {"kind": "json schema", "schema": text, "options": options})

    @classmethod
    def from_type(cls, kind: Any, **options: Any) -> Grammar:
        """The JSON texts of a Python type; `parse` gives the typed object. See `guiderail.grammars.types`.

        Args:
            kind: a pydantic model, dataclass, TypedDict, NamedTuple, Literal, Enum, Union, container, scalar, Annotated
                type, or a function (the object of its parameters).
            options: those of `from_json_schema`.
        Raises: GrammarError, with the place in the type, for what has no schema; what `from_json_schema` raises.
        """
        from guiderail.grammars.types import type_schema

        read = type_schema(kind)
        base = cls.from_json_schema(read.schema, **options)
        return cls._make(
            base._source,
            lambda: [*base.report, *read.report],
            base._make_recipe,
            lambda text: read.decode(json.loads(text)),
        )

    @classmethod
    def from_tags(
        cls,
        tags: Any,
        *,
        triggers: Sequence[str] | None = None,
        at_least: int = 0,
        at_most: int | None = None,
        free_text: bool = True,
        markers: Iterable[str] = (),
        think: tuple[str, str] | None = None,
    ) -> Grammar:
        """Free text, and where a trigger comes, a grammar; see `guiderail.grammars.tags`.

        Args:
            tags: `Tag` objects, mappings with "begin", "schema" or "grammar", and "end", or a structural tag as vLLM
                takes it ({"structures": [...], "triggers": [...]}).
            triggers: beginnings of the tags' begins; None: the begins themselves.
            at_least: tags that must come, at least.
            at_most: at most; None: any number. After the last one free text goes on, still without triggers.
            free_text: False: tags one after the other and nothing else.
            markers: pieces of begins and ends that may be special tokens.
            think: a pair of markers; the text up to the second one is free.
        Raises: GrammarError for tags that cannot be told apart; what the parts' constructors raise.
        """
        from guiderail.grammars.tags import tags_grammar

        return tags_grammar(
            tags,
            triggers=triggers,
            at_least=at_least,
            at_most=at_most,
            free_text=free_text,
            markers=markers,
            think=think,
        )

    @classmethod
    def from_tools(
        cls,
        tools: Iterable[Any],
        style: str = "hermes",
        choice: str = "auto",
        *,
        parallel: bool = True,
        think: tuple[str, str] | None = None,
        strict: bool = False,
    ) -> Grammar:
        """Calls of tools as a family of models writes them; see `guiderail.grammars.tools`.

        Args:
            tools: OpenAI tool objects, or annotated functions.
            style: "hermes", "llama3", "mistral", "harmony", "deepseek", "kimi-k2", "qwen3-coder", "glm-4.6",
                "minimax-m2" or "deepseek-v3.2".
            choice: "auto", "required" (at least one call), "none", or the name of the one tool to call.
            parallel: False: at most one call.
            think: a pair of markers; the text up to the second one is free, and line breaks may stand behind it.
            strict: arguments that the tools do not declare are forbidden.
        Raises: GrammarError or SchemaError, naming the tool.
        """
        from guiderail.grammars.tools import tools_grammar

        return tools_grammar(tools, style, choice, parallel=parallel, think=think, strict=strict)

    @classmethod
    def from_openai(cls, request: Mapping[str, Any], style: str = "hermes") -> Grammar:
        """The grammar of an OpenAI chat request: its `response_format`, or its `tools` and `tool_choice`.

        Raises: GrammarError or SchemaError for what is malformed or not known.
        """
        from guiderail.grammars.openai import request_grammar

        return request_grammar(request, style)

    @classmethod
    def builtin(cls, name: str) -> Grammar:
        """A grammar that comes with the library; see the files in `guiderail/grammars/library`.

        Args:
            name: "json" (RFC 8259, any value, any white space), or a file there: "go", "java", …
        Raises: GrammarError for a name that is not one of them.
        """
        from guiderail import _core
        from guiderail.grammars import library

        if name == "json":
            recipe = {"kind": "builtin", "name": name}
            return cls._make(_core.json_source(), [(name, "enforced", "")], lambda: recipe)
        if name not in library.names():
            names = ", ".join(sorted(["json", *library.names()]))
            raise GrammarError(f"there is no built-in grammar {name!r}; there are: {names}")
        return cls.from_lark(library.text(name), postlex=library.indenter(name))

    # --- questions that need no vocabulary ------------------------------------------------------------------------

    @property
    def report(self) -> tuple[ReportRow, ...]:
        """One row per rule or keyword: what is enforced and what is not."""
        rows = self._report() if callable(self._report) else self._report
        return tuple(ReportRow(*row) for row in rows)

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digest of the content: equal for grammars built from the same rules, in any process."""
        if self._fingerprint is None:
            encoded = json.dumps(self._make_recipe(), ensure_ascii=True).encode("ascii")
            self._fingerprint = hashlib.sha256(encoded).hexdigest()
        return self._fingerprint

    def accepts(self, text: bytes | str) -> bool:
        """Whether `text`, from end to end, is in the language. Special tokens are no text and never match."""
        return self._source.accepts(_as_bytes(text))

    def accepts_prefix(self, text: bytes | str) -> bool:
        """Whether some continuation of `text` (the empty one included) is in the language."""
        return self._source.accepts_prefix(_as_bytes(text))

    def parse(self, text: bytes | str) -> Any:
        """What `text` means: the typed object of `from_type`, the calls of `from_tools`, the parts of `from_tags`.

        Raises: ValueError, with the place, if `text` is not of the language; TypeError if this grammar has no meaning
            for its texts; what validators written in Python raise.
        """
        if self._parse is None:
            raise TypeError("parse is for grammars made by from_type, from_tags, from_tools or from_openai")
        data = _as_bytes(text)
        fitting, accepted = self._source.match(data)
        if not accepted:
            what = "is not complete" if fitting == len(data) else f"does not fit at byte {fitting}"
            raise ValueError(f"the text {what}")
        return self._parse(data.decode("utf-8"))

    def longest_prefix(self, text: bytes | str) -> int:
        """How many bytes of `text` some text of the language begins with."""
        return self._source.match(_as_bytes(text))[0]

    def __repr__(self) -> str:
        return f"<guiderail.Grammar {self.fingerprint[:12]}>"


def _as_bytes(text: bytes | str) -> bytes:
    # A lone surrogate becomes bytes that are not UTF-8, which no grammar of characters accepts: an answer, not an
    # error.
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else bytes(text)
