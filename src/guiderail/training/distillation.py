"""Guidance distilled into weights: one forward pass per token where guidance needs two.

| what | source | here |
|---|---|---|
| adapters on guided trajectories | AGD (adapter guidance distillation) | `GuidanceAdapters`, `distillation_loss` |
| a cheap head that imitates the guided scores | CoRe2 | `GuidedHead` |
| a reward for diversity, merging | Cideron et al. 2024, arXiv:2410.06084 | `diversity_reward`, `reward_loss` |
| | | `merged` |
| a negative model from degraded samples | Self-NPO | `merged_negative` |

The originals of AGD, CoRe2 and Self-NPO treat diffusion; the token forms are ours. AGD's point carries over: train on
prefixes drawn from the *guided* policy, because those are what the student will meet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from guiderail.guidance.perturbation import decoder_layers
from guiderail.logits.classifier_free import classifier_free_guidance
from guiderail.logits.combination import Weight


def distillation_loss(
    student_logits: Tensor,
    conditional_logits: Tensor,
    null_logits: Tensor,
    guidance_scale: Weight,
    mask: Tensor | None = None,
) -> Tensor:
    """Mean KL(guided || student) per token; 0 exactly where the student is the guided distribution.

    Args: logits float (batch, length, vocab), teacher's without gradient; guidance_scale 1-neutral, a number or
        (batch,); mask (batch, length), True = counts.
    Returns: float32 scalar.
    """
    with torch.no_grad():
        target = torch.log_softmax(
            classifier_free_guidance(conditional_logits, null_logits, guidance_scale).float(), dim=-1
        )
    student = torch.log_softmax(student_logits.float(), dim=-1)
    divergence = (target.exp() * (target - student)).sum(-1)
    if mask is None:
        return divergence.mean()
    return torch.where(mask.bool(), divergence, 0.0).sum() / mask.sum().clamp(min=1)


class GuidanceAdapters(nn.Module):
    """Small bottlenecks after every decoder layer, told the guidance scale; the model itself stays frozen.

    Zero at first, so that an untrained adapter changes nothing, and at scale 1 forever: what is added is multiplied by
    (scale - 1).

    Args: model with decoder layers that return hidden states (or a tuple that begins with them); width of its hidden
        states; rank of the bottleneck.
    """

    def __init__(self, model: nn.Module, width: int, rank: int = 8) -> None:
        super().__init__()
        self._layers = list(decoder_layers(model))
        self.down = nn.ModuleList(nn.Linear(width, rank) for _ in self._layers)
        self.up = nn.ModuleList(nn.Linear(rank, width) for _ in self._layers)
        for module in self.up:
            nn.init.zeros_(module.weight)  # type: ignore[arg-type]
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    @contextmanager
    def at(self, guidance_scale: float | Tensor) -> Iterator[None]:
        """The model behaves as if guided at this scale (a number, or (batch,)) inside the block."""
        handles = [
            layer.register_forward_hook(self._hook(index, guidance_scale)) for index, layer in enumerate(self._layers)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, index: int, guidance_scale: float | Tensor) -> Any:
        def added(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            hidden = output[0] if isinstance(output, tuple) else output
            strength = torch.as_tensor(guidance_scale, dtype=hidden.dtype, device=hidden.device) - 1
            strength = strength.reshape(-1, *([1] * (hidden.ndim - 1)))
            hidden = hidden + strength * self.up[index](torch.tanh(self.down[index](hidden)))
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        return added


class GuidedHead(nn.Module):
    """Guided scores from the conditional stream alone: `c + scale-aware low-rank correction of the hidden state`.

    As a fast decoder it replaces the null stream; as a weak model it is what guidance moves away from (`r + w (g - r)`,
    an affine rule over the two).
    """

    def __init__(self, width: int, vocab: int, rank: int = 32) -> None:
        super().__init__()
        self.down = nn.Linear(width, rank)
        self.up = nn.Linear(rank, vocab, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, conditional_logits: Tensor, hidden: Tensor, guidance_scale: float | Tensor) -> Tensor:
        """Logits (..., vocab) from logits (..., vocab) and last hidden states (..., width). At scale 1: unchanged."""
        strength = torch.as_tensor(guidance_scale, dtype=hidden.dtype, device=hidden.device) - 1
        strength = strength.reshape(-1, *([1] * (hidden.ndim - 1))) if strength.ndim else strength
        correction: Tensor = self.up(torch.nn.functional.gelu(self.down(hidden)))
        return conditional_logits + strength * correction


def diversity_reward(embeddings: Tensor) -> Tensor:
    """1 - cosine of two samples for the same condition. Args: (pairs, 2, width). Returns: (pairs,) in [0, 2]."""
    if embeddings.ndim != 3 or embeddings.shape[1] != 2:
        raise ValueError(f"expected embeddings (pairs, 2, width), got {tuple(embeddings.shape)}")
    return 1 - torch.cosine_similarity(embeddings[:, 0], embeddings[:, 1], dim=-1)


def reward_loss(log_probs: Tensor, rewards: Tensor) -> Tensor:
    """Policy gradient (REINFORCE) of a reward of whole samples, each measured against the mean of the others.

    Diversity-rewarded distillation adds it to `distillation_loss` on the model's own samples.

    Args: log_probs float (samples,), of the samples under the model, with gradient; rewards (samples,), two or more.
    Returns: float32 scalar whose gradient is that of minus the expected reward; its value says nothing.
    Raises: ValueError for fewer than two samples or unequal shapes.
    """
    if log_probs.shape != rewards.shape or rewards.numel() < 2:
        raise ValueError(f"expected as many rewards as samples, two or more: {log_probs.shape} and {rewards.shape}")
    others = (rewards.sum() - rewards) / (rewards.numel() - 1)
    return -((rewards - others).detach() * log_probs).mean()


def merged(quality: Mapping[str, Tensor], diversity: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Linear interpolation of two fine-tunings of one model: share 0 is the first, 1 the second.

    Raises: ValueError if the state dicts have different names or shapes.
    """
    if quality.keys() != diversity.keys():
        raise ValueError(f"different parameters: {sorted(quality.keys() ^ diversity.keys())}")
    for name, tensor in quality.items():
        if tensor.shape != diversity[name].shape:
            raise ValueError(f"{name}: {tuple(tensor.shape)} and {tuple(diversity[name].shape)}")
    return {
        name: torch.lerp(tensor, diversity[name], share) if tensor.is_floating_point() else tensor
        for name, tensor in quality.items()
    }


def merged_negative(
    base: Mapping[str, Tensor], positive: Mapping[str, Tensor], negative: Mapping[str, Tensor], share: float
) -> dict[str, Tensor]:
    """Self-NPO's negative model: what the negative tuning changed, on top of base and positive model mixed.

    `share * base + (1 - share) * positive + (negative - base)`; guide away from it with `guidance.Autoguidance`.
    """
    mixed = merged(positive, base, share)
    return {
        name: tensor + (negative[name] - base[name]) if tensor.is_floating_point() else tensor
        for name, tensor in mixed.items()
    }
