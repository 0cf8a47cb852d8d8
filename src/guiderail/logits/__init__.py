"""What the next token *should* be: pure functions on score tensors.

Nothing here holds state, calls a model or knows a grammar's insides. `bitmask` works on numpy arrays and torch tensors
and never imports torch; everything else computes with torch and is imported on first use, so that `import guiderail`
stays light.

Scores are (batch, vocab) or (batch, codebooks, vocab), any leading dimensions in fact; results are float32
log-probabilities.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from guiderail.logits.bitmask import allocate_token_bitmask, apply_token_bitmask_inplace, unpack_token_bitmask

_DEFINED_IN: dict[str, str] = {
    "affine_combination": "combination",
    "log_normalizer": "combination",
    "log_probabilities": "combination",
    "renyi_divergence": "combination",
    "unnormalized_combination": "combination",
    "canonical_scale": "classifier_free",
    "classifier_free_guidance": "classifier_free",
    "scale_in_convention": "classifier_free",
    "signed_prompt_guidance": "classifier_free",
    "chained_weights": "multi_condition",
    "factored_weights": "multi_condition",
    "nested_weights": "multi_condition",
    "require_trained_nulls": "multi_condition",
    "style_context_weights": "multi_condition",
    "plausible_tokens": "plausibility",
    "restrict": "plausibility",
    "contrastive_difference": "contrastive",
    "contrastive_guidance": "contrastive",
    "jensen_shannon_divergence": "contrastive",
    "layer_contrast": "contrastive",
    "most_divergent_layer": "contrastive",
    "classifier_reference_guidance": "experts",
    "context_aware_guidance": "experts",
    "experts_guidance": "experts",
    "language_model_caption_guidance": "experts",
    "prefix_classifier_guidance": "experts",
    "proxy_tuning": "experts",
    "realignment": "experts",
    "gedi_class_posterior": "gedi",
    "gedi_filter": "gedi",
    "gedi_guidance": "gedi",
    "adaptive_projected_guidance": "projected",
    "projected_direction": "projected",
    "apply_temperature": "temperature",
    "entropy": "temperature",
    "entropy_matched": "temperature",
    "entropy_matching_temperature": "temperature",
    "rescale_temperature": "temperature",
    "min_p_tokens": "truncation",
    "top_k_tokens": "truncation",
    "top_p_tokens": "truncation",
    "truncate": "truncation",
    "Sampling": "sampling",
    "AdaptiveStop": "controllers",
    "StopState": "controllers",
    "choose_scale": "controllers",
}

_MODULES = frozenset(_DEFINED_IN.values()) | {"schedules"}

__all__ = [
    "allocate_token_bitmask",
    "apply_token_bitmask_inplace",
    "unpack_token_bitmask",
    *sorted(_DEFINED_IN),
    *sorted(_MODULES),
]


def __getattr__(name: str) -> Any:
    if name in _DEFINED_IN:
        return getattr(import_module(f"{__name__}.{_DEFINED_IN[name]}"), name)
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
