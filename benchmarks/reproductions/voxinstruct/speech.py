"""VoxInstruct on real speech: from a written instruction to sound, both stages, measured on the sound.

`corpus` records the speech and cuts it into tokens. The first stage reads instruction and words, writes semantic tokens
and then the first acoustic codebook (`VoxInstructAr`, guidance with three scales); the second fills in the codec's four
streams (`VoxInstructNar`, 4 rounds for each); codec2 makes sound of them, and `listening` measures it: words by a
recogniser, the speaker, pitch, speed. All strings of digits asked for are unseen in training. Dropouts as published:
text 0.1, semantic tokens 0.1, description 0.1; second stage: text 0.25, no acoustic prompt 0.3.

The ceiling is what the same measures say of recorded utterances with unseen digits after the codec. Pitch is not asked
of whispers. The voice is a synthesiser's: real sound and a real codec, not a real speaker.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from benchmarks.reproductions.claims import Claim
from benchmarks.reproductions.small_models import kept, trained
from benchmarks.reproductions.voxinstruct import error_change, errors, order_difference, style_gain
from benchmarks.reproductions.voxinstruct.corpus import (
    DIGITS,
    STREAMS,
    TEXT_LENGTH,
    WORDS,
    Corpus,
    Samples,
    decode,
    instruction,
    text_ids,
    write_wav,
)  # fmt: skip
from benchmarks.reproductions.voxinstruct.listening import Heard, Listener, features
from guiderail.guidance.token_models import VOXINSTRUCT_TOKENS, VoxInstruct
from guiderail.logits.combination import affine_combination
from guiderail.logits.multi_condition import factored_weights, nested_weights
from guiderail.logits.sampling import Sampling
from guiderail.training.voxinstruct import VoxInstructAr, VoxInstructNar

SEMANTIC, ACOUSTIC = VOXINSTRUCT_TOKENS["semantic"].start, VOXINSTRUCT_TOKENS["acoustic"].start
BEGIN, EOS1, EOS2 = (VOXINSTRUCT_TOKENS[n].start for n in ("begin", "end_semantic", "end_acoustic"))
LANGUAGE = VOXINSTRUCT_TOKENS["language"].start
WIDTH, BATCH, SENTENCES = 96, 32, 100
STEPS, FILLING_STEPS, LISTENING_STEPS = 1200, 400, 800
MOST_SEMANTIC, MOST_ACOUSTIC = 42, 50


def shape(layers: int) -> Any:
    return transformers.LlamaConfig(
        vocab_size=len(VOXINSTRUCT_TOKENS), hidden_size=WIDTH, intermediate_size=3 * WIDTH, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=256,
    )  # fmt: skip


Stage = TypeVar("Stage", VoxInstructAr, VoxInstructNar)


class Reader(nn.Module, Generic[Stage]):
    """The instruction's words as features, trained with the stage that reads them."""

    stage: Stage

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.words = nn.Embedding(1 + len(WORDS), WIDTH, padding_idx=0)
        self.places = nn.Parameter(torch.randn(TEXT_LENGTH, WIDTH) * 0.02)
        self.stage = stage

    def read(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """Features and mask of texts int64 (batch, TEXT_LENGTH)."""
        return self.words(text) + self.places, (text > 0).float()


def padded(rows: list[list[int]], value: int = 0) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])


class World:
    def __init__(self, seed: int, scratch: Path) -> None:
        self.seed, self.scratch = seed, scratch
        scratch.mkdir(parents=True, exist_ok=True)
        self.corpus = Corpus(scratch.parent / "corpus")
        self.known, self.unseen = self.corpus.split()
        self.listener = self.trained_listener()
        torch.manual_seed(seed)
        self.first = Reader(VoxInstructAr(shape(3), WIDTH))
        self.second = Reader(VoxInstructNar(shape(2), WIDTH, 1 + len(STREAMS)))
        trained(self.first, self.first_loss, "first", scratch, steps=STEPS)
        trained(self.second, self.second_loss, "second", scratch, steps=FILLING_STEPS)
        self.thresholds = self._thresholds()

    def trained_listener(self) -> Listener:
        """One judge for all seeds."""
        torch.manual_seed(0)
        listener, corpus = Listener(), self.corpus
        mels = [features(sound) for sound in corpus.sounds]

        def loss(step: int) -> Tensor:
            rows = self.rows(step, 0)
            return listener.loss(
                [mels[i] for i in rows], [corpus.digits[i] for i in rows], [corpus.styles[i] for i in rows]
            )

        trained(listener, loss, "listener", self.scratch.parent / "corpus", steps=LISTENING_STEPS)
        return listener

    def rows(self, step: int, seed: int) -> list[int]:
        """A batch of about one length: a quarter, at random, of four batches put in order."""
        rng = np.random.default_rng([seed, step])
        pool = [self.known[i] for i in rng.integers(len(self.known), size=4 * BATCH)]
        pool.sort(key=lambda i: len(self.corpus.semantic[i]) + len(self.corpus.codes[i]))
        start = BATCH * int(rng.integers(4))
        return pool[start : start + BATCH]

    def texts(self, rows: list[int], rng: np.random.Generator, bare: float = 0.0) -> Tensor:
        """Instructions; with chance `bare` only the words to be said, as published."""
        out = []
        for i in rows:
            digits = self.corpus.digits[i]
            text = instruction(digits, self.corpus.styles[i], rng)
            out.append(text_ids(" ".join(DIGITS[d] for d in digits) if rng.random() < bare else text))
        return torch.tensor(out)

    def first_loss(self, step: int) -> Tensor:
        rng = np.random.default_rng([self.seed, 1, step])
        rows = self.rows(step, self.seed)
        plans = [[BEGIN, LANGUAGE, *(SEMANTIC + token for token in self.corpus.semantic[i]), EOS1] for i in rows]
        codes = [[*(ACOUSTIC + self.corpus.codes[i][:, 0]).tolist(), EOS2] for i in rows]
        ids = padded([plan + code for plan, code in zip(plans, codes, strict=True)])
        segments = padded([[1] * len(plan) + [2] * len(code) for plan, code in zip(plans, codes, strict=True)], 2)
        drop_text, drop_semantic = (torch.tensor(rng.random(BATCH) < 0.1) for _ in range(2))
        stage = self.first.stage
        read = self.first.read(self.texts(rows, rng, bare=0.1))
        logits = stage(*read, ids[:, :-1], segments[:, :-1], drop_text=drop_text, drop_semantic=drop_semantic)
        counted = (ids[:, 1:] > 0) & ~((segments[:, 1:] == 1) & drop_semantic[:, None])
        return nn.functional.cross_entropy(logits[counted], ids[:, 1:][counted])

    def second_loss(self, step: int) -> Tensor:
        rng = np.random.default_rng([self.seed, 2, step])
        rows = self.rows(step, self.seed)
        plans = [[BEGIN, LANGUAGE, *(SEMANTIC + token for token in self.corpus.semantic[i]), EOS1] for i in rows]
        ids, segments = self.filled(plans, [self.corpus.codes[i] for i in rows])
        codebook = torch.tensor(rng.integers(1, 1 + len(STREAMS), size=len(rows)))
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        stage = self.second.stage
        return stage.loss(*self.second.read(self.texts(rows, rng, bare=0.1)), ids, segments, codebook, generator)

    @staticmethod
    def filled(plans: list[list[int]], codes: list[np.ndarray]) -> tuple[Tensor, Tensor]:
        """Ids (batch, length, 5) and segments of the second stage; codebooks not given are hidden."""
        longest = max(len(plan) + len(code) for plan, code in zip(plans, codes, strict=True))
        ids = torch.zeros(len(plans), longest, 1 + len(STREAMS), dtype=torch.long)
        segments = torch.zeros(len(plans), longest, dtype=torch.long)
        for row, (plan, code) in enumerate(zip(plans, codes, strict=True)):
            until = len(plan) + len(code)
            ids[row, : len(plan)] = torch.tensor(plan)[:, None]
            ids[row, len(plan) : until, : code.shape[1]] = ACOUSTIC + torch.tensor(code)
            segments[row, : len(plan)], segments[row, len(plan) : until] = 1, 2
        return ids, segments

    # -- measuring ----------------------------------------------------------------------------------------------------

    def _thresholds(self) -> dict[str, tuple[float, float]]:
        """Speaker -> (hertz between low and high, seconds between fast and slow): midway between the recordings."""
        heard: dict[tuple[str, str, str], list[float]] = {}
        for i in self.known[:600]:
            style, found = self.corpus.styles[i], self.listener.hear(self.corpus.sounds[i])
            if found.pitch:
                heard.setdefault((style.speaker, "pitch", style.pitch), []).append(found.pitch)
            heard.setdefault((style.speaker, "pace", style.pace), []).append(found.seconds)

        def middle(speaker: str, kind: str, one: str, other: str) -> float:
            return float(np.sqrt(np.median(heard[speaker, kind, one]) * np.median(heard[speaker, kind, other])))

        return {
            speaker: (middle(speaker, "pitch", "low", "high"), middle(speaker, "pace", "slow", "fast"))
            for speaker in ("man", "woman", "whisper")
        }

    def judged(self, rows: list[int], heard: list[Heard]) -> dict[str, float]:
        """Word error, and shares of right speakers, pitches (of voices) and paces, their mean; voicing and rate."""
        wrong = 0
        right: dict[str, list[bool]] = {"speaker": [], "pitch": [], "pace": []}
        voiced: dict[bool, list[float]] = {True: [], False: []}
        rate: dict[str, list[float]] = {"slow": [], "fast": []}
        hertz: dict[str, list[float]] = {"low": [], "high": []}
        for i, found in zip(rows, heard, strict=True):
            style, (height, duration) = self.corpus.styles[i], self.thresholds[self.corpus.styles[i].speaker]
            wrong += errors(list(self.corpus.digits[i]), found.digits)
            right["speaker"].append(found.speaker == style.speaker)
            right["pace"].append((found.seconds > duration) == (style.pace == "slow"))
            voiced[style.speaker != "whisper"].append(found.voiced)
            rate[style.pace].append(3 / max(found.seconds, 0.1))
            if style.speaker != "whisper":
                right["pitch"].append(found.pitch > 0 and (found.pitch > height) == (style.pitch == "high"))
                if found.pitch and style.speaker == "man":
                    hertz[style.pitch].append(found.pitch)
        shares = {name: float(np.mean(values)) for name, values in right.items()}
        return {
            "style_accuracy": float(np.mean(list(shares.values()))),
            "word_error": wrong / (3 * len(rows)),
            **shares,
            "voiced_when_voice": float(np.mean(voiced[True])),
            "voiced_when_whisper": float(np.mean(voiced[False])),
            "words_a_second_slow": float(np.mean(rate["slow"])),
            "words_a_second_fast": float(np.mean(rate["fast"])),
            "hertz_man_low": float(np.median(hertz["low"] or [0.0])),
            "hertz_man_high": float(np.median(hertz["high"] or [0.0])),
        }

    def asked(self) -> tuple[list[int], Tensor]:
        """Utterances whose digits and style are asked for, and the instructions."""
        rows = self.unseen[:SENTENCES]
        return rows, self.texts(rows, np.random.default_rng([self.seed, 4]))

    def planned(self, text: Tensor, scale: float) -> list[list[int]]:
        stage = self.first.stage
        with torch.no_grad():
            read = self.first.read(text)
        generator = torch.Generator().manual_seed(self.seed)
        return stage.plan(*read, VoxInstruct(scale), limit=MOST_SEMANTIC, generator=generator)

    @torch.no_grad()
    def sounds(
        self, text: Tensor, plans: list[list[int]], preset: VoxInstruct, rule: Callable[..., Tensor] | None = None
    ) -> list[Samples]:
        """From plans to sound: the acoustic phase, the second stage, the codec."""
        first, generator = self.first.stage, torch.Generator().manual_seed(self.seed + 1)
        coarse = first.speak(*self.first.read(text), plans, preset, limit=MOST_ACOUSTIC, generator=generator, rule=rule)
        return self.decoded(text, plans, coarse)

    @torch.no_grad()
    def decoded(self, text: Tensor, plans: list[list[int]], coarse: list[list[int]]) -> list[Samples]:
        """From plans and the first codebook to sound: the second stage, the codec."""
        second = self.second.stage
        out: list[Samples] = [np.zeros(0, np.int16)] * len(plans)
        whole = [row for row, codes in enumerate(coarse) if codes]  # silence has nothing to fill in
        ids, segments = self.filled(
            [plans[row] for row in whole], [np.array(coarse[row])[:, None] - ACOUSTIC for row in whole]
        )
        ids = second.complete(*self.second.read(text[whole]), ids, segments, torch.zeros(len(whole)), iterations=4)
        sizes = torch.tensor(STREAMS)
        frames = [
            torch.minimum(row[where == 2][:, 1:] - ACOUSTIC, sizes - 1).numpy()
            for row, where in zip(ids, segments, strict=True)
        ]
        for row, sound in zip(whole, decode(frames, self.corpus.silence, self.scratch), strict=True):
            out[row] = sound
        return out


SYMMETRIC = VoxInstruct(1.5, 3.0, 1.5)


def rule_of(weights: tuple[Any, ...], order: tuple[int, int, int] = (0, 1, 2)) -> Callable[..., Tensor]:
    """An acoustic rule other than the published nesting, with the preset's legality and truncation."""
    legal, sampling = SYMMETRIC.legal("acoustic"), Sampling(True, 0.8, 50, 0.95, truncate_before_temperature=True)

    def apply(*streams: Tensor) -> Tensor:
        guided = affine_combination([streams[index] for index in order], weights)
        return sampling.probabilities(guided, [], legal)

    return apply


def run(seed: int, scratch: Path) -> dict[str, Any]:
    world = World(seed, scratch)
    rows, text = world.asked()

    def plans(scale: float) -> list[list[int]]:
        found: list[list[int]] = kept(scratch, f"plans {scale:g}", lambda: world.planned(text, scale))
        return found

    def measured(
        w1: float, w2: float, w3: float, name: str = "", rule: Callable[..., Tensor] | None = None
    ) -> dict[str, float]:
        folder = scratch / "wav" / (name or f"{w1:g}-{w2:g}-{w3:g}")

        def heard() -> dict[str, float]:
            sounds = world.sounds(text, plans(w1), VoxInstruct(w1, w2, w3), rule)
            folder.mkdir(parents=True, exist_ok=True)
            for index, sound in enumerate(sounds[:12]):
                write_wav(folder / f"{index}.wav", sound)
            return world.judged(rows, [world.listener.hear(sound) for sound in sounds])

        figures: dict[str, float] = kept(scratch, folder.name, heard)
        print(f"  {folder.name}: {figures}", flush=True)
        return figures

    # The same from what was recorded: which part of the errors is whose.
    said = [[BEGIN, LANGUAGE, *(SEMANTIC + token for token in world.corpus.semantic[i]), EOS1] for i in rows]

    def from_recorded(sounds: Callable[[], list[Samples]]) -> Callable[[], dict[str, float]]:
        return lambda: world.judged(rows, [world.listener.hear(sound) for sound in sounds()])

    codes = [(ACOUSTIC + world.corpus.codes[i][:, 0]).tolist() for i in rows]
    stages = {
        "second stage": kept(scratch, "second stage", from_recorded(lambda: world.decoded(text, said, codes))),
        **{
            f"acoustic phase, w2=1 w3={w3:g}, and second stage": kept(
                scratch, f"acoustic {w3:g}",
                from_recorded(lambda w3=w3: world.sounds(text, said, VoxInstruct(1.5, 1.0, w3))),
            )
            for w3 in (1.0, 1.5)
        },
    }  # fmt: skip
    recorded = world.judged(rows, [world.listener.hear(world.corpus.sounds[i]) for i in rows])
    by_scales = {
        f"w1={w1:g} w2={w2:g} w3={w3:g}": measured(w1, w2, w3)
        for w1, w2, w3 in [(1.0, 1.0, 1.0), (1.5, 1.0, 1.0), (1.5, 2.0, 1.0), (1.5, 3.0, 1.0), (1.5, 1.0, 1.5),
                           (1.5, 3.0, 1.5)]
    }  # fmt: skip
    orders = {
        "text inside (published)": by_scales["w1=1.5 w2=3 w3=1.5"],
        "semantic inside": measured(1.5, 3.0, 1.5, "other-order", rule_of(nested_weights(1.5, 3.0), (0, 2, 1))),
        "symmetric": measured(1.5, 3.0, 1.5, "symmetric", rule_of(factored_weights([3.0, 1.5]))),
    }
    return {
        "recorded": {"unseen digits, after the codec": recorded},
        "from_recorded_tokens": stages,
        "by_scales": by_scales,
        "orders": orders,
    }


def sample_sheet(seed: int, scratch: Path, folder: Path) -> str:
    """What is heard in the first sentences, by scales, and their spectrograms."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from benchmarks.reproductions.voxinstruct.corpus import log_mel

    world = World(seed, scratch)
    rows, text = world.asked()
    rows, text = rows[:6], text[:6]
    plans = world.planned(text, 1.5)
    sheets = {"recorded": [world.corpus.sounds[i] for i in rows]}
    for scales in ((1.0, 1.0), (3.0, 1.0), (3.0, 1.5)):
        sheets[f"w2={scales[0]:g} w3={scales[1]:g}"] = world.sounds(text, plans, VoxInstruct(1.5, *scales))
    lines = [f"| instruction | {' | '.join(sheets)} |", "|---" * (len(sheets) + 1) + "|"]
    for index in range(len(rows)):
        words = " ".join(WORDS[token - 1] for token in text[index].tolist() if token)
        cells = []
        for sounds in sheets.values():
            found = world.listener.hear(sounds[index])
            said = " ".join(DIGITS[d] for d in found.digits)
            cells.append(f"{said}: {found.speaker}, {found.pitch:.0f} Hz, {found.seconds:.2f} s")
        lines.append(f"| {words} | {' | '.join(cells)} |")
    drawing, panels = pyplot.subplots(len(sheets), 4, figsize=(9, 1.3 * len(sheets)), squeeze=False)
    for line, (name, sounds) in zip(panels, sheets.items(), strict=True):
        for panel, sound in zip(line, sounds, strict=False):
            panel.imshow(log_mel(sound, 80, 240).T, origin="lower", aspect="auto", cmap="gray_r")
            panel.set(xticks=[], yticks=[], xlim=(0, 180))
        line[0].set_ylabel(name, fontsize=7)
    drawing.tight_layout()
    drawing.savefig(folder / "voxinstruct_speech_samples.png", dpi=70, metadata={"Software": ""})
    pyplot.close(drawing)
    return (
        "\n".join(lines)
        + "\n\nSpectrograms (20 mel bands, 1.8 s) of the first four. The recordings themselves are written to "
        "`benchmarks/scratch`.\n\n![](voxinstruct_speech_samples.png)\n"
    )


SETTING = (
    "3,600 utterances of espeak-ng, 9 voices, codec2 tokens, two stages of 0.7 and 1.3 M parameters, 100 unseen "
    "sentences, measured on the sound"
)
CLAIMS = [
    Claim("S1 speech", "voxinstruct.speech", "guidance on the text improves following the instruction", "speaker, "
          "pitch and pace right: + 5 points from w2 = 1 to 3", SETTING, style_gain, lambda v: v >= 5,
          "Unguided the style is right in {by_scales/w1=1.5 w2=1 w3=1/style_accuracy|.3f} of cases where recordings "
          "reach {recorded/unseen digits, after the codec/style_accuracy|.3f}, so five points are not to be had; "
          "at w2 = 2 guidance takes a part of what is missing ({by_scales/w1=1.5 w2=2 w3=1/style_accuracy|.3f}), at 3 "
          "less ({by_scales/w1=1.5 w2=3 w3=1/style_accuracy|.3f}). Where instructions of the training are noisy there "
          "is room, and the claim holds: S1."),
    Claim("S2 speech", "voxinstruct.speech", "guidance on semantic tokens improves content", "word error rate by a "
          "recogniser -20 % relative from w3 = 1 to 1.5", SETTING, error_change("word_error"), lambda v: v <= -0.2,
          "Most words are lost in the second stage, which guidance does not touch: with recorded semantic tokens and "
          "a recorded first codebook the word error is {from_recorded_tokens/second stage/word_error|.3f} "
          "(recordings: {recorded/unseen digits, after the codec/word_error|.3f}), with the acoustic phase before it "
          "{from_recorded_tokens/acoustic phase, w2=1 w3=1, and second stage/word_error|.3f}. So a fall by a fifth "
          "would have to take away nearly all that the guided phase adds; w3 = 1.5 leaves "
          "{from_recorded_tokens/acoustic phase, w2=1 w3=1.5, and second stage/word_error|.3f}. A second stage "
          "trained for twice as many steps, on one seed, loses a third fewer words, and w3 = 1.5 then takes away a "
          "part, not a fifth (docs/decisions.md). Where nothing follows the guided phase: S2."),
    Claim("S3 speech", "voxinstruct.speech", "the order of nesting matters", "both orders and the symmetric form are "
          "reported; value: largest difference in either measure", SETTING, order_difference("word_error"),
          lambda v: v >= 0),
]  # fmt: skip
