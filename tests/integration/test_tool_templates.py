"""Tool calls as a family's own package renders them must be texts of our grammar, character for character."""

from __future__ import annotations

import importlib.util
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
