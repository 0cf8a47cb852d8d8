"""What of a JSON Schema each engine enforces, drops or refuses, keyword by keyword; unsatisfiable parts; cost traps.

Ours comes from `Grammar.report` of this very schema. The others' come from lint_table.json, which
tools/probe_engines.py measured with small schemas per keyword on the versions that it names: a verdict says what the
engine did there, not what it does in every combination. OpenAI's strict mode follows its published rules for supported
schemas and is not measured.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, NamedTuple
from urllib.parse import quote

from guiderail.errors import GuiderailError, LimitError, SchemaError, UnsatisfiableError
from guiderail.grammars.grammar import Grammar
from guiderail.grammars.json_schema import schema_text

__all__ = ["ENGINES", "LintReport", "LintRow", "lint"]

ENGINES = ("guiderail", "xgrammar", "llguidance", "outlines-core", "openai")

_FINE = ("enforced", "annotation", "not reached")
_ABSENT = "additionalProperties (absent)"
_ANNOTATIONS = frozenset(
    [
        "$schema",
        "$id",
        "id",
        "$anchor",
        "$dynamicAnchor",
        "$recursiveAnchor",
        "$vocabulary",
        "$comment",
        "$defs",
        "definitions",
        "title",
        "description",
        "default",
        "examples",
        "readOnly",
        "writeOnly",
        "deprecated",
        "contentEncoding",
        "contentMediaType",
        "contentSchema",
    ]
)
_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies")
_SINGLES_OR_LISTS = (
    *("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "items", "prefixItems", "additionalItems", "contains"),
    *("unevaluatedItems", "additionalProperties", "unevaluatedProperties", "propertyNames"),
)

# OpenAI's guide to Structured Outputs, "Supported schemas".
_OPENAI_SUPPORTED = frozenset(
    [
        "type",
        "enum",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "anyOf",
        "$ref",
        "pattern",
        "multipleOf",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "minItems",
        "maxItems",
    ]
)
_OPENAI_REFUSED = frozenset(["allOf", "not", "dependentRequired", "dependentSchemas", "if", "then", "else"])
_OPENAI_FORMATS = frozenset(["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"])

# Each part is compiled with the whole document at hand, so the work is their product.
_MAX_PARTS = 500
_MAX_CHARACTERS = 20_000_000
_MANY_BRANCHES = 32


class LintRow(NamedTuple):
    """One keyword of the schema.

    Args:
        pointer: JSON pointer of the keyword.
        verdicts: engine → "enforced", "partial" (some invalid values accepted), "dropped", "refused", "sometimes
            refused", "narrowed" (some valid values rejected), "unlisted" (OpenAI's rules do not name it), "not
            measured", "annotation", "not reached" (nothing refers to this part); ours as in `Grammar.report`.
        evidence: engine → what was seen in the probe, or the reason.
    """

    pointer: str
    verdicts: dict[str, str]
    evidence: dict[str, str]


@dataclass(frozen=True)
class LintReport:
    """Args:
    rows: every keyword, in the order of the schema.
    unsatisfiable: JSON pointers of parts that no value satisfies.
    why: the reason for each of these, where it is known (`Grammar.report`).
    unchecked: parts that were not tried for satisfiability, because the schema is too large for it.
    costs: (JSON pointer, what it costs).
    error: what our engine says if it refuses the schema as a whole, else None.
    measured: date, command and versions of the table.
    """

    rows: tuple[LintRow, ...]
    unsatisfiable: tuple[str, ...]
    why: Mapping[str, str]
    unchecked: int
    costs: tuple[tuple[str, str], ...]
    error: GuiderailError | None
    measured: Mapping[str, Any]

    def lost(self, engine: str) -> list[LintRow]:
        """The rows that `engine` does not enforce as they stand. Raises: ValueError for an unknown engine."""
        if engine not in ENGINES:
            raise ValueError(f"engine must be one of {ENGINES}, got {engine!r}")
        return [row for row in self.rows if row.verdicts[engine] not in _FINE]

    @property
    def refused(self) -> bool:
        """Whether `Grammar.from_json_schema` refuses the schema."""
        return self.error is not None or any(row.verdicts["guiderail"] == "refused" for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        return {
            "rows": [row._asdict() for row in self.rows],
            "unsatisfiable": list(self.unsatisfiable),
            "why": dict(self.why),
            "unchecked": self.unchecked,
            "costs": [{"pointer": pointer, "reason": reason} for pointer, reason in self.costs],
            "error": None if self.error is None else f"{type(self.error).__name__}: {self.error}",
            "measured": dict(self.measured),
            "documented": ["openai"],
        }


def lint(schema: Mapping[str, Any] | bool | str) -> LintReport:
    """What becomes of each keyword of `schema` in each of `ENGINES`.

    Args:
        schema: a dict, a bool, or the schema's JSON text.
    Raises: SchemaError or LimitError if it is no JSON, or nested too deeply to be read; what our engine refuses
        otherwise is in the report's `error`. TypeError unless a dict, a bool or a str.
    """
    text = schema_text(schema)
    error: GuiderailError | None = None
    ours: dict[str, tuple[str, str]] = {}
    why: dict[str, str] = {}
    try:
        grammar = Grammar.from_json_schema(text, on_unsupported="warn")
        for row in grammar.report:
            if row.status == "unsatisfiable":
                why.setdefault(row.place, row.reason)
            else:
                ours[row.place] = (row.status, row.reason)
    except GuiderailError as refusal:
        error = refusal
    try:
        document = json.loads(text, parse_constant=_no_json)
    except (ValueError, RecursionError):
        raise error or LimitError("the schema is nested too deeply, or holds too long a number", limit="json") from None

    parts = list(_parts(document))
    rows = tuple(row for pointer, part in parts for row in _rows(pointer, part, ours, error))
    unsatisfiable, unchecked = _unsatisfiable(document, text, [pointer for pointer, _ in parts], error)
    costs = tuple(cost for pointer, part in parts for cost in _costs(pointer, part))
    unsatisfiable = tuple(dict.fromkeys([*unsatisfiable, *why]))
    return LintReport(rows, unsatisfiable, why, unchecked, costs, error, _table()["measured"])


@functools.cache
def _table() -> Any:
    return json.loads(resources.files("guiderail").joinpath("lint_table.json").read_text(encoding="utf-8"))


def _no_json(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _escaped(key: object) -> str:
    return str(key).replace("~", "~0").replace("/", "~1")


def _parts(document: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """(JSON pointer, subschema) of every subschema that is an object, outer ones first."""
    waiting = [("", document)]
    while waiting:
        pointer, schema = waiting.pop()
        if not isinstance(schema, dict):
            continue
        yield pointer, schema
        inner: list[tuple[str, Any]] = []
        for keyword, value in schema.items():
            if keyword in _MAPS and isinstance(value, dict):
                inner += [(f"{pointer}/{keyword}/{_escaped(name)}", each) for name, each in value.items()]
            elif keyword in _SINGLES_OR_LISTS and isinstance(value, list):
                inner += [(f"{pointer}/{keyword}/{index}", each) for index, each in enumerate(value)]
            elif keyword in _SINGLES_OR_LISTS:
                inner.append((f"{pointer}/{keyword}", value))
        waiting += reversed(inner)


def _rows(
    pointer: str, part: dict[str, Any], ours: Mapping[str, tuple[str, str]], error: GuiderailError | None
) -> Iterator[LintRow]:
    keywords = [keyword for keyword in part if keyword not in _ANNOTATIONS]
    others = ("additionalProperties", "unevaluatedProperties", "patternProperties")
    if "properties" in part and not any(keyword in part for keyword in others):
        keywords.append(_ABSENT)
    for keyword in keywords:
        place = f"{pointer}/{_escaped(keyword)}"
        if error is None:
            mine = ours.get(f"{pointer}/properties" if keyword == _ABSENT else place, ("not reached", ""))
        elif isinstance(error, SchemaError) and error.pointer == place:
            mine = ("refused", error.message)
        else:
            mine = ("not reached", "the schema is refused elsewhere")
        if mine[0] == "annotation" and keyword != "format":
            continue
        found = {"guiderail": mine, **_measured(keyword, part), "openai": _openai(keyword, part, pointer)}
        yield LintRow(
            place,
            {engine: status for engine, (status, _) in found.items()},
            {engine: reason for engine, (_, reason) in found.items() if reason},
        )


def _measured(keyword: str, part: dict[str, Any]) -> dict[str, tuple[str, str]]:
    name = "if" if keyword in ("then", "else") else keyword
    if keyword == "format":
        name = f"format: {part['format']}"
    kept = _table()["keywords"].get(name)
    if kept is None:
        return dict.fromkeys(_table()["measured"]["versions"], ("not measured", ""))
    beside = "typed" if "type" in part else "untyped"
    found = {engine: by_type.get(beside, by_type["typed"]) for engine, by_type in kept.items()}
    return {engine: (verdict["status"], verdict["evidence"]) for engine, verdict in found.items()}


def _openai(keyword: str, part: dict[str, Any], pointer: str) -> tuple[str, str]:
    if not pointer and keyword == "anyOf":
        return "refused", "the root must not be anyOf"
    if not pointer and keyword == "type" and part["type"] != "object":
        return "refused", "the root must be an object"
    if keyword == _ABSENT or (keyword == "additionalProperties" and part[keyword] is not False):
        return "refused", "additionalProperties must be false in every object"
    if keyword == "properties" and isinstance(part[keyword], dict):
        required = part.get("required")
        missing = [name for name in part[keyword] if not isinstance(required, list) or name not in required]
        if missing:
            return "refused", f"every property must be required: {', '.join(map(repr, missing[:3]))}"
    if keyword in _OPENAI_REFUSED:
        return "refused", "not supported"
    if keyword in _OPENAI_SUPPORTED or (keyword == "format" and part[keyword] in list(_OPENAI_FORMATS)):
        return "enforced", ""
    return "unlisted", "not among the supported keywords and formats"


def _unsatisfiable(
    document: Any, text: str, pointers: list[str], error: GuiderailError | None
) -> tuple[tuple[str, ...], int]:
    """JSON pointers of the parts that no value satisfies, and how many parts were not tried."""
    found = [error.pointer] if isinstance(error, UnsatisfiableError) else []
    count = min(len(pointers), _MAX_PARTS, _MAX_CHARACTERS // (len(text) + 1))
    where = "urn:guiderail:lint"
    dialect = document.get("$schema") if isinstance(document, dict) else None
    for pointer in pointers[:count]:
        wrapper = {"$ref": f"{where}#{quote(pointer, safe='/~')}"}
        if dialect is not None:
            wrapper["$schema"] = dialect
        try:
            Grammar.from_json_schema(wrapper, registry={where: text}, on_unsupported="warn")
        except UnsatisfiableError:
            found.append(pointer)
        except GuiderailError:
            pass  # what is refused is the other rows' business; it is not known to be unsatisfiable
    return tuple(dict.fromkeys(found)), len(pointers) - count


def _costs(pointer: str, part: dict[str, Any]) -> Iterator[tuple[str, str]]:
    items = part.get("items", True)
    strings = isinstance(items, dict) and (items.get("type") == "string" or "enum" in items or "const" in items)
    if part.get("uniqueItems") is True and not strings:
        yield f"{pointer}/uniqueItems", "each set of items read has masks of its own; only strings share theirs"
    branches = part.get("oneOf")
    if isinstance(branches, list) and len(branches) >= _MANY_BRANCHES:
        yield f"{pointer}/oneOf", f"each of {len(branches)} branches must rule out all others; anyOf need not"
