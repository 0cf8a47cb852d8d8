"""What llguidance added to Lark's notation: languages, against `re` and llguidance itself, and refusals."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Callable

import pytest

import guiderail
from guiderail import Grammar, Vocabulary
from guiderail.errors import GrammarError, LimitError, SchemaError

LEXERS = ("free", "munch", "lark-dynamic")


def texts(letters: str, longest: int) -> list[str]:
    return ["".join(word) for n in range(longest + 1) for word in itertools.product(letters, repeat=n)]


def parts_of(chunks: list[str]) -> set[str]:
    return {"".join(chunks[i:j]) for i in range(len(chunks) + 1) for j in range(i, len(chunks) + 1)}


# (grammar, letters of the texts that are tried, is a text of the language?)
LANGUAGES: list[tuple[str, str, Callable[[str], bool]]] = [
    ("start: A\nA: /[ab\\n]+/ & ~/(?s:.*)\\n\\n(?s:.*)/", "ab\n", lambda t: t != "" and "\n\n" not in t),
    ('start: "<" A ">"\nA: (/[ab]*/ & ~("a" | "bb")) "b"?', "ab<>",
     lambda t: bool(re.fullmatch("<[ab]*>", t)) and t != "<a>"),
    ("start: A\nA: B & C | \"c\"\nB: /a.*/\nC: /.*b/", "abc", lambda t: bool(re.fullmatch("a.*b|c", t))),
    ("start: A\nA: ~/a/{2}", "ab", lambda t: t != "a"),  # two texts that are not "a"
    ('start: "<" %regex {"substring_chunks": ["a", "bc", "a"]} ">"', "abc<>",
     lambda t: t[:1] == "<" and t[-1:] == ">" and len(t) > 1 and t[1:-1] in parts_of(["a", "bc", "a"])),
    ('start: A\nA: "x" %regex {"substring_chars": "aba"}', "abx",
     lambda t: t[:1] == "x" and t[1:] in parts_of(list("aba"))),
    ('start: a-b{2} "!"{1,}\na-b: "x" | "y" a-b', "xy!", lambda t: bool(re.fullmatch("(y*x){2}!+", t))),
    ('start: A\nA: B{2,}\nB: "a" | /b{2}/', "ab", lambda t: bool(re.fullmatch("(a|bb){2,}", t))),
    ("start[capture]: head \"a\"\nhead[lazy]: /[ab]*/ \"b\"", "ab", lambda t: bool(re.fullmatch("a*ba", t))),
    ('start: head "a"\nhead[suffix="bb"]: /[ab]*/', "ab", lambda t: bool(re.fullmatch("(?:(?!bb)[ab])*bba", t))),
    ("start: A\nA: B \"a\"\nB: /[ab]+/ & ~/a+/\n%ignore C\nC: \" \" & /./", "ab ",
     lambda t: bool(re.fullmatch(" *(?!a+ *$)[ab]+ *", t)) and t.rstrip().endswith("a")),
]  # fmt: skip


@pytest.mark.parametrize("lexer", LEXERS)
@pytest.mark.parametrize(("grammar", "letters", "judge"), LANGUAGES, ids=[g[:30] for g, _, _ in LANGUAGES])
def test_languages(grammar: str, letters: str, judge: Callable[[str], bool], lexer: str) -> None:
    made = Grammar.from_lark(grammar, lexer=lexer)
    every = texts(letters, 5 if len(letters) < 5 else 4)
    members = [text for text in every if judge(text)]
    assert members
    for text in every:
        assert made.accepts(text) == (text in members), text
    prefixes = {text[:end] for text in members for end in range(len(text) + 1)}
    assert all(made.accepts_prefix(prefix) for prefix in prefixes)


def test_free_lexing_takes_any_cut() -> None:
    grammar = 'start: A B?\nA: /a|ab/\nB: /b?c/\n%ignore " "'
    made = Grammar.from_lark(grammar, lexer="free")
    judge = re.compile(" *(a|ab) *(b?c)? *")
    for text in texts("abc ", 5):
        assert made.accepts(text) == bool(judge.fullmatch(text)), text


@pytest.mark.parametrize("lexer", LEXERS)
def test_a_schema_is_a_rule(lexer: str) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    made = Grammar.from_lark(
        f'start: NAME value\nvalue: %json {json.dumps(schema, indent=1)} | "none"\nNAME: /[a-z]+:/', lexer=lexer
    )
    assert made.accepts('call:{"n": 12}')
    assert made.accepts("call:none")
    assert not made.accepts('call:{"n": "x"}')
    assert not made.accepts('{"n": 12}')
    assert made.accepts_prefix('call:{"n"')
    assert not made.accepts_prefix("call:[")
    assert ("%json on line 2/properties/n/type", "enforced", "") in made.report
    assert Grammar._from_recipe(made._make_recipe()).fingerprint == made.fingerprint


def test_special_tokens_by_name_and_by_id() -> None:
    tokens = [*(bytes([b]) for b in range(256)), b"", b"", b"xy"]
    vocabulary = Vocabulary.from_bytes(tokens, eos_token_ids=[256], special_tokens={"<|call|>": 257, "<|end|>": 256})
    made = Grammar.from_lark('start: <|call|> "x" <[120,121]> <[258]> <|end|> | "x"', lexer="free")
    matcher = guiderail.compile(made, vocabulary).matcher()
    assert matcher.accept_tokens([257, ord("x"), 121, 258, 256]) == 5
    assert matcher.is_accepting
    matcher.reset()
    assert matcher.accept_tokens([257, ord("x"), 122]) == 2
    matcher.reset()
    assert not matcher.accept_token(258)  # as text, "xy" is none of the grammar
    assert matcher.accept_token(120)
    assert matcher.is_accepting


REFUSED: list[tuple[str, str, int, int]] = [
    ('start: "a" & "b"', "'&' combines terminals", 1, 12),
    ('start: ~"a"', "'~' complements terminals", 1, 8),
    ("start: a\na: <|x|>\nA: <|x|> & /b/", "special tokens are no text", 3, 4),
    ("start: @other", "references to other grammars", 1, 8),
    ("start: <[^3]>", "would need a vocabulary", 1, 8),
    ("start: <[7-3]>", "is empty", 1, 8),
    ('start[temperature=0.5]: "a"', "option 'temperature'", 1, 7),
    ('start[stop="x"]: /a+/', "option 'stop'", 1, 7),
    ('start[lazy]: a\na: "b"', "made of terminals only", 1, 14),
    ('start: "a"\n%llguidance {"ignore_once": true}', "option 'ignore_once'", 2, 1),
    ('start: %json {"a" 1}', "followed by JSON", 1, 19),
    ('start: %regex {"pattern": "a"}', "substring_words", 1, 8),
    ('start: A\nA: B & "c"\nB: A | /x/', "recursion in terminal 'A'", 2, 1),
    ('start: A\nA: B & /c/', "'B' is used but not defined", 2, 4),
    ('start: A\nA: /(/ & "b"', "never closed", 2, 4),
    ('start: A\nA: "b" & /a(?=b)/', "looks beyond its match", 2, 10),
    ("start: A\nA: x & /b/\nx: \"c\"", "'x' is a rule", 2, 4),
    ('start: %json {\n "type": "object"\n} nothing', "'nothing' used but not defined", 3, 3),
    ('start: <|end|> "a"{2} nothing', "'nothing' used but not defined", 1, 23),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message", "line", "column"), REFUSED, ids=[r[0][:30] for r in REFUSED])
def test_what_is_refused_and_where(text: str, message: str, line: int, column: int) -> None:
    with pytest.raises(GrammarError, match=re.escape(message)) as caught:
        Grammar.from_lark(text, lexer="free")
    assert (caught.value.line, caught.value.column) == (line, column)


@pytest.mark.parametrize("lexer", ["lark-basic", "lark-contextual"])
def test_larks_own_lexers_know_no_extensions(lexer: str) -> None:
    with pytest.raises(GrammarError, match="not Lark's own notation") as caught:
        Grammar.from_lark('start: "a"\n  | <|b|>', lexer=lexer)
    assert (caught.value.line, caught.value.column) == (2, 5)


def test_a_schema_that_is_wrong_says_where() -> None:
    with pytest.raises(SchemaError, match="%json on line 2: ") as caught:
        Grammar.from_lark('start: a\na: %json {"properties": {"x": {"type": 3}}}', lexer="free")
    assert caught.value.pointer == "/properties/x/type"


def test_free_lexing_refuses_terminals_that_look_around() -> None:
    with pytest.raises(GrammarError, match="looks beyond its match"):
        Grammar.from_lark('start: /a(?=b)/ "b"', lexer="free")


@pytest.mark.parametrize(
    "text",
    [
        "A: B B & /./\n" + "".join(f"{chr(66 + i)}: {chr(67 + i)} {chr(67 + i)} & /./\n" for i in range(22))
        + "X: /x/\nstart: A",
        "start: A\nA: " + "(" * 300 + "/a/ & /b/" + ")" * 300,
        "start: <[0-999999999]>",
        "start: A\nA: " + "~" * 50_000 + "/a/",
        "start: A\nA: /a/ & /b/" + "?" * 5_000,
        'start: "a"{99999999999}',
    ],
)  # fmt: skip
def test_what_would_explode_meets_a_limit(text: str) -> None:
    with pytest.raises(LimitError):
        Grammar.from_lark(text, lexer="free")


# Grammars that llguidance reads as we do: its lexer is greedy, and these leave it no other way to cut a text.
SHARED = [
    'start: "<" call ">"\ncall: %json {"type": "array", "items": {"type": "boolean"}}',
    'start: A\nA: /[ab]+/ & ~/(?s:.*)aa(?s:.*)/',
    'start: "<" %regex {"substring_words": "ab b a"} ">"',
    'start: "<" %regex {"substring_chars": "aba<"} "!"',
    'start: item{2,3} ">"{1,}\nitem: "a" | "b" "<"',
    'start: head /[ab]/\nhead[lazy]: /[ab<]*</',
]  # fmt: skip


@pytest.mark.parametrize("text", SHARED)
def test_llguidance_reads_them_alike(text: str) -> None:
    llguidance = pytest.importorskip("llguidance")
    tokenizer = llguidance.LLTokenizer("byte")

    def accepts(candidate: str) -> bool:
        matcher = llguidance.LLMatcher(tokenizer, text)
        assert not matcher.get_error(), matcher.get_error()
        return all(matcher.consume_tokens([byte]) for byte in candidate.encode()) and matcher.is_accepting()

    made = Grammar.from_lark(text, lexer="free")
    every = [
        *texts("ab<>!", 3),
        "<[true]>",
        "<[true, false]>",
        "<[]>",
        "<{}>",
        "<ab b a>",
        "<b a>",
        "<ab a>",
        "<aba<!",
        "aa>>",
        "b<a>",
        "ab<<a",
    ]
    members = [candidate for candidate in every if made.accepts(candidate)]
    assert members
    assert [candidate for candidate in every if accepts(candidate)] == members


@pytest.mark.parametrize(
    "text",
    [
        "start: " + "{" * 50_000,
        "start: " + "<" * 50_000,
        "start: a\na: " + "%json " * 2_000,
        "start: " + "%json {}\n  | " * 2_000 + "x",
        "\n" * 3_000 + "start: <|x|> y",
        "".join(f"A{'B' * i}: {'A' + 'B' * (i + 1)} | /{i}/\n" for i in range(300)) + "A" + "B" * 300 + ": ~/x/",
        "start: x" + " /a" * 20_001 + "<|x|>",
        'start: "' + '"<' * 20_000,
    ],
    ids=lambda text: text[:20],
)
def test_hostile_texts_end_in_an_error_soon(text: str) -> None:
    started = time.process_time()
    with pytest.raises((GrammarError, SchemaError, LimitError)):
        Grammar.from_lark(text, lexer="free")
    assert time.process_time() - started < 20
