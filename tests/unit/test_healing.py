"""Token healing: masks against those of a grammar that spells the pending bytes itself, and what is taken back."""

from __future__ import annotations

import random
import re
from typing import Any

import numpy as np
import pytest

import guiderail
from guiderail import Grammar, Vocabulary
from guiderail.errors import DeadEndError
from guiderail.healing import free_text, heal

LETTERS = [bytes([byte]) for byte in b"abc:/ "]
TOKENS = [*LETTERS, b"", b"ab", b"abc", b"bc", b"cab", b"://", b": ", b"c:", b"c:/", b"a:", b"ca", b"aab", b"/a"]
EOS = TOKENS.index(b"")
WHOLE = Vocabulary.from_bytes(
    [*TOKENS, *(bytes([b]) for b in range(256) if bytes([b]) not in LETTERS)], eos_token_ids=[EOS]
)
LACKING = Vocabulary.from_bytes([b"", b"ab", b"bc", b"c:", b"//", b"a", b":/", b"/a", b"abc"], eos_token_ids=[0])


def mask(matcher: Any, vocabulary: Vocabulary) -> list[int]:
    bitmask = np.zeros((1, (vocabulary.size + 31) // 32), dtype=np.int32)
    matcher.fill_next_token_bitmask(bitmask)
    return np.flatnonzero(np.unpackbits(bitmask.view(np.uint8), bitorder="little")).tolist()


CASES = [(p, r) for p in (":", "c:", "ab", "abc", "bc:/", "aabc") for r in ("/?/a*", "(ab|c)*", "[abc]{1,3}:?", "//")]


@pytest.mark.parametrize("vocabulary", [WHOLE, LACKING], ids=["every byte", "bytes missing"])
@pytest.mark.parametrize(("pending", "pattern"), CASES)
def test_masks_are_those_of_a_grammar_that_spells_it(pending: str, pattern: str, vocabulary: Vocabulary) -> None:
    try:
        judge = guiderail.compile(Grammar.from_regex(re.escape(pending) + f"(?:{pattern})"), vocabulary)
    except DeadEndError:
        with pytest.raises(DeadEndError):
            guiderail.compile(Grammar.from_regex(pattern), vocabulary).matcher(pending=pending)
        return
    compiled = guiderail.compile(Grammar.from_regex(pattern), vocabulary)
    rng = random.Random(pending + pattern)
    for _ in range(20):
        ours, theirs = compiled.matcher(pending=pending), judge.matcher()
        for _ in range(8):
            allowed = mask(ours, vocabulary)
            assert allowed == mask(theirs, vocabulary)
            assert ours.is_accepting == theirs.is_accepting
            assert ours.forced_bytes() == theirs.forced_bytes()
            for token in range(vocabulary.size):
                assert ours.fork().accept_token(token) == (token in allowed)
            if not allowed:
                break
            token = rng.choice(allowed)
            assert ours.accept_token(token)
            assert theirs.accept_token(token)
            if ours.is_terminated:
                break
        tree = [(-1, t) for t in range(vocabulary.size)]
        rows = np.zeros((2, len(tree), (vocabulary.size + 31) // 32), dtype=np.int32)
        ours.reset()
        theirs.reset()
        ours.fill_draft_bitmask(tree, rows[0])
        theirs.fill_draft_bitmask(tree, rows[1])
        assert (rows[0] == rows[1]).all()


def test_rollback_and_fork_know_what_is_pending() -> None:
    matcher = guiderail.compile(Grammar.from_regex("[ab]+"), WHOLE).matcher(pending="abc")
    first = mask(matcher, WHOLE)
    assert matcher.accept_tokens([TOKENS.index(b"ab"), TOKENS.index(b"ca")]) == 2
    fork = matcher.fork()
    matcher.rollback(1)
    assert [TOKENS[t] for t in mask(matcher, WHOLE)] == [b"c", b"cab", b"ca"]
    assert matcher.expected() == ["pending 'c'"]
    matcher.rollback(1)
    assert mask(matcher, WHOLE) == first
    assert fork.is_accepting
    assert matcher != fork


def test_with_a_prefix_a_suffix_and_a_limit() -> None:
    compiled = guiderail.compile(Grammar.from_json_schema({"const": {"ab": 1}}, whitespace="compact"), WHOLE)
    matcher = compiled.matcher(prefix='{"a', pending='"a')
    assert matcher.accept_tokens([WHOLE.token_bytes.index(b) for b in (b'"', b"ab", b'"')]) == 3
    limited = guiderail.compile(Grammar.from_regex("[abc]*"), WHOLE).matcher(pending="aab", max_tokens=1)
    for token in (b"a", b"a", b"bc"):
        assert limited.accept_token(TOKENS.index(token))
    assert mask(limited, WHOLE) == [EOS]
    ending = guiderail.compile(Grammar.from_regex("a*:b"), WHOLE).matcher(pending="c", suffix="b")
    allowed = [WHOLE.token_bytes[t] for t in mask(ending, WHOLE)]
    assert allowed == [b"c", b"c:", b"ca"]
    assert ending.accept_token(TOKENS.index(b"c:"))
    assert mask(ending, WHOLE) == [EOS]


def test_the_events_of_a_text_leave_pending_bytes_out() -> None:
    compiled = guiderail.compile(Grammar.from_json_schema({"type": "array"}, whitespace="compact"), WHOLE)
    matcher = compiled.matcher(pending="ab ")
    for data in (b"ab", b" ", b"[", b"]"):
        assert matcher.accept_token(WHOLE.token_bytes.index(data))
    assert matcher.partial() == []


def test_what_is_taken_back() -> None:
    def taken(*tokens: bytes) -> bytes:
        ids = [TOKENS.index(token) for token in tokens]
        result = heal(ids, WHOLE)
        spelled = b"".join(TOKENS[i] for i in result.token_ids) + result.pending
        assert spelled == b"".join(tokens)
        return result.pending

    assert taken(b"a", b"c:") == b"c:"  # c:/
    assert taken(b"a", b"c", b":") == b"c:"
    assert taken(b"a", b"://") == b""
    assert taken(b"a", b" ") == b""
    assert taken(b"a", b":") == b":"  # the first token stays, although `a:` is one
    assert taken(b"c", b"a", b"a") == b"aa"
    assert heal([TOKENS.index(b"c"), EOS, TOKENS.index(b":")], WHOLE).pending == b":"
    assert heal([], WHOLE) == ([], b"")


def test_free_text_begins_with_what_is_pending() -> None:
    matcher = free_text(WHOLE).matcher(pending=":")
    assert [WHOLE.token_bytes[t] for t in mask(matcher, WHOLE)] == [b":", b"://", b": "]
    assert matcher.accept_token(TOKENS.index(b":"))
    assert len(mask(matcher, WHOLE)) > 100
    with pytest.raises(DeadEndError):
        free_text(LACKING).matcher(pending="x")


def test_in_generation() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from guiderail.integrations.transformers import GrammarLogitsProcessor

    compiled = guiderail.compile(Grammar.from_regex("[ab]*"), WHOLE)
    processor = GrammarLogitsProcessor([compiled, compiled], pending=[b"ca", b""])
    rows = torch.tensor([[0, 1], [0, 2]])
    allowed = processor(rows, torch.zeros(2, WHOLE.size)).isfinite()
    assert [WHOLE.token_bytes[t] for t in allowed[0].nonzero().flatten()] == [b"c", b"cab", b"ca"]
    assert allowed[1][EOS]
    with pytest.raises(ValueError, match="pending"):
        GrammarLogitsProcessor([compiled, compiled], pending=[b"c"])


def test_generate_heals_each_prompt_of_a_batch() -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from guiderail.integrations.transformers import generate

    torch.manual_seed(0)
    shape = transformers.GPT2Config(
        vocab_size=WHOLE.size, n_embd=16, n_layer=1, n_head=2, n_positions=64, eos_token_id=EOS, bos_token_id=EOS
    )
    model = transformers.GPT2LMHeadModel(shape).eval()
    prompts = [[TOKENS.index(t) for t in text] for text in ((b"b", b"a", b":"), (b"a", b" "), (b"b", b"c:"))]
    compiled = guiderail.compile(Grammar.from_regex("/{0,2}[ab]+"), WHOLE)
    found = generate(
        model, None, prompts, constraint=compiled, heal_prompts=True, max_new_tokens=12, do_sample=True,
        close_in_time=True, return_generations=True,
    )  # fmt: skip
    for generation, pending in zip(found, (b":", b"", b"c:"), strict=True):
        spelled = b"".join(WHOLE.token_bytes[t] for t in generation.token_ids)
        assert spelled == pending + generation.text.encode()
        assert re.fullmatch("/{0,2}[ab]+", generation.text)
