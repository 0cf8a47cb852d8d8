"""Guidance: what the next token *should* be, as terms over streams.

    term = ClassifierFree(scale=1.5, negative_prompt="...") + GeDi(model, desired=..., undesired=...)

Terms compose by `+`, share streams, hold no state, and are off at their neutral value without costing a forward pass.
They are run by `guiderail.integrations`: inside `model.generate` by `GuidanceLogitsProcessor`, or by our own
`generate`.
"""

from __future__ import annotations

from guiderail.guidance.judged import ConfusableClass, OnlineFeedback, PrefixClassifier
from guiderail.guidance.perturbation import Dropout, IdentityAttention, SkipLayers
from guiderail.guidance.rules import (
    Autoguidance,
    ClassifierFree,
    ContextAware,
    Contrastive,
    DExperts,
    DoLa,
    EntropyMatched,
    GeDi,
    LanguageModelCaption,
    Perturbed,
    Projected,
    Prompts,
    ProxyTuning,
    Realignment,
    WeightedStreams,
)
from guiderail.guidance.streams import (
    ChangedInputs,
    ControlCode,
    LastPromptToken,
    PromptTail,
    PromptText,
    PromptTokens,
    SamePrompt,
    Stream,
    blank,
    dropped,
    prompt_tokens,
    replaced,
)
from guiderail.guidance.terms import Sum, Term
from guiderail.logits import schedules
from guiderail.logits.controllers import AdaptiveStop

__all__ = [
    "AdaptiveStop",
    "Autoguidance",
    "ChangedInputs",
    "ClassifierFree",
    "ConfusableClass",
    "ContextAware",
    "Contrastive",
    "ControlCode",
    "DExperts",
    "DoLa",
    "Dropout",
    "EntropyMatched",
    "GeDi",
    "IdentityAttention",
    "LanguageModelCaption",
    "LastPromptToken",
    "OnlineFeedback",
    "Perturbed",
    "PrefixClassifier",
    "Projected",
    "PromptTail",
    "PromptText",
    "PromptTokens",
    "Prompts",
    "ProxyTuning",
    "Realignment",
    "SamePrompt",
    "SkipLayers",
    "Stream",
    "Sum",
    "Term",
    "WeightedStreams",
    "blank",
    "dropped",
    "prompt_tokens",
    "replaced",
    "schedules",
]
