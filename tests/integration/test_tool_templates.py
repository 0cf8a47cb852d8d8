"""Tool calls as a family's own package renders them must be texts of our grammar, character for character."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from guiderail import Grammar
from guiderail.grammars.tools import ToolCall

pytestmark = pytest.mark.filterwarnings("ignore")

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.mark.parametrize("file", ["mistral_instruct_tokenizer_240323.model.v3", "tekken_240911.json"])
@pytest.mark.parametrize("cities", [["Oslo"], ["Oslo", 'Paris "x"']], ids=len)
def test_mistral_common_renders_texts_of_our_grammar(file: str, cities: list[str]) -> None:
    package = importlib.util.find_spec("mistral_common")
    if package is None or package.origin is None:
        pytest.skip("mistral_common is not installed")
    from mistral_common.protocol.instruct import messages, request, tool_calls
    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

    tokenizer = MistralTokenizer.from_file(str(Path(package.origin).parent / "data" / file))
    arguments = [{"city": city} for city in cities]
    calls = [
        tool_calls.ToolCall(id=f"abcdefgh{number}", function=tool_calls.FunctionCall(name="get_weather", arguments=one))
        for number, one in enumerate(arguments)
    ]
    chat = [
        messages.UserMessage(content="How cold is it?"),
        messages.AssistantMessage(content=None, tool_calls=calls),
        *(messages.ToolMessage(tool_call_id=call.id, content="-3") for call in calls),
    ]
    rendered = tokenizer.encode_chat_completion(request.ChatCompletionRequest(messages=chat)).text
    assert rendered is not None
    start = rendered.index("[TOOL_CALLS]")
    said = rendered[start : rendered.index("</s>", start)].replace("▁", " ")
    expected = [ToolCall("get_weather", one) for one in arguments]
    for choice in ("auto", "required"):
        assert Grammar.from_tools([WEATHER], "mistral", choice).parse(said) == expected


@pytest.mark.parametrize("cities", [["Oslo"], ["Oslo", 'Paris "x"']], ids=len)
def test_llama_models_encodes_texts_of_our_grammar(cities: list[str]) -> None:
    pytest.importorskip("llama_models", reason="llama_models is not installed")
    tool_utils = pytest.importorskip("llama_models.llama3.tool_utils")
    from llama_models.datatypes import ToolCall as TheirCall
    from llama_models.datatypes import ToolPromptFormat

    expected = [ToolCall("get_weather", {"city": city}) for city in cities]
    said = "; ".join(
        tool_utils.ToolUtils.encode_tool_call(
            TheirCall(call_id="1", tool_name=call.name, arguments=call.arguments), ToolPromptFormat.json
        )
        for call in expected
    )
    for choice in ("auto", "required"):
        assert Grammar.from_tools([WEATHER], "llama3", choice).parse(said) == expected
    # And what we write is read there (one call at a time).
    one = '{"name": "get_weather", "parameters": {"city": "Oslo"}}'
    assert Grammar.from_tools([WEATHER], "llama3", "required").parse(one) == expected[:1]
    assert tool_utils.ToolUtils.maybe_extract_custom_tool_call(one) == ("get_weather", {"city": "Oslo"})


def tags_in(value: object) -> list[dict[str, object]]:
    """The innermost tags of a structural tag: those around a JSON schema."""
    if isinstance(value, list):
        return [tag for part in value for tag in tags_in(part)]
    if not isinstance(value, dict):
        return []
    content = value.get("content")
    if value.get("type") == "tag" and isinstance(content, dict) and content.get("type") == "json_schema":
        return [value]
    return [tag for part in value.values() for tag in tags_in(part)]


@pytest.mark.parametrize(
    ("model", "style", "around", "separator"),
    [
        ("qwen_3", "hermes", ("", ""), "\n"),
        ("llama", "llama3", ("", ""), "; "),
        ("deepseek_r1", "deepseek", ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"), "\n"),
        ("deepseek_v3_1", "deepseek", ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"), ""),
        ("harmony", "harmony", ("", ""), None),
    ],
)
def test_the_formats_that_xgrammar_gives_for_models_are_ours(
    model: str, style: str, around: tuple[str, str], separator: str | None
) -> None:
    builtin = pytest.importorskip("xgrammar.builtin_structural_tag", reason="xgrammar is not installed")
    theirs = builtin.get_model_structural_tag(model, tools=[WEATHER], tool_choice="required", reasoning=False)
    tags = tags_in(json.loads(theirs.model_dump_json()))
    assert tags
    for tag in tags:
        # The end of the turn is the vocabulary's end of sequence, no part of our grammar.
        end = str(tag["end"]).removesuffix("<|call|>")
        call = f'{tag["begin"]}{{"city": "Oslo"}}{end}'
        calls = [call] if separator is None else [call, call]
        said = around[0] + (separator or "").join(calls) + around[1]
        for choice in ("auto", "required"):
            grammar = Grammar.from_tools([WEATHER], style, choice)
            assert grammar.parse(said) == [ToolCall("get_weather", {"city": "Oslo"})] * len(calls)
            assert not grammar.accepts(said.replace('"Oslo"', "7"))
