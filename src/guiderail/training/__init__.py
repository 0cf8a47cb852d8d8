"""Training that makes guidance possible (condition dropout, GeDi) or unnecessary (CCA, distillation).

Losses are functions of tensors, independent of any model class; `fit` is a small resumable loop, and the collator and
losses fit transformers' `Trainer` as well. `llamagen` defines the published image model, so that its checkpoints load
by name and shape.
"""

from __future__ import annotations

from guiderail.training.condition_contrast import (
    ConditionOffsets,
    RolledConditions,
    condition_contrastive_loss,
    preference_loss,
    unlearning_loss,
)
from guiderail.training.condition_dropout import Condition, ConditionDropout
from guiderail.training.distillation import (
    GuidanceAdapters,
    GuidedHead,
    distillation_loss,
    diversity_reward,
    merged,
    merged_negative,
    reward_loss,
)
from guiderail.training.gedi import GeDiModel, gedi_loss, topic_examples
from guiderail.training.likelihood import sequence_log_prob, token_log_probs
from guiderail.training.loop import fit

__all__ = [
    "Condition",
    "ConditionDropout",
    "ConditionOffsets",
    "GeDiModel",
    "GuidanceAdapters",
    "GuidedHead",
    "RolledConditions",
    "condition_contrastive_loss",
    "distillation_loss",
    "diversity_reward",
    "fit",
    "gedi_loss",
    "merged",
    "merged_negative",
    "preference_loss",
    "reward_loss",
    "sequence_log_prob",
    "token_log_probs",
    "topic_examples",
    "unlearning_loss",
]
