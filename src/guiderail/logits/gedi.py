"""GeDi: a class-conditional language model as a discriminator for every next token at once.

Source: Krause et al. 2020, "GeDi: Generative Discriminator Guided Sequence Generation", arXiv:2009.06367.

One class-conditional model reads the same text under a desired and an undesired control code. With S_k the sum of
log-probabilities of everything after the code, and T the number of those tokens including the candidate v,

    a_k(v)          = (S_k + log p(v | x, code k)) / T           mean log-likelihood with v appended
    log P(+ | v)    = log-softmax over k of (alpha * a_k(v) + b_k)
    g(v)            = log p_base(v) + omega * log P(+ | v)

The division by T fades: at alpha = 10, omega = 30, a token two nats better under + than a token two nats worse gains
600 at T = 1 and 6 at T = 100. `LengthNormalization` therefore offers the paper's mean, the plain sum, and a sliding
window, and omega may follow a schedule. The prompt counts in S_k, so it can dominate the first steps.

Differences from the released code, all deliberate: rows are vectorised; biases belong to codes by name, not to columns;
the filter never drops the token it likes best (the release's guard ran after the removal and changed nothing).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from guiderail.logits.combination import Weight, log_probabilities, row_weight, without_bans
from guiderail.logits.plausibility import restrict

REMOVED = -10_000.0
"""Soft removal, as in the paper's code: a grammar that removes everything else still finds these tokens ranked."""


def gedi_class_posterior(
    desired_logits: Tensor,
    undesired_logits: Tensor,
    desired_sum: Weight = 0.0,
    undesired_sum: Weight = 0.0,
    length: Weight = 1.0,
    *,
    logit_scale: float = 1.0,
    desired_bias: float = 0.0,
    undesired_bias: float = 0.0,
) -> Tensor:
    """log P(desired class | prefix + v) for every token v.

    Args:
        desired_logits, undesired_logits: float (batch, vocab), the class-conditional model under either code.
        desired_sum, undesired_sum: (batch,), S_k: sum of log-probabilities of the text so far (prompt included) per
            code.
        length: (batch,), T, the divisor: tokens so far plus the candidate for the paper's mean; 1 for the plain sum.
        logit_scale: alpha, learned in training; desired_bias and undesired_bias the learned or user biases of the
            codes.
    Returns: float32 (batch, vocab), <= 0.
    """
    desired = without_bans(log_probabilities(desired_logits))
    undesired = without_bans(log_probabilities(undesired_logits))
    divisor = row_weight(length, desired)
    positive = (row_weight(desired_sum, desired) + desired) / divisor * logit_scale + desired_bias
    negative = (row_weight(undesired_sum, desired) + undesired) / divisor * logit_scale + undesired_bias
    return torch.nn.functional.logsigmoid(positive - negative)


def gedi_guidance(
    base_logits: Tensor,
    class_log_posterior: Tensor,
    weight: Weight = 30.0,
    *,
    filter_mass: float | None = 0.2,
    filter_threshold: float = 0.8,
) -> Tensor:
    """Weight the base distribution by the class posterior, then filter.

    Filter: let P_w be the re-weighted distribution. Rank tokens by P(+ | v) and keep the smallest best set whose P_w
        mass
    reaches `filter_mass` (rho), and every token with P(+ | v) >= `filter_threshold` (tau). The rest loses 10 000 nats,
    which removes it from sampling but keeps it available should a grammar leave nothing else.

    Args:
        base_logits: float (batch, vocab).
        class_log_posterior: (batch, vocab) from `gedi_class_posterior`.
        weight: omega; 0.0 = off for the weighting (the base untouched, no filter).
        filter_mass: rho, the release's 1 - filter_p; None = no filter.
        filter_threshold: tau, the release's target_p.
    Returns: float32 log-probabilities (batch, vocab); rows at weight 0 are the base scores untouched.
    """
    base = log_probabilities(base_logits)
    omega = row_weight(weight, base)
    guided = log_probabilities(base + omega * class_log_posterior)
    if filter_mass is not None:
        keep = gedi_filter(guided, class_log_posterior, filter_mass, filter_threshold)
        guided = log_probabilities(torch.where(keep, guided, guided + REMOVED))
    return torch.where(omega == 0, base_logits.to(guided.dtype), guided)


def gedi_filter(guided_log_probs: Tensor, class_log_posterior: Tensor, mass: float, threshold: float) -> Tensor:
    """The kept set of `gedi_guidance`, bool (batch, vocab); always holds the finite token with the best posterior."""
    if not 0 <= mass <= 1 or not 0 <= threshold <= 1:
        raise ValueError(f"filter mass and threshold are probabilities, got {mass} and {threshold}")
    possible = guided_log_probs > -math.inf
    ranked = torch.where(possible, class_log_posterior, -math.inf)
    order = ranked.argsort(dim=-1, descending=True, stable=True)
    probabilities = guided_log_probs.exp().gather(-1, order)
    mass_before = probabilities.cumsum(dim=-1) - probabilities
    in_mass = mass_before < mass
    in_mass[..., 0] = True
    keep = torch.zeros_like(possible).scatter(-1, order, in_mass)
    log_threshold = math.log(threshold) if threshold > 0 else -math.inf
    return keep | (class_log_posterior >= log_threshold)


def gedi_hard_filter(guided_log_probs: Tensor, keep: Tensor) -> Tensor:
    """The same filter with -inf, for use without a grammar; a row is never emptied."""
    return restrict(guided_log_probs, keep)
