"""`from_tags`, `from_tools`, `from_openai`: triggers judged by a plain scan of the text, calls read back."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import guiderail
from guiderail import Grammar, GrammarError, SchemaError, Vocabulary
from guiderail.grammars.tags import Tag, Tagged
from guiderail.grammars.tools import ToolCall

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
NOW = {"type": "function", "function": {"name": "now"}}
OSLO = '{"city": "Oslo"}'

# family -> texts with their number of calls
CALLS: dict[str, list[tuple[str, int]]] = {
    "hermes": [
        (f'<tool_call>\n{{"name": "get_weather", "arguments": {OSLO}}}\n</tool_call>', 1),
        (
            f'<tool_call>\n{{"name": "get_weather", "arguments": {OSLO}}}\n</tool_call>\n'
            '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>',
            2,
        ),
    ],
    "llama3": [
        (f'{{"name": "get_weather", "parameters": {OSLO}}}', 1),
        (f'<|python_tag|>{{"name": "get_weather", "parameters": {OSLO}}}; {{"name": "now", "parameters": {{}}}}', 2),
    ],
    "mistral": [
        (f'[TOOL_CALLS] [{{"name": "get_weather", "arguments": {OSLO}, "id": "abcdefghi"}}]', 1),
        (f"[TOOL_CALLS]get_weather[ARGS]{OSLO}[TOOL_CALLS]now[CALL_ID]abcdefghi[ARGS]{{}}", 2),
    ],
    "harmony": [
        (f"<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{OSLO}", 1),
        (
            "<|channel|>analysis<|message|>use to=functions.now<|end|><|start|>assistant"
            f" to=functions.get_weather<|channel|>commentary json<|message|>{OSLO}",
            1,
        ),
    ],
    "deepseek": [
        (
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
            f"{OSLO}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
            1,
        ),
        (
            f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{OSLO}<｜tool▁call▁end｜>"
            "<｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
            2,
        ),
    ],
}
FREE = {"harmony": "<|channel|>final<|message|>It is cold."}


@pytest.mark.parametrize("style", CALLS)
def test_calls_of_a_family(style: str) -> None:
    grammar = {c: Grammar.from_tools([WEATHER, NOW], style, c) for c in ("auto", "required", "none", "get_weather")}
    alone = Grammar.from_tools([WEATHER, NOW], style, parallel=False)
    for text, count in CALLS[style]:
        expected = [ToolCall("get_weather", {"city": "Oslo"}), ToolCall("now", {})][:count]
        assert grammar["auto"].parse(text) == grammar["required"].parse(text) == expected
        assert grammar["get_weather"].accepts(text) == alone.accepts(text) == (count == 1)
        assert not grammar["none"].accepts(text)
        for wrong in (text.replace("get_weather", "get_time"), text.replace('"city"', '"town"'), text[:-1]):
            assert not grammar["auto"].accepts(wrong)
    free = FREE.get(style, "It is cold.")
    assert grammar["auto"].parse(free) == grammar["none"].parse(free) == []
    assert not grammar["required"].accepts(free)
    if style != "harmony":
        assert grammar["auto"].accepts(free + CALLS[style][0][0])


def test_free_text_is_what_contains_no_trigger() -> None:
    """All texts of up to six letters, against a scan with str.find; the triggers overlap themselves and each other."""
    inner = Grammar.from_regex("x*")
    grammar = Grammar.from_tags([Tag("aba", inner, "b"), Tag("bb", inner, "a")])
    ends = {"aba": "b", "bb": "a"}

    def reads(text: str) -> bool:
        place, trigger = min(((text.find(t), t) for t in ends if t in text), default=(-1, ""))
        if place < 0:
            return True
        rest = text[place + len(trigger) :].lstrip("x")
        return rest.startswith(ends[trigger]) and reads(rest[1:])

    for size in range(7):
        for letters in itertools.product("abx", repeat=size):
            text = "".join(letters)
            assert grammar.accepts(text) == reads(text), text


def test_tags_are_read_back() -> None:
    number = Grammar.from_type(int)
    grammar = Grammar.from_tags([Tag("<n>", number, "</n>"), Tag("<name>", Grammar.from_regex("[a-z<]+"), "</name>")])
    text = "<a <n>12</n> é <name>a<b</name>"
    assert grammar.parse(text) == ["<a ", Tagged("<n>", "12", 12), " é ", Tagged("<name>", "a<b", "a<b")]
    assert grammar.parse("") == []
    assert not grammar.accepts("<n>x</n>")


def test_tags_with_one_trigger_and_counts() -> None:
    tags = [{"begin": f"<f={n}>", "schema": {"const": n}, "end": "</f>"} for n in (1, 12)]
    grammar = Grammar.from_tags({"structures": tags, "triggers": ["<f="]})
    assert grammar.accepts("a <f=12>12</f> b")
    assert not grammar.accepts("a <f=3")
    one = Grammar.from_tags(tags, at_least=1, at_most=1, free_text=False)
    assert [one.accepts(t) for t in ("<f=1>1</f>", "", "<f=1>1</f><f=1>1</f>", " <f=1>1</f>")] == [True] + [False] * 3


def test_think_first_constrain_after() -> None:
    grammar = Grammar.from_tools([NOW], "hermes", "required", think=("<think>", "</think>"))
    call = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
    assert grammar.parse(f"<think>a <tool_call> perhaps</think>{call}") == [ToolCall("now", {})]
    assert grammar.accepts(f"it was opened in the prompt</think>{call}")
    # Qwen 3's template writes two line breaks behind the thoughts.
    assert grammar.parse(f"<think>\n\n</think>\n\n{call}") == [ToolCall("now", {})]
    assert not grammar.accepts(f"</think>\n\n\n{call}")
    tagged = Grammar.from_tags(
        [Tag("<n>", Grammar.from_regex("[0-9]"), "</n>")], free_text=False, think=("<t>", "</t>")
    )
    assert tagged.parse("<t>hm</t>\n\n<n>7</n>") == ["<t>hm</t>", Tagged("<n>", "7", "7")]
    assert not grammar.accepts(call)


def test_markers_are_tokens_where_the_vocabulary_has_them() -> None:
    tokens = [bytes([b]) for b in range(256)] + [b"", b"", b"<tool", b"_call>\n"]
    vocabulary = Vocabulary.from_bytes(tokens, eos_token_ids=[256], special_tokens={"<tool_call>": 257})
    compiled = guiderail.compile(Grammar.from_tools([NOW], "hermes"), vocabulary)
    rest = list(b'\n{"name": "now", "arguments": {}}\n</tool_call>')
    mask = guiderail.allocate_token_bitmask(1, vocabulary)
    for begin in ([257], list(b"<tool_call>"), [258, *b"_call>"]):
        matcher = compiled.matcher()
        assert matcher.accept_tokens([*b"hi ", *begin]) == 3 + len(begin)
        matcher.fill_next_token_bitmask(mask)
        allowed = np.unpackbits(mask.view(np.uint8), bitorder="little")[: len(vocabulary)]
        assert np.flatnonzero(allowed).tolist() == [ord("\n")]
        assert matcher.accept_tokens(rest) == len(rest)
        assert matcher.accept_token(256)
    assert compiled.matcher().accept_tokens([258, 259, *rest[1:]]) == 1 + len(rest)


def test_masks_agree_with_accepting() -> None:
    tokens = [bytes([b]) for b in range(256)] + [b"", b"ab", b"ba", b"aba", b"xb", b"bbx", b"abab", b"a\xc3"]
    vocabulary = Vocabulary.from_bytes(tokens, eos_token_ids=[256])
    inner = Grammar.from_regex("x*")
    compiled = guiderail.compile(Grammar.from_tags([Tag("aba", inner, "b"), Tag("bb", inner, "a")]), vocabulary)
    mask = guiderail.allocate_token_bitmask(1, vocabulary)
    for size in range(5):
        for letters in itertools.product(b"abx", repeat=size):
            matcher = compiled.matcher()
            if matcher.accept_tokens(list(letters)) < size:
                continue
            matcher.fill_next_token_bitmask(mask)
            allowed = np.unpackbits(mask.view(np.uint8), bitorder="little")[: len(vocabulary)]
            assert [bool(matcher.fork().accept_token(t)) for t in range(len(vocabulary))] == allowed.astype(
                bool
            ).tolist()


def weather(city: str, days: int = 1) -> None:
    pass


def test_functions_are_tools() -> None:
    grammar = Grammar.from_tools([weather])
    text = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo", "days": 2}}\n</tool_call>'
    assert grammar.parse(text) == [ToolCall("weather", {"city": "Oslo", "days": 2})]


def test_a_composite_is_saved_and_loaded(tmp_path: Path) -> None:
    vocabulary = Vocabulary.from_bytes([*(bytes([b]) for b in range(256)), b""], eos_token_ids=[256])
    grammar = Grammar.from_tools([WEATHER, NOW], "hermes", think=("<think>", "</think>"))
    guiderail.compile(grammar, vocabulary).save(tmp_path / "tools")
    loaded = guiderail.CompiledGrammar.load(tmp_path / "tools").grammar
    assert loaded.fingerprint == grammar.fingerprint
    text = "</think>" + CALLS["hermes"][1][0]
    assert loaded.accepts(text)
    assert not loaded.accepts(text[:-1])


def test_openai_objects_as_they_are() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    described: dict[str, Any] = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": schema}}
    assert Grammar.from_openai({"response_format": described}).parse('{"a": 1}') == {"a": 1}
    assert Grammar.from_openai(described).accepts('{"a":1}')
    anything = Grammar.from_openai({"response_format": {"type": "json_object"}})
    assert anything.accepts("{}")
    assert not anything.accepts("[]")
    call = CALLS["hermes"][0][0]
    for choice, accepted in (
        ("auto", True),
        ("none", False),
        ({"type": "function", "function": {"name": "now"}}, False),
        ({"type": "function", "function": {"name": "get_weather"}}, True),
    ):
        request = {"model": "m", "tools": [WEATHER, NOW], "tool_choice": choice}
        assert Grammar.from_openai(request).accepts(call) == accepted
    single = {"tools": [WEATHER, NOW], "parallel_tool_calls": False}
    assert not Grammar.from_openai(single).accepts(CALLS["hermes"][1][0])


def test_after_the_last_tag_no_token_finishes_a_trigger() -> None:
    import guiderail
    from guiderail import Vocabulary

    grammar = Grammar.from_tags([Tag("<a", Grammar.from_regex("x"), ">")], at_least=1, at_most=1)
    assert grammar.accepts("u<ax>v<")
    assert not grammar.accepts_prefix("u<ax>v<a")
    tokens = [*(bytes([b]) for b in range(256)), b"", b"v<a", b"v<", b"<a"]
    matcher = guiderail.compile(grammar, Vocabulary.from_bytes(tokens, eos_token_ids=[256])).matcher(prefix="u<ax>")
    assert matcher.explain(258).startswith("allowed")
    for token in (257, 259):
        assert matcher.explain(token).startswith("refused")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Grammar.from_tags([]), "no tags"),
        (lambda: Grammar.from_tags([{"begin": "", "schema": {}}]), "begin is empty"),
        (lambda: Grammar.from_tags([{"begin": "a", "schema": {}, "ned": "b"}]), "ned"),
        (lambda: Grammar.from_tags([{"begin": "xay", "schema": {}}, {"begin": "a", "schema": {}}]), "contains"),
        (lambda: Grammar.from_tags([{"begin": "b", "schema": {}}], triggers=["a"]), "none of the triggers"),
        (lambda: Grammar.from_tools([]), "no tools"),
        (lambda: Grammar.from_tools([NOW, NOW]), "same name"),
        (lambda: Grammar.from_tools([NOW], "gpt"), "no tool style"),
        (lambda: Grammar.from_tools([NOW], choice="then"), "no tool 'then'"),
        (lambda: Grammar.from_tools([{"type": "web_search"}]), "web_search"),
        (lambda: Grammar.from_tools([{"function": {"name": 'a"b'}}]), "not made of letters"),
        (lambda: Grammar.from_openai({"messages": []}), "neither"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(make: Any, message: str) -> None:
    with pytest.raises(GrammarError, match=message):
        make()


def test_a_bad_schema_names_its_tool() -> None:
    tool = {"function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "nothing"}}}}}
    with pytest.raises(SchemaError, match="'f'") as caught:
        Grammar.from_tools([tool])
    assert caught.value.pointer.startswith("/properties/a")


def test_json_inside_a_call_may_hold_the_trigger() -> None:
    arguments = json.dumps({"city": "<tool_call> </tool_call>"})
    text = f'<tool_call>\n{{"name": "get_weather", "arguments": {arguments}}}\n</tool_call>'
    assert Grammar.from_tools([WEATHER]).parse(text) == [ToolCall("get_weather", {"city": "<tool_call> </tool_call>"})]


def tagged(name: str, **parameters: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": parameters, "required": [next(iter(parameters))]}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


FIND = tagged(
    "find",
    text={"type": "string"},
    unit={"enum": ["km", "mi"]},
    near={"anyOf": [{"type": "string"}, {"type": "null"}]},
    deep={"type": "boolean"},
    at={"type": "array", "items": {"type": "integer"}, "minItems": 2},
)


def qwen(*parameters: tuple[str, str]) -> str:
    written = "".join(f"<parameter={name}>\n{value}\n</parameter>\n" for name, value in parameters)
    return f"<tool_call>\n<function=find>\n{written}</function>\n</tool_call>"


def dsml(*parameters: tuple[str, str, str]) -> str:
    d = "｜DSML｜"
    written = "".join(f'<{d}parameter name="{n}" string="{s}">{v}</{d}parameter>\n' for n, s, v in parameters)
    return f'<{d}function_calls>\n<{d}invoke name="find">\n{written}</{d}invoke>\n</{d}function_calls>'


@pytest.mark.parametrize("choice", ["auto", "required", "find"])
def test_arguments_with_a_tag_each(choice: str) -> None:
    grammar = Grammar.from_tools([FIND], "qwen3-coder", choice)
    text = 'a "b"\n</parameter\n<tool_call>\n'
    said = qwen(("text", text), ("unit", "mi"), ("near", "null"), ("deep", "True"), ("at", "[1, 2]"))
    expected = {"text": text, "unit": "mi", "near": None, "deep": True, "at": [1, 2]}
    assert grammar.parse(said) == [ToolCall("find", expected)]
    assert grammar.parse(qwen(("text", ""))) == [ToolCall("find", {"text": ""})]
    for wrong in (
        qwen(("unit", "km")),  # `text` is required
        qwen(("text", "a"), ("unit", "m")),
        qwen(("text", "a"), ("at", "[1]")),
        qwen(("text", "a"), ("deep", "1")),
        qwen(("text", "a"), ("at", "[1, 2]"), ("deep", "true")),  # not in their order
        qwen(("text", "a"), ("other", "1")),
        qwen(("text", "a\n</parameter>\n")),
    ):
        assert not grammar.accepts(wrong), wrong
    grammar = Grammar.from_tools([FIND], "deepseek-v3.2", choice)
    said = dsml(("text", "true", text), ("near", "false", "null"), ("deep", "false", "true"), ("at", "false", "[1, 2]"))
    assert grammar.parse(said) == [ToolCall("find", {"text": text, "near": None, "deep": True, "at": [1, 2]})]
    assert grammar.parse(dsml(("text", "true", ""), ("near", "true", "null")))[0].arguments["near"] == "null"
    for wrong in (
        dsml(("text", "false", '"a"')),
        dsml(("text", "true", "a"), ("deep", "true", "true")),
        dsml(("text", "true", "a"), ("unit", "true", "m")),
        dsml(("text", "true", "a"), ("at", "false", "[1]")),
    ):
        assert not grammar.accepts(wrong), wrong


def glm(*parameters: tuple[str, str]) -> str:
    written = "".join(f"<arg_key>{name}</arg_key>\n<arg_value>{value}</arg_value>\n" for name, value in parameters)
    return f"<tool_call>find\n{written}</tool_call>"


def minimax(*parameters: tuple[str, str]) -> str:
    written = "".join(f'<parameter name="{name}">{value}</parameter>\n' for name, value in parameters)
    return f'<minimax:tool_call>\n<invoke name="find">\n{written}</invoke>\n</minimax:tool_call>'


@pytest.mark.parametrize(("style", "call"), [("glm-4.6", glm), ("minimax-m2", minimax)])
@pytest.mark.parametrize("choice", ["auto", "required", "find"])
def test_arguments_with_other_tags(style: str, call: Callable[..., str], choice: str) -> None:
    grammar = Grammar.from_tools([FIND], style, choice)
    text = 'a "b"\n<tool_call>find\n<invoke name="find">\n</arg_valu></paramete>'
    said = call(("text", text), ("unit", "mi"), ("near", "null"), ("deep", "true"), ("at", "[1, 2]"))
    expected = {"text": text, "unit": "mi", "near": None, "deep": True, "at": [1, 2]}
    assert grammar.parse(said) == [ToolCall("find", expected)]
    for wrong in (
        call(("unit", "km")),  # `text` is required
        call(("text", "a"), ("unit", "m")),
        call(("text", "a"), ("deep", "True")),  # Python's words are Qwen's
        call(("text", "a"), ("at", "[1, 2]"), ("deep", "true")),  # not in their order
        call(("text", "a</arg_value>\n</parameter>\n")),
    ):
        assert not grammar.accepts(wrong), wrong
    if choice == "auto":
        before = '<invoke name="find">\n<parameter name="text">x</parameter>\n</invoke>\n'
        assert grammar.parse(before) == []
        assert grammar.parse(before + said) == [ToolCall("find", expected)]


def test_kimis_calls_have_numbers() -> None:
    begin, argument, end = "<|tool_call_begin|>functions.find:", "<|tool_call_argument_begin|>", "<|tool_call_end|>"
    one, two = f'{begin}0{argument}{{"text": "{end}"}}{end}', f'{begin}11{argument}{{"text": "b"}}{end}'
    expected = [ToolCall("find", {"text": end}), ToolCall("find", {"text": "b"})]
    for choice in ("auto", "required"):
        grammar = Grammar.from_tools([FIND], "kimi-k2", choice)
        section = "<|tool_calls_section_begin|>{}<|tool_calls_section_end|>"
        assert grammar.parse(section.format(one + two)) == expected
        assert grammar.parse(section.format(one)) == expected[:1]
        for wrong in (section.format(""), section.format(one.replace(":0", ":")), section.format(one + " " + two)):
            assert not grammar.accepts(wrong), wrong


@pytest.mark.parametrize("style", ["qwen3-coder", "deepseek-v3.2", "glm-4.6", "minimax-m2"])
@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ({"type": "string", "pattern": "^a"}, "'pattern' cannot be enforced"),
        ({"type": ["string", "null"], "maxLength": 3}, "'maxLength' cannot be enforced"),
        ({}, "not said whether it is a string"),
        ({"anyOf": [{"minimum": 1}, {"type": "string"}]}, "not said whether it is a string"),
        ({"oneOf": [{"type": "string"}]}, "not said whether it is a string"),
        ({"enum": ["\n</parameter>\n", "</｜DSML｜parameter>", "</arg_value>"]}, "contains the tag that would end it"),
    ],
)
def test_what_tags_cannot_enforce_is_refused_by_name(style: str, parameter: Any, message: str) -> None:
    with pytest.raises(GrammarError, match="tool 'find': .*" + message) as raised:
        Grammar.from_tools([tagged("find", p=parameter)], style)
    assert "'p'" in str(raised.value)


def test_qwens_tags_do_not_tell_a_string_from_a_number() -> None:
    mixed = tagged("find", p={"type": ["string", "integer"]})
    with pytest.raises(GrammarError, match="may be a string or something else"):
        Grammar.from_tools([mixed], "qwen3-coder")
    grammar = Grammar.from_tools([mixed], "deepseek-v3.2")
    assert grammar.parse(dsml(("p", "true", "1"))) == [ToolCall("find", {"p": "1"})]
    assert grammar.parse(dsml(("p", "false", "1"))) == [ToolCall("find", {"p": 1})]


def test_functions_are_tools_with_a_tag_for_each_argument() -> None:
    def find(text: str, count: int = 3, near: str | None = None) -> None: ...

    said = qwen(("text", "x"), ("count", "4"))
    assert Grammar.from_tools([find], "qwen3-coder").parse(said) == [ToolCall("find", {"text": "x", "count": 4})]
