"""Presets against the releases' formulas written out, and legality by construction."""

from __future__ import annotations

import math

import pytest
import torch
from transformers.generation.logits_process import (
    ClassifierFreeGuidanceLogitsProcessor,
    DiaClassifierFreeGuidanceLogitsProcessor,
)

from guiderail.guidance import token_models as presets
from guiderail.logits import classifier_free_guidance


def streams(seed: int, count: int, *shape: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator) * 3 for _ in range(count)]


def nucleus(logits: torch.Tensor, k: int | None, p: float) -> torch.Tensor:
    """Top-k then top-p, one row, written with a sort and a loop; the token that crosses p is kept."""
    order = logits.argsort(descending=True).tolist()[: k or None]
    probabilities = torch.softmax(logits[order], 0).tolist()
    kept, mass = [], 0.0
    for token, probability in zip(order, probabilities, strict=True):
        if mass >= p and kept:
            break
        kept.append(token)
        mass += probability
    result = torch.full_like(logits, -math.inf)
    result[kept] = logits[kept]
    return result


@pytest.mark.parametrize("guided_steps", [-1, 0, 3])
def test_llamagen(guided_steps: int) -> None:
    c, u = streams(1, 2, 2, 60)
    preset = presets.LlamaGen(3.0, guided_steps, temperature=0.7, top_k=20, top_p=0.8)
    for step in range(7):
        # prefill is always guided; decode steps count from 0 and are guided up to index `guided_steps`
        guided = step == 0 or guided_steps < 0 or step - 1 <= guided_steps
        assert preset.needs_null(step) == guided
        result = preset.probabilities(c, u if guided else None, step)
        for row in range(2):
            logits = (u + 3.0 * (c - u))[row] if guided else c[row]
            torch.testing.assert_close(result[row], nucleus(logits / 0.7, 20, 0.8).softmax(0), atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="null stream"):
        preset.probabilities(c, None, 0)


def test_llamagen_does_not_gate_on_scales_above_one() -> None:
    c, u = streams(2, 2, 1, 60)
    half = presets.LlamaGen(0.5, top_k=0).probabilities(c, u, 0)
    torch.testing.assert_close(half, (u + 0.5 * (c - u)).softmax(-1), atol=1e-5, rtol=1e-4)


def test_var_ramps_over_scales() -> None:
    preset = presets.Var(1.5, scales=10, top_k=30, top_p=0.9)
    assert not preset.needs_null(0)
    for index, side in enumerate((1, 2, 3, 4, 5, 6, 8, 10, 13, 16)):
        c, u = streams(index, 2, 1, min(side * side, 9), 50)
        t = 1.5 * index / 9
        result = preset.probabilities(c, u if index else None, index)
        for position in range(c.shape[1]):
            logits = ((1 + t) * c - t * u)[0, position]
            torch.testing.assert_close(result[0, position], nucleus(logits, 30, 0.9).softmax(0), atol=1e-5, rtol=1e-3)


def test_voxinstruct_phases_and_coefficients() -> None:
    preset = presets.VoxInstruct()
    assert preset.weights("acoustic") == (4.5, -3.0, -0.5)
    assert preset.weights("semantic") == (1.5, -0.5, 0.0)
    table = presets.VOXINSTRUCT_TOKENS
    assert len(table) == 1530
    assert (table["semantic"][0], table["semantic"][-1]) == (3, 502)
    assert (table["acoustic"][0], table["acoustic"][-1]) == (503, 1526)
    assert (table["begin"][0], table["end_semantic"][0], table["end_acoustic"][0]) == (1527, 1528, 1529)
    c, text, semantic = streams(3, 3, 1530)
    result = preset.probabilities("semantic", c, text)
    logits = text + 1.5 * (c - text)
    logits[[i for i in range(1530) if not (3 <= i <= 502 or i == 1528)]] = -math.inf
    torch.testing.assert_close(result, (nucleus(logits, 5, 0.95) / 0.8).softmax(0), atol=1e-5, rtol=1e-3)
    result = preset.probabilities("acoustic", c, text, semantic)
    m = text + 3.0 * (c - text)
    logits = semantic + 1.5 * (m - semantic)
    logits[[i for i in range(1530) if not (503 <= i <= 1526 or i == 1529)]] = -math.inf
    torch.testing.assert_close(result, (nucleus(logits, 50, 0.95) / 0.8).softmax(0), atol=1e-5, rtol=1e-3)
    with pytest.raises(ValueError, match="semantic null"):
        preset.probabilities("acoustic", c, text)


def test_off_scales_need_no_null() -> None:
    (c,) = streams(4, 1, 1530)
    preset = presets.VoxInstruct(text_scale_acoustic=1.0, semantic_scale=1.0)
    assert preset.weights("acoustic") == (1.0, 0.0, 0.0)
    assert preset.probabilities("acoustic", c).sum() == pytest.approx(1, abs=1e-5)


def test_every_id_belongs_to_exactly_one_segment() -> None:
    table = presets.VOXINSTRUCT_TOKENS
    names = ["pad", "language", "semantic", "acoustic", "begin", "end_semantic", "end_acoustic"]
    covered = torch.stack([table.legal(name) for name in names]).sum(0)
    assert (covered == 1).all()
    assert table.segment_of(502) == "semantic"
    spellings = table.token_bytes()
    assert len(set(spellings)) == len(table)
    assert spellings[502] == b"semantic:499;"
    with pytest.raises(ValueError, match="no segment"):
        table.segment_of(1530)
    with pytest.raises(ValueError, match="repeated"):
        presets.SegmentTable([("a", 1), ("a", 2)])


@pytest.mark.parametrize("codebooks", [1, 4])
def test_doubled_batch_equals_the_processors_of_musicgen_and_dia(codebooks: int) -> None:
    batch, vocab = 3, 40
    (scores,) = streams(5, 1, 2 * batch * codebooks, vocab)
    ids = torch.zeros(batch * codebooks, 2, dtype=torch.long)
    musicgen = ClassifierFreeGuidanceLogitsProcessor(3.0)(ids, scores.clone())
    ours = presets.DoubledBatch(3.0, codebooks=codebooks)(scores)
    torch.testing.assert_close(ours, musicgen.log_softmax(-1), atol=1e-4, rtol=1e-4)
    dia = DiaClassifierFreeGuidanceLogitsProcessor(3.0, guidance_top_k=9)(ids, scores.clone())
    ours = presets.DoubledBatch(3.0, "ho-salimans", shortlist=9, codebooks=codebooks)(scores)
    torch.testing.assert_close(ours, dia.log_softmax(-1), atol=1e-4, rtol=1e-4)


def test_one_scale_per_codebook_in_both_layouts() -> None:
    (flat,) = streams(6, 1, 2 * 3 * 2, 20)  # two sequences, three codebooks
    scales = [1.0, 2.0, 4.0]
    result = presets.DoubledBatch(scales, codebooks=3)(flat)
    c, u = flat.chunk(2)
    for row in range(6):
        expected = classifier_free_guidance(c[row], u[row], scales[row % 3])
        torch.testing.assert_close(result[row], expected)
    stacked = presets.DoubledBatch(scales)(flat.reshape(4, 3, 20))
    torch.testing.assert_close(stacked.reshape(6, 20), result)
    with pytest.raises(ValueError, match="even"):
        presets.DoubledBatch()(flat[:3])
    with pytest.raises(ValueError, match="codebooks"):
        presets.DoubledBatch([1.0, 2.0])(flat.reshape(4, 3, 20))


def test_delay_pattern_round_trip_and_its_legality() -> None:
    codes = torch.arange(2 * 3 * 4).reshape(2, 3, 4) + 1
    shifted = presets.delayed(codes, pad=0)
    assert shifted[0].tolist() == [[1, 2, 3, 4, 0, 0], [0, 5, 6, 7, 8, 0], [0, 0, 9, 10, 11, 12]]
    assert torch.equal(presets.undelayed(shifted), codes)
    for step in range(6):
        legal = presets.delay_legal(step, 3, 4, 30, pad=0)
        for codebook in range(3):
            assert legal[codebook, shifted[0, codebook, step]]
            assert legal[codebook, 0] == (shifted[0, codebook, step] == 0)


def test_iterative_decoding_fills_most_confident_positions_first() -> None:
    assert [presets.committed(k, 4, 10) for k in range(4)] == [
        math.ceil(10 * (1 - math.cos(math.pi / 2 * (k + 1) / 4))) for k in range(3)
    ] + [10]
    c, u = streams(7, 2, 2, 10, 6)
    seen: list[torch.Tensor] = []

    def predict(tokens: torch.Tensor, still_open: torch.Tensor) -> dict[str, torch.Tensor]:
        seen.append(still_open.clone())
        return {"conditional": c, "null": u}

    def guide(scores: dict[str, torch.Tensor]) -> torch.Tensor:
        return classifier_free_guidance(scores["conditional"], scores["null"], 2.0)

    masked = torch.ones(2, 10, dtype=torch.bool)
    masked[:, 3] = False
    tokens = presets.fill_by_confidence(predict, torch.full((2, 10), 5), masked, 4, guide)
    best = (u + 2 * (c - u)).log_softmax(-1)
    assert torch.equal(tokens[masked], best.argmax(-1)[masked])
    assert (tokens[:, 3] == 5).all()
    assert [int(still_open[0].sum()) for still_open in seen] == [
        9 - n for n in (0, *(presets.committed(k, 4, 9) for k in range(3)))
    ]
    confidence = best.max(-1).values[0].masked_fill(~masked[0], -math.inf)
    first = seen[0][0] & ~seen[1][0]
    assert set(first.nonzero().flatten().tolist()) == set(confidence.topk(int(first.sum())).indices.tolist())
