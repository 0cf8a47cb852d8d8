"""Turns with tool calls, as chat templates of the families render them, must be texts of our grammars, character for
character, and what our grammars force must be what the templates write."""

from __future__ import annotations

import json
import re

import pytest

import chat_templates
import guiderail as gr
from guiderail import Grammar
from guiderail.grammars.tools import ToolCall

pytest.importorskip("transformers", reason="transformers is not installed")
pytest.importorskip("jinja2", reason="jinja2 is not installed")

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather at a place.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "days": {"type": "integer"},
                    "at": {"type": "object", "properties": {"north": {"type": ["number", "null"]}}},
                },
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "now",
            "description": "The time.",
            "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
        },
    },
]
CALLS = [
    ToolCall("get_weather", {"city": 'Tromsø "</tool_call>" <now>\n', "days": 3, "at": {"north": 69.65}}),
    ToolCall("now", {}),
    ToolCall("get_weather", {"city": "Paris", "at": {"north": None}}),
]

CHATML = ("<|im_start|>assistant\n", "<|im_end|>")
LLAMA = ("<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>")
MISTRAL = ("[/INST]", "</s>")
DEEPSEEK = ("<｜Assistant｜>", "<｜end▁of▁sentence｜>")
KIMI = ("<|im_assistant|>assistant<|im_middle|>", "<|im_end|>")
# template, style, (header, end of turn), (calls in one turn), whether it writes text before calls
FAMILIES: list[tuple[str, str, tuple[str, str], tuple[int, ...], bool]] = [
    ("NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use", "hermes", CHATML, (1, 3), False),
    ("NousResearch-Hermes-3-Llama-3.1-8B-tool_use", "hermes", CHATML, (1, 3), False),
    ("Qwen-Qwen2.5-7B-Instruct", "hermes", CHATML, (1, 3), True),
    ("Qwen-QwQ-32B", "hermes", CHATML, (1, 3), True),
    ("Qwen-Qwen3-0.6B", "hermes", CHATML, (1, 3), True),
    ("meta-llama-Llama-3.1-8B-Instruct", "llama3", LLAMA, (1,), False),
    ("meta-llama-Llama-3.2-3B-Instruct", "llama3", LLAMA, (1,), False),
    ("meta-llama-Llama-3.3-70B-Instruct", "llama3", LLAMA, (1,), False),
    ("mistralai-Mistral-Nemo-Instruct-2407", "mistral", MISTRAL, (1, 3), False),
    ("Mistral-Small-3.2-24B-Instruct-2506", "mistral", MISTRAL, (1, 3), False),
    ("unsloth-mistral-Devstral-Small-2507", "mistral", MISTRAL, (1, 3), True),
    ("mistralai-Ministral-3-14B-Reasoning-2512", "mistral", MISTRAL, (1, 3), True),
    ("openai-gpt-oss-120b", "harmony", ("<|start|>assistant", "<|call|>"), (1,), True),
    # The Llama one joins strings, and of the list's end it writes one behind each call but the first.
    ("deepseek-ai-DeepSeek-R1-Distill-Llama-8B", "deepseek", DEEPSEEK, (2,), False),
    ("deepseek-ai-DeepSeek-R1-Distill-Qwen-32B", "deepseek", DEEPSEEK, (1, 3), False),
    ("deepseek-ai-DeepSeek-V3.1", "deepseek", DEEPSEEK, (1, 3), True),
    ("deepseek-ai-DeepSeek-V3.2", "deepseek-v3.2", DEEPSEEK, (1, 3), True),
    ("Qwen3-Coder", "qwen3-coder", CHATML, (1, 3), True),
    ("moonshotai-Kimi-K2", "kimi-k2", KIMI, (1, 3), True),
    # Past turns of it have no end of their own.
    ("GLM-4.6", "glm-4.6", ("<|assistant|>", ""), (1, 3), True),
    ("MiniMax-M2", "minimax-m2", ("]~b]ai\n", "[e~["), (1, 3), True),
]
TURNS = [
    pytest.param(name, style, frame, count, text, id=f"{name}-{count}{'-after-text' if text else ''}")
    for name, style, frame, counts, speaks in FAMILIES
    for count in counts
    for text in ("", "Let me look.")
    if speaks or not text
]
# These templates test `"x" in content` or its length, or write `None`.
EMPTY_CONTENT = ("Qwen-Qwen3", "unsloth-mistral", "mistralai-Ministral", "openai", "GLM", "MiniMax")


def turn(name: str, frame: tuple[str, str], count: int, text: str) -> str:
    """The assistant's turn with the first calls of `CALLS`."""
    try:
        template = chat_templates.read(name)
    except chat_templates.MissingTemplates as missing:
        pytest.skip(str(missing))
    as_text = name == "deepseek-ai-DeepSeek-R1-Distill-Llama-8B"
    calls = [
        {
            "id": f"call{number}0000",
            "type": "function",
            "function": {
                "name": call.name,
                "arguments": json.dumps(call.arguments, ensure_ascii=False) if as_text else call.arguments,
            },
        }
        for number, call in enumerate(CALLS[:count])
    ]
    content = text or ("" if name.startswith(EMPTY_CONTENT) else None)
    messages = [
        {"role": "user", "content": "How cold is it?"},
        {"role": "assistant", "content": content, "tool_calls": calls},
    ]
    header, end = frame
    return chat_templates.assistant_turn(template, messages, TOOLS, header, end)


def grammars(style: str, said: str, text: str) -> list[Grammar]:
    begin = "\n<think>" if said.startswith("\n") else "<think>"
    think = (begin, "</think>") if said.startswith((begin, "</think>")) else None
    choices = ("auto",) if text and style != "harmony" else ("auto", "required")
    return [Grammar.from_tools(TOOLS, style, choice, think=think) for choice in choices]


@pytest.mark.parametrize(("name", "style", "frame", "count", "text"), TURNS)
def test_a_template_renders_texts_of_our_grammar(
    name: str, style: str, frame: tuple[str, str], count: int, text: str
) -> None:
    said = turn(name, frame, count, text)
    for grammar in grammars(style, said, text):
        assert grammar.parse(said) == CALLS[:count]
        spoiled = re.sub(r"(days[^0-9]*3)(?![0-9])", r"\1.5", said)
        assert spoiled != said
        assert not grammar.accepts(spoiled)


@pytest.mark.parametrize(("name", "style", "frame", "count", "text"), TURNS)
def test_what_is_forced_is_what_the_template_writes(
    name: str, style: str, frame: tuple[str, str], count: int, text: str
) -> None:
    """Byte by byte: whatever is forced is what comes, and of a call's frame most is forced."""
    said = turn(name, frame, count, text).encode()
    vocabulary = gr.Vocabulary.from_bytes([*(bytes([b]) for b in range(256)), b""], eos_token_ids=[256])
    grammar = grammars(style, said.decode(), text)[-1]
    matcher = gr.compile(grammar, vocabulary).matcher()
    forced = []
    for at, byte in enumerate(said):
        only = matcher.forced_bytes()
        # A turn that is over may go on in text, so nothing is forced behind it.
        assert said[at:].startswith(only), f"{only!r} is forced after {said[:at]!r}"
        forced.append(bool(only))
        assert matcher.accept_token(byte), f"{bytes([byte])!r} is not allowed after {said[:at]!r}"
    assert matcher.is_accepting
    # From the name of the last call to its arguments: open are its first letter, spaces or none, an id or a number,
    # a content type.
    name_at = said.rindex(CALLS[count - 1].name.encode())
    arguments_at = said.index(
        b"{" if style in ("hermes", "llama3", "mistral", "harmony", "deepseek", "kimi-k2") else b">", name_at
    )
    identifier = 9 if b"[CALL_ID]" in said else 0
    assert forced[name_at:arguments_at].count(True) >= arguments_at - name_at - identifier - 5
