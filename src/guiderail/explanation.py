"""Where a text stands in its grammar: position, what may come next in the grammar's words, why it goes no further.

    found = explain(Grammar.builtin("python"), "def f(x:\\n    return 1\\n")
    print(found)

Works for every grammar. Needs no vocabulary: questions are asked about bytes.
"""

from __future__ import annotations

from typing import NamedTuple

from guiderail.grammars.grammar import Grammar

__all__ = ["Expected", "Explanation", "explain"]

# Lines of a list that is printed.
MAX_SHOWN = 24


class Expected(NamedTuple):
    """A terminal that may come next.

    Args:
        terminal: its name. inside: whether its lexeme has begun. ignored: white space, comments.
        example: a short text of it, or of what is left of it; empty where none is known.
    """

    terminal: str
    inside: bool
    ignored: bool
    example: str


class Explanation(NamedTuple):
    """What is known of a text.

    Args:
        text: all of it. fits: how many bytes of it some text of the language begins with.
        line, column: of the place where that ends, from 1 on, in characters.
        complete: is all of it a text of the language? expected: what may come next there.
        may_end: may the text end there? open_rules: 'rule → read · to come', for rules that are not complete.
        refused: why the next byte does not fit, one reason for each reading of the text before it; empty if all fits.
    """

    text: bytes
    fits: int
    line: int
    column: int
    complete: bool
    expected: list[Expected]
    may_end: bool
    open_rules: list[str]
    refused: list[str]

    def __str__(self) -> str:
        before, after = self.text[: self.fits], self.text[self.fits :]
        start = before.rfind(b"\n") + 1
        stop = after.find(b"\n")
        line = before[start:] + (after if stop < 0 else after[:stop])
        shown = line.decode("utf-8", "replace").replace("\t", " ")
        rows = [f"line {self.line}, column {self.column}, byte {self.fits} of {len(self.text)}"]
        rows += [f"    {shown}", f"    {' ' * (self.column - 1)}^"]
        if after:
            character = after.decode("utf-8", "replace")[0]
            rows += [f"refused:   {character!r}: {reason}" for reason in self.refused[:MAX_SHOWN]]
        names: dict[tuple[str, bool, bool], list[str]] = {}
        for one in self.expected:
            names.setdefault((one.terminal, one.inside, one.ignored), []).append(one.example)
        for (terminal, inside, ignored), examples in list(names.items())[:MAX_SHOWN]:
            what = f"more of {terminal}" if inside else terminal
            note = " (ignored)" if ignored and terminal != "ignored" else ""
            kept = [example for example in dict.fromkeys(examples) if example and example != terminal.strip("\"'")]
            like = f", say {kept[0]!r}" if kept else ""
            rows.append(f"expected:  {what}{note}{like}")
        if len(names) > MAX_SHOWN:
            rows.append(f"expected:  … ({len(names)} in all)")
        if self.may_end:
            rows.append("expected:  the end")
        rows += [f"in:        {rule}" for rule in self.open_rules[:MAX_SHOWN]]
        if len(self.open_rules) > MAX_SHOWN:
            rows.append(f"in:        … ({len(self.open_rules)} in all)")
        rows.append(f"complete:  {'yes' if self.complete else 'no'}")
        return "\n".join(rows)


def explain(grammar: Grammar, text: bytes | str) -> Explanation:
    """Where `text` stands in `grammar`.

    Raises: LimitError.
    """
    from guiderail.compiled import compile
    from guiderail.vocabulary import Vocabulary

    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else bytes(text)
    every_byte = Vocabulary.from_bytes([*(bytes([byte]) for byte in range(256)), b""], eos_token_ids=[256])
    fits = grammar.longest_prefix(data)
    while fits and fits < len(data) and data[fits] & 0xC0 == 0x80:
        fits -= 1  # the whole character is what does not fit
    matcher = compile(grammar, every_byte).matcher(prefix=data[:fits])
    before = data[:fits]
    expected = [
        Expected(terminal, inside, ignored, example.decode("utf-8", "replace"))
        for terminal, inside, ignored, example in matcher.expectations()
    ]
    return Explanation(
        text=data,
        fits=fits,
        line=before.count(b"\n") + 1,
        column=len(before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace")) + 1,
        complete=fits == len(data) and matcher.is_accepting,
        expected=expected,
        may_end=matcher.is_accepting,
        open_rules=matcher.open_rules(),
        refused=matcher.refusals(data[fits:]),
    )
