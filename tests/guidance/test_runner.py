"""The runner against fresh forward passes, on walks nobody plans: extend, roll back, fork, pause, return, all at
once."""

from __future__ import annotations

import pytest
import torch

from guidance import models
from guiderail.guidance import runner as runner_module
from guiderail.guidance.perturbation import IdentityAttention, SkipLayers
from guiderail.guidance.runner import Request, StreamRunner
from oracles import guidance_reference as reference


def fresh_logits(model: torch.nn.Module, tokens: tuple[int, ...]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([tokens]), use_cache=False).logits[0, -1]


def walk(seed: int, steps: int, width: int) -> list[list[tuple[int, tuple[int, ...]]]]:
    """Rounds of (owner, tokens) requests: four sequences that grow, jump, fall back, copy one another, or sit a round
    out."""
    generator = torch.Generator().manual_seed(seed)

    def draw(high: int) -> int:
        return int(torch.randint(high, (), generator=generator))

    sequences = [tuple(draw(models.VOCAB) for _ in range(2 + draw(5))) for _ in range(width)]
    prompts = [len(sequence) for sequence in sequences]
    rounds = []
    for _ in range(steps):
        asked = []
        for owner in range(width):
            move = draw(10)
            if move == 0:
                continue  # pause
            if move == 1 and len(sequences[owner]) > prompts[owner] + 1:
                sequences[owner] = sequences[owner][: prompts[owner] + draw(len(sequences[owner]) - prompts[owner])]
            elif move == 2:
                other = draw(width)
                sequences[owner], prompts[owner] = sequences[other], prompts[other]
            jump = 1 + (draw(6) if move == 3 else 0)
            sequences[owner] = (*sequences[owner], *(draw(models.VOCAB) for _ in range(jump)))
            asked.append((owner, sequences[owner]))
            if move == 4:
                asked.append((owner, sequences[owner][:-1]))  # two positions of one sequence
        rounds.append(asked)
    return rounds


@pytest.mark.parametrize("family", ["llama", "gpt2", "mistral"])
@pytest.mark.parametrize("compact_above", [0, 64])
def test_random_walks(family: str, compact_above: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "_COMPACT_ABOVE", compact_above)
    model = getattr(models, family)()
    runner = StreamRunner(model)
    for asked in walk(3, 30, 4):
        requests = [Request(tokens, 2, owner=owner) for owner, tokens in asked]
        for request, answer in zip(requests, runner.evaluate(requests), strict=True):
            torch.testing.assert_close(answer.logits, fresh_logits(model, request.tokens), atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_forgetting_drops_rows_and_changes_no_result(family: str) -> None:
    model = getattr(models, family)()
    runner = StreamRunner(model)
    for number, asked in enumerate(walk(5, 12, 4)):
        for (_, tokens), answer in zip(
            asked, runner.evaluate([Request(tokens, 1, owner=owner) for owner, tokens in asked]), strict=True
        ):
            torch.testing.assert_close(answer.logits, fresh_logits(model, tokens), atol=2e-4, rtol=1e-3)
        runner.forget({number % 4})
        held = [row.owner for batch in (*runner._batches.values(), *runner._parked.values()) for row in batch.rows]
        assert number % 4 not in held
    runner.forget(range(4))
    assert not runner._batches
    assert not runner._parked


def test_compaction_happens_and_narrows_the_rectangle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "_COMPACT_ABOVE", 0)
    compacted = []
    original = runner_module._compact
    monkeypatch.setattr(
        runner_module, "_compact", lambda batch, longest: (compacted.append(longest), original(batch, longest))
    )
    runner = StreamRunner(models.llama())
    long, short = tuple(range(3, 15)), (3, 4)
    runner.evaluate([Request(long, 2), Request(short, 2)])
    for extra in range(12):
        # one row is rolled back and grows again by a block each round, the other by one token
        long = (*long[:6], *(20 + (extra + i) % 15 for i in range(6)))
        short = (*short, 5 + extra)
        answers = runner.evaluate([Request(long, 2), Request(short, 2)])
        for tokens, answer in zip((long, short), answers, strict=True):
            torch.testing.assert_close(answer.logits, fresh_logits(models.llama(), tokens), atol=2e-4, rtol=1e-3)
    assert compacted


def test_likelihoods_follow_the_tokens() -> None:
    guide = models.llama(2)
    runner = StreamRunner(guide)
    for asked in walk(5, 25, 3):
        requests = [Request(tokens, 2, with_likelihood=True, owner=owner) for owner, tokens in asked]
        for request, answer in zip(requests, runner.evaluate(requests), strict=True):
            expected = reference.log_likelihood(guide, request.tokens)
            assert answer.log_likelihood == pytest.approx(expected, abs=2e-3)
            torch.testing.assert_close(answer.logits, fresh_logits(guide, request.tokens), atol=2e-4, rtol=1e-3)


def skipped_by_hand(model: torch.nn.Module, tokens: tuple[int, ...], skipped: int) -> torch.Tensor:
    """A copy of the model without the layer."""
    layers = model.model.layers
    model.model.layers = torch.nn.ModuleList([layer for index, layer in enumerate(layers) if index != skipped])
    count, model.config.num_hidden_layers = model.config.num_hidden_layers, len(layers) - 1
    try:
        return fresh_logits(model, tokens)
    finally:
        model.model.layers, model.config.num_hidden_layers = layers, count


def identity_by_hand(model: torch.nn.Module, tokens: tuple[int, ...], perturbed: int) -> torch.Tensor:
    """The layer's attention reduced to a token's own value, by masking everything but the diagonal."""
    attention = model.model.layers[perturbed].self_attn
    original = attention.forward

    def only_self(hidden_states: torch.Tensor, **kwargs: object) -> object:
        size = hidden_states.shape[1]
        diagonal = torch.full((size, size), torch.finfo(torch.float32).min).fill_diagonal_(0.0)
        return original(hidden_states, **{**kwargs, "attention_mask": diagonal[None, None]})

    attention.forward = only_self
    try:
        return fresh_logits(model, tokens)
    finally:
        del attention.forward


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("kind", [SkipLayers, IdentityAttention])
def test_perturbed_rows_share_a_batch_with_plain_ones(layer: int, kind: type) -> None:
    model = models.llama(6, layers=3)
    by_hand = skipped_by_hand if kind is SkipLayers else identity_by_hand
    runner = StreamRunner(model)
    tokens = (4, 9, 7)
    for token in (5, 6, 8, 11):
        tokens = (*tokens, token)
        plain, weak = runner.evaluate([Request(tokens, 3), Request(tokens, 3, perturbation=kind((layer,)))])
        torch.testing.assert_close(plain.logits, fresh_logits(model, tokens), atol=2e-4, rtol=1e-3)
        torch.testing.assert_close(weak.logits, by_hand(model, tokens, layer), atol=2e-4, rtol=1e-3)
    assert runner.counts.passes == 4


def test_refusals() -> None:
    with pytest.raises(ValueError, match="at least one token"):
        StreamRunner(models.llama()).evaluate([Request((), 0)])
    with pytest.raises(TypeError, match="self_attn"):
        StreamRunner(models.gpt2()).evaluate([Request((3,), 1, perturbation=IdentityAttention((0,)))])
