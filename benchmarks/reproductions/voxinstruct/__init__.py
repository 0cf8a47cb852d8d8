"""VoxInstruct (Zhou et al. 2024) in a synthetic language of speech tokens that can be decoded back exactly.

A sentence has four to six of eight phonemes and a style: pitch (4), voice (4), pace (1 or 2 frames a phoneme). The
instruction gives the phonemes and then names the style in one of several wordings. A phoneme becomes one of four
semantic tokens (as a phoneme has some ten of HuBERT's 500 clusters); a semantic token becomes `pace` acoustic tokens,
each one of two codes for (semantic token, pitch, voice). So the sound has more to learn from the plan than from the
text, and both content and style of generated acoustic tokens are read off them, without a recogniser. Text and semantic
tokens are dropped independently in training (0.1 each), as published. Decoding is
`guidance.token_models.VoxInstruct`: its vocabulary, legality, nested weights, truncation.

A corpus is not clean: in training an instruction may name another pitch, voice or pace than was spoken (each redrawn
with chance a third), and a semantic token may be mumbled into any other (0.2). Without this all is right unguided once
it is learned.

All 1024 acoustic codes occur: where both streams give next to nothing the ratio is noise, and codes that never occur
would be chosen at high scales.

What this is not: speech. No audio, no human ear; error rates are exact but of a toy.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from benchmarks.reproductions.claims import Claim
from benchmarks.reproductions.small_models import trained
from guiderail.guidance.token_models import VOXINSTRUCT_TOKENS, VoxInstruct
from guiderail.logits.combination import affine_combination
from guiderail.logits.multi_condition import factored_weights, nested_weights
from guiderail.logits.sampling import Sampling
from guiderail.training.voxinstruct import VoxInstructAr

PHONEMES, PITCHES, VOICES, PACES = 8, 4, 4, 2
VARIANTS = 4  # semantic tokens of a phoneme
SEMANTICS = PHONEMES * VARIANTS
CODES = 2  # acoustic codes of one (semantic token, pitch, voice); 32 * 4 * 4 * 2 leaves none of the 1024 unused
WORDINGS = 3
SEMANTIC, ACOUSTIC = VOXINSTRUCT_TOKENS["semantic"].start, VOXINSTRUCT_TOKENS["acoustic"].start
BEGIN, EOS1, EOS2 = (VOXINSTRUCT_TOKENS[n].start for n in ("begin", "end_semantic", "end_acoustic"))
LANGUAGE = VOXINSTRUCT_TOKENS["language"].start
# instruction words: wordings of every style value, fillers, phonemes
STYLE_WORDS = WORDINGS * (PITCHES + VOICES + PACES)
FILLERS = 6
WORDS = 1 + STYLE_WORDS + FILLERS + PHONEMES
TEXT_LENGTH, SEMANTIC_LENGTH, ACOUSTIC_LENGTH = 12, 7, 13
STEPS, BATCH, SENTENCES = 3000, 48, 200
WRONG, MUMBLED = 1 / 3, 0.2  # in training; chances that a value is drawn anew, and may turn out right


class Reader(nn.Module):
    """Instruction encoder and decoder, trained together."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        width = 64
        self.words = nn.Embedding(WORDS, width, padding_idx=0)
        self.places = nn.Parameter(torch.randn(TEXT_LENGTH, width) * 0.02)
        self.decoder = VoxInstructAr(
            transformers.LlamaConfig(
                vocab_size=len(VOXINSTRUCT_TOKENS), hidden_size=width, intermediate_size=192, num_hidden_layers=3,
                num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=128,
            ),
            width,
        )  # fmt: skip

    def forward(self, text: Tensor, ids: Tensor, segments: Tensor, **drops: Tensor | None) -> Tensor:
        out: Tensor = self.decoder(*self.read(text), ids, segments, **drops)
        return out

    def read(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """Features and mask of texts int64 (batch, TEXT_LENGTH)."""
        return self.words(text) + self.places, (text > 0).float()


class Sentence:
    """One sentence: contents, style, and the instruction that asks for it."""

    def __init__(self, rng: np.random.Generator, wrong: float = 0.0) -> None:
        length = int(rng.integers(4, 7))
        self.content: list[int] = []
        while len(self.content) < length:  # no phoneme twice in a row: semantic tokens are deduplicated
            phoneme = int(rng.integers(PHONEMES))
            if not self.content or phoneme != self.content[-1]:
                self.content.append(phoneme)
        self.pitch, self.voice, self.pace = (int(rng.integers(n)) for n in (PITCHES, VOICES, PACES))
        told = [
            int(rng.integers(n)) if rng.random() < wrong else value
            for value, n in ((self.pitch, PITCHES), (self.voice, VOICES), (self.pace, PACES))
        ]
        values = [told[0], PITCHES + told[1], PITCHES + VOICES + told[2]]
        words = [1 + WORDINGS * value + int(rng.integers(WORDINGS)) for value in values]
        for _ in range(int(rng.integers(0, 4))):
            words.append(1 + STYLE_WORDS + int(rng.integers(FILLERS)))
        words = [words[i] for i in rng.permutation(len(words))]
        # The transcript comes first, at fixed places: a model that trains for a minute has no time to learn to search.
        transcript = [1 + STYLE_WORDS + FILLERS + phoneme for phoneme in self.content]
        self.text = [*transcript, *([0] * (6 - length)), *words]

    def spoken(self, rng: np.random.Generator, mumbled: float = 0.0) -> tuple[list[int], list[int]]:
        """Ids and segments, BOS to EOS2; with chance `mumbled` a semantic token sounds like any."""
        planned = [VARIANTS * phoneme + int(rng.integers(VARIANTS)) for phoneme in self.content]
        sounds = [int(rng.integers(SEMANTICS)) if rng.random() < mumbled else token for token in planned]
        semantic = [SEMANTIC + token for token in planned]
        acoustic = [
            ACOUSTIC + CODES * ((token * PITCHES + self.pitch) * VOICES + self.voice) + int(rng.integers(CODES))
            for token in sounds
            for _ in range(self.pace + 1)
        ]
        first, second = [BEGIN, LANGUAGE, *semantic, EOS1], [*acoustic, EOS2]
        return first + second, [1] * len(first) + [2] * len(second)


def padded(rows: list[list[int]], length: int) -> Tensor:
    return torch.tensor([row + [0] * (length - len(row)) for row in rows])


def errors(content: list[int], heard: list[int]) -> int:
    """Edit distance."""
    row = list(range(len(heard) + 1))
    for i, wanted in enumerate(content, 1):
        previous, row[0] = row[0], i
        for j, got in enumerate(heard, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (wanted != got))
    return row[-1]


def understood(acoustic: list[int]) -> tuple[list[int], dict[str, list[int]]]:
    """Content (a run of frames of one phoneme is one phoneme), frames by pitch and voice, runs by pace."""
    frames = [(code - ACOUSTIC) // CODES for code in acoustic]
    heard: list[int] = []
    lengths: list[int] = []
    for frame in frames:
        phoneme = frame // (PITCHES * VOICES * VARIANTS)
        if heard and heard[-1] == phoneme:
            lengths[-1] += 1
        else:
            heard.append(phoneme)
            lengths.append(1)
    style = {
        "pitch": [frame // VOICES % PITCHES for frame in frames],
        "voice": [frame % VOICES for frame in frames],
        "pace": [length - 1 for length in lengths],
    }
    return heard, style


Acoustic = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(conditional, text null, semantic null) -> probabilities of the acoustic phase."""


class World:
    def __init__(self, seed: int, scratch: Path) -> None:
        self.seed = seed
        self.model = Reader(seed)

        def loss(step: int) -> Tensor:
            rng = np.random.default_rng([seed, step])
            sentences = [Sentence(rng, WRONG) for _ in range(BATCH)]
            spoken = [sentence.spoken(rng, MUMBLED) for sentence in sentences]
            length = max(len(ids) for ids, _ in spoken)
            text = padded([sentence.text for sentence in sentences], TEXT_LENGTH)
            ids = padded([ids for ids, _ in spoken], length)
            segments = padded([s + [2] * (length - len(s)) for _, s in spoken], length)
            drop_text, drop_semantic = (torch.tensor(rng.random(BATCH) < 0.1) for _ in range(2))
            logits = self.model(text, ids[:, :-1], segments[:, :-1], drop_text=drop_text, drop_semantic=drop_semantic)
            counted = (ids[:, 1:] > 0) & ~((segments[:, 1:] == 1) & drop_semantic[:, None])
            losses = nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
            return (losses * counted).sum() / counted.sum()

        trained(self.model, loss, "reader", scratch, steps=STEPS)
        rng = np.random.default_rng([seed, 10**6])
        self.sentences = [Sentence(rng) for _ in range(SENTENCES)]

    @torch.no_grad()
    def speak(self, preset: VoxInstruct, acoustic: Acoustic | None = None) -> dict[str, float]:
        """Style and content of what is said. The semantic phase is the same for all settings of the acoustic one."""
        generator = torch.Generator().manual_seed(self.seed)
        read = self.model.read(padded([sentence.text for sentence in self.sentences], TEXT_LENGTH))
        decoder = self.model.decoder
        plans = decoder.plan(*read, preset, limit=SEMANTIC_LENGTH - 1, generator=generator)
        spoken = decoder.speak(*read, plans, preset, limit=ACOUSTIC_LENGTH, generator=generator, rule=acoustic)
        planned = [[(token - SEMANTIC) // VARIANTS for token in plan[2:-1]] for plan in plans]
        wrong = sum(errors(sentence.content, plan) for sentence, plan in zip(self.sentences, planned, strict=True))
        return {**self._judged(spoken), "plan_error": wrong / sum(len(s.content) for s in self.sentences)}

    def _judged(self, spoken: list[list[int]]) -> dict[str, float]:
        wrong = total = lengths = 0
        right: dict[str, list[float]] = {"pitch": [], "voice": [], "pace": []}
        for sentence, codes in zip(self.sentences, spoken, strict=True):
            heard, style = understood(codes)
            wrong += errors(sentence.content, heard)
            total += len(sentence.content)
            lengths += abs(len(heard) - len(sentence.content))
            for name, values in style.items():
                wanted = getattr(sentence, name)
                right[name].append(float(np.mean([value == wanted for value in values])) if values else 0.0)
        by_part = {name: float(np.mean(shares)) for name, shares in right.items()}
        return {
            "style_accuracy": float(np.mean(list(by_part.values()))),
            "content_error": wrong / total,
            "of_it_lost_or_added": lengths / total,
            **by_part,
        }


def run(seed: int, scratch: Path) -> dict[str, Any]:
    world = World(seed, scratch)
    legal = VoxInstruct().legal("acoustic")
    sampling = Sampling(True, 0.8, 50, 0.95, truncate_before_temperature=True)

    def rule(weights: tuple[Any, ...], order: tuple[int, int, int] = (0, 1, 2)) -> Acoustic:
        def apply(*streams: Tensor) -> Tensor:
            guided = affine_combination([streams[index] for index in order], weights)
            return sampling.probabilities(guided, [], legal)

        return apply

    by_scales = {
        f"w1={w1:g} w2={w2:g} w3={w3:g}": world.speak(VoxInstruct(w1, w2, w3))
        for w1, w2, w3 in [(1, 1, 1), (1.5, 1, 1), (1.5, 2, 1), (1.5, 3, 1), (1.5, 1, 1.5), (1.5, 3, 1.5)]
    }
    preset = VoxInstruct(1.5, 3.0, 1.5)
    orders = {
        "text inside (published)": world.speak(preset),
        "semantic inside": world.speak(preset, rule(nested_weights(1.5, 3.0), (0, 2, 1))),
        "symmetric": world.speak(preset, rule(factored_weights([3.0, 1.5]))),
    }
    return {"by_scales": by_scales, "orders": orders}


def _scales(figures: Any, name: str) -> Any:
    return figures["by_scales"][name]


def style_gain(figures: Any) -> float:
    """Points of style accuracy from w2 = 1 to 3."""
    off, on = _scales(figures, "w1=1.5 w2=1 w3=1"), _scales(figures, "w1=1.5 w2=3 w3=1")
    return 100 * float(on["style_accuracy"] - off["style_accuracy"])


def error_change(measure: str) -> Callable[[Any], float]:
    """Relative change of an error from w3 = 1 to 1.5; 0 if there was none to begin with."""

    def change(figures: Any) -> float:
        off, on = _scales(figures, "w1=1.5 w2=1 w3=1"), _scales(figures, "w1=1.5 w2=1 w3=1.5")
        return float(on[measure] / off[measure] - 1) if off[measure] else 0.0

    return change


def order_difference(error: str) -> Callable[[Any], float]:
    """The largest difference that the order of the conditions makes, in style accuracy or in the error."""

    def difference(figures: Any) -> float:
        rows = figures["orders"]
        return max(
            abs(rows["text inside (published)"][m] - rows[other][m])
            for m in ("style_accuracy", error)
            for other in ("semantic inside", "symmetric")
        )

    return difference


SETTING = "synthetic speech tokens in VoxInstruct's vocabulary, decoder of 0.4 M parameters, 200 sentences"
CLAIMS = [
    Claim("S1", "voxinstruct", "guidance on the text improves following the instruction", "style accuracy + 5 "
          "points from w2 = 1 to 3", SETTING, style_gain, lambda v: v >= 5,
          "The room for it is noise: a third of the values that training's instructions name are drawn anew. A scale "
          "of 2 does as well as 3 ({by_scales/w1=1.5 w2=2 w3=1/style_accuracy|.3f} and "
          "{by_scales/w1=1.5 w2=3 w3=1/style_accuracy|.3f}, unguided "
          "{by_scales/w1=1.5 w2=1 w3=1/style_accuracy|.3f}). With w3 = 1.5 beside it the published nesting loses a "
          "part ({orders/text inside (published)/style_accuracy|.3f}), the symmetric form does not "
          "({orders/symmetric/style_accuracy|.3f})."),
    Claim("S2", "voxinstruct", "guidance on semantic tokens improves content", "token error rate of decoded "
          "content -20 % relative from w3 = 1 to 1.5", SETTING, error_change("content_error"), lambda v: v <= -0.2,
          "By seed the error goes from {all by_scales/w1=1.5 w2=1 w3=1/content_error|.3f} to {all by_scales/w1=1.5 "
          "w2=1 w3=1.5/content_error|.3f}. Guidance on semantic tokens mends phonemes that were mumbled in training; "
          "the larger part of the error is phonemes lost or added, where the model loses its place in the plan "
          "({by_scales/w1=1.5 w2=1 w3=1/of_it_lost_or_added|.3f}, and {by_scales/w1=1.5 w2=1 "
          "w3=1.5/of_it_lost_or_added|.3f} at w3 = 1.5), and that is a matter of training; errors of the plans are "
          "{by_scales/w1=1.5 w2=1 w3=1/plan_error|.3f}. Guidance on the text does more for content: {by_scales/w1=1.5 "
          "w2=2 w3=1/content_error|.3f} at w2 = 2. Where a sound depended on the phoneme alone, which the text gives "
          "too, guidance on semantic tokens did nothing."),
    Claim("S3", "voxinstruct", "the order of nesting matters", "both orders and the symmetric form are reported; "
          "value: largest difference in either measure", SETTING, order_difference("content_error"), lambda v: v >= 0),
]  # fmt: skip
