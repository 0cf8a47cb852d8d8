"""Many threads on one compiled grammar see what one thread sees, and so does a child after fork().

`make tsan` runs this file under the thread sanitizer: the threads here meet in every table that grows on demand.
"""

from __future__ import annotations

import os
import random
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import guiderail as gr
from oracles import laws

WORDS = [
    b'{"',
    b'": ',
    b'"}',
    b"},",
    b"[[",
    b"]]",
    b", ",
    b"true",
    b"fal",
    b"((",
    b"))",
    b"ab",
    b"12",
    b"+1",
    b"\xc3\xa9",
]
TOKENS = [*(bytes([byte]) for byte in range(256)), *WORDS, b""]
EOS = [len(TOKENS) - 1]
INCOMPLETE = [token for token in TOKENS if token not in (b"\x04", b"z", b"}", b"\xf4")]

GRAMMARS = {
    "json": lambda: gr.Grammar.builtin("json"),
    "schema": lambda: gr.Grammar.from_json_schema(
        {
            "type": "object",
            "properties": {
                "name": {"type": "string", "maxLength": 12, "pattern": "^[a-z]*$"},
                "size": {"type": "integer", "minimum": 3, "maximum": 1234},
                "parts": {"type": "array", "items": {"$ref": "#"}, "maxItems": 3},
            },
            "required": ["name"],
        }
    ),
    "ambiguous": lambda: gr.Grammar.from_gbnf('root ::= root root | "a" | [b-d]{1,9} | "(" root ")"'),
    "lookarounds": lambda: gr.Grammar.from_regex(r"(?:(?=[a-z]*1)\w{1,9}(?<!b),?)*"),
    "arithmetic": lambda: gr.Grammar.from_lark(
        'start: sum\nsum: term | sum "+" term\nterm: INT | FLOAT | INT ".." INT | NAME | "(" sum ")"\n'
        "INT: /[0-9]+/\nFLOAT: /[0-9]+\\.[0-9]+/\nNAME: /[a-z]+/\n%ignore / +/",
        lexer="munch",
    ),
}


def journey(seed: int, compiled: gr.CompiledGrammar, tokens: list[bytes]) -> list[object]:
    """What one sequence sees on a random way with forks and rollbacks, all decided by the masks and the seed."""
    rng = random.Random(seed)
    matcher = compiled.matcher()
    seen: list[object] = []
    eos = len(tokens) - 1
    for _ in range(25):
        mask = sorted(laws.allowed(matcher, len(tokens)))
        seen.append((tuple(mask), matcher.is_accepting))
        choices = [token for token in mask if token != eos]
        roll = rng.random()
        if (not choices or roll < 0.15) and matcher.num_tokens:
            matcher.rollback(rng.randint(1, matcher.num_tokens))
        elif choices and roll < 0.25:
            fork = matcher.fork()
            seen.append(fork.accept_tokens(rng.choices(choices, k=3)))
            seen.append(tuple(sorted(laws.allowed(fork, len(tokens)))))
        elif choices:
            assert matcher.accept_token(rng.choice(choices))
    return seen


@pytest.mark.parametrize("name", GRAMMARS)
@pytest.mark.parametrize("tokens", [TOKENS, INCOMPLETE], ids=["every byte", "not every byte"])
def test_threads_see_what_one_thread_sees(name: str, tokens: list[bytes]) -> None:
    grammar = GRAMMARS[name]()

    def fresh(**limits: int) -> gr.CompiledGrammar:
        vocabulary = gr.Vocabulary.from_bytes(tokens, eos_token_ids=[len(tokens) - 1])
        return gr.compile(grammar, vocabulary, limits=gr.Limits(**limits))

    serial = fresh()
    expected = [journey(seed, serial, tokens) for seed in range(8)]
    for compiled in (fresh(), fresh(states=150)):
        together = threading.Barrier(8)

        def run(
            seed: int, compiled: gr.CompiledGrammar = compiled, together: threading.Barrier = together
        ) -> list[object]:
            together.wait()
            return journey(seed, compiled, tokens)

        with ThreadPoolExecutor(8) as pool:
            seen = list(pool.map(run, range(8)))
        for seed in range(8):
            assert seen[seed] == expected[seed], f"journey {seed}"


def test_grammars_of_one_process_share_tables_safely() -> None:
    """Threads that parse, compile and match different grammars over the same lexemes and the same vocabulary."""
    vocabulary = gr.Vocabulary.from_bytes(TOKENS, eos_token_ids=EOS)
    together = threading.Barrier(6)

    def run(number: int) -> list[object]:
        together.wait()
        seen = []
        for count in range(4):
            grammar = gr.Grammar.from_regex(f"(?:[a-z]{{1,{20 + count}}}é|[0-9]+,)*{number % 3}")
            seen += journey(number % 3, gr.compile(grammar, vocabulary), TOKENS)
        return seen

    with ThreadPoolExecutor(6) as pool:
        seen = list(pool.map(run, range(6)))
    assert seen[0] == seen[3]
    assert seen[1] == seen[4]
    assert seen[2] == seen[5]


def test_batches_from_many_threads() -> None:
    compiled = gr.compile(GRAMMARS["json"](), gr.Vocabulary.from_bytes(TOKENS, eos_token_ids=EOS))
    width = (len(TOKENS) + 31) // 32
    texts = [b'{"a": [1, "b', b"[[[", b"", b'"\\u00', b"tru", b"-1.5e", b'{"a": {"b": [', b"[1, 2, 3"]
    matchers = [compiled.matcher(prefix=text) for text in texts]
    single = np.zeros((len(texts), width), dtype=np.int32)
    for row, matcher in enumerate(gr.compile(GRAMMARS["json"](), compiled.vocabulary).matcher(prefix=t) for t in texts):
        matcher.fill_next_token_bitmask(single, row)

    def run(_: int) -> bool:
        bitmask = np.zeros((len(texts), width), dtype=np.int32)
        gr.fill_next_token_bitmask_batch([matcher.fork() for matcher in matchers], bitmask)
        return bool((bitmask == single).all())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(run, range(12)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork()")
def test_a_forked_child_goes_on() -> None:
    """Matchers, grammars and the worker threads of batches work in a child process, beside the parent."""
    compiled = gr.compile(GRAMMARS["json"](), gr.Vocabulary.from_bytes(TOKENS, eos_token_ids=EOS))
    matchers = [compiled.matcher(prefix=b"[" * depth) for depth in range(1, 9)]
    bitmask = np.zeros((8, (len(TOKENS) + 31) // 32), dtype=np.int32)
    gr.fill_next_token_bitmask_batch(matchers, bitmask)  # starts the workers
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork() beside threads: this is the case tested here
        child = os.fork()
    if child == 0:
        status = 1
        try:
            again = np.zeros_like(bitmask)
            gr.fill_next_token_bitmask_batch([matcher.fork() for matcher in matchers], again)
            other = gr.compile(gr.Grammar.from_regex("[a-f]{3}é"), compiled.vocabulary).matcher()
            fine = (again == bitmask).all() and matchers[2].accept_tokens(list(b'{"a": 1}]]]')) == 11
            fine = fine and matchers[2].is_accepting and ord("a") in laws.allowed(other, len(TOKENS))
            status = 0 if fine else 2
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert laws.allowed(matchers[2], len(TOKENS))
