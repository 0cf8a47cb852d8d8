"""Cases as data: tests/cases/*.toml, one language a case, with texts that are in it and texts that are not.

Engine-neutral: nothing there knows guiderail. A bug becomes a case before it is fixed.

    [[case]]
    name = "digits then a letter"
    kind = "regex"                  # regex, gbnf, lark, json_schema, choices, builtin
    text = '[0-9]+[a-z]'            # json_schema: the schema as JSON; choices: `choices = [...]` instead
    accept = ["1a", "12z"]          # in the language; every byte prefix must then be viable
    reject = ["1", "a"]             # not in the language, viable or not
    alive = ["1"]                   # some text of the language starts so
    dead = ["a", "1a1"]             # none does
    dead_hex = ["ff"]               # the same, for bytes that are no UTF-8
    error = "GrammarError"          # instead of texts: it must be refused, with this error class
    options = { lexer = "munch" }   # keyword arguments of the front end
    beyond_reference = true         # the reference below reads this text differently, and should

Each case is asked three ways: the grammar alone, byte tokens, and words cut at random. Where there is a reference
(`re` for regex, `jsonschema` for json_schema), the case itself is checked against it first.
"""

from __future__ import annotations

import json
import random
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import guiderail as gr
from conftest import SEED
from oracles import laws, tokens

CASES = Path(__file__).parent / "cases"
KEYS = {
    *("name", "kind", "text", "choices", "accept", "reject", "alive", "dead", "dead_hex", "error", "options"),
    *("beyond_reference", "why"),
}


def load_cases() -> list[Any]:
    found = []
    for path in sorted(CASES.glob("*.toml")):
        for case in tomllib.loads(path.read_text(encoding="utf-8"))["case"]:
            assert set(case) <= KEYS, f"{path.name}: {case.get('name')}: unknown keys {set(case) - KEYS}"
            found.append(pytest.param(case, id=f"{path.stem}: {case['name']}"))
    return found


ALL = load_cases()


def texts_of(case: dict[str, Any], key: str) -> list[bytes]:
    texts = [text.encode() for text in case.get(key, ())]
    return texts + [bytes.fromhex(text) for text in case.get(f"{key}_hex", ())]


def grammar_of(case: dict[str, Any]) -> gr.Grammar:
    options = case.get("options", {})
    match case["kind"]:
        case "regex":
            return gr.Grammar.from_regex(case["text"], **options)
        case "gbnf":
            return gr.Grammar.from_gbnf(case["text"], **options)
        case "lark":
            return gr.Grammar.from_lark(case["text"], **{"lexer": "munch", **options})
        case "json_schema":
            return gr.Grammar.from_json_schema(case["text"], **options)
        case "choices":
            return gr.Grammar.from_choices(case["choices"])
        case "builtin":
            return gr.Grammar.builtin(case["text"])
    raise ValueError(case["kind"])


@pytest.mark.parametrize(
    "case", [c for c in ALL if not c.values[0].get("beyond_reference") and "error" not in c.values[0]]
)
def test_the_case_agrees_with_its_reference(case: dict[str, Any]) -> None:
    accept, reject = texts_of(case, "accept"), texts_of(case, "reject")
    if case["kind"] == "regex":
        flags = case.get("options", {}).get("flags", 0)
        reference = re.compile(case["text"], flags)
        assert all(reference.fullmatch(text.decode()) for text in accept)
        assert not any(reference.fullmatch(text.decode()) for text in reject)
    elif case["kind"] == "json_schema":
        schema = json.loads(case["text"])
        validator = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)(schema)
        assert all(validator.is_valid(json.loads(text)) for text in accept)
        for text in reject:
            try:
                value = json.loads(text)
            except ValueError:
                continue
            assert not validator.is_valid(value), text
    else:
        assert accept or reject


@pytest.mark.parametrize("case", ALL)
def test_case(case: dict[str, Any]) -> None:
    if "error" in case:
        with pytest.raises(getattr(gr.errors, case["error"])):
            gr.compile(grammar_of(case), byte_vocabulary()).matcher()
        return
    grammar = grammar_of(case)
    compiled = gr.compile(grammar, byte_vocabulary())
    rng = random.Random(SEED)
    accept, reject = texts_of(case, "accept"), texts_of(case, "reject")
    alive, dead = texts_of(case, "alive"), texts_of(case, "dead")
    for text in accept:
        assert grammar.accepts(text), text
        assert all(grammar.accepts_prefix(text[:end]) for end in range(len(text) + 1)), text
        assert by_tokens(compiled, text) == (True, True), text
        assert by_words(rng, grammar, text) == (True, True), text
    for text in reject:
        assert not grammar.accepts(text), text
        assert not by_tokens(compiled, text)[1], text
        assert not by_words(rng, grammar, text)[1], text
    for text in alive:
        assert grammar.accepts_prefix(text), text
        assert by_tokens(compiled, text)[0], text
    for text in dead:
        assert not grammar.accepts_prefix(text), text
        assert not grammar.accepts(text), text
        assert not by_tokens(compiled, text)[0], text
        assert not by_words(rng, grammar, text)[0], text


def byte_vocabulary() -> gr.Vocabulary:
    token_bytes, eos = tokens.byte_vocabulary()
    return gr.Vocabulary.from_bytes(token_bytes, eos_token_ids=eos)


def by_tokens(compiled: gr.CompiledGrammar, text: bytes) -> tuple[bool, bool]:
    """(viable, member) as a matcher over single bytes sees it, the mask asked before every byte and at the end."""
    matcher = compiled.matcher()
    for byte in text:
        allowed = byte in laws.allowed(matcher, 257)
        assert matcher.accept_token(byte) == allowed
        if not allowed:
            return False, False
    ids = laws.allowed(matcher, 257)
    assert (256 in ids) == matcher.is_accepting
    assert ids, "a dead end"
    return True, matcher.is_accepting


def by_words(rng: random.Random, grammar: gr.Grammar, text: bytes) -> tuple[bool, bool]:
    """The same with the text cut into words of one to nine bytes: characters split, several lexemes in one token."""
    words, start = [], 0
    while start < len(text):
        end = min(len(text), start + rng.randint(1, 9))
        words.append(text[start:end])
        start = end
    token_bytes = [bytes([byte]) for byte in range(256)] + sorted(set(words)) + [b""]
    eos = len(token_bytes) - 1
    matcher = gr.compile(grammar, gr.Vocabulary.from_bytes(token_bytes, eos_token_ids=[eos])).matcher()
    for word in words:
        token_id = token_bytes.index(word)
        allowed = token_id in laws.allowed(matcher, len(token_bytes))
        assert matcher.accept_token(token_id) == allowed
        if not allowed:
            return False, False
    assert (eos in laws.allowed(matcher, len(token_bytes))) == matcher.is_accepting
    return True, matcher.is_accepting
