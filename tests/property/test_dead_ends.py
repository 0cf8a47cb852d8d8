"""Walks over vocabularies that lack bytes: no mask is empty before the text is complete, and what is written is valid.

    python tests/property/test_dead_ends.py --walks 20000 [--seed 0]

Random schemas (oracles/random_schemas.py) in either order of properties and under each policy for white space; each
vocabulary has a random part of the bytes that JSON needs and a random part of longer pieces. What no sequence of tokens
can write must be refused when it is compiled. Texts that end are judged by `jsonschema`, and no object in them has a
name twice.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import re
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
import guiderail as gr
from oracles.random_schemas import DRAFTS, URIS, RandomSchemas, decimals, dumps, judge

POLICIES = ("flexible", "compact", "indent=1", "[ \\n]?")
BYTES = '{}[]":,abcnulltruefalse0123456789.-eE \\/\n'
PIECES = (
    '"a"', '"b":', '":', '","', '",', '{"', '{"a":', '{"ab": ', "[]", "{}", '""', "],", "}}",
    "true", "false", "null", "1.5", "10", "-0",
    ', "', ',"a":', '": ', "\n ", "\n}", '"\n', "[[", "0]", '"},{"', '":{"', '":"","', "\\u0061",
    '"a":1,"a":1', '"c":[', "aa", "bb", "ab",
)  # fmt: skip
MOST = 40
# Where white space says how deep an array lies, whether it can be closed in tokens is asked of each depth anew.
LIMITS = gr.Limits(munch_states=3_000)


def vocabulary(rng: random.Random) -> gr.Vocabulary:
    kept = [c.encode() for c in sorted(set(BYTES)) if rng.random() < 0.85]
    kept += [piece.encode() for piece in PIECES if rng.random() < 0.5]
    rng.shuffle(kept)
    return gr.Vocabulary.from_bytes([*kept, b"</s>"], eos_token_ids=[len(kept)])


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len({name for name, _ in pairs}) == len(pairs), pairs
    return dict(pairs)


def walk(seed: str, outcome: collections.Counter[str]) -> None:
    rng = random.Random(seed)
    draft = rng.choice(DRAFTS)
    source = RandomSchemas(rng, draft)
    schema = source.document()
    words = vocabulary(rng)
    order, space = rng.choice(("declared", "free")), rng.choice(POLICIES)
    about = f"{seed}: {draft} {order} {space!r} {dumps(schema)}"
    try:
        compiled = gr.compile(
            gr.Grammar.from_json_schema(
                dumps(schema), property_order=order, whitespace=space, dialect=URIS[draft], formats=False
            ),
            words,
            limits=LIMITS,
        )
    except (gr.UnsatisfiableError, gr.DeadEndError, gr.LimitError, gr.SchemaError) as error:
        outcome[type(error).__name__] += 1
        return
    mask = gr.allocate_token_bitmask(1, words)
    eos = words.eos_token_ids[0]
    valid = judge(schema, draft)
    for _ in range(4):
        matcher, text = compiled.matcher(), b""
        try:
            for step in range(MOST):
                matcher.fill_next_token_bitmask(mask)
                allowed = [t for t in range(words.size) if mask[0, t // 32] >> (t % 32) & 1]
                # Known: whether an item can be repeated in tokens is not asked.
                if not allowed and "uniqueItems" in about:
                    raise gr.LimitError("a repetition without tokens for it", limit="unique_items")
                assert allowed, f"{about}\na dead end after {text!r}"
                exact = [t for t in range(words.size) if matcher.count_valid([t]) == 1]
                assert allowed == exact, f"{about}\nafter {text!r}"
                token = eos if step > MOST // 2 and eos in allowed else rng.choice(allowed)
                assert matcher.accept_token(token)
                if token == eos:
                    break
                text += words.token_bytes[token]
        except gr.LimitError:
            outcome["LimitError"] += 1
            continue
        if not matcher.is_terminated:
            outcome["unfinished"] += 1
            continue
        json.loads(text, object_pairs_hook=once)
        outcome["finished"] += 1
        if not re.search(rb"\d[eE][-+]?\d{2}|[\d.]{20}", text):  # beyond the judge's arithmetic
            assert valid(decimals(text.decode())), f"{about}\n{text!r} is invalid"


@pytest.mark.parametrize("part", range(4))
def test_no_dead_ends(part: int) -> None:
    outcome: collections.Counter[str] = collections.Counter()
    for number in range(60):
        walk(f"{part} {number}", outcome)
    assert outcome["finished"] > 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--walks", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    outcome: collections.Counter[str] = collections.Counter()
    wrong: list[str] = []
    for number in range(options.walks // 4):
        try:
            walk(f"{options.seed} {number}", outcome)
        except AssertionError as error:
            wrong.append(str(error))
    print(dict(outcome))
    print(f"{len(wrong)} wrong")
    for each in sorted(wrong, key=len)[:12]:
        print(each)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
