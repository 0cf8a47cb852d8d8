"""Random schemas against the `jsonschema` library: a value is accepted exactly if it is valid, in free order.

    python tests/property/test_random_schemas.py --cases 100000 [--seed 0] [--kinds dynamic formats]

runs as many cases (a schema and a value) as asked, prints what became of them and every disagreement, smallest schema
first. A text is what `json.dumps` writes; a number that a value constraint wants as a plain decimal is one.
"""

from __future__ import annotations

import argparse
import collections
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
import guiderail as gr
from oracles.random_schemas import KINDS, URIS, RandomSchemas, dumps, judge

VALUES_PER_SCHEMA = 40


@dataclass
class Outcome:
    schemas: int = 0
    cases: int = 0
    valid: int = 0
    refused: collections.Counter[str] = field(default_factory=collections.Counter)
    wrong: list[tuple[str, str, str, bool]] = field(default_factory=list)  # draft, schema, value, whether it is valid
    slowest: tuple[float, str] = (0.0, "")


def check_schema(rng: random.Random, draft: str, outcome: Outcome, kind: str = "plain") -> None:
    source = RandomSchemas(rng, draft, kind)
    schema = source.document()
    text = dumps(schema)
    formats = kind == "formats"
    valid = judge(schema, draft, formats)
    values = [source.value() for _ in range(VALUES_PER_SCHEMA)]
    outcome.schemas += 1
    begin = time.process_time()
    grammar: gr.Grammar | None = None
    try:
        grammar = gr.Grammar.from_json_schema(text, property_order="free", dialect=URIS[draft], formats=formats)
        accepted = [grammar.accepts(dumps(value)) for value in values]
    except gr.UnsatisfiableError:
        accepted = [False] * len(values)
    except (gr.SchemaError, gr.LimitError) as error:
        reason = getattr(error, "limit", None) or str(error).split(" (at ")[0]
        outcome.refused[str(reason)[:90]] += 1
        return
    outcome.slowest = max(outcome.slowest, (time.process_time() - begin, text))
    for value, ours in zip(values, accepted, strict=True):
        truth = valid(value)
        outcome.cases += 1
        outcome.valid += truth
        if truth != ours:
            outcome.wrong.append((draft, text, dumps(value), truth))


@pytest.mark.parametrize(("kind", "draft"), [(kind, draft) for kind, drafts in KINDS.items() for draft in drafts])
def test_accepts_what_is_valid(kind: str, draft: str) -> None:
    outcome = Outcome()
    for seed in range(40 if kind == "plain" else 20):
        check_schema(random.Random(f"{draft} {seed}"), draft, outcome, kind)
    assert outcome.cases > 500
    assert outcome.valid > 50
    assert not outcome.wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    options = parser.parse_args()
    outcome = Outcome()
    number = 0
    turns = [(kind, draft) for kind in options.kinds for draft in KINDS[kind]]
    while outcome.cases < options.cases:
        kind, draft = turns[number % len(turns)]
        check_schema(random.Random(f"{options.seed} {number}"), draft, outcome, kind)
        number += 1
    refused = sum(outcome.refused.values())
    print(f"{outcome.cases} cases ({outcome.valid} valid) of {outcome.schemas} schemas, {refused} of them refused")
    print(f"slowest schema: {outcome.slowest[0]:.2f} s {outcome.slowest[1][:300]}")
    for reason, count in outcome.refused.most_common():
        print(f"  refused {count}: {reason}")
    by_schema: dict[str, tuple[str, str, str, bool]] = {}
    for wrong in outcome.wrong:
        by_schema.setdefault(wrong[1], wrong)
    print(f"{len(outcome.wrong)} wrong, of {len(by_schema)} schemas")
    for draft, schema, value, truth in sorted(by_schema.values(), key=lambda wrong: len(wrong[1]))[:20]:
        print(f"  draft {draft}: {schema}\n    {value} is {'valid, refused' if truth else 'invalid, accepted'}")
    sys.exit(1 if outcome.wrong else 0)


if __name__ == "__main__":
    main()
