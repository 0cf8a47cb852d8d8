"""Random JSON Schemas and random values over a small world, so that keywords meet and values often satisfy them.

Keys are a, b, c and ab; strings are short texts over a and b; numbers are small integers and halves. Schemas use every
keyword but `format` and `$dynamicRef`, and `unevaluated...` in 2020-12 alone (in 2019-09 the judge is wrong about
additionalProperties and contains beside them); Python's `re` and ECMA-262 agree on the patterns. References lead to
`$defs`, in cycles only through properties and items.

`judge` judges with the `jsonschema` library on decimal arithmetic: an integer is a number without a fraction
(draft 4: a text without one), `multipleOf` is exact.
"""

from __future__ import annotations

import json
import random
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


class RandomSchemas:
    """Schemas of one draft and values for them, from one random stream."""

    def __init__(self, rng: random.Random, draft: str = "2020-12") -> None:
        self.rng = rng
        self.draft = draft
        self.definitions: list[str] = []
        self.constants: list[Any] = []  # of the schemas made so far

    # --- values

    def scalar(self) -> Any:
        return self.rng.choice(
            (None, True, False, decimals(self.rng.choice(NUMBERS)), self.rng.choice(STRINGS), self.rng.choice(STRINGS))
        )

    def value(self, depth: int = 2) -> Any:
        kind = self.rng.random()
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

    def schema(self, depth: int, *, in_definition: bool = False, guarded: bool = False) -> Any:
        rng = self.rng
        if rng.random() < 0.06 and self.draft != "4":
            return rng.random() < 0.7
        if self.definitions and rng.random() < 0.15 and (guarded or not in_definition):
            place = "definitions" if self.draft in ("7", "4") else "$defs"
            return {"$ref": f"#/{place}/{rng.choice(self.definitions)}"}
        makers = self.leaf_makers() + (self.deep_makers(depth, in_definition) if depth else [])
        schema: dict[str, Any] = {}
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


def _validator(draft: str) -> Any:
    base: Any = {
        "2020-12": jsonschema.Draft202012Validator,
        "2019-09": jsonschema.Draft201909Validator,
        "7": jsonschema.Draft7Validator,
        "4": jsonschema.Draft4Validator,
    }[draft]
    checker = base.TYPE_CHECKER.redefine("integer", _is_integer_text if draft == "4" else _is_integer)
    return validators.extend(base, {"multipleOf": _multiple_of}, type_checker=checker)


VALIDATORS = {draft: _validator(draft) for draft in DRAFTS}


def judge(schema: Any, draft: str) -> Callable[[Any], bool]:
    validator = VALIDATORS[draft](schema)
    return lambda value: bool(validator.is_valid(value))
