"""A slice of the truth table: ways of decoding that no other test runs, each for every third rule.

All of it: `python -m benchmarks.guidance.truth`.
"""

from __future__ import annotations

import pytest

from guidance import models
from guidance.rule_cases import CASES, Case
from guidance.truth_table import applies, run
from guiderail import guidance as gr
from guiderail.integrations.transformers_guidance import GuidanceLogitsProcessor

SLICE = [
    "processor, greedy, static cache",
    "processor, sampling, per-row scales",
    "processor, sampling, encoder-decoder",
    "loop, greedy, per-row scales",
    "loop, sampling, encoder-decoder",
]


CELLS = [(case, way) for start, way in enumerate(SLICE) for case in CASES[start % 3 :: 3] if applies(case, way)]


@pytest.mark.parametrize(("case", "way"), CELLS, ids=str)
def test_equal_to_the_reference(case: Case, way: str) -> None:
    outcome = run(case, way)
    assert outcome.ties <= outcome.compared // 10


@pytest.mark.parametrize(
    "term",
    [gr.DoLa([0, 1]), gr.GeDi(models.t5(2), 7, 8), gr.Contrastive(models.t5(1), context=2)],
    ids=lambda term: type(term).__name__,
)
def test_streams_an_encoder_decoder_does_not_have_are_refused(term: gr.Term) -> None:
    """A control code or the tail of a prompt would silently become another source."""
    processor = GuidanceLogitsProcessor(term, model=models.t5())
    with pytest.raises(ValueError, match="only decoder-only models"):
        models.t5().generate(**models.right_padded([[4, 5, 6]]), logits_processor=[processor], max_new_tokens=2)
