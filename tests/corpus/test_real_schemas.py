"""Real schemas by their labels, where GUIDERAIL_SCHEMAS names a file of them (see real_schemas.py)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from real_schemas import find_schemas, run


def test_no_label_is_contradicted() -> None:
    path = find_schemas()
    if path is None:
        pytest.skip("GUIDERAIL_SCHEMAS does not name a file of schemas (see tests/corpus/real_schemas.py)")
    outcome = run(path, limit=300)
    assert outcome.schemas > 0
    assert all(not wrong for wrong in outcome.invalid_accepted.values())
    # Declared order refuses members out of order, which is what it is for.
    assert not outcome.valid_refused["free"]
    assert not outcome.valid_refused["shuffled"]
    assert len(outcome.refused) <= 0.005 * outcome.schemas, outcome.refused
