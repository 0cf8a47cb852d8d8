"""VoxInstruct's second stage: what it sees, what it hides, and how it fills codebooks."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from guiderail.guidance.token_models import VOXINSTRUCT_TOKENS  # noqa: E402
from guiderail.training.voxinstruct import VoxInstructNar  # noqa: E402

START, CODEBOOKS, SEMANTIC = VOXINSTRUCT_TOKENS["acoustic"].start, 4, VOXINSTRUCT_TOKENS["semantic"].start


def model_of(seed: int = 0) -> VoxInstructNar:
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=len(VOXINSTRUCT_TOKENS), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    return VoxInstructNar(config, 6, CODEBOOKS).eval()


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def batch(rows: int = 3, semantic: int = 4, acoustic: int = 6) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    features, text_mask = torch.randn(rows, 5, 6, generator=generator), torch.ones(rows, 5)
    first = torch.randint(500, (rows, semantic, 1), generator=generator) + SEMANTIC
    second = torch.randint(1024, (rows, acoustic, CODEBOOKS), generator=generator) + START
    ids = torch.cat([first.expand(-1, -1, CODEBOOKS), second], 1)
    segments = torch.tensor([[1] * semantic + [2] * acoustic]).repeat(rows, 1)
    return features, text_mask, ids, segments


@torch.no_grad()
def test_it_reads_both_ways_and_padding_says_nothing() -> None:
    model, (features, text_mask, ids, segments) = model_of(), batch()
    codebook = torch.tensor([1, 2, 3])
    whole = model(features, text_mask, ids, segments, codebook)
    assert whole.shape == (3, 10, 1024)
    later = ids.clone()
    later[:, -1, 0] = START
    changed = model(features, text_mask, later, segments, codebook)
    assert float((changed - whole)[:, 0].abs().max()) > 1e-6  # the first position sees the last
    longer = torch.cat([ids, torch.randint(1, 500, (3, 2, CODEBOOKS))], 1)
    more = torch.cat([segments, torch.zeros(3, 2, dtype=torch.long)], 1)
    torch.testing.assert_close(model(features, text_mask, longer, more, codebook)[:, :10], whole, atol=1e-5, rtol=1e-5)
    # Each row answers for its own codebook, whatever the others ask.
    alone = model(features[1:2], text_mask[1:2], ids[1:2], segments[1:2], codebook[1:2])
    torch.testing.assert_close(alone[0], whole[1], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_dropped_text_is_no_text() -> None:
    model, (features, text_mask, ids, segments) = model_of(), batch()
    codebook, dropped = torch.tensor([1, 1, 1]), torch.tensor([True, False, True])
    mixed = model(features, text_mask, ids, segments, codebook, drop_text=dropped)
    absent = model(features, torch.zeros_like(text_mask), ids, segments, codebook)
    present = model(features, text_mask, ids, segments, codebook)
    torch.testing.assert_close(mixed[dropped], absent[dropped])
    torch.testing.assert_close(mixed[~dropped], present[~dropped])


def test_hiding_follows_the_published_masks() -> None:
    model, (_, _, ids, segments) = model_of(), batch(rows=200, acoustic=20)
    codebook = torch.randint(1, CODEBOOKS, (200,), generator=torch.Generator().manual_seed(2))
    seen, targets = model.hide(ids, segments, codebook, torch.Generator().manual_seed(3), no_prompt_probability=0.0)
    assert bool((seen[segments == 1] == ids[segments == 1]).all())  # semantic positions stay
    assert not bool(targets[segments == 1].any())
    prompts = []
    for row in range(200):
        q, hidden = int(codebook[row]), targets[row, 4:]
        acoustic, truth = seen[row, 4:], ids[row, 4:]
        assert int(hidden.sum()) >= 1
        assert bool((acoustic[:, :q] == truth[:, :q]).all())
        assert bool((acoustic[hidden, q] == 0).all())
        assert bool((acoustic[~hidden, q] == truth[~hidden, q]).all())
        if q + 1 < CODEBOOKS:  # codebooks above are known in the prompt alone, which is a beginning
            known = (acoustic[:, q + 1 :] > 0).all(1)
            prompts.append(int(known.sum()))
            assert bool(known[: prompts[-1]].all())
            assert not bool((acoustic[~known][:, q + 1 :] > 0).any())
            assert not bool(hidden[known].any())
    assert 7 < sum(prompts) / len(prompts) < 12  # half of twenty
    _, targets = model.hide(ids, segments, codebook, torch.Generator().manual_seed(3), no_prompt_probability=1.0)
    # Without a prompt the mean hidden share is the mean of cos(pi u / 2): 2 / pi.
    assert float(targets[:, 4:].float().mean()) == pytest.approx(2 / 3.14159, abs=0.06)
    with pytest.raises(ValueError, match="acoustic position"):
        model.hide(ids, torch.ones_like(segments), codebook)


def test_completing_fills_what_is_open_and_nothing_else() -> None:
    model, (features, text_mask, ids, segments) = model_of(), batch()
    prompts = torch.tensor([0, 2, 6])
    done = model.complete(features, text_mask, ids, segments, prompts, iterations=3)
    assert torch.equal(done[:, :, 0], ids[:, :, 0])
    assert torch.equal(done[segments == 1], ids[segments == 1])
    assert torch.equal(done[1, 4:6], ids[1, 4:6])
    assert torch.equal(done[2], ids[2])
    legal = VOXINSTRUCT_TOKENS["acoustic"]
    assert bool(((done[:, 4:] >= legal.start) & (done[:, 4:] < legal.stop)).all())
    # One iteration is the arg-max, codebook by codebook.
    by_hand = ids[:1].clone()
    by_hand[:, 4:, 1:] = 0
    for q in range(1, CODEBOOKS):
        best = model(features[:1], text_mask[:1], by_hand, segments[:1], torch.tensor([q])).argmax(-1)
        by_hand[:, 4:, q] = best[:, 4:] + START
    once = model.complete(features[:1], text_mask[:1], ids[:1], segments[:1], prompts[:1], iterations=1)
    assert torch.equal(once, by_hand)


def test_it_learns_a_codec_and_guidance_reads_the_null() -> None:
    """Codebook q holds code (first + 3 q) mod 8: learned in seconds, then filled without error."""
    model, generator = model_of().train(), torch.Generator().manual_seed(5)
    features, text_mask = torch.zeros(32, 1, 6), torch.zeros(32, 1)
    segments = torch.tensor([[1] * 2 + [2] * 5]).repeat(32, 1)

    def rows() -> torch.Tensor:
        first = torch.randint(8, (32, 5, 1), generator=generator)
        codes = (first + 3 * torch.arange(CODEBOOKS)) % 8 + START
        semantic = torch.full((32, 2, CODEBOOKS), SEMANTIC)
        return torch.cat([semantic, codes], 1)

    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(150):
        codebook = torch.randint(1, CODEBOOKS, (32,), generator=generator)
        loss = model.loss(features, text_mask, rows(), segments, codebook, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    truth = rows()
    model.eval()
    for scale in (1.0, 2.0):
        done = model.complete(
            features, text_mask, truth, segments, torch.zeros(32, dtype=torch.long), iterations=2, text_scale=scale
        )
        assert float((done == truth).float().mean()) > 0.97
