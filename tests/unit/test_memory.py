"""Memory of a long-lived process: grammars come and go, their tables with them; what they share is bounded."""

from __future__ import annotations

import gc
import os
import random
from pathlib import Path

import numpy as np
import pytest

import guiderail as gr
from conftest import SEED

STATUS = Path("/proc/self/status")
WORDS = ["ab", "the", "and", '{"', '":', '",', "  ", "123", "true", "é", "日本"]


def resident_megabytes() -> float:
    for line in STATUS.read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1000
    raise AssertionError("no VmRSS in /proc/self/status")


def a_grammar(rng: random.Random, number: int) -> tuple[gr.Grammar, bytes]:
    """A grammar that no other number gets, and the beginning of one of its texts."""
    kind = number % 4
    name = f"name{number}"
    if kind == 0:
        return gr.Grammar.from_regex(f"{name}[a-z]{{1,{rng.randint(3, 400)}}}(?:é|[0-9]+)*"), f"{name}abc".encode()
    if kind == 1:
        return gr.Grammar.from_choices([f"{name} {i}" for i in range(20)]), f"{name} 1".encode()
    if kind == 2:
        return gr.Grammar.from_gbnf(
            f'root ::= "{name}" list\nlist ::= "[" (list | [a-z{number % 10}]+)* "]"'
        ), f"{name}[[ab]".encode()
    schema = {
        "type": "object",
        "properties": {name: {"type": "string", "maxLength": number % 50}, "n": {"type": "integer", "maximum": number}},
        "required": [name],
        "additionalProperties": False,
    }
    return gr.Grammar.from_json_schema(schema), f'{{"{name}": "a'.encode()


@pytest.mark.slow
@pytest.mark.skipif(not STATUS.exists(), reason="reads /proc")
@pytest.mark.skipif("lib" in os.environ.get("LD_PRELOAD", ""), reason="a sanitizer keeps what is freed")
def test_ten_thousand_grammars() -> None:
    """Each is compiled, followed and dropped. Shared lexer states may fill their budget once, nothing may grow on."""
    rng = random.Random(SEED)
    token_bytes = [*(bytes([byte]) for byte in range(256)), *(word.encode() for word in WORDS)]
    token_bytes += [f"w{i}".encode() for i in range(4_000)] + [b""]
    vocabulary = gr.Vocabulary.from_bytes(token_bytes, eos_token_ids=[len(token_bytes) - 1])
    bitmask = np.zeros((1, (len(token_bytes) + 31) // 32), dtype=np.int32)
    count = int(os.environ.get("GUIDERAIL_GRAMMARS", "10000"))
    figures = []
    for number in range(count):
        grammar, text = a_grammar(rng, number)
        matcher = gr.compile(grammar, vocabulary).matcher()
        for byte in text:
            matcher.fill_next_token_bitmask(bitmask)
            assert matcher.accept_token(byte), (number, text)
        if number % (count // 10) == count // 10 - 1:
            gc.collect()
            figures.append(round(resident_megabytes()))
    print(f"resident megabytes after each tenth of {count} grammars: {figures}")
    assert figures[-1] <= figures[0] + 700, figures  # one generation of lexer states beside the one that it replaces
    assert figures[-1] <= max(figures[: len(figures) * 7 // 10]) * 1.15 + 20, figures


@pytest.mark.skipif(not STATUS.exists(), reason="reads /proc")
@pytest.mark.skipif("lib" in os.environ.get("LD_PRELOAD", ""), reason="a sanitizer keeps what is freed")
def test_matchers_of_one_grammar() -> None:
    """Forks, rollbacks and thousands of sequences on the same texts add nothing once the tables know them."""
    vocabulary = gr.Vocabulary.from_bytes([*(bytes([byte]) for byte in range(256)), b""], eos_token_ids=[256])
    compiled = gr.compile(gr.Grammar.builtin("json"), vocabulary)
    text = b'{"a": [1, 2, {"b": "c"}], "d": null}'
    bitmask = np.zeros((1, 9), dtype=np.int32)

    def use(times: int) -> None:
        for _ in range(times):
            matcher = compiled.matcher()
            for byte in text:
                matcher.fill_next_token_bitmask(bitmask)
                assert matcher.fork().accept_token(byte)
                assert matcher.accept_token(byte)
            matcher.rollback(len(text) // 2)
            matcher.reset()

    use(50)
    gc.collect()
    tables, before = compiled.counters(), resident_megabytes()
    use(2_000)
    gc.collect()
    assert compiled.counters() == tables
    assert resident_megabytes() - before < 10
