"""The matcher's surface: tokens, masks, forks, the way back, what is forced and what is refused."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

import guiderail as gr
from oracles import laws

TOKENS = [
    *(bytes([byte]) for byte in range(256)),
    b"ab",
    b"abc",
    b"bc",
    b"true",
    b'{"',
    b"\xc3\xa9",
    b"<tool>",
    b"",
    b"",
    b"",
]
AB, ABC, BC, TRUE, OPEN, E_ACUTE = range(256, 262)
TOOL, UNUSED, EOS, EOT = 262, 263, 264, 265
SIZE = len(TOKENS)
WIDTH = (SIZE + 31) // 32


def vocabulary() -> gr.Vocabulary:
    return gr.Vocabulary.from_bytes(TOKENS, eos_token_ids=[EOS, EOT])


def matcher_of(pattern: str) -> gr.Matcher:
    return gr.compile(gr.Grammar.from_regex(pattern), vocabulary()).matcher()


def allowed(matcher: gr.Matcher) -> set[int]:
    return laws.allowed(matcher, SIZE)


def bitmask(rows: int = 1, width: int = WIDTH) -> npt.NDArray[np.int32]:
    return np.full((rows, width), -1, dtype=np.int32)


def ids(row: npt.NDArray[np.int32]) -> set[int]:
    return set(np.flatnonzero(np.unpackbits(row.view(np.uint8), bitorder="little")).tolist())


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_accept_token_moves_or_does_nothing() -> None:
    matcher = matcher_of("abc?")
    assert allowed(matcher) == {ord("a"), AB, ABC}
    assert not matcher.accept_token(BC)
    assert matcher.num_tokens == 0
    assert matcher.accept_token(ord("a"))
    assert allowed(matcher) == {ord("b"), BC}
    assert matcher.accept_token(BC)
    assert matcher.num_tokens == 2
    assert allowed(matcher) == {EOS, EOT}


@pytest.mark.parametrize("token", [UNUSED, SIZE, 2**31])
def test_tokens_that_are_in_no_text_are_refused(token: int) -> None:
    matcher = matcher_of("(?s:.*)")
    assert not matcher.accept_token(token)
    assert matcher.num_tokens == 0


@pytest.mark.parametrize("token", [-1, 2**32, "a", None, 1.5])
def test_what_is_no_token_id_is_a_type_error(token: object) -> None:
    with pytest.raises(TypeError):
        matcher_of("a").accept_token(token)  # type: ignore[arg-type]


def test_accept_tokens_stops_at_the_first_refusal() -> None:
    matcher = matcher_of("(?:ab)*c")
    assert matcher.accept_tokens([AB, ord("a"), ord("a"), AB]) == 2
    assert matcher.num_tokens == 2
    assert allowed(matcher) == {ord("b"), BC}
    assert matcher.accept_tokens([]) == 0


def test_count_valid_does_not_move() -> None:
    matcher = matcher_of("(?:ab)*c")
    assert matcher.count_valid([AB, AB, ord("c"), EOS]) == 4
    assert matcher.count_valid([AB, EOS]) == 1
    assert matcher.num_tokens == 0
    assert not matcher.is_terminated


def test_the_end_of_the_sequence() -> None:
    matcher = matcher_of("a+")
    assert not matcher.accept_token(EOS)
    assert matcher.accept_token(ord("a"))
    assert matcher.is_accepting
    assert matcher.accept_token(EOT)
    assert matcher.is_terminated
    assert allowed(matcher) == set()
    assert not matcher.accept_token(ord("a"))
    assert not matcher.accept_token(EOS)
    assert matcher.forced_bytes() == b""
    matcher.rollback(1)
    assert not matcher.is_terminated
    assert allowed(matcher) == {ord("a"), EOS, EOT}


def test_bytes_of_one_character_may_be_tokens() -> None:
    matcher = matcher_of("é+")
    assert allowed(matcher) == {0xC3, E_ACUTE}
    assert matcher.accept_token(0xC3)
    assert not matcher.is_accepting
    assert allowed(matcher) == {0xA9}
    assert matcher.accept_token(0xA9)
    assert matcher.is_accepting


# --- masks ------------------------------------------------------------------------------------------------------------


def test_fill_writes_its_row_alone_and_clears_what_lies_beyond_the_vocabulary() -> None:
    mask = bitmask(3, WIDTH + 2)
    matcher_of("abc?").fill_next_token_bitmask(mask, 1)
    assert (mask[[0, 2]] == -1).all()
    assert ids(mask[1]) == {ord("a"), AB, ABC}


def test_fill_refuses_rows_that_are_not_there() -> None:
    with pytest.raises(IndexError):
        matcher_of("a").fill_next_token_bitmask(bitmask(2), 2)
    with pytest.raises(ValueError, match="words a row"):
        matcher_of("a").fill_next_token_bitmask(bitmask(1, WIDTH - 1))


@pytest.mark.parametrize(
    "wrong",
    [np.zeros(WIDTH, np.int32), np.zeros((1, WIDTH), np.int64), np.zeros((WIDTH, 2), np.int32).T],
    ids=["one dimension", "int64", "not contiguous"],
)
def test_fill_takes_nothing_but_an_int32_matrix(wrong: npt.NDArray[np.generic]) -> None:
    with pytest.raises(TypeError):
        matcher_of("a").fill_next_token_bitmask(wrong)


def test_a_batch_is_its_rows_one_by_one() -> None:
    compiled = gr.compile(gr.Grammar.from_regex("(?:abc|true)*"), vocabulary())
    matchers = [compiled.matcher(prefix=text) for text in (b"", b"a", b"tr", b"abctr")]
    matchers[0].accept_token(EOS)
    mask = bitmask(6)
    gr.fill_next_token_bitmask_batch(matchers, mask, [5, 3, 0, 1])
    assert [ids(mask[row]) for row in (5, 3, 0, 1)] == [allowed(matcher) for matcher in matchers]
    assert (mask[[2, 4]] == -1).all()
    with pytest.raises(ValueError, match="one row per matcher"):
        gr.fill_next_token_bitmask_batch(matchers, mask, [1])
    with pytest.raises(IndexError):
        gr.fill_next_token_bitmask_batch(matchers, mask, [1, 2, 3, 6])


def test_a_tree_of_draft_tokens() -> None:
    """Row i is the mask after the path to node i; a token that is refused has an empty row, and so has all below it."""
    matcher = matcher_of("(?:abc|ab)*d?")
    assert matcher.accept_token(AB)
    tree = [(-1, ord("c")), (0, AB), (1, ord("d")), (-1, ord("x")), (3, AB), (-1, ABC), (2, EOS)]
    mask = bitmask(len(tree))
    matcher.fill_draft_bitmask(tree, mask)
    for row, path in enumerate([[ord("c")], [ord("c"), AB], [ord("c"), AB, ord("d")], None, None, [ABC]]):
        expected: set[int] = set()
        if path is not None:
            fork = matcher.fork()
            assert fork.accept_tokens(path) == len(path)
            expected = allowed(fork)
        assert ids(mask[row]) == expected, row
    assert matcher.num_tokens == 1
    with pytest.raises(ValueError, match="parent"):
        matcher.fill_draft_bitmask([(0, AB)], mask)
    with pytest.raises(IndexError):
        matcher.fill_draft_bitmask(tree, bitmask(2))


# --- forks and the way back -------------------------------------------------------------------------------------------


def test_rollback_and_reset() -> None:
    matcher = matcher_of("(?:abc)*")
    masks = [allowed(matcher)]
    for token in (ord("a"), ord("b"), ord("c"), ABC):
        assert matcher.accept_token(token)
        masks.append(allowed(matcher))
    matcher.rollback(0)
    assert matcher.num_tokens == 4
    matcher.rollback(2)
    assert allowed(matcher) == masks[2]
    with pytest.raises(gr.errors.GrammarError, match="roll back"):
        matcher.rollback(3)
    assert matcher.num_tokens == 2
    matcher.reset()
    assert matcher.num_tokens == 0
    assert allowed(matcher) == masks[0]


def test_forks_part_ways_and_equal_states_compare_equal() -> None:
    matcher = matcher_of("(?:abc)*")
    fork = matcher.fork()
    assert fork == matcher
    assert matcher.accept_token(ABC)
    assert fork != matcher
    assert fork.num_tokens == 0
    assert fork.accept_tokens([ABC, ABC, ABC]) == 3
    assert fork == matcher  # a loop: the same state again, however often it was gone round
    fork.accept_token(AB)
    fork.rollback(1)
    assert fork == matcher
    fork.rollback(3)
    assert fork != matcher
    assert matcher.num_tokens == 1


def test_a_prefix_is_taken_as_read() -> None:
    compiled = gr.compile(gr.Grammar.from_regex("(?:abc)*"), vocabulary())
    matcher = compiled.matcher(prefix="ab")
    assert allowed(matcher) == {ord("c")}
    assert matcher.num_tokens == 0
    assert matcher.accept_token(ord("c"))
    matcher.reset()
    assert allowed(matcher) == {ord("c")}
    with pytest.raises(gr.errors.GrammarError):
        matcher.rollback(1)
    with pytest.raises(gr.errors.GrammarError, match="prefix"):
        compiled.matcher(prefix=b"ax")


# --- forced text, the end ---------------------------------------------------------------------------------------------


def test_forced_bytes_stop_where_there_is_a_choice_or_an_end() -> None:
    assert matcher_of("abcd(?:e|f)").forced_bytes() == b"abcd"
    assert matcher_of("ab(?:cd)?").forced_bytes() == b"ab"
    assert matcher_of("é|è").forced_bytes() == b"\xc3"
    assert matcher_of("a*").forced_bytes() == b""
    assert matcher_of("a{100}").forced_bytes(7) == b"a" * 7
    matcher = matcher_of("x(?:abc|abd)y")
    assert matcher.accept_token(ord("x"))
    assert matcher.forced_bytes() == b"ab"
    assert matcher.num_tokens == 1


def test_must_stop() -> None:
    matcher = matcher_of("a|abc")
    assert not matcher.must_stop
    matcher.accept_token(ord("a"))
    assert matcher.is_accepting
    assert not matcher.must_stop
    matcher.accept_token(BC)
    assert matcher.must_stop
    matcher.accept_token(EOS)
    assert not matcher.must_stop  # it has


# --- explanations -----------------------------------------------------------------------------------------------------


def test_explanations_name_what_is_expected_and_what_fails() -> None:
    grammar = gr.Grammar.from_lark('start: NAME "=" NUMBER\nNAME: /[a-z]+/\nNUMBER: /[0-9]+/', lexer="munch")
    matcher = gr.compile(grammar, vocabulary()).matcher()
    assert matcher.expected() == ["NAME"]
    assert "NAME" in matcher.explain(ord("1"))
    assert matcher.explain(ord("1")).startswith("refused")
    assert matcher.explain(ABC).startswith("allowed")
    assert "not complete" in matcher.explain(EOS)
    assert "not in the vocabulary" in matcher.explain(SIZE)
    assert "special or unused" in matcher.explain(UNUSED)
    assert matcher.accept_token(ABC)
    assert "first 0 byte(s)" in matcher.explain(OPEN)
    assert any("NAME" in name for name in matcher.expected())


# --- vocabularies that cannot write everything ------------------------------------------------------------------------


def compile_with(token_bytes: list[bytes], grammar: gr.Grammar) -> gr.CompiledGrammar:
    return gr.compile(grammar, gr.Vocabulary.from_bytes([*token_bytes, b""], eos_token_ids=[len(token_bytes)]))


def test_allowed_means_completable_in_tokens() -> None:
    matcher = compile_with([b"a", b"b", b"ab", b"cd"], gr.Grammar.from_regex("a+c|b+|abcd?")).matcher()
    assert laws.allowed(matcher, 5) == {0, 1, 2}
    assert matcher.accept_token(0)
    assert laws.allowed(matcher, 5) == {1}  # after "aa" only a c could end it, which no token writes
    assert not matcher.fork().accept_token(0)
    assert matcher.accept_token(1)
    assert laws.allowed(matcher, 5) == {3}


def test_no_text_at_all_is_a_dead_end_when_compiled() -> None:
    with pytest.raises(gr.errors.DeadEndError):
        compile_with([b"a", b"bc"], gr.Grammar.from_regex("a*b"))
    with pytest.raises(gr.errors.DeadEndError):
        compile_with([b"a", b"b"], gr.Grammar.from_lark("start: A B\nA: /a/\nB: /c/", lexer="munch"))


def test_tokens_may_end_inside_a_lexeme_and_go_on_in_the_next() -> None:
    grammar = gr.Grammar.from_gbnf('root ::= "[" root* "]" | "x"')
    matcher = compile_with([b"[[", b"]]", b"x", b"]x", b"[x"], grammar).matcher()
    assert laws.allowed(matcher, 6) == {0, 2, 4}
    assert matcher.accept_tokens([0, 2]) == 2
    assert laws.allowed(matcher, 6) == {0, 1, 2, 3, 4}
    assert matcher.accept_token(3)
    assert laws.allowed(matcher, 6) == {0, 2, 4}  # one bracket is open: two more, or a pair closes beyond the root


def test_a_row_of_a_lexeme_with_several_ends_keeps_them_where_not_every_byte_is_a_token() -> None:
    """Values of JSON are one automaton with an end for each kind; many tokens make it worth a row of its own."""
    numbers = [str(number).encode() for number in range(400)]
    matcher = compile_with([*numbers, b'"x', b'y"', b"["], gr.Grammar.builtin("json")).matcher()
    assert laws.allowed(matcher, 404) == {*range(400), 400}  # no token closes an array
