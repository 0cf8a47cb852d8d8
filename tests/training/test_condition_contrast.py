"""CCA against an enumerable world in which the guided distribution is known exactly."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from guiderail.training import (  # noqa: E402
    ConditionOffsets,
    RolledConditions,
    condition_contrastive_loss,
    preference_loss,
    unlearning_loss,
)


def tuned(beta: float, weight: float, with_offset: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Exact expectation of the loss over 8 outcomes and 3 conditions, minimised: (p_ref, marginal, log p_tuned)."""
    generator = torch.Generator().manual_seed(3)
    reference = torch.log_softmax(1.5 * torch.randn(3, 8, generator=generator, dtype=torch.float64), -1)
    marginal = reference.exp().mean(0).log()
    logits = torch.nn.Parameter(reference.clone())
    offsets = ConditionOffsets(3).double()
    parameters = [logits, *(offsets.parameters() if with_offset else [])]
    optimizer = torch.optim.LBFGS(
        parameters, lr=1, max_iter=3000, tolerance_grad=1e-12, tolerance_change=1e-15, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        ratio = torch.log_softmax(logits, -1) - reference
        shift = offsets(torch.arange(3))[:, None].expand(3, 8)
        # Every outcome as a batch of its own, weighted by how often it is a matched and a mismatched example.
        total = torch.zeros((), dtype=torch.float64)
        for condition in range(3):
            for outcome in range(8):
                r, b = ratio[condition, outcome], shift[condition, outcome]
                never = torch.tensor(-1e4, dtype=torch.float64)  # a ratio whose negative term is 0
                positive = condition_contrastive_loss(
                    r[None], never[None], beta=beta, negative_weight=0.0, matched_offset=b
                )
                both = condition_contrastive_loss(
                    r[None], r[None], beta=beta, negative_weight=weight, matched_offset=b, mismatched_offset=b
                ) * max(weight, 1.0)
                total = total + reference[condition, outcome].exp() * positive
                total = total + marginal[outcome].exp() * (both - positive)
        total.backward()
        return total

    optimizer.step(closure)
    return reference, marginal, torch.log_softmax(logits, -1).detach()


@pytest.mark.parametrize(("beta", "weight"), [(1.0, 1.0), (1.0, 10.0), (0.5, 3.0)])
def test_with_offsets_the_optimum_is_the_guided_distribution(beta: float, weight: float) -> None:
    reference, marginal, result = tuned(beta, weight, with_offset=True)
    guided = torch.log_softmax(reference + (reference - marginal) / beta, -1)
    divergence = (guided.exp() * (guided - result)).sum(-1)
    assert divergence.max() < 1e-3


def test_without_offsets_it_is_not() -> None:
    reference, marginal, result = tuned(1.0, 10.0, with_offset=False)
    guided = torch.log_softmax(reference + (reference - marginal), -1)
    assert (guided.exp() * (guided - result)).sum(-1).max() > 1e-2


def test_loss_by_hand() -> None:
    def softplus(x: float) -> float:
        return float(torch.nn.functional.softplus(torch.tensor(x)))

    matched, mismatched = torch.tensor([2.0, -1.0]), torch.tensor([1.0, 3.0])
    loss = condition_contrastive_loss(
        matched, mismatched, beta=0.5, negative_weight=4.0, no_negative=torch.tensor([False, True])
    )
    expected = (softplus(-1.0) + 4 * softplus(0.5) + softplus(0.5) + softplus(-1.5)) / 2 / 4
    assert loss.item() == pytest.approx(expected)
    assert preference_loss(matched, mismatched, beta=0.5).item() == pytest.approx((softplus(-0.5) + softplus(2.0)) / 2)
    assert unlearning_loss(matched, mismatched, negative_weight=2.0).item() == pytest.approx((2 * 2.0 - 0.5) / 2)


def test_refusals() -> None:
    one = torch.zeros(1)
    with pytest.raises(ValueError, match="beta"):
        condition_contrastive_loss(one, one, beta=0.0)
    with pytest.raises(ValueError, match="differ"):
        condition_contrastive_loss(one, torch.zeros(2))
    with pytest.raises(ValueError, match="null"):
        RolledConditions(torch.arange(3), None, 0.1)


def test_rolled_conditions() -> None:
    halves = RolledConditions(torch.tensor([0, 0, 1, 2]), None, 0.0)
    assert halves.mismatched.tolist() == [2, 0, 0, 1]
    assert halves.no_negative.tolist() == [False, True, False, False]
    generator = torch.Generator().manual_seed(0)
    many = RolledConditions(torch.arange(1000) % 10, 10, 0.1, generator)
    assert 60 < int((many.matched == 10).sum()) < 140
    assert torch.equal(many.matched == 10, many.mismatched == 10)
    assert torch.equal(many.no_negative, many.matched == 10)
