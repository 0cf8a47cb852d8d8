"""Condition dropout, GeDi, distillation and the loop on models that take milliseconds."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from guiderail.training import (  # noqa: E402
    Condition,
    ConditionDropout,
    GeDiModel,
    GuidanceAdapters,
    GuidedHead,
    condition_dropout,
    distillation_loss,
    diversity_reward,
    fit,
    gedi_loss,
    merged,
    merged_negative,
    reward_loss,
    sequence_log_prob,
    topic_examples,
)
from guiderail.training.gedi import load_released  # noqa: E402
from guiderail.training.llamagen import LlamaGenModel, LlamaGenSettings  # noqa: E402
from guiderail.training.var import VarModel, VarSettings  # noqa: E402


def tiny(seed: int = 0) -> transformers.LlamaForCausalLM:
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=12, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, initializer_range=0.3,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def test_dropout_hides_what_it_says_in_the_rows_it_chose() -> None:
    batch = {
        "ids": torch.arange(1, 1 + 4000).reshape(1000, 4),
        "segments": torch.tensor([[0, 1, 1, 2]]).expand(1000, 4),
        "pixels": torch.ones(1000, 2, 2),
    }
    collator = ConditionDropout(
        [
            Condition("image", 0.5, condition_dropout.zeros("pixels")),
            Condition("semantic", 0.1, condition_dropout.segment("ids", "segments", 1, 0)),
        ],
        generator=torch.Generator().manual_seed(0),
    )
    out = collator(batch)
    blank = out["pixels"].sum((1, 2)) == 0
    assert 430 < int(blank.sum()) < 570
    hidden = (out["ids"][:, 1:3] == 0).all(1)
    assert 60 < int(hidden.sum()) < 140
    assert torch.equal(out["ids"][:, [0, 3]], batch["ids"][:, [0, 3]])
    assert torch.equal(out["ids"][~hidden], batch["ids"][~hidden])
    assert bool((batch["pixels"] == 1).all())
    both = {frozenset[str](), frozenset({"image"}), frozenset({"semantic"}), frozenset({"image", "semantic"})}
    assert collator.trained_nulls == both
    with pytest.raises(ValueError, match="probability"):
        ConditionDropout([Condition("x", 1.5, condition_dropout.zeros("pixels"))])
    with pytest.raises(KeyError):
        ConditionDropout([Condition("x", 1.0, condition_dropout.zeros("absent"))])(batch)


def test_prefix_null() -> None:
    change = condition_dropout.prefix("ids", 2, torch.tensor([7, 8]))
    ids = torch.arange(8).reshape(2, 4)
    assert change({"ids": ids}, torch.tensor([False, True]))["ids"].tolist() == [[0, 1, 2, 3], [7, 8, 6, 7]]


def test_gedi_losses_are_the_models_own() -> None:
    model = GeDiModel(tiny(), {"yes": 1, "no": 2})
    text = torch.tensor([[4, 5, 6, 0], [7, 8, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    losses = model.losses(text, mask)
    for row in range(2):
        for column, code in enumerate((1, 2)):
            kept = text[row, : int(mask[row].sum())]
            logits = model.model(torch.cat([torch.tensor([code]), kept])[None]).logits[0, :-1]
            expected = -sequence_log_prob(logits, kept) / len(kept)
            assert losses[row, column].item() == pytest.approx(expected.item(), rel=1e-5)
    value = gedi_loss(losses, torch.tensor([1, 0]), generative_weight=0.8, logit_scale=2.0)
    own = (losses[0, 1] + losses[1, 0]) / 2
    cross = torch.nn.functional.cross_entropy(-2 * losses, torch.tensor([1, 0]))
    assert value.item() == pytest.approx((0.8 * own + 0.2 * cross).item())
    term = model.term("no", "yes", 5.0)
    assert term.desired.condition.code == (2,)


def test_gedi_discriminative_training_separates_what_a_generative_one_need_not() -> None:
    text = torch.tensor([[4, 5], [5, 4], [6, 7], [7, 6]])
    labels, mask = torch.tensor([0, 0, 1, 1]), torch.ones(4, 2)
    model = GeDiModel(tiny(), {"a": 1, "b": 2}).train()
    fit(model, lambda step: model.loss(text, mask, labels, 0.2), steps=40, learning_rate=1e-2)
    assert model.class_log_probs(text, mask).argmax(1).tolist() == labels.tolist()


def test_released_gedi_layout(tmp_path: Path) -> None:
    config = transformers.GPT2Config(vocab_size=20, n_positions=8, n_embd=8, n_layer=1, n_head=2)
    source = transformers.GPT2LMHeadModel(config)
    state = dict(source.state_dict())
    state |= {"logit_scale": torch.full((1, 1), 3.0), "bias": torch.tensor([[0.5, -0.5]])}
    state["transformer.h.0.attn.bias"] = torch.ones(1, 1, 8, 8)
    torch.save(state, tmp_path / "pytorch_model.bin")
    model = load_released(tmp_path / "pytorch_model.bin", config, {"false": 1, "true": 2})
    term = model.term("true", "false")
    assert (term.logit_scale, term.biases) == (3.0, (-0.5, 0.5))
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(model.model.eval()(ids).logits, source.eval()(ids).logits)
    del state["transformer.wpe.weight"]
    torch.save(state, tmp_path / "broken.bin")
    with pytest.raises(ValueError, match=r"wpe\.weight"):
        load_released(tmp_path / "broken.bin", config, {"false": 1, "true": 2})


def test_topic_examples() -> None:
    examples = topic_examples(["a", "b"], ["a", "b", "c"], torch.Generator().manual_seed(0))
    assert [(i, right) for i, _, right in examples] == [(0, True), (0, False), (1, True), (1, False)]
    assert examples[0][1] == "a"
    assert examples[1][1] in "bc"
    assert examples[3][1] in "ac"
    with pytest.raises(ValueError, match="topic"):
        topic_examples(["d"], ["a", "b"], torch.Generator())


def test_distillation_reaches_the_guided_distribution() -> None:
    generator = torch.Generator().manual_seed(0)
    conditional, null = torch.randn(2, 4, 3, 7, generator=generator)
    assert distillation_loss(2 * conditional - null, conditional, null, 2.0).item() == pytest.approx(0, abs=1e-6)
    assert distillation_loss(conditional, conditional, null, 2.0) > 0.1
    head = GuidedHead(5, 7)
    hidden = torch.randn(4, 3, 5, generator=generator)
    assert torch.equal(head(conditional, hidden, 3.0), conditional)


def test_adapters_learn_guidance_and_are_off_at_scale_one() -> None:
    model = tiny().requires_grad_(False)
    adapters = GuidanceAdapters(model, 16, rank=8)
    condition, null = torch.tensor([[3, 5, 6, 7]] * 8), torch.tensor([[2, 5, 6, 7]] * 8)
    plain, other = model(condition).logits, model(null).logits
    scales = torch.linspace(1, 3, 8)

    def loss(_step: int) -> torch.Tensor:
        with adapters.at(scales):
            return distillation_loss(model(condition).logits, plain, other, scales)

    losses = fit(adapters, loss, steps=150, learning_rate=2e-2)
    assert losses[-1] < 0.3 * losses[0]
    with adapters.at(1.0):
        assert torch.equal(model(condition).logits, plain)
    assert torch.equal(model(condition).logits, plain)


def test_adapters_fit_the_image_models() -> None:
    sizes = {"width": 16, "layers": 2, "heads": 2, "classes": 3, "vocab": 8}
    image = LlamaGenModel(LlamaGenSettings(grid=2, multiple_of=8, **sizes)).eval()
    pyramid = VarModel(VarSettings(sides=(1, 2), code_width=1, **sizes)).eval()
    for model, inputs in (
        (image, (torch.tensor([0, 1]), torch.tensor([[1, 2, 3], [4, 5, 6]]))),
        (pyramid, (torch.tensor([0, 1]), torch.randn(2, 4, 1))),
    ):
        torch.nn.init.normal_(model.get_submodule("output" if model is image else "head").weight)
        adapters = GuidanceAdapters(model, 16)
        assert len(adapters.up) == 2
        torch.nn.init.normal_(adapters.up[1].weight)
        with torch.no_grad():
            plain = model(*inputs)
            with adapters.at(2.0):
                assert float((model(*inputs) - plain).abs().max()) > 1e-3


def test_the_reward_is_climbed() -> None:
    scores = torch.zeros(4, requires_grad=True)
    rewards = torch.tensor([0.0, 0.0, 3.0, 0.0])
    for seed in range(60):
        drawn = torch.randint(4, (64,), generator=torch.Generator().manual_seed(seed))
        loss = reward_loss(torch.log_softmax(scores, 0)[drawn], rewards[drawn])
        (slope,) = torch.autograd.grad(loss, scores)
        scores = (scores - 0.5 * slope).detach().requires_grad_()
    assert float(torch.softmax(scores.detach(), 0)[2]) > 0.9
    values = torch.randn(3, requires_grad=True)
    reward_loss(values, torch.full((3,), 7.0)).backward()  # a reward that is the same for all teaches nothing
    assert values.grad is not None
    assert float(values.grad.abs().max()) == 0
    with pytest.raises(ValueError, match="rewards"):
        reward_loss(torch.zeros(1), torch.zeros(1))


def test_merging() -> None:
    a, b = {"w": torch.zeros(2)}, {"w": torch.ones(2)}
    assert merged(a, b, 0.25)["w"].tolist() == [0.25, 0.25]
    assert merged_negative(a, b, {"w": torch.full((2,), 3.0)}, 1.0)["w"].tolist() == [3.0, 3.0]
    with pytest.raises(ValueError, match="different"):
        merged(a, {"v": b["w"]}, 0.5)
    assert diversity_reward(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])).tolist() == [1.0]


def test_the_collator_works_in_a_trainer(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    seen: list[int] = []

    def collate(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        ids = torch.tensor([row["ids"] for row in rows])
        return {"input_ids": ids, "labels": ids.clone()}

    dropout = ConditionDropout([Condition("class", 0.5, condition_dropout.prefix("input_ids", 1, 0))], collate)

    def counted(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        batch = dropout(rows)
        seen.extend(batch["input_ids"][:, 0].tolist())
        return batch

    model = tiny()
    before = model.model.embed_tokens.weight.detach().clone()
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), max_steps=4, per_device_train_batch_size=8, use_cpu=True, report_to=[],
        disable_tqdm=True, save_strategy="no", logging_strategy="no", remove_unused_columns=False,
    )  # fmt: skip
    rows = [{"ids": [1 + i % 2, 4, 5, 6]} for i in range(32)]
    transformers.Trainer(model=model, args=arguments, train_dataset=rows, data_collator=counted).train()
    assert len(seen) == 32
    assert 0 < seen.count(0) < 32
    assert not torch.equal(model.model.embed_tokens.weight, before)


def test_the_loop_runs_under_accelerate_in_bf16(tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate")
    accelerate.state.AcceleratorState._reset_state(True)  # one configuration a process, and a Trainer has set its own
    accelerator = accelerate.Accelerator(cpu=True, mixed_precision="bf16")
    module = torch.nn.Linear(3, 1)
    prepared = accelerator.prepare(module)
    kinds: list[torch.dtype] = []

    def loss(step: int) -> torch.Tensor:
        data = torch.randn(64, 3, generator=torch.Generator().manual_seed(step))
        with accelerator.autocast():
            kinds.append(torch.nn.functional.linear(data, module.weight).dtype)
        return (prepared(data).squeeze(1) - data.sum(1)).square().mean()

    settings = {"steps": 60, "learning_rate": 5e-2, "checkpoint": tmp_path / "c.pt", "accelerator": accelerator}
    losses = fit(module, loss, **settings)
    assert set(kinds) == {torch.bfloat16}
    assert losses[-1] < 0.1 * losses[0]
    assert (
        fit(module, loss, steps=60, learning_rate=5e-2, checkpoint=tmp_path / "c.pt", accelerator=accelerator) == losses
    )


def test_an_interrupted_run_ends_like_an_uninterrupted_one(tmp_path: Path) -> None:
    def run(checkpoint: Path | None, stop: int | None) -> torch.nn.Linear:
        torch.manual_seed(0)
        module = torch.nn.Linear(3, 1)

        def loss(step: int) -> torch.Tensor:
            if step == stop:
                raise KeyboardInterrupt
            data = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
            return (module(data) - data.sum(1, keepdim=True)).square().mean()

        fit(module, loss, steps=30, learning_rate=0.05, warmup=3, checkpoint=checkpoint, save_every=10)
        return module

    whole = run(None, None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "c.pt", 17)
    assert torch.equal(run(tmp_path / "c.pt", None).weight, whole.weight)
    assert torch.equal(run(tmp_path / "c.pt", 0).weight, whole.weight)  # finished: no step is taken
    module = torch.nn.Linear(1, 1)
    with pytest.raises(FloatingPointError, match="step 0"):
        fit(module, lambda _: module.weight.sum() * float("nan"), steps=1, learning_rate=0.1)
