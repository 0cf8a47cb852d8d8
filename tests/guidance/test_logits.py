"""Every rule against its formula in float64, the identities that must hold, and no nan whatever is banned."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from guiderail import logits as rules
from guiderail.logits import schedules
from oracles import guidance_reference as reference

VOCAB = 17


def rows(seed: int, count: int, batch: int = 3, spread: float = 2.0, vocab: int = VOCAB) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, vocab, generator=generator) * spread for _ in range(count)]


def assert_rowwise(result: Tensor, expected: Callable[[int], np.ndarray]) -> None:
    assert result.dtype == torch.float32
    for row in range(result.shape[0]):
        np.testing.assert_allclose(result[row].numpy(), expected(row), rtol=0, atol=2e-4)


def numpy_rows(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.double().numpy() for tensor in tensors]


@pytest.mark.parametrize("scale", [-1.5, 0.0, 0.5, 1.0, 1.5, 7.5])
def test_classifier_free(scale: float) -> None:
    c, u = rows(1, 2)
    cn, un = numpy_rows(c, u)
    guided = rules.classifier_free_guidance(c, u, scale)
    if scale == 1.0:
        assert torch.equal(guided, c)
    else:
        assert_rowwise(guided, lambda i: reference.affine([cn[i], un[i]], [scale, 1 - scale]))
        torch.testing.assert_close(guided.logsumexp(-1), torch.zeros(3), atol=1e-5, rtol=0)


def test_one_scale_per_row_and_off_is_bit_for_bit() -> None:
    c, u = rows(2, 2)
    scale = torch.tensor([1.0, 0.0, 3.0])
    guided = rules.classifier_free_guidance(c, u, scale)
    assert torch.equal(guided[0], c[0])
    torch.testing.assert_close(guided[1], u[1].log_softmax(-1))
    torch.testing.assert_close(guided[2], rules.classifier_free_guidance(c[2], u[2], 3.0))
    codebooks = rules.classifier_free_guidance(c.reshape(1, 3, VOCAB), u.reshape(1, 3, VOCAB), scale.reshape(1, 3))
    torch.testing.assert_close(codebooks[0], guided)
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="finite"):
            rules.classifier_free_guidance(c, u, bad)
    with pytest.raises(ValueError, match="shape"):
        rules.classifier_free_guidance(c, u[:2], 1.5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_streams_are_combined_in_float32(dtype: torch.dtype) -> None:
    c, u = (tensor.to(dtype) for tensor in rows(3, 2))
    guided = rules.classifier_free_guidance(c, u, 3.0)
    cn, un = numpy_rows(c, u)
    assert_rowwise(guided, lambda i: reference.affine([cn[i], un[i]], [3.0, -2.0]))
    assert torch.equal(rules.classifier_free_guidance(c, u, 1.0), c.float())


CONVENTIONS = ["canonical", "captioning", "transformers", "llamagen", "voxinstruct", "ho-salimans", "var",
               "context-aware", "contrastive-beta", "maskgit-weight"]  # fmt: skip


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_scale_conventions_round_trip(convention: str) -> None:
    for value in (-1.0, 0.0, 0.7, 4.0):
        assert rules.scale_in_convention(rules.canonical_scale(value, convention), convention) == pytest.approx(value)
    c, u = rows(4, 2, batch=1)
    written = 0.6
    if convention in ("canonical", "captioning", "transformers", "llamagen", "voxinstruct"):
        direct = u.log_softmax(-1) + written * (c.log_softmax(-1) - u.log_softmax(-1))
    else:
        direct = (1 + written) * c.log_softmax(-1) - written * u.log_softmax(-1)
    guided = rules.classifier_free_guidance(c, u, rules.canonical_scale(written, convention))
    torch.testing.assert_close(guided, direct.log_softmax(-1), atol=1e-5, rtol=0)


def test_an_unknown_convention_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown scale convention"):
        rules.canonical_scale(1.0, "diffusion")


def test_multi_condition_weights() -> None:
    assert rules.nested_weights(3.0, 1.5) == (4.5, -3.0, -0.5)
    c, inner, outer = rows(5, 3, batch=1)
    lc, li, lo = (row.log_softmax(-1) for row in (c, inner, outer))
    middle = li + 3.0 * (lc - li)
    expected = (lo + 1.5 * (middle - lo)).log_softmax(-1)
    nested = rules.affine_combination([c, inner, outer], rules.nested_weights(3.0, 1.5))
    torch.testing.assert_close(nested, expected, atol=1e-5, rtol=0)

    assert rules.factored_weights([2.0, 3.0]) == (4.0, -1.0, -2.0)
    # chained: g = l0 + 2 (l1 - l0) + 3 (l2 - l1), weights of (l2, l1, l0)
    assert rules.chained_weights([2.0, 3.0]) == (3.0, -1.0, -1.0)
    # g = n + 2 (c - n) + (1.5 - 1)(c - x)
    assert rules.style_context_weights(2.0, 1.5) == (2.5, -1.0, -0.5)
    for weights in (
        rules.nested_weights(1.0, 1.0),
        rules.factored_weights([1.0, 1.0]),
        rules.chained_weights([1.0, 1.0]),
        rules.style_context_weights(1.0, 1.0),
    ):
        assert weights == (1.0, 0.0, 0.0)
    signed = rules.signed_prompt_guidance(c, [inner, outer], [0.25, -0.5])
    cn, i_n, o_n = numpy_rows(c, inner, outer)
    assert_rowwise(signed, lambda i: reference.affine([cn[i], i_n[i], o_n[i]], [1.25, 0.25, -0.5]))


def test_untrained_null_combinations_are_refused() -> None:
    trained = [frozenset({"text"}), frozenset({"speech"})]
    rules.require_trained_nulls([frozenset({"text"}), frozenset()], trained)
    with pytest.raises(ValueError, match=r"speech \+ text"):
        rules.require_trained_nulls([frozenset({"text", "speech"})], trained)


@pytest.mark.parametrize("alpha", [0.0, 0.1, 1.0])
def test_contrastive_and_dola(alpha: float) -> None:
    e, a, b = rows(6, 3)
    en, an, bn = numpy_rows(e, a, b)
    assert_rowwise(
        rules.contrastive_guidance(e, a, 1.5, alpha), lambda i: reference.contrastive(en[i], an[i], 1.5, alpha)
    )
    assert_rowwise(
        rules.layer_contrast(e, torch.stack([a, b]), alpha), lambda i: reference.dola(en[i], [an[i], bn[i]], alpha)
    )
    assert torch.equal(rules.contrastive_guidance(e, a, 1.0, 1.0), e)


def test_plausibility_looks_at_legal_tokens_only() -> None:
    expert = torch.tensor([[10.0, 1.0, 0.9, -5.0]])
    legal = torch.tensor([[False, True, True, True]])
    packed = np.array([[0b1110]], dtype=np.int32)
    assert rules.plausible_tokens(expert, 0.1).tolist() == [[True, False, False, False]]
    for allowed in (legal, packed, torch.from_numpy(packed)):
        assert rules.plausible_tokens(expert, 0.1, allowed).tolist() == [[False, True, True, False]]
    banned_by_stream = expert.masked_fill(legal, -math.inf)
    assert rules.plausible_tokens(banned_by_stream, 0.1, legal).tolist() == legal.tolist()
    with pytest.raises(ValueError, match="alpha"):
        rules.plausible_tokens(expert, 1.5)


def test_expert_rules() -> None:
    b, e, a = rows(7, 3)
    bn, en, an = numpy_rows(b, e, a)
    assert_rowwise(rules.experts_guidance(b, e, a, 2.0), lambda i: reference.affine([bn[i], en[i], an[i]], [1, 2, -2]))
    assert torch.equal(rules.experts_guidance(b, e, a, 0.0), b)
    truncated = rules.experts_guidance(b, e, a, 2.0, base_top_p=0.6)
    assert torch.equal(truncated > -math.inf, rules.top_p_tokens(b, 0.6))
    torch.testing.assert_close(rules.proxy_tuning(b, e, a), rules.experts_guidance(b, e, a, 1.0))
    torch.testing.assert_close(rules.context_aware_guidance(b, a, 0.5), rules.classifier_free_guidance(b, a, 1.5))
    torch.testing.assert_close(rules.realignment(b, a, 2.0), rules.classifier_free_guidance(b, a, 2.0))
    # with q = p_null, caption guidance by a language model is classifier-free guidance
    torch.testing.assert_close(
        rules.language_model_caption_guidance(a, b, a, 1.0, 2.0), rules.classifier_free_guidance(b, a, 2.0)
    )
    confident = rules.classifier_reference_guidance(b, a, torch.ones(3), 5.0)
    assert torch.equal(confident, b)
    torch.testing.assert_close(
        rules.classifier_reference_guidance(b, a, torch.full((3,), 0.5), 5.0), rules.classifier_free_guidance(b, a, 3.0)
    )


def test_prefix_classifier_rescales_its_candidates_only() -> None:
    (b,) = rows(8, 1)
    candidates = b.topk(4).indices
    attribute = torch.log(torch.tensor([[0.9, 0.1, 0.5, 0.2]]).expand(3, 4))
    guided = rules.prefix_classifier_guidance(b, attribute, candidates, 2.0)
    assert ((guided > -math.inf).sum(-1) == 4).all()
    expected = (b.log_softmax(-1).gather(-1, candidates) + 2 * attribute).log_softmax(-1)
    torch.testing.assert_close(guided.gather(-1, candidates), expected)
    assert torch.equal(rules.prefix_classifier_guidance(b, attribute, candidates, 0.0), b)


@pytest.mark.parametrize(("rho", "tau"), [(None, 0.8), (0.2, 0.8), (0.9, 0.5), (0.0, 1.0)])
def test_gedi(rho: float | None, tau: float) -> None:
    b, p, n = rows(9, 3)
    bn, pn, nn = numpy_rows(b, p, n)
    sums = torch.tensor([[-3.0, -5.0], [0.0, 0.0], [-40.0, -38.0]])
    length = torch.tensor([3.0, 1.0, 20.0])
    posterior = rules.gedi_class_posterior(
        p, n, sums[:, 0], sums[:, 1], length, logit_scale=1.7, desired_bias=0.3, undesired_bias=-0.2
    )
    guided = rules.gedi_guidance(b, posterior, 5.0, filter_mass=rho, filter_threshold=tau)

    def expected(i: int) -> np.ndarray:
        pair = (float(sums[i, 0]), float(sums[i, 1]))
        return reference.gedi(bn[i], pn[i], nn[i], pair, float(length[i]), 5.0, 1.7, (0.3, -0.2), rho, tau)

    for row in range(3):
        want = expected(row)
        got = guided[row].double().numpy()
        np.testing.assert_array_equal(got < -5_000, want < -5_000)
        np.testing.assert_allclose(got[want > -5_000], want[want > -5_000], atol=2e-4)
    assert torch.equal(rules.gedi_guidance(b, posterior, 0.0), b)


def test_gedi_fades_with_length_as_derived() -> None:
    """alpha = 10, omega = 30: a gap of 2 against -2 nats is worth 600 at T = 1 and 6 at T = 100 in the class logit."""
    base, plus, minus = torch.zeros(1, 2), torch.tensor([[2.0, -2.0]]), torch.tensor([[-2.0, 2.0]])
    slope = {}
    for length in (1, 100):
        # far below saturation: start from a prefix that is clearly out of class
        posterior = rules.gedi_class_posterior(plus, minus, -400.0 * length, 0.0, float(length), logit_scale=10.0)
        guided = base.log_softmax(-1) + 30.0 * posterior
        slope[length] = float(guided[0, 0] - guided[0, 1])
    # both codes move, so the difference of the class logits is 2 * 4 nats * alpha / T
    assert slope[1] == pytest.approx(30 * 10 * 8, rel=1e-3)
    assert slope[1] / slope[100] == pytest.approx(100, rel=1e-2)


@pytest.mark.parametrize(("eta", "limit"), [(0.0, None), (1.0, None), (0.5, 0.7), (0.0, 100.0)])
def test_projected(eta: float, limit: float | None) -> None:
    c, u = rows(10, 2)
    cn, un = numpy_rows(c, u)
    guided = rules.adaptive_projected_guidance(c, u, 3.0, eta, limit)
    assert_rowwise(guided, lambda i: reference.projected(cn[i], un[i], 3.0, eta, limit))
    assert torch.equal(rules.adaptive_projected_guidance(c, u, 1.0, eta, limit), c)
    if eta == 1.0 and limit is None:
        torch.testing.assert_close(guided, rules.classifier_free_guidance(c, u, 3.0), atol=1e-4, rtol=0)


def test_a_pure_temperature_change_has_no_orthogonal_part() -> None:
    (c,) = rows(11, 1)
    same = rules.adaptive_projected_guidance(c, 0.5 * c, 4.0, parallel_weight=0.0)
    torch.testing.assert_close(same, c.log_softmax(-1), atol=1e-4, rtol=0)


def test_rescale_is_a_temperature_and_entropy_matching_matches() -> None:
    c, u = rows(12, 2, vocab=200)
    guided = u + 3 * (c - u)
    phi = 0.75
    ratio = c.std(-1, keepdim=True) / guided.std(-1, keepdim=True)
    rescaled = phi * guided * ratio + (1 - phi) * guided
    temperature = rules.rescale_temperature(guided, c, phi)
    torch.testing.assert_close(rules.apply_temperature(guided, temperature), rescaled, rtol=1e-4, atol=1e-4)
    matched = rules.entropy_matched(guided, c)
    torch.testing.assert_close(rules.entropy(matched), rules.entropy(c), atol=1e-3, rtol=0)
    assert torch.equal(matched.argmax(-1), guided.argmax(-1))
    with pytest.raises(ValueError, match="temperature"):
        rules.apply_temperature(c, 0.0)


def test_step_normalisers_are_renyi_divergences() -> None:
    """log Z_t = (s - 1) D_s(p_c || p_u): >= 0 above 1, <= 0 between 0 and 1, and 0 at 1."""
    c, u = rows(13, 2)
    for scale in (0.3, 1.0, 1.5, 4.0):
        log_z = rules.log_normalizer(rules.unnormalized_combination([c, u], [scale, 1 - scale]))
        torch.testing.assert_close(log_z, (scale - 1) * rules.renyi_divergence(c, u, scale), atol=1e-5, rtol=1e-4)
        assert (log_z * (scale - 1) >= -1e-6).all()
    kl = torch.nn.functional.kl_div(u.log_softmax(-1), c.log_softmax(-1), log_target=True, reduction="none").sum(-1)
    torch.testing.assert_close(rules.renyi_divergence(c, u, 1.0), kl)


def test_weights_from_step_normalisers_recover_the_sequence_target() -> None:
    """Two steps, three tokens: local normalisation is off, importance weights make it exact."""
    generator = torch.Generator().manual_seed(5)
    first_c, first_u = torch.randn(2, 3, generator=generator).unbind(0)
    second_c, second_u = torch.randn(2, 3, 3, generator=generator).unbind(0)
    scale = 2.5
    weights = [scale, 1 - scale]
    joint = (
        rules.unnormalized_combination([first_c, first_u], weights).unsqueeze(1)
        + rules.unnormalized_combination([second_c, second_u], weights)
    ).exp()  # fmt: skip
    target = joint / joint.sum()
    first = rules.classifier_free_guidance(first_c, first_u, scale).exp()
    second = rules.classifier_free_guidance(second_c, second_u, scale).exp()
    proposal = first.unsqueeze(1) * second
    step_z = rules.log_normalizer(rules.unnormalized_combination([second_c, second_u], weights)).exp()
    weighted = proposal * step_z.unsqueeze(1)
    weighted = weighted / weighted.sum()
    assert float((proposal - target).abs().sum()) > 0.01
    torch.testing.assert_close(weighted, target, atol=1e-6, rtol=0)


def test_truncation() -> None:
    scores = torch.log(torch.tensor([[0.5, 0.25, 0.15, 0.1]]))
    assert rules.top_k_tokens(scores, 2).tolist() == [[True, True, False, False]]
    assert rules.top_p_tokens(scores, 0.6).tolist() == [[True, True, False, False]]  # the token that crosses p stays
    assert rules.top_p_tokens(scores, 0.0).tolist() == [[True, False, False, False]]
    assert rules.min_p_tokens(scores, 0.25).tolist() == [[True, True, True, False]]
    kept = rules.truncate(scores, top_k=3, top_p=0.9, min_p=0.0)
    # 0.15 starts at 0.75 / 0.9 = 0.83 of the mass that top-k left, below 0.9
    assert torch.isfinite(kept).tolist() == [[True, True, True, False]]
    only = torch.tensor([[-math.inf, 3.0, -math.inf]])
    assert rules.truncate(only, top_k=5, top_p=0.1, min_p=1.0).tolist() == only.tolist()
    for call in (lambda: rules.top_k_tokens(scores, 0), lambda: rules.top_p_tokens(scores, 1.1),
                 lambda: rules.min_p_tokens(scores, -0.1)):  # fmt: skip
        with pytest.raises(ValueError, match=r"top-|min-"):
            call()


def test_schedules() -> None:
    assert [schedules.interval(4.0, 1, 3)(t) for t in range(5)] == [1.0, 4.0, 4.0, 1.0, 1.0]
    ramp = schedules.linear_ramp(rules.canonical_scale(1.5, "var"), 10)
    assert [ramp(i) - 1 for i in range(10)] == pytest.approx([1.5 * i / 9 for i in range(10)])
    cosine = schedules.power_cosine(6.0, 64, 1.15)
    assert cosine(0) == 1.0
    assert cosine(64) == pytest.approx(6.0)
    assert cosine(20) == pytest.approx(1 + 5 * (1 - math.cos(math.pi * (20 / 64) ** 1.15)) / 2)
    assert [schedules.per_codebook([1.0, 2.0])(t) for t in range(4)] == [1.0, 2.0, 1.0, 2.0]
    assert [schedules.per_position([3.0], after=2.0)(t) for t in range(2)] == [3.0, 2.0]
    region = schedules.per_region(schedules.constant(3.0), lambda t: "mouth" if t < 2 else "sky", {"mouth": 0.5})
    assert [region(t) for t in range(3)] == [2.0, 2.0, 1.0]
    grow = schedules.length_compensated(30.0, 10, 1.0)
    assert (grow(9), grow(19)) == (30.0, 60.0)


def test_adaptive_stop_folds_evidence_and_probes() -> None:
    policy = rules.AdaptiveStop(threshold=0.1, patience=2, probe_every=3)
    state, ran = rules.StopState(), []
    divergences = iter([0.5, 0.01, 0.01, 0.01, 0.9, 0.9])
    for step in range(9):
        if policy.wants_stream(state, step):
            ran.append(step)
            state = policy.advance(state, step, next(divergences))
    # quiet at 1 and 2 -> stopped at 2; probed at 5 (still quiet), probed again at 8 (loud: running)
    assert ran == [0, 1, 2, 5, 8]
    assert state == rules.StopState()


def test_choose_scale_takes_the_best_per_row() -> None:
    table = {1.0: torch.tensor([0.1, 0.9]), 2.0: torch.tensor([0.7, 0.2])}
    assert rules.choose_scale([1.0, 2.0], table.__getitem__).tolist() == [2.0, 1.0]
    with pytest.raises(ValueError, match="nan"):
        rules.choose_scale([1.0], lambda scale: torch.tensor([math.nan]))


ODD_VALUES = st.sampled_from([0.0, 1.0, -3.0, 40.0, -math.inf, -3.4e38, -65504.0, math.nan])
ROW = st.lists(ODD_VALUES, min_size=6, max_size=6)
SCALES = st.sampled_from([-2.0, 0.0, 0.3, 1.0, 1.5, 30.0])


@settings(max_examples=60)
@given(ROW, ROW, ROW, SCALES, st.sampled_from([0.0, 0.1, 1.0]), st.integers(0, 63))
def test_never_nan_and_never_a_banned_token_back(
    first: list[float], second: list[float], third: list[float], scale: float, alpha: float, legal_bits: int
) -> None:
    c, u, o = (torch.tensor([row]) for row in (first, second, third))
    legal = torch.tensor([[bool(legal_bits >> v & 1) for v in range(6)]])
    banned = ~(c > -1e20)
    posterior = rules.gedi_class_posterior(u, o, -3.0, -2.0, 4.0)
    results = {
        "affine": rules.classifier_free_guidance(c, u, scale),
        "signed": rules.signed_prompt_guidance(c, [u, o], [scale, -scale]),
        "nested": rules.affine_combination([c, u, o], rules.nested_weights(scale, 1.5)),
        "contrastive": rules.contrastive_guidance(c, u, scale, alpha, legal),
        "difference": rules.contrastive_difference(c, u, alpha, 1.0, legal),
        "dola": rules.layer_contrast(c, torch.stack([u, o]), alpha, legal),
        "experts": rules.experts_guidance(c, u, o, scale, 0.9),
        "projected": rules.adaptive_projected_guidance(c, u, scale, 0.0, 2.0),
        "gedi": rules.gedi_guidance(c, posterior, scale),
        "entropy matched": rules.entropy_matched(rules.classifier_free_guidance(c, u, scale), c),
    }
    assert not torch.isnan(posterior).any()
    # A rule that is off hands its input through untouched, whatever is in it.
    off_at = {"affine": 1.0, "signed": 0.0, "contrastive": 1.0, "experts": 0.0, "projected": 1.0, "gedi": 0.0}
    for name, result in results.items():
        if off_at.get(name) == scale:
            continue
        assert not torch.isnan(result).any(), (name, result)
        assert not (result == math.inf).any(), (name, result)
        assert (result[banned] == -math.inf).all(), (name, result)
        if bool((~banned).any()):
            assert (result > -math.inf).any(), (name, result)
    keep = rules.plausible_tokens(c, alpha, legal)
    assert bool(keep.any()) == bool(legal.any())
    for kept in (rules.top_k_tokens(results["nested"], 2), rules.top_p_tokens(results["nested"], 0.5)):
        assert bool(kept.any()) == bool((~banned).any())


def test_a_ban_in_the_null_stream_alone_does_not_win() -> None:
    c = torch.tensor([[0.0, 0.0, 2.0]])
    u = torch.tensor([[-math.inf, 0.0, 0.0]])
    for scale in (-1.0, 0.0, 1.5, 50.0):
        guided = rules.classifier_free_guidance(c, u, scale)
        assert torch.isfinite(guided).all()
        # read as the least the null stream still allows: on a par with the other unlikely token, not above everything
        torch.testing.assert_close(guided[0, 0], guided[0, 1])


@pytest.mark.parametrize("scale", [-2.0, 0.0, 1.0, 3.0, 200.0])
def test_guide_first_mask_last_leaves_a_distribution_over_legal_tokens(scale: float) -> None:
    c, u = rows(14, 2, spread=8.0)
    legal = torch.rand(3, VOCAB, generator=torch.Generator().manual_seed(0)) < 0.2
    legal[:, 0] = True
    guided = rules.classifier_free_guidance(c, u, scale).masked_fill(~legal, -math.inf)
    probabilities = guided.softmax(-1)
    assert torch.isfinite(probabilities).all()
    assert (probabilities[~legal] == 0).all()
