"""What is heard in a recording: words by a small recogniser, the speaker, pitch, voicing, duration.

The recogniser is trained on the corpus as the codec gives it back, with connectionist temporal classification (Graves
et al. 2006); who speaks is a second output of it. Pitch is the highest peak of the autocorrelation divided by that of
the window (Boersma 1993). None of it has seen a token.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.reproductions.voxinstruct.corpus import DIGITS, RATE, VOICES, Samples, Style, log_mel

SPEAKERS = list(VOICES)
HOP, WINDOW = 160, 320


@dataclass(frozen=True, slots=True)
class Heard:
    """Digits, speaker, median pitch of voiced frames in hertz (0 = none), their share, seconds of speech."""

    digits: list[int]
    speaker: str
    pitch: float
    voiced: float
    seconds: float


class Listener(nn.Module):
    """Two convolutions, a recurrent layer both ways, letters are whole digits; 0 is the blank."""

    def __init__(self) -> None:
        super().__init__()
        self.early = nn.Sequential(
            nn.Conv1d(20, 64, 5, padding=2), nn.ReLU(), nn.Conv1d(64, 64, 5, stride=2, padding=2), nn.ReLU()
        )
        self.memory = nn.GRU(64, 48, batch_first=True, bidirectional=True)
        self.words, self.speaker = nn.Linear(96, 1 + len(DIGITS)), nn.Linear(64, len(SPEAKERS))

    def forward(self, mels: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """mels (batch, time, 20), zero beyond lengths -> scores (batch, time / 2, 11), their lengths, speakers."""
        early = self.early(mels.transpose(1, 2)).transpose(1, 2)
        halves = (lengths + 1) // 2
        present = torch.arange(early.shape[1])[None] < halves[:, None]
        mean = (early * present[..., None]).sum(1) / halves[:, None]
        return self.words(self.memory(early)[0]), halves, self.speaker(mean)

    def loss(self, sounds: list[Tensor], digits: list[tuple[int, ...]], styles: list[Style]) -> Tensor:
        scores, lengths, speakers = self(*gathered(sounds))
        wanted = torch.tensor(digits) + 1
        likelihood = torch.log_softmax(scores, -1).transpose(0, 1)
        counts = torch.full((len(digits),), wanted.shape[1])
        words = nn.functional.ctc_loss(likelihood, wanted, lengths, counts, zero_infinity=True)
        return words + nn.functional.cross_entropy(
            speakers, torch.tensor([SPEAKERS.index(style.speaker) for style in styles])
        )

    @torch.no_grad()
    def hear(self, sound: Samples) -> Heard:
        """A recording shorter than two frames holds nothing."""
        mel = features(sound)
        if len(mel) < 2:
            return Heard([], "", 0.0, 0.0, 0.0)
        scores, _, speakers = self(*gathered([mel]))
        best = scores[0].argmax(-1).unique_consecutive().tolist()
        track = pitch_track(sound)
        voiced = track > 0
        pitch = float(np.median(track[voiced])) if voiced.any() else 0.0
        digits = [token - 1 for token in best if token > 0]
        return Heard(digits, SPEAKERS[int(speakers.argmax())], pitch, float(voiced.mean()), seconds(sound))


def features(sound: Samples) -> Tensor:
    """(time, 20), roughly of unit size."""
    return (torch.tensor(log_mel(sound, HOP, WINDOW)) - 14) / 4


def gathered(rows: list[Tensor]) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(row) for row in rows])
    return nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths


def seconds(sound: Samples) -> float:
    """From the first to the last frame within 30 dB of the loudest."""
    blocks = sound[: len(sound) // 80 * 80].astype(float).reshape(-1, 80)
    power = np.square(blocks).mean(1)
    if len(power) == 0 or power.max() < 1:
        return 0.0
    loud = np.flatnonzero(power > power.max() / 1000)
    return float((loud[-1] - loud[0] + 1) * 80 / RATE)


def pitch_track(sound: Samples) -> np.ndarray:
    """Hertz of every frame within 25 dB of the loudest, every 20 ms; 0 = voiceless."""
    window, size = 480, 2048
    if len(sound) < window:
        return np.zeros(0)
    rows = np.lib.stride_tricks.sliding_window_view(sound.astype(float), window)[::160]
    rows = rows - rows.mean(1, keepdims=True)
    power = np.square(rows).mean(1)
    rows = rows[power > power.max() / 300]
    taper = np.hanning(window)
    own = np.fft.irfft(np.abs(np.fft.rfft(taper, size)) ** 2)
    there = np.fft.irfft(np.abs(np.fft.rfft(rows * taper, size)) ** 2, axis=1)
    lags = np.arange(RATE // 400, RATE // 55)
    curve = there[:, lags] / np.maximum(there[:, :1], 1e-9) / (own[lags] / own[0])
    # A period's multiples are peaks as high: small lags are preferred a little.
    best = (curve - 0.02 * np.log2(lags / lags[0])).argmax(1)
    strength = curve[np.arange(len(rows)), best]
    return np.where(strength > 0.6, RATE / lags[best], 0.0)
