"""`max_tokens` for programs: lexemes of a completion need spaces between them, and lines as wide as their blocks."""

from __future__ import annotations

import ast
import random

import guiderail as gr
from guiderail.errors import LimitError
from oracles import laws

WORDS = [
    b"if", b"else", b"try", b"finally", b"for", b"while", b"with", b"def", b"class", b"return", b"not", b"in", b"a",
    b" a", b" ", b":", b"\n", b"\n    ", b"\n        ", b"(", b")", b"[", b"]", b",", b"=", b"lambda", b"import", b"#",
]  # fmt: skip


def compiled_python() -> tuple[gr.CompiledGrammar, list[bytes], int]:
    encoded = [*WORDS, *(bytes([b]) for b in range(256) if bytes([b]) not in WORDS)]
    vocabulary = gr.Vocabulary.from_bytes([*encoded, b""], eos_token_ids=[len(encoded)])
    return gr.compile(gr.Grammar.builtin("python"), vocabulary), encoded, len(encoded)


def walk(rng: random.Random, compiled: gr.CompiledGrammar, encoded: list[bytes], prefix: str, limit: int) -> str:
    """A random program that the limit has closed."""
    matcher, text = compiled.matcher(max_tokens=limit, prefix=prefix), prefix.encode()
    for _ in range(limit):
        allowed = laws.allowed(matcher, len(encoded) + 1)
        assert allowed, text
        words = [token for token in allowed if token < len(WORDS)]
        token = rng.choice(words or sorted(allowed))
        assert matcher.accept_token(token)
        if token == len(encoded):
            break
        text += encoded[token]
    assert matcher.is_accepting or matcher.is_terminated, text
    return text.decode()


def test_walks_close_in_time() -> None:
    compiled, encoded, _ = compiled_python()
    rng = random.Random(3)
    texts = [walk(rng, compiled, encoded, "", limit) for limit in [3, 5, 8, 12, 20, 30] * 3]
    for text in texts:
        ast.parse(text)
    assert any("\n " in text for text in texts)


def test_blocks_that_are_open_are_finished() -> None:
    """The `try` wants a `finally` at its own width."""
    compiled, encoded, _ = compiled_python()
    prefix = "def f(a):\n    if a:\n        try:\n            a"
    for limit in range(60):
        try:
            compiled.matcher(max_tokens=limit, prefix=prefix)
        except LimitError as error:
            assert error.limit == "max_tokens"
        else:
            break
    assert limit <= 20
    rng = random.Random(4)
    for room in (limit, limit + 2):
        ast.parse(walk(rng, compiled, encoded, prefix, room))
