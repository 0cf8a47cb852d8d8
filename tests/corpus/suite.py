"""Runs the official JSON Schema test suite against `Grammar.from_json_schema` and counts what is right.

The suite comes inside the source distribution of `jsonschema` (MIT licence); nothing of it is kept in this
repository. Fetch it with

    pip download --no-deps --no-binary jsonschema jsonschema==4.26.0 -d CACHE

and set GUIDERAIL_SUITE to the archive, the unpacked folder, or the folder that holds either.

The suite's conventions: every case in the dialect of its folder; `format` asserted in optional/format only, draft 7's
content keywords in optional/content; remote schemas through the registry. An instance counts as accepted if one of its
texts is: members in any order, json.dumps spacing, numbers as plain decimals.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import guiderail as gr

DIALECTS = {
    "draft4": "http://json-schema.org/draft-04/schema#",
    "draft6": "http://json-schema.org/draft-06/schema#",
    "draft7": "http://json-schema.org/draft-07/schema#",
    "draft2019-09": "https://json-schema.org/draft/2019-09/schema",
    "draft2020-12": "https://json-schema.org/draft/2020-12/schema",
}
# What a case can come to, worst first.
OUTCOMES = ("invalid accepted", "valid refused", "schema refused", "right")
_REMOTE = "http://localhost:1234/"
_PERMUTATIONS = 24


@functools.cache
def find_suite() -> Path | None:
    """The folder that holds `tests` and `remotes`, or None."""
    place = os.environ.get("GUIDERAIL_SUITE")
    if not place:
        return None
    path = Path(place)
    for candidate in (path, path / "json", *sorted(path.glob("jsonschema-*/json"))):
        if (candidate / "tests" / "draft2020-12").is_dir():
            return candidate
    archives = [path] if path.is_file() else sorted(path.glob("jsonschema-*.tar.gz"))
    if not archives:
        return None
    target = Path(tempfile.mkdtemp(prefix="guiderail-suite-"))
    with tarfile.open(archives[0]) as archive:
        archive.extractall(target, filter="data")
    return next(iter(sorted(target.glob("*/json"))), None)


@dataclass(frozen=True)
class Case:
    """One instance of one schema."""

    draft: str
    file: str
    schema_name: str
    name: str
    schema: Any
    data: Any
    valid: bool

    @property
    def key(self) -> str:
        return f"{self.draft}/{self.file} | {self.schema_name} | {self.name}"


def read_cases(suite: Path, draft: str) -> list[Case]:
    folder = suite / "tests" / draft
    cases = []
    for file in sorted(folder.rglob("*.json")):
        name = str(file.relative_to(folder))
        for group in json.loads(file.read_text("utf-8"), parse_float=Decimal):
            for test in group["tests"]:
                cases.append(
                    Case(
                        draft,
                        name,
                        group["description"],
                        test["description"],
                        group["schema"],
                        test["data"],
                        test["valid"],
                    )
                )
    return cases


def read_remotes(suite: Path) -> dict[str, str]:
    folder = suite / "remotes"
    return {_REMOTE + str(file.relative_to(folder)): file.read_text("utf-8") for file in folder.rglob("*.json")}


def dumps(value: Any) -> str:
    """JSON with plain decimals."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {dumps(member)}" for key, member in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(dumps, value)) + "]"
    if isinstance(value, Decimal):
        return format(value, "f")
    return json.dumps(value)


def orders(value: Any, limit: int = _PERMUTATIONS) -> Iterator[Any]:
    """The value with the members of its objects in different orders, `limit` of them at each object."""
    if isinstance(value, dict):
        for members in itertools.islice(itertools.permutations(value.items()), limit):
            values = itertools.product(*(list(orders(member, 6)) for _, member in members))
            for chosen in itertools.islice(values, limit):
                yield dict(zip((key for key, _ in members), chosen, strict=True))
    elif isinstance(value, list):
        yield from map(list, itertools.islice(itertools.product(*(list(orders(item, 6)) for item in value)), limit))
    else:
        yield value


def run(suite: Path, draft: str) -> dict[str, list[str]]:
    """Keys of the cases of one draft by outcome; an unsatisfiable schema accepts nothing and is right in that."""
    remotes = read_remotes(suite)
    outcomes: dict[str, list[str]] = {outcome: [] for outcome in OUTCOMES}
    grammars: dict[str, gr.Grammar | gr.GuiderailError | None] = {}
    for case in read_cases(suite, draft):
        own_dialect = isinstance(case.schema, dict) and "$schema" in case.schema
        formats = case.file.startswith(("optional/format", "optional/content"))
        text = dumps(case.schema)
        group = f"{case.file}{text}"
        if group not in grammars:
            try:
                grammar = gr.Grammar.from_json_schema(
                    text, registry=remotes, formats=formats, dialect=None if own_dialect else DIALECTS[draft]
                )
                grammar.accepts_prefix("")
                grammars[group] = grammar
            except gr.UnsatisfiableError:
                grammars[group] = None
            except gr.GuiderailError as error:
                grammars[group] = error
        grammar_or_error = grammars[group]
        if isinstance(grammar_or_error, gr.GuiderailError):
            outcomes["schema refused"].append(case.key)
            continue
        try:
            accepted = grammar_or_error is not None and any(
                grammar_or_error.accepts(dumps(value)) for value in orders(case.data)
            )
        except gr.GuiderailError:
            outcomes["schema refused"].append(case.key)
            continue
        if accepted == case.valid:
            outcomes["right"].append(case.key)
        else:
            outcomes["invalid accepted" if accepted else "valid refused"].append(case.key)
    return outcomes
