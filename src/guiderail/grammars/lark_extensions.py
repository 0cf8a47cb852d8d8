"""What llguidance added to Lark's notation, taken out of a grammar's text before Lark's own loader reads it.

    start: <|python_tag|> call <|eom_id|> | TEXT          special tokens by name, <[128010]> <[5-7,9]> by id
    call: %json {"type": "object"}                        a value of a JSON Schema
    quote: "\\"" %regex {"substring_words": "a b c"} "\\""  a part of a text; substring_chars, substring_chunks
    TEXT: /[^{](.|\\n)*/ & ~/(?s:.*)\\n\\n(?s:.*)/             intersection and complement of terminals
    head[lazy]: TEXT "<call"                              as little as possible; head[suffix="<call"]: TEXT
    list: item{2,5} item{3,}                              counts in braces; '-' in names

Each becomes a terminal that Lark is told about with %declare, so that everything around it means what it means to Lark;
what the terminal stands for is kept here. Lines and columns of messages are those of the text as written.

A terminal that uses '&', '~' (not before a number), %regex or another such terminal is read as a language: alternatives
have no order, and the complement is one among the UTF-8 texts. Refused, with its place: options of llguidance that
change sampling or take text back (temperature, max_tokens, stop), references to other grammars (@name, %lark), sets of
token ids without an upper end.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from guiderail.errors import GrammarError, LimitError

__all__ = ["Extended", "Part", "Tree", "extended"]

# A terminal's tree, as src/core/regex/terminal_language.h reads it; in ["name", terminal] it is not complete yet.
Tree: TypeAlias = list[Any]

# The upper bound that stands for none in `x~2..UNBOUNDED`.
UNBOUNDED = 4_294_967_295
MAX_TOKEN_IDS = 10_000
MAX_CHUNKS = 50_000
MAX_DEPTH = 100

_SPACE = re.compile(r"(?:[ \t]|\\[ ]*\r?\n)+")
_TOKEN = re.compile(
    r"""(?P<comment>(?://|\#)[^\n]*)
    |(?P<newline>\r?\n)
    |(?P<string>"(?:\\.|[^"\\\n])*"i?)
    |(?P<regex>/(?!/)(?:\\/|\\\\|[^/])*?/[imslux]*)
    |(?P<command>%[a-zA-Z]+)
    |(?P<special><(?!\[)[^<>\s]+>|<\[[^\]\n]*\]>)
    |(?P<grammar>@[\w-]+)
    |(?P<count>\{(?=[\s,]*\d)\s*\d*\s*(?:,\s*\d*\s*)?\})
    |(?P<number>\d+)
    |(?P<name>[^\W\d]\w*(?:-\w+)*)
    |(?P<mark>->|\.\.|[^\s])""",
    re.X,
)
_BLANK = re.compile(r"\s*")
_JSON_COMMANDS = ("%json", "%regex", "%llguidance", "%lark")
_SUBSTRINGS = ("substring_words", "substring_chars", "substring_chunks")
_WORDS = re.compile(r"\w+|\s|[^\w\s]")


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    start: int
    end: int
    value: Any = None  # of a command with JSON: the value


@dataclass(frozen=True, slots=True)
class Part:
    """What a declared terminal stands for.

    Args:
        kind: "json" (`what`: the schema's JSON text), "special" (a list of special tokens' texts), "tree" (a Tree).
        name: for messages. offset: in the text as written.
    """

    kind: str
    what: Any
    name: str
    offset: int


@dataclass
class Extended:
    """A grammar's text without extensions.

    Args:
        text: what Lark's loader reads. parts: by the declared terminal. terminals: definitions taken out of the text,
            by name: (tree, priority, offset). rows: of the report. first: the offset of the first extension, or None.
    """

    original: str
    text: str = ""
    parts: dict[str, Part] = field(default_factory=dict)
    terminals: dict[str, tuple[Tree, int, int]] = field(default_factory=dict)
    rows: list[tuple[str, str, str]] = field(default_factory=list)
    first: int | None = None
    placed: list[GrammarError] = field(default_factory=list)  # made by `error`
    _edits: list[tuple[int, int]] = field(default_factory=list)  # (offset in `text`, in `original`), after each edit

    def error(self, message: str, offset: int) -> GrammarError:
        """The error with its place in the text as written."""
        self.placed.append(GrammarError.at(message, self.original, offset))
        return self.placed[-1]

    def offset(self, line: int, column: int) -> int:
        """The offset in the text as written of a place in `text`."""
        lines = self.text.split("\n")
        at = sum(len(before) + 1 for before in lines[: line - 1]) + column - 1
        place = bisect_right(self._edits, (at, len(self.original))) - 1
        if place < 0:
            return min(at, len(self.original))
        ours, theirs = self._edits[place]
        following = self._edits[place + 1][1] if place + 1 < len(self._edits) else len(self.original)
        return min(theirs + at - ours, following)


def extended(text: str) -> Extended:
    """Take the extensions out. Raises: GrammarError with line and column; LimitError."""
    tokens = list(_tokens(text))
    if all(t.kind not in ("special", "grammar", "count") and not _is_extension(t) for t in tokens):
        return Extended(text, text)
    return _Rewriter(text, tokens).run()


def _is_extension(token: _Token) -> bool:
    return token.text in (*_JSON_COMMANDS, "&", "~", "[") or (token.kind == "name" and "-" in token.text)


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    decoder = json.JSONDecoder()
    while at < len(text):
        if space := _SPACE.match(text, at):
            at = space.end()
            continue
        match = _TOKEN.match(text, at)
        if match is None:  # white space of another kind: Lark says what it thinks of it
            at += 1
            continue
        kind = match.lastgroup or "mark"
        end = match.end()
        if kind == "command" and match.group() in _JSON_COMMANDS:
            begin = _BLANK.match(text, end).end()  # type: ignore[union-attr]  # it matches the empty text
            try:
                value, end = decoder.raw_decode(text, begin)
            except (ValueError, RecursionError) as error:
                place = getattr(error, "pos", begin)
                reason = getattr(error, "msg", "nested too deeply")
                raise GrammarError.at(f"{match.group()} must be followed by JSON: {reason}", text, place) from None
            yield _Token(kind, match.group(), at, end, (value, text[begin:end]))
        else:
            yield _Token(kind, match.group(), at, end)
        at = end


class _Rewriter:
    def __init__(self, text: str, tokens: list[_Token]) -> None:
        self.out = Extended(text)
        self.tokens = tokens
        self.prefix = "EXT_"
        while self.prefix in text:
            self.prefix += "X"
        self.edits: list[tuple[int, int, str]] = []  # start, end, what stands there instead

    def run(self) -> Extended:
        statements = list(self.statements())
        # A terminal that refers to one of ours is ours as well: Lark cannot write it out.
        ours = {s[0].text for s in statements if _defines_terminal(s) and self.is_tree(s[1:])}
        terminals = {s[0].text: s for s in statements if _defines_terminal(s)}
        users: dict[str, list[str]] = {}
        for name, statement in terminals.items():
            for used in {token.text for token in statement[1:] if token.kind == "name"}:
                users.setdefault(used, []).append(name)
        pending = list(ours)
        while pending:
            fresh = [name for name in users.get(pending.pop(), ()) if name not in ours]
            ours.update(fresh)
            pending += fresh
        for statement in statements:
            if _defines_terminal(statement) and statement[0].text in ours:
                self.take_terminal(statement)
            elif statement[0].text == "%ignore" and (
                self.is_tree(statement) or any(t.text in ours for t in statement if t.kind == "name")
            ):
                tree = _TreeReader(self.out, statement[1:]).read()
                self.replace(statement[1], statement[-1], self.declare("tree", tree, "ignored", statement[1].start))
            else:
                self.rewrite(statement)
        self.apply()
        return self.out

    def statements(self) -> Iterator[list[_Token]]:
        """Lines, with those that go on with '|'; no comments, no newlines."""
        found: list[_Token] = []
        broken = False
        for token in self.tokens:
            if token.kind == "comment":
                continue
            if token.kind == "newline":
                broken = True
                continue
            if broken and found and token.text != "|":
                yield found
                found = []
            broken = False
            found.append(token)
        if found:
            yield found

    def is_tree(self, tokens: Sequence[_Token]) -> bool:
        for i, token in enumerate(tokens):
            following = tokens[i + 1] if i + 1 < len(tokens) else None
            if token.text in ("&", "%regex") or (token.kind == "count" and token.text.rstrip("} \t").endswith(",")):
                return True
            if token.text == "~" and token.kind == "mark" and (following is None or following.kind != "number"):
                return True
        return False

    def take_terminal(self, statement: list[_Token]) -> None:
        name, body = statement[0], statement[1:]
        priority = 0
        if body and body[0].text == ".":
            sign = -1 if len(body) > 1 and body[1].text == "-" else 1
            number = body[2 if sign < 0 else 1 :]
            if not number or number[0].kind != "number":
                raise self.out.error("a priority is a number", body[0].start)
            priority, body = sign * int(number[0].text), number[1:]
        if name.text in self.out.terminals:
            raise self.out.error(f"terminal {name.text!r} is defined more than once", name.start)
        self.used(name.start)
        self.out.terminals[name.text] = (_TreeReader(self.out, body[1:]).read(), priority, name.start)
        self.edits.append((name.start, statement[-1].end, ""))

    def rewrite(self, statement: list[_Token]) -> None:
        head = statement[0]
        if head.text == "%llguidance":
            self.used(head.start)
            options, _ = head.value
            for option in options if isinstance(options, dict) else [str(options)]:
                if option != "no_forcing":
                    raise self.out.error(f"%llguidance: option {option!r} is not supported", head.start)
                self.out.rows.append(
                    ("%llguidance", "annotation", f"{option}: how masks are made, not what is in the language")
                )
            self.edits.append((head.start, head.end, ""))
            statement = statement[1:]
        if _defines_rule(statement) and statement[1].text == "[":
            statement = self.options(statement)
        for i, token in enumerate(statement):
            if token.kind == "special":
                self.replace(token, token, self.declare("special", self.special(token), token.text, token.start))
            elif token.kind == "grammar" or token.text == "%lark":
                raise self.out.error(f"{token.text}: references to other grammars are not supported", token.start)
            elif token.text == "%json":
                self.replace(token, token, self.declare("json", token.value[1], "%json", token.start))
            elif token.text == "%regex":
                self.replace(token, token, self.declare("tree", _substring(self.out, token), "%regex", token.start))
            elif token.text == "%llguidance":
                raise self.out.error("%llguidance stands at the beginning of a line", token.start)
            elif token.text == "&" and token.kind == "mark":
                raise self.out.error("'&' combines terminals; it stands in their definitions only", token.start)
            elif token.text == "~" and token.kind == "mark":
                if i + 1 == len(statement) or statement[i + 1].kind != "number":
                    raise self.out.error("'~' complements terminals; it stands in their definitions only", token.start)
            elif token.kind == "count" and i > 0:
                self.used(token.start)
                least, most = _counts(self.out, token)
                self.edits.append((token.start, token.end, f"~{least}..{UNBOUNDED if most is None else most}"))
            elif token.kind == "name" and "-" in token.text:
                self.used(token.start)
                self.edits.append((token.start, token.end, token.text.replace("-", "_")))

    def options(self, statement: list[_Token]) -> list[_Token]:
        """`name[capture, lazy]: body`: what is left to be rewritten."""
        close = next((i for i, t in enumerate(statement) if t.text == "]" and t.kind == "mark"), None)
        if close is None or close + 1 == len(statement) or statement[close + 1].text != ":":
            return statement  # no options: Lark says what is wrong
        self.used(statement[1].start)
        lazy, suffix = False, None
        items: list[list[_Token]] = []
        item: list[_Token] = []
        for token in statement[2:close]:
            if token.text == "," and token.kind == "mark":
                items.append(item)
                item = []
            else:
                item.append(token)
        for option in [*items, item]:
            if not option:
                raise self.out.error("an option of a rule is empty", statement[1].start)
            if option[0].text == "lazy":
                lazy = True
            elif option[0].text == "suffix" and len(option) > 2:
                suffix = option[2:]
            elif option[0].text == "capture":
                self.out.rows.append((statement[0].text, "annotation", "capture: what a text means is not kept"))
            else:
                reason = "it changes sampling, or takes text back; the language is all that a grammar says here"
                raise self.out.error(f"option {option[0].text!r} is not supported: {reason}", option[0].start)
        body = statement[close + 2 :]
        if not lazy and suffix is None:
            self.edits.append((statement[1].start, statement[close].end, ""))
            return [statement[0], *body]
        for token in body:
            if token.kind == "name" and not token.text.isupper():
                raise self.out.error("a lazy rule is made of terminals only", token.start)
        tree = _TreeReader(self.out, body).read()
        if suffix is not None:
            tree = ["seq", tree, _TreeReader(self.out, suffix).read()]
        # As little as possible: no proper beginning of it is such a text.
        tree = ["and", tree, ["not", ["seq", tree, ["re", "(?s:.+)", 0]]]]
        name = self.declare("tree", tree, statement[0].text, statement[0].start)
        self.edits.append((statement[1].start, statement[-1].end, f": {name}"))
        return statement[:1]

    def special(self, token: _Token) -> list[str]:
        """The special tokens of `<name>` or `<[ids]>`."""
        if not token.text.startswith("<["):
            return [token.text]
        names: list[str] = []
        for item in token.text[2:-2].split(","):
            match = re.fullmatch(r"\s*(\d{1,9})\s*(?:-\s*(\d{1,9})\s*)?", item)
            if match is None:
                raise self.out.error(
                    f"{token.text}: ids and ranges of ids, such as <[5,7-9]>; complements and <[*]> would need a "
                    "vocabulary",
                    token.start,
                )
            first, last = int(match[1]), int(match[2] or match[1])
            if last < first:
                raise self.out.error(f"{token.text}: the range {item.strip()} is empty", token.start)
            if len(names) + last - first >= MAX_TOKEN_IDS:
                raise LimitError(f"{token.text}: more than {MAX_TOKEN_IDS} token ids", limit="grammar_size")
            names += [f"<[{number}]>" for number in range(first, last + 1)]
        return names

    def declare(self, kind: str, what: Any, name: str, offset: int) -> str:
        self.used(offset)
        terminal = f"{self.prefix}{len(self.out.parts)}"
        self.out.parts[terminal] = Part(kind, what, name, offset)
        return terminal

    def used(self, offset: int) -> None:
        self.out.first = offset if self.out.first is None else min(self.out.first, offset)

    def replace(self, first: _Token, last: _Token, text: str) -> None:
        self.edits.append((first.start, last.end, text))

    def apply(self) -> None:
        """The edited text: as many lines as before, so that Lark's line numbers hold."""
        pieces: list[str] = []
        at = size = 0
        for start, end, text in sorted(self.edits):
            kept = self.out.original[at:start]
            lines = self.out.original.count("\n", start, end)
            written = text + (" \\\n" if text else "\n") * lines
            pieces += [kept, written]
            size += len(kept) + len(written)
            self.out._edits += [(size - len(written), start), (size, end)]
            at = end
        rest = self.out.original[at:]
        declared = [*self.out.parts, *self.out.terminals]
        pieces += [rest, "\n%declare " + " ".join(declared) + "\n" if declared else ""]
        self.out.text = "".join(pieces)


def _defines_terminal(statement: list[_Token]) -> bool:
    head = statement[0]
    return head.kind == "name" and head.text.isupper() and len(statement) > 1 and statement[1].text in (":", ".")


def _defines_rule(statement: list[_Token]) -> bool:
    return len(statement) > 1 and statement[0].kind == "name"


def _counts(out: Extended, token: _Token) -> tuple[int, int | None]:
    least, comma, most = token.text.strip("{} \t").partition(",")
    if len(least.strip()) > 9 or len(most.strip()) > 9:
        raise LimitError(f"repetition {token.text} is too large", limit="repeats")
    low = int(least) if least.strip() else 0
    high = (int(most) if most.strip() else None) if comma else low
    if not least.strip() and high is None:
        raise out.error(f"{token.text}: how many times?", token.start)
    if high is not None and high < low:
        raise out.error(f"the bounds of {token.text} are in the wrong order", token.start)
    return low, high


def _substring(out: Extended, token: _Token) -> Tree:
    value, _ = token.value
    keys = [key for key in _SUBSTRINGS if isinstance(value, dict) and key in value]
    if len(keys) != 1 or len(value) != 1:
        raise out.error(f"%regex takes an object with one of {', '.join(_SUBSTRINGS)}", token.start)
    text = value[keys[0]]
    if keys[0] == "substring_chunks":
        if not isinstance(text, list) or not all(isinstance(chunk, str) for chunk in text):
            raise out.error("substring_chunks is a list of strings", token.start)
        chunks = [chunk for chunk in text if chunk]
    else:
        if not isinstance(text, str):
            raise out.error(f"{keys[0]} is a string", token.start)
        chunks = _WORDS.findall(text) if keys[0] == "substring_words" else list(text)
    if any("\ud800" <= character <= "\udfff" for chunk in chunks for character in chunk):
        raise out.error(f"{keys[0]} holds a lone surrogate, which has no UTF-8 encoding", token.start)
    if len(chunks) > MAX_CHUNKS:
        raise LimitError(f"{keys[0]}: more than {MAX_CHUNKS} pieces of text", limit="terminal_size")
    return ["factor", *chunks]


class _TreeReader:
    """A terminal's definition: '|', then '&', then one after the other, then counts, then '~'."""

    def __init__(self, out: Extended, tokens: Sequence[_Token]) -> None:
        self.out = out
        self.tokens = tokens
        self.at = 0

    def read(self) -> Tree:
        tree = self.choice(0)
        if (token := self.peek()) is not None:
            raise self.out.error(f"{token.text!r} is not expected in a terminal", token.start)
        return tree

    def peek(self) -> _Token | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def take(self, mark: str) -> bool:
        token = self.peek()
        found = token is not None and token.kind == "mark" and token.text == mark
        self.at += found
        return found

    def choice(self, depth: int) -> Tree:
        if depth > MAX_DEPTH:
            raise LimitError(f"groups are nested more than {MAX_DEPTH} deep", limit="grammar_nesting")
        self.take("|")
        options = [self.conjunction(depth)]
        while self.take("|"):
            options.append(self.conjunction(depth))
        return options[0] if len(options) == 1 else ["or", *options]

    def conjunction(self, depth: int) -> Tree:
        parts = [self.sequence(depth)]
        while self.take("&"):
            parts.append(self.sequence(depth))
        return parts[0] if len(parts) == 1 else ["and", *parts]

    def sequence(self, depth: int) -> Tree:
        items: list[Tree] = []
        while (token := self.peek()) is not None and not (token.kind == "mark" and token.text in "|&)]"):
            items.append(self.repeated(depth))
        if not items:
            token = self.tokens[min(self.at, len(self.tokens) - 1)] if self.tokens else None
            raise self.out.error("a part of a terminal is empty", token.start if token else len(self.out.original))
        return items[0] if len(items) == 1 else ["seq", *items]

    def repeated(self, depth: int) -> Tree:
        tree = self.atom(depth)
        while (token := self.peek()) is not None:
            following = self.tokens[self.at + 1] if self.at + 1 < len(self.tokens) else None
            if token.kind == "mark" and token.text in ("?", "*", "+"):
                least, most = {"?": (0, 1), "*": (0, None), "+": (1, None)}[token.text]
                self.at += 1
            elif token.kind == "count":
                least, most = _counts(self.out, token)
                self.at += 1
            elif token.kind == "mark" and token.text == "~" and following is not None and following.kind == "number":
                least = most = int(following.text)
                self.at += 2
                if self.take(".."):
                    bound = self.peek()
                    if bound is None or bound.kind != "number" or int(bound.text) < least:
                        raise self.out.error("the bounds of '~' are in the wrong order", token.start)
                    most = int(bound.text)
                    self.at += 1
                if least > 10**9 or most > 10**9:
                    raise LimitError(f"repetition ~{least}..{most} is too large", limit="repeats")
            else:
                break
            tree = ["rep", tree, least, most]
        return tree

    def atom(self, depth: int) -> Tree:
        token = self.peek()
        if token is None:
            raise self.out.error("a terminal ends too early", len(self.out.original))
        if depth > MAX_DEPTH:
            raise LimitError(f"groups are nested more than {MAX_DEPTH} deep", limit="grammar_nesting")
        self.at += 1
        if token.kind == "string" and self.take(".."):
            last = self.peek()
            self.at += 1
            if last is None or last.kind != "string":
                raise self.out.error("a range is of two strings", token.start)
            return ["literal", f"{token.text}..{last.text}", token.start]
        if token.kind in ("string", "regex"):
            return ["literal", token.text, token.start]
        if token.kind == "name":
            if not token.text.isupper():
                raise self.out.error(f"{token.text!r} is a rule; terminals are made of terminals", token.start)
            return ["name", token.text, token.start]
        if token.text == "%regex":
            return _substring(self.out, token)
        if token.text == "~":
            return ["not", self.atom(depth + 1)]
        if token.text in ("(", "["):
            tree = self.choice(depth + 1)
            if not self.take({"(": ")", "[": "]"}[token.text]):
                raise self.out.error(f"{token.text!r} is never closed", token.start)
            return tree if token.text == "(" else ["rep", tree, 0, 1]
        if token.kind == "special":
            raise self.out.error("special tokens are no text; they stand in rules only", token.start)
        raise self.out.error(f"{token.text!r} is not expected in a terminal", token.start)
