"""GBNF, the grammar notation of llama.cpp and (as 'EBNF') of XGrammar.

    root  ::= "{" ws pair ("," ws pair)* "}"      # the language is that of `root`
    pair  ::= [a-z]+ ":" ws [0-9]{1,3}
    ws    ::= [ \\t\\n]*

The two readers disagree in places. We accept what either accepts; where both accept a text and read it differently we
follow llama.cpp, where the notation comes from, and say so in the report:

- `\\x` takes two hexadecimal digits (XGrammar takes all that follow).
- `a.b` is the rule `a.b` where one is defined (XGrammar), otherwise `a`, any character, `b` (llama.cpp).
- A newline is white space: a rule ends where the next `name ::=` begins. `.` matches a newline.
- XGrammar's lookahead `(= …)` is a hint for its mask cache that does not change the language; it is checked and
  dropped.
- llama.cpp's `<name>` is the special token of that text.

Refused, by name: `<[id]>` and `!<…>` (tokens by number, all tokens but one), XGrammar's `TagDispatch(…)` and
`Token(…)`.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import NamedTuple

from guiderail.errors import GrammarError, LimitError
from guiderail.grammars.regular import ANY_CHARACTER, escape_point, merge_regular_rules
from guiderail.grammars.rules import (
    EMPTY,
    Choice,
    Expression,
    Leaf,
    Reference,
    Repeat,
    Sequence,
    StaticGrammar,
    Terminal,
    Terminals,
    assemble,
    reachable,
)

MAX_NESTING = 100
MAX_REPEATS = 2**31 - 1

_TOKEN = re.compile(
    r"""
      (?P<skip>\s+|\#[^\n]*)
    | (?P<assign>::=)
    | (?P<name>[A-Za-z0-9_.-]+)
    | (?P<string>")
    | (?P<set>\[)
    | (?P<lookahead>\(=)
    | (?P<open>\()
    | (?P<close>\))
    | (?P<or>\|)
    | (?P<repeat>[*+?]|\{\s*(?P<least>\d+)\s*(?P<comma>,)?\s*(?P<most>\d+)?\s*\})
    | (?P<special>!?<(?P<special_text>\[\d+\]|[^<>\s]+)>)
    """,
    re.VERBOSE,
)
_EXTENSION = re.compile(r"(TagDispatch|TokenTagDispatch|Token|ExcludeToken)\s*\((?!=)")
_ESCAPES = {
    "n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "'": "'", "[": "[", "]": "]", "-": "-", "?": "?", "/": "/",
    "a": "\a", "b": "\b", "f": "\f", "v": "\v", "0": "\0", "e": "\x1b",
}  # fmt: skip
_HEX_DIGITS = {"x": 2, "u": 4, "U": 8}


class _Token(NamedTuple):
    kind: str
    text: str
    offset: int
    value: object = None


def parse_gbnf(text: str, root: str = "root") -> tuple[StaticGrammar, list[tuple[str, str, str]]]:
    """Read a GBNF grammar.

    Returns: the grammar, and report rows (rule, status, reason).
    Raises:
        GrammarError: with offset, line and column; also when `root` or any rule that is referred to is not defined.
        LimitError: groups nested too deeply, or too many symbols.
    """
    reader = _Reader(text)
    rules = reader.read()
    if root not in rules:
        raise GrammarError(f"there is no rule {root!r}, where the language starts")
    _check_references(text, rules, reader.referred)
    terminals = reader.terminals
    merged = merge_regular_rules(rules, root, terminals)
    rows = [*reader.rows, *((name, "enforced", "") for name in reachable(rules, root))]
    return assemble(terminals, merged, root), rows


def _check_references(text: str, rules: dict[str, Expression], referred: list[Reference]) -> None:
    for reference in referred:
        if reference.name not in rules:
            assert reference.offset is not None
            raise GrammarError.at(f"rule {reference.name!r} is not defined", text, reference.offset)


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.terminals = Terminals()
        self.rows: list[tuple[str, str, str]] = []
        self.referred: list[Reference] = []
        self.rule = ""
        self.tokens = self.split_dotted_names(self.tokenize())
        self.position = 0

    def error(self, message: str, offset: int) -> GrammarError:
        return GrammarError.at(message, self.text, offset)

    # --- lexing ---------------------------------------------------------------------------------------------------

    def tokenize(self) -> list[_Token]:
        tokens: list[_Token] = []
        offset = 0
        while offset < len(self.text):
            match = _TOKEN.match(self.text, offset)
            if match is None:
                raise self.error(f"unexpected {self.text[offset]!r}", offset)
            kind = match.lastgroup or ""
            for outer in ("repeat", "special"):
                if match.group(outer) is not None:
                    kind = outer
            if kind == "name" and (extension := _EXTENSION.match(self.text, offset)):
                raise self.error(f"XGrammar's {extension[1]}(…) is not supported", offset)
            if kind == "string":
                value, end = self.read_string(offset + 1)
                tokens.append(_Token(kind, self.text[offset:end], offset, value))
                offset = end
                continue
            if kind == "set":
                pattern, end = self.read_set(offset)
                tokens.append(_Token(kind, self.text[offset:end], offset, pattern))
                offset = end
                continue
            if kind == "repeat":
                tokens.append(_Token(kind, match.group(), offset, self.bounds(match)))
            elif kind == "special":
                tokens.append(_Token(kind, match.group(), offset, match["special_text"]))
            elif kind != "skip":
                tokens.append(_Token(kind, match.group(), offset))
            offset = match.end()
        return tokens

    def bounds(self, match: re.Match[str]) -> tuple[int, int | None]:
        if match["least"] is None:
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[match.group()]
        if max(len(match["least"]), len(match["most"] or "")) > 10:
            raise LimitError(f"repetition {match.group()[:40]} is larger than {MAX_REPEATS}", limit="repeats")
        least = int(match["least"])
        most = least if match["comma"] is None else None if match["most"] is None else int(match["most"])
        if match["comma"] is None and match["most"] is not None:
            raise self.error(f"a comma is missing in {match.group()}", match.start())
        if max(least, most or 0) > MAX_REPEATS:
            raise LimitError(f"repetition {match.group()} is larger than {MAX_REPEATS}", limit="repeats")
        if most is not None and most < least:
            raise self.error(f"the bounds of {match.group()} are in the wrong order", match.start())
        return least, most

    def read_string(self, offset: int) -> tuple[str, int]:
        """The string whose first character is at `offset`, and the offset after its closing quote."""
        characters: list[str] = []
        while offset < len(self.text) and self.text[offset] != '"':
            point, end = self.read_character(offset)
            if 0xD800 <= point <= 0xDFFF:
                raise self.error("a lone surrogate is not a character", offset)
            characters.append(chr(point))
            offset = end
        if offset >= len(self.text):
            raise self.error("the string is not closed: '\"' expected", offset)
        return "".join(characters), offset + 1

    def read_set(self, start: int) -> tuple[str | None, int]:
        """The set that opens at `start` as a regular expression (None: no character), and the offset after it."""
        offset = start + 1
        negated = self.text.startswith("^", offset)
        offset += negated
        ranges: list[tuple[int, int]] = []
        while offset < len(self.text) and self.text[offset] != "]":
            low_offset = offset
            low, offset = self.read_character(offset)
            high = low
            if (
                self.text.startswith("-", offset)
                and not self.text.startswith("-]", offset)
                and offset + 1 < len(self.text)
            ):
                high, offset = self.read_character(offset + 1)
            if high < low:
                raise self.error(f"the range {self.text[low_offset:offset]} is in the wrong order", low_offset)
            ranges.append((low, high))
        if offset >= len(self.text):
            raise self.error("the character set is not closed: ']' expected", offset)
        return _set_pattern(ranges, negated), offset + 1

    def read_character(self, offset: int) -> tuple[int, int]:
        """One character, escaped or not: its code point and the offset after it."""
        if self.text[offset] != "\\":
            return ord(self.text[offset]), offset + 1
        letter = self.text[offset + 1 : offset + 2]
        if letter in _HEX_DIGITS:
            digits = self.text[offset + 2 : offset + 2 + _HEX_DIGITS[letter]]
            if re.fullmatch(r"[0-9a-fA-F]+", digits) is None or len(digits) != _HEX_DIGITS[letter]:
                raise self.error(f"\\{letter} takes {_HEX_DIGITS[letter]} hexadecimal digits", offset)
            end = offset + 2 + len(digits)
            if int(digits, 16) > 0x10FFFF:
                raise self.error(f"\\{letter}{digits} is beyond the last code point, 10FFFF", offset)
            if letter == "x" and re.match(r"[0-9a-fA-F]", self.text[end : end + 1]):
                reason = f"\\x{digits} is read with two digits, as llama.cpp does; XGrammar would read more"
                self.rows.append((f"offset {offset}", "annotation", reason))
            return int(digits, 16), end
        if letter in _ESCAPES:
            return ord(_ESCAPES[letter]), offset + 2
        raise self.error(f"unknown escape \\{letter}", offset)

    def split_dotted_names(self, tokens: list[_Token]) -> list[_Token]:
        """`a.b` stays one name if a rule of that name is defined; else its dots become tokens of kind 'any'."""
        pairs = pairwise(tokens)
        defined = {token.text for token, following in pairs if following.kind == "assign" and token.kind == "name"}
        result: list[_Token] = []
        for token in tokens:
            if token.kind != "name" or "." not in token.text or token.text in defined:
                result.append(token)
                continue
            for piece in re.finditer(r"\.|[^.]+", token.text):
                kind = "any" if piece.group() == "." else "name"
                result.append(_Token(kind, piece.group(), token.offset + piece.start()))
        return result

    # --- parsing --------------------------------------------------------------------------------------------------

    def peek(self, ahead: int = 0) -> _Token:
        place = self.position + ahead
        return self.tokens[place] if place < len(self.tokens) else _Token("end", "the end", len(self.text))

    def read(self) -> dict[str, Expression]:
        rules: dict[str, Expression] = {}
        while self.peek().kind != "end":
            name, assign = self.peek(), self.peek(1)
            if name.kind != "name":
                raise self.error(f"a rule name was expected, not {name.text!r}", name.offset)
            if assign.kind != "assign":
                raise self.error(f"'::=' was expected, not {assign.text!r}", assign.offset)
            if name.text in rules:
                raise self.error(f"rule {name.text!r} is defined twice", name.offset)
            self.position += 2
            self.rule = name.text
            rules[name.text] = self.alternatives(depth=0)
            after = self.peek()
            if after.kind != "end" and not self.at_rule():
                raise self.error(f"unexpected {after.text!r}", after.offset)
        return rules

    def at_rule(self) -> bool:
        return self.peek().kind == "name" and self.peek(1).kind == "assign"

    def alternatives(self, depth: int) -> Expression:
        if depth > MAX_NESTING:
            raise LimitError(f"groups are nested more than {MAX_NESTING} deep", limit="grammar_nesting")
        options = [self.sequence(depth)]
        while self.peek().kind == "or":
            self.position += 1
            options.append(self.sequence(depth))
        return options[0] if len(options) == 1 else Choice(tuple(options))

    def sequence(self, depth: int) -> Expression:
        items: list[Expression] = []
        while not self.at_rule():
            token = self.peek()
            if token.kind == "repeat":
                if not items:
                    raise self.error(f"{token.text!r} has nothing to repeat", token.offset)
                assert isinstance(token.value, tuple)
                items[-1] = Repeat(items[-1], *token.value)
                self.position += 1
                continue
            if token.kind == "lookahead":
                self.lookahead(depth)
                continue
            item = self.atom(token, depth)
            if item is None:
                break
            items.append(item)
        return items[0] if len(items) == 1 else Sequence(tuple(items))

    def atom(self, token: _Token, depth: int) -> Expression | None:
        """The next atom; None, and nothing read, where none begins."""
        if token.kind == "open":
            self.position += 1
            inner = self.alternatives(depth + 1)
            self.expect_close(token)
            return inner
        if token.kind not in ("name", "any", "string", "set", "special"):
            return None
        self.position += 1
        if token.kind == "name":
            return self.reference(token)
        if token.kind == "any":
            return self.characters(ANY_CHARACTER, ".")
        if token.kind == "string":
            assert isinstance(token.value, str)
            return self.literal(token.value, token.text)
        if token.kind == "set":
            assert token.value is None or isinstance(token.value, str)
            return Choice(()) if token.value is None else self.characters(token.value, token.text)
        return self.special(token)

    def expect_close(self, opening: _Token) -> None:
        token = self.peek()
        if token.kind != "close":
            line = self.error("", opening.offset)
            raise self.error(
                f"')' was expected, not {token.text!r}, for the group opened at line {line.line}, column {line.column}",
                token.offset,
            )
        self.position += 1

    def lookahead(self, depth: int) -> None:
        opening = self.peek()
        self.position += 1
        self.alternatives(depth + 1)
        self.expect_close(opening)
        reason = "a lookahead is a hint that does not change the language; it is not used"
        self.rows.append((self.rule, "annotation", reason))

    def reference(self, token: _Token) -> Reference:
        reference = Reference(token.text, token.offset)
        self.referred.append(reference)
        return Reference(token.text)

    def literal(self, text: str, name: str) -> Expression:
        if not text:
            return EMPTY
        return self.terminals.add(Terminal("literal", text.encode("utf-8"), name=name))

    def characters(self, pattern: str, name: str) -> Leaf:
        return self.terminals.add(Terminal("regex", pattern, name=name))

    def special(self, token: _Token) -> Leaf:
        text = str(token.value)
        if token.text.startswith("!"):
            raise self.error("'!<…>', any token but one, is not supported", token.offset)
        if text.startswith("["):
            raise self.error("'<[id]>', a token by its number, is not supported; name the special token", token.offset)
        return self.terminals.add(Terminal("special", f"<{text}>", name=f"<{text}>"))


def _set_pattern(ranges: list[tuple[int, int]], negated: bool) -> str | None:
    """The set as a regular expression; None if no character is in it."""
    if not ranges:
        return ANY_CHARACTER if negated else None
    parts: list[str] = []
    for low, high in ranges:
        # Surrogates are no characters; a range that runs across them keeps its two sides.
        low = 0xE000 if 0xD800 <= low <= 0xDFFF else low
        high = 0xD7FF if 0xD800 <= high <= 0xDFFF else high
        if low <= high:
            parts.append(escape_point(low) if low == high else f"{escape_point(low)}-{escape_point(high)}")
    if not parts:
        return ANY_CHARACTER if negated else None
    return f"[{'^' if negated else ''}{''.join(parts)}]"
