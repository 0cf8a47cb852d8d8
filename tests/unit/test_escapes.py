"""`escapes`: strings are written in any way, or as `json.dumps` writes them with or without `ensure_ascii`."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

import guiderail as gr

POINTS = [*range(0x80), 0x80, 0xFF, 0x100, 0xFFF, 0x1000, 0xD7FF, 0xE000, 0xFFFF, 0x10000, 0x1F600, 0x10FFFF]
TEXTS = [chr(point) for point in POINTS] + ["", "a\u00e9\U0001f600\n", "\\", '"', "\u2028/", "\x7f\x1f"]
ENSURE = {"needed": False, "ascii": True}


@pytest.mark.parametrize("escapes", ["any", "needed", "ascii"])
@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string"},
        {"type": "string", "maxLength": 4},
        {"pattern": "^"},
        {"pattern": "^[^\u4e00]*$", "maxLength": 9},
        {"not": {"pattern": "zz"}},
        {"not": {"const": "qq"}, "type": "string"},
        {"enum": [*TEXTS]},
        {"type": "object"},
        {"properties": dict.fromkeys(TEXTS, True), "additionalProperties": False},
        {"type": "array", "uniqueItems": True},
    ],
    ids=lambda schema: next(iter(schema)),
)
def test_how_characters_are_written(escapes: str, schema: dict[str, Any]) -> None:
    grammar = gr.Grammar.from_json_schema(schema, escapes=escapes)
    listed = "enum" in schema or "properties" in schema

    def wrapped(spelling: str) -> str:
        if "object" in schema.values() or "properties" in schema:
            return "{" + spelling + ": 1}"
        return "[" + spelling + "]" if "uniqueItems" in schema else spelling

    for text in TEXTS:
        raw, ascii_only = json.dumps(text, ensure_ascii=False), json.dumps(text)
        every = '"' + "".join(f"\\u{ord(c):04X}" if ord(c) < 0x10000 else c for c in text) + '"'
        assert grammar.accepts(wrapped(raw)) is (escapes != "ascii" or raw == ascii_only), (text, raw)
        assert grammar.accepts(wrapped(ascii_only)) is (escapes != "needed" or raw == ascii_only), (text, ascii_only)
        if every not in (raw, ascii_only) and every.lower() not in (raw, ascii_only):
            assert grammar.accepts(wrapped(every)) is (escapes == "any" and not listed), (text, every)


@pytest.mark.parametrize("escapes", ["needed", "ascii"])
def test_walks_are_what_json_dumps_writes(escapes: str) -> None:
    schema = {
        "type": "object",
        "properties": {
            "n\u00e4me": {"type": "string", "maxLength": 6},
            "tags": {"type": "array", "items": {"type": "string", "pattern": "^[a-\u00ff]+$"}, "maxItems": 3},
            "day": {"type": "string", "format": "date"},
        },
        "required": ["n\u00e4me", "tags"],
        "additionalProperties": False,
    }
    words = gr.Vocabulary.from_bytes([*(bytes([b]) for b in range(256)), b""], eos_token_ids=[256])
    grammar = gr.Grammar.from_json_schema(schema, escapes=escapes, whitespace="compact")
    compiled = gr.compile(grammar, words)
    rng = random.Random(20261123)
    mask = gr.allocate_token_bitmask(1, words)
    for _ in range(60):
        matcher = compiled.matcher(max_tokens=120)
        written = b""
        while not matcher.is_terminated:
            matcher.fill_next_token_bitmask(mask)
            allowed = [t for t in range(257) if int(mask[0, t // 32]) >> (t % 32) & 1]
            token = rng.choice(allowed)
            assert matcher.accept_token(token)
            written += words.token_bytes[token]
        value = json.loads(written)
        assert written.decode() == json.dumps(value, ensure_ascii=ENSURE[escapes], separators=(",", ":"))


def test_another_policy_is_refused() -> None:
    with pytest.raises(ValueError, match="escapes"):
        gr.Grammar.from_json_schema({}, escapes="none")
