"""What the documentation says about cost is what the committed results say."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks.guidance import report


def test_the_page_is_made_from_the_results() -> None:
    page = report.PAGE.read_text(encoding="utf-8")
    assert report.rewritten(page) == page, "run python -m benchmarks.guidance.report"
