"""Any sequence of calls on a matcher, beside the oracle's matcher: same answers after each.

Hypothesis chooses the calls (accept a legal or an illegal token, several at once, roll back, fork, switch between
forks, reset, end the text) and shrinks a failing sequence to the shortest one.
"""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import guiderail as gr
from oracles import laws, munch, tokens
from oracles import regular_expressions as regex
from oracles.context_free import Earley, Grammar

TOKEN_BYTES = [b"a", b"b", b"c", b"ab", b"ba", b"abc", b"aa", b"bb", b"cc", b"\xc3", b"\xa9", b"\xc3\xa9a", b"", b""]
EOS = [13]
SIZE = len(TOKEN_BYTES)

TREE = regex.sequence(
    [regex.Repeat(regex.choice([regex.literal("ab"), regex.literal("é")]), 0, 3), regex.one_of(b"abc")]
)
RULES = {
    "s": regex.Choice((regex.Sequence((regex.Name("s"), regex.Name("t"))), regex.Name("t"), regex.EMPTY_TEXT)),
    "t": regex.Choice(
        (regex.Sequence((regex.literal(b"a"), regex.Name("s"), regex.literal(b"b"))), regex.literal(b"c"))
    ),
}
TERMINALS = [
    munch.Terminal("WORD", regex.Repeat(regex.one_of(b"ab"), 1, 3), False),
    munch.Terminal("AB", regex.literal(b"ab"), True),
    munch.Terminal("C", regex.Repeat(regex.literal(b"c"), 1, 2), False),
]


def regular() -> tuple[gr.Grammar, tokens.Decide, tokens.Decide]:
    # The tree prints ASCII only; the character is written where the pattern is.
    pattern = "(?:ab|é){0,3}[abc]"
    return gr.Grammar.from_regex(pattern), lambda t: regex.viable(TREE, t), lambda t: regex.matches(TREE, t)


def context_free() -> tuple[gr.Grammar, tokens.Decide, tokens.Decide]:
    start = Earley(Grammar("s", RULES))
    text = 'root ::= root t | t | ""\nt ::= "a" root "b" | "c"\n'
    return gr.Grammar.from_gbnf(text), lambda t: start.read(t).viable, lambda t: start.read(t).accepting


def lexed() -> tuple[gr.Grammar, tokens.Decide, tokens.Decide]:
    rules: dict[str, list[tuple[str, ...]]] = {"start": [("WORD", "C", "AB"), ("AB", "C", "WORD"), ("C",), ("WORD",)]}
    grammar = munch.MunchGrammar("start", rules, TERMINALS)
    texts = grammar.texts(4000)
    assert texts
    return (
        gr.Grammar.from_lark(grammar.to_lark(), lexer="munch"),
        munch.prefixes(texts).__contains__,
        texts.__contains__,
    )


KINDS = [regular(), context_free(), lexed()]
VOCABULARY = gr.Vocabulary.from_bytes(TOKEN_BYTES, eos_token_ids=EOS)
COMPILED = [gr.compile(grammar, VOCABULARY) for grammar, _, _ in KINDS]


class MatcherMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.pairs: list[tuple[Any, tokens.ReferenceMatcher]] = []
        self.current = 0
        self.accepted: list[int] = []

    @initialize(kind=st.sampled_from(range(len(KINDS))))
    def begin(self, kind: int) -> None:
        _, viable, accepts = KINDS[kind]
        self.pairs = [(COMPILED[kind].matcher(), tokens.ReferenceMatcher(viable, accepts, TOKEN_BYTES, EOS))]
        self.accepted = [0]

    @property
    def pair(self) -> tuple[Any, tokens.ReferenceMatcher]:
        return self.pairs[self.current]

    @rule(token_id=st.sampled_from(range(SIZE)))
    def accept(self, token_id: int) -> None:
        matcher, reference = self.pair
        taken = reference.accept_token(token_id)
        assert matcher.accept_token(token_id) == taken
        self.accepted[self.current] += taken

    @rule(choice=st.integers(0, 1000))
    def accept_legal(self, choice: int) -> None:
        matcher, reference = self.pair
        legal = sorted(laws.allowed(reference, SIZE) - set(EOS))
        if legal:
            token_id = legal[choice % len(legal)]
            assert reference.accept_token(token_id)
            assert matcher.accept_token(token_id)
            self.accepted[self.current] += 1

    @rule(token_ids=st.lists(st.sampled_from(range(SIZE)), max_size=4))
    def accept_several(self, token_ids: list[int]) -> None:
        matcher, reference = self.pair
        count = reference.accept_tokens(token_ids)
        assert matcher.accept_tokens(token_ids) == count
        self.accepted[self.current] += count

    @precondition(lambda self: self.accepted[self.current] > 0)
    @rule(data=st.data())
    def rollback(self, data: st.DataObject) -> None:
        count = data.draw(st.integers(0, self.accepted[self.current]))
        for each in self.pair:
            each.rollback(count)
        self.accepted[self.current] -= count

    @rule()
    def reset(self) -> None:
        for each in self.pair:
            each.reset()
        self.accepted[self.current] = 0

    @precondition(lambda self: len(self.pairs) < 4)
    @rule()
    def fork(self) -> None:
        matcher, reference = self.pair
        self.pairs.append((matcher.fork(), reference.fork()))
        self.accepted.append(self.accepted[self.current])

    @rule(index=st.integers(0, 3))
    def switch(self, index: int) -> None:
        self.current = index % len(self.pairs)

    @invariant()
    def all_agree(self) -> None:
        for matcher, reference in self.pairs:
            assert matcher.is_terminated == reference.is_terminated
            if not reference.is_terminated:
                assert matcher.is_accepting == reference.is_accepting
                assert laws.allowed(matcher, SIZE) == laws.allowed(reference, SIZE)


MatcherMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestMatcher = MatcherMachine.TestCase
