"""Compiled grammars: matchers, limits, files."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import struct
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import guiderail as gr
from guiderail.errors import GrammarError, LimitError
from guiderail.saved_file import FORMAT_VERSION, write_file


@pytest.fixture(scope="module")
def vocabulary() -> gr.Vocabulary:
    return gr.Vocabulary.from_bytes(
        [*(bytes([byte]) for byte in range(256)), b"ab", b"", b""], eos_token_ids=[257], special_tokens={"<s>": 258}
    )


def allowed(matcher: gr.Matcher, vocabulary: gr.Vocabulary) -> set[int]:
    bitmask = gr.allocate_token_bitmask(1, vocabulary)
    matcher.fill_next_token_bitmask(bitmask)
    return set(np.flatnonzero(np.unpackbits(bitmask.view(np.uint8), bitorder="little")).tolist())


def test_a_matcher(vocabulary: gr.Vocabulary) -> None:
    matcher = gr.compile(gr.Grammar.from_choices(["abc", "ax"]), vocabulary).matcher()
    assert allowed(matcher, vocabulary) == {ord("a"), 256}
    assert matcher.accept_tokens([256, ord("c"), ord("d")]) == 2
    assert matcher.is_accepting
    assert allowed(matcher, vocabulary) == {257}
    assert matcher.accept_token(257)
    assert matcher.is_terminated
    matcher.rollback(2)
    assert allowed(matcher, vocabulary) == {ord("c")}
    assert matcher.forced_bytes() == b"c"
    assert isinstance(matcher, gr.Matcher)


def test_a_prefix_is_there_already(vocabulary: gr.Vocabulary) -> None:
    compiled = gr.compile(gr.Grammar.from_choices(["abc", "ax"]), vocabulary)
    for prefix in ("ab", b"ab"):
        matcher = compiled.matcher(prefix=prefix)
        assert allowed(matcher, vocabulary) == {ord("c")}
        matcher.accept_token(ord("c"))
        matcher.reset()
        assert allowed(matcher, vocabulary) == {ord("c")}
    with pytest.raises(GrammarError, match="prefix"):
        compiled.matcher(prefix="b")


def test_closing_in_time(vocabulary: gr.Vocabulary) -> None:
    compiled = gr.compile(gr.Grammar.from_regex("(?:ab)*c"), vocabulary)
    matcher = compiled.matcher(max_tokens=3)
    assert allowed(matcher, vocabulary) == {ord("a"), 256, ord("c")}
    assert matcher.accept_token(256)
    assert not matcher.closed_early
    assert allowed(matcher, vocabulary) == {256, ord("c")}  # after "a" it takes "b" and "c", and there is room for one
    assert matcher.accept_token(256)
    assert matcher.closed_early
    assert allowed(matcher, vocabulary) == {ord("c")}
    assert "max_tokens" in matcher.explain(256)
    assert matcher.accept_tokens([256, ord("c")]) == 0
    assert matcher.accept_token(ord("c"))
    assert allowed(matcher, vocabulary) == {257}
    matcher.rollback(1)
    assert matcher.closed_early
    matcher.rollback(1)
    assert not matcher.closed_early


def test_a_limit_that_cannot_be_kept_is_refused(vocabulary: gr.Vocabulary) -> None:
    compiled = gr.compile(gr.Grammar.from_regex("x{4}"), vocabulary)
    with pytest.raises(LimitError, match="takes 4 tokens, 3 are allowed") as caught:
        compiled.matcher(max_tokens=3)
    assert caught.value.limit == "max_tokens"
    assert compiled.matcher(max_tokens=3, prefix="x").accept_tokens([ord("x")] * 3) == 3
    for value in (-1, 1.5, True, "3"):
        with pytest.raises(ValueError, match="max_tokens"):
            compiled.matcher(max_tokens=value)  # type: ignore[arg-type]


def test_limits_are_checked_and_named(vocabulary: gr.Vocabulary) -> None:
    for value in (0, -1, 1.5, True, "1"):
        with pytest.raises(ValueError, match="limit states must be a positive integer"):
            gr.Limits(states=value)  # type: ignore[arg-type]
    grammar = gr.Grammar.from_gbnf('root ::= "(" root ")" | ""')
    matcher = gr.compile(grammar, vocabulary, limits=gr.Limits(states=20)).matcher()
    with pytest.raises(LimitError) as caught:
        matcher.accept_tokens([ord("(")] * 1000)
    assert caught.value.limit == "states"


def test_threads_share_a_compiled_grammar(vocabulary: gr.Vocabulary) -> None:
    compiled = gr.compile(gr.Grammar.from_gbnf('root ::= "(" root ")" root | [a-z]'), vocabulary)
    expected = allowed(compiled.matcher(prefix="((a)"), vocabulary)
    results: list[set[int]] = []

    def work() -> None:
        for _ in range(50):
            matcher = compiled.matcher()
            matcher.accept_tokens(list(b"((a)"))
            results.append(allowed(matcher, vocabulary))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 200


def test_masks_of_a_batch(vocabulary: gr.Vocabulary) -> None:
    one = gr.compile(gr.Grammar.from_regex("a+"), vocabulary).matcher()
    two = gr.compile(gr.Grammar.from_regex("b+"), vocabulary).matcher()
    bitmask = gr.allocate_token_bitmask(4, vocabulary)
    gr.fill_next_token_bitmask_batch([one, two], bitmask, rows=[3, 1])
    expected = gr.allocate_token_bitmask(4, vocabulary)
    one.fill_next_token_bitmask(expected, 3)
    two.fill_next_token_bitmask(expected, 1)
    assert np.array_equal(bitmask, expected)
    gr.fill_next_token_bitmask_batch([two, one], bitmask)
    assert np.array_equal(bitmask[0], expected[1])
    assert np.array_equal(bitmask[1], expected[3])
    with pytest.raises(TypeError):
        gr.fill_next_token_bitmask_batch([one], bitmask.astype(np.int64))  # type: ignore[arg-type]
    with pytest.raises((ValueError, IndexError)):
        gr.fill_next_token_bitmask_batch([one], bitmask, rows=[4])


# --- files -----------------------------------------------------------------------------------------------------------

GRAMMARS = {
    "regex": lambda: gr.Grammar.from_regex("[a-c]{2,4}"),
    "gbnf": lambda: gr.Grammar.from_gbnf('root ::= "(" root ")" | <s> "a"'),
    "lark": lambda: gr.Grammar.from_lark('start: A+\nA: "a".."c"\n%ignore " "'),
    "json": lambda: gr.Grammar.builtin("json"),
    "json schema": lambda: gr.Grammar.from_json_schema({"type": "object", "properties": {"é": {"type": "integer"}}}),
}


@pytest.mark.parametrize("name", GRAMMARS)
def test_saved_and_loaded(name: str, vocabulary: gr.Vocabulary, tmp_path: Path) -> None:
    compiled = gr.compile(GRAMMARS[name](), vocabulary, limits=gr.Limits(threads=100))
    compiled.save(tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]  # nothing temporary stays
    for loaded in (gr.CompiledGrammar.load(tmp_path / "file"), gr.CompiledGrammar.load(tmp_path / "file", vocabulary)):
        assert loaded.grammar.fingerprint == compiled.grammar.fingerprint
        assert loaded.vocabulary == compiled.vocabulary
        assert loaded.limits == compiled.limits
        ours, theirs = compiled.matcher(), loaded.matcher()
        for _ in range(4):
            assert allowed(ours, vocabulary) == allowed(theirs, vocabulary)
            token = min(allowed(ours, vocabulary))
            assert ours.accept_token(token)
            assert theirs.accept_token(token)


def test_a_vocabulary_whose_first_token_differs(tmp_path: Path) -> None:
    vocabulary = gr.Vocabulary.from_bytes([b" a", b"b", b""], eos_token_ids=[2], first_token_bytes=[b"a", b"b", b""])
    compiled = gr.compile(gr.Grammar.from_choices(["a a", "b a"]), vocabulary)
    compiled.save(tmp_path / "file")
    loaded = gr.CompiledGrammar.load(tmp_path / "file")
    assert loaded.vocabulary == vocabulary
    assert loaded.matcher().accept_tokens([0, 0, 2]) == 3


def test_another_vocabulary_is_refused(vocabulary: gr.Vocabulary, tmp_path: Path) -> None:
    gr.compile(gr.Grammar.from_regex("a"), vocabulary).save(tmp_path / "file")
    other = gr.Vocabulary.from_bytes([b"a", b""], eos_token_ids=[1])
    with pytest.raises(ValueError, match="another vocabulary"):
        gr.CompiledGrammar.load(tmp_path / "file", other)


def test_damaged_files_are_refused(vocabulary: gr.Vocabulary, tmp_path: Path) -> None:
    path = tmp_path / "file"
    gr.compile(gr.Grammar.from_regex("a"), vocabulary).save(path)
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [b"", b"PK", good[:9], good[:40], good[:-1], good + b"x"]
    for place in rng.integers(len(good), size=200).tolist():
        changed = bytearray(good)
        changed[place] ^= 1 << int(rng.integers(8))
        damaged.append(bytes(changed))
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"damaged|saved in format|is not a compiled grammar"):
            gr.CompiledGrammar.load(path)


# What a forged file could put where a value stands.
ODD: list[Any] = [None, True, -1, 2**70, 1.5, "", "kind", [], [[]], {}, {"a": 1}, [0, "x"], "\ud800", ["static", []]]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, part in inner for place in places(part, (*path, key)))]


def forged(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copied = copy.copy(value)
    copied[path[0]] = forged(value[path[0]], path[1:], new)
    return copied


def signed(header: bytes, rest: bytes) -> bytes:
    return (
        b"guiderail\0"
        + struct.pack("<II32s", FORMAT_VERSION, len(header), hashlib.sha256(header).digest())
        + header
        + rest
    )


@pytest.mark.parametrize("name", ["regex", "json", "json schema"])
def test_forged_files_are_refused(name: str, vocabulary: gr.Vocabulary, tmp_path: Path) -> None:
    """Digests are right, values are not: each file is an error of ours or a ValueError, or a grammar."""
    path = tmp_path / "file"
    gr.compile(GRAMMARS[name](), vocabulary).save(path)
    data = path.read_bytes()
    start = 10 + struct.calcsize("<II32s")
    length = struct.unpack_from("<I", data, 14)[0]
    header, rest = json.loads(data[start : start + length]), data[start + length :]
    headers = [json.dumps(forged(header, place, odd)) for place in places(header) for odd in ODD]
    for text in [*headers, "", "[", "[" * 100_000]:
        path.write_bytes(signed(text.encode("utf-8", "surrogatepass"), rest))
        with contextlib.suppress(ValueError, gr.GuiderailError):
            gr.CompiledGrammar.load(path)


def test_forged_vocabularies_are_refused(tmp_path: Path) -> None:
    vocabulary = gr.Vocabulary.from_bytes([b" a", b"b", b""], eos_token_ids=[2], first_token_bytes=[b"a", b"b", b""])
    sections = vocabulary._sections()
    facts = json.loads(sections["facts"])

    def is_refused(changes: dict[str, bytes]) -> None:
        write_file(tmp_path / "file", "vocabulary", {"vocabulary": vocabulary.fingerprint}, sections | changes)
        with pytest.raises(ValueError, match="damaged"):
            gr.Vocabulary.load(tmp_path / "file")

    for place in places(facts):
        for odd in ODD:
            if forged(facts, place, odd) != facts:
                is_refused({"facts": json.dumps(forged(facts, place, odd)).encode("utf-8", "surrogatepass")})
    is_refused({"facts": b"[" * 100_000})
    for offsets in (
        [],
        [0],
        [0, 0],
        [0, 2, 1, 3],
        [1, 2, 3, 3],
        [0, 2, 3, 4],
        [0, 2, 3, 2**32 - 1],
        [0, 2, 2, 3],
        [0, 3, 3],
    ):
        is_refused({"later offsets": np.array(offsets, "<u4").tobytes()})
    is_refused({"later offsets": b"\0\0\0"})
    is_refused({"later bytes": b""})
    is_refused({"first bytes": sections["later bytes"], "first offsets": sections["later offsets"]})
    del sections["later bytes"]
    is_refused({})


def test_another_format_is_named(vocabulary: gr.Vocabulary, tmp_path: Path) -> None:
    path = tmp_path / "file"
    gr.compile(gr.Grammar.from_regex("a"), vocabulary).save(path)
    data = path.read_bytes()
    path.write_bytes(data[:10] + struct.pack("<I", FORMAT_VERSION + 1) + data[14:])
    with pytest.raises(ValueError, match=f"saved in format {FORMAT_VERSION + 1}"):
        gr.CompiledGrammar.load(path)


def test_nothing_of_the_schema_is_shared_with_the_caller(vocabulary: gr.Vocabulary, tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": [1]}}, "required": ["a"], "additionalProperties": False}
    compiled = gr.compile(gr.Grammar.from_json_schema(copy.deepcopy(schema), whitespace="compact"), vocabulary)
    schema["properties"]["a"]["enum"].append(2)  # type: ignore[index]
    compiled.save(tmp_path / "file")
    loaded = gr.CompiledGrammar.load(tmp_path / "file")
    assert loaded.grammar.accepts('{"a":1}')
    assert not loaded.grammar.accepts('{"a":2}')
