"""Rows of lexemes: where a lexeme surely reads all that is below a place of the vocabulary, nobody walks there.

Every mask is compared with the grammar asked about each token's bytes alone, which knows neither vocabulary nor rows.
"""

from __future__ import annotations

import itertools
import random

import pytest

import guiderail as gr
from oracles import laws
from oracles.tokens import mask_to_set

PIECES = [
    "a",
    "b",
    "the",
    " ",
    "é",
    "ß",
    "日本",
    "語",
    "🙂",
    '"',
    "\\",
    "\n",
    "0",
    "12",
    ",",
    "}",
    "\u0080",
    "\uffff",
    "\U0010ffff",
]
TORN = [b"\xc3", b"\xa9", b"\xe6\x97", b"\xf0\x9f", b"\x82", b"\xff", b"\xed\xa0\x80", b"a\xe6", b"\xa5b", b"\xc3\xc3"]


def tokens_of(seed: int) -> list[bytes]:
    """All 256 bytes, words of up to five pieces, and words with characters torn apart or no characters at all."""
    rng = random.Random(seed)
    words = {b"".join(p.encode() for p in rng.choices(PIECES, k=rng.randint(1, 5))) for _ in range(3_000)}
    torn = {rng.choice(list(words)) + rng.choice(TORN) + b"a" * rng.randint(0, 2) for _ in range(300)}
    return [bytes([b]) for b in range(256)] + sorted({w for w in words | torn if len(w) > 1})


LANGUAGES = {
    "string": gr.Grammar.from_json_schema({"type": "string"}),
    "counted": gr.Grammar.from_json_schema({"type": "string", "maxLength": 4}),
    "key": gr.Grammar.from_json_schema(
        {"properties": {"the": {"type": "null"}}, "additionalProperties": {"type": "integer"}}
    ),
    "contains": gr.Grammar.from_json_schema({"type": "string", "pattern": "the0"}),
    "lacks": gr.Grammar.from_json_schema({"type": "string", "not": {"pattern": "[aé]b"}}),
    "without a letter": gr.Grammar.from_regex(r'[^é"]*"[^\n]{0,3}'),
    "no letters beyond": gr.Grammar.from_regex(r"[^日\U0010ffff]*(?:日[a ]*)?"),
    "one of several words": gr.Grammar.from_json_schema({"type": "string", "pattern": "the|a0|b12"}),
    "ends in a word": gr.Grammar.from_json_schema({"type": "string", "pattern": "(the|ab|é)$"}),
    "no word at its end": gr.Grammar.from_json_schema({"type": "string", "not": {"pattern": "^a|(the|ab) *$"}}),
    "host name": gr.Grammar.from_json_schema({"type": "string", "format": "hostname"}),
    "host name, at most so long": gr.Grammar.from_json_schema(
        {"type": "string", "format": "hostname", "maxLength": 30}
    ),
    "host name, hardly anything": gr.Grammar.from_json_schema({"type": "string", "format": "hostname", "maxLength": 4}),
    "pattern, at most so long": gr.Grammar.from_json_schema(
        {"type": "string", "pattern": "^[ab1]+( the)*$", "maxLength": 9}
    ),
    "letters, far from the limit": gr.Grammar.from_json_schema(
        {"type": "string", "pattern": "^(?:[a-z]+ ?)*$", "maxLength": 90}
    ),
    "names that a pattern forbids": gr.Grammar.from_json_schema(
        {
            "patternProperties": {"^[ab0-9]{1,6}$": False, "^the": {"type": "null"}},
            "additionalProperties": {"type": "integer"},
        }
    ),
    "names that one pattern forbids": gr.Grammar.from_json_schema(
        {"patternProperties": {"^[ab0-9]{1,6}$": False}, "additionalProperties": {"type": "integer"}}
    ),
    "few names, and some of them forbidden": gr.Grammar.from_json_schema(
        {
            "properties": {"0": False, "120": False, "00": False},
            "patternProperties": {"^[0-9]+$": {"type": "integer"}},
            "additionalProperties": False,
        }
    ),
    "names of two patterns": gr.Grammar.from_json_schema(
        {
            "properties": {"a": {"type": "null"}, "the": {"type": "boolean"}},
            "patternProperties": {"^[ab0-9]*$": {"type": "integer"}, "^[a-é]{2,3}$": {"maximum": 2}},
            "additionalProperties": {"type": "string"},
        }
    ),
    "short labels": gr.Grammar.from_regex(r'(?:[a-z]{1,5}[ ])*[a-z]{1,7}"'),
    "a word somewhere": gr.Grammar.from_regex(r"[a-z ]*(?:the|ab)[a-z ]*,\}"),
    "letters beyond": gr.Grammar.from_regex(r"(?:[a-z日語é]*(?:the|語))?[^\n]*,"),
    "greedy to the end": gr.Grammar.from_regex(r"(?:[^,]*,)*\}"),
    "words": gr.Grammar.from_lark('start: (WORD | STRING | ",")*\nWORD: /[^ ",]+/\nSTRING: /"[^"]*"/\n%ignore " "'),
}

# Where a walk from the start would hardly ever come to a name or a string.
STARTS = {name: b'{"' for name in LANGUAGES if name == "key" or "names" in name}
STARTS |= {name: b'"' for name in LANGUAGES if "host" in name or "most" in name or "limit" in name}


@pytest.mark.parametrize(("name", "start"), [*((name, b"") for name in LANGUAGES), *STARTS.items()])
def test_masks_are_what_the_grammar_says_of_each_token(name: str, start: bytes) -> None:
    tokens = tokens_of(7)
    vocabulary = gr.Vocabulary.from_bytes([*tokens, b""], eos_token_ids=[len(tokens)])
    grammar = LANGUAGES[name]
    compiled = gr.compile(grammar, vocabulary)
    rng = random.Random(11)
    for _ in range(2):
        text, matcher = start, compiled.matcher(prefix=start)
        for _ in range(6):
            bitmask = gr.allocate_token_bitmask(1, vocabulary)
            matcher.fill_next_token_bitmask(bitmask)
            allowed = mask_to_set(bitmask[0], len(vocabulary)) - {len(tokens)}
            expected = {i for i, token in enumerate(tokens) if grammar.accepts_prefix(text + token)}
            assert allowed == expected, (text, [tokens[i] for i in allowed ^ expected][:5])
            if not allowed:
                break
            choice = rng.choice(sorted(allowed))
            assert matcher.accept_token(choice)
            text += tokens[choice]


def test_a_token_that_cannot_go_on_in_the_vocabulary_may_still_end_the_lexeme() -> None:
    # Within `item`, a brace needs a percent sign some time, which no token holds; but the brace may also close what is
    # around the item.
    rng = random.Random(1)
    letters = "abcdefghijklmnop"
    words = sorted({"".join(rng.choices(letters, k=rng.randint(1, 4))) for _ in range(600)} | set(letters))
    tokens = [word.encode() for word in words] + [b"(", b"}"] + [word.encode() + b"}" for word in words[:40]]
    vocabulary = gr.Vocabulary.from_bytes([*tokens, b""], eos_token_ids=[len(tokens)])
    grammar = gr.Grammar.from_gbnf('root ::= item | "(" root "}"\nitem ::= ([a-z] | "}" [a-z]* "%")+')
    matcher = gr.compile(grammar, vocabulary).matcher()
    assert matcher.accept_token(tokens.index(b"("))
    bitmask = gr.allocate_token_bitmask(1, vocabulary)
    matcher.fill_next_token_bitmask(bitmask)
    allowed = mask_to_set(bitmask[0], len(vocabulary))
    assert allowed == {i for i, token in enumerate(tokens) if token != b"}"}


@pytest.mark.parametrize("fillers", range(12))
def test_a_row_of_a_whole_lexeme_keeps_its_tag(fillers: int) -> None:
    """About as many live places as a row is worth: the row is then of the lexeme with its end, not of its loop."""
    token_bytes = [bytes([i]) for i in range(256)] + [b'",', b'"]', b'a"']
    token_bytes += [bytes([ord("b") + i]) * 2 for i in range(fillers)] + [b""]
    vocabulary = gr.Vocabulary.from_bytes(token_bytes, eos_token_ids=[len(token_bytes) - 1])
    grammar = gr.Grammar.from_json_schema({"type": "array", "items": {"type": "string"}})
    laws.mask_is_what_accept_takes(gr.compile(grammar, vocabulary).matcher(prefix=b'["Q'), len(token_bytes))


COUNTED = {
    "string": gr.Grammar.from_json_schema({"type": "string", "minLength": 2, "maxLength": 4}),
    "letters": gr.Grammar.from_json_schema({"type": "string", "pattern": "^[ab0-2é日]*$", "maxLength": 4}),
    "in an array": gr.Grammar.from_json_schema(
        {"type": "array", "items": {"type": "string", "maxLength": 2}, "maxItems": 2}, whitespace="compact"
    ),
    "before something": gr.Grammar.from_regex(r"[^,]{1,3},[^,]{0,2}0"),
}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", COUNTED)
def test_counted_rows_where_tokens_lack_bytes(name: str, seed: int) -> None:
    """Few bytes are tokens, a quote hardly ever: a token is allowed if some tokens after it end a text, by trying."""
    grammar, rng = COUNTED[name], random.Random(seed)
    pieces = ["a", "b", "0", "1", "é", "日", "ß", '"', ","]
    words = {"".join(rng.choices(pieces, k=rng.randint(2, 4))).encode() for _ in range(250)}
    torn = {rng.choice(sorted(words)) + rng.choice(TORN[:5]) for _ in range(40)} | {b"\xa9", b"\xa5"}
    single = [b"[", b"]", *(p.encode() for p in rng.sample(pieces[:7], 3)), *([b'"'] if seed % 2 else [])]
    tokens = sorted(words | torn) + single
    vocabulary = gr.Vocabulary.from_bytes([*tokens, b""], eos_token_ids=[len(tokens)])
    matcher = gr.compile(grammar, vocabulary).matcher()
    known: dict[bytes, bool] = {}

    def completable(text: bytes) -> bool:
        if text not in known:
            known[text] = grammar.accepts_prefix(text) and (
                grammar.accepts(text) or any(completable(text + token) for token in tokens)
            )
        return known[text]

    bitmask = gr.allocate_token_bitmask(1, vocabulary)
    for _ in range(6):
        matcher.reset()
        text = b""
        while not matcher.is_terminated:
            matcher.fill_next_token_bitmask(bitmask)
            allowed = mask_to_set(bitmask[0], vocabulary.size)
            expected = {i for i, token in enumerate(tokens) if completable(text + token)}
            assert allowed - {len(tokens)} == expected, text
            assert (len(tokens) in allowed) == grammar.accepts(text)
            token = rng.choice(sorted(allowed))
            assert matcher.accept_token(token)
            text += [*tokens, b""][token]


@pytest.mark.parametrize("text", ['{"', '{"a', '{"b":1, "', '{"b":1,"b', '{"a1":1,"a'])
@pytest.mark.parametrize("whitespace", ["flexible", r"[ \n]*"])
def test_what_may_stand_behind_a_name_says_nothing_of_names_taken_out(text: str, whitespace: str) -> None:
    # So many tokens are white space behind a quotation mark that it is worth a row there as well.
    spaces = ["".join(t) for n in range(1, 9) for t in itertools.product(" \n", repeat=n)]
    words = [
        *spaces,
        *(f'"{s}' for s in spaces),
        *(f'a"{s}' for s in spaces),
        *(f'"a{n}' for n in range(200)),
        '":',
        '" :',
    ]
    vocabulary = gr.Vocabulary.from_bytes([*(bytes([b]) for b in range(256)), *(w.encode() for w in words), b""])
    grammar = gr.Grammar.from_json_schema({"properties": {"a": False, "b": {}}}, whitespace=whitespace)
    laws.mask_is_what_accept_takes(gr.compile(grammar, vocabulary).matcher(prefix=text), len(vocabulary))


def test_a_row_of_few_tokens_does_not_answer_for_texts_that_are_taken_out() -> None:
    # Hardly a token begins as the excluded text does, so the row is looked at for each of them.
    numbers = [*map(str, range(200, 900)), "13", "135"]
    words = [f"word{n}" for n in range(9_000)]
    tokens = [bytes([b]) for b in range(256)] + [text.encode() for text in numbers + words]
    vocabulary = gr.Vocabulary.from_bytes([*tokens, b""], eos_token_ids=[len(tokens)])
    grammar = gr.Grammar.from_json_schema({"type": "string", "pattern": "^[0-9]{1,3}$", "not": {"const": "135"}})
    bitmask = gr.allocate_token_bitmask(1, vocabulary)
    gr.compile(grammar, vocabulary).matcher(prefix=b'"').fill_next_token_bitmask(bitmask)
    allowed = mask_to_set(bitmask[0], len(vocabulary))
    assert allowed == {i for i, token in enumerate(tokens) if grammar.accepts_prefix(b'"' + token)}


@pytest.mark.parametrize("start", ['"', '"aaaa'])
@pytest.mark.parametrize("said", [{"pattern": "ab"}, {"pattern": "(a-b|aa)$"}, {"format": "uri"}], ids=str)
def test_no_token_goes_beyond_a_largest_length_that_is_close(said: dict[str, object], start: str) -> None:
    words = ["a" * n for n in range(2, 24)] + ["a-" * n + "b" for n in range(1, 12)] + [f"w{n}" for n in range(400)]
    tokens = [bytes([b]) for b in range(256)] + [word.encode() for word in words]
    vocabulary = gr.Vocabulary.from_bytes([*tokens, b""], eos_token_ids=[len(tokens)])
    grammar = gr.Grammar.from_json_schema({"type": "string", "maxLength": 12, **said})
    bitmask = gr.allocate_token_bitmask(1, vocabulary)
    gr.compile(grammar, vocabulary).matcher(prefix=start.encode()).fill_next_token_bitmask(bitmask)
    allowed = mask_to_set(bitmask[0], len(vocabulary))
    assert allowed == {i for i, token in enumerate(tokens) if grammar.accepts_prefix(start.encode() + token)}
