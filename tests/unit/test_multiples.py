"""multipleOf with large divisors, beside bounds and under a limit: known by arithmetic, judged here by `Decimal`."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

import guiderail as gr

SEED = 20261123
BYTES = gr.Vocabulary.from_bytes([*(bytes([b]) for b in range(256)), b""], eos_token_ids=[256])


def text_of(schema: dict[str, object]) -> str:
    """JSON text of a flat schema whose numbers are `Decimal`, written as they are."""
    members = (f"{json.dumps(key)}: {json.dumps(v) if isinstance(v, str) else v}" for key, v in schema.items())
    return "{" + ", ".join(members) + "}"


def random_schema(rng: random.Random) -> tuple[dict[str, object], Decimal]:
    places = rng.choice((0, 0, 1, 3, 6))
    divisor = Decimal(rng.randrange(256, 10 ** rng.randrange(3, 10))).scaleb(-places)
    schema: dict[str, object] = {"type": rng.choice(("number", "number", "integer")), "multipleOf": divisor}
    middle = divisor * rng.randrange(-20, 200)
    spread = divisor * rng.randrange(1, 50) / rng.choice((1, 3, 7))
    if rng.random() < 0.8:
        schema[rng.choice(("minimum", "exclusiveMinimum"))] = round(middle - spread, rng.randrange(7))
    if rng.random() < 0.8:
        schema[rng.choice(("maximum", "exclusiveMaximum"))] = round(middle + spread, rng.randrange(7))
    return schema, divisor


def valid(schema: dict[str, Any], value: Decimal) -> bool:
    bounds: dict[str, Callable[[Any], bool]] = {
        "minimum": lambda bound: value >= bound,
        "exclusiveMinimum": lambda bound: value > bound,
        "maximum": lambda bound: value <= bound,
        "exclusiveMaximum": lambda bound: value < bound,
        "multipleOf": lambda divisor: value % divisor == 0,
    }
    if schema["type"] == "integer" and value != value.to_integral_value():
        return False
    return all(holds(schema[key]) for key, holds in bounds.items() if key in schema)


def test_texts_are_accepted_if_their_values_are_valid() -> None:
    rng = random.Random(SEED)
    accepted = 0
    for _ in range(300):
        schema, divisor = random_schema(rng)
        bounds = [value for key, value in schema.items() if key not in ("type", "multipleOf")]
        values = [divisor * rng.randrange(-40, 260) for _ in range(30)] + [Decimal(0), *map(Decimal, map(str, bounds))]
        values += [value + Decimal(rng.choice(("1", "-1", "0.1", "0.001"))) for value in values[:10]]
        values += [(Decimal(str(bound)) // divisor + k) * divisor for bound in bounds for k in (-1, 0, 1)]
        try:
            grammar = gr.Grammar.from_json_schema(text_of(schema))
        except gr.UnsatisfiableError:
            assert not any(valid(schema, value) for value in values)
            continue
        for value in values:
            text = f"{value:f}" + rng.choice(("", "0", "00") if "." in f"{value:f}" else ("", ".0"))
            assert grammar.accepts(text) is valid(schema, value), (text, text_of(schema))
            accepted += valid(schema, value)
            if valid(schema, value):
                assert all(grammar.accepts_prefix(text[:i]) for i in range(len(text)))
    assert accepted > 1000


@pytest.mark.parametrize("number", range(40))
def test_walks_under_a_limit_end_in_valid_values(number: int) -> None:
    rng = random.Random(SEED + number)
    schema, _ = random_schema(rng)
    try:
        compiled = gr.compile(gr.Grammar.from_json_schema(text_of(schema)), BYTES)
    except gr.UnsatisfiableError:
        return
    limit = rng.randrange(4, 24)
    mask = np.zeros((1, 9), dtype=np.int32)
    for _ in range(5):
        try:
            matcher = compiled.matcher(max_tokens=limit)
        except gr.LimitError:
            least = next(n for n in range(limit + 1, 40) if fits(compiled, n))
            assert least > limit
            return
        written = b""
        while True:
            matcher.fill_next_token_bitmask(mask)
            allowed = np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")[:257]).tolist()
            assert allowed, (written, text_of(schema))
            token = 256 if 256 in allowed and rng.random() < 0.4 else rng.choice(allowed)
            assert matcher.accept_token(token)
            if token == 256:
                break
            written += bytes([token])
        assert len(written) <= limit
        assert valid(schema, Decimal(written.decode().strip())), (written, text_of(schema))


def fits(compiled: gr.CompiledGrammar, limit: int) -> bool:
    try:
        compiled.matcher(max_tokens=limit)
    except gr.LimitError:
        return False
    return True


@pytest.mark.parametrize("divisor", ["24071400", "123456789012300", "98765432198765432e7", "7e300"])
def test_divisors_that_end_in_zeros_are_known_by_arithmetic_as_well(divisor: str) -> None:
    """They were searched for a multiple, for longer or shorter by what other grammars had been searched before."""
    grammar = gr.Grammar.from_json_schema(f'{{"type": "number", "multipleOf": {divisor}}}')
    rng = random.Random(SEED)
    unit = int(Decimal(divisor))
    for _ in range(50):
        factor = rng.randrange(-(10 ** rng.randrange(1, 20)), 10 ** rng.randrange(1, 20))
        text = str(unit * factor)
        for written in (text, text + ".0", text + ".000"):
            assert grammar.accepts(written)
            assert not grammar.accepts(written.replace(text, str(unit * factor + rng.randrange(1, unit))))
        assert not grammar.accepts(text + ".5")
    for text, zero in (("0", True), ("-0.0", True), ("00", False), ("0" + str(unit), False), ("0.5", False)):
        assert grammar.accepts(text) is zero


@pytest.mark.parametrize(
    ("schema", "shortest"),
    [
        ({"multipleOf": 123456789}, 1),
        ({"multipleOf": 123456789, "exclusiveMinimum": 0}, 9),
        ({"multipleOf": 123456789, "minimum": 123456790, "maximum": 10**12}, 9),
        ({"multipleOf": 65537, "minimum": 10**9}, 10),
        ({"multipleOf": Decimal("0.123456789"), "exclusiveMinimum": 0}, 9),  # 123456789
        ({"multipleOf": Decimal("0.125"), "exclusiveMinimum": 0}, 1),
        ({"multipleOf": Decimal("12.5"), "exclusiveMinimum": 0, "maximum": 20}, 4),
        ({"multipleOf": 1001, "maximum": -1}, 5),
    ],
    ids=str,
)
def test_the_shortest_multiple_is_known(schema: dict[str, object], shortest: int) -> None:
    compiled = gr.compile(gr.Grammar.from_json_schema(text_of({"type": "number", **schema})), BYTES)
    assert fits(compiled, shortest)
    assert not fits(compiled, shortest - 1)


@pytest.mark.timing
def test_far_bounds_and_large_divisors_take_milliseconds() -> None:
    begin = time.process_time()
    for divisor in ("65537", "123456789", "0.123456789", "999999999999999989"):
        schema = f'{{"type": "number", "multipleOf": {divisor}, "minimum": 1, "maximum": 1e15}}'
        for limit in (None, 40):
            try:
                matcher = gr.compile(gr.Grammar.from_json_schema(schema), BYTES).matcher(max_tokens=limit)
            except gr.UnsatisfiableError:
                continue
            mask = np.zeros((1, 9), dtype=np.int32)
            for _ in range(5):
                matcher.fill_next_token_bitmask(mask)
                bits = np.unpackbits(mask.view(np.uint8), bitorder="little")
                assert matcher.accept_token(int(np.flatnonzero(bits[48:58])[-1]) + 48)
    assert time.process_time() - begin < 1.0
