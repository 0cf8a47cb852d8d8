"""Rules that add a zero-sum contrast of helper models, or realign between two models. All affine.

| rule | g | off | source |
|---|---|---|---|
| DExperts | b + alpha (e - a) | 0 | Liu et al. 2021, arXiv:2105.03023 |
| proxy tuning | large + alpha (small tuned - small) | 0, paper 1 | Liu et al. 2024, arXiv:2401.08565 |
| context-aware | (1 + alpha) with context - alpha without | 0 | Shi et al. 2023, arXiv:2305.14739 |
| realignment (DeRa, RLG) | reference + scale (aligned - reference) | 1 | Liu et al. 2024, arXiv:2402.02992 |
| language-model caption guidance | alpha lm + beta (c - null) | | Kornblith et al. 2023 |

The arguments keep the papers' conventions for what is not a guidance scale (alpha multiplies a contrast: 0 is off),
and are 1-neutral where they are one.
"""

from __future__ import annotations

from torch import Tensor

from guiderail.logits.combination import Weight, affine_combination, log_probabilities
from guiderail.logits.truncation import top_p_tokens


def experts_guidance(
    base_logits: Tensor,
    expert_logits: Tensor,
    antiexpert_logits: Tensor,
    alpha: Weight = 2.0,
    base_top_p: float | None = None,
) -> Tensor:
    """DExperts: `base + alpha (expert - antiexpert)`.

    Args:
        alpha: 0.0 = off; about 2 for detoxification. Sum of coefficients is 1 for any alpha.
        base_top_p: the paper truncates the base *before* adding the contrast (0.9), so that experts choose among what
            the base finds fluent. None skips it. With a grammar, prefer a plausibility filter over legal tokens: a
            nucleus of the base alone may hold nothing legal.
    Returns: float32 log-probabilities (..., vocab).
    """
    weights = [1.0, alpha, -alpha]
    if base_top_p is None:
        return affine_combination([base_logits, expert_logits, antiexpert_logits], weights)
    keep = top_p_tokens(base_logits, base_top_p)
    truncated = base_logits.float().masked_fill(~keep, float("-inf"))
    return affine_combination([truncated, expert_logits, antiexpert_logits], weights)


def proxy_tuning(large_logits: Tensor, tuned_logits: Tensor, untuned_logits: Tensor, alpha: Weight = 1.0) -> Tensor:
    """A large model steered by what tuning did to a small one: `large + alpha (small tuned - small)`; 0.0 = off."""
    return affine_combination([large_logits, tuned_logits, untuned_logits], [1.0, alpha, -alpha])


def context_aware_guidance(with_context_logits: Tensor, without_context_logits: Tensor, alpha: Weight = 0.5) -> Tensor:
    """`(1 + alpha) log p(. | context, question) - alpha log p(. | question)`; 0.0 = off, 0.5 to 1 usual."""
    return affine_combination([with_context_logits, without_context_logits], [1 + alpha, -alpha])


def realignment(aligned_logits: Tensor, reference_logits: Tensor, scale: Weight) -> Tensor:
    """Move along the line from a reference model to its aligned (instruction-tuned, RL, DPO) version.

    Decoding-time realignment; for RL-tuned models the same rule is called RL guidance. A scale s corresponds to
    dividing the KL coefficient of training by s, exactly at sequence level and approximately per token (see
    `log_normalizer`).

    Args: scale 1.0 = the aligned model, 0.0 = the reference, > 1 = more aligned than trained.
    """
    return affine_combination([aligned_logits, reference_logits], [scale, 1 - scale])


def language_model_caption_guidance(
    language_model_logits: Tensor,
    conditional_logits: Tensor,
    null_logits: Tensor,
    language_model_weight: Weight = 1.0,
    image_weight: Weight = 1.0,
) -> Tensor:
    """Fluency from a language model, content from the captioner's ratio: `alpha lm + beta (c - null)`.

    The three share a tokenizer. With the language model equal to the null stream, alpha = 1 and beta = gamma this is
    classifier-free guidance at scale gamma. The coefficients sum to alpha, which therefore is an inverse temperature
    too.
    """
    return affine_combination(
        [language_model_logits, conditional_logits, null_logits], [language_model_weight, image_weight, -image_weight]
    )


def classifier_reference_guidance(
    target_class_logits: Tensor, confusable_class_logits: Tensor, confidence: Weight, scale: Weight
) -> Tensor:
    """Gradient-free classifier guidance: away from the class the prefix is most easily confused with.

        g = c_y + s_t (c_y - c_yhat),    s_t = (scale - 1)(1 - confidence in y)

    Args: confidence in [0, 1], per row, of a classifier run on the prefix; scale 1.0 = off.
    """
    strength = (scale - 1) * (1 - confidence)
    return affine_combination([target_class_logits, confusable_class_logits], [1 + strength, -strength])


def prefix_classifier_guidance(
    base_logits: Tensor, class_log_probs: Tensor, candidates: Tensor, weight: Weight
) -> Tensor:
    """FUDGE on top-k candidates: `log p(v) + weight * log p(attribute | prefix + v)`.

    Source: Yang & Klein 2021, arXiv:2104.05218.

    Args:
        base_logits: float (batch, vocab).
        class_log_probs: float (batch, k), the classifier's log-probability of the attribute for each candidate.
        candidates: int64 (batch, k), distinct token ids, typically `base_logits.topk(200).indices`.
        weight: 0.0 = off (the base untouched, all tokens); otherwise only candidates survive.
    Returns: float32 log-probabilities (batch, vocab).
    """
    if not isinstance(weight, Tensor) and weight == 0:
        return base_logits.float()
    log_probs = log_probabilities(base_logits)
    contrast = log_probs.gather(-1, candidates) + weight * class_log_probs.to(log_probs.dtype).clamp(min=-1e4)
    return log_probabilities(log_probs.new_full(log_probs.shape, float("-inf")).scatter(-1, candidates, contrast))
