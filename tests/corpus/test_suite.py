"""The official suite with a ratchet: what is not right today is listed in ratchet.json, refusals included.

A case may get better (then take it off the list: a stale entry fails too); none may get worse.
To write the list anew: python tests/corpus/test_suite.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from suite import DIALECTS, OUTCOMES, find_suite, run

RATCHET = Path(__file__).with_name("ratchet.json")


@pytest.mark.parametrize("draft", DIALECTS)
def test_official_suite(draft: str) -> None:
    suite = find_suite()
    if suite is None:
        pytest.skip("GUIDERAIL_SUITE does not name the official suite (see tests/corpus/suite.py)")
    outcomes = run(suite, draft)
    known = json.loads(RATCHET.read_text("utf-8"))[draft]
    for outcome in OUTCOMES[:-1]:
        found, listed = set(outcomes[outcome]), set(known[outcome])
        assert found - listed == set(), f"worse than the ratchet: {outcome}"
        assert listed - found == set(), f"better than the ratchet, take these off the list: {outcome}"
    assert len(outcomes["right"]) == known["right"]


if __name__ == "__main__":
    place = find_suite()
    if place is None:
        sys.exit("GUIDERAIL_SUITE does not name the official suite")
    ratchet: dict[str, dict[str, object]] = {}
    for name in DIALECTS:
        result = run(place, name)
        ratchet[name] = {
            **{outcome: sorted(result[outcome]) for outcome in OUTCOMES[:-1]},
            "right": len(result["right"]),
        }
        print(name, {outcome: len(keys) for outcome, keys in result.items()})
    RATCHET.write_text(json.dumps(ratchet, indent=1) + "\n", "utf-8")
