"""JSON Schema → grammar: options checked, everything handed to the core as JSON text.

The algebra lives in the core (src/core/json/schema.h). What a schema says is enforced exactly, or refused with its JSON
pointer; nothing is dropped without a word. `Grammar.report` lists every keyword with what became of it.

Serialisations, declared: no key is written twice in an object, however it is spelled; a number under a value constraint
is a plain decimal (scientific notation stays where only bounds apply); enumerated strings and declared keys are written
raw or as `json.dumps` escapes them, all other strings as `escapes` says. No white space after the value.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from guiderail.errors import LimitError, SchemaError

if TYPE_CHECKING:
    from guiderail import _core

__all__ = ["json_schema_source", "schema_text"]

_ORDERS = ("declared", "free")
_ESCAPES = ("any", "needed", "ascii")
_ON_UNSUPPORTED = ("error", "warn")
_META_SCHEMA_HOST = "json-schema.org"


def json_schema_source(
    schema: Mapping[str, Any] | bool | str,
    *,
    whitespace: str = "flexible",
    escapes: str = "any",
    property_order: str = "declared",
    strict: bool = False,
    on_unsupported: str = "error",
    registry: Mapping[str, Mapping[str, Any] | bool | str] | None = None,
    formats: bool = True,
    dialect: str | None = None,
) -> tuple[_core.GrammarSource, Callable[[], list[tuple[str, str, str]]]]:
    """The core's source of a schema, and a function for its report: rows (JSON pointer, status, reason).

    The arguments are those of `Grammar.from_json_schema`.

    Raises:
        SchemaError: malformed, or not supported; carries the JSON pointer. UnsatisfiableError: no value satisfies it.
        LimitError: too deep, too large, or too many cases.
        GrammarError: `whitespace` is not a regular expression of white space.
        ValueError, TypeError: an option that does not exist or has the wrong type.
    """
    from guiderail import _core

    if property_order not in _ORDERS:
        raise ValueError(f"property_order must be one of {_ORDERS}, got {property_order!r}")
    if escapes not in _ESCAPES:
        raise ValueError(f"escapes must be one of {_ESCAPES}, got {escapes!r}")
    if on_unsupported not in _ON_UNSUPPORTED:
        raise ValueError(f"on_unsupported must be one of {_ON_UNSUPPORTED}, got {on_unsupported!r}")
    if not isinstance(whitespace, str):
        raise TypeError(f"whitespace is a str, got {type(whitespace).__name__}")
    text = schema_text(schema)
    documents = {uri.removesuffix("#"): schema_text(document) for uri, document in (registry or {}).items()}

    def source() -> tuple[_core.GrammarSource, Callable[[], list[tuple[str, str, str]]]]:
        made = _core.json_schema_source(
            text,
            whitespace,
            escapes,
            property_order == "free",
            bool(strict),
            on_unsupported == "warn",
            bool(formats),
            dialect or "",
            documents,
        )
        return made, made.report

    try:
        return source()
    except SchemaError as error:
        # Meta-schemas are documents like any other, read only by those who refer to them.
        if _META_SCHEMA_HOST not in error.message:
            raise
        missing = {uri: document for uri, document in _meta_schemas().items() if uri not in documents}
        if not missing:
            raise
        documents.update(missing)
        return source()


def schema_text(schema: Mapping[str, Any] | bool | str) -> str:
    """JSON text of a schema. Raises: SchemaError for what JSON cannot say; TypeError unless a dict, a bool or a str."""
    if isinstance(schema, str):
        try:
            schema.encode("utf-8")
        except UnicodeEncodeError:
            raise SchemaError("the schema's text holds a lone surrogate") from None
        return schema
    if not isinstance(schema, (Mapping, bool)):
        raise TypeError(f"a schema is a dict, a bool or JSON text, got {type(schema).__name__}")
    try:
        return json.dumps(schema if isinstance(schema, bool) else dict(schema), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SchemaError(f"the schema is not JSON: {error}") from None
    except RecursionError:
        raise LimitError("the schema is nested too deeply", limit="json_depth") from None


def _meta_schemas() -> dict[str, str]:
    """URI without '#' → text, of every meta-schema and vocabulary of drafts 3 to 2020-12."""
    from jsonschema_specifications import REGISTRY

    return {uri.removesuffix("#"): json.dumps(REGISTRY.contents(uri)) for uri in REGISTRY}
