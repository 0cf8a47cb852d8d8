"""Masks over real vocabularies: byte-level BPE, special tokens first, and SentencePiece with its ▁.

Token bytes are taken from the tokenizers' own files here, not from `Vocabulary`, so a wrong reading of a tokenizer is
found as well. At each sampled position every sampled token is tried: against the JSON machine for JSON, against the
grammar alone (which knows no vocabulary) for the others. GUIDERAIL_EXHAUSTIVE=1 tries every token.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from typing import Any

import pytest

import guiderail as gr
import real_tokenizers
from conftest import SEED
from oracles import laws
from oracles.json_prefix import JsonPrefix

pytestmark = pytest.mark.slow  # half a minute in all, most of it the oracle's

NAMES = ["llama3", "tekken", "mistral1"]
SAMPLE = None if os.environ.get("GUIDERAIL_EXHAUSTIVE") == "1" else 6_000

DOCUMENT = {
    "title": 'Les misérables, "première" partie\n',
    "numbers": [0, -1.5, 2e10, 12345678],
    "nested": {"empty": [], "deeper": {"日本語": None, "emoji": "🙂🚀"}},
    "flags": [True, False],
}
SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 40},
        "numbers": {"type": "array", "items": {"type": "number"}},
        "state": {"enum": ["open", "opened", "closed"]},
    },
    "required": ["title", "numbers"],
    "additionalProperties": False,
}
CODE = """
start: statement+
statement: "if" expression ":" | "return" expression | NAME "=" expression
expression: NAME | INT | FLOAT | STRING | expression ("+" | "==" | "..") expression
NAME: /[a-zA-Z_][a-zA-Z_0-9]*/
INT: /[0-9]+/
FLOAT: /[0-9]+\\.[0-9]+/
STRING: /"[^"\\n]*"/
%ignore /[ \\n]+/
"""
LANGUAGES: dict[str, tuple[Callable[[], gr.Grammar], str]] = {
    "schema": (
        lambda: gr.Grammar.from_json_schema(SCHEMA),
        '{"title": "A plain title – with \\"quotes\\"", "numbers": [1, 2.5, -300], "state": "opened"}',
    ),
    "regex": (
        lambda: gr.Grammar.from_regex(r"(?:\w+ ){2,6}\d{1,4}(?:\.\d\d)?[€$]"),
        "quelques mots français coûtent 1234.50€",
    ),
    "munch": (lambda: gr.Grammar.from_lark(CODE, lexer="munch"), 'if iffy == 1..2:\nreturn "a b" + x1 ifx = 12.5'),
}


class RealVocabulary:
    """A tokenizer, the engine's view of it, and token bytes read by other means."""

    def __init__(self, name: str) -> None:
        self.tokenizer = real_tokenizers.load(name)
        self.vocabulary = gr.Vocabulary.from_tokenizer(self.tokenizer)
        self.token_bytes: dict[int, bytes] = {}
        self.first_token_bytes: dict[int, bytes] | None = None
        if name == "mistral1":
            pieces = real_tokenizers.sentencepiece_processor(name)
            for token_id in range(pieces.get_piece_size()):
                piece = pieces.id_to_piece(token_id)
                if pieces.is_byte(token_id):
                    self.token_bytes[token_id] = bytes([int(piece[3:5], 16)])
                elif not (pieces.is_control(token_id) or pieces.is_unknown(token_id)):
                    self.token_bytes[token_id] = piece.replace("▁", " ").encode()
            # The decoder strips one space from the start of the text, whichever token wrote it.
            self.first_token_bytes = {t: data.removeprefix(b" ") for t, data in self.token_bytes.items()}
        else:
            ranks, _, _ = real_tokenizers.tiktoken_parts(name)
            offset = 1000 if name == "tekken" else 0
            self.token_bytes = {rank + offset: data for data, rank in ranks.items()}

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))


@pytest.fixture(scope="module", params=NAMES)
def real(request: pytest.FixtureRequest) -> RealVocabulary:
    value: RealVocabulary = real_tokenizers.require(RealVocabulary, request.param)
    return value


def check_text(
    real: RealVocabulary,
    compiled: gr.CompiledGrammar,
    text: str,
    state_after: Callable[[bytes], Any],
    positions: int,
    rng: random.Random,
) -> None:
    """Feed the canonical tokens; at `positions` of them try tokens one by one. `state_after(prefix)` answers
    (viable(more), complete)."""
    ids = real.encode(text)
    size = len(real.vocabulary)
    eos = list(real.vocabulary.eos_token_ids)
    chosen = set(rng.sample(range(len(ids) + 1), min(positions, len(ids) + 1))) | {0, len(ids)}
    matcher = compiled.matcher()
    done = b""
    for position in range(len(ids) + 1):
        by_id = real.token_bytes if position or real.first_token_bytes is None else real.first_token_bytes
        if position in chosen:
            viable, complete = state_after(done)
            allowed = laws.allowed(matcher, size)
            assert {token_id for token_id in eos if token_id in allowed} == (set(eos) if complete else set())
            without_bytes = {t for t in allowed if not by_id.get(t)} - set(eos)
            assert without_bytes == set(), f"tokens without bytes allowed: {sorted(without_bytes)[:5]}"
            tried = sorted(by_id)
            if SAMPLE is not None and len(tried) > SAMPLE:
                few = sorted(allowed & set(by_id))
                tried = rng.sample(tried, SAMPLE) + rng.sample(few, min(len(few), SAMPLE // 4))
            for token_id in tried:
                data = by_id[token_id]
                expected = bool(data) and viable(data)
                assert (token_id in allowed) == expected, f"{data!r} (token {token_id}) after {done!r}: {expected}"
        if position < len(ids):
            assert matcher.accept_token(ids[position]), f"{by_id.get(ids[position])!r} refused after {done!r}"
            done += by_id[ids[position]]
    assert done == text.encode()
    assert matcher.is_accepting


@pytest.mark.parametrize("spaced", [True, False])
def test_json(real: RealVocabulary, spaced: bool) -> None:
    text = json.dumps(DOCUMENT, ensure_ascii=False, indent=2 if spaced else None)

    def state_after(done: bytes) -> tuple[Callable[[bytes], bool], bool]:
        state = JsonPrefix().read(done)
        assert state is not None
        return lambda more: state.read(more) is not None, state.complete

    compiled = gr.compile(gr.Grammar.builtin("json"), real.vocabulary)
    check_text(real, compiled, text, state_after, 12, random.Random(SEED))


@pytest.mark.parametrize("language", LANGUAGES)
def test_other_grammars(real: RealVocabulary, language: str) -> None:
    make, text = LANGUAGES[language]
    grammar = make()

    def state_after(done: bytes) -> tuple[Callable[[bytes], bool], bool]:
        return lambda more: grammar.accepts_prefix(done + more), grammar.accepts(done)

    check_text(real, gr.compile(grammar, real.vocabulary), text, state_after, 6, random.Random(SEED))


@pytest.mark.parametrize("seed", range(2))
def test_random_generation_is_json(real: RealVocabulary, seed: int) -> None:
    """Tokens drawn at random under the mask, closed by rarely opening anything new: the machine agrees at each."""
    rng = random.Random(SEED + seed)
    matcher = gr.compile(gr.Grammar.builtin("json"), real.vocabulary).matcher()
    state: JsonPrefix | None = JsonPrefix()
    size, eos = len(real.vocabulary), set(real.vocabulary.eos_token_ids)
    for position in range(60):
        ids = sorted(laws.allowed(matcher, size))
        assert ids
        assert state is not None
        assert (eos <= set(ids)) == state.complete
        token_id = rng.choice([t for t in ids if t not in eos] or ids)
        if token_id in eos:
            break
        assert matcher.accept_token(token_id)
        first = real.first_token_bytes if position == 0 and real.first_token_bytes else real.token_bytes
        state = state.read(first[token_id])
    assert state is not None
