"""The instruments of the speech reproduction: packing of codec frames, mel bands, pitch, duration, the recogniser."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np  # noqa: E402
from benchmarks.reproductions.voxinstruct import corpus, speech  # noqa: E402
from benchmarks.reproductions.voxinstruct.listening import Listener, features, pitch_track, seconds  # noqa: E402


def tone(hertz: float, length: float, loudness: float = 3000) -> np.ndarray:
    """Six harmonics of a pitch."""
    time = np.arange(int(length * corpus.RATE)) / corpus.RATE
    return sum(loudness / k * np.sin(2 * np.pi * k * hertz * time) for k in range(1, 7)).astype(np.int16)


def test_codec_frames_are_packed_and_unpacked() -> None:
    frames = np.random.default_rng(0).integers(0, corpus.STREAMS, size=(50, 4))
    rows = corpus.packed(frames)
    assert rows.shape == (50, 32)
    assert (corpus.unpacked(rows) == frames).all()
    assert np.packbits(corpus.packed(np.array([[511, 0, 15, 1]])), axis=1).tolist() == [[255, 128, 60, 16]]


def test_every_instruction_has_known_words_and_fits() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        style = corpus.Style.drawn(rng)
        ids = corpus.text_ids(corpus.instruction((1, 2, 3), style, rng))
        assert len(ids) == corpus.TEXT_LENGTH
        assert max(ids) <= len(corpus.WORDS)


@pytest.mark.parametrize("hertz", [70.0, 100.0, 140.0, 250.0])
def test_pitch_is_heard(hertz: float) -> None:
    assert np.median(pitch_track(tone(hertz, 0.5))) == pytest.approx(hertz, rel=0.02)


def test_noise_has_no_pitch_and_silence_no_length() -> None:
    noise = np.random.default_rng(0).normal(0, 2000, 8000).astype(np.int16)
    assert (pitch_track(noise) > 0).mean() < 0.1
    quiet = np.zeros(2000, np.int16)
    assert seconds(quiet) == 0
    assert seconds(np.concatenate([quiet, tone(100, 0.5), quiet])) == pytest.approx(0.5, abs=0.03)


def test_mel_bands_follow_the_frequency() -> None:
    peaks = [int(corpus.log_mel(tone(hertz, 0.2)[:], 80, 240).mean(0).argmax()) for hertz in (200.0, 390.0)]
    assert peaks[0] < peaks[1]
    assert corpus.log_mel(np.zeros(10, np.int16), 80, 240).shape == (0, 20)


def test_a_recogniser_learns_from_sound_and_hears_nothing_in_nothing() -> None:
    """Two 'digits', a low and a high tone, and three 'speakers': the loss falls by half."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    listener = Listener()
    rng = np.random.default_rng(0)
    styles = [corpus.Style(name, "low", "slow") for name in corpus.VOICES]

    def say(digits: tuple[int, ...], who: int) -> np.ndarray:
        gap = np.zeros(800, np.int16)
        parts = [part for d in digits for part in (tone((150, 260)[d], 0.15), gap)]
        return np.concatenate([*parts, tone(90 + 20 * who, 0.1)])

    optimizer = torch.optim.Adam(listener.parameters(), 5e-3)
    losses = []
    for _ in range(40):
        rows = [tuple(int(d) for d in rng.integers(2, size=3)) for _ in range(8)]
        who = rng.integers(3, size=8).tolist()
        sounds = [features(say(row, w)) for row, w in zip(rows, who, strict=True)]
        loss = listener.loss(sounds, rows, [styles[w] for w in who])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.5 * losses[0]
    assert listener.hear(np.zeros(10, np.int16)).digits == []


def test_generated_codes_become_frames_of_the_codec() -> None:
    """Plans and codes of unequal length fill one tensor; nothing but what was given is visible."""
    plans, codes = [[5, 6], [7]], [np.array([[1], [2], [3]]), np.array([[4]])]
    ids, segments = speech.World.filled(plans, codes)
    assert segments.tolist() == [[1, 1, 2, 2, 2], [1, 2, 0, 0, 0]]
    assert ids[0, :2].tolist() == [[5] * 5, [6] * 5]
    assert ids[0, 2].tolist() == [speech.ACOUSTIC + 1, 0, 0, 0, 0]
    assert int(ids[1, 2:].abs().sum()) == 0


@pytest.mark.skipif(
    any(shutil.which(name) is None for name in ("espeak-ng", "c2enc", "c2dec")), reason="needs espeak-ng and codec2"
)
def test_real_speech_survives_the_codec(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    rng = np.random.default_rng(0)
    silence = corpus.encode(np.zeros(8 * corpus.FRAME, np.int16), tmp_path)[2]
    heard = {}
    for pitch in ("low", "high"):
        sound = corpus.spoken((1, 2, 3), corpus.Style("man", pitch, "slow"), rng)
        frames = corpus.encode(sound, tmp_path)
        back = corpus.decode([frames, frames], silence, tmp_path)
        assert len(back[0]) == len(frames) * corpus.FRAME
        heard[pitch] = float(np.median([f for f in pitch_track(back[1]) if f > 0]))
        codes = frames[frames[:, 3] > 0, 3]
        assert float(np.median(corpus.frequency(codes))) == pytest.approx(heard[pitch], rel=0.12)
    assert heard["high"] > 1.4 * heard["low"]
