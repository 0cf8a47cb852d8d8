"""Texts written by random walks under the masks, with a limit on their tokens, judged by the `jsonschema` library.

A walk takes tokens at random from what the mask allows, half of the time from those that only structure is made of,
until it ends the text. What must hold: some token is always allowed, the text ends within the limit, and it is valid.
The judge shares no code with the engine: `jsonschema` on decimal arithmetic, with its own format checker. `python -m
benchmarks walks` runs many of them over a file of schemas.
"""

from __future__ import annotations

import copy
import json
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation, localcontext
from typing import Any

import jsonschema
import numpy as np
from jsonschema import validators

import guiderail as gr

MORE = (0, 1, 2, 3, 5, 8, 13, 21, 34)  # tokens beyond the least limit that a schema takes
FAR = 20_000
END, STRUCTURE = 0.2, 0.5  # how often a walk ends where it may, or keeps to structure
SETTINGS: tuple[dict[str, Any], ...] = (
    {"property_order": "declared"},
    {"property_order": "free"},
    {"property_order": "free", "whitespace": "compact"},
    {"property_order": "declared", "whitespace": "indent=2"},
)


@dataclass
class Outcome:
    """Lists hold what would be a fault: a description each."""

    schemas: int = 0
    refused: int = 0  # by from_json_schema
    too_long: int = 0  # no completion within FAR tokens is known
    walks: int = 0
    tokens: int = 0
    closed_early: int = 0
    judged: int = 0
    not_judged: list[str] = field(default_factory=list)  # the judge cannot read the schema
    invalid: list[str] = field(default_factory=list)
    dead_ends: list[str] = field(default_factory=list)
    over_the_limit: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)  # by a LimitError on the way
    slow: list[str] = field(default_factory=list)  # left after the CPU time that a schema may take
    seconds: float = 0.0  # of CPU, the judge's included

    @property
    def faults(self) -> list[str]:
        return [*self.invalid, *self.dead_ends, *self.over_the_limit]


def _integer(_: Any, value: Any) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (isinstance(value, Decimal) and value == value.to_integral_value())


def _number(text: str) -> Decimal:
    """As Decimal; where its exponent is beyond what Decimal holds, a number of the same sign, as large or small."""
    try:
        return Decimal(text)
    except InvalidOperation:
        mantissa, exponent = text.lower().split("e")
        if not Decimal(mantissa):
            return Decimal(0)
        return Decimal(1).copy_sign(Decimal(mantissa)).scaleb(-999_999 if exponent.startswith("-") else 999_999)


def _multiple_of(_: Any, divisor: Any, value: Any, __: Any) -> Any:
    if isinstance(value, int | Decimal) and not isinstance(value, bool) and Decimal(value) % Decimal(divisor):
        yield jsonschema.ValidationError(f"{value} is not a multiple of {divisor}")


def _with_year_zero(check: Callable[[object], bool]) -> Callable[[object], bool]:
    """RFC 3339 has the year 0000, Python's dates do not. 0004 is a leap year as well."""
    return lambda text: check("0004" + text[4:] if isinstance(text, str) and text.startswith("0000-") else text)


_ECMA = {".": r"[^\n\r\u2028\u2029]", "$": r"\Z", r"\d": "[0-9]", r"\D": "[^0-9]", r"\w": "[A-Za-z0-9_]"}


def as_python(pattern: str) -> str:
    """ECMA-262's pattern for Python: `.` takes no carriage return, `$` stands at the very end, digits are ASCII's."""
    result, in_class = "", False
    for part in re.findall(r"\\.|[^\\]", pattern, re.DOTALL):
        if in_class:
            result += {r"\d": "0-9", r"\w": "A-Za-z0-9_"}.get(part, part)
            in_class = part != "]"
        else:
            result += _ECMA.get(part, part)
            in_class = part == "["
    return result


def _patterns_as_python(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_patterns_as_python(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    result = {}
    for key, value in schema.items():
        if key == "pattern" and isinstance(value, str):
            result[key] = as_python(value)
        elif key == "patternProperties" and isinstance(value, dict):
            result[key] = {as_python(name): _patterns_as_python(each) for name, each in value.items()}
        else:
            result[key] = value if key in ("enum", "const") else _patterns_as_python(value)
    return result


def judge(schema: Any) -> Callable[[str], str | None]:
    """What is wrong with a text, or None. May raise what `jsonschema` raises where it cannot read the schema."""
    base = validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    checker = base.TYPE_CHECKER.redefine("integer", _integer)
    extended = validators.extend(base, {"multipleOf": _multiple_of}, type_checker=checker)
    formats = copy.deepcopy(base.FORMAT_CHECKER)
    for name in ("date", "date-time"):
        if name in formats.checkers:
            check, raises = formats.checkers[name]
            formats.checkers[name] = (_with_year_zero(check), raises)
    schema = _patterns_as_python(json.loads(json.dumps(schema), parse_float=Decimal))
    validator = extended(schema, format_checker=formats)

    def problem(text: str) -> str | None:
        with localcontext(prec=5000):
            error = next(validator.iter_errors(json.loads(text, parse_float=_number)), None)
        return None if error is None else str(error.message)[:200]

    return problem


def least_limit(compiled: gr.CompiledGrammar) -> int | None:
    """The smallest limit that is taken, by bisection; None if there is none below FAR."""
    low, high = 0, FAR
    while low < high:
        middle = (low + high) // 2
        try:
            compiled.matcher(max_tokens=middle)
            high = middle
        except gr.LimitError as error:
            if error.limit != "max_tokens":
                raise
            low = middle + 1
    return low if low < FAR else None


class Walks:
    """Random walks over one vocabulary."""

    def __init__(self, vocabulary: gr.Vocabulary, seed: int = 0) -> None:
        self.vocabulary = vocabulary
        self.rng = random.Random(seed)
        self.row = gr.allocate_token_bitmask(1, vocabulary)
        self.words = self.row.view(np.uint32)
        self.eos = set(vocabulary.eos_token_ids)
        self.structure = np.array([bool(t) and set(t) <= set(b'"{}[]:,\\') for t in vocabulary.token_bytes])

    def walk(self, compiled: gr.CompiledGrammar, limit: int, name: str, outcome: Outcome) -> bytes | None:
        """The text of one walk; None after a fault, which is noted."""
        matcher = compiled.matcher(max_tokens=limit)
        outcome.walks += 1
        text = b""
        for taken in range(limit + 2):
            matcher.fill_next_token_bitmask(self.row)
            ends = [t for t in self.eos if self.words[0, t >> 5] >> (t & 31) & 1]
            for end in ends:
                self.words[0, end >> 5] &= ~np.uint32(1 << (end & 31))
            allowed = np.flatnonzero(np.unpackbits(self.row.view(np.uint8), bitorder="little"))
            if not len(allowed) and not ends:
                outcome.dead_ends.append(f"{name}, limit {limit}: {text!r}")
                return None
            if ends and (not len(allowed) or self.rng.random() < END):
                matcher.accept_token(ends[0])
                outcome.closed_early += matcher.closed_early
                outcome.tokens += taken
                if taken > limit:
                    outcome.over_the_limit.append(f"{name}, limit {limit}: {text!r}")
                    return None
                return text
            structure = allowed[self.structure[allowed]] if self.rng.random() < STRUCTURE else ()
            chosen = structure if len(structure) else allowed
            token = int(chosen[int(self.rng.random() * len(chosen))])
            if not matcher.accept_token(token):
                outcome.dead_ends.append(f"{name}, limit {limit}: {text!r}, then {token} is allowed but not taken")
                return None
            text += self.vocabulary.token_bytes[token]
        outcome.over_the_limit.append(f"{name}, limit {limit}: {text!r}")
        return None

    def over_schema(self, schema: Any, name: str, count: int, outcome: Outcome, seconds: float = 60.0) -> None:
        """`count` walks over a schema (fewer if they take too long), in random settings; each text is judged."""
        begin = time.process_time()
        outcome.schemas += 1
        try:
            grammar = gr.Grammar.from_json_schema(schema, **self.rng.choice(SETTINGS))
            compiled = gr.compile(grammar, self.vocabulary)
        except gr.GuiderailError:
            outcome.refused += 1
            return
        try:
            least = least_limit(compiled)
        except gr.LimitError as error:
            outcome.stopped.append(f"{name}: {error.limit}")
            return
        if least is None:
            outcome.too_long += 1
            return
        problem: Callable[[str], str | None] | None = judge(schema)
        for number in range(count):
            if time.process_time() - begin > seconds:
                outcome.slow.append(f"{name}: {number} walks")
                break
            limit = least + self.rng.choice(MORE)
            try:
                text = self.walk(compiled, limit, name, outcome)
            except gr.LimitError as error:
                outcome.stopped.append(f"{name}, limit {limit}: {error.limit}")
                break
            if text is None or problem is None:
                continue
            try:
                wrong = problem(text.decode("utf-8"))
            except ValueError as error:  # no UTF-8, no JSON
                wrong = str(error)
            except Exception as error:
                # Such as a pattern that Python's `re` does not know, or a reference that nobody resolves.
                outcome.not_judged.append(f"{name}: {type(error).__name__}: {str(error)[:100]}")
                problem = None
                continue
            outcome.judged += 1
            if wrong:
                outcome.invalid.append(f"{name}: {wrong}: {text.decode('utf-8', 'replace')[:300]}")
        outcome.seconds += time.process_time() - begin
