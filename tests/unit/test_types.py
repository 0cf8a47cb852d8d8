"""`Grammar.from_type` and `parse`: round trips through `json.dumps`, what is refused, what is reported."""

from __future__ import annotations

import base64
import datetime
import decimal
import enum
import json
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, Optional, TypedDict, TypeVar

import pytest

from guiderail import Grammar, GrammarError

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    ONE = 1


class Point(NamedTuple):
    x: int
    y: int = 0


class Options(TypedDict):
    name: str
    size: NotRequired[int]


@dataclass
class Tree:
    value: int
    children: list[Tree] = field(default_factory=list)


@dataclass
class Box(Generic[T]):
    content: T


@dataclass
class Cat:
    kind: Literal["cat"]
    lives: int


@dataclass
class Dog:
    kind: Literal["dog"]
    lives: int


@dataclass(frozen=True)
class Bound:
    """Stands for annotated-types' Ge and its kin, which are known by their attributes."""

    ge: int | None = None
    le: int | None = None
    min_length: int | None = None
    max_length: int | None = None


IDENTIFIER = uuid.UUID("12345678-1234-5678-1234-567812345678")
MOMENT = datetime.datetime(2026, 11, 23, 12, 0, 1, 500000, tzinfo=datetime.UTC)

ROUND_TRIPS = [
    (int, "7", 7),
    (float, "1.5", 1.5),
    (bool, "true", True),
    (None, "null", None),
    (str, '"a\\u00e9"', "aé"),
    (Optional[int], "null", None),  # noqa: UP045
    (int | str, '"x"', "x"),
    (Literal["a", 1, True, None], "true", True),
    (Literal["a", 1, None], "1", 1),
    (Colour, '"red"', Colour.RED),
    (Colour, "1", Colour.ONE),
    (list[int], "[1,2]", [1, 2]),
    (set[int], "[1,2,2]", {1, 2}),
    (frozenset[Colour], '["red",1]', frozenset(Colour)),
    (tuple[int, str], '[1,"a"]', (1, "a")),
    (tuple[int, ...], "[1,2,3]", (1, 2, 3)),
    (tuple[()], "[]", ()),
    (dict[str, Point], '{"a":[1,2],"b":[3]}', {"a": Point(1, 2), "b": Point(3)}),
    (dict[int, bool], '{"-4":true}', {-4: True}),
    (dict[Literal["u", "v"], int], '{"v":1}', {"v": 1}),
    (Options, '{"name":"n"}', {"name": "n"}),
    (Options, '{"name":"n","size":2}', {"name": "n", "size": 2}),
    (Tree, '{"value":1,"children":[{"value":2}]}', Tree(1, [Tree(2)])),
    (Box[Box[int]], '{"content":{"content":3}}', Box(Box(3))),
    (list[Cat | Dog], '[{"kind":"dog","lives":1},{"kind":"cat","lives":9}]', [Dog("dog", 1), Cat("cat", 9)]),
    (datetime.datetime, '"2026-11-23T12:00:01.5Z"', MOMENT),
    (datetime.date, '"2026-11-23"', datetime.date(2026, 11, 23)),
    (datetime.time, '"12:30:00"', datetime.time(12, 30)),
    (datetime.timedelta, '"P1DT2H3M4.5S"', datetime.timedelta(1, 4, 500000, 0, 3, 2)),
    (datetime.timedelta, '"-PT1S"', datetime.timedelta(seconds=-1)),
    (uuid.UUID, f'"{IDENTIFIER}"', IDENTIFIER),
    (decimal.Decimal, '"-12.340"', decimal.Decimal("-12.340")),
    (bytes, json.dumps(base64.b64encode(b"\0\xff").decode()), b"\0\xff"),
    (Path, '"a/b"', Path("a/b")),
    (Annotated[int, Bound(ge=3, le=5)], "4", 4),
    (Annotated[list[int], Bound(min_length=1)], "[1]", [1]),
    (Any, '{"x":[]}', {"x": []}),
]


@pytest.mark.parametrize(("kind", "text", "value"), ROUND_TRIPS, ids=[text for _, text, _ in ROUND_TRIPS])
def test_a_text_is_read_as_the_typed_object(kind: Any, text: str, value: Any) -> None:
    parsed = Grammar.from_type(kind).parse(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Annotated[int, Bound(ge=3)], "2"),
        (Annotated[str, Bound(max_length=2)], '"abc"'),
        (Annotated[set[Colour], Bound(min_length=2)], '["red","red"]'),
        (tuple[int, str], "[1]"),
        (Options, "{}"),
        (Options, '{"name":"n","other":1}'),
        (Tree, '{"children":[]}'),
        (dict[int, bool], '{"x":true}'),
        (Literal[1], "true"),
        (datetime.datetime, '"2026-11-23T23:59:60Z"'),
        (datetime.date, '"2026-02-30"'),
        (datetime.date, '"0000-01-01"'),
        (decimal.Decimal, '"1e5"'),
        (bytes, '"abc"'),
        (datetime.timedelta, '"P"'),
        (datetime.timedelta, '"P1DT"'),
    ],
)
def test_what_is_not_of_the_type_is_not_in_the_language(kind: Any, text: str) -> None:
    grammar = Grammar.from_type(kind)
    assert not grammar.accepts(text)
    with pytest.raises(ValueError, match="the text"):
        grammar.parse(text)


def lookup(city: str, days: Annotated[int, Bound(ge=1)] = 1) -> tuple[str, int]:
    return city, days


def test_a_function_is_the_object_of_its_parameters() -> None:
    arguments = Grammar.from_type(lookup).parse('{"city":"Oslo","days":3}')
    assert lookup(**arguments) == ("Oslo", 3)
    assert lookup(**Grammar.from_type(lookup).parse('{"city":"Oslo"}')) == ("Oslo", 1)


def unannotated(city):  # type: ignore[no-untyped-def]
    return city


def variadic(*cities: str) -> None:
    pass


@dataclass
class Holder:
    items: list[complex]


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        (complex, "complex"),
        (Holder, r"Holder\.items\[\]"),
        (unannotated, r"unannotated\.city"),
        (variadic, r"variadic\.cities"),
        (dict[bytes | float, int], "keys"),
        (Literal[b"x"], "Literal"),
        (Annotated[str, Bound(ge=1)], "ge=1"),
        (list["Nowhere"], "Nowhere"),  # noqa: F821
    ],
)
def test_what_has_no_schema_is_refused_by_place(kind: Any, place: str) -> None:
    with pytest.raises(GrammarError, match=place):
        Grammar.from_type(kind)


@dataclass
class Checked:
    value: int

    def __post_init__(self) -> None:
        if self.value == 13:
            raise ArithmeticError("unlucky")


def test_python_code_is_reported_and_runs_in_parse() -> None:
    grammar = Grammar.from_type(Checked)
    assert ("Checked", "approximated") in {row[:2] for row in grammar.report}
    with pytest.raises(ArithmeticError, match="unlucky"):
        grammar.parse('{"value":13}')


def test_pydantic_models_bring_schema_and_validation() -> None:
    pydantic = pytest.importorskip("pydantic")

    class Line(pydantic.BaseModel):
        price: float = pydantic.Field(ge=0)
        parts: list[Line] = pydantic.Field(default_factory=list)

    class Invoice(pydantic.BaseModel):
        number: Annotated[str, pydantic.Field(pattern="^[A-Z]{2}[0-9]+$")]
        day: datetime.date
        lines: Annotated[list[Line], pydantic.Field(min_length=1)]

        @pydantic.field_validator("number")
        @classmethod
        def not_zero(cls, value: str) -> str:
            if value.endswith("0"):
                raise ValueError("ends with 0")
            return value

    Line.model_rebuild()
    grammar = Grammar.from_type(Invoice)
    invoice = Invoice(number="AB1", day=datetime.date(2026, 1, 2), lines=[Line(price=1.5, parts=[Line(price=0)])])
    assert grammar.parse(invoice.model_dump_json()) == invoice
    assert grammar.parse(json.dumps(invoice.model_dump(mode="json"))) == invoice
    assert not grammar.accepts(invoice.model_dump_json().replace("1.5", "-1.5"))
    assert any(row.status == "approximated" and "not_zero" in row.reason for row in grammar.report)
    with pytest.raises(ValueError, match="ends with 0"):
        grammar.parse(invoice.model_dump_json().replace("AB1", "AB0"))
    assert Grammar.from_type(list[Invoice]).parse(f"[{invoice.model_dump_json()}]") == [invoice]
    with pytest.raises(GrammarError, match="Predicate"):
        Grammar.from_type(Annotated[int, pytest.importorskip("annotated_types").Predicate(bool)])


def test_a_grammar_without_a_meaning_says_so() -> None:
    with pytest.raises(TypeError, match="from_type"):
        Grammar.from_regex("a").parse("a")
