"""Real schemas and their labelled instances against `Grammar.from_json_schema`.

    GUIDERAIL_SCHEMAS=FILE.jsonl[.gz] python tests/corpus/real_schemas.py [--limit N]

A line holds one schema: {"id", "schema", "tests": [{"valid": bool, "data": any}]}. Every instance is read as it stands
in declared and in free order, and in free order with the members of all its objects shuffled. Judged by the labels.
Prints the counts, what is wrong, what is refused, and which schemas took longest (CPU seconds: compile and all
instances).
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import guiderail as gr

WAYS = ("declared", "free", "shuffled")


@dataclass
class Outcome:
    """What became of the instances; lists name the schema and the number of the instance."""

    schemas: int = 0
    compiled: int = 0
    instances: int = 0
    invalid_accepted: dict[str, list[str]] = field(default_factory=lambda: {way: [] for way in WAYS})
    valid_refused: dict[str, list[str]] = field(default_factory=lambda: {way: [] for way in WAYS})
    refused: list[str] = field(default_factory=list)
    seconds: list[tuple[float, str]] = field(default_factory=list)


def find_schemas() -> Path | None:
    place = os.environ.get("GUIDERAIL_SCHEMAS")
    return Path(place) if place else None


def read_rows(path: Path, limit: int | None = None) -> Iterator[dict[str, Any]]:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    for line in data.decode("utf-8").splitlines()[:limit]:
        yield json.loads(line)


def shuffled(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict):
        members = [(key, shuffled(member, rng)) for key, member in value.items()]
        rng.shuffle(members)
        return dict(members)
    return [shuffled(item, rng) for item in value] if isinstance(value, list) else value


def run(path: Path, limit: int | None = None) -> Outcome:
    outcome, rng = Outcome(), random.Random(0)
    for row in read_rows(path, limit):
        outcome.schemas += 1
        outcome.instances += len(row["tests"])
        begin = time.process_time()
        try:
            grammars = {way: gr.Grammar.from_json_schema(row["schema"], property_order=way) for way in WAYS[:2]}
            for grammar in grammars.values():
                grammar.accepts_prefix("")
            outcome.compiled += 1
            for number, test in enumerate(row["tests"]):
                for way in WAYS:
                    data = shuffled(test["data"], rng) if way == "shuffled" else test["data"]
                    accepted = grammars["declared" if way == "declared" else "free"].accepts(json.dumps(data))
                    if accepted != test["valid"]:
                        wrong = outcome.valid_refused if test["valid"] else outcome.invalid_accepted
                        wrong[way].append(f"{row['id']} {number}")
        except gr.GuiderailError as error:
            outcome.refused.append(f"{row['id']}: {type(error).__name__}: {error}")
        outcome.seconds.append((time.process_time() - begin, row["id"]))
    outcome.seconds.sort(reverse=True)
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int)
    path = find_schemas()
    if path is None:
        parser.error("GUIDERAIL_SCHEMAS does not name a file")
    outcome = run(path, parser.parse_args().limit)
    print(f"{outcome.schemas} schemas, {outcome.compiled} compiled, {outcome.instances} instances")
    for way in WAYS:
        accepted, refused = outcome.invalid_accepted[way], outcome.valid_refused[way]
        print(f"{way}: {len(accepted)} invalid accepted, {len(refused)} valid refused")
        for name in accepted if way == "declared" else [*accepted, *refused]:
            print(f"  {name}")
    print(*outcome.refused, *(f"{seconds:.2f} s {name}" for seconds, name in outcome.seconds[:8]), sep="\n")


if __name__ == "__main__":
    main()
