"""Events and partial values: whatever the tokens and whatever is taken back, what a reading from the start says.

The oracle is `json`: a document is written out with random escapes and white space, and its events are listed from the
value by recursion, without reading text.
"""

from __future__ import annotations

import dataclasses
import json
import random
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

import guiderail as gr
from guiderail.errors import GrammarError, LimitError
from guiderail.json_events import MAX_DEPTH, JsonEvent

# Every byte is a token, and some tokens are longer; they cut escapes, characters and literals.
WORDS = [
    b'{"',
    b'":',
    b'",',
    b'"}',
    b"[[",
    b"]]",
    b"tru",
    b"e,",
    b"null",
    b"\\u",
    b"\\ud8",
    b"00",
    b"12",
    b'\\"',
    b"\xc3\xa9",
]
EOS = 256 + len(WORDS)
VOCABULARY = gr.Vocabulary.from_bytes([*(bytes([byte]) for byte in range(256)), *WORDS, b""], eos_token_ids=[EOS])
COMPILED = gr.compile(gr.Grammar.builtin("json"), VOCABULARY)

SCALARS = st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(["\ud83d\ude00", "\ud800", 'a"\\', "é€😀"])
VALUES = st.recursive(
    SCALARS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def write(value: Any, chance: random.Random) -> str:
    """JSON text of `value`, with random white space and escapes."""

    def space() -> str:
        return chance.choice(["", "", "", " ", "\n\t"])

    if isinstance(value, dict):
        members = [
            f"{space()}{write(key, chance)}{space()}:{space()}{write(v, chance)}{space()}" for key, v in value.items()
        ]
        return "{" + (",".join(members) or space()) + "}"
    if isinstance(value, list):
        return "[" + (",".join(f"{space()}{write(v, chance)}{space()}" for v in value) or space()) + "]"
    has_surrogate = isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value)
    return json.dumps(value, ensure_ascii=has_surrogate or chance.random() < 0.5)


def list_events(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        found: list[tuple[Any, ...]] = [(path, "begin_object", None)]
        for key, member in value.items():
            found += [(path, "key", key), *list_events(member, (*path, key))]
        return [*found, (path, "end_object", None)]
    if isinstance(value, list):
        inner = [event for i, member in enumerate(value) for event in list_events(member, (*path, i))]
        return [(path, "begin_array", None), *inner, (path, "end_array", None)]
    kind = {True: "true", False: "false", None: "null"}[value] if value is None or isinstance(value, bool) else None
    return [(path, kind or ("string" if isinstance(value, str) else "number"), value)]


def cut(text: bytes, chance: random.Random) -> list[int]:
    """A random way to write `text` in tokens."""
    tokens, at = [], 0
    while at < len(text):
        fitting = [i for i, word in enumerate(VOCABULARY.token_bytes) if word and text.startswith(word, at)]
        tokens.append(chance.choice(fitting))
        at += len(VOCABULARY.token_bytes[tokens[-1]])
    return tokens


def complete(events: list[JsonEvent]) -> list[tuple[Any, ...]]:
    return [tuple(event) for event in events if event.kind != "partial_string"]


def same(left: Any, right: Any) -> bool:
    return repr(left) == repr(right)  # tells 1 from 1.0 and from True, and -0.0 from 0.0; the order of keys counts


@settings(max_examples=300, deadline=None)
@given(VALUES, st.randoms(use_true_random=False))
def test_any_tokens_give_the_events_of_the_value(value: Any, chance: random.Random) -> None:
    text = write(value, chance)
    value = json.loads(text)  # surrogate pairs joined
    matcher, found = COMPILED.matcher(), []
    for token in [*cut(text.encode(), chance), EOS]:
        assert matcher.accept_token(token)
        if chance.random() < 0.5:
            found += complete(matcher.events())
    found += complete(matcher.events())
    assert same(found, list_events(value))
    assert same(matcher.partial(), value)
    assert matcher.events() == []


def is_part(part: Any, whole: Any) -> bool:
    """Whether `part` is `whole` with later members left out, and its last string perhaps cut."""
    if isinstance(part, dict) and isinstance(whole, dict):
        keys = list(part)
        return keys == list(whole)[: len(keys)] and all(is_part(part[key], whole[key]) for key in keys)
    if isinstance(part, list) and isinstance(whole, list):
        return len(part) <= len(whole) and all(is_part(a, b) for a, b in zip(part, whole, strict=False))
    if isinstance(part, str) and isinstance(whole, str):
        return whole.startswith(part)
    return same(part, whole)


@settings(max_examples=200, deadline=None)
@given(VALUES, VALUES, st.randoms(use_true_random=False))
def test_rollback_and_fork_at_random(first: Any, second: Any, chance: random.Random) -> None:
    """A consumer that forgets what rollback undoes has the events of a matcher that read the same from the start."""
    texts = [write([first, value], random.Random(7)) for value in (first, second)]
    scripts = [[*cut(text.encode(), chance), EOS] for text in texts]
    wholes = [json.loads(text) for text in texts]
    # Matchers, each with the text that it follows and the events that its consumer holds.
    live: list[tuple[gr.Matcher, int, list[tuple[Any, ...]]]] = [(COMPILED.matcher(), n, []) for n in (0, 1)]
    for _ in range(60):
        matcher, script, held = live[which := chance.randrange(len(live))]
        done, call = matcher.num_tokens, chance.randrange(5)
        if call <= 1:
            matcher.accept_tokens(scripts[script][done : done + chance.randrange(1, 9)])
        elif call == 2:
            matcher.rollback(chance.randrange(0, min(done, 9) + 1))
            # Where both texts begin alike, go on with the other.
            left = scripts[script][: matcher.num_tokens]
            script = 1 - script if scripts[1 - script][: len(left)] == left else script
        elif call == 3 and len(live) < 4:
            live.append((matcher.fork(), script, held[:]))
        fresh = COMPILED.matcher()
        assert fresh.accept_tokens(scripts[script][: matcher.num_tokens]) == matcher.num_tokens
        expected = complete(fresh.events())
        if call == 2:
            held = held[: len(expected)]
        elif call == 4:
            held = held + complete(matcher.events())
            assert same(held, expected)
        live[which] = (matcher, script, held)
        part = matcher.partial()
        assert same(part, fresh.partial())
        assert part is None or is_part(part, wholes[script])
    for matcher, script, held in live:
        matcher.accept_tokens(scripts[script][matcher.num_tokens :])
        assert same(held + complete(matcher.events()), list_events(wholes[script]))
        assert same(matcher.partial(), wholes[script])
        matcher.reset()  # makes all of it new
        matcher.accept_tokens(scripts[script])
        assert same(complete(matcher.events()), list_events(wholes[script]))


@settings(max_examples=200, deadline=None)
@given(VALUES, st.randoms(use_true_random=False))
def test_events_after_a_rollback_are_those_of_what_was_taken_back(value: Any, chance: random.Random) -> None:
    text = write(value, chance)
    tokens = [*cut(text.encode(), chance), EOS]
    matcher = COMPILED.matcher()
    counts = [0]  # events complete after so many tokens
    for token in tokens:
        assert matcher.accept_token(token)
        counts.append(counts[-1] + len(complete(matcher.events())))
    expected = list_events(json.loads(text))
    place = chance.randrange(len(tokens) + 1)
    twin = matcher.fork()
    matcher.rollback(len(tokens) - place)
    assert complete(matcher.events()) == []
    assert matcher.accept_tokens(tokens[place:]) == len(tokens) - place
    assert same(complete(matcher.events()), expected[counts[place] :])
    assert twin.events() == []
    assert same(twin.partial(), matcher.partial())


def feed(matcher: gr.Matcher, text: str) -> None:
    assert matcher.accept_tokens(list(text.encode())) == len(text.encode())


def test_an_unfinished_string_is_shown_in_whole_characters() -> None:
    matcher = COMPILED.matcher()
    feed(matcher, '["a')
    assert [tuple(event) for event in matcher.events()] == [((), "begin_array", None), ((0,), "partial_string", "a")]
    assert matcher.events() == []
    for more, shown in [
        (b"\xc3", "a"),
        (b"\xa9", "aé"),
        (b"\\", "aé"),
        (b'"', 'aé"'),
        (b"\\ud83d", 'aé"'),
        (b"\\ude0", 'aé"'),
    ]:
        assert matcher.accept_tokens(list(more)) == len(more)
        assert matcher.partial() == [shown]
    feed(matcher, "0x")
    assert matcher.partial() == ['aé"😀x']
    feed(matcher, '","k')
    assert [tuple(event) for event in matcher.events()] == [((0,), "string", 'aé"😀x'), ((1,), "partial_string", "k")]


def test_what_is_left_out() -> None:
    for text, value in [
        ("", None),
        ("12", None),
        ('{"a":1,"b', {"a": 1}),
        ('{"a":1,"b":', {"a": 1}),
        ('{"a":[tru', {"a": []}),
        ('{"a":{"b":{}', {"a": {"b": {}}}),
        ('{"a":1,"a":2', {"a": 1}),
        ("[1,-2.5e", [1]),
    ]:
        matcher = COMPILED.matcher()
        feed(matcher, text)
        assert matcher.partial() == value


def test_the_values_handed_out_are_the_callers_own() -> None:
    matcher = COMPILED.matcher()
    feed(matcher, "[[1],")
    matcher.partial()[0].append(2)
    assert matcher.partial() == [[1]]


def test_a_prefix_is_read_first() -> None:
    matcher = COMPILED.matcher(prefix='{"a": [1')
    assert [event.kind for event in matcher.events()] == ["begin_object", "key", "begin_array"]
    feed(matcher, "2]}")
    matcher.reset()
    feed(matcher, "3]}")
    assert matcher.partial() == {"a": [13]}


@dataclasses.dataclass
class Invoice:
    name: str
    price: float


def test_types_come_with_the_complete_text() -> None:
    matcher = gr.compile(gr.Grammar.from_type(Invoice), VOCABULARY).matcher()
    feed(matcher, '{"name": "x", "price": 1')
    assert matcher.partial() == {"name": "x"}
    feed(matcher, "}")
    assert matcher.partial() == Invoice("x", 1.0)
    matcher.rollback(1)
    assert matcher.partial() == {"name": "x"}


def test_other_grammars_are_refused_by_name() -> None:
    matcher = gr.compile(gr.Grammar.from_regex("[0-9]+"), VOCABULARY).matcher()
    for ask in (matcher.events, matcher.partial):
        with pytest.raises(GrammarError, match="from_json_schema"):
            ask()


@pytest.mark.parametrize(
    ("text", "limit"), [("[" * (MAX_DEPTH + 1), "json_events.MAX_DEPTH"), (f"[{'1' * 5000},", "int_max_str_digits")]
)
def test_hostile_text_ends_in_a_limit_and_the_matcher_goes_on(text: str, limit: str) -> None:
    matcher = COMPILED.matcher()
    feed(matcher, text)
    for _ in range(2):
        with pytest.raises(LimitError) as error:
            matcher.partial()
        assert error.value.limit == limit
    matcher.rollback(len(text) - 1)
    assert matcher.partial() == []
    assert [event.kind for event in matcher.events()] == ["begin_array"]
