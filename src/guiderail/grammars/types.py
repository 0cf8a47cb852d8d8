"""Python types → JSON Schema, and back: what a text of that schema is as a typed object.

One walk over a type gives both directions, so they cannot drift apart: a schema, and a function from a JSON value to
the object. pydantic is not needed; its models bring their own schema and their own validation.

    dataclass, TypedDict      an object; undeclared names are forbidden
    NamedTuple, tuple[…]      an array of that length
    Enum, Literal             one of the values
    Union, Optional           the first member whose schema the value satisfies
    datetime, date, time      ISO 8601 as RFC 3339 has it, at most microseconds, no leap second
    timedelta                 P…DT…H…M…S
    Decimal, bytes            a string: plain notation, base64 (RFC 4648)
    Annotated[T, …]           ge, gt, le, lt, multiple_of, min_length, max_length, pattern
    a function                an object of its parameters; the object is what `function(**object)` takes

What has no schema is refused, and the message names the place (`Invoice.lines[].price`). What Python code decides
(validators) is reported as 'approximated': `parse` checks it, decoding cannot.
"""

from __future__ import annotations

import base64
import collections.abc
import dataclasses
import datetime
import decimal
import enum
import inspect
import json
import pathlib
import re
import types
import typing
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from guiderail.errors import GrammarError

if TYPE_CHECKING:
    from guiderail.grammars.grammar import Grammar

__all__ = ["TypeSchema", "type_schema"]

Decode = Callable[[Any], Any]

_DAY = "(?!0000)[0-9]{4}-[0-9]{2}-[0-9]{2}"
_CLOCK = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?"
_OFFSET = "(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
_DURATION = (
    r"-?P(?=[0-9T])(?:([0-9]{1,8})D)?"
    r"(?:T(?=[0-9])(?:([0-9]{1,8})H)?(?:([0-9]{1,8})M)?(?:([0-9]{1,8}(?:\.[0-9]{1,6})?)S)?)?"
)
_BASE64 = "([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
_DECIMAL = r"-?(0|[1-9][0-9]*)(\.[0-9]+)?"


def _duration(text: str) -> datetime.timedelta:
    found = re.fullmatch(_DURATION, text)
    assert found is not None, "the schema's pattern is the same"
    days, hours, minutes, seconds = found.groups(default="0")
    whole, _, fraction = seconds.partition(".")
    length = datetime.timedelta(int(days), int(whole), int(fraction.ljust(6, "0")), 0, int(minutes), int(hours))
    return -length if text.startswith("-") else length


def _string(pattern: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "pattern": f"^(?:{pattern})$", **more}


_SCALARS: dict[Any, tuple[dict[str, Any], Decode]] = {
    str: ({"type": "string"}, str),
    bool: ({"type": "boolean"}, bool),
    int: ({"type": "integer"}, int),
    float: ({"type": "number"}, float),
    type(None): ({"type": "null"}, lambda value: value),
    datetime.datetime: (
        _string(f"{_DAY}T{_CLOCK}{_OFFSET}", format="date-time"),
        lambda text: datetime.datetime.fromisoformat(text),
    ),
    datetime.date: (_string(_DAY, format="date"), lambda text: datetime.date.fromisoformat(text)),
    datetime.time: (_string(f"{_CLOCK}{_OFFSET}?"), lambda text: datetime.time.fromisoformat(text)),
    datetime.timedelta: (_string(_DURATION), _duration),
    uuid.UUID: ({"type": "string", "format": "uuid"}, uuid.UUID),
    decimal.Decimal: (_string(_DECIMAL), decimal.Decimal),
    bytes: (_string(_BASE64, contentEncoding="base64"), lambda text: base64.b64decode(text, validate=True)),
    pathlib.Path: ({"type": "string"}, pathlib.Path),
    pathlib.PurePath: ({"type": "string"}, pathlib.PurePath),
}

_ARRAYS: dict[Any, Callable[[Any], Any]] = {
    list: list,
    set: set,
    frozenset: frozenset,
    collections.abc.Sequence: list,
    collections.abc.MutableSequence: list,
    collections.abc.Iterable: list,
    collections.abc.Set: frozenset,
    collections.abc.MutableSet: set,
}
_OBJECTS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_NUMBER_BOUNDS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
}
_LENGTHS = {
    "string": ("minLength", "maxLength"),
    "array": ("minItems", "maxItems"),
    "object": ("minProperties", "maxProperties"),
}


class TypeSchema(NamedTuple):
    """A type read.

    Args:
        schema: JSON Schema, dialect 2020-12, with its own `$defs`.
        decode: a JSON value that satisfies the schema → the typed object.
        report: rows (place, status, reason) for what the schema cannot say.
    """

    schema: dict[str, Any]
    decode: Decode
    report: list[tuple[str, str, str]]


def type_schema(kind: Any) -> TypeSchema:
    """Read a type. Raises: GrammarError, with the place, for what has no schema."""
    reader = _Reader()
    schema, decode = reader.read(kind, _name(kind), {})
    if reader.definitions:
        schema = {**schema, "$defs": reader.definitions}
    return TypeSchema(schema, decode, reader.report)


class _Reader:
    def __init__(self) -> None:
        self.definitions: dict[str, Any] = {}
        self.report: list[tuple[str, str, str]] = []
        self._names: dict[Any, str] = {}  # classes and aliases, with their arguments → name in $defs
        self._decoders: dict[str, Decode] = {}

    def read(self, kind: Any, place: str, bound: dict[Any, Any]) -> tuple[dict[str, Any], Decode]:
        """Schema and decoder of `kind`; `bound` holds the arguments of a generic class."""
        try:
            return self._read(kind, place, bound)
        except RecursionError:
            raise GrammarError(f"{place}: the type is nested too deeply") from None

    def _read(self, kind: Any, place: str, bound: dict[Any, Any]) -> tuple[dict[str, Any], Decode]:
        if isinstance(kind, typing.TypeVar):
            if kind in bound:
                return self.read(bound[kind], place, {})
            if kind.__constraints__:
                return self.union(kind.__constraints__, place, bound)
            return self.read(kind.__bound__ if kind.__bound__ is not None else Any, place, bound)
        if kind is Any or kind is object:
            return {}, lambda value: value
        if kind is None:
            kind = type(None)
        if isinstance(kind, (str, typing.ForwardRef)):
            raise GrammarError(f"{place}: the name {kind!r} is not resolved")
        if kind in _SCALARS:
            schema, decode = _SCALARS[kind]
            return dict(schema), decode
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if origin is typing.Annotated:
            return self.annotated(arguments[0], kind.__metadata__, place, bound)
        if origin is typing.Literal:
            return self.values([(value, value) for value in arguments], place)
        if origin in (typing.Union, types.UnionType):
            return self.union(arguments, place, bound)
        if origin in (typing.Required, typing.NotRequired, getattr(typing, "ReadOnly", None)) and arguments:
            return self.read(arguments[0], place, bound)
        if hasattr(kind, "__supertype__"):
            return self.read(kind.__supertype__, place, bound)
        arguments = tuple(bound.get(a, a) if isinstance(a, typing.TypeVar) else a for a in arguments)
        if hasattr(kind, "__value__"):  # `type X = …` of PEP 695
            parameters = getattr(origin or kind, "__type_params__", ())
            inner = dict(zip(parameters, arguments, strict=False))
            return self.defined(kind, (origin or kind, arguments), lambda: self.read(kind.__value__, place, inner))
        base = origin or kind
        if base in _ARRAYS:
            return self.array(base, arguments[0] if arguments else Any, place, bound)
        if base is tuple:
            return self.fixed_array(arguments, place, bound)
        if base in _OBJECTS:
            return self.mapping(arguments or (str, Any), place, bound)
        if not inspect.isclass(base):
            if inspect.isfunction(kind) or inspect.ismethod(kind):
                return self.function(kind, place)
            raise GrammarError(f"{place}: {kind!r} has no JSON Schema")
        inner = dict(zip(getattr(base, "__parameters__", ()), arguments, strict=False))
        reading: Callable[[], tuple[dict[str, Any], Decode]] | None = None
        if issubclass(base, enum.Enum):
            return self.values([(member.value, member) for member in base], place)
        if hasattr(base, "model_json_schema"):
            return self.model(kind, place)
        if dataclasses.is_dataclass(base):
            reading = lambda: self.data_class(base, _name(kind), inner)  # noqa: E731
        elif typing.is_typeddict(base):
            reading = lambda: self.typed_dict(base, _name(kind), inner)  # noqa: E731
        elif issubclass(base, tuple) and hasattr(base, "_fields"):
            reading = lambda: self.named_tuple(base, _name(kind), inner)  # noqa: E731
        if reading is None:
            raise GrammarError(f"{place}: {_name(kind)} has no JSON Schema")
        return self.defined(kind, (base, arguments), reading)

    def defined(
        self, kind: Any, key: Any, read: Callable[[], tuple[dict[str, Any], Decode]]
    ) -> tuple[dict[str, Any], Decode]:
        """A type with a name stands in `$defs`, once, so that it may refer to itself."""
        try:
            name = self._names.get(key)
        except TypeError:  # arguments that cannot be hashed
            key = repr(key)
            name = self._names.get(key)
        if name is None:
            wanted = re.sub(r"[^A-Za-z0-9_.]+", "_", _name(kind)).strip("_") or "type"
            name, number = wanted, 2
            while name in self.definitions:
                name, number = f"{wanted}_{number}", number + 1
            self._names[key] = name
            self.definitions[name] = True  # taken, while it is being read
            self.definitions[name], self._decoders[name] = read()
        return {"$ref": f"#/$defs/{name}"}, lambda value: self._decoders[name](value)

    # --- scalars --------------------------------------------------------------------------------------------------

    def values(self, pairs: list[tuple[Any, Any]], place: str) -> tuple[dict[str, Any], Decode]:
        table: dict[tuple[str, Any], Any] = {}
        for value, meaning in pairs:
            written = value.value if isinstance(value, enum.Enum) else value
            if written is not None and not isinstance(written, (str, int, float, bool)):
                raise GrammarError(f"{place}: the value {value!r} is not a JSON scalar")
            table.setdefault(_scalar_key(written), meaning)
        if not table:
            raise GrammarError(f"{place}: no values, so nothing can be written")
        return {"enum": [written for _, written in table]}, lambda value: table[_scalar_key(value)]

    def annotated(
        self, kind: Any, metadata: tuple[Any, ...], place: str, bound: dict[Any, Any]
    ) -> tuple[dict[str, Any], Decode]:
        flat: list[Any] = []
        for item in metadata:
            if hasattr(item, "metadata"):  # pydantic's FieldInfo
                flat += item.metadata
                if getattr(item, "description", None):
                    flat.append(item.description)
            elif hasattr(item, "__is_annotated_types_grouped_metadata__"):
                flat += list(item)
            else:
                flat.append(item)
        schema, decode = self.read(kind, place, bound)
        extra: dict[str, Any] = {}
        for item in flat:
            self.constraint(item, schema, extra, place)
        if "uniqueItems" not in schema and ("minItems" in extra) and kind_is_set(kind):
            extra["uniqueItems"] = True  # elements that repeat would not count
        return ({"allOf": [schema], **extra} if "$ref" in schema and extra else {**schema, **extra}), decode

    def constraint(self, item: Any, schema: dict[str, Any], extra: dict[str, Any], place: str) -> None:
        if isinstance(item, str):
            extra["description"] = item
            return
        kind, found = schema.get("type"), False
        for name, keyword in _NUMBER_BOUNDS.items():
            value = getattr(item, name, None)
            if value is None:
                continue
            found = True
            if kind not in ("integer", "number") or isinstance(value, bool) or not isinstance(value, (int, float)):
                raise GrammarError(f"{place}: the bound {name}={value!r} cannot be enforced on this type")
            extra[keyword] = value
        for name, index in (("min_length", 0), ("max_length", 1)):
            value = getattr(item, name, None)
            if value is None:
                continue
            found = True
            if name == "min_length" and value == 0:
                continue
            if kind not in _LENGTHS or "contentEncoding" in schema or (kind == "string" and "pattern" in schema):
                raise GrammarError(f"{place}: {name} cannot be enforced on this type")
            extra[_LENGTHS[kind][index]] = value
        pattern = getattr(item, "pattern", None)
        if pattern is not None:
            found = True
            pattern = getattr(pattern, "pattern", pattern)
            if schema != {"type": "string"}:
                raise GrammarError(f"{place}: a pattern cannot be enforced on this type")
            extra["pattern"] = pattern
        if found:
            return
        if callable(getattr(item, "func", None)) or type(item).__name__ in ("Not", "Timezone", "Unit"):
            raise GrammarError(f"{place}: {item!r} is Python code and cannot be enforced while decoding")
        self.report.append((place, "annotation", f"{type(item).__name__} has no meaning here"))

    # --- alternatives and containers ------------------------------------------------------------------------------

    def union(self, members: tuple[Any, ...], place: str, bound: dict[Any, Any]) -> tuple[dict[str, Any], Decode]:
        read = [self.read(member, place, bound) for member in members]
        schemas = [schema for schema, _ in read]
        grammars: list[Grammar] = []

        def decode(value: Any) -> Any:
            if not grammars:
                from guiderail.grammars.grammar import Grammar

                grammars.extend(
                    Grammar.from_json_schema({**schema, "$defs": self.definitions}, property_order="free")
                    for schema in schemas
                )
            text = json.dumps(value)
            for grammar, (_, decode_member) in zip(grammars, read, strict=True):
                if grammar.accepts(text):
                    return decode_member(value)
            raise AssertionError(f"{place}: the value satisfies the union but none of its members")

        return {"anyOf": schemas}, decode

    def array(self, base: Any, item: Any, place: str, bound: dict[Any, Any]) -> tuple[dict[str, Any], Decode]:
        schema, decode = self.read(item, f"{place}[]", bound)
        make = _ARRAYS[base]
        result: dict[str, Any] = {"type": "array", "items": schema}
        if make in (set, frozenset):
            if "enum" in schema or schema.get("type") in ("boolean", "null"):
                result["uniqueItems"] = True
            else:
                self.report.append((place, "annotation", "an element of the set may be written twice; it counts once"))
        return result, lambda values: make(decode(value) for value in values)

    def fixed_array(self, items: tuple[Any, ...], place: str, bound: dict[Any, Any]) -> tuple[dict[str, Any], Decode]:
        if not items or (len(items) == 2 and items[1] is Ellipsis):
            schema, decode = self.array(list, items[0] if items else Any, place, bound)
            return schema, lambda values: tuple(decode(values))
        if items == ((),):
            items = ()
        read = [self.read(item, f"{place}[{i}]", bound) for i, item in enumerate(items)]
        return _fixed([schema for schema, _ in read], len(read)), lambda values: tuple(
            decode(value) for (_, decode), value in zip(read, values, strict=True)
        )

    def mapping(self, arguments: tuple[Any, ...], place: str, bound: dict[Any, Any]) -> tuple[dict[str, Any], Decode]:
        key, value = arguments
        key_schema, decode_key = self.read(key, f"{place}.keys", bound)
        schema, decode = self.read(value, f"{place}.*", bound)
        result: dict[str, Any] = {"type": "object", "additionalProperties": schema}
        if key_schema == {"type": "integer"}:
            result["propertyNames"] = {"pattern": "^-?(0|[1-9][0-9]*)$"}
        elif key_schema.get("type") == "string" or all(isinstance(v, str) for v in key_schema.get("enum", [0])):
            if key_schema != {"type": "string"}:
                result["propertyNames"] = key_schema
        elif key_schema:
            raise GrammarError(f"{place}.keys: the keys of an object are strings")
        return result, lambda values: {decode_key(k): decode(v) for k, v in values.items()}

    # --- classes ---------------------------------------------------------------------------------------------------

    def hints(self, base: Any, place: str) -> dict[str, Any]:
        try:
            return typing.get_type_hints(base, localns={getattr(base, "__name__", ""): base}, include_extras=True)
        except (NameError, TypeError, SyntaxError) as error:
            raise GrammarError(f"{place}: its annotations cannot be resolved: {error}") from None

    def record(
        self, fields: list[tuple[str, Any, bool]], place: str, bound: dict[Any, Any]
    ) -> tuple[dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]]]:
        read = {name: self.read(kind, f"{place}.{name}", bound) for name, kind, _ in fields}
        schema: dict[str, Any] = {"type": "object", "properties": {name: s for name, (s, _) in read.items()}}
        required = [name for name, _, is_required in fields if is_required]
        if required:
            schema["required"] = required
        schema["additionalProperties"] = False
        return schema, lambda values: {name: read[name][1](value) for name, value in values.items()}

    def data_class(self, base: Any, place: str, bound: dict[Any, Any]) -> tuple[dict[str, Any], Decode]:
        hints = self.hints(base, place)
        fields = [
            (f.name, hints[f.name], f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING)
            for f in dataclasses.fields(base)
            if f.init
        ]
        if "__post_init__" in vars(base):
            self.report.append((place, "approximated", "__post_init__ is Python code: parse runs it, decoding cannot"))
        schema, decode = self.record(fields, place, bound)
        return schema, lambda values: base(**decode(values))

    def typed_dict(self, base: Any, place: str, bound: dict[Any, Any]) -> tuple[dict[str, Any], Decode]:
        hints = self.hints(base, place)
        # The hints say it too: under `from __future__ import annotations` the class itself has only seen strings.
        said = {typing.Required: True, typing.NotRequired: False}
        fields = [(n, k, said.get(typing.get_origin(k), n in base.__required_keys__)) for n, k in hints.items()]
        return self.record(fields, place, bound)

    def named_tuple(self, base: Any, place: str, bound: dict[Any, Any]) -> tuple[dict[str, Any], Decode]:
        hints = self.hints(base, place)
        read = [self.read(hints.get(name, Any), f"{place}.{name}", bound) for name in base._fields]
        schema = _fixed([s for s, _ in read], len(read) - len(base._field_defaults))
        return schema, lambda values: base(*(d(v) for (_, d), v in zip(read, values, strict=False)))

    def function(self, function: Any, place: str) -> tuple[dict[str, Any], Decode]:
        hints = self.hints(function, place)
        fields: list[tuple[str, Any, bool]] = []
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                raise GrammarError(f"{place}.{name}: only parameters that can be given by name are supported")
            if name not in hints:
                raise GrammarError(f"{place}.{name}: the parameter has no annotation")
            fields.append((name, hints[name], parameter.default is parameter.empty))
        return self.record(fields, place, {})

    def model(self, kind: Any, place: str) -> tuple[dict[str, Any], Decode]:
        """A pydantic model: its own schema, its own validation."""
        name = next(n for n in _numbered(re.sub(r"\W+", "_", _name(kind))) if n not in self.definitions)
        try:
            schema = kind.model_json_schema(ref_template=f"#/$defs/{name}/$defs/{{model}}")
        except Exception as error:  # pydantic's own family of errors, without importing it
            raise GrammarError(f"{place}: {error}") from None
        if "$ref" in schema and "$defs" in schema:  # a recursive model is its own definition
            schema = dict(schema)
        self.definitions[name] = schema
        seen = {kind}
        work = [kind]
        while work:
            model = work.pop()
            decorators = getattr(model, "__pydantic_decorators__", None)
            for group in ("validators", "field_validators", "root_validators", "model_validators"):
                for validator in getattr(decorators, group, {}):
                    reason = f"{validator} is Python code: parse runs it, decoding cannot"
                    self.report.append((_name(model), "approximated", reason))
            for field in getattr(model, "model_fields", {}).values():
                for part in _parts(field.annotation):
                    if inspect.isclass(part) and hasattr(part, "model_json_schema") and part not in seen:
                        seen.add(part)
                        work.append(part)
        return {"$ref": f"#/$defs/{name}"}, lambda value: kind.model_validate_json(json.dumps(value))


def kind_is_set(kind: Any) -> bool:
    """Whether `kind` is a set type."""
    return _ARRAYS.get(typing.get_origin(kind) or kind) in (set, frozenset)


def _parts(kind: Any) -> list[Any]:
    found = [kind]
    for argument in typing.get_args(kind):
        found += _parts(argument)
    return found


def _numbered(name: str) -> Any:
    yield name
    number = 2
    while True:
        yield f"{name}_{number}"
        number += 1


def _fixed(schemas: list[dict[str, Any]], required: int) -> dict[str, Any]:
    """An array of exactly these items; those after the first `required` may be missing."""
    result: dict[str, Any] = {"type": "array", "minItems": required, "maxItems": len(schemas)}
    if schemas:
        result.update(prefixItems=schemas, items=False)
    return result


def _scalar_key(value: Any) -> tuple[str, Any]:
    # JSON tells booleans from numbers, Python's == does not.
    return ("boolean" if isinstance(value, bool) else "value", value)


def _name(kind: Any) -> str:
    arguments = typing.get_args(kind)
    base = getattr(typing.get_origin(kind) or kind, "__name__", None) or str(kind)
    return f"{base}[{', '.join(map(_name, arguments))}]" if arguments else base
