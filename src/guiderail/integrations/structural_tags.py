"""Structural tags as serving engines take them: a JSON description of where text is free and where a grammar holds.

Two shapes exist. The older has `structures` (begin, schema, end) and `triggers`; it is read as the newer one, whose
`format` is a tree of formats. Tool parsers write such trees for `tool_choice` auto, required and named:

    const_string, json_schema, regex, grammar, any_text, token          leaves
    sequence, or, optional, star, plus, repeat                          as their names say
    tag                                                                 begin, content, end
    triggered_tags, dispatch                                            free text, and what must follow each trigger
    token_triggered_tags                                                likewise, with special tokens for triggers
    tags_with_separator                                                 tags and nothing else

Free text inside a tag ends at the first occurrence of the tag's end. Pieces such as `<tool_call>` match as the special
token of that name where the vocabulary has it, and spelled out. A format or an option that is not enforced here is
refused with its place; nothing is let through.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from guiderail.errors import GrammarError
from guiderail.grammars.grammar import Grammar
from guiderail.grammars.tags import Composite

__all__ = ["read_structural_tag"]

_MARKER = re.compile(r"<[^<>\s]+>|\[[A-Z_]+\]")
_PATTERN_KEYS = ("json_schema", "schema", "pattern", "grammar")  # their strings are no pieces of the text
_DEPTH = 64
_REPEATS = 256
# Options that may be absent or say this; with another value the format means something else.
_NEUTRAL: dict[str, dict[str, Any]] = {
    "json_schema": {"style": "json", "any_order": False, "max_whitespace_cnt": None, "excludes": []},
    "any_text": {"max_tokens": None, "max_chars": None},
    "token_triggered_tags": {"exclude_tokens": []},
}
_FREE = ("any_text", "triggered_tags", "token_triggered_tags", "dispatch")

Symbols = list[int]


def read_structural_tag(text: str) -> Grammar:
    """The grammar of a structural tag.

    Args:
        text: JSON, an object with "format", or with "structures" and "triggers".
    Raises: GrammarError with the place of what is malformed or not supported; SchemaError of a schema inside.
    """
    try:
        tag = json.loads(text)
    except ValueError as error:
        raise GrammarError(f"the structural tag is not JSON: {error}") from None
    if not isinstance(tag, Mapping) or ("format" in tag) == ("structures" in tag):
        raise GrammarError('a structural tag has "format", or "structures" and "triggers"')
    if "structures" in tag:
        structures = _field(tag, "structures", list, "")
        tag = {"format": {"type": "triggered_tags", "triggers": tag.get("triggers"), "tags": structures}}
    reader = _Reader(sorted(set(_markers(tag, 0))))
    composite = Composite((), reader.markers)
    start = composite.rule("structural tag")
    composite.define(start, [reader.symbols(composite, tag["format"], "/format", ())])
    return composite.build(start)


class _Reader:
    """Turns formats into symbols of a composite. Every kind of free text, with its triggers, is a composite itself.

    Args:
        markers: pieces that may be special tokens.
    """

    def __init__(self, markers: Sequence[str]) -> None:
        self.markers = markers

    def symbols(self, composite: Composite, form: Any, place: str, ends: Sequence[str]) -> Symbols:
        """What derives the texts of `form`, followed by one of `ends` if there are any."""
        if not isinstance(form, Mapping) or not isinstance(form.get("type"), str):
            raise GrammarError(f'{place}: a format is an object with a "type"')
        if place.count("/") > _DEPTH:
            raise GrammarError(f"{place}: formats are nested deeper than {_DEPTH}")
        kind = form["type"]
        for option, neutral in _NEUTRAL.get(kind, {}).items():
            if form.get(option, neutral) != neutral:
                raise GrammarError(f"{place}/{option}: {form[option]!r} is not supported")
        if kind in _FREE:
            free = self._free(form, place, ends)
            return [composite.grammar(free, place)]
        if kind == "sequence":
            elements = _field(form, "elements", list, place)
            inner: Symbols = []
            for number, element in enumerate(elements):
                last = number == len(elements) - 1
                inner += self.symbols(composite, element, f"{place}/elements/{number}", ends if last else ())
            return inner if elements else self._one_of(composite, ends)
        if kind == "or":
            elements = _field(form, "elements", list, place)
            if not elements:
                raise GrammarError(f"{place}: no elements")
            alternatives = [
                self.symbols(composite, element, f"{place}/elements/{number}", ends)
                for number, element in enumerate(elements)
            ]
            return [composite.choice("or", alternatives)]
        return [*self._closed(composite, form, kind, place), *self._one_of(composite, ends)]

    def _closed(self, composite: Composite, form: Mapping[str, Any], kind: str, place: str) -> Symbols:
        """Formats for which it makes no difference what ends them."""
        if kind == "const_string":
            return composite.literal(_field(form, "value", str, place))
        if kind == "json_schema":
            schema = form.get("json_schema")
            if not isinstance(schema, bool | Mapping):
                raise GrammarError(f"{place}/json_schema: a schema is needed")
            return [composite.grammar(Grammar.from_json_schema(schema), f"{place}/json_schema")]
        if kind == "regex":
            return [composite.grammar(Grammar.from_regex(_field(form, "pattern", str, place)), place)]
        if kind == "grammar":
            return [composite.grammar(Grammar.from_gbnf(_field(form, "grammar", str, place)), place)]
        if kind == "token":
            return [composite.special(_field(form, "token", str, place))]
        if kind == "tag":
            begin = form.get("begin")
            opening = (
                self._closed(composite, begin, "token", f"{place}/begin")
                if isinstance(begin, Mapping)
                else composite.literal(_field(form, "begin", str, place))
            )
            return [*opening, *self._inside(composite, form, place)]
        if kind == "tags_with_separator":
            return self._separated(composite, form, place)
        if kind in ("optional", "star", "plus", "repeat"):
            least, most = {"optional": (0, 1), "star": (0, -1), "plus": (1, -1)}.get(kind) or (
                _field(form, "min", int, place),
                _field(form, "max", int, place),
            )
            return self._repeated(composite, form, place, least, most)
        raise GrammarError(
            f"{place}: a format of type {kind!r} is not supported (for the tool calls of vLLM, "
            "VLLM_ENFORCE_STRICT_TOOL_CALLING=0 in the server's environment does without structural tags)"
        )

    def _inside(self, composite: Composite, tag: Mapping[str, Any], place: str) -> Symbols:
        """Content and end of a tag. The older shape has a schema for its content."""
        content = tag.get("content")
        if content is None and "schema" in tag:
            schema = tag["schema"]
            content = {"type": "json_schema", "json_schema": json.loads(schema) if isinstance(schema, str) else schema}
        end = tag.get("end", "")
        if isinstance(end, Mapping):
            closing = self._closed(composite, end, "token", f"{place}/end")
            return [*self.symbols(composite, content, f"{place}/content", ()), *closing]
        ends = [end] if isinstance(end, str) else end
        if not isinstance(ends, list) or not ends or not all(isinstance(text, str) for text in ends):
            raise GrammarError(f"{place}/end: a string, strings or a token")
        if all(ends):
            return self.symbols(composite, content, f"{place}/content", list(dict.fromkeys(ends)))
        return [*self.symbols(composite, content, f"{place}/content", ()), *self._one_of(composite, ends)]

    def _one_of(self, composite: Composite, texts: Sequence[str]) -> Symbols:
        if not texts:
            return []
        if len(texts) == 1:
            return composite.literal(texts[0])
        return [composite.choice("end", [composite.literal(text) for text in texts])]

    def _separated(self, composite: Composite, form: Mapping[str, Any], place: str) -> Symbols:
        tags = _field(form, "tags", list, place)
        if not tags:
            raise GrammarError(f"{place}: no tags")
        separator = composite.literal(_field(form, "separator", str, place))
        one = composite.choice(
            "tag", [self._tag(composite, tag, f"{place}/tags/{number}") for number, tag in enumerate(tags)]
        )
        some = one
        if not form.get("stop_after_first"):
            some = composite.rule("tags")
            composite.define(some, [[one], [one, *separator, some]])
        return [some] if form.get("at_least_one") else [composite.choice("tags", [[], [some]])]

    def _tag(self, composite: Composite, tag: Any, place: str) -> Symbols:
        if not isinstance(tag, Mapping):
            raise GrammarError(f"{place}: a tag is an object")
        return self._closed(composite, tag, "tag", place)

    def _repeated(self, composite: Composite, form: Mapping[str, Any], place: str, least: int, most: int) -> Symbols:
        if least < 0 or (most != -1 and most < least) or max(least, most) > _REPEATS:
            raise GrammarError(f"{place}: from {least} to {most} times; at most {_REPEATS} are supported")
        content = self.symbols(composite, form.get("content"), f"{place}/content", ())
        tail = composite.rule("repeat")
        composite.define(tail, [[], [*content, tail]] if most == -1 else [[]])
        for _ in range(max(most - least, 0)):
            more = composite.rule("repeat")
            composite.define(more, [[], [*content, tail]])
            tail = more
        return [*(content * least), tail]

    def _free(self, form: Mapping[str, Any], place: str, ends: Sequence[str]) -> Grammar:
        """Free text with tags in it, up to one of `ends` (none: as long as it likes)."""
        kind = form["type"]
        if kind == "token_triggered_tags":
            return self._token_triggered(form, place, ends)
        branches = _branches(form, kind, place)
        excludes = _strings(form, "excludes", place) if form.get("excludes") else []
        words = list(dict.fromkeys([*(trigger for trigger, _, _, _ in branches), *ends, *excludes]))
        composite = Composite(words, self.markers)
        segments = []
        for trigger, rest, tag, where in branches:
            inside = [*composite.literal(rest), *self._inside(composite, tag, where)]
            segments.append((_reach(composite, trigger, self.markers), trigger, inside))
        last = [_reach(composite, end, self.markers) for end in ends] if ends else [[composite.text()]]
        return self._build(composite, form, kind, segments, last, ends)

    def _token_triggered(self, form: Mapping[str, Any], place: str, ends: Sequence[str]) -> Grammar:
        triggers = _strings(form, "trigger_tokens", place)
        composite = Composite(list(ends), self.markers)
        segments: list[tuple[Symbols, str, Symbols]] = []
        for number, tag in enumerate(_field(form, "tags", list, place)):
            where = f"{place}/tags/{number}"
            begin = tag.get("begin") if isinstance(tag, Mapping) else None
            name = begin.get("token") if isinstance(begin, Mapping) else None
            if name not in triggers:
                raise GrammarError(f"{where}/begin: one of the trigger tokens, by name")
            token = composite.special(str(name))
            segments.append(([composite.text(), token], str(name), self._inside(composite, tag, where)))
        last = [_reach(composite, end, self.markers) for end in ends] if ends else [[composite.text()]]
        return self._build(composite, form, "token_triggered_tags", segments, last, ends)

    def _build(
        self,
        composite: Composite,
        form: Mapping[str, Any],
        kind: str,
        segments: list[tuple[Symbols, str, Symbols]],
        last: list[Symbols],
        ends: Sequence[str],
    ) -> Grammar:
        once = not form.get("loop", True) if kind == "dispatch" else bool(form.get("stop_after_first"))
        tail = composite.rule("free")
        after = self._one_of(composite, ends) if once else [tail]
        followed = [[*reach, *inside, *after] for reach, _, inside in segments]
        composite.define(tail, [*last, *followed])
        start = tail
        if form.get("at_least_one"):  # the first tag comes at once, without text before it
            token = kind == "token_triggered_tags"
            start = composite.rule("tags")
            composite.define(
                start,
                [
                    [*([composite.special(trigger)] if token else composite.literal(trigger)), *inside, *after]
                    for _, trigger, inside in segments
                ],
            )
        return composite.build(start)


def _branches(form: Mapping[str, Any], kind: str, place: str) -> list[tuple[str, str, Mapping[str, Any], str]]:
    """Trigger, rest of the begin, what follows, and its place."""
    if kind == "any_text":
        return []
    found: list[tuple[str, str, Mapping[str, Any], str]] = []
    if kind == "dispatch":
        for number, rule in enumerate(_field(form, "rules", list, place)):
            where = f"{place}/rules/{number}"
            if not isinstance(rule, list) or len(rule) != 2 or not isinstance(rule[0], str) or not rule[0]:
                raise GrammarError(f"{where}: a pattern and a format")
            found.append((rule[0], "", {"content": rule[1]}, where))
        return found
    triggers = _strings(form, "triggers", place)
    for number, tag in enumerate(_field(form, "tags", list, place)):
        where = f"{place}/tags/{number}"
        begin = tag.get("begin") if isinstance(tag, Mapping) else None
        matching = [t for t in triggers if t and isinstance(begin, str) and begin.startswith(t)]
        if len(matching) != 1:
            raise GrammarError(f"{where}/begin: exactly one of the triggers {triggers} must begin {begin!r}")
        found.append((matching[0], str(begin)[len(matching[0]) :], tag, where))
    return found


def _reach(composite: Composite, trigger: str, markers: Sequence[str]) -> Symbols:
    """Free text and the trigger that ends it, spelled out or with a special token in it."""
    inside = [marker for marker in markers if marker in trigger]
    if trigger in markers or not inside:
        return [composite.triggered(trigger)]
    before, marker, after = trigger.partition(max(inside, key=len))
    token = [*composite.literal(before), composite.special(marker), *composite.literal(after)]
    return [composite.choice(f"text {trigger}", [[composite.triggered(trigger)], [composite.text(), *token]])]


def _markers(value: Any, depth: int) -> Iterator[str]:
    """Pieces of the texts of a format that may be special tokens."""
    if depth > 2 * _DEPTH:
        return
    if isinstance(value, str):
        yield from _MARKER.findall(value)
    elif isinstance(value, list):
        for item in value:
            yield from _markers(item, depth + 1)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if key not in _PATTERN_KEYS:
                yield from _markers(item, depth + 1)


def _field(form: Mapping[str, Any], name: str, kind: type, place: str) -> Any:
    value = form.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise GrammarError(f"{place}/{name}: {kind.__name__} expected, got {type(value).__name__}")
    return value


def _strings(form: Mapping[str, Any], name: str, place: str) -> list[str]:
    values = _field(form, name, list, place)
    if not all(isinstance(value, str) and value for value in values):
        raise GrammarError(f"{place}/{name}: strings expected, which are not empty")
    return list(values)
