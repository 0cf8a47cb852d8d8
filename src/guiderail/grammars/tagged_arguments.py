"""Tool calls whose arguments are not one JSON object: a tag for each parameter, and strings as they are.

    qwen3-coder     <tool_call>\\n<function=f>\\n<parameter=city>\\nOslo\\n</parameter>\\n</function>\\n</tool_call>
    glm-4.6         <tool_call>f\\n<arg_key>city</arg_key>\\n<arg_value>Oslo</arg_value>\\n</tool_call>
    minimax-m2      <minimax:tool_call>\\n<invoke name="f">\\n<parameter name="city">Oslo</parameter>\\n</invoke>\\n
                    </minimax:tool_call>
    deepseek-v3.2   <｜DSML｜function_calls>\\n<｜DSML｜invoke name="f">\\n
                    <｜DSML｜parameter name="city" string="true">Oslo</｜DSML｜parameter>\\n
                    </｜DSML｜invoke>\\n</｜DSML｜function_calls>

Parameters come in the order in which they are declared; those that are not required may be left out, and undeclared
ones cannot be written. A string is any text without its closing tag, or one of an enumeration; any other value is JSON.
So of each parameter it must be known whether it is a string: where that is not so, or where a string is limited
(`pattern`, `format`, lengths), the tool is refused by name. Only DeepSeek's tags say which of both it is: elsewhere a
parameter is a string (or null, which is the text `null`), or it is not. Qwen's template writes Python's `True`, `False`
and `None` for JSON's words; both are taken.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from guiderail.errors import GrammarError, SchemaError
from guiderail.grammars.tags import Composite

__all__ = [
    "DSML",
    "GLM",
    "MINIMAX",
    "QWEN",
    "Parameter",
    "Tags",
    "dsml_call",
    "dsml_calls",
    "parameters_of",
    "tagged_call",
    "tagged_calls",
]

_ANNOTATIONS = {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$comment"}
_OBJECT = {"type", "properties", "required", "additionalProperties", "$defs", "definitions", "$schema"} | _ANNOTATIONS
_STRING = {"minLength", "maxLength", "pattern", "format", "contentEncoding", "contentMediaType", "contentSchema"}
_WORDS = {"True": "true", "False": "false", "None": "null"}
DSML = "｜DSML｜"


class Parameter(NamedTuple):
    """What a parameter may be: any string, one of some strings, and what a schema allows that has no strings."""

    name: str
    required: bool
    any_string: bool
    strings: tuple[str, ...]
    schema: Any  # of values that are not strings; None if there are none


class Tags(NamedTuple):
    """What stands around a call and around each of its values; `{}` is a name."""

    begin: str  # of each call, or of all
    call: str
    parameter: str
    after_value: str  # no string contains it; a line break follows
    end: str  # of each call
    one_block: bool = False  # is `begin` there once, for all calls?
    words: bool = False  # Python's for JSON's
    break_first: bool = False  # may a line break stand before the first call?


QWEN = Tags(
    "<tool_call>", "\n<function={}>\n", "<parameter={}>\n", "\n</parameter>", "</function>\n</tool_call>", words=True
)
GLM = Tags(
    "<tool_call>", "{}\n", "<arg_key>{}</arg_key>\n<arg_value>", "</arg_value>", "</tool_call>", break_first=True
)
MINIMAX = Tags(
    "<minimax:tool_call>\n",
    '<invoke name="{}">\n',
    '<parameter name="{}">',
    "</parameter>",
    "</invoke>\n",
    one_block=True,
)


class _Kinds(NamedTuple):
    any_string: bool
    strings: tuple[str, ...]
    others: list[Any]


def parameters_of(tool: str, schema: Any) -> list[Parameter]:
    """The parameters of a tool. Raises: GrammarError, which names the tool and the parameter."""
    if not isinstance(schema, Mapping) or schema.get("type") != "object" or set(schema) - _OBJECT:
        unknown = sorted(set(schema) - _OBJECT) if isinstance(schema, Mapping) else []
        what = f"{unknown[0]!r} beside its parameters" if unknown else "parameters that are not a plain object"
        raise GrammarError(f"tool {tool!r}: {what} cannot be enforced where each argument has a tag of its own")
    properties = schema.get("properties", {})
    required = schema.get("required", [])
    for name in required:
        if name not in properties:
            raise GrammarError(f"tool {tool!r}: parameter {name!r} is required and not declared")
    shared = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    found = []
    for name, each in properties.items():
        if not re.fullmatch(r'[^<>"=\s]+', name):
            raise GrammarError(f"tool {tool!r}: the parameter name {name!r} cannot be written in a tag")
        kinds = _kinds(each, schema, f"tool {tool!r}: parameter {name!r}", 0)
        others = kinds.others[0] if len(kinds.others) == 1 else {"anyOf": kinds.others}
        if kinds.others and isinstance(others, Mapping):
            others = {**others, **shared}
        found.append(
            Parameter(name, name in required, kinds.any_string, kinds.strings, others if kinds.others else None)
        )
    return found


def _kinds(schema: Any, root: Mapping[str, Any], place: str, depth: int) -> _Kinds:
    if not isinstance(schema, Mapping) or depth > 20:
        raise GrammarError(f"{place}: it is not said whether it is a string")
    said = set(schema) - _ANNOTATIONS
    if said == {"$ref"}:
        at: Any = root
        reference = schema["$ref"]
        for key in str(reference).removeprefix("#/").split("/"):
            at = at.get(key.replace("~1", "/").replace("~0", "~")) if isinstance(at, Mapping) else None
        return _kinds(at, root, place, depth + 1)
    if said == {"anyOf"}:
        parts = [_kinds(part, root, place, depth + 1) for part in schema["anyOf"]]
        strings = tuple(dict.fromkeys(text for part in parts for text in part.strings))
        return _Kinds(any(part.any_string for part in parts), strings, [s for part in parts for s in part.others])
    types = schema.get("type", [])
    types = [types] if isinstance(types, str) else list(types)
    if said & {"enum", "const"}:
        values = list(schema["enum"]) if "enum" in schema else [schema["const"]]
        if said - {"enum", "const", "type"} or len(said & {"enum", "const"}) > 1:
            raise GrammarError(f"{place}: an enumeration beside {sorted(said - {'enum', 'type'})[0]!r}")
        strings = tuple(v for v in values if isinstance(v, str) and (not types or "string" in types))
        rest = [v for v in values if not isinstance(v, str)]
        others = [t for t in types if t != "string"]
        if not rest or (types and not others):
            return _Kinds(False, strings, [])
        return _Kinds(False, strings, [{"enum": rest, **({"type": others} if types else {})}])
    if not types or (types != ["string"] and "string" in types and said & {"anyOf", "oneOf", "allOf", "not", "if"}):
        raise GrammarError(f"{place}: it is not said whether it is a string")
    others = [t for t in types if t != "string"]
    if "string" in types:
        limits = sorted(said - {"type"} if not others else said & _STRING)
        if limits:
            raise GrammarError(f"{place}: {limits[0]!r} cannot be enforced on a string that is written as it is")
    return _Kinds("string" in types, (), [{**schema, "type": others}] if others else [])


def _text_without(end: str) -> Any:
    from guiderail.grammars.grammar import Grammar

    return Grammar.from_regex(f"(?s:(?!{re.escape(end)}).)*")


def _value_schema(parameter: Parameter, place: str) -> Any:
    from guiderail.grammars.grammar import Grammar

    try:
        return Grammar.from_json_schema(parameter.schema)
    except SchemaError as error:
        raise type(error)(f"{place}, parameter {parameter.name!r}: {error.message}", pointer=error.pointer) from None


def _in_order(composite: Composite, name: str, written: list[tuple[bool, list[list[int]]]], end: list[int]) -> int:
    """The parameters one after the other, as alternatives each; those that are not required may be missing."""
    rest = composite.choice(f"end of {name}", [end])
    for required, alternatives in reversed(written):
        rule = composite.rule(f"arguments of {name}")
        composite.define(rule, [[*one, rest] for one in alternatives])
        if not required:
            composite.define(rule, [[rest]])
        rest = rule
    return rest


def tagged_call(composite: Composite, tags: Tags, tool: str, parameters: list[Parameter]) -> list[int]:
    """What stands behind `tags.begin`, the call's end included."""
    written = []
    for p in parameters:
        begin = composite.literal(tags.parameter.format(p.name))
        end = composite.literal(f"{tags.after_value}\n")
        values: list[list[int]] = [composite.literal(text) for text in p.strings]
        if p.schema is not None and (p.any_string or p.strings) and p.schema.get("type") != ["null"]:
            raise GrammarError(
                f"tool {tool!r}: parameter {p.name!r} may be a string or something else, which the tags do not tell"
            )
        if any(tags.after_value in text for text in p.strings):
            raise GrammarError(f"tool {tool!r}: a string of parameter {p.name!r} contains the tag that would end it")
        if p.any_string:
            values.append([composite.grammar(_text_without(tags.after_value), p.name)])
        elif p.schema is not None:
            grammar = _value_schema(p, f"tool {tool!r}")
            values.append([composite.grammar(grammar, f"{tool}.{p.name}")])
            words = _WORDS if tags.words else {}
            values += [composite.literal(theirs) for theirs, word in words.items() if grammar.accepts(word)]
        written.append((p.required, [[*begin, *value, *end] for value in values]))
    rest = _in_order(composite, tool, written, composite.literal(tags.end))
    return [*composite.literal(tags.call.format(tool)), rest]


def dsml_call(composite: Composite, tool: str, parameters: list[Parameter]) -> list[int]:
    """One `invoke`, with the line break behind it."""
    written = []
    for p in parameters:
        begin, end = f'<{DSML}parameter name="{p.name}" string=', f"</{DSML}parameter>"
        values: list[list[int]] = []
        if any(end in text for text in p.strings):
            raise GrammarError(f"tool {tool!r}: a string of parameter {p.name!r} contains the tag that would end it")
        texts = [composite.literal(text) for text in p.strings if not p.any_string]
        if p.any_string:
            texts.append([composite.grammar(_text_without(end), p.name)])
        values += [[*composite.literal(f'{begin}"true">'), *text, *composite.literal(f"{end}\n")] for text in texts]
        if p.schema is not None:
            value = composite.grammar(_value_schema(p, f"tool {tool!r}"), f"{tool}.{p.name}")
            values.append([*composite.literal(f'{begin}"false">'), value, *composite.literal(f"{end}\n")])
        written.append((p.required, values))
    end_of_call = composite.literal(f"</{DSML}invoke>\n")
    return [
        *composite.literal(f'<{DSML}invoke name="{tool}">\n'),
        _in_order(composite, tool, written, end_of_call),
    ]


# --- and back ---

_DSML_BLOCK = re.compile(f"<{DSML}function_calls>\n")
_DSML_CALL = re.compile(f'<{DSML}invoke name="([^"\n]+)">\n')
_DSML_PARAMETER = re.compile(
    f'<{DSML}parameter name="([^"\n]+)" string="(true|false)">(.*?)</{DSML}parameter>\n', re.DOTALL
)


def tagged_calls(tags: Tags, text: str, tools: Mapping[str, list[Parameter]]) -> Iterator[tuple[str, Any]]:
    """(name, arguments) of every call in a text of the language."""
    named = [re.escape(part).replace(r"\{\}", r"([^<>\"\n]+)") for part in (tags.call, tags.parameter)]
    head = re.compile(named[0] if tags.one_block else re.escape(tags.begin) + named[0])
    parameter = re.compile(f"{named[1]}(.*?){re.escape(tags.after_value)}\n", re.DOTALL)
    at = text.find(tags.begin)
    if at < 0:
        return
    if tags.one_block:
        at += len(tags.begin)
    while call := head.match(text, at) if tags.one_block else head.search(text, at):
        at, arguments = call.end(), {}
        declared = {p.name: p for p in tools[call[1]]}
        while written := parameter.match(text, at):
            at, p, value = written.end(), declared[written[1]], written[2]
            is_text = (p.any_string and not (p.schema is not None and value == "null")) or value in p.strings
            arguments[p.name] = value if is_text else json.loads(_WORDS.get(value, value))
        at += len(tags.end)
        yield call[1], arguments


def dsml_calls(text: str, tools: Mapping[str, list[Parameter]]) -> Iterator[tuple[str, Any]]:
    """As `tagged_calls`."""
    if not (block := _DSML_BLOCK.search(text)):
        return
    at = block.end()
    while call := _DSML_CALL.match(text, at):
        at, arguments = call.end(), {}
        while written := _DSML_PARAMETER.match(text, at):
            at = written.end()
            arguments[written[1]] = written[3] if written[2] == "true" else json.loads(written[3])
        at += len(f"</{DSML}invoke>\n")
        yield call[1], arguments
