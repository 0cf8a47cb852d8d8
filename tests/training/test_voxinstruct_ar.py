"""VoxInstruct's first stage: cached decoding of both phases is what reading everything anew gives."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from guiderail.guidance.token_models import VOXINSTRUCT_TOKENS, VoxInstruct  # noqa: E402
from guiderail.training.voxinstruct import VoxInstructAr, load_released  # noqa: E402

BEGIN, LANGUAGE, END = (VOXINSTRUCT_TOKENS[name].start for name in ("begin", "language", "end_semantic"))
SEMANTIC, ACOUSTIC = VOXINSTRUCT_TOKENS["semantic"], VOXINSTRUCT_TOKENS["acoustic"]


@pytest.fixture(scope="module")
def model() -> VoxInstructAr:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(VOXINSTRUCT_TOKENS), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    return VoxInstructAr(config, 6).eval()


def text(rows: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    features = torch.randn(rows, 5, 6, generator=torch.Generator().manual_seed(1))
    return features, (torch.arange(5)[None] < torch.tensor([5, 4, 3])[:, None]).float()


@torch.no_grad()
def test_plans_are_legal_and_end(model: VoxInstructAr) -> None:
    plans = model.plan(*text(), VoxInstruct(), limit=4, generator=torch.Generator().manual_seed(3))
    for plan in plans:
        assert (plan[:2], plan[-1]) == ([BEGIN, LANGUAGE], END)
        assert len(plan) <= 7
        assert all(token in SEMANTIC for token in plan[2:-1])
    limited = model.plan(*text(), VoxInstruct(), limit=0)
    assert limited == [[BEGIN, LANGUAGE, END]] * 3


@torch.no_grad()
def test_caches_agree_with_reading_everything_anew(model: VoxInstructAr) -> None:
    """The rule records what the cached streams said; then each draw's prefix is read in one pass a stream."""
    features, mask = text()
    plans = [[BEGIN, LANGUAGE, SEMANTIC[1], SEMANTIC[7 + row], END] for row in range(3)]
    heard: list[tuple[torch.Tensor, ...]] = []
    preset = VoxInstruct()

    def rule(*streams: torch.Tensor) -> torch.Tensor:
        heard.append(streams)
        return preset.probabilities("acoustic", *streams)

    spoken = model.speak(features, mask, plans, preset, limit=5, generator=torch.Generator().manual_seed(5), rule=rule)
    assert all(token in ACOUSTIC for row in spoken for token in row)
    assert max(map(len, spoken)) == 5
    yes = torch.ones(1, dtype=torch.bool)
    for row, codes in enumerate(spoken):
        ids = torch.tensor([[*plans[row], *codes]])
        segments = torch.tensor([[1] * 5 + [2] * len(codes)])
        for stream, drops in enumerate(({}, {"drop_text": yes}, {"drop_semantic": yes})):
            whole = model(features[row : row + 1], mask[row : row + 1], ids, segments, **drops)
            for step in range(len(codes)):
                torch.testing.assert_close(heard[step][stream][row], whole[0, 4 + step], atol=1e-5, rtol=1e-4)
    # Without a rule the preset decides, and the draws are the same.
    assert spoken == model.speak(features, mask, plans, preset, limit=5, generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def test_released_layout(model: VoxInstructAr, tmp_path: Path) -> None:
    head = "t5_model.base_model.model.encoder.block.0.layer.0.SelfAttention.q."
    weight, down, up = torch.randn(4, 4), torch.randn(2, 4), torch.randn(4, 2)
    encoder = {
        f"{head}base_layer.weight": weight, f"{head}lora_A.default.weight": down, f"{head}lora_B.default.weight": up,
        "t5_model.base_model.model.shared.weight": torch.ones(3),
    }  # fmt: skip
    torch.save({"model": {**model.state_dict(), **encoder}, "scheduler": {"step": 3}}, tmp_path / "1k_ckpt.pyt")
    fresh = VoxInstructAr(model.model.config, model.prompt_fc.in_features)
    found = load_released(tmp_path / "1k_ckpt.pyt", fresh, lora_scale=0.5)
    for name, tensor in model.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], tensor)
    assert set(found) == {"encoder.block.0.layer.0.SelfAttention.q.weight", "shared.weight"}
    torch.testing.assert_close(found["encoder.block.0.layer.0.SelfAttention.q.weight"], weight + 0.5 * up @ down)
    torch.save({"model": {"embed_segments.weight": torch.ones(2, 2)}}, tmp_path / "short.pyt")
    with pytest.raises(ValueError, match=r"missing .*other shape \['embed_segments.weight'\]"):
        load_released(tmp_path / "short.pyt", fresh)


def test_streams_of_weight_zero_do_not_run(model: VoxInstructAr, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[str] = []
    forward = VoxInstructAr.forward

    def counted(self: VoxInstructAr, *args: torch.Tensor, **drops: torch.Tensor) -> torch.Tensor:
        passes.append("".join(sorted(name[5] for name in drops if name.startswith("drop"))))
        return forward(self, *args, **drops)

    monkeypatch.setattr(VoxInstructAr, "forward", counted)
    features, mask = text()
    plans = model.plan(features, mask, VoxInstruct(1.0, 1.0, 1.0), limit=2)
    assert set(passes) == {""}
    for preset, streams in ((VoxInstruct(1, 3, 1), {"", "t"}), (VoxInstruct(1, 1, 1.5), {"", "s"})):
        passes.clear()
        model.speak(features, mask, plans, preset, limit=2)
        assert set(passes) == streams


@torch.no_grad()
def test_rows_do_not_depend_on_their_group(model: VoxInstructAr) -> None:
    """Greedy (a sharp temperature): plans of other lengths beside a row change nothing."""
    features, mask = text()
    plans = [[BEGIN, LANGUAGE, *SEMANTIC[1 : 2 + row], END] for row in range(3)]
    greedy = VoxInstruct(temperature=0.8, top_k_acoustic=1)
    together = model.speak(features, mask, plans, greedy, limit=4)
    for row in range(3):
        assert model.speak(features[row : row + 1], mask[row : row + 1], plans[row : row + 1], greedy, limit=4) == [
            together[row]
        ]
