"""VAR's forward against a float64 evaluation written from the paper's description, its cache, pyramid, file layout."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from guiderail.guidance.token_models import Var  # noqa: E402
from guiderail.training.var import (  # noqa: E402
    ResidualPyramid,
    VarModel,
    VarSettings,
    load_released,
    sample_pyramid,
)

SETTINGS = VarSettings(vocab=7, code_width=3, width=16, layers=2, heads=2, sides=(1, 2, 4), classes=4)


def randomised(settings: VarSettings) -> VarModel:
    torch.manual_seed(0)
    model = VarModel(settings).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return model


def by_hand(model: VarModel, label: int, known: np.ndarray) -> np.ndarray:
    """Logits of one image, position by position, in numpy loops."""
    weights = {name: p.detach().double().numpy() for name, p in model.state_dict().items()}
    settings = model.settings
    levels = [level for level, side in enumerate(settings.sides) for _ in range(side**2)]
    condition = weights["class_emb.weight"][label]
    start = condition + weights["pos_start"][0]
    words = known @ weights["word_embed.weight"].T + weights["word_embed.bias"]
    hidden = np.concatenate([start, words])
    levels = levels[: len(hidden)]
    hidden = hidden + weights["lvl_embed.weight"][levels] + weights["pos_1LC"][0, : len(hidden)]

    def silu(x: np.ndarray) -> np.ndarray:
        return x / (1 + np.exp(-x))

    def norm(x: np.ndarray) -> np.ndarray:
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + settings.epsilon)

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ weights[name + ".weight"].T + weights[name + ".bias"]

    size = settings.width // settings.heads
    for index in range(settings.layers):
        p = f"blocks.{index}."
        if settings.shared_modulation:
            parts = linear(silu(condition), "shared_ada_lin.1").reshape(6, -1) + weights[p + "ada_gss"][0, 0]
        else:
            parts = linear(silu(condition), p + "ada_lin.1").reshape(6, -1)
        gate1, gate2, gain1, gain2, shift1, shift2 = parts
        x = norm(hidden) * (1 + gain1) + shift1
        q, k, v = np.split(x @ weights[p + "attn.mat_qkv.weight"].T, 3, -1)
        q, v = q + weights[p + "attn.q_bias"], v + weights[p + "attn.v_bias"]
        mixed = np.zeros_like(hidden)
        for head in range(settings.heads):
            cut = slice(head * size, (head + 1) * size)
            for i, level in enumerate(levels):
                seen = [j for j, other in enumerate(levels) if other <= level]
                scores = []
                for j in seen:
                    if settings.normalised_attention:
                        factor = math.exp(min(weights[p + "attn.scale_mul_1H11"][0, head, 0, 0], math.log(100)))
                        a, b = q[i, cut], k[j, cut]
                        scores.append(factor * (a @ b) / np.linalg.norm(a) / np.linalg.norm(b))
                    else:
                        scores.append(0.25 * (q[i, cut] @ k[j, cut]) / size**0.5)
                weight = np.exp(np.array(scores) - max(scores))
                mixed[i, cut] = (weight / weight.sum()) @ v[seen, cut]
        hidden = hidden + gate1 * linear(mixed, p + "attn.proj")
        x = linear(norm(hidden) * (1 + gain2) + shift2, p + "ffn.fc1")
        x = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        hidden = hidden + gate2 * linear(x, p + "ffn.fc2")
    gain, shift = linear(silu(condition), "head_nm.ada_lin.1").reshape(2, -1)
    return linear(norm(hidden) * (1 + gain) + shift, "head")


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("first", [1, 2])
def test_forward_equals_the_description(shared: bool, normalised: bool, first: int) -> None:
    settings = VarSettings(
        vocab=7, code_width=3, width=16, layers=2, heads=2, sides=(first, 3, 4), classes=4,
        normalised_attention=normalised, shared_modulation=shared,
    )  # fmt: skip
    model = randomised(settings)
    known = torch.randn(1, 25, 3, generator=torch.Generator().manual_seed(1))
    got = model(torch.tensor([2]), known)[0].detach().numpy()
    np.testing.assert_allclose(got, by_hand(model, 2, known[0].double().numpy()), atol=3e-5)
    with pytest.raises(ValueError, match="inside a scale"):
        model(torch.tensor([2]), known[:, :-1])


def test_scale_by_scale_equals_all_at_once() -> None:
    model, labels = randomised(SETTINGS), torch.tensor([0, 3])
    known = torch.randn(2, 20, 3, generator=torch.Generator().manual_seed(1))
    whole, past, pieces = model(labels, known), model.cache(), []
    for index, (start, stop) in enumerate(((0, 0), (0, 4), (4, 20))):
        pieces.append(model.scale(labels, known[:, start:stop] if index else None, index, past))
    torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=1e-5, rtol=1e-5)


def test_the_pyramid_rebuilds_what_its_book_can_say() -> None:
    generator = torch.Generator().manual_seed(0)
    pyramid = ResidualPyramid(torch.randn(7, 3, generator=generator), (1, 2, 4))
    tokens = torch.randint(7, (5, 21), generator=generator)
    picture = pyramid.decode(tokens)
    up = torch.nn.functional.interpolate
    by_scale = [pyramid.book[part].transpose(1, 2).reshape(5, 3, side, side)
                for part, side in zip(tokens.split([1, 4, 16], 1), (1, 2, 4), strict=True)]  # fmt: skip
    parts = [up(by_scale[0], size=(4, 4), mode="bicubic"), up(by_scale[1], size=(4, 4), mode="bicubic"), by_scale[2]]
    torch.testing.assert_close(picture, sum(parts))
    inputs = pyramid.inputs(tokens)
    assert inputs.shape == (5, 20, 3)
    torch.testing.assert_close(inputs[:, 4:], (parts[0] + parts[1]).flatten(2).transpose(1, 2))
    # A fine enough book loses next to nothing: what scales leave behind is coded by the next ones.
    fine = ResidualPyramid(torch.linspace(-2, 2, 401)[:, None], (1, 2, 4))
    pictures = torch.rand(6, 1, 4, 4, generator=generator)
    assert float((fine.decode(fine.encode(pictures)) - pictures).abs().max()) < 0.0051


def test_sampling_pays_for_the_null_only_where_guidance_is_on() -> None:
    model = randomised(SETTINGS)
    pyramid = ResidualPyramid(torch.randn(7, 3, generator=torch.Generator().manual_seed(2)), SETTINGS.sides)
    labels = torch.tensor([0, 1, 2])
    for weight, evaluated in ((0.0, 21), (1.5, 42)):
        preset = Var(weight=weight, scales=3, top_k=0, top_p=0)
        tokens, count = sample_pyramid(model, pyramid, labels, preset, torch.Generator().manual_seed(0))
        assert (tuple(tokens.shape), count) == ((3, 21), evaluated)
    # Drawn tokens follow the teacher-forced distribution of the guided rule: compare one scale's by frequency.
    rows = torch.zeros(4000, dtype=torch.long)
    preset = Var(weight=1.5, scales=3, top_k=0, top_p=0)
    tokens, _ = sample_pyramid(model, pyramid, rows, preset, torch.Generator().manual_seed(0))
    first = int(tokens[:, 0].mode().values)
    same = tokens[tokens[:, 0] == first]
    known = pyramid.inputs(same[:1, :1])
    conditional, null = (model(torch.tensor([label]), known)[:, 1:] for label in (0, 4))
    expected = preset.probabilities(conditional, null, 1)[0, 2].detach()
    counted = torch.bincount(same[:, 3], minlength=7) / len(same)
    assert float((counted - expected).abs().max()) < 4 / len(same) ** 0.5


def test_released_files_load_by_name_and_shape(tmp_path: Path) -> None:
    model = randomised(SETTINGS)
    state = {**model.state_dict(), "lvl_1L": torch.zeros(1, 21), "attn_bias_for_masking": torch.zeros(1, 1, 21, 21)}
    state |= {f"blocks.{i}.attn.zero_k_bias": torch.zeros(16) for i in range(2)}
    torch.save(state, tmp_path / "bare.pth")
    torch.save({"trainer": {"var_wo_ddp": state}}, tmp_path / "training.pth")
    for name in ("bare.pth", "training.pth"):
        again = load_released(tmp_path / name, SETTINGS)
        assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))
    torch.save({k: v for k, v in state.items() if k != "head.bias"}, tmp_path / "short.pth")
    with pytest.raises(ValueError, match=r"missing \['head.bias'\]"):
        load_released(tmp_path / "short.pth", SETTINGS)


def test_names_and_shapes_of_the_smallest_release() -> None:
    with torch.device("meta"):
        model = VarModel(VarSettings())
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert shapes["blocks.15.ada_lin.1.weight"] == (6144, 1024)
    assert shapes["blocks.0.attn.scale_mul_1H11"] == (1, 16, 1, 1)
    assert shapes["pos_1LC"] == (1, 680, 1024)
    assert 305e6 < sum(math.prod(shape) for shape in shapes.values()) < 315e6  # "310M" in the paper
