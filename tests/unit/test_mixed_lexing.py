"""Parts that are lexed in different ways: each part's text is a text of its own grammar, whatever stands around it."""

from __future__ import annotations

import functools
import itertools
import json
import random
import re
from collections.abc import Callable

import numpy as np
import pytest

import guiderail
from guiderail import Grammar, Vocabulary
from guiderail.errors import GrammarError
from guiderail.grammars.tags import Tag

BYTES = [*(bytes([b]) for b in range(256)), b""]


def texts(letters: str, longest: int) -> list[str]:
    return ["".join(word) for n in range(longest + 1) for word in itertools.product(letters, repeat=n)]


def check_language(grammar: Grammar, judge: Callable[[str], bool], every: list[str], longest: int) -> None:
    """Membership by the judge; and every prefix that is short enough to be seen completed here is one."""
    members = {text for text in every if judge(text)}
    assert members
    prefixes = {text[:end] for text in members for end in range(len(text) + 1)}
    for text in every:
        assert grammar.accepts(text) == (text in members), text
        if text in prefixes:
            assert grammar.accepts_prefix(text), text
        elif len(text) <= longest:
            assert not grammar.accepts_prefix(text), text


# Names and numbers need something between them, `ab` is a keyword, `1.` and `1..1` are told apart by longest match.
WORDS = Grammar.from_lark(
    'start: item*\nitem: NAME | INT | "." | "ab" "."\nNAME: /[ab]+/\nINT: /1+(\\.1)?/\n%ignore " "', start="start"
)


def split(text: str, between: Callable[[str], bool], begin: str, end: str, content: Callable[[str], bool]) -> bool:
    """Is `text` made of free texts and tags, in some way?"""

    @functools.cache
    def rest(at: int) -> bool:
        place = text.find(begin, at)
        if place < 0:
            return between(text[at:])
        inner = place + len(begin)
        return any(
            text.startswith(end, stop) and content(text[inner:stop]) and rest(stop + len(end))
            for stop in range(inner, len(text) - len(end) + 1)
        )

    return rest(0)


@pytest.mark.parametrize(("begin", "end"), [("<", ">"), ("<", "a"), ("<", "1."), ("<", " ")])
def test_a_part_under_longest_match_inside_free_text(begin: str, end: str) -> None:
    grammar = Grammar.from_tags([Tag(begin, WORDS, end)])
    letters = "".join(dict.fromkeys("<" + end + "ab1."))
    judge = functools.partial(split, between=lambda t: True, begin=begin, end=end, content=WORDS.accepts)
    every = texts(letters, 6 if len(letters) < 6 else 5)
    check_language(grammar, judge, every, 0)
    # What may be completed: by the end of the tag, after at most two more lexemes of the part.
    tails = [end, "." + end, "a" + end, " ." + end, ".." + end]
    for text in texts(letters, 4):
        assert grammar.accepts_prefix(text) == any(judge(text + tail) for tail in ["", *tails]), text


def test_two_parts_with_lexers_of_their_own() -> None:
    other = Grammar.from_lark('start: WORD*\nWORD: "a" | "aa" "b"?\n%ignore "."')
    grammar = Grammar.from_tags([Tag("<", WORDS, ">"), Tag("[", other, "]")], free_text=False)

    def judge(text: str) -> bool:
        return any(
            (text[0], text[stop]) in (("<", ">"), ("[", "]"))
            and (WORDS if text[0] == "<" else other).accepts(text[1:stop])
            and (stop + 1 == len(text) or judge(text[stop + 1 :]))
            for stop in range(1, len(text))
        ) if text else True  # fmt: skip

    check_language(grammar, judge, texts("<>[]a.b", 5), 0)


def test_parts_that_may_be_empty_side_by_side() -> None:
    from guiderail.grammars.tags import Composite

    composite = Composite()
    start = composite.rule("start")
    part = composite.grammar(WORDS, "words")
    composite.define(start, [[part, part, *composite.literal("!"), part]])
    grammar = composite.build(start)
    check_language(
        grammar,
        lambda t: any(
            t[cut : cut + 1] == "!" and WORDS.accepts(t[cut + 1 :])
            and any(WORDS.accepts(t[:i]) and WORDS.accepts(t[i:cut]) for i in range(cut + 1))
            for cut in range(len(t))
        ),
        texts("ab1.!", 5),
        0,
    )  # fmt: skip


def test_a_schema_inside_a_grammar_under_longest_match() -> None:
    value = '%json {"type": "array", "items": {"const": 1}}'
    grammar = Grammar.from_lark(f'start: NAME value ";" | NAME ";"\nvalue: {value}\nNAME: /[a\\[]+/\n%ignore " "')

    def judge(candidate: str) -> bool:
        return (bool(re.fullmatch(r" *[a\[]+ *;? *", candidate)) and candidate.rstrip().endswith(";")) or any(
            re.fullmatch(" *[a\\[]+ *", candidate[:i]) and re.fullmatch(" *; *", candidate[j:])
            and re.fullmatch(r"\[ *(1( *, *1)*)? *\]", candidate[i:j])
            for i in range(len(candidate)) for j in range(i, len(candidate))
        )  # fmt: skip

    check_language(grammar, judge, texts("a[]1; ", 6), 0)


def test_a_value_that_depends_on_what_was_read_stays_exact() -> None:
    schema = json.dumps({"type": "array", "items": {"type": "string"}, "uniqueItems": True})
    grammar = Grammar.from_lark(f'start: "x" %json {schema} NAME\nNAME: /[a-z]+/\n%ignore " "')
    assert grammar.accepts('x ["a", "b"] c')
    assert not grammar.accepts_prefix('x ["a", "a"')
    assert grammar.accepts_prefix('x ["a", "ab"')


def test_special_tokens_between_parts() -> None:
    vocabulary = Vocabulary.from_bytes(
        [*BYTES, b"", b"", b"a.", b"1> "], eos_token_ids=[256], special_tokens={"<|in|>": 257, "<|out|>": 258}
    )
    grammar = Grammar.from_tags([Tag("<|in|>", WORDS, "<|out|>")], markers=["<|in|>", "<|out|>"])
    matcher = guiderail.compile(grammar, vocabulary).matcher()
    assert matcher.accept_tokens([ord("?"), 257, ord("1"), ord(" "), ord("a"), 258, ord("."), 257]) == 8
    assert not matcher.accept_token(ord("?"))
    assert not matcher.is_accepting
    assert matcher.accept_token(258)
    assert matcher.is_accepting
    lark = Grammar.from_lark('start: NAME <|in|> NAME <|out|> NAME\nNAME: /[a-z]+/\n%ignore " "\n')
    matcher = guiderail.compile(lark, vocabulary).matcher()
    assert matcher.accept_tokens([ord("a"), ord(" "), 257, ord(" "), ord("b"), 258, ord("c"), ord(" ")]) == 8
    assert matcher.is_accepting


CODE = "def f(x):\n    if x:  # why\n        return [1,\n2]\n    return f'{x}'\n"


@pytest.fixture(scope="module")
def python() -> Grammar:
    return Grammar.from_tags([Tag("```python\n", Grammar.builtin("python"), "\n```")])


@pytest.mark.parametrize(
    "code", [CODE, CODE.rstrip("\n"), "x = 1", "", "# only this", "x = '''\n```'''", "if x:\n\tpass"]
)
def test_code_in_a_fenced_block(python: Grammar, code: str) -> None:
    assert Grammar.builtin("python").accepts(code)
    text = f"Think first.\n```python\n{code}\n```\nDone."
    assert python.accepts(text)
    assert all(python.accepts_prefix(text[:end]) for end in range(len(text)))
    assert python.accepts(text + text)


@pytest.mark.parametrize(
    "code", ["def f(x):", "x = (", "if x:\npass", "if x:\n\tpass\n        pass\n  y", "x = '''", "  x = 1"]
)
def test_code_that_is_none_never_leaves_its_block(python: Grammar, code: str) -> None:
    assert not Grammar.builtin("python").accepts(code)
    assert not python.accepts(f"```python\n{code}\n```\n")


def test_thinking_first_and_then_exactly_one_program() -> None:
    code = Tag("```python\n", Grammar.builtin("python"), "\n```")
    grammar = Grammar.from_tags([code], at_least=1, at_most=1, think=("<think>", "</think>"))
    text = f"hm ```python\nno </think>Here:\n```python\n{CODE}\n```\nDone."
    assert grammar.accepts(text)
    assert not grammar.accepts("hm</think>Nothing.")
    assert not grammar.accepts_prefix(text + "```python\n")
    assert [part if isinstance(part, str) else part.text for part in grammar.parse(text)][2] == CODE


def test_a_program_is_closed_in_time() -> None:
    code = Tag("```python\n", Grammar.builtin("python"), "\n```")
    grammar = Grammar.from_tags([code], at_least=1, at_most=1, free_text=False)
    compiled = guiderail.compile(grammar, Vocabulary.from_bytes(BYTES, eos_token_ids=[256]))
    bitmask = np.zeros((1, 9), dtype=np.int32)
    for seed in range(3):
        rng = random.Random(seed)
        matcher = compiled.matcher(prefix="```python\ndef f(x):\n    if x:\n", max_tokens=30)
        written = b"```python\ndef f(x):\n    if x:\n"
        while not matcher.is_terminated:
            matcher.fill_next_token_bitmask(bitmask)
            token = rng.choice(np.flatnonzero(np.unpackbits(bitmask.view(np.uint8), bitorder="little")).tolist())
            assert matcher.accept_token(token)
            written += BYTES[token]
        assert grammar.accepts(written)


def test_what_a_part_cannot_be() -> None:
    blocks = Grammar.from_lark(
        "start: NL _INDENT /x/ _DEDENT\nNL: /\\n */\n%declare _INDENT _DEDENT".replace("NL", "_NEWLINE")
    )
    with pytest.raises(GrammarError, match="two parts with blocks"):
        Grammar.from_tags([Tag("<", blocks, ">"), Tag("[", Grammar.builtin("python"), "]")])
    with pytest.raises(GrammarError, match="basic or contextual lexer"):
        Grammar.from_tags([Tag("<", Grammar.from_lark('start: "a"', lexer="lark-basic"), ">")])
    grammar = Grammar.from_tags([Tag("<", WORDS, ">")])
    compiled = guiderail.compile(grammar, Vocabulary.from_bytes(BYTES, eos_token_ids=[256]))
    with pytest.raises(GrammarError, match="suffix"):
        compiled.matcher(suffix=">")


def masks_agree(grammar: Grammar, vocabulary: Vocabulary, text: bytes, places: list[int]) -> None:
    """Each mask against trying every token on its bytes: by another engine, of a vocabulary of bytes."""
    compiled = guiderail.compile(grammar, vocabulary)
    one_by_one = guiderail.compile(grammar, Vocabulary.from_bytes(BYTES, eos_token_ids=[256]))
    bitmask = np.zeros((1, (vocabulary.size + 31) // 32), dtype=np.int32)
    for place in places:
        matcher = compiled.matcher(prefix=text[:place])
        matcher.fill_next_token_bitmask(bitmask)
        bits = np.unpackbits(bitmask.view(np.uint8), bitorder="little")[: vocabulary.size].astype(bool)
        judge = one_by_one.matcher(prefix=text[:place])
        for token, data in enumerate(vocabulary.token_bytes):
            if token in vocabulary.eos_token_ids or not data:
                continue
            assert bits[token] == (judge.count_valid(list(data)) == len(data)), (text[:place], data)


def small_vocabulary(samples: list[str]) -> Vocabulary:
    rng = random.Random(0)
    tokens = dict.fromkeys(BYTES)
    for sample in samples:
        data = sample.encode()
        for _ in range(150):
            at = rng.randrange(len(data))
            tokens[data[at : at + rng.randrange(2, 9)]] = None
    listed = [token for token in tokens if token]
    return Vocabulary.from_bytes([*listed, b""], eos_token_ids=[len(listed)])


def test_masks_at_borders_against_single_bytes(python: Grammar) -> None:
    text = f"Think first.\n```python\n{CODE}x = 1 # c\n```\nDone."
    vocabulary = small_vocabulary([text, "\n```\n", "``` done", "1\n```"])
    masks_agree(
        python, vocabulary, text.encode(), list(range(0, len(text), 3)) + list(range(len(text) - 20, len(text)))
    )
    lark = Grammar.from_lark('start: (NAME "=" %json {} ";")*\nNAME: /[a-z]+/\n%ignore /[ \\n]/')
    text = 'a = {"b": [1, 2.5, "x"]};\n bc=true ; d = null;'
    masks_agree(lark, small_vocabulary([text]), text.encode(), list(range(len(text) + 1)))
