"""The instruments of benchmarks/reproductions, not its results: distances, worlds, verdicts, the page."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np  # noqa: E402
from benchmarks.reproductions import captioning, cca, cca_enumerable, report, voxinstruct  # noqa: E402
from benchmarks.reproductions.claims import Claim  # noqa: E402

import guiderail as gr  # noqa: E402
from guiderail.guidance.token_models import VoxInstruct  # noqa: E402

CLAIMS = [*captioning.CLAIMS, *cca.CLAIMS, *cca_enumerable.CLAIMS, *voxinstruct.CLAIMS]


def test_frechet_distance_of_known_gaussians() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(200_000, 2, generator=generator)
    b = torch.randn(200_000, 2, generator=generator) * torch.tensor([2.0, 1.0]) + torch.tensor([0.0, 3.0])
    assert cca.frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert cca.frechet_distance(a, b) == pytest.approx(9 + 1, rel=0.02)  # means 3 apart, deviations 1 apart


def test_pictures_survive_the_patches() -> None:
    pictures, labels = cca.drawings(20, np.random.default_rng(0))
    vectors = cca.patches(pictures).reshape(-1, 4)
    assert torch.equal(cca.pictures_of(torch.arange(len(vectors)).reshape(20, 16), vectors), pictures)
    assert set(labels.tolist()) <= set(range(10))


def test_guided_sampling_costs_twice_and_scale_one_once() -> None:
    model = cca.LlamaGenModel(cca.LlamaGenSettings(vocab=64, width=32, layers=1, heads=2, grid=4, classes=10)).eval()
    for scale, evaluations in ((1.0, 1), (2.0, 2)):
        codes, rows = cca.sample(model, torch.arange(6), scale, torch.Generator().manual_seed(0))
        assert (codes.shape, rows) == ((6, 16), evaluations)


def test_speech_is_read_back_exactly() -> None:
    rng = np.random.default_rng(0)
    legal = VoxInstruct().legal("acoustic")
    for _ in range(200):
        sentence = voxinstruct.Sentence(rng)
        ids, segments = sentence.spoken(rng)
        start = segments.index(2)
        heard, style = voxinstruct.understood(ids[start:-1], sentence.pace)
        assert heard == sentence.content
        for name in ("pitch", "voice", "pace"):
            assert set(style[name]) == {getattr(sentence, name)}
        assert bool(legal[ids[start:]].all())
        assert len(sentence.text) <= voxinstruct.TEXT_LENGTH
    assert voxinstruct.errors([1, 2, 3], [1, 3, 4]) == 2


def test_a_claim_is_met_only_by_every_seed() -> None:
    claim = Claim("V9", "p", "s", "at least 1", "w", lambda figures: figures["x"], lambda value: value >= 1)
    row = claim.row({0: {"x": 2.0}, 1: {"x": 0.5}})
    assert (row["value"], row["spread"], row["met"], row["met_by_seed"]) == (1.25, [0.5, 2.0], False, [True, False])
    text = report.page([row], {"p": {0: {"x": 2.0, "t": {"a": {"y": 1.0}}}}}, [claim], [])
    assert "**no** (1 of 2 seeds)" in text
    assert "| a | 1 |" in text


def test_the_committed_table_follows_from_the_committed_runs() -> None:
    folder = Path(report.__file__).parent
    for row in json.loads((folder / "results.json").read_text()):
        runs = [json.loads((folder / "results" / f"{row['paper']}-{seed}.json").read_text()) for seed in row["seeds"]]
        claim = next(claim for claim in CLAIMS if claim.name == row["claim"])
        assert claim.row({run["seed"]: run["figures"] for run in runs}) == row


def test_captions_and_their_grammar() -> None:
    rng = np.random.default_rng(0)
    scenes = captioning.scenes(60, rng)
    template = gr.Grammar.from_regex(captioning.grammar())
    written = [captioning.caption(scene, rng) for scene in scenes]
    share = np.mean([template.accepts("".join(f"t{w};" for w in words).encode()) for words in written])
    assert share > 0.8
    assert not template.accepts(b"t4;t3;")
    # A caption that names everything finds its scene; one that names nothing finds it by chance.
    whole = [[captioning.WORD + a * captioning.VALUES + v for a, v in enumerate(scene)] for scene in scenes.tolist()]
    distinct = len({tuple(words) for words in whole})
    assert captioning.posterior_rank(whole, scenes) == pytest.approx(distinct / 60)
    assert captioning.posterior_rank([[3, 4]] * 60, scenes) == pytest.approx(1 / 60)
    groups = [[words] for words in written]
    assert captioning.cider(written, groups) > captioning.cider(written[1:] + written[:1], groups)
