"""Terminals under lexer="munch" take what `re.match` takes: the order of alternatives and lazy loops count.

With the one rule `start: A`, a text is in the language exactly if `re.match` takes all of it. The same texts are asked
of expressions for which the order matters and of those for which it provably does not, which are lowered differently.
"""

from __future__ import annotations

import itertools
import random
import re

import pytest

import guiderail as gr
from conftest import SEED

INT = r"[0-9]+"
NAME = r"[a-zA-Z_]\w*"
# The expression that Lark's common.FLOAT becomes.
FLOAT = (
    r"(?:[0-9])+(?:e|E)(?:(?:\+|\-)?(?:[0-9])+)"
    r"|(?:(?:[0-9])+\.(?:(?:[0-9])+)?|\.(?:[0-9])+)(?:(?:e|E)(?:(?:\+|\-)?(?:[0-9])+))?"
)
C_COMMENT = r"/\*(.|\n)*?\*/"
PYTHON_STRING = r'".*?(?<!\\)(?:\\\\)*?"'

PATTERNS = [
    r"a|ab",
    r"ab|a",
    r"(a|ab)(c|bcd)",
    r"(ab|a)(bcd|c)",
    r"(a|ab)(c|bcd)(d*)",
    r"a*ab?",
    r"a*b?",
    r"a*?b?",
    r"a?b??c",
    r"a?b??",
    r"a??b",
    r"(?:|a)b",
    r"a(?:|b)",
    r"a(?:b|)",
    r"a(?:b?|c)",
    r"a(?:b|c?)",
    r"a(?:b?|c)d",
    r"(?:ab?)*",
    r"(?:aba?)*",  # abab: the first round takes the a of the second
    r"(?:aba??)*c",
    r"(?:ab??)*",
    r"(?:ab??)*c",
    r"(?:a|b)*?c",
    r"(?:ab?)*?c",
    r"(?:ab?)*?",
    r"a(?:b(?:c(?:d)?)?)?",
    r"a(?:b(?:c(?:d)?)??)?",
    r"(?:a*)*b",
    r"(?:a*b?)*c",
    r"(?:(?:ab)*c)*d?",
    r"(?:a{2}){1,2}b?",
    r"(?:a{1,2}){2}b?",
    r"(?:a{1,2}?){2}b?",
    r"a{2,3}a?",
    r"a{2,3}?b",
    r"a{2,3}?",
    r"a{2}?b*",
    r"(?:ab?){2}",
    r"(?:a?){2}b",
    r"(?:a?b)??c?",
    r"a*+b?",
    r"(?>a|ab)c?",
    r"[ab]*?[bc]",
    r"[ab]*[bc]",
    r"[^c]*?c",
    r"[^c]*c?",
]


def takes_all(pattern: str, text: str) -> bool:
    match = re.match(pattern, text)
    return match is not None and match.end() == len(text)


def terminal(pattern: str) -> gr.Grammar:
    """One terminal. The x keeps it from matching nothing, which Lark forbids."""
    return gr.Grammar.from_lark("start: A\nA: /x(?:" + pattern.replace("/", r"\/") + ")/", lexer="munch")


def assert_takes_what_re_takes(pattern: str, texts: list[str]) -> int:
    grammar = terminal(pattern)
    taken = 0
    for text in texts:
        expected = takes_all(f"x(?:{pattern})", "x" + text)
        assert grammar.accepts("x" + text) == expected, f"{'x' + text!r} under x(?:{pattern})"
        taken += expected
    return taken


def all_texts(alphabet: str, length: int) -> list[str]:
    return ["".join(letters) for n in range(length + 1) for letters in itertools.product(alphabet, repeat=n)]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_on_all_short_texts(pattern: str) -> None:
    assert assert_takes_what_re_takes(pattern, all_texts("abcd", 5)) > 0


def random_pattern(rng: random.Random, depth: int) -> str:
    kind = rng.random()
    if depth == 0 or kind < 0.2:
        return rng.choice(["a", "b", "c", "a", "b", "[ab]", "[bc]", "[^a]", "ab", "bc"])
    if kind < 0.5:
        return "".join(random_pattern(rng, depth - 1) for _ in range(rng.randint(2, 3)))
    if kind < 0.7:
        options = [random_pattern(rng, depth - 1) for _ in range(rng.randint(2, 3))]
        if rng.random() < 0.25:
            options[rng.randrange(len(options))] = ""
        return "(?:" + "|".join(options) + ")"
    quantifier = rng.choice(["*", "+", "?", "{2}", "{1,2}", "{0,2}", "{2,}"]) + rng.choice(["", "", "?"])
    return f"(?:{random_pattern(rng, depth - 1)}){quantifier}"


def test_random_patterns_on_all_short_texts() -> None:
    rng = random.Random(SEED)
    texts = all_texts("abc", 5)
    shorter = 0  # patterns that take less than they could from some text
    for _ in range(300):
        pattern = random_pattern(rng, 3)
        assert_takes_what_re_takes(pattern, texts)
        shorter += any(re.fullmatch(pattern, text) and not takes_all(pattern, text) for text in texts)
    assert 30 < shorter < 270  # both ways of lowering are at work


@pytest.mark.parametrize(
    ("pattern", "alphabet", "length"),
    [
        (INT, "07a.", 4),
        (NAME, "a_7é.", 4),
        (FLOAT, "1.eE+-", 6),
        (C_COMMENT, "/*a\n", 6),
        (PYTHON_STRING, '"\\a\n', 6),
        (r'".*?"', '"a\n', 6),
        (r'"[^"]*?"', '"a\n', 6),
        (r'"(?:[^"\\]|\\.)*"', '"\\a\n', 6),
        (r"//[^\n]*", "/a\n", 6),
    ],
)
def test_terminals_of_ordinary_languages(pattern: str, alphabet: str, length: int) -> None:
    assert assert_takes_what_re_takes(pattern, all_texts(alphabet, length)) > 0


def test_large_counters() -> None:
    grammar = terminal(r'"[^"]{0,100000}"')
    for text, expected in [
        ('""', True),
        ('"é\n"', True),
        ('"' + "a" * 3000 + '"', True),
        ('"a"b"', False),
        ('"', False),
    ]:
        assert grammar.accepts("x" + text) == expected
    grammar = terminal(r'"[^"]{0,2000}"')
    for count, expected in [(0, True), (1, True), (1999, True), (2000, True), (2001, False)]:
        assert grammar.accepts('x"' + "é" * count + '"') == expected
        assert grammar.accepts_prefix('x"' + "é" * count) == expected


def test_a_large_choice_of_words_in_any_order() -> None:
    rng = random.Random(SEED)
    words = list({"".join(rng.choices("abc", k=rng.randint(1, 8))) for _ in range(500)})
    pattern = "|".join(words)
    grammar = terminal(pattern)
    expected = re.compile(f"x(?:{pattern})")
    for word in words:
        match = expected.match("x" + word)
        assert match is not None
        assert grammar.accepts("x" + word) == (match.end() == len(word) + 1), word


@pytest.mark.parametrize(
    "pattern", [r"a(?!b)", r"a(?=b)", r"a\b", r"a$", r"(?!if)[a-z]+", r"(?!ab)[a-b]", r"ab|a(?!c)"]
)
def test_what_follows_a_lexeme_is_asked(pattern: str) -> None:
    """As re.match at the lexeme's place in the text, end included."""
    grammar = gr.Grammar.from_lark(f"start: A B?\nA.1: /{pattern}/\nB: /[bc]/")
    for text in ["a", "ab", "ac", "abc", "abb", "b", "if", "i"]:
        match = re.match(pattern, text)
        rest = text[match.end() :] if match else None
        assert grammar.accepts(text) == (rest in ("", "b", "c")), text
