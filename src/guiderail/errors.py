"""One family of errors, so that `except GuiderailError` catches whatever this library refuses to do.

    GuiderailError
    ├── GrammarError             the grammar's text is wrong: offset, line, column
    ├── SchemaError              the JSON Schema is wrong or not supported: JSON pointer
    │   └── UnsatisfiableError   the schema is well-formed but no JSON text satisfies it
    ├── VocabularyError          a tokenizer whose tokens cannot be turned into bytes
    ├── LimitError               a budget is exhausted: the limit's name
    └── DeadEndError             no token of the vocabulary can continue the text

Errors about what the user passed in (a grammar, a schema, a vocabulary) are also `ValueError`; those that come up while
running (`LimitError`, `DeadEndError`) are also `RuntimeError`. A token that the grammar does not allow is not an error
but an answer: `Matcher.accept_token` returns False.
"""

from __future__ import annotations

__all__ = [
    "DeadEndError",
    "GrammarError",
    "GuiderailError",
    "LimitError",
    "SchemaError",
    "UnsatisfiableError",
    "VocabularyError",
]


class GuiderailError(Exception):
    """Base of all errors that this library raises on purpose."""

    message: str

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        # The default rebuilds from `args` alone, which loses (or, for required keywords, cannot supply) the rest.
        return _rebuild, (type(self), self.args, dict(self.__dict__))


def _rebuild(kind: type[GuiderailError], args: tuple[object, ...], state: dict[str, object]) -> GuiderailError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class GrammarError(GuiderailError, ValueError):
    """A regex, Lark or GBNF grammar that is wrong, unsupported or denotes the empty language.

    Args:
        message: what is wrong, without the place.
        offset:  characters before the place in the grammar's text, counted from 0; None when there is no one place.
        line:    counted from 1; None when unknown.
        column:  counted from 1; None when unknown.
    """

    def __init__(
        self, message: str, *, offset: int | None = None, line: int | None = None, column: int | None = None
    ) -> None:
        super().__init__(message)
        self.offset = offset
        self.line = line
        self.column = column

    @classmethod
    def at(cls, message: str, text: str, offset: int) -> GrammarError:
        """The error at `offset` of `text`, with line and column computed from it.

        >>> error = GrammarError.at("unknown rule 'y'", "x: 'a'\\nz: y", 10)
        >>> error.line, error.column, str(error)
        (2, 4, "unknown rule 'y' (line 2, column 4)")
        """
        before = text[:offset]
        line = before.count("\n") + 1
        column = offset - (before.rfind("\n") + 1) + 1
        return cls(message, offset=offset, line=line, column=column)

    def __str__(self) -> str:
        if self.line is not None:
            column = "" if self.column is None else f", column {self.column}"
            return f"{self.message} (line {self.line}{column})"
        if self.offset is not None:
            return f"{self.message} (offset {self.offset})"
        return self.message


class SchemaError(GuiderailError, ValueError):
    """A JSON Schema that is malformed, or that asks for what this library does not enforce.

    Args:
        message: what is wrong, without the place.
        pointer: JSON pointer (RFC 6901) into the schema; "" is the root.
    """

    def __init__(self, message: str, *, pointer: str = "") -> None:
        super().__init__(message)
        self.pointer = pointer

    def __str__(self) -> str:
        return f"{self.message} (at {self.pointer})" if self.pointer else f"{self.message} (at the schema's root)"


class UnsatisfiableError(SchemaError):
    """A well-formed schema that no JSON text satisfies; `pointer` names the place that cannot be met."""


class VocabularyError(GuiderailError, ValueError):
    """A tokenizer whose tokens cannot be turned into bytes, or token bytes, ids or sizes that contradict each other."""


class LimitError(GuiderailError, RuntimeError):
    """A budget is exhausted, for this call or this matcher alone; others that share the grammar go on.

    Args:
        message: what was being built.
        limit:   the name of the limit, as in `Limits`.
    """

    def __init__(self, message: str, *, limit: str) -> None:
        super().__init__(message)
        self.limit = limit

    def __str__(self) -> str:
        return f"{self.message} (limit: {self.limit})"


class DeadEndError(GuiderailError, RuntimeError):
    """No token can continue the text, and the text is not complete: the vocabulary cannot spell what must follow."""
