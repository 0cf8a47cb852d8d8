"""No property name comes twice in an object, whether a schema mentions it or not, however it is spelled."""

import json
import random

import pytest

import guiderail as gr

ANYTHING = {"type": "object"}
CLASSES = {"patternProperties": {"^x": {"type": "integer"}}, "additionalProperties": {"type": "string"}}
FEW = {"type": "object", "patternProperties": {"^[ab]$": {"type": "integer"}}, "additionalProperties": False}
CONFINED = {"type": "object", "patternProperties": {"^(ab|abc[0-9]+|x[0-9])$": True}, "additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "text", "expected"),
    [
        (ANYTHING, '{"a":1,"b":2,"ab":3,"":4}', True),
        (ANYTHING, '{"a":1,"a":2}', False),
        (ANYTHING, '{"ab":1,"a":1,"abc":2,"ab":1}', False),
        (ANYTHING, '{"":1,"":2}', False),
        (ANYTHING, '{"a":1,"\\u0061":2}', False),
        (ANYTHING, '{"\\u0061":1, "a" :2}', False),
        (ANYTHING, '{"\\ud83d\\ude00":1,"\U0001f600":2}', False),
        (ANYTHING, '{"\\"":1,"\\u0022":2}', False),
        (ANYTHING, '{"a":{"a":[{"a":1},{"a":1}]},"b":{"a":1}}', True),
        (ANYTHING, '{"a":{"b":1,"b":2}}', False),
        (ANYTHING, '{"a":[{"b":1,"c":2,"b":3}]}', False),
        (ANYTHING, '{"b":{"c":1},"c":2,"b":1}', False),
        ({"properties": {"n": {}}}, '{"n":1,"m":2,"m":3}', False),
        ({"properties": {"n": {}}}, '{"n":1,"m":2,"n":3}', False),
        (CLASSES, '{"x":1,"y":"","xx":2}', True),
        (CLASSES, '{"x":1,"y":"","x":2}', False),
        (CLASSES, '{"y":"","x":1,"y":""}', False),
        ({"unevaluatedProperties": {"type": "integer"}, "type": "object"}, '{"a":1,"a":2}', False),
        ({"uniqueItems": True, "items": {"type": "object"}}, '[{"a":1},{"a":2},{"b":1,"b":1}]', False),
        ({"uniqueItems": True, "items": {"type": "object"}}, '[{"a":1},{"a":2},{"b":1,"a":1}]', True),
    ],
)
def test_a_name_that_comes_twice_is_refused(schema: object, text: str, expected: bool) -> None:
    for order in ("declared", "free"):
        assert gr.Grammar.from_json_schema(schema, property_order=order).accepts(text) is expected


def test_a_class_with_few_names_can_be_used_up() -> None:
    two = gr.Grammar.from_json_schema(FEW | {"minProperties": 2})
    assert two.accepts('{"b":1,"a":2}')
    assert not two.accepts_prefix('{"b":1,"b')
    assert not two.accepts('{"a":1}')
    with pytest.raises(gr.UnsatisfiableError):
        gr.Grammar.from_json_schema(FEW | {"minProperties": 3}).accepts("{}")
    # One of the members must be small: with the second name at the latest.
    small = gr.Grammar.from_json_schema(FEW | {"not": {"patternProperties": {"^[ab]$": {"minimum": 5}}}})
    assert small.accepts('{"b":9,"a":1}')
    assert not small.accepts_prefix('{"b":9,"a":9')
    assert not small.accepts("{}")


def test_a_name_that_would_have_to_come_twice_is_never_begun() -> None:
    grammar = gr.Grammar.from_json_schema(CONFINED)
    assert grammar.accepts_prefix('{"ab":1,"a')
    assert grammar.accepts_prefix('{"ab":1,"abc1":2,"abc')
    grammar = gr.Grammar.from_json_schema(
        {"type": "object", "patternProperties": {"^(wide|x.*)$": True}, "additionalProperties": False}
    )
    assert grammar.accepts_prefix('{"x":1,"w')
    assert not grammar.accepts_prefix('{"wide":1,"w')
    assert not grammar.accepts_prefix('{"wide":1,"\\u0077')


# Tokens that end a name and begin the next, that hold whole members, and that begin inside a value.
PIECES = [
    *'{}[]":, abcx0129\\u', '","', '":', '":1', '":1,"', '1,"a', ',"a":', ',"a":1', '"a":1,"a":1', '{"a":1,"', '"}',
    '"},"', '":"","', '":"","":', '"ab', 'b":', 'bc1":', '{"a":{"b":1}}', '":{"a":', '1}', '},"a',
    '{},"', '{},"a"', '{},"a":1', '":{},"a":', "\\u0061", '":[{"', '":1,"a":1,"b":1', "null", "true", '""', '"":',
]  # fmt: skip


def vocabulary() -> gr.Vocabulary:
    tokens = [bytes([b]) for b in range(256)] + [p.encode() for p in PIECES if len(p) > 1]
    return gr.Vocabulary.from_bytes([*tokens, b"</s>"], eos_token_ids=[len(tokens)])


VALUES = [ANYTHING, CLASSES, FEW, CONFINED, {"type": "object", "minProperties": 3}, {"properties": {"a": {}, "c": {}}}]
# Strings that must not come twice in an array are kept as names are.
VALUES += [{"type": "array", "items": {"type": "string"}, "uniqueItems": True, "minItems": 3}]


@pytest.mark.parametrize("schema", VALUES, ids=str)
@pytest.mark.parametrize("limit", [None, 40])
def test_masks_allow_what_is_accepted(schema: dict[str, object], limit: int | None) -> None:
    words = vocabulary()
    eos = words.eos_token_ids[0]
    compiled = gr.compile(gr.Grammar.from_json_schema(schema, whitespace="compact"), words)
    mask = gr.allocate_token_bitmask(1, words)
    rng = random.Random(str(schema))
    likely = [i for i, token in enumerate(words.token_bytes) if token.decode("latin-1") in PIECES]
    for _ in range(1 if limit else 12):
        matcher = compiled.matcher(max_tokens=limit)
        written: list[int] = []
        for _ in range(limit or 30):
            matcher.fill_next_token_bitmask(mask)
            allowed = [t for t in range(words.size) if mask[0, t // 32] >> (t % 32) & 1]
            assert allowed, "a dead end"
            accepted = [t for t in range(words.size) if matcher.count_valid([t]) == 1]
            wrong = {words.token_bytes[t] for t in set(allowed) ^ set(accepted)}
            assert not wrong, b"".join(words.token_bytes[t] for t in written)
            choice = rng.choice([t for t in allowed if t in likely] or allowed)
            assert matcher.accept_token(choice)
            written.append(choice)
            if choice == eos:
                break
        if limit:
            while not matcher.is_terminated:
                matcher.fill_next_token_bitmask(mask)
                assert matcher.accept_token(next(t for t in range(words.size) if mask[0, t // 32] >> (t % 32) & 1))


def test_names_are_forgotten_and_found_again_by_rollback_and_fork() -> None:
    words = vocabulary()
    matcher = gr.compile(gr.Grammar.from_json_schema(ANYTHING), words).matcher()
    assert matcher.accept_tokens(list(b'{"a":1,"')) == 8
    fork = matcher.fork()
    assert matcher.accept_tokens(list(b'b":2,"b"')) == 7
    matcher.rollback(7)
    assert matcher.accept_tokens(list(b'b":2,"c"')) == 8
    assert fork.accept_tokens(list(b'a":')) == 1
    assert fork.accept_tokens(list(b'a":')) == 3


def test_a_thousand_names() -> None:
    grammar = gr.Grammar.from_json_schema({"additionalProperties": {"type": "integer"}})
    members = {f"name {i * 7919 % 1000}": i for i in range(1000)}
    text = json.dumps(members)
    assert grammar.accepts(text)
    assert not grammar.accepts(text[:-1] + ', "name 77": 1}')


def test_schemas_of_one_grammar_may_have_the_same_names() -> None:
    """Where two tools have the same terminal for a name, the names of one call are still known and kept apart."""
    whole = {"type": "integer"}
    anything = {"type": "object"}
    parameters = {
        "A": {"properties": {"a": whole, "c": whole}, "required": ["a", "c"], "additionalProperties": whole},
        "B": {"additionalProperties": whole},
        "C": {"properties": {"c": whole, "a": anything, "b": anything}, "required": ["c", "a", "b"]},
    }
    tools = [{"type": "function", "function": {"name": n, "parameters": p | anything}} for n, p in parameters.items()]
    matcher = gr.compile(gr.Grammar.from_tools(tools, "hermes", "required", parallel=False), vocabulary()).matcher()
    start = '<tool_call>\n{"name": "C", "arguments": {"c": 1, "a": {"b": 1, "x": 1}, "b": {"x": 1, "c": 1'
    for end, valid in (
        ("}}}\n</tool_call>", True),
        (', "x', True),
        (', "x"', False),
        ('}, "a"', False),
        ('}, "ab"', True),
    ):
        matcher.reset()
        text = (start + end).encode()
        assert (matcher.accept_tokens(list(text)) == len(text)) is valid, end
