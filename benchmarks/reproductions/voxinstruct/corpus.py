"""Real speech: espeak-ng says three digits in several voices, pitches and speeds; codec2 makes tokens of it and back.

An utterance has three digits and a style: who speaks (man, woman, whisper), how high (low, high), how fast (slow,
fast). A kind of speaker is several voices of the synthesiser; pitch and speed vary within their class. The codec is
codec2 in mode 700C: 25 frames a second of four integers: two stages of a spectrum (512 each), energy (16), pitch (64,
0 = voiceless). The instruction is an English sentence about the style after the words to be said.

Two clusterings are added. Semantic tokens: k-means of cepstra less their mean over the utterance, repeats removed, as
HuBERT's clusters are in the paper. First acoustic codebook: k-means of spectrum and pitch together, for the paper's
first stage predicts one codebook that has a bit of everything; the codec's four streams are the later codebooks.

Needs espeak-ng and codec2 (Debian packages of these names; programs only, nothing is linked) and scipy.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RATE, FRAME = 8000, 320  # samples a second, samples a codec frame
STREAMS = (512, 512, 16, 64)  # sizes of the codec's streams: 28 bits a frame
BITS = (9, 9, 4, 6)
VOICES: dict[str, tuple[str, ...]] = {
    "man": ("", "+m1", "+m3", "+m7"),
    "woman": ("+f1", "+f2", "+f5"),
    "whisper": ("+whisper", "+whisperf"),
}
PITCHES: dict[str, tuple[int, int]] = {"low": (8, 22), "high": (78, 92)}  # the synthesiser's scale of 0 to 99
PACES: dict[str, tuple[int, int]] = {"slow": (120, 145), "fast": (215, 250)}  # its words a minute
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SEMANTIC, COARSE = 100, 1024  # clusters
UTTERANCES, HELD_OUT = 3600, 160  # utterances; strings of digits that are never trained on
PAUSE = 8  # silent frames between utterances given to the codec together

SPEAKER_WORDS = {
    "man": ("a man", "a male speaker", "some gentleman"),
    "woman": ("a woman", "a female speaker", "some lady"),
    "whisper": ("someone whispering", "a whispering speaker", "a breathy whisper"),
}
PITCH_WORDS = {
    "low": ("in a low voice", "at low pitch", "deeply"),
    "high": ("in a high voice", "at high pitch", "shrilly"),
}
PACE_WORDS = {"slow": ("slowly", "taking time", "unhurriedly"), "fast": ("quickly", "in a hurry", "rapidly")}
SENTENCES = (
    "{speaker} says this {pace} {pitch}",
    "{pace} and {pitch} {speaker} speaks",
    "spoken {pitch} {pace} by {speaker}",
)

Samples = NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Style:
    """Who, how high, how fast."""

    speaker: str
    pitch: str
    pace: str

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Style:
        return cls(*(str(rng.choice(list(names))) for names in (VOICES, PITCHES, PACES)))


def _every_word() -> tuple[str, ...]:
    lists = [phrase for table in (SPEAKER_WORDS, PITCH_WORDS, PACE_WORDS) for row in table.values() for phrase in row]
    words = " ".join([*lists, *SENTENCES]).split()
    return (*DIGITS, *sorted({word for word in words if "{" not in word}))


WORDS = _every_word()
TEXT_LENGTH = 3 + 14


def instruction(digits: tuple[int, ...], style: Style, rng: np.random.Generator) -> str:
    """What the model is asked for. The words to be said come first, at fixed places: see the synthetic world."""
    sentence = str(rng.choice(SENTENCES)).format(
        speaker=rng.choice(SPEAKER_WORDS[style.speaker]),
        pitch=rng.choice(PITCH_WORDS[style.pitch]),
        pace=rng.choice(PACE_WORDS[style.pace]),
    )
    return f"{' '.join(DIGITS[d] for d in digits)} {sentence}"


def text_ids(text: str) -> list[int]:
    """Word numbers from 1, padded with 0 to `TEXT_LENGTH`."""
    ids = [1 + WORDS.index(word) for word in text.split()]
    return ids + [0] * (TEXT_LENGTH - len(ids))


def spoken(digits: tuple[int, ...], style: Style, rng: np.random.Generator) -> Samples:
    """The synthesiser's voice at 8 kHz, of even loudness, without silence around it."""
    from scipy.signal import resample_poly

    voice = str(rng.choice(VOICES[style.speaker]))
    command = ["espeak-ng", "-v", f"en-us{voice}", "--stdout"]
    command += ["-p", str(rng.integers(*PITCHES[style.pitch])), "-s", str(rng.integers(*PACES[style.pace]))]
    out = subprocess.run([*command, " ".join(DIGITS[d] for d in digits)], capture_output=True, check=True).stdout
    with wave.open(io.BytesIO(out)) as recording:
        if recording.getframerate() != 22050:
            raise ValueError(f"espeak-ng wrote {recording.getframerate()} samples a second, not 22050")
        sound = np.frombuffer(recording.readframes(10**9), np.int16).astype(float)
    sound = resample_poly(sound, 160, 441)
    loud = np.flatnonzero(np.abs(sound) > 0.02 * np.abs(sound).max())
    sound = sound[loud[0] : loud[-1] + 1]
    return (sound * (3000 / sound.std())).clip(-32768, 32767).astype(np.int16)


def encode(sound: Samples, scratch: Path) -> NDArray[np.int64]:
    """Codec frames (frames, 4) of samples, whole frames only."""
    raw, bits = scratch / "in.raw", scratch / "in.bits"
    sound[: len(sound) // FRAME * FRAME].tofile(raw)
    subprocess.run(["c2enc", "700C", str(raw), str(bits)], capture_output=True, check=True)
    rows = np.unpackbits(np.fromfile(bits, np.uint8).reshape(-1, 4), axis=1)
    return unpacked(rows)


def unpacked(rows: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(frames, 32) bits, the last four unused -> (frames, 4) integers, most significant bit first."""
    ends = np.cumsum(BITS)
    parts = [rows[:, end - size : end] @ (1 << np.arange(size)[::-1]) for size, end in zip(BITS, ends, strict=True)]
    return np.stack(parts, 1).astype(np.int64)


def packed(frames: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Inverse of `unpacked`."""
    columns = [frames[:, k, None] >> np.arange(size)[::-1] & 1 for k, size in enumerate(BITS)]
    return np.concatenate([*columns, np.zeros((len(frames), 4), np.int64)], 1).astype(np.uint8)


def decode(utterances: list[NDArray[np.int64]], silence: NDArray[np.int64], scratch: Path) -> list[Samples]:
    """Sound of every utterance, each after a pause, so that none hears the one before. The codec is called once."""
    pause = np.repeat(silence[None], PAUSE, 0)
    frames = np.concatenate([part for frames in utterances for part in (pause, frames)] + [pause])
    bits, raw = scratch / "out.bits", scratch / "out.raw"
    np.packbits(packed(frames), axis=1).tofile(bits)
    subprocess.run(["c2dec", "700C", str(bits), str(raw)], capture_output=True, check=True)
    sound = np.fromfile(raw, np.int16)
    out, start = [], 0
    for utterance in utterances:
        start += PAUSE
        out.append(sound[start * FRAME : (start + len(utterance)) * FRAME])
        start += len(utterance)
    return out


def write_wav(path: Path, sound: Samples) -> None:
    """Mono, 8 kHz, 16 bits."""
    with wave.open(str(path), "wb") as recording:
        recording.setnchannels(1)
        recording.setsampwidth(2)
        recording.setframerate(RATE)
        recording.writeframes(sound.tobytes())


def log_mel(sound: NDArray[Any], hop: int, window: int, bands: int = 20) -> NDArray[np.float32]:
    """Log energies (frames, bands) of triangular bands even in mel, 80 to 3800 Hz; frame i starts at i * hop."""
    size = 512
    edges = 700 * (np.exp(np.linspace(np.log1p(80 / 700), np.log1p(3800 / 700), bands + 2)) - 1) * size / RATE
    bins = np.arange(size // 2 + 1)[None]
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bank = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)).clip(min=0)
    count = max(0, (len(sound) - window) // hop + 1)
    if count == 0:
        return np.zeros((0, bands), np.float32)
    rows = np.lib.stride_tricks.sliding_window_view(sound.astype(np.float64), window)[::hop][:count]
    power = np.abs(np.fft.rfft(rows * np.hanning(window), size)) ** 2
    return np.log(power @ bank.T + 1e3).astype(np.float32)


def frequency(pitch_codes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Hertz of the codec's pitch codes from 1 on: 50 to 400, even in logarithm."""
    return np.asarray(50.0 * 8.0 ** (pitch_codes / 64))


def clusters(vectors: Tensor, count: int, generator: torch.Generator, rounds: int = 20) -> Tensor:
    """k-means (count, width); an empty cluster restarts at a random vector."""
    book = vectors[torch.randperm(len(vectors), generator=generator)[:count]].clone()
    for _ in range(rounds):
        nearest = nearest_of(vectors, book)
        sizes = torch.bincount(nearest, minlength=count)
        book = torch.zeros_like(book).index_add(0, nearest, vectors) / sizes.clamp(min=1)[:, None]
        empty = sizes == 0
        book[empty] = vectors[torch.randint(len(vectors), (int(empty.sum()),), generator=generator)]
    return book


def nearest_of(vectors: Tensor, book: Tensor) -> Tensor:
    return torch.cat([torch.cdist(part, book).argmin(1) for part in vectors.split(8192)])


class Corpus:
    """All utterances, made once and kept in a file; every seed reads the same recordings, as of a real corpus.

    Attributes: digits (n, 3); styles; codes (per utterance: frames x 5: first codebook, then the codec's streams);
    semantic (per utterance: cluster numbers without repeats); sounds (what the codec makes of the codes); silence (4,).
    """

    def __init__(self, scratch: Path) -> None:
        missing = [name for name in ("espeak-ng", "c2enc", "c2dec") if shutil.which(name) is None]
        if missing:
            raise RuntimeError(f"real speech needs {', '.join(missing)} (Debian packages espeak-ng and codec2)")
        scratch.mkdir(parents=True, exist_ok=True)
        path = scratch / f"corpus-{UTTERANCES}.npz"
        if not path.exists():
            self._record(path, scratch)
        with np.load(path) as kept:
            digits, styles, lengths, frames = (kept[name] for name in ("digits", "styles", "lengths", "frames"))
            self.silence = kept["silence"]
        self.digits = [tuple(row) for row in digits.tolist()]
        self.styles = [Style(*row) for row in styles.tolist()]
        streams = np.split(frames, np.cumsum(lengths)[:-1])
        self.sounds = decode(streams, self.silence, scratch)
        self._tokens(streams)

    @staticmethod
    def _record(path: Path, scratch: Path) -> None:
        rng = np.random.default_rng(7)
        digits, styles, parts, lengths = [], [], [], []
        for index in range(UTTERANCES):
            row, style = tuple(int(d) for d in rng.integers(10, size=3)), Style.drawn(rng)
            sound = spoken(row, style, rng)
            before = int(rng.integers(FRAME))  # where in a frame speech begins is chance
            count = -(-(before + len(sound)) // FRAME) + 1
            block = np.zeros((count + PAUSE) * FRAME, np.int16)
            block[PAUSE * FRAME + before :][: len(sound)] = sound
            digits.append(row)
            styles.append([style.speaker, style.pitch, style.pace])
            parts.append(block)
            lengths.append(count)
            if (index + 1) % 400 == 0:
                print(f"  corpus: {index + 1}/{UTTERANCES} utterances", flush=True)
        frames = encode(np.concatenate([*parts, np.zeros(PAUSE * FRAME, np.int16)]), scratch)
        kept, start = [], 0
        for length in lengths:
            start += PAUSE
            kept.append(frames[start : start + length])
            start += length
        fresh = path.with_suffix(".new.npz")
        np.savez(
            fresh, digits=np.array(digits), styles=np.array(styles), lengths=np.array(lengths),
            frames=np.concatenate(kept), silence=frames[2],
        )  # fmt: skip
        fresh.rename(path)

    def _tokens(self, streams: list[NDArray[np.int64]]) -> None:
        """Both clusterings, fitted to the recordings as the codec gives them back."""
        generator = torch.Generator().manual_seed(7)
        mels = []
        for sound, frames in zip(self.sounds, streams, strict=True):
            rows = log_mel(np.pad(sound, (0, FRAME)), FRAME, 400)[: len(frames)]
            mels.append(torch.tensor(rows))
        cosines = torch.tensor(np.cos(np.pi / 20 * (np.arange(20) + 0.5)[:, None] * np.arange(0, 12)[None])).float()
        cepstra = []
        for mel in mels:
            row = mel @ cosines
            row = row - row.mean(0)
            moved = torch.nn.functional.pad(row.T, (1, 1), mode="replicate").T
            cepstra.append(torch.cat([row, moved[2:] - moved[:-2]], 1))
        whole = torch.cat(cepstra)
        whole = whole / whole.std(0)
        book = clusters(whole[:: max(1, len(whole) // 30000)], SEMANTIC, generator)
        lengths = [len(frames) for frames in streams]
        self.semantic = [part.unique_consecutive().tolist() for part in nearest_of(whole, book).split(lengths)]
        pitch = torch.tensor(np.concatenate(streams)[:, 3])
        voiced = (pitch > 0).float()
        height = torch.where(pitch > 0, torch.tensor(np.log(frequency(pitch.numpy()) / 140)).float(), 0.0)
        mel = torch.cat(mels)
        sound = torch.cat([(mel - mel.mean(0)) / mel.std(), 3 * height[:, None], 1.5 * voiced[:, None]], 1)
        book = clusters(sound[:: max(1, len(sound) // 40000)], COARSE, generator)
        coarse = nearest_of(sound, book).numpy()
        self.codes = np.split(np.concatenate([coarse[:, None], np.concatenate(streams)], 1), np.cumsum(lengths)[:-1])

    def split(self) -> tuple[list[int], list[int]]:
        """Utterances to train on, and others whose strings of digits are never among those; the same for all seeds."""
        strings = sorted(set(self.digits))
        chosen = {strings[i] for i in np.random.default_rng(11).permutation(len(strings))[:HELD_OUT]}
        known = [i for i, row in enumerate(self.digits) if row not in chosen]
        unseen = [i for i, row in enumerate(self.digits) if row in chosen]
        return known, unseen
