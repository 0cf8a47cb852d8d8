"""LlamaGen's forward against a float64 evaluation written from the paper's description, its cache, its file layout."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from guiderail.guidance.token_models import LlamaGen  # noqa: E402
from guiderail.training.llamagen import (  # noqa: E402
    LlamaGenModel,
    LlamaGenSettings,
    load_released,
    sample_codes,
)

SETTINGS = LlamaGenSettings(vocab=11, width=16, layers=2, heads=2, grid=3, classes=4, multiple_of=8)


def randomised(settings: LlamaGenSettings) -> LlamaGenModel:
    torch.manual_seed(0)
    model = LlamaGenModel(settings).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return model


def by_hand(model: LlamaGenModel, prefix: np.ndarray, codes: list[int]) -> np.ndarray:
    """Logits of one image, position by position, in numpy loops."""
    weights = {name: p.detach().double().numpy() for name, p in model.state_dict().items()}
    settings = model.settings
    hidden = np.concatenate([prefix, weights["tok_embeddings.weight"][codes]]) if codes else prefix
    size, grid = settings.width // settings.heads, settings.grid

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + settings.epsilon) * weights[name]

    def turned(vector: np.ndarray, position: int) -> np.ndarray:
        if position < settings.prefix:
            return vector * 0
        row, column = divmod(position - settings.prefix, grid)
        out = np.empty_like(vector)
        pairs, half = size // 2, size // 4
        for pair in range(pairs):
            where, index = (row, pair) if pair < half else (column, pair - half)
            angle = where * settings.rope_base ** (-2 * index / (size / 2))
            a, b = vector[2 * pair], vector[2 * pair + 1]
            out[2 * pair] = a * math.cos(angle) - b * math.sin(angle)
            out[2 * pair + 1] = b * math.cos(angle) + a * math.sin(angle)
        return out

    for layer in range(settings.layers):
        p = f"layers.{layer}."
        q, k, v = np.split(norm(hidden, p + "attention_norm.weight") @ weights[p + "attention.wqkv.weight"].T, 3, -1)
        mixed = np.zeros_like(hidden)
        for head in range(settings.heads):
            cut = slice(head * size, (head + 1) * size)
            for i in range(len(hidden)):
                scores = np.array([turned(q[i, cut], i) @ turned(k[j, cut], j) for j in range(i + 1)]) / size**0.5
                weight = np.exp(scores - scores.max())
                mixed[i, cut] = (weight / weight.sum()) @ v[: i + 1, cut]
        hidden = hidden + mixed @ weights[p + "attention.wo.weight"].T
        x = norm(hidden, p + "ffn_norm.weight")
        gate = x @ weights[p + "feed_forward.w1.weight"].T
        up = gate / (1 + np.exp(-gate)) * (x @ weights[p + "feed_forward.w3.weight"].T)
        hidden = hidden + up @ weights[p + "feed_forward.w2.weight"].T
    return norm(hidden, "norm.weight")[settings.prefix - 1 :] @ weights["output.weight"].T


def test_forward_equals_the_description() -> None:
    model = randomised(SETTINGS)
    codes = [3, 1, 4, 1, 5, 9, 2, 6]
    prefix = model.cls_embedding.embedding_table.weight[2:3].detach().double().numpy()
    got = model(torch.tensor([2]), torch.tensor([codes]))[0]
    np.testing.assert_allclose(got.detach().numpy(), by_hand(model, prefix, codes), atol=2e-5)


def test_text_conditions() -> None:
    settings = LlamaGenSettings(
        vocab=11, width=16, layers=1, heads=2, grid=3, multiple_of=8, conditions="text", prefix=4, caption_width=5
    )
    model = randomised(settings)
    null = model.null_condition(1)
    got = model(null, torch.tensor([[3, 1]]))
    assert got.shape == (1, 3, 11)
    prefix = model.cls_embedding(null)[0].detach().double().numpy()
    np.testing.assert_allclose(got[0].detach().numpy(), by_hand(model, prefix, [3, 1]), atol=2e-5)


def test_padded_text_is_not_seen() -> None:
    settings = LlamaGenSettings(
        vocab=11, width=16, layers=2, heads=2, grid=3, multiple_of=8, conditions="text", prefix=4, caption_width=5
    )
    model = randomised(settings)
    text, codes = torch.randn(2, 4, 5), torch.tensor([[3, 1, 7], [2, 2, 9]])
    assert torch.equal(model(text, codes), model(text, codes, None, torch.ones(2, 4, dtype=torch.bool)))
    mask = torch.tensor([[False, False, True, True], [True, True, True, True]])
    masked = model(text, codes, None, mask)
    other = text.clone()
    other[0, :2] += 5
    assert torch.equal(model(other, codes, None, mask), masked)
    assert torch.equal(masked[1], model(text, codes)[1])
    # Rows of another length of padding read as if they had a shorter prefix: prefix positions are not rotated.
    short = LlamaGenModel(dataclasses.replace(settings, prefix=2)).eval()
    wanted = {**model.state_dict(), "cls_embedding.uncond_embedding": torch.zeros(2, 5)}
    short.load_state_dict(wanted)
    torch.testing.assert_close(masked[:1], short(text[:1, 2:], codes[:1]), atol=1e-5, rtol=1e-5)
    past = model.cache()
    parts = [model(text, None, past, mask), *(model(None, codes[:, i : i + 1], past, mask) for i in range(3))]
    torch.testing.assert_close(torch.cat(parts, 1), masked, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("guided_steps", "rows"), [(-1, 2.0), (2, 13 / 9)])
def test_sampling_reads_both_streams_while_it_guides(guided_steps: int, rows: float) -> None:
    model, preset = randomised(SETTINGS), LlamaGen(2.0, guided_steps=guided_steps, top_k=0)
    labels = torch.tensor([0, 1, 1])
    codes, evaluated = sample_codes(model, labels, preset, torch.Generator().manual_seed(0))
    assert (tuple(codes.shape), evaluated) == ((3, 9), pytest.approx(rows))
    generator = torch.Generator().manual_seed(0)
    for step in range(9):  # the same draws, everything read anew
        own = model(labels, codes[:, :step])[:, -1]
        null = model(model.null_condition(3), codes[:, :step])[:, -1] if preset.needs_null(step) else None
        drawn = torch.multinomial(preset.probabilities(own, null, step), 1, generator=generator)
        assert torch.equal(drawn[:, 0], codes[:, step])


def test_cache_changes_nothing() -> None:
    model = randomised(SETTINGS)
    codes = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6, 5]])
    whole = model(model.null_condition(1), codes[:, :-1])
    past = model.cache()
    parts = [model(model.null_condition(1), None, past)]
    parts += [model(None, codes[:, i : i + 1], past) for i in range(8)]
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="grid"):
        model(None, codes[:, :3], past)
    with pytest.raises(ValueError, match="nothing"):
        model(None, None)


def test_released_layout(tmp_path: Path) -> None:
    model = randomised(SETTINGS)
    names = set(model.state_dict())
    assert {"cls_embedding.embedding_table.weight", "layers.1.attention.wqkv.weight", "output.weight"} <= names
    torch.save({"model": model.state_dict()}, tmp_path / "c.pt")
    loaded = load_released(tmp_path / "c.pt", SETTINGS)
    assert torch.equal(loaded(torch.tensor([0]), None), model(torch.tensor([0]), None))
    torch.save({k: v for k, v in model.state_dict().items() if k != "norm.weight"}, tmp_path / "d.pt")
    with pytest.raises(ValueError, match=r"missing \['norm.weight'\]"):
        load_released(tmp_path / "d.pt", SETTINGS)
    assert LlamaGenSettings().feed_forward == 2048
