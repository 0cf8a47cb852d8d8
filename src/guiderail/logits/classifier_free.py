"""Classifier-free guidance on next-token scores, and a converter for every way its scale is written.

    log p  =  log p_null + scale * (log p_conditional - log p_null)          (up to a constant)

Source: Sanchez et al. 2023, "Stay on topic with Classifier-Free Guidance", arXiv:2306.17806; for captioning Kornblith
et al. 2023, "Guiding image captioning models toward more specific captions" (their gamma is our scale); after Ho &
Salimans 2022, arXiv:2207.12598, whose weight is 0-neutral. Here 1 is always neutral, 0 is the null stream, values
between interpolate, values below 0 invert. No value is special-cased away: a gate such as `scale > 1` silently turns
interpolation and negative guidance off.
"""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from guiderail.logits.combination import Weight, affine_combination

Convention = Literal[
    "canonical",
    "captioning",
    "transformers",
    "llamagen",
    "voxinstruct",
    "ho-salimans",
    "var",
    "context-aware",
    "contrastive-beta",
    "maskgit-weight",
]
"""How a source writes the scale.

`canonical`, `captioning` (gamma), `transformers` (guidance_scale), `llamagen`, `voxinstruct`: u + s(c - u), 1 is off.
`ho-salimans` (w), `var` (cfg * ratio), `context-aware` (alpha), `contrastive-beta` (beta), `maskgit-weight`:
(1 + w)c - w u, 0 is off. MaskGIT-style code contains both forms; read which one before naming it.
"""

_ZERO_NEUTRAL = frozenset({"ho-salimans", "var", "context-aware", "contrastive-beta", "maskgit-weight"})


def canonical_scale(value: float, convention: Convention) -> float:
    """The 1-neutral scale for a value written in another convention.

    >>> canonical_scale(0.5, "context-aware")
    1.5

    Raises: ValueError for an unknown convention.
    """
    return value + _offset(convention)


def scale_in_convention(scale: float, convention: Convention) -> float:
    """Inverse of `canonical_scale`.

    >>> scale_in_convention(1.0, "var")
    0.0
    """
    return scale - _offset(convention)


def _offset(convention: str) -> float:
    if convention not in get_args(Convention):
        raise ValueError(f"unknown scale convention {convention!r}, known: {', '.join(get_args(Convention))}")
    return 1.0 if convention in _ZERO_NEUTRAL else 0.0


def classifier_free_guidance(conditional_logits: Tensor, null_logits: Tensor, guidance_scale: Weight) -> Tensor:
    """Move next-token scores away from the unconditional model.

    Args:
        conditional_logits: float (..., vocab). Logits or log-probabilities; its bans (-inf) stay bans.
        null_logits: same shape: the same model without the condition, or with a negative one.
        guidance_scale: 1.0 = off, 0.0 = null stream, > 1 = stronger; a tensor over leading dimensions for one per row.
    Returns: float32 log-probabilities (..., vocab), a new tensor; rows at scale 1 are the conditional scores untouched.
    Raises: ValueError on a shape mismatch or a non-finite scale.
    """
    return affine_combination([conditional_logits, null_logits], [guidance_scale, 1 - guidance_scale])


def signed_prompt_guidance(
    conditional_logits: Tensor, prompt_logits: list[Tensor], prompt_weights: list[Weight]
) -> Tensor:
    """Several positive and negative prompts at once: `g = c + sum_i w_i (l_i - c)`.

    A weight of -0.5 on one prompt is classifier-free guidance at scale 1.5 against it; a weight of +0.5 mixes half of
    it in. The coefficients sum to 1 whatever the weights, so the temperature does not drift with the number of prompts.

    Args: `prompt_logits` one (..., vocab) tensor per prompt, `prompt_weights` as many weights; 0 is off for each.
    Returns: float32 log-probabilities (..., vocab).
    """
    own = 1 - sum(prompt_weights)
    return affine_combination([conditional_logits, *prompt_logits], [own, *prompt_weights])
