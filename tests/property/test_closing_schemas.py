"""`max_tokens` over JSON Schemas: masks and acceptance agree, and names that come once are counted right.

What a search for a completion finds may depend on what was asked before, and property names that must not come twice
decide how a text can be completed. So: every token that a mask allows is accepted, every other one is not, and after
each the text can be closed in time. For objects of finitely many texts an oracle counts, over all of them, how
many tokens complete a text: never more than the room that the mask has seen.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

import guiderail as gr
from conftest import SEED
from guiderail.errors import LimitError, UnsatisfiableError
from oracles import laws
from oracles.random_schemas import URIS, RandomSchemas, dumps

Vocabulary = tuple[list[bytes], int]


def vocabulary(rng: random.Random) -> Vocabulary:
    """ASCII's characters and tokens of several, among them such as begin, end and repeat names; the last is EOS."""
    characters = [bytes([b]) for b in (9, 10, 13, *range(32, 127))]
    token_bytes = [*characters, b'{"', b'":', b'","', b'"]', b"ab", b'"a', b"null", b'{"a":', b'"a":1,"b":', b'":{"']
    token_bytes += [b'},"', b'1,"a"', b'a":1,"', b'":"', b'"},{"', b'"a":1,"a":1', b'","a","', b"  ", b"\n\t"]
    token_bytes += [b"},", b"1},", b'},{"', b'"],', b'!"],', b'!!"],']
    token_bytes += [bytes(rng.choices(b'ab"{}[],:1', k=rng.randint(2, 5))) for _ in range(50)]
    return [*token_bytes, b""], len(token_bytes)


def least_limit(compiled: gr.CompiledGrammar) -> int | None:
    """The smallest `max_tokens` that the engine takes; None if there is none below 300."""
    low, high = 0, 300
    while low < high:
        middle = (low + high) // 2
        try:
            compiled.matcher(max_tokens=middle)
            high = middle
        except LimitError as error:
            assert error.limit == "max_tokens"
            low = middle + 1
    return low if low < 300 else None


def walk(
    rng: random.Random, matcher: gr.Matcher, free: gr.Matcher, room: int, vocabulary: Vocabulary, checks: int
) -> bytes:
    """Random tokens under the masks until the end. Of each mask some tokens are tried, those it allows to the end."""
    token_bytes, eos = vocabulary
    text = b""
    for left in range(room, -1, -1):
        mask, ordinary = laws.allowed(matcher, len(token_bytes)), laws.allowed(free, len(token_bytes))
        assert mask <= ordinary
        assert mask, f"a dead end after {text!r}, {left} tokens left"
        if checks:
            for token in rng.sample(range(len(token_bytes)), checks) + rng.sample(sorted(mask), min(checks, len(mask))):
                fork = matcher.fork()
                taken = fork.accept_token(token)
                assert taken == (token in mask), f"{token_bytes[token]!r} after {text!r}, {left} tokens left"
                if taken and not fork.is_terminated and rng.random() < 0.1:
                    twin = free.fork()
                    assert twin.accept_token(token)
                    walk(rng, fork, twin, left - 1, vocabulary, 0)
        going_on = sorted(mask - {eos})
        if eos in mask and (not going_on or rng.random() < 0.1):
            assert matcher.accept_token(eos)
            return text
        token = rng.choice(going_on)
        assert matcher.accept_token(token)
        assert free.accept_token(token)
        text += token_bytes[token]
    raise AssertionError(f"no end after {room} tokens: {text!r}")


def walks(rng: random.Random, grammar: gr.Grammar, checks: int) -> None:
    """Near the least limit, where plans decide, and somewhat further from it."""
    token_bytes, eos = words = vocabulary(rng)
    compiled = gr.compile(grammar, gr.Vocabulary.from_bytes(token_bytes, eos_token_ids=[eos]))
    least = least_limit(compiled)
    if least is None:
        return
    for limit in (least, least, least + 1, least + 3, least + rng.randint(4, 25), least + 60):
        text = walk(rng, compiled.matcher(max_tokens=limit), compiled.matcher(), limit, words, checks)
        assert grammar.accepts(text)


def many_properties() -> dict[str, Any]:
    """Free order has 2^n ways to write the optional ones, so what a search finds first is seldom the shortest."""
    enabled = {
        "type": "object",
        "required": ["on"],
        "properties": {"on": {"type": "boolean"}, "at": {"type": "integer"}},
    }
    names = ["acl", "view", "by", "name", "dataset", "text", "until", "label", "project", "row", "source"]
    properties = {name: enabled if i % 4 == 0 else {"type": "string"} for i, name in enumerate(names)}
    required = ["project", "label", "text", "dataset"]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


NAMED: list[Any] = [
    many_properties(),
    {"type": "object", "minProperties": 3},
    {"type": "object", "minProperties": 2, "additionalProperties": {"enum": [1, 22]}},
    {"type": "object", "minProperties": 4, "patternProperties": {"^[ab]{1,2}$": {"const": 1}}, "maxProperties": 5},
    {"type": "object", "required": ["a"], "properties": {"a": {"type": "object", "minProperties": 2}}},
    {"type": "object", "propertyNames": {"maxLength": 1}, "minProperties": 3},
    {"type": "object", "properties": {"a": {"enum": [1]}, "b": {"type": "string"}}, "required": ["c", "b"]},
    {"type": "array", "items": {"type": "string"}, "uniqueItems": True, "minItems": 3},
    {"type": "array", "items": {"type": "string", "maxLength": 2}, "uniqueItems": True, "minItems": 3},
    {"type": "object", "additionalProperties": {"type": "object", "minProperties": 2, "maxProperties": 3}},
]

# What has been read of an item that is no string decides what may follow it.
ITEMS: list[Any] = [
    {"type": "number"},
    {"type": "integer", "maximum": 10},
    {"type": "array", "items": {"type": "integer"}},
    {"type": "array", "uniqueItems": True, "items": {"type": "array"}},
    {"type": "object"},
    {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}, "required": ["a"]},
    {"properties": {"a": {"uniqueItems": True, "minItems": 1}}, "type": "object", "additionalProperties": False},
    {"oneOf": [{"type": "string"}, {"type": "object", "required": ["b"]}, {"type": "boolean"}]},
    {},
    # Another of them takes long: after `},` there must be room for it, and after a `{}` of two for one that is none.
    {"type": "object", "properties": {"long name": {"type": "integer"}}, "required": ["long name"]},
    {"type": "object", "properties": {"long name": {"type": "integer"}}, "additionalProperties": False},
    # The next one is longer after `"],` than after `!"],`.
    {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 1},
]
AROUND: list[Any] = [
    {},
    {"maxItems": 3, "minItems": 1},
    {"prefixItems": [{"type": "integer"}, {"const": [1]}]},
]


@pytest.mark.parametrize(
    ("number", "around"),
    [
        *itertools.product(range(len(ITEMS)), AROUND),
        (1, {"minItems": 2}),
        (10, {"minItems": 2}),
        (2, {"contains": {"maxItems": 0}}),
    ],
    ids=str,
)
def test_masks_and_acceptance_agree_where_items_must_not_come_again(number: int, around: dict[str, Any]) -> None:
    rng = random.Random(f"{SEED} {number} {around}")
    schema = {"type": "array", "uniqueItems": True, "items": ITEMS[number], **around}
    if rng.random() < 0.5:
        schema = {"type": "object", "properties": {"a": schema, "b": {"type": "integer"}}, "required": ["a", "b"]}
    try:
        grammar = gr.Grammar.from_json_schema(schema, whitespace=rng.choice(["compact", "flexible"]))
    except UnsatisfiableError:
        return
    walks(rng, grammar, 4)


@pytest.mark.parametrize("whitespace", ["compact", "flexible"])
@pytest.mark.parametrize("schema", NAMED, ids=[str(i) for i in range(len(NAMED))])
def test_masks_and_acceptance_agree(schema: Any, whitespace: str) -> None:
    for seed in range(2):
        rng = random.Random(f"{SEED} {seed}")
        grammar = gr.Grammar.from_json_schema(schema, property_order="free", whitespace=whitespace)
        walks(rng, grammar, 4)


def test_masks_and_acceptance_agree_for_random_schemas() -> None:
    walked = 0
    for seed in range(60):
        rng = random.Random(f"{SEED} random {seed}")
        source = RandomSchemas(rng, "2020-12", "unevaluated" if seed % 4 == 0 else "plain")
        order = rng.choice(["free", "declared"])
        try:
            text = dumps(source.document())
            grammar = gr.Grammar.from_json_schema(text, property_order=order, dialect=URIS["2020-12"], formats=False)
            walks(rng, grammar, 4)
            walked += 1
        except (UnsatisfiableError, LimitError, gr.SchemaError):
            continue
    assert walked > 40


class FewestTokens:
    """How many tokens complete each beginning of finitely many texts."""

    def __init__(self, texts: Iterator[bytes], token_bytes: list[bytes]) -> None:
        self.needed: dict[bytes, int] = {}
        by_length: list[bytes] = []
        for text in texts:
            self.needed[text] = 0
            for end in range(len(text)):
                if text[:end] not in self.needed:
                    self.needed[text[:end]] = 10**6
                    by_length.append(text[:end])
        by_length.sort(key=len, reverse=True)
        words = [token for token in token_bytes if token]
        for prefix in by_length:
            least = (self.needed.get(prefix + word, 10**6) for word in words)
            self.needed[prefix] = min(self.needed[prefix], 1 + min(least))


def test_no_token_is_allowed_after_which_nothing_fits() -> None:
    """Two or more different names of 84, so the names of the text decide what completes it; counted over all texts."""
    names = ["".join(n) for length in (1, 2, 3) for n in itertools.product("abcd", repeat=length)]
    schema = {
        "type": "object",
        "minProperties": 2,
        "maxProperties": 2,
        "patternProperties": {"^[abcd]{1,3}$": {"const": 1}},
        "additionalProperties": False,
    }
    texts = (json.dumps({a: 1, b: 1}, separators=(",", ":")).encode() for a in names for b in names if a != b)
    rng = random.Random(SEED)
    token_bytes = [bytes([b]) for b in b'{}":,1abcd'] + [b'{"', b'":1,"', b"ab", b'":1}', b"aaa", b'b":1,"', b'1,"a":']
    token_bytes += [b'"a":1', b'a":', b"dd", b""]
    eos = len(token_bytes) - 1
    needed = FewestTokens(texts, token_bytes).needed
    grammar = gr.Grammar.from_json_schema(schema, whitespace="compact", property_order="free", escapes="needed")
    compiled = gr.compile(grammar, gr.Vocabulary.from_bytes(token_bytes, eos_token_ids=[eos]))
    least = least_limit(compiled)
    assert least is not None
    assert least >= needed[b""]
    refused = missed = 0
    for _ in range(150):
        limit = least + rng.randint(0, 6)
        matcher, free, text = compiled.matcher(max_tokens=limit), compiled.matcher(), b""
        for room in range(limit, -1, -1):
            mask, ordinary = laws.allowed(matcher, len(token_bytes)), laws.allowed(free, len(token_bytes))
            assert ordinary - {eos} == {t for t in range(eos) if text + token_bytes[t] in needed}
            assert (eos in mask) == (needed[text] == 0)
            for token in ordinary - {eos}:
                fits = needed[text + token_bytes[token]] < room
                assert fits or token not in mask, f"{token_bytes[token]!r} after {text!r}, room for {room}"
                refused += token not in mask
                missed += fits and token not in mask
            if eos in mask:
                break
            token = rng.choice(sorted(mask))
            assert matcher.accept_token(token)
            assert free.accept_token(token)
            text += token_bytes[token]
    print(f"{refused} tokens refused, {missed} of them with a completion that is not known")
    # Plans are the shortest texts in bytes, cut into tokens: other texts may take fewer tokens.
    assert refused > 500
    assert missed <= 0.1 * refused


def test_the_text_of_an_item_decides_how_long_the_next_one_is() -> None:
    """Behind `!"],` there is room for `[""]]`, behind `"],` this would be the same item again."""
    item = {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 1}
    grammar = gr.Grammar.from_json_schema({"type": "array", "uniqueItems": True, "items": item}, whitespace="compact")
    token_bytes = [*(bytes([b]) for b in range(256)), b'!"],', b'"],', b""]
    compiled = gr.compile(grammar, gr.Vocabulary.from_bytes(token_bytes, eos_token_ids=[258]))
    for limit, expected in ((8, set()), (9, {256}), (10, {256, 257})):
        matcher = compiled.matcher(max_tokens=limit)
        matcher.accept_tokens(list(b'[["'))
        mask = laws.allowed(matcher, len(token_bytes))
        assert mask & {256, 257} == expected
        assert {token for token in (256, 257) if matcher.fork().accept_token(token)} == expected
