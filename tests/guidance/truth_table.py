"""Whole runs of every rule in every way of decoding, each compared with the reference that recomputes every stream.

A cell of the table is (rule, way, loop). `WAYS` maps the name of a way to a function that runs it and walks along
what was produced: under greedy decoding every token must be the reference's best, under seeded sampling the token that
the same random numbers draw from the reference's distribution, under beams score and tokens of the reference's search.
A greedy step counts as equal too where the reference's best two are within 1e-4; such steps are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from guidance import models
from guidance.rule_cases import Case, Guided
from guiderail.integrations.generation import GuidedDecoder
from guiderail.integrations.transformers_guidance import GuidanceLogitsProcessor
from guiderail.logits import Sampling
from oracles import guidance_reference as reference

STEPS = 7


@dataclass
class Outcome:
    """What one cell says: tokens (or beams) compared, and how many of them needed the tolerance for ties."""

    compared: int = 0
    ties: int = 0


def _scales(case: Case, rows: int, per_row: bool) -> list[float]:
    return [case.scale * (1 + 0.3 * index) for index in range(rows)] if per_row else [case.scale] * rows


def _processed(case: Case, model: Any, rows: list[list[int]], per_row: bool, **settings: Any) -> Any:
    """`model.generate` with our processor: the new tokens, or what `return_dict_in_generate` gives."""
    encoder_decoder = model.config.is_encoder_decoder
    scales = _scales(case, len(rows), per_row)
    term = case.term(scales if per_row else None, models.t5 if encoder_decoder else models.llama)
    inputs = models.right_padded(rows) if encoder_decoder else models.left_padded(rows)
    output = model.generate(
        **inputs,
        logits_processor=[GuidanceLogitsProcessor(term, model=model)],
        **{"max_new_tokens": STEPS, "top_k": 0, **settings},
    )
    start = 1 if encoder_decoder else inputs["input_ids"].shape[1]
    if settings.get("return_dict_in_generate"):
        return output.sequences[:, start:].tolist(), output.sequences_scores.tolist()
    return output[:, start:].tolist()


def _references(case: Case, model: Any, rows: list[list[int]], per_row: bool) -> list[Guided]:
    return [
        case.reference(model, row, i, s)
        for i, (row, s) in enumerate(zip(rows, _scales(case, len(rows), per_row), strict=True))
    ]


def _greedy(guided: Sequence[Guided], produced: Sequence[Sequence[int]], outcome: Outcome) -> None:
    agreement = reference.Agreement()
    repeats = len(produced) // len(guided)
    for index, tokens in enumerate(produced):
        assert len(tokens) == STEPS
        reference.check_greedy(guided[index // repeats], tokens, None, agreement)
    outcome.compared += agreement.steps
    outcome.ties += agreement.ties


def _drawn(
    guided: Sequence[Guided],
    produced: Sequence[Sequence[int]],
    draw: Callable[[torch.Tensor], list[int]],
    outcome: Outcome,
) -> None:
    repeats = len(produced) // len(guided)
    texts: list[tuple[int, ...]] = [()] * len(produced)
    for step in range(STEPS):
        scores = np.stack([guided[index // repeats](text) for index, text in enumerate(texts)])
        tokens = draw(torch.tensor(scores, dtype=torch.float32).softmax(-1))
        texts = [(*text, token) for text, token in zip(texts, tokens, strict=True)]
        assert [text[step] for text in texts] == [row[step] for row in produced], f"step {step}"
        outcome.compared += len(texts)


def _global_draw(probabilities: torch.Tensor) -> list[int]:
    return torch.multinomial(probabilities, 1).squeeze(1).tolist()


def _sampled(
    case: Case, model: Any, rows: list[list[int]], outcome: Outcome, per_row: bool = False, **settings: Any
) -> None:
    torch.manual_seed(99)
    produced = _processed(case, model, rows, per_row, do_sample=True, **settings)
    torch.manual_seed(99)
    _drawn(_references(case, model, rows, per_row), produced, _global_draw, outcome)


def _beams(
    case: Case, model: Any, rows: list[list[int]], outcome: Outcome, per_row: bool = False, **settings: Any
) -> None:
    sequences, scores = _processed(
        case, model, rows, per_row, do_sample=False, num_beams=3, num_return_sequences=2, max_new_tokens=5,
        length_penalty=0.0, return_dict_in_generate=True, output_scores=True, **settings,
    )  # fmt: skip
    for index, guided in enumerate(_references(case, model, rows, per_row)):
        searched = reference.beam_search(guided, 3, 5)
        for rank, (score, tokens) in enumerate(searched[:2]):  # a filter may leave fewer
            assert abs(scores[2 * index + rank] - score) < 1e-3, f"beam {rank} of prompt {index}"
            outcome.compared += 1
            if tuple(sequences[2 * index + rank]) != tokens:
                near = [other for other, text in searched if text == tuple(sequences[2 * index + rank])]
                assert near, "a beam the reference does not have"
                assert abs(near[0] - score) < 1e-4, "another beam"
                outcome.ties += 1


def _processor_greedy(
    case: Case, model: Any, rows: list[list[int]], outcome: Outcome, per_row: bool = False, **settings: Any
) -> None:
    produced = _processed(case, model, rows, per_row, do_sample=False, **settings)
    _greedy(_references(case, model, rows, per_row), produced, outcome)


def _loop(
    case: Case,
    model: Any,
    rows: list[list[int]],
    outcome: Outcome,
    per_row: bool = False,
    sampled: bool = False,
    repeats: int = 1,
    **settings: Any,
) -> None:
    other = models.t5 if model.config.is_encoder_decoder else models.llama
    term = case.term(_scales(case, len(rows), per_row) if per_row else None, other)
    generator = torch.Generator().manual_seed(7)
    decoder = GuidedDecoder(
        model, term, sampling=Sampling(do_sample=sampled), eos_token_ids=[], generator=generator, **settings
    )
    produced = [g.token_ids for g in decoder.decode(rows, STEPS, num_return_sequences=repeats)]
    guided = _references(case, model, rows, per_row)
    if not sampled:
        _greedy(guided, produced, outcome)
        return
    again = torch.Generator().manual_seed(7)
    _drawn(guided, produced, lambda p: torch.multinomial(p, 1, generator=again).squeeze(1).tolist(), outcome)


SAME, RAGGED = models.prompts(61, (5, 5)), models.prompts(62, (6, 2, 4))
SOURCES = [[*row, models.EOS] for row in models.prompts(63, (5, 3))]
REPEATING = [[4, 5, 6, 7, 4, 5, 6]]

Way = Callable[[Case, Outcome], None]
WAYS: dict[str, Way] = {
    "processor, greedy, batch": lambda case, out: _processor_greedy(case, models.llama(), SAME, out),
    "processor, greedy, left padding": lambda case, out: _processor_greedy(case, models.llama(), RAGGED, out),
    "processor, greedy, static cache": lambda case, out: _processor_greedy(
        case, models.llama(), RAGGED, out, cache_implementation="static"
    ),
    "processor, greedy, assistant model": lambda case, out: _processor_greedy(
        case, models.llama(), REPEATING, out, assistant_model=models.llama(3)
    ),
    "processor, greedy, prompt lookup": lambda case, out: _processor_greedy(
        case, models.llama(), REPEATING, out, prompt_lookup_num_tokens=3
    ),
    "processor, greedy, per-row scales": lambda case, out: _processor_greedy(
        case, models.llama(), RAGGED, out, per_row=True
    ),
    "processor, greedy, encoder-decoder": lambda case, out: _processor_greedy(case, models.t5(), SOURCES, out),
    "processor, sampling, batch": lambda case, out: _sampled(case, models.llama(), SAME, out),
    "processor, sampling, left padding": lambda case, out: _sampled(case, models.llama(), RAGGED, out),
    "processor, sampling, n = 2": lambda case, out: _sampled(case, models.llama(), RAGGED, out, num_return_sequences=2),
    "processor, sampling, static cache": lambda case, out: _sampled(
        case, models.llama(), RAGGED, out, cache_implementation="static"
    ),
    "processor, sampling, per-row scales": lambda case, out: _sampled(case, models.llama(), RAGGED, out, per_row=True),
    "processor, sampling, encoder-decoder": lambda case, out: _sampled(case, models.t5(), SOURCES, out),
    "processor, beams": lambda case, out: _beams(case, models.llama(), RAGGED, out),
    "processor, beams, per-row scales": lambda case, out: _beams(case, models.llama(), RAGGED, out, per_row=True),
    "processor, beams, static cache": lambda case, out: _beams(
        case, models.llama(), RAGGED, out, cache_implementation="static"
    ),
    "processor, beams, encoder-decoder": lambda case, out: _beams(case, models.t5(), SOURCES, out),
    "loop, greedy, rows of different lengths": lambda case, out: _loop(case, models.llama(), RAGGED, out),
    "loop, greedy, drafts by the conditional stream": lambda case, out: _loop(
        case, models.llama(), RAGGED, out, speculate=3
    ),
    "loop, greedy, drafts looked up": lambda case, out: _loop(
        case, models.llama(), REPEATING, out, speculate=3, draft="lookup"
    ),
    "loop, greedy, per-row scales": lambda case, out: _loop(case, models.llama(), RAGGED, out, per_row=True),
    "loop, greedy, encoder-decoder": lambda case, out: _loop(case, models.t5(), SOURCES, out),
    "loop, sampling, n = 2": lambda case, out: _loop(case, models.llama(), RAGGED, out, sampled=True, repeats=2),
    "loop, sampling, encoder-decoder": lambda case, out: _loop(case, models.t5(), SOURCES, out, sampled=True),
}


def applies(case: Case, way: str) -> bool:
    """Whether a cell exists: some rules have no number to vary per row, some need a decoder-only model."""
    return (case.per_row or "per-row" not in way) and (case.encoder_decoder or "encoder-decoder" not in way)


def run(case: Case, way: str) -> Outcome:
    """Run one cell. Raises: AssertionError where decoding and reference part."""
    outcome = Outcome()
    WAYS[way](case, outcome)
    assert outcome.compared
    return outcome
