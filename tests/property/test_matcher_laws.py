"""The matcher's laws on grammars of every front end, over byte vocabularies and over words.

What needs no oracle is checked along random walks (oracles/laws.py), and three equalities between ways to the same
mask: a warm store and a fresh one, one call for a batch and a call for each, a token and its bytes.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest

import guiderail as gr
from conftest import SEED
from oracles import laws, tokens

NESTED_SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 4},
        "size": {"type": "integer", "minimum": -2, "maximum": 30},
        "kind": {"enum": ["a", "ab", "b"]},
        "parts": {"type": "array", "items": {"$ref": "#"}, "maxItems": 2},
    },
    "required": ["name"],
    "additionalProperties": False,
}
ARITHMETIC = """
start: sum
sum: product | sum "+" product
product: atom | product "*" atom
atom: NUMBER | NAME | "(" sum ")"
NUMBER: /[0-9]+(\\.[0-9]+)?/
NAME: /[a-z]+/
%ignore " "
"""
RANGES = """
start: item ("," item)*
item: INT | FLOAT | INT ".." INT | "if" NAME
INT: /[0-9]+/
FLOAT: /[0-9]+\\.[0-9]+/
NAME: /[a-z]+/
WS: /[ \\n]+/
%ignore WS
"""
PALINDROMES = 'root ::= "a" root "a" | "é" root "é" | [a-c] | ""'

GRAMMARS: dict[str, tuple[Callable[[], gr.Grammar], str]] = {
    # name -> (grammar, characters its texts are made of)
    "regex": (lambda: gr.Grammar.from_regex(r"(?:[ab]{2,3}é?)+|c*(?!cc$)c"), "abcé"),
    "regex, long counts": (lambda: gr.Grammar.from_regex(r"[a-c]{0,300}(?:ab){10,}"), "abc"),
    "choices": (lambda: gr.Grammar.from_choices(["a", "ab", "abc", "é", "日本"]), "abcé日本"),
    "palindromes": (lambda: gr.Grammar.from_gbnf(PALINDROMES), "abcé"),
    "ambiguous": (lambda: gr.Grammar.from_gbnf('root ::= root root | "a" | "b" | ""'), "ab"),
    "arithmetic": (lambda: gr.Grammar.from_lark(ARITHMETIC, lexer="munch"), "12.+*() ab"),
    "ranges": (lambda: gr.Grammar.from_lark(RANGES, lexer="munch"), "12., if\n"),
    "json": (lambda: gr.Grammar.builtin("json"), '{}[]",:1a\\ utrefalsn'),
    "schema": (lambda: gr.Grammar.from_json_schema(NESTED_SCHEMA), '{}[]",:1a\\ namesizekdprt'),
}


def words(rng: random.Random, characters: str, kind: str) -> tuple[list[bytes], list[int]]:
    """Tokens made of a grammar's own characters, cut at bytes. kind: 'bytes', or 'words' (with the single bytes)."""
    singles = [bytes([byte]) for byte in range(256)]
    found: set[bytes] = set()
    if kind == "words":
        pool = characters.encode()
        for _ in range(150):
            data = "".join(rng.choices(characters, k=rng.randint(1, 5))).encode()
            found.add(data[rng.randint(0, 1) :] or pool[:1])
        found |= {b'"}', b'","', b'": "', b'"a": ', b"}]", b"1, 2", b'{"name": "', b"..1", b"1..", b" if a", b"\\u00"}
    token_bytes = singles + sorted(found) + [b""]
    order = list(range(len(token_bytes)))
    rng.shuffle(order)
    token_bytes = [token_bytes[index] for index in order]
    return [*token_bytes, b"", b""], [len(token_bytes), len(token_bytes) + 1]


@pytest.fixture(params=GRAMMARS, scope="module")
def grammar_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("kind", ["bytes", "words"])
def test_laws(grammar_name: str, kind: str) -> None:
    make, characters = GRAMMARS[grammar_name]
    rng = random.Random(f"{SEED} {grammar_name} {kind}")
    token_bytes, eos = words(rng, characters, kind)
    vocabulary = gr.Vocabulary.from_bytes(token_bytes, eos_token_ids=eos)
    compiled = gr.compile(make(), vocabulary)
    laws.all_laws(rng, compiled.matcher, len(token_bytes), eos, token_bytes, walks=3, steps=8)


def test_masks_say_what_the_grammar_says(grammar_name: str) -> None:
    """Along walks, for every token: allowed <=> the bytes so far with the token's are a viable prefix, by the grammar
    alone, which has no vocabulary, no trie and no mask store."""
    make, characters = GRAMMARS[grammar_name]
    rng = random.Random(f"{SEED} {grammar_name}")
    token_bytes, eos = words(rng, characters, "words")
    grammar = make()
    matcher = gr.compile(grammar, gr.Vocabulary.from_bytes(token_bytes, eos_token_ids=eos)).matcher()
    text = b""
    for _ in range(25):
        expected = tokens.allowed_tokens(text, grammar.accepts_prefix, grammar.accepts, token_bytes, eos)
        assert laws.allowed(matcher, len(token_bytes)) == expected, text
        choices = sorted(expected - set(eos))
        if not choices:
            matcher.reset()
            text = b""
            continue
        token_id = rng.choice(choices)
        assert matcher.accept_token(token_id)
        text += token_bytes[token_id]


def test_warm_equals_cold(grammar_name: str) -> None:
    """After other sequences have filled the mask store, in another order, every mask is what a fresh store gives."""
    make, characters = GRAMMARS[grammar_name]
    rng = random.Random(f"{SEED} {grammar_name}")
    token_bytes, eos = words(rng, characters, "words")
    vocabulary = gr.Vocabulary.from_bytes(token_bytes, eos_token_ids=eos)
    warm = gr.compile(make(), vocabulary)
    for _ in range(20):
        laws.random_walk(rng, warm.matcher(), len(token_bytes), eos, 12)
    for _ in range(3):
        cold = gr.compile(make(), vocabulary).matcher()
        matcher = warm.matcher()
        for _ in range(10):
            ids = laws.allowed(matcher, len(token_bytes))
            assert ids == laws.allowed(cold, len(token_bytes))
            choices = sorted(ids - set(eos))
            if not choices:
                break
            token_id = rng.choice(choices)
            assert matcher.accept_token(token_id)
            assert cold.accept_token(token_id)


def test_batch_equals_serial() -> None:
    """Matchers of many grammars at many positions, filled by one call: rows and order as asked."""
    rng = random.Random(SEED)
    token_bytes, eos = words(rng, 'ab1"{}[]:, é', "words")
    vocabulary = gr.Vocabulary.from_bytes(token_bytes, eos_token_ids=eos)
    matchers = []
    for make, _ in GRAMMARS.values():
        compiled = gr.compile(make(), vocabulary)
        for steps in (0, 1, 3, 6):
            matcher = compiled.matcher()
            laws.random_walk(rng, matcher, len(token_bytes), eos, steps)
            matchers.append(matcher)
    rng.shuffle(matchers)
    serial = gr.allocate_token_bitmask(len(matchers), vocabulary)
    for row, matcher in enumerate(matchers):
        matcher.fill_next_token_bitmask(serial, row)
    batch = gr.allocate_token_bitmask(len(matchers), vocabulary)
    gr.fill_next_token_bitmask_batch(matchers, batch)
    assert np.array_equal(np.asarray(serial), np.asarray(batch))


def test_accept_tokens_stops_at_the_first_refused() -> None:
    token_bytes, eos = tokens.byte_vocabulary()
    compiled = gr.compile(gr.Grammar.from_regex("ab*c"), gr.Vocabulary.from_bytes(token_bytes, eos_token_ids=eos))
    matcher = compiled.matcher()
    assert matcher.accept_tokens(list(b"abbxc")) == 3
    assert laws.allowed(matcher, 257) == {ord("b"), ord("c")}
    assert matcher.accept_tokens([ord("c"), 256]) == 2
    assert matcher.is_terminated


def test_forced_bytes_are_what_every_text_goes_on_with(grammar_name: str) -> None:
    make, characters = GRAMMARS[grammar_name]
    rng = random.Random(f"{SEED} {grammar_name}")
    token_bytes, eos = words(rng, characters, "words")
    grammar = make()
    compiled = gr.compile(grammar, gr.Vocabulary.from_bytes(token_bytes, eos_token_ids=eos))
    for _ in range(12):
        matcher = compiled.matcher()
        taken = laws.random_walk(rng, matcher, len(token_bytes), eos, rng.randint(0, 6))
        text = b"".join(token_bytes[token_id] for token_id in taken)
        forced = matcher.forced_bytes()
        for end in range(len(forced)):
            alive = [byte for byte in range(256) if grammar.accepts_prefix(text + forced[:end] + bytes([byte]))]
            assert alive == [forced[end]], (text, forced, end)
            assert not grammar.accepts(text + forced[:end]), (text, forced, end)
        alive = [byte for byte in range(256) if grammar.accepts_prefix(text + forced + bytes([byte]))]
        assert len(alive) != 1 or grammar.accepts(text + forced), (
            f"{text + forced!r} goes on with {bytes(alive)!r} only"
        )
        ids = matcher.forced_tokens()
        assert matcher.accept_tokens(ids) == len(ids), (text, ids)


@pytest.mark.parametrize("seed", range(3))
def test_tokens_and_bytes_agree_on_long_json(seed: int) -> None:
    """A long walk over words against the same text fed byte by byte to the grammar."""
    rng = random.Random(SEED + seed)
    token_bytes, eos = words(rng, '{}[]",:12a ', "words")
    grammar = gr.Grammar.builtin("json")
    matcher = gr.compile(grammar, gr.Vocabulary.from_bytes(token_bytes, eos_token_ids=eos)).matcher()
    taken = laws.random_walk(rng, matcher, len(token_bytes), eos, 150)
    text = b"".join(token_bytes[token_id] for token_id in taken)
    assert grammar.accepts_prefix(text)
    assert grammar.accepts(text) == matcher.is_accepting
    matcher.rollback(len(taken))
    assert laws.allowed(matcher, len(token_bytes)) == tokens.allowed_tokens(
        b"", grammar.accepts_prefix, grammar.accepts, token_bytes, eos
    )


def test_a_draft_tree_is_filled_like_forks(grammar_name: str) -> None:
    """Row i is the mask after draft token i on top of its parent; below a refused token nothing is allowed."""
    make, characters = GRAMMARS[grammar_name]
    rng = random.Random(f"{SEED} {grammar_name}")
    token_bytes, eos = words(rng, characters, "words")
    vocabulary = gr.Vocabulary.from_bytes(token_bytes, eos_token_ids=eos)
    compiled = gr.compile(make(), vocabulary)
    for _ in range(6):
        matcher = compiled.matcher()
        laws.random_walk(rng, matcher, len(token_bytes), eos, rng.randint(0, 4))
        before = laws.allowed(matcher, len(token_bytes))
        tree: list[tuple[int, int]] = []
        after: list[gr.Matcher | None] = []
        for index in range(12):
            parent = rng.randint(-1, index - 1)
            origin = matcher if parent < 0 else after[parent]
            legal = sorted(laws.allowed(origin, len(token_bytes))) if origin is not None else []
            token_id = rng.choice(legal) if legal and rng.random() < 0.8 else rng.randrange(len(token_bytes))
            fork = origin.fork() if origin is not None else None
            after.append(fork if fork is not None and fork.accept_token(token_id) else None)
            tree.append((parent, token_id))
        bitmask = gr.allocate_token_bitmask(len(tree), vocabulary)
        matcher.fill_draft_bitmask(tree, bitmask)
        for row, fork in enumerate(after):
            expected = laws.allowed(fork, len(token_bytes)) if fork is not None else set()
            assert tokens.mask_to_set(np.asarray(bitmask)[row], len(token_bytes)) == expected, (row, tree)
        assert laws.allowed(matcher, len(token_bytes)) == before, "filling a draft tree moved the matcher"


def test_saved_and_loaded_is_the_same(grammar_name: str, tmp_path: object) -> None:
    """A compiled grammar read back from a file gives the masks of the one written, at each step of a walk."""
    make, characters = GRAMMARS[grammar_name]
    rng = random.Random(f"{SEED} {grammar_name}")
    token_bytes, eos = words(rng, characters, "words")
    compiled = gr.compile(make(), gr.Vocabulary.from_bytes(token_bytes, eos_token_ids=eos))
    for _ in range(3):
        laws.random_walk(rng, compiled.matcher(), len(token_bytes), eos, 8)
    path = f"{tmp_path}/saved.guiderail"
    compiled.save(path)
    loaded = gr.CompiledGrammar.load(path)
    matcher, other = compiled.matcher(), loaded.matcher()
    for _ in range(10):
        ids = laws.allowed(matcher, len(token_bytes))
        assert laws.allowed(other, len(token_bytes)) == ids
        choices = sorted(ids - set(eos))
        if not choices:
            break
        token_id = rng.choice(choices)
        assert matcher.accept_token(token_id)
        assert other.accept_token(token_id)


def test_threads_share_a_compiled_grammar() -> None:
    """Eight threads walk one compiled grammar from cold, each its own matcher; every mask is that of a lone walk."""
    from concurrent.futures import ThreadPoolExecutor

    rng = random.Random(SEED)
    token_bytes, eos = words(rng, '{}[]",:1a ', "words")
    vocabulary = gr.Vocabulary.from_bytes(token_bytes, eos_token_ids=eos)
    paths = []
    lone = gr.compile(gr.Grammar.builtin("json"), vocabulary)
    for _ in range(24):
        matcher = lone.matcher()
        taken = laws.random_walk(rng, matcher, len(token_bytes), eos, 25)
        matcher.reset()
        masks = []
        for token_id in taken:
            masks.append(laws.allowed(matcher, len(token_bytes)))
            matcher.accept_token(token_id)
        paths.append((taken, masks))

    def walk(path: tuple[list[int], list[set[int]]], compiled: gr.CompiledGrammar) -> bool:
        matcher = compiled.matcher()
        for token_id, expected in zip(*path, strict=True):
            if laws.allowed(matcher, len(token_bytes)) != expected or not matcher.accept_token(token_id):
                return False
        return True

    for _ in range(5):
        shared = gr.compile(gr.Grammar.builtin("json"), vocabulary)
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(lambda path, shared=shared: walk(path, shared), paths))
