"""Free text, a trigger, a grammar, an end, free text again: composites of other grammars.

    grammar = Grammar.from_tags([Tag("<sum>", Grammar.from_regex("[0-9+]+"), "</sum>")])
    grammar.accepts("It is <sum>1+2</sum>, I think")     # True
    grammar.accepts_prefix("It is <sum>one")             # False: after the trigger the grammar holds

Free text is any text that contains no trigger; an unfinished trigger at its end is text. A tag's `begin` is its trigger
unless `triggers` names shorter ones; where one begin is the beginning of another, the shorter one is the trigger of
both. No trigger may contain another one elsewhere.

A *marker* is a piece of `begin` or `end` that some vocabularies have as a special token (`<|python_tag|>`). It matches
as that token where the vocabulary has it, and spelled out in text anywhere, so one grammar serves tokens and decoded
text alike.

The rules are the core's (src/core/parser/composite_source.h). A part is any grammar: JSON Schema, a regex, a Lark
grammar, `Grammar.builtin("python")` in a fenced block, another composite. A part under longest match is lexed by
itself: what stands between `begin` and `end` is a complete text of its grammar, whatever follows it. Refused: Lark
grammars under lexer="lark-basic" and "lark-contextual", two different parts with blocks by indentation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from guiderail.errors import GrammarError

if TYPE_CHECKING:
    from guiderail.grammars.grammar import Grammar

__all__ = ["Composite", "Tag", "Tagged", "composite_from_recipe", "tags_grammar"]

Alternatives = list[list[int]]


@dataclass(frozen=True, slots=True)
class Tag:
    """What stands between `begin` and `end`: a text of `content`."""

    begin: str
    content: Grammar
    end: str


class Tagged(NamedTuple):
    """One tag of a parsed text: the tag's `begin`, the text inside, and what it means (the text, if nothing else)."""

    begin: str
    text: str
    value: Any


class Composite:
    """Parts and rules of a grammar put together from others. Symbols are integers; rules are negative until built."""

    def __init__(self, triggers: Sequence[str] = (), markers: Iterable[str] = ()) -> None:
        self.triggers = tuple(triggers)
        self._parts: list[tuple[str, Any]] = []
        self._ids: dict[Any, int] = {}
        self._rules: list[tuple[str, Alternatives]] = []
        self._report: list[tuple[str, str, str]] = []
        self._markers = sorted(set(markers), key=len, reverse=True)

    def _part(self, kind: str, what: Any, key: Any = None) -> int:
        key = (kind, what if key is None else key)
        if key not in self._ids:
            self._ids[key] = len(self._parts)
            self._parts.append((kind, what))
        return self._ids[key]

    def literal(self, text: str) -> list[int]:
        """`text`, its markers as tokens or spelled out."""
        symbols: list[int] = []
        pattern = "|".join(map(re.escape, self._markers))
        for piece in re.split(f"({pattern})", text) if pattern else [text]:
            if piece in self._markers:
                symbols.append(self.choice(piece, [[self._part("literal", piece)], [self.special(piece)]]))
            elif piece:
                symbols.append(self._part("literal", piece))
        return symbols

    def special(self, name: str) -> int:
        """One special token."""
        return self._part("special", name)

    def grammar(self, grammar: Grammar, name: str) -> int:
        """A text of another grammar."""
        if ("source", id(grammar)) not in self._ids:
            self._report += [(f"{name}{row.place}", row.status, row.reason) for row in grammar.report]
        return self._part("source", grammar, id(grammar))

    def text(self) -> int:
        """Free text, which may be empty."""
        return self.choice("text", [[], [self._part("text", 0)]])

    def triggered(self, trigger: str) -> int:
        """Free text (it may be empty) and the trigger that ends it."""
        spelled = self._part("triggered", self.triggers.index(trigger))
        if trigger not in self._markers:
            return spelled
        return self.choice(f"text {trigger}", [[spelled], [self.text(), self.special(trigger)]])

    def choice(self, name: str, alternatives: Alternatives) -> int:
        """A rule, once per content."""
        key = ("rule", str(alternatives))
        if key not in self._ids:
            self._ids[key] = self.rule(name)
            self.define(self._ids[key], alternatives)
        return self._ids[key]

    def rule(self, name: str) -> int:
        """A rule to be defined later, so that it may refer to itself."""
        self._rules.append((name, []))
        return -len(self._rules)

    def define(self, rule: int, alternatives: Alternatives) -> None:
        """Say what `rule` derives."""
        self._rules[-rule - 1][1].extend(alternatives)

    def build(self, start: int, parse: Callable[[str], Any] | None = None) -> Grammar:
        """The grammar of `start`, a rule."""
        count = len(self._parts)
        rules = [
            [[s if s >= 0 else count - s - 1 for s in alternative] for alternative in alternatives]
            for _, alternatives in self._rules
        ]
        names = [name for name, _ in self._rules]
        return _built(self._parts, rules, names, -start - 1, self.triggers, self._report, parse)


def _built(
    parts: list[tuple[str, Any]],
    rules: list[Alternatives],
    names: list[str],
    start: int,
    triggers: Sequence[str],
    report: Sequence[tuple[str, str, str]],
    parse: Callable[[str], Any] | None,
) -> Grammar:
    from guiderail import _core
    from guiderail.grammars.grammar import Grammar

    source = _core.composite_source(
        [(kind, what._source if kind == "source" else what) for kind, what in parts],
        rules,
        names,
        start,
        list(triggers),
    )

    def recipe() -> dict[str, Any]:
        return {
            "kind": "composite",
            "parts": [[kind, what._make_recipe() if kind == "source" else what] for kind, what in parts],
            "rules": rules,
            "names": names,
            "start": start,
            "triggers": list(triggers),
            "report": [list(row) for row in report],
        }

    return Grammar._make(source, tuple(report) or (("tags", "enforced", ""),), recipe, parse)


def composite_from_recipe(recipe: Mapping[str, Any]) -> Grammar:
    """The grammar that `recipe` was taken from; what its texts mean is not part of a recipe."""
    from guiderail.grammars.grammar import Grammar

    parts = [(k, Grammar._from_recipe(what) if k == "source" else what) for k, what in recipe["parts"]]
    report = [tuple(row) for row in recipe["report"]]
    return _built(
        parts,
        recipe["rules"],
        recipe["names"],
        recipe["start"],
        recipe["triggers"],
        report,
        None,
    )


def thinking(think: tuple[str, str], breaks: bool) -> Grammar:
    """Free text up to the second marker; the first one may stand before it (some templates put it into the prompt).

    Args:
        breaks: one or two line breaks may follow, as Qwen 3's template writes them. (Free text would take them anyway.)
    """
    begin, end = think
    composite = Composite([end], [begin, end])
    start = composite.rule("thinking")
    gap = [composite.choice("gap", [[], *(composite.literal(text) for text in _GAPS)])] if breaks else []
    thoughts = [composite.triggered(end), *gap]
    composite.define(start, [thoughts, [*composite.literal(begin), *thoughts]])
    return composite.build(start)


_GAPS = ("\n", "\n\n")


def tags_grammar(
    tags: Any,
    *,
    triggers: Sequence[str] | None,
    at_least: int,
    at_most: int | None,
    free_text: bool,
    markers: Iterable[str],
    think: tuple[str, str] | None,
) -> Grammar:
    """See the module, and `Grammar.from_tags`."""
    if isinstance(tags, Mapping):
        if "structures" not in tags:
            raise GrammarError('a structural tag has "structures" and "triggers"')
        triggers = triggers if triggers is not None else tags.get("triggers")
        tags = tags["structures"]
    read = [_tag(tag, number) for number, tag in enumerate(tags)]
    if not read:
        raise GrammarError("no tags")
    if at_least < 0 or (at_most is not None and at_most < max(at_least, 1)):
        raise GrammarError(f"at_least={at_least} and at_most={at_most} leave nothing")
    trigger_of = _triggers(read, triggers, [*markers])
    ordered = list(dict.fromkeys(trigger_of))
    composite = Composite(ordered, markers)
    segments: Alternatives = []
    for tag, trigger in zip(read, trigger_of, strict=True):
        inner = [composite.grammar(tag.content, tag.begin), *composite.literal(tag.end)]
        if free_text:
            segments.append([composite.triggered(trigger), *composite.literal(tag.begin[len(trigger) :]), *inner])
        else:
            segments.append([*composite.literal(tag.begin), *inner])
    segment = composite.choice("tag", segments)
    rest = [composite.text()] if free_text else []
    tail = composite.rule("tags")
    if at_most is None:
        composite.define(tail, [rest, [segment, tail]])
    else:
        composite.define(tail, [rest])
        for _ in range(at_most - at_least):
            more = composite.rule("tags")
            composite.define(more, [rest, [segment, tail]])
            tail = more
    for _ in range(at_least):
        more = composite.rule("tags")
        composite.define(more, [[segment, tail]])
        tail = more
    start = tail
    if think is not None:
        start = composite.rule("start")
        composite.define(start, [[composite.grammar(thinking(think, not free_text), "think"), tail]])

    def parse(text: str) -> list[str | Tagged]:
        lead: list[str | Tagged] = []
        if think is not None:
            thought, _, text = text.partition(think[1])
            lead = [thought + think[1]]
            if not free_text:
                text = text.lstrip("\n")
        return [*lead, *_parsed(text, read, ordered, free_text)]

    return composite.build(start, parse)


def _tag(tag: Any, number: int) -> Tag:
    if isinstance(tag, Tag):
        return tag
    from guiderail.grammars.grammar import Grammar

    place = f"tag {number}"
    if not isinstance(tag, Mapping) or not isinstance(tag.get("begin"), str):
        raise GrammarError(f'{place}: a Tag, or a mapping with "begin", "schema" or "grammar", and "end"')
    unknown = set(tag) - {"begin", "schema", "grammar", "end"}
    if unknown or ("schema" in tag) == ("grammar" in tag):
        raise GrammarError(f'{place}: one of "schema" and "grammar" is needed, and nothing unknown; got {sorted(tag)}')
    content = tag["grammar"] if "grammar" in tag else Grammar.from_json_schema(tag["schema"])
    if not isinstance(content, Grammar):
        raise GrammarError(f"{place}: its grammar is a Grammar, got {type(content).__name__}")
    return Tag(tag["begin"], content, tag.get("end", ""))


def _triggers(tags: list[Tag], triggers: Sequence[str] | None, markers: list[str]) -> list[str]:
    """The trigger of each tag."""
    found: list[str] = []
    for number, tag in enumerate(tags):
        if not tag.begin:
            raise GrammarError(f"tag {number}: its begin is empty")
        if triggers is not None:
            options = [trigger for trigger in triggers if trigger and tag.begin.startswith(trigger)]
            if not options:
                raise GrammarError(f"tag {number}: none of the triggers begins {tag.begin!r}")
        else:
            options = [marker for marker in markers if tag.begin.startswith(marker)]
            options = options or [other.begin for other in tags if tag.begin.startswith(other.begin)]
        found.append(min(options, key=len))
    return found


def _parsed(text: str, tags: list[Tag], triggers: list[str], free_text: bool) -> list[str | Tagged]:
    """The parts of a text of the language. Where it can be read in more than one way, a tag is as short as can be."""
    failed: set[int] = set()  # places from which nothing can be read
    found: list[str | Tagged] = []

    def steps(at: int) -> Iterable[tuple[int, list[str | Tagged]]]:
        places = [(text.find(trigger, at), trigger) for trigger in triggers]
        place, trigger = min(((p, t) for p, t in places if p >= 0), default=(-1, ""))
        if place < 0:
            yield len(text), [text[at:]] if at < len(text) else []
            return
        for tag in tags:
            if not tag.begin.startswith(trigger) or not text.startswith(tag.begin, place):
                continue
            begin = place + len(tag.begin)
            stop = begin - 1
            while (stop := text.find(tag.end, stop + 1)) >= 0 and stop <= len(text):
                inner = text[begin:stop]
                if tag.content.accepts(inner):
                    value = tag.content._parse(inner) if tag.content._parse else inner
                    before: list[str | Tagged] = [text[at:place]] if place > at else []
                    yield stop + len(tag.end), [*before, Tagged(tag.begin, inner, value)]
                elif not tag.content.accepts_prefix(inner):
                    break

    # Depth first, with a stack of our own: a text may hold many tags.
    stack = [(0, iter(steps(0)), 0)]
    while True:
        at, more, kept = stack[-1]
        step = next(more, None)
        if step is None:
            failed.add(at)
            stack.pop()
            del found[kept:]
            if not stack:
                raise AssertionError("the text is of the language, but cannot be read")
            continue
        end, parts = step
        del found[kept:]
        if end == len(text):
            return [*found, *parts]
        if end in failed:
            continue
        found.extend(parts)
        stack.append((end, iter(steps(end)), len(found)))
