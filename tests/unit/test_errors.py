"""The family of errors: what they carry, how they read, and that they survive a process boundary."""

from __future__ import annotations

import inspect
import pickle

import pytest

from guiderail import errors

EXAMPLES = [
    (errors.GuiderailError("m"), "m"),
    (errors.GrammarError("m"), "m"),
    (errors.GrammarError("m", offset=3), "m (offset 3)"),
    (errors.GrammarError("m", offset=3, line=2, column=1), "m (line 2, column 1)"),
    (errors.GrammarError("m", line=2), "m (line 2)"),
    (errors.SchemaError("m", pointer="/a/0"), "m (at /a/0)"),
    (errors.SchemaError("m"), "m (at the schema's root)"),
    (errors.UnsatisfiableError("m", pointer="/allOf"), "m (at /allOf)"),
    (errors.VocabularyError("m"), "m"),
    (errors.LimitError("m", limit="states"), "m (limit: states)"),
    (errors.DeadEndError("m"), "m"),
]


@pytest.mark.parametrize(("error", "text"), EXAMPLES, ids=lambda value: value if isinstance(value, str) else "")
def test_text_and_pickle(error: errors.GuiderailError, text: str) -> None:
    assert str(error) == text
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert again.__dict__ == error.__dict__
    assert str(again) == text


def test_every_error_is_in_the_examples_and_in_the_family() -> None:
    family = {cls for _, cls in inspect.getmembers(errors, inspect.isclass)}
    assert family == {type(error) for error, _ in EXAMPLES} == {getattr(errors, name) for name in errors.__all__}
    assert all(issubclass(cls, errors.GuiderailError) for cls in family)


def test_what_else_they_are() -> None:
    for cls in (errors.GrammarError, errors.SchemaError, errors.UnsatisfiableError, errors.VocabularyError):
        assert issubclass(cls, ValueError)
    for cls in (errors.LimitError, errors.DeadEndError):
        assert issubclass(cls, RuntimeError)
    assert issubclass(errors.UnsatisfiableError, errors.SchemaError)


@pytest.mark.parametrize(
    ("text", "offset", "place"),
    [("abc", 0, (1, 1)), ("abc", 3, (1, 4)), ("a\nb", 1, (1, 2)), ("a\nb", 2, (2, 1)), ("\n\n", 2, (3, 1))],
)
def test_line_and_column(text: str, offset: int, place: tuple[int, int]) -> None:
    error = errors.GrammarError.at("m", text, offset)
    assert (error.line, error.column) == place
    assert error.offset == offset
