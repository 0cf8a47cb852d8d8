"""Tool calls as families of models write them.

    hermes     <tool_call>\\n{"name": "f", "arguments": {…}}\\n</tool_call>
    llama3     {"name": "f", "parameters": {…}}, "type": "function" before the name or not, after <|python_tag|> or
               without it; "; " between calls
    mistral    [TOOL_CALLS][{"name": "f", "arguments": {…}}, …]   (tokenizers up to v7)
               [TOOL_CALLS]f[ARGS]{…}                             (from v11 on)
    harmony    <|channel|>commentary to=functions.f <|constrain|>json<|message|>{…}, or the recipient first
    deepseek   <｜tool▁calls▁begin｜>, per call <｜tool▁call▁begin｜>…<｜tool▁call▁end｜>, <｜tool▁calls▁end｜>; inside
               function<｜tool▁sep｜>f\\n```json\\n{…}\\n```   (V3, R1)   or   f<｜tool▁sep｜>{…}   (V3.1)
    kimi-k2    <|tool_calls_section_begin|>, per call <|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{…}
               <|tool_call_end|>, <|tool_calls_section_end|>
    qwen3-coder, glm-4.6, minimax-m2, deepseek-v3.2     a tag for each argument (tagged_arguments.py)

A text ends where the family's end-of-turn token comes: the vocabulary's end of sequence, no part of the grammar
(`<|call|>` and `<|return|>` of harmony too). With choice="auto" free text may surround calls; "required" and a name
leave calls and nothing else.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from guiderail.errors import GrammarError, SchemaError
from guiderail.grammars.tagged_arguments import (
    DSML,
    GLM,
    MINIMAX,
    QWEN,
    Parameter,
    Tags,
    dsml_call,
    dsml_calls,
    parameters_of,
    tagged_call,
    tagged_calls,
)
from guiderail.grammars.tags import Composite, thinking

if TYPE_CHECKING:
    from guiderail.grammars.grammar import Grammar

__all__ = ["STYLES", "ToolCall", "tools_grammar"]


class ToolCall(NamedTuple):
    """A call: the tool's name and its arguments (typed, if the tool is a Python function)."""

    name: str
    arguments: dict[str, Any]


class _Tool(NamedTuple):
    name: str
    grammar: Grammar  # of the arguments
    decode: Callable[[Any], Any]
    schema: Any  # of the arguments
    parameters: list[Parameter]  # the same, where each has a tag; else empty


_HERMES = ("<tool_call>", "</tool_call>")
_PYTHON_TAG = "<|python_tag|>"
_MISTRAL = ("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]")
_HARMONY = ("<|channel|>", "<|message|>", "<|constrain|>", "<|start|>", "<|end|>")
_DEEPSEEK = (
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁sep｜>",
)
_KIMI = (
    "<|tool_calls_section_begin|>",
    "<|tool_calls_section_end|>",
    "<|tool_call_begin|>",
    "<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
)
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,256}")


def tools_grammar(
    tools: Iterable[Any], style: str, choice: str, *, parallel: bool, think: tuple[str, str] | None, strict: bool
) -> Grammar:
    """See the module, and `Grammar.from_tools`."""
    if style not in STYLES:
        raise GrammarError(f"there is no tool style {style!r}; there are: {', '.join(STYLES)}")
    read = [_tool(tool, number, strict) for number, tool in enumerate(tools)]
    names = [tool.name for tool in read]
    if not read:
        raise GrammarError("no tools")
    if len(set(names)) < len(names):
        raise GrammarError(f"two tools have the same name: {sorted(names)}")
    if choice not in ("auto", "required", "none"):
        if choice not in names:
            raise GrammarError(f"there is no tool {choice!r}; there are: {', '.join(names)}")
        read, parallel = [tool for tool in read if tool.name == choice], False
    if style in _TAGGED:
        read = [tool._replace(parameters=parameters_of(tool.name, tool.schema)) for tool in read]
    build, triggers, markers = STYLES[style]
    composite = Composite(triggers, markers)
    rule = build(composite, read, choice if choice in ("auto", "none") else "required", parallel)
    if think is not None:
        start = composite.rule("start")
        thoughts = composite.grammar(thinking(think, choice not in ("auto", "none")), "think")
        composite.define(start, [[thoughts, rule]])
        rule = start
    decoders = {tool.name: tool.decode for tool in read}
    declared = {tool.name: tool.parameters for tool in read}

    def parse(text: str) -> list[ToolCall]:
        if think is not None:
            text = text.partition(think[1])[2]
        if style in _TAGGED:
            return [ToolCall(name, decoders[name](value)) for name, value in _TAGGED[style](text, declared)]
        return [ToolCall(name, decoders[name](value)) for name, value in _calls(text, style)]

    return composite.build(rule, parse)


def _tool(tool: Any, number: int, strict: bool) -> _Tool:
    from guiderail.grammars.grammar import Grammar

    if inspect.isfunction(tool) or inspect.ismethod(tool):
        from guiderail.grammars.types import type_schema

        read = type_schema(tool)
        return _Tool(tool.__name__, Grammar.from_json_schema(read.schema), read.decode, read.schema, [])
    place = f"tool {number}"
    if isinstance(tool, Mapping) and tool.get("type", "function") != "function":
        raise GrammarError(f"{place}: its type is {tool['type']!r}; only functions have a grammar")
    function = tool.get("function", tool) if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise GrammarError(f"{place}: neither an OpenAI tool object nor an annotated function")
    name = function["name"]
    if not _NAME.fullmatch(name):
        raise GrammarError(f"{place}: the name {name!r} is not made of letters, digits, '_', '-' and '.'")
    parameters = function.get("parameters") or {"type": "object", "properties": {}, "additionalProperties": False}
    if isinstance(parameters, Mapping) and "type" not in parameters and "$ref" not in parameters:
        parameters = {**parameters, "type": "object"}
    try:
        grammar = Grammar.from_json_schema(parameters, strict=strict or bool(function.get("strict")))
    except SchemaError as error:
        raise type(error)(f"tool {name!r}: {error.message}", pointer=error.pointer) from None
    return _Tool(name, grammar, lambda value: value, parameters, [])


# --- how each family writes them ---


def _object(composite: Composite, tool: _Tool, key: str, begin: str = '{"name":') -> list[int]:
    """{"name": "f", KEY: arguments}, spaced as `json.dumps` and every template does it, or without spaces."""
    space = composite.choice("space", [[], composite.literal(" ")])
    name = json.dumps(tool.name)
    return [
        *composite.literal(begin),
        space,
        *composite.literal(f"{name},"),
        space,
        *composite.literal(f'"{key}":'),
        space,
        composite.grammar(tool.grammar, tool.name),
        *composite.literal("}"),
    ]


def _list(composite: Composite, one: int, separator: list[int], parallel: bool) -> int:
    """`one`, or several with `separator` between."""
    rule = composite.rule("calls")
    composite.define(rule, [[one], [one, *separator, rule]] if parallel else [[one]])
    return rule


def _surrounded(composite: Composite, begin: list[int], call: int, calls: int, choice: str, parallel: bool) -> int:
    """auto: free text, triggers and what follows them. required: calls alone. none: free text without triggers."""
    if choice == "required":
        return calls
    rule = composite.rule("start")
    composite.define(rule, [[composite.text()]])
    if choice == "auto":
        composite.define(rule, [[first, call, rule if parallel else composite.text()] for first in begin])
    return rule


def _hermes(composite: Composite, tools: list[_Tool], choice: str, parallel: bool) -> int:
    body = composite.choice(
        "call",
        [
            [*composite.literal("\n"), *_object(composite, tool, "arguments"), *composite.literal("\n</tool_call>")]
            for tool in tools
        ],
    )
    one = composite.choice("tool call", [[*composite.literal("<tool_call>"), body]])
    calls = _list(composite, one, composite.literal("\n"), parallel)
    return _surrounded(composite, [composite.triggered("<tool_call>")], body, calls, choice, parallel)


_LLAMA_TRIGGER, _LLAMA_TYPED = '{"name":', '{"type": "function",'


def _llama3(composite: Composite, tools: list[_Tool], choice: str, parallel: bool) -> int:
    space = composite.choice("space", [[], composite.literal(" ")])
    typed = [*composite.literal('{"type":'), space, *composite.literal('"function",'), space]
    call = composite.choice(
        "call",
        [
            alternative
            for tool in tools
            for alternative in (
                _object(composite, tool, "parameters"),
                [*typed, *_object(composite, tool, "parameters", '"name":')],
            )
        ],
    )
    calls = _list(composite, call, composite.literal("; "), parallel)
    tag = composite.choice("tag", [[], composite.literal(_PYTHON_TAG)])
    if choice == "required":
        return composite.choice("start", [[tag, calls]])
    # The trigger is the beginning of a call; what is left of one:
    rest = composite.choice("rest of a call", [_object(composite, tool, "parameters")[1:] for tool in tools])
    rest_of_typed = composite.choice(
        "rest of a typed call", [[space, *_object(composite, tool, "parameters", '"name":')] for tool in tools]
    )
    more = composite.rule("more calls")
    composite.define(more, [[], [*composite.literal("; "), calls]] if parallel else [[]])
    start = composite.rule("start")
    composite.define(start, [[composite.text()]])
    if choice == "auto":
        composite.define(start, [[composite.triggered(_PYTHON_TAG), calls]])
        composite.define(start, [[composite.triggered(_LLAMA_TRIGGER), rest, more]])
        composite.define(start, [[composite.triggered(_LLAMA_TYPED), rest_of_typed, more]])
    return start


def _mistral(composite: Composite, tools: list[_Tool], choice: str, parallel: bool) -> int:
    from guiderail.grammars.grammar import Grammar

    identifier = composite.grammar(Grammar.from_regex("[A-Za-z0-9]{9}"), "id")
    entries, named = [], []
    for tool in tools:
        *entry, close = _object(composite, tool, "arguments")
        with_id = [*composite.literal(', "id": "'), identifier, *composite.literal('"')]
        entries += [[*entry, close], [*entry, *with_id, close]]
        for call_id in ([], [*composite.literal("[CALL_ID]"), identifier]):
            arguments = composite.grammar(tool.grammar, tool.name)
            named.append([*composite.literal(tool.name), *call_id, *composite.literal("[ARGS]"), arguments])
    listed = _list(composite, composite.choice("entry", entries), composite.literal(", "), parallel)
    space = composite.choice("space", [[], composite.literal(" ")])
    array = composite.choice("array", [[space, *composite.literal("["), listed, *composite.literal("]")]])
    call = composite.choice("named call", named)
    following = composite.rule("more calls")
    composite.define(following, [[]])
    if parallel:
        composite.define(following, [[*composite.literal("[TOOL_CALLS]"), call, following]])
    body = composite.choice("calls", [[array], [call, following]])
    if choice == "required":
        return composite.choice("start", [[*composite.literal("[TOOL_CALLS]"), body]])
    start = composite.rule("start")
    composite.define(start, [[composite.text()]])
    if choice == "auto":
        composite.define(start, [[composite.triggered("[TOOL_CALLS]"), body]])
    return start


def _harmony(composite: Composite, tools: list[_Tool], choice: str, parallel: bool) -> int:
    """One call ends the turn, so calls are never parallel; analysis and preambles may come before it."""
    kinds = (" <|constrain|>json", "<|constrain|>json", " json")
    kind = composite.choice("content type", [[], *(composite.literal(text) for text in kinds)])
    calls: list[list[int]] = []
    for tool in tools:
        arguments = [*composite.literal("<|message|>"), composite.grammar(tool.grammar, tool.name)]
        recipient = f" to=functions.{tool.name}"
        calls.append([*composite.literal(f"<|channel|>commentary{recipient}"), kind, *arguments])
        calls.append([*composite.literal(f"{recipient}<|channel|>commentary"), kind, *arguments])
    more = composite.literal("<|start|>assistant")
    before = [
        [*composite.literal(f"<|channel|>{name}<|message|>"), composite.triggered("<|end|>"), *more]
        for name in ("analysis", "commentary")
    ]
    start = composite.rule("start")
    composite.define(start, [[*message, start] for message in before])
    if choice != "none":
        composite.define(start, calls)
    if choice != "required":
        composite.define(start, [[*composite.literal("<|channel|>final<|message|>"), composite.text()]])
    return start


def _deepseek(composite: Composite, tools: list[_Tool], choice: str, parallel: bool) -> int:
    begin, end, call_begin, call_end, sep = _DEEPSEEK
    old, new = [], []
    for tool in tools:
        arguments = composite.grammar(tool.grammar, tool.name)
        old.append(
            [
                *composite.literal(f"{call_begin}function{sep}{tool.name}\n```json\n"),
                arguments,
                *composite.literal(f"\n```{call_end}"),
            ]
        )
        new.append([*composite.literal(f"{call_begin}{tool.name}{sep}"), arguments, *composite.literal(call_end)])
    listed = [
        [_list(composite, composite.choice("call", old), composite.literal("\n"), parallel)],
        [_list(composite, composite.choice("call of V3.1", new), [], parallel)],
    ]
    body = composite.choice("calls", [[*calls, *composite.literal(end)] for calls in listed])
    required = composite.choice("required calls", [[*composite.literal(begin), body]])
    return _surrounded(composite, [composite.triggered(begin)], body, required, choice, parallel=False)


def _kimi(composite: Composite, tools: list[_Tool], choice: str, parallel: bool) -> int:
    from guiderail.grammars.grammar import Grammar

    begin, end, call_begin, arguments_begin, call_end = _KIMI
    number = composite.grammar(Grammar.from_regex("0|[1-9][0-9]*"), "number")
    calls = []
    for tool in tools:
        arguments = [composite.grammar(tool.grammar, tool.name), *composite.literal(call_end)]
        head = composite.literal(f"{call_begin}functions.{tool.name}:")
        calls.append([*head, number, *composite.literal(arguments_begin), *arguments])
    listed = _list(composite, composite.choice("call", calls), [], parallel)
    body = composite.choice("calls", [[listed, *composite.literal(end)]])
    required = composite.choice("required calls", [[*composite.literal(begin), body]])
    return _surrounded(composite, [composite.triggered(begin)], body, required, choice, parallel=False)


def _tagged(tags: Tags) -> Callable[[Composite, list[_Tool], str, bool], int]:
    """`<tool_call>` before each call, and a line break between two."""

    def build(composite: Composite, tools: list[_Tool], choice: str, parallel: bool) -> int:
        body = composite.choice("call", [tagged_call(composite, tags, tool.name, tool.parameters) for tool in tools])
        one = composite.choice("tool call", [[*composite.literal(tags.begin), body]])
        calls = _list(composite, one, composite.literal("\n"), parallel)
        if choice == "required" and tags.break_first:
            calls = composite.choice("required calls", [[calls], [*composite.literal("\n"), calls]])
        return _surrounded(composite, [composite.triggered(tags.begin)], body, calls, choice, parallel)

    return build


def _minimax(composite: Composite, tools: list[_Tool], choice: str, parallel: bool) -> int:
    call = composite.choice("call", [tagged_call(composite, MINIMAX, tool.name, tool.parameters) for tool in tools])
    body = composite.choice(
        "calls", [[_list(composite, call, [], parallel), *composite.literal("</minimax:tool_call>")]]
    )
    breaks = composite.choice("line break", [[], composite.literal("\n")])
    required = composite.choice("required calls", [[breaks, *composite.literal(MINIMAX.begin), body]])
    return _surrounded(composite, [composite.triggered(MINIMAX.begin)], body, required, choice, parallel=False)


def _deepseek_v3_2(composite: Composite, tools: list[_Tool], choice: str, parallel: bool) -> int:
    call = composite.choice("call", [dsml_call(composite, tool.name, tool.parameters) for tool in tools])
    end = composite.literal(f"</{DSML}function_calls>")
    body = composite.choice("calls", [[*composite.literal("\n"), _list(composite, call, [], parallel), *end]])
    begin = composite.literal(f"<{DSML}function_calls>")
    breaks = composite.choice("line breaks", [[], composite.literal("\n\n")])
    required = composite.choice("required calls", [[breaks, *begin, body]])
    # The middle of the trigger may be a token of its own.
    token = [composite.text(), *composite.literal("<"), composite.special(DSML), *composite.literal("function_calls>")]
    trigger = composite.choice("trigger", [[composite.triggered(f"<{DSML}function_calls>")], token])
    return _surrounded(composite, [trigger], body, required, choice, parallel=False)


STYLES: dict[str, tuple[Callable[[Composite, list[_Tool], str, bool], int], tuple[str, ...], tuple[str, ...]]] = {
    "hermes": (_hermes, ("<tool_call>",), _HERMES),
    "llama3": (_llama3, (_PYTHON_TAG, _LLAMA_TRIGGER, _LLAMA_TYPED), (_PYTHON_TAG,)),
    "mistral": (_mistral, ("[TOOL_CALLS]",), _MISTRAL),
    "harmony": (_harmony, ("<|end|>",), _HARMONY),
    "deepseek": (_deepseek, (_DEEPSEEK[0],), _DEEPSEEK),
    "kimi-k2": (_kimi, (_KIMI[0],), _KIMI),
    "qwen3-coder": (_tagged(QWEN), (QWEN.begin,), _HERMES),
    "glm-4.6": (_tagged(GLM), (GLM.begin,), _HERMES),
    "minimax-m2": (_minimax, (MINIMAX.begin,), ("<minimax:tool_call>", "</minimax:tool_call>")),
    "deepseek-v3.2": (_deepseek_v3_2, (f"<{DSML}function_calls>",), (DSML,)),
}
_TAGGED: dict[str, Callable[[str, Mapping[str, list[Parameter]]], Iterable[tuple[str, Any]]]] = {
    "qwen3-coder": partial(tagged_calls, QWEN),
    "glm-4.6": partial(tagged_calls, GLM),
    "minimax-m2": partial(tagged_calls, MINIMAX),
    "deepseek-v3.2": dsml_calls,
}

# --- and back ---

# Where arguments begin, and the name if it stands before them. Free text has no trigger: the first match is a call.
_HEADS = {
    "hermes": re.compile(r"<tool_call>\n"),
    "llama3": re.compile(r'(?=\{(?:"type": ?"function", ?)?"name":)'),
    "mistral": re.compile(r"\[TOOL_CALLS\](?: ?(?=\[)|([A-Za-z0-9_.-]+)(?:\[CALL_ID\][A-Za-z0-9]{9})?\[ARGS\])"),
    "deepseek": re.compile(
        r"<｜tool▁call▁begin｜>(?:function<｜tool▁sep｜>([A-Za-z0-9_.-]+)\n```json\n|([A-Za-z0-9_.-]+)<｜tool▁sep｜>)"
    ),
    "kimi-k2": re.compile(r"<\|tool_call_begin\|>functions\.([A-Za-z0-9_.-]+):[0-9]+<\|tool_call_argument_begin\|>"),
    "harmony": re.compile(
        r"(?:<\|channel\|>commentary to=functions\.([A-Za-z0-9_.-]+)"
        r"| to=functions\.([A-Za-z0-9_.-]+)<\|channel\|>commentary)"
        r"(?: ?<\|constrain\|>json| json)?<\|message\|>"
    ),
}
_MESSAGE = re.compile(r"<\|channel\|>(?:analysis|commentary)<\|message\|>.*?<\|end\|><\|start\|>assistant", re.DOTALL)


def _calls(text: str, style: str) -> list[tuple[str, Any]]:
    """(name, arguments) of every call in a text of the language."""
    decoder = json.JSONDecoder()
    found: list[tuple[str, Any]] = []
    at = 0
    if style == "harmony":
        while message := _MESSAGE.match(text, at):
            at = message.end()
        if text.startswith("<|channel|>final", at):
            return []
    while head := _HEADS[style].search(text, at):
        value, at = decoder.raw_decode(text, head.end())
        name = next((group for group in head.groups() if group), None)
        if name is not None:
            found.append((name, value))
        else:
            for call in value if isinstance(value, list) else [value]:
                found.append((call["name"], call["parameters" if style == "llama3" else "arguments"]))
    return found
