"""OpenAI's request objects, as they are: `response_format`, or `tools` and `tool_choice`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from guiderail.errors import GrammarError

if TYPE_CHECKING:
    from guiderail.grammars.grammar import Grammar

__all__ = ["request_grammar"]


def request_grammar(request: Mapping[str, Any], style: str = "hermes") -> Grammar:
    """The grammar of a chat request. Its other keys (model, messages, …) have no say.

    Args:
        request: with "response_format", or with "tools" and perhaps "tool_choice" and "parallel_tool_calls"; or a
            `response_format` object itself.
        style: how the model writes calls, see `guiderail.grammars.tools`.
    Raises: GrammarError, SchemaError.
    """
    if not isinstance(request, Mapping):
        raise TypeError(f"a request is a mapping, got {type(request).__name__}")
    if request.get("type") in ("json_schema", "json_object", "text"):
        return _response_format(request)
    if request.get("tools"):
        response_format = request.get("response_format") or {"type": "text"}
        if response_format.get("type") != "text":
            raise GrammarError("response_format and tools in one request: which of them holds is the model's choice")
        from guiderail.grammars.grammar import Grammar

        choice, parallel = _choice(request.get("tool_choice")), request.get("parallel_tool_calls", True)
        return Grammar.from_tools(request["tools"], style, choice, parallel=parallel)
    if request.get("response_format"):
        return _response_format(request["response_format"])
    raise GrammarError("the request has neither response_format nor tools: nothing is constrained")


def _choice(choice: Any) -> str:
    if choice is None:
        return "auto"
    if choice in ("auto", "required", "none"):
        return str(choice)
    if isinstance(choice, Mapping) and choice.get("type") == "function":
        name = choice.get("function", choice).get("name")
        if isinstance(name, str):
            return name
    raise GrammarError(f"unknown tool_choice {choice!r}")


def _response_format(response_format: Mapping[str, Any]) -> Grammar:
    import json

    from guiderail.grammars.grammar import Grammar

    kind = response_format.get("type")
    if kind == "json_schema":
        described = response_format.get("json_schema", response_format)
        if not isinstance(described, Mapping) or "schema" not in described:
            raise GrammarError('response_format of type json_schema: "schema" is missing')
        base = Grammar.from_json_schema(described["schema"])
    elif kind == "json_object":
        base = Grammar.from_json_schema({"type": "object"})
    else:
        raise GrammarError(f"response_format of type {kind!r} constrains nothing")
    return Grammar._make(base._source, lambda: base.report, base._make_recipe, json.loads)
