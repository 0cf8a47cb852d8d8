"""Random JSON Schemas and random values over a small world, so that keywords meet and values often satisfy them.

Keys are a, b, c and ab; strings are short texts over a and b; numbers are small integers and halves. `unevaluated...`
comes in 2020-12 alone (in 2019-09 the judge is wrong about additionalProperties and contains beside them); Python's
`re` and ECMA-262 agree on the patterns. References lead to `$defs`, in cycles only through properties and items. No
`$ref` leads to a `$dynamicAnchor` (the judge follows it dynamically). Some keywords have kinds of schemas of their own
(KINDS), in which they are frequent:

    dynamic      $dynamicRef, $dynamicAnchor, $anchor and $id in several resources that refer to each other (2020-12)
    formats      format beside pattern, lengths, enum and not, over strings that are nearly of a format
    unevaluated  unevaluatedProperties and unevaluatedItems beside references, conditions and applicators (2020-12)
    unique       uniqueItems over strings and other items, in nested arrays

`judge` judges with the `jsonschema` library on decimal arithmetic: an integer is a number without a fraction
(draft 4: a text without one), `multipleOf` is exact. Formats are judged by the functions in FORMATS.
"""

from __future__ import annotations

import datetime
import ipaddress
import itertools
import json
import random
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import jsonschema
from jsonschema import validators

DRAFTS = ("2020-12", "2019-09", "7", "4")
URIS = {
    "2020-12": "https://json-schema.org/draft/2020-12/schema",
    "2019-09": "https://json-schema.org/draft/2019-09/schema",
    "7": "http://json-schema.org/draft-07/schema#",
    "4": "http://json-schema.org/draft-04/schema#",
}
KEYS = ("a", "b", "c", "ab")
STRINGS = ("", "a", "b", "ab", "ba", "aa", "abb", "c")
NUMBERS = ("-1", "0", "1", "2", "3", "4", "0.5", "1.5", "1.0", "-0.5", "10", "2.00")
PATTERNS = ("a", "^a", "b$", "^[ab]+$", "^a*$", "^(a|bb)", "aa|b", "^.{2}", "[^a]", "^$")
KINDS = {"plain": DRAFTS, "dynamic": ("2020-12",), "formats": DRAFTS, "unevaluated": ("2020-12",), "unique": DRAFTS}
TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")


def decimals(text: str) -> Any:
    return json.loads(text, parse_float=Decimal)


def dumps(value: Any) -> str:
    """JSON text of a value whose fractions are `Decimal`, written as they are."""
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {dumps(member)}" for key, member in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(dumps, value)) + "]"
    return json.dumps(value)


def _is_date(text: str) -> bool:
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        return False
    try:
        datetime.date.fromisoformat(text.replace("0000", "2000", 1))  # RFC 3339 has the year 0000, a leap year
    except ValueError:
        return False
    return True


def _is_address(kind: Callable[[str], object]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            kind(text)
        except ValueError:
            return False
        return "%" not in text  # a zone is no part of RFC 4291's text form

    return check


_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"


def _is_host_name(text: str) -> bool:
    labels = re.fullmatch(rf"{_LABEL}(\.{_LABEL})*", text) and len(text) <= 253
    return bool(labels) and not any(label[2:4] == "--" for label in text.split("."))


def _matches(pattern: str) -> Callable[[str], bool]:
    return lambda text: re.fullmatch(pattern, text) is not None


_UUID = "2eb8aa08-aa98-11ea-b4aa-73b441d16380"
_TIME = "T([0-9]+H([0-9]+M([0-9]+S)?)?|[0-9]+M([0-9]+S)?|[0-9]+S)"
_DAYS = "([0-9]+Y([0-9]+M([0-9]+D)?)?|[0-9]+M([0-9]+D)?|[0-9]+D)"

# Judges of some formats that share no code with src/, and strings that are nearly of each.
FORMATS: dict[str, tuple[Callable[[str], bool], tuple[str, ...]]] = {
    "date": (_is_date, ("2024-02-29", "2023-02-29", "0000-01-01", "2023-12-31", "2023-1-01", "1999-11-30")),
    "ipv4": (_is_address(ipaddress.IPv4Address), ("1.2.3.4", "127.0.0.1", "256.1.1.1", "10.0.0.255", "1.2.3")),
    "ipv6": (_is_address(ipaddress.IPv6Address), ("::", "::1", "1::2", "1:2:3:4:5:6:7:8", "::ffff:1.2.3.4", "1:::2")),
    "uuid": (_matches("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"), (_UUID, _UUID.upper(), _UUID[:-1])),
    "hostname": (
        _is_host_name,
        ("a.b", "www.example.com", "a", "-a.b", "a-b.c", "a..b", "1.2.3.4", "ab--cd", "x" * 64),
    ),
    "json-pointer": (_matches("(/([^~/]|~[01])*)*"), ("", "/", "/a/b", "/a~0", "/a~2", "a", "//", "/a~1b/0")),
    "duration": (
        _matches(f"P({_DAYS}({_TIME})?|{_TIME}|[0-9]+W)"),
        ("P1D", "P1Y2M3D", "PT1H", "P1W", "P", "P1YT", "PT1H30M", "P1D2H", "P2Y4D"),
    ),
}
FORMAT_PATTERNS = (
    *("^1", "0", "1$", "-", r"^[0-9.]+$", "^[^0]+$", "[a-f]", "^2.*3", ".{8}", "^.{1,10}$", r"\.", ":", "^P", "/a"),
    *("^(::)?1?", "[0-9]{4}", "^[A-Z0-9-]+$", "(a|b)$", "T", "^.?$"),
)


class RandomSchemas:
    """Schemas of one draft and one kind, and values for them, from one random stream."""

    def __init__(self, rng: random.Random, draft: str = "2020-12", kind: str = "plain") -> None:
        self.rng = rng
        self.draft = draft
        self.kind = kind
        self.definitions: list[str] = []
        self.resources: list[str] = []  # identifiers of the other resources (kind 'dynamic')
        self.anchored = self.plainly_anchored = False  # has the resource that is being made an anchor n, a plain one?
        self.constants: list[Any] = []  # of the schemas made so far

    # --- values

    def text(self) -> str:
        """Nearly of some format."""
        text = self.rng.choice(self.rng.choice(tuple(FORMATS.values()))[1])
        if self.rng.random() < 0.4 and text:
            at = self.rng.randrange(len(text))
            text = text[:at] + self.rng.choice(("", "0", "1", "9", "a", "F", ".", ":", "-", "/", "~")) + text[at + 1 :]
        return text

    def scalar(self) -> Any:
        if self.kind == "formats" and self.rng.random() < 0.8:
            return self.text()
        return self.rng.choice(
            (None, True, False, decimals(self.rng.choice(NUMBERS)), self.rng.choice(STRINGS), self.rng.choice(STRINGS))
        )

    def value(self, depth: int = 2) -> Any:
        kind = self.rng.random()
        if self.kind == "formats" and self.rng.random() < 0.7:
            return self.scalar()
        if self.kind == "unique" and depth and self.rng.random() < 0.6:
            items = [self.value(depth - 1) for _ in range(self.rng.choice((1, 2, 2, 3, 4)))]
            return items + ([self.rng.choice(items)] if self.rng.random() < 0.3 else [])
        if self.constants and self.rng.random() < 0.1:
            return self.rng.choice(self.constants)
        if depth == 0 or kind < 0.4:
            return self.scalar()
        if kind < 0.65:
            return [self.value(depth - 1) for _ in range(self.rng.choice((0, 1, 1, 2, 2, 3, 4)))]
        keys = self.rng.sample(KEYS, self.rng.choice((0, 1, 1, 2, 2, 3, 4)))
        return {key: self.value(depth - 1) for key in keys}

    # --- schemas

    def document(self) -> Any:
        if self.kind == "dynamic":
            return self.dynamic_document()
        self.definitions = [f"d{i}" for i in range(self.rng.choice((0, 0, 1, 2)))]
        place = "definitions" if self.draft in ("7", "4") else "$defs"
        bodies = {name: self.schema(2, in_definition=True) for name in self.definitions}
        schema = self.schema(3)
        if not isinstance(schema, dict):
            return schema
        if bodies:
            if self.draft in ("7", "4") and "$ref" in schema:  # siblings of $ref do not count there
                schema = {"allOf": [schema]}
            schema[place] = bodies
        return schema

    def dynamic_document(self) -> Any:
        """A root and one to three resources in its $defs, most with an anchor n, dynamic or not, there or inside."""
        self.resources = [f"r{i}" for i in range(self.rng.choice((1, 2, 2, 3)))]

        def resource(identifier: str, in_definition: bool) -> dict[str, Any]:
            place = self.rng.random()
            anchor = {"$dynamicAnchor" if self.rng.random() < 0.8 else "$anchor": "n"}
            self.anchored = place < 0.85
            self.plainly_anchored = self.anchored and "$anchor" in anchor
            body = self.schema(2, in_definition=in_definition)
            while not isinstance(body, dict):
                body = self.schema(2, in_definition=in_definition)
            inner = self.schema(1, in_definition=True) if 0.6 <= place < 0.85 else True
            if place < 0.6:
                body |= anchor
            elif isinstance(inner, dict):
                body["$defs"] = {"inner": inner | anchor}
            elif self.anchored:
                body["$defs"] = {"inner": dict(anchor)}
            return {"$id": identifier, **body}

        root = resource("http://example.com/root", False)
        root.setdefault("$defs", {}).update({name: resource(name, True) for name in self.resources})
        return root

    def dynamic_reference(self) -> dict[str, Any]:
        options = [{"$ref": name} for name in self.resources]
        if self.anchored:
            options += [{"$dynamicRef": "#n"}] * 3 + [{"$ref": "#"}]
        if self.plainly_anchored:
            options.append({"$ref": "#n"})
        return self.rng.choice(options)

    def schema(self, depth: int, *, in_definition: bool = False, guarded: bool = False) -> Any:
        rng = self.rng
        if rng.random() < 0.06 and self.draft != "4":
            return rng.random() < 0.7
        if self.resources and guarded and rng.random() < 0.4:
            return self.dynamic_reference() | (rng.choice(self.leaf_makers())() if rng.random() < 0.2 else {})
        if self.resources and not in_definition and not guarded and rng.random() < 0.3:
            return {"$ref": rng.choice(self.resources)}
        if self.definitions and rng.random() < 0.15 and (guarded or not in_definition):
            place = "definitions" if self.draft in ("7", "4") else "$defs"
            return {"$ref": f"#/{place}/{rng.choice(self.definitions)}"}
        makers = self.leaf_makers() + (self.deep_makers(depth, in_definition) if depth else [])
        schema: dict[str, Any] = {}
        if self.kind == "unevaluated" and rng.random() < 0.5:
            keyword = rng.choice(("unevaluatedProperties", "unevaluatedProperties", "unevaluatedItems"))
            schema[keyword] = rng.choice((False, False, {"type": rng.choice(TYPES)}))
            if self.definitions and (guarded or not in_definition):
                schema["$ref"] = f"#/$defs/{rng.choice(self.definitions)}"
        if self.kind == "unique" and rng.random() < 0.6:
            schema |= {"type": "array", "uniqueItems": True}
        for _ in range(rng.choice((1, 1, 2, 2, 3, 4))):
            schema.update(rng.choice(makers)())
        if not isinstance(schema.get("items"), list):
            schema.pop("additionalItems", None)  # without effect, and the judge stumbles over it
        return schema

    def leaf_makers(self) -> list[Callable[[], dict[str, Any]]]:
        rng = self.rng

        def number() -> Any:
            return decimals(rng.choice(NUMBERS))

        def exclusive(keyword: str) -> dict[str, Any]:
            if self.draft == "4":
                plain = {"exclusiveMinimum": "minimum", "exclusiveMaximum": "maximum"}[keyword]
                return {plain: number(), keyword: rng.random() < 0.7}
            return {keyword: number()}

        def divisor() -> Any:
            return decimals(rng.choice(("1", "2", "3", "0.5", "0.25", "1.5")))

        def constants(count: int) -> list[Any]:
            values = self.distinct([self.value(1) for _ in range(count)])
            self.constants += values
            return values

        def constant() -> dict[str, Any]:
            return {"enum": constants(1)} if self.draft == "4" else {"const": constants(1)[0]}

        def required() -> dict[str, Any]:
            return {"required": rng.sample(KEYS, rng.choice((1, 1, 2)))}

        def near(length: int) -> int:
            return max(0, length + rng.choice((-2, -1, 0, 0, 1, 2)))

        if self.kind == "formats" and rng.random() < 0.8:
            return [
                lambda: {"format": rng.choice(tuple(FORMATS))},
                lambda: {"format": rng.choice(tuple(FORMATS))},
                lambda: {"pattern": rng.choice(FORMAT_PATTERNS)},
                lambda: {"pattern": rng.choice(FORMAT_PATTERNS)},
                lambda: {"minLength": near(len(self.text()))},
                lambda: {"maxLength": near(len(self.text()))},
                lambda: {"not": {"pattern": rng.choice(FORMAT_PATTERNS)}},
                lambda: {"not": {"format": rng.choice(tuple(FORMATS))}},
                lambda: {"allOf": [{"pattern": rng.choice(FORMAT_PATTERNS)}, {"format": rng.choice(tuple(FORMATS))}]},
                lambda: {"enum": self.distinct([self.text() for _ in range(4)])},
                lambda: {"type": "string"},
            ]
        return [
            lambda: {"type": rng.choice(TYPES)},
            lambda: {"type": rng.sample(TYPES, rng.choice((1, 2, 3)))},
            lambda: {"enum": constants(rng.choice((1, 2, 3, 4)))},
            constant,
            lambda: {"minimum": number()},
            lambda: {"maximum": number()},
            lambda: exclusive("exclusiveMinimum"),
            lambda: exclusive("exclusiveMaximum"),
            lambda: {"multipleOf": divisor()},
            lambda: {"minLength": rng.randrange(3)},
            lambda: {"maxLength": rng.randrange(4)},
            lambda: {"pattern": rng.choice(PATTERNS)},
            lambda: {"minItems": rng.randrange(4)},
            lambda: {"maxItems": rng.randrange(4)},
            lambda: {"uniqueItems": True},
            required,
            required,
            lambda: {"minProperties": rng.randrange(4)},
            lambda: {"maxProperties": rng.randrange(4)},
        ]

    @staticmethod
    def distinct(values: list[Any]) -> list[Any]:
        kept: list[Any] = []
        for value in values:
            if all(dumps(value) != dumps(other) for other in kept):
                kept.append(value)
        return kept

    def deep_makers(self, depth: int, in_definition: bool) -> list[Callable[[], dict[str, Any]]]:
        rng = self.rng

        def here() -> Any:
            return self.schema(depth - 1, in_definition=in_definition)

        def below() -> Any:
            return self.schema(depth - 1, in_definition=in_definition, guarded=True)

        def some(least: int = 1) -> list[Any]:
            return [here() for _ in range(rng.choice((least, 2, 2, 3)))]

        def conditional() -> dict[str, Any]:
            schema = {"if": here()}
            for branch in rng.sample(("then", "else"), rng.choice((1, 2))):
                schema[branch] = here()
            return schema

        def keyed() -> dict[str, Any]:
            return {key: below() for key in rng.sample(KEYS, rng.choice((1, 1, 2, 3)))}

        def prefix() -> dict[str, Any]:
            schemas = [below() for _ in range(rng.choice((1, 2, 2, 3)))]
            return {"prefixItems": schemas} if self.draft == "2020-12" else {"items": schemas}

        def after_prefix() -> dict[str, Any]:
            if self.draft == "2020-12":
                return prefix() | {"items": below()}
            return prefix() | {"additionalItems": below() if self.draft != "4" or rng.random() < 0.5 else False}

        def contains() -> dict[str, Any]:
            schema = {"contains": below()}
            if self.draft in ("2020-12", "2019-09"):
                if rng.random() < 0.4:
                    schema["minContains"] = rng.randrange(3)
                if rng.random() < 0.4:
                    schema["maxContains"] = rng.randrange(1, 3)
            return schema

        def dependent() -> dict[str, Any]:
            key = rng.choice(KEYS)
            if rng.random() < 0.5:
                needed = rng.sample(KEYS, rng.choice((1, 2)))
                return {"dependencies" if self.draft in ("7", "4") else "dependentRequired": {key: needed}}
            return {"dependencies" if self.draft in ("7", "4") else "dependentSchemas": {key: here()}}

        makers: list[Callable[[], dict[str, Any]]] = [
            lambda: {"properties": keyed()},
            lambda: {"properties": keyed()},
            lambda: {"properties": keyed(), "additionalProperties": below() if rng.random() < 0.5 else False},
            lambda: {"additionalProperties": below()},
            lambda: {"patternProperties": {rng.choice(PATTERNS): below() for _ in range(rng.choice((1, 2)))}},
            lambda: {"items": below()},
            prefix,
            after_prefix,
            dependent,
            lambda: {"allOf": some()},
            lambda: {"anyOf": some()},
            lambda: {"oneOf": some()},
            lambda: {"not": here()},
        ]
        if self.draft != "4":
            makers += [conditional, contains, lambda: {"propertyNames": here()}]
        if self.draft == "2020-12":
            makers += [
                lambda: {"unevaluatedProperties": below() if rng.random() < 0.4 else False},
                lambda: {"unevaluatedItems": below() if rng.random() < 0.4 else False},
            ]
        return makers


# --- the judge


def _is_integer(_: Any, value: Any) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (isinstance(value, Decimal) and value == value.to_integral_value())


def _is_integer_text(_: Any, value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _multiple_of(_: Any, divisor: Any, value: Any, __: Any) -> Any:
    if isinstance(value, int | Decimal) and not isinstance(value, bool) and Decimal(value) % Decimal(divisor):
        yield jsonschema.ValidationError(f"{value} is not a multiple of {divisor}")


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    return bool(a == b)


def _unique_items(_: Any, wanted: Any, value: Any, __: Any) -> Any:
    """Each against each: the library sorts and looks at neighbours, and finds none equal in [0], [false], [0]."""
    if wanted and isinstance(value, list) and any(_same(a, b) for a, b in itertools.combinations(value, 2)):
        yield jsonschema.ValidationError(f"{value} has equal items")


def _validator(draft: str) -> Any:
    base: Any = {
        "2020-12": jsonschema.Draft202012Validator,
        "2019-09": jsonschema.Draft201909Validator,
        "7": jsonschema.Draft7Validator,
        "4": jsonschema.Draft4Validator,
    }[draft]
    checker = base.TYPE_CHECKER.redefine("integer", _is_integer_text if draft == "4" else _is_integer)
    return validators.extend(base, {"multipleOf": _multiple_of, "uniqueItems": _unique_items}, type_checker=checker)


VALIDATORS = {draft: _validator(draft) for draft in DRAFTS}


CHECKER = jsonschema.FormatChecker(formats=())
for _name, (_holds, _) in FORMATS.items():
    CHECKER.checkers = {
        **CHECKER.checkers,
        _name: ((lambda value, holds=_holds: not isinstance(value, str) or holds(value)), ()),
    }


def judge(schema: Any, draft: str, formats: bool = False) -> Callable[[Any], bool]:
    """Is a value valid? `formats`: are those in FORMATS asserted?"""
    validator = VALIDATORS[draft](schema, format_checker=CHECKER if formats else None)
    return lambda value: bool(validator.is_valid(value))
