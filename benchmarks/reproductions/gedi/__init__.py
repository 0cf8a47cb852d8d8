"""GeDi (Krause et al. 2020) in a small language whose classes are known exactly (`language.py`).

A base model reads the corpus without codes. A model of half its width reads it too (as GPT-2 had read the web), and is
then tuned on labelled texts into the discriminator: sentiment under four values of lambda, rude words, and four
of eight topics as one true-or-false task. Control is judged by the exact posterior, fluency by the base model's
perplexity. Baselines: sampling the discriminator itself, PPLM and FUDGE. Speed is measured at a width where arithmetic
dominates. Strengths were chosen on seed 100.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.reproductions.claims import Claim
from benchmarks.reproductions.gedi import language
from benchmarks.reproductions.gedi.language import BEGIN, CODES, END, VOCAB, Text
from benchmarks.reproductions.gedi.plug_and_play import PlugAndPlay, attribute_classifier
from benchmarks.reproductions.gedi.prefix_judge import PrefixJudge
from benchmarks.reproductions.small_models import kept, language_model, next_token_loss, trained
from guiderail.guidance import GeDi, PrefixClassifier, Term
from guiderail.integrations.generation import GuidedDecoder
from guiderail.logits.sampling import Sampling
from guiderail.training import GeDiModel

BATCH, BASE_STEPS, TUNING_STEPS = 32, 900, 500
TOPIC_STEPS = 1200  # of all eight topics
# With half of the topic words gently: at 2e-3 the model forgets, in more seeds than not, those it is not tuned on.
HALF_STEPS, GENTLE = 300, 5e-4
LABELLED = 10_000
FIRST_SCALE = 20.0  # near the length of a text, where a mean times the scale is the sum that Bayes' rule asks for
LAMBDAS = (1.0, 0.8, 0.6, 0.05)
OMEGAS = (0.1, 0.3, 1.0, 3.0, 10.0)
PPLM = {"classifier": (0.1,), "words": (0.1,)}  # step sizes
ROWS, NEW_TOKENS = 160, 24
FUDGE_WEIGHTS = (1.0, 3.0, 10.0)


def padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Rows filled with END, and a mask that counts each row's own tokens."""
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *([END] * (longest - len(row)))] for row in rows])
    return ids, torch.arange(longest)[None] < torch.tensor([len(row) for row in rows])[:, None]


def framed(item: Text) -> list[int]:
    """Begin, text, end."""
    return [BEGIN, *item.ids, END]


def written(item: Text) -> list[int]:
    """As the corpus has it: half of the texts under their topic word."""
    return [*([language.TOPIC_WORD[item.topic]] if item.titled else []), *framed(item)]


class World:
    """Everything a seed trains once."""

    def __init__(self, seed: int, scratch: Path) -> None:
        self.seed, self.scratch = seed, scratch
        self.base = self.reader("base", 96, 2)
        self.small = self.reader("small", 48, 2)
        rng = np.random.default_rng([seed, 1])
        self.labelled = [language.text(rng, rude_share=0.3) for _ in range(LABELLED)]
        self.held_out = [language.text(rng) for _ in range(4000)]

    def reader(self, name: str, width: int, layers: int) -> Any:
        model = language_model(VOCAB, width, layers, self.seed)

        def loss(step: int) -> Tensor:
            rng = np.random.default_rng([self.seed, 2, step])
            ids, counted = padded([written(language.text(rng)) for _ in range(BATCH)])
            return next_token_loss(model, ids, counted)

        return trained(model, loss, name, self.scratch, steps=BASE_STEPS)

    def discriminator(
        self, name: str, codes: tuple[str, str], weight: float,
        batch: Callable[[int], tuple[list[list[int]], Tensor]], steps: int = TUNING_STEPS, rate: float = 2e-3,
    ) -> GeDiModel:  # fmt: skip
        """The small model tuned under two codes; `batch` gives texts and columns of their right codes."""
        copy = language_model(VOCAB, 48, 2, self.seed)
        copy.load_state_dict(self.small.state_dict())
        model = GeDiModel(copy, {code: CODES[code] for code in codes})
        with torch.no_grad():
            model.logit_scale.fill_(FIRST_SCALE)

        def loss(step: int) -> Tensor:
            rows, right = batch(step)
            ids, counted = padded(rows)
            return model.loss(ids, counted.long(), right, weight)

        trained(model, loss, name, self.scratch, steps=steps, rate=rate)
        return model

    def picked(self, step: int, count: int = BATCH) -> list[Text]:
        rng = np.random.default_rng([self.seed, 3, step])
        return [self.labelled[index] for index in rng.integers(len(self.labelled), size=count)]

    def sentiment(self, weight: float) -> GeDiModel:
        def batch(step: int) -> tuple[list[list[int]], Tensor]:
            texts = self.picked(step)
            return [framed(t) for t in texts], torch.tensor([t.sentiment for t in texts])

        return self.discriminator(f"sentiment-{weight:g}", ("negative", "positive"), weight, batch)

    def manners(self) -> GeDiModel:
        def batch(step: int) -> tuple[list[list[int]], Tensor]:
            texts = self.picked(step)
            return [framed(t) for t in texts], torch.tensor([int(not t.rude) for t in texts])

        return self.discriminator("manners", ("dirty", "clean"), 0.6, batch)

    def topics(self, known: int, steps: int, rate: float) -> GeDiModel:
        """The first `known` topics; the topic word comes after the code, as a title right or wrong."""

        def batch(step: int) -> tuple[list[list[int]], Tensor]:
            rng = np.random.default_rng([self.seed, 4, step])
            texts = [t for t in self.picked(step, 3 * BATCH) if t.topic < known][:BATCH]
            rows, right = [], []
            for item in texts:
                true = bool(rng.random() < 0.5)
                others = [t for t in range(known) if t != item.topic]
                named = item.topic if true else int(rng.choice(others))
                rows.append([language.TOPIC_WORD[named], *framed(item)])
                right.append(int(true))
            return rows, torch.tensor(right)

        return self.discriminator(f"topics-{known}", ("false", "true"), 0.6, batch, steps, rate)

    # -- generation ---------------------------------------------------------------------------------------------------

    def prompts(self, count: int = ROWS, rude: bool = False) -> list[list[int]]:
        """Neutral: a determiner, a noun of no topic, a verb. Rude: the same, and a rude adverb."""
        rng = np.random.default_rng([self.seed, 5])
        rows = []
        for _ in range(count):
            noun = int(rng.choice(language.SHARED_NOUN))
            row = [BEGIN, int(rng.choice(language.DETERMINER)), noun, int(rng.choice(language.verbs_of(noun)))]
            rows.append([*row, int(rng.choice(language.RUDE_ADVERB))] if rude else row)
        return rows

    def continued(self, term: Term | None, prompts: list[list[int]], model: Any = None) -> list[list[int]]:
        """Sampled continuations, without end."""
        decoder = GuidedDecoder(
            model or self.base, term or (), sampling=Sampling(True), eos_token_ids=[END],
            generator=torch.Generator().manual_seed(1000 * self.seed + prompts[0][-1]),
        )  # fmt: skip
        return [generation.token_ids for generation in decoder.decode(prompts, NEW_TOKENS)]

    @torch.no_grad()
    def perplexity(self, prompts: list[list[int]], texts: list[list[int]]) -> float:
        """The base model's, per generated token."""
        total = count = 0.0
        for prompt, words in zip(prompts, texts, strict=True):
            if not words:
                continue
            ids = torch.tensor([[*prompt, *words]])
            scores = torch.log_softmax(self.base(input_ids=ids).logits[0, len(prompt) - 1 : -1].float(), -1)
            total -= float(scores.gather(1, torch.tensor(words)[:, None]).sum())
            count += len(words)
        return float(np.exp(total / count))

    def figures(self, prompts: list[list[int]], texts: list[list[int]]) -> dict[str, float]:
        """Fluency, variety, grammar."""
        whole = [[*prompt[1:], *words] for prompt, words in zip(prompts, texts, strict=True)]
        pairs = [pair for words in texts for pair in itertools.pairwise(words)]
        return {
            "perplexity": self.perplexity(prompts, texts),
            "distinct_2": len(set(pairs)) / max(1, len(pairs)),
            "grammatical": float(np.mean([language.is_grammatical(words) for words in whole])),
        }

    def steered(self, term: Callable[[int], Term | None]) -> dict[str, float]:
        """Sentiment: half of the rows each way; a tie counts half."""
        prompts, right, parts = self.prompts(), [], []
        for wanted, rows in enumerate((prompts[: ROWS // 2], prompts[ROWS // 2 :])):
            texts = self.continued(term(wanted), rows)
            odds = np.array([language.sentiment_log_odds(words) for words in texts]) * (2 * wanted - 1)
            right += list((odds > 0) + 0.5 * (odds == 0))
            parts.append((rows, texts))
        gathered = self.figures([r for rows, _ in parts for r in rows], [t for _, texts in parts for t in texts])
        return {"accuracy": float(np.mean(right)), **gathered}

    def on_topic(self, topics: Sequence[int], term: Callable[[int], Term | None]) -> dict[str, float]:
        """Control over topics: the posterior's best of all eight is the wanted one; ties share."""
        right, prompts, texts = [], [], []
        for topic in topics:
            rows = self.prompts(40)
            found = self.continued(term(topic), rows)
            for words in found:
                posterior = language.topic_posterior(words)
                best = posterior >= posterior.max() - 1e-9
                right.append(float(best[topic]) / float(best.sum()))
            prompts, texts = prompts + rows, texts + found
        return {"accuracy": float(np.mean(right)), **self.figures(prompts, texts)}


def run(seed: int, scratch: Path) -> dict[str, Any]:
    world = World(seed, scratch)
    by_lambda = {weight: world.sentiment(weight) for weight in LAMBDAS}
    names = ("negative", "positive")

    def gedi(model: GeDiModel, omega: float) -> Callable[[int], GeDi]:
        return lambda wanted: model.term(names[wanted], names[1 - wanted], omega)

    all_topics = world.topics(language.TOPICS, TOPIC_STEPS, 2e-3)
    half = world.topics(language.TRAINED_TOPICS, HALF_STEPS, GENTLE)

    def sweep(name: str, measure: Callable[[float], Any]) -> dict[str, Any]:
        return {f"{w:g}": kept(scratch, f"{name} {w:g}", functools.partial(measure, w)) for w in OMEGAS}

    plain = kept(scratch, "unguided", lambda: world.steered(lambda _: None))
    control = {
        weight: sweep(f"sentiment {weight:g}", lambda omega, model=model: world.steered(gedi(model, omega)))
        for weight, model in by_lambda.items()
    }
    figures: dict[str, Any] = {
        "unguided": {
            "sentiment": plain,
            "topics": kept(scratch, "unguided topics", lambda: world.on_topic(range(8), lambda _: None)),
        },
        "sentiment_by_omega": control[0.6],
        "sentiment_baselines": {
            **kept(scratch, "class-conditional", lambda: _class_conditional(world, by_lambda)),
            **kept(scratch, "fudge", lambda: _fudge(world)),
            **kept(scratch, "pplm", lambda: _pplm(world)),
        },
        "topics_by_omega": sweep("topics", lambda w: world.on_topic(range(8), topic_term(all_topics, w))),
        "held_out_topics_by_omega": sweep("held-out", lambda w: world.on_topic(range(4, 8), topic_term(half, w))),
        "by_lambda": {
            f"{weight:g}": _quality(world, model, list(control[weight].values()), plain["perplexity"])
            for weight, model in by_lambda.items()
        },
        "rude_prompts": kept(scratch, "rude prompts", lambda: _detoxified(world)),
        "cost": kept(scratch, "cost", cost),
        "true_tables": {"accuracy on the same texts": _true_tables(world)},
    }
    return figures


def topic_term(model: GeDiModel, omega: float) -> Callable[[int], GeDi]:
    def term(topic: int) -> GeDi:
        word = language.TOPIC_WORD[topic]
        return GeDi(
            model.model,
            (CODES["true"], word),
            (CODES["false"], word),
            omega,
            logit_scale=float(model.logit_scale.detach()),
        )

    return term


def _quality(world: World, model: GeDiModel, runs: list[dict[str, float]], unguided: float) -> dict[str, float]:
    """Classification of unseen texts, likelihood, and control at every omega (`runs`): the best within 1.3 x the
    unguided perplexity."""
    ids, counted = padded([framed(t) for t in world.held_out])
    truth = torch.tensor([t.sentiment for t in world.held_out])
    with torch.no_grad():
        losses = model.losses(ids, counted.long())
        guess = model.class_log_probs(ids, counted.long()).argmax(1)
    return {
        "classifier_accuracy": float((guess == truth).float().mean()),
        "loss_under_true_code": float(losses.gather(1, truth[:, None]).mean()),
        "logit_scale": float(model.logit_scale.detach()),
        "best_control": max([r["accuracy"] for r in runs if r["perplexity"] <= 1.3 * unguided], default=0.5),
        "control_at_0.1": runs[0]["accuracy"],
    }


def _true_tables(world: World) -> float:
    """Accuracy of the best classifier there is: opinions counted with the language's own chances; a tie counts half."""
    odds = np.array([language.sentiment_log_odds(t.ids) * (2 * t.sentiment - 1) for t in world.held_out])
    return float(np.mean((odds > 0) + 0.5 * (odds == 0)))


def _class_conditional(world: World, by_lambda: dict[float, GeDiModel]) -> dict[str, Any]:
    """The discriminator sampled as a language model, its code in front: what GeDi claims to improve on."""

    def sampled(model: GeDiModel) -> dict[str, float]:
        prompts, right, texts = world.prompts(), [], []
        for wanted, rows in enumerate((prompts[: ROWS // 2], prompts[ROWS // 2 :])):
            code = CODES[("negative", "positive")[wanted]]
            part = world.continued(None, [[code, *row] for row in rows], model.model)
            odds = np.array([language.sentiment_log_odds(words) for words in part]) * (2 * wanted - 1)
            right += list((odds > 0) + 0.5 * (odds == 0))
            texts += part
        return {"accuracy": float(np.mean(right)), **world.figures(prompts, texts)}

    return {f"class-conditional, lambda {w:g}": sampled(by_lambda[w]) for w in (1.0, 0.6)}


def _fudge(world: World) -> dict[str, Any]:
    judge = PrefixJudge(VOCAB, 2)

    def loss(step: int) -> Tensor:
        texts = world.picked(step)
        ids, counted = padded([framed(t) for t in texts])
        labels = torch.tensor([t.sentiment for t in texts])[:, None].expand(-1, ids.shape[1])
        return cross_entropy(judge(ids)[counted], labels[counted])

    trained(judge, loss, "prefix-judge", world.scratch, steps=TUNING_STEPS)

    def term(weight: float) -> Callable[[int], Term]:
        return lambda wanted: PrefixClassifier(lambda texts: judge.log_probabilities(texts, wanted), weight)

    return {f"FUDGE, weight {weight:g}": world.steered(term(weight)) for weight in FUDGE_WEIGHTS}


def _pplm(world: World) -> dict[str, Any]:
    """On a quarter of the rows: it is slow, which is the point."""
    ids, counted = padded([framed(t) for t in world.labelled])
    labels = torch.tensor([t.sentiment for t in world.labelled])
    classifier = attribute_classifier(world.base, ids, counted, labels, 2)
    out = {}
    for way, size in [(way, size) for way, sizes in PPLM.items() for size in sizes]:
        prompts, right, texts = world.prompts()[:: ROWS // 40], [], []
        for wanted, rows in enumerate((prompts[:20], prompts[20:])):
            drawn, _ = PlugAndPlay(step_size=size).generate(
                world.base, classifier, wanted, torch.tensor(rows), NEW_TOKENS,
                torch.Generator().manual_seed(2 * world.seed + wanted),
                bag=torch.tensor(language.OPINION[wanted]) if way == "words" else None,
            )  # fmt: skip
            part = [row[: row.index(END)] if END in row else row for row in drawn.tolist()]
            odds = np.array([language.sentiment_log_odds(words) for words in part]) * (2 * wanted - 1)
            right += list((odds > 0) + 0.5 * (odds == 0))
            texts += part
        out[f"PPLM by {way}, step {size:g}"] = {"accuracy": float(np.mean(right)), **world.figures(prompts, texts)}
        print(f"  PPLM by {way}, step {size:g}: {out[f'PPLM by {way}, step {size:g}']}", flush=True)
    return out


def _detoxified(world: World) -> dict[str, Any]:
    """Rude prompts, continued with and without guidance towards clean."""
    model, prompts = world.manners(), world.prompts(rude=True)

    def judged(omega: float, **settings: Any) -> dict[str, float]:
        term = model.term("clean", "dirty", omega, **settings) if omega else None
        texts = world.continued(term, prompts)
        adverbs = [t for words in texts for t in words if t in language.ADVERB or t in language.RUDE_ADVERB]
        rude = sum(token in language.RUDE_ADVERB for token in adverbs)
        return {
            "rude_per_100_tokens": 100 * rude / max(1, sum(map(len, texts))),
            "texts_with_rudeness": float(np.mean([any(t in language.RUDE_ADVERB for t in words) for words in texts])),
            **world.figures(prompts, texts),
        }

    return {
        "0": judged(0),
        **{f"{w:g}": judged(w) for w in OMEGAS},
        **{f"{w:g}, no filter": judged(w, filter_mass=None) for w in OMEGAS},
    }


def cost() -> dict[str, float]:
    """CPU seconds a token at a width where arithmetic dominates, untrained models, one row; median of 3."""
    vocab, tokens, prompt = 8000, 16, [1, 2, 3, 4, 5, 6, 7, 8]
    base, small = language_model(vocab, 512, 6, 0).eval(), language_model(vocab, 256, 6, 0).eval()
    judge, classifier = PrefixJudge(vocab, 2, 256).eval(), torch.nn.Linear(512, 2).requires_grad_(False)
    gedi = GeDi(small, 10, 11)
    fudge = PrefixClassifier(lambda texts: judge.log_probabilities(texts, 1), 1.0)
    counts: dict[str, int] = {}

    def decoded(term: Term | None) -> None:
        decoder = GuidedDecoder(base, term or (), sampling=Sampling(True), eos_token_ids=[])
        decoder.decode([prompt], tokens)

    def plug() -> None:
        _, found = PlugAndPlay().generate(
            base, classifier, 1, torch.tensor([prompt]), 4, torch.Generator().manual_seed(0)
        )
        counts.update(found)

    methods: dict[str, tuple[Callable[[], None], int]] = {
        "base": (lambda: decoded(None), tokens),
        "gedi": (lambda: decoded(gedi), tokens),
        "fudge": (lambda: decoded(fudge), tokens),
        "pplm": (plug, 4),
    }
    spent: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(3):
        for name, (call, made) in methods.items():
            start = time.process_time()
            call()
            spent[name].append((time.process_time() - start) / made)
    seconds = {name: sorted(values)[1] for name, values in spent.items()}
    return {
        **{f"{name}_seconds_a_token": value for name, value in seconds.items()},
        "gedi_over_base": seconds["gedi"] / seconds["base"],
        "pplm_over_gedi": seconds["pplm"] / seconds["gedi"],
        "fudge_over_gedi": seconds["fudge"] / seconds["gedi"],
        "pplm_passes_a_token": (counts["forward"] + counts["backward"]) / 4,
    }


def sample_sheet(seed: int, scratch: Path, folder: Path) -> str:
    """Continuations of two neutral prompts towards each sentiment, unguided and by omega."""
    world = World(seed, scratch)
    model, prompts = world.sentiment(0.6), world.prompts(2)
    lines = ["| prompt | wanted | omega | continuation |", "|---|---|---|---|"]
    for desired, other in (("positive", "negative"), ("negative", "positive")):
        for omega in (0.0, 0.3, 3.0):
            texts = world.continued(model.term(desired, other, omega) if omega else None, prompts)
            for prompt, words in zip(prompts, texts, strict=True):
                lines.append(f"| {language.spelled(prompt)} | {desired} | {omega:g} | {language.spelled(words)} |")
    return "\n".join(lines) + "\n"


# -- verdicts ---------------------------------------------------------------------------------------------------------


def _control(figures: Any) -> float:
    """The worse of sentiment and topics at the best omega within 1.3 x unguided perplexity, minus 1 unless the
    sampled class-conditional model is beaten on both axes."""

    def best(rows: Any, unguided: float) -> float:
        return max([r["accuracy"] for r in rows.values() if r["perplexity"] <= 1.3 * unguided], default=0.0)

    plain = figures["unguided"]
    value = min(
        best(figures["sentiment_by_omega"], plain["sentiment"]["perplexity"]),
        best(figures["topics_by_omega"], plain["topics"]["perplexity"]),
    )
    rival = figures["sentiment_baselines"]["class-conditional, lambda 1"]
    beaten = any(
        row["accuracy"] >= rival["accuracy"] and row["perplexity"] <= rival["perplexity"]
        for row in figures["sentiment_by_omega"].values()
    )
    return float(value if beaten else value - 1)


def _speed(figures: Any) -> float:
    """Times PPLM's speed; 0 if GeDi costs more than twice the base model."""
    cost = figures["cost"]
    return float(cost["pplm_over_gedi"]) if cost["gedi_over_base"] <= 2 else 0.0


def _mixture(figures: Any) -> float:
    """Control at an interior lambda minus that at 1, at the weakest strength (at the others all are near 1); -1 unless
    the discriminator's accuracy at every lambda < 1 is above that at 1."""
    rows = figures["by_lambda"]
    if min(rows[w]["classifier_accuracy"] for w in ("0.8", "0.6", "0.05")) <= rows["1"]["classifier_accuracy"]:
        return -1.0
    return float(max(rows[w]["control_at_0.1"] for w in ("0.8", "0.6")) - rows["1"]["control_at_0.1"])


def _manners(figures: Any) -> float:
    """Largest reduction of the rude rate within 1.15 x perplexity and with half of the variety of bigrams."""
    rows = figures["rude_prompts"]
    plain = rows["0"]
    allowed = [
        row
        for omega, row in rows.items()
        if omega != "0"
        and row["perplexity"] <= 1.15 * plain["perplexity"]
        and 2 * row["distinct_2"] >= plain["distinct_2"]
    ]
    return max([plain["rude_per_100_tokens"] / max(r["rude_per_100_tokens"], 1e-2) for r in allowed], default=0.0)


def _zero_shot(figures: Any) -> float:
    rows = figures["held_out_topics_by_omega"]
    return max(r["accuracy"] for r in rows.values()) * language.TOPICS


SETTING = "small language with exact classes, base of 0.3 M parameters, discriminator of 0.1 M, 10 000 labelled texts"
CLAIMS = [
    Claim("G1", "gedi", "steers better than the class-conditional model itself and PPLM", ">= 0.9 of texts in the "
          "target class (worse of two sentiments and eight topics) at <= 1.3 x perplexity, and sampling the "
          "class-conditional model is beaten on both axes", SETTING, _control, lambda v: v >= 0.9,
          "Sentiment is above the bar at every omega, topics need strength or luck: by seed "
          "{all topics_by_omega/3/accuracy|.3f} at omega 3 and {all topics_by_omega/10/accuracy|.3f} at 10, after "
          "1,200 steps of tuning (after 300 no omega took one seed to 0.9). Texts of 24 tokens have about three nouns, "
          "of which two in five belong to no topic. PPLM hardly moves the class here "
          "({sentiment_baselines/PPLM by classifier, step 0.1/accuracy|.2f})."),
    Claim("G2", "gedi", "> 30 x faster than PPLM", "GeDi <= 2 x base and >= 10 x faster than PPLM in CPU time; value: "
          "PPLM / GeDi", "widths 512 and 256, 6 layers, one row, one thread", _speed, lambda v: v >= 10),
    Claim("G3", "gedi", "training with lambda < 1 helps", "accuracy of the discriminator above that of lambda 1 for "
          "all others, and better control at 0.8 or 0.6 than at 1, by omega 0.1; value: difference", SETTING, _mixture,
          lambda v: v > 0,
          "A generative model that has learned its classes is already as good a judge as the texts allow. By seed the "
          "discriminator is right on {all by_lambda/1/classifier_accuracy|.3f} of 4,000 texts at lambda 1, on {all "
          "by_lambda/0.6/classifier_accuracy|.3f} at 0.6, and counting opinions with the true tables, which in the "
          "long run nothing can better, on {all true_tables/accuracy on the same texts|.3f}. So it rises in every "
          "seed, by a hair but in the one where lambda 1 has not learned its classes. There control rises with it; "
          "elsewhere it is near 1 at every lambda and differs by a text or two of 160: by seed {all "
          "by_lambda/1/control_at_0.1|.3f} at 1, {all by_lambda/0.8/control_at_0.1|.3f} at 0.8, {all "
          "by_lambda/0.6/control_at_0.1|.3f} at 0.6."),
    Claim("G4", "gedi", "detoxifies without loss of quality", "rude words / 5 from rude prompts at <= 1.15 x "
          "perplexity and at least half as many different bigrams", SETTING, _manners, lambda v: v >= 5),
    Claim("G5", "gedi", "topics it was not trained on", "accuracy on four held-out topics > 2 x chance; value: "
          "multiples of chance", SETTING, _zero_shot, lambda v: v > 2,
          "By seed and at omega 1 the share is {all held_out_topics_by_omega/1/accuracy|.3f}. Under true the model "
          "half forgets what a word means that the tuning does not name, and under false it does not always unlearn "
          "it, so their ratio is arbitrary; measured in G5 reading, where the tuning goes on reading the corpus. The "
          "gentle rate (5e-4 for 2e-3) was chosen on seed 100."),
]  # fmt: skip
