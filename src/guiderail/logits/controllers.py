"""Decisions about guidance taken from what decoding sees: when to stop paying for the null stream, which scale to use.

Controllers hold no state of their own. `AdaptiveStop` is a fold: given the state for a prefix and the evidence of one
step it returns the state for the longer prefix, so the owner can key states by tokens and rollback and beams stay
right.

Sources: adaptive guidance, Castillo et al. 2023, arXiv:2312.12487 (cosine similarity over denoising steps; over
tokens raw logits always have cosine near 1 and similarity is not monotone, so the evidence here is a divergence and a
stopped stream may be probed again); online feedback, after dynamic guidance by scorers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class StopState:
    """Where one sequence stands: quiet steps in a row, and at which step guidance stopped (None: running)."""

    quiet_steps: int = 0
    stopped_at: int | None = None


@dataclass(frozen=True, slots=True)
class AdaptiveStop:
    """Stop guiding once the streams have agreed for a while; optionally look again every few steps.

    Args:
        threshold: Jensen-Shannon divergence in nats (0 to log 2) below which a step counts as quiet.
        patience: consecutive quiet steps before stopping, >= 1.
        probe_every: after stopping, run the null stream again every so many steps; None = never again. A probe costs
            a prefill of the tokens skipped since, which is one forward pass, not one per token.
    """

    threshold: float = 0.01
    patience: int = 4
    probe_every: int | None = None

    def __post_init__(self) -> None:
        if self.patience < 1 or (self.probe_every is not None and self.probe_every < 1):
            raise ValueError("patience and probe_every must be at least 1")

    def wants_stream(self, state: StopState, step: int) -> bool:
        """Whether the null stream is needed at this step."""
        if state.stopped_at is None:
            return True
        return self.probe_every is not None and (step - state.stopped_at) % self.probe_every == 0

    def advance(self, state: StopState, step: int, divergence: float) -> StopState:
        """The state after a step at which the stream ran and had this divergence from the conditional one."""
        if divergence >= self.threshold:
            return StopState()
        quiet = state.quiet_steps + 1
        if state.stopped_at is not None or quiet >= self.patience:
            return StopState(quiet, step)
        return StopState(quiet, None)


def choose_scale(scales: Sequence[float], evaluate: Callable[[float], Tensor]) -> Tensor:
    """Online feedback: the scale whose look-ahead a scorer likes best, per row.

    All candidates share one pair of streams, so they cost look-ahead and scorer only.

    Args: `scales` candidates; `evaluate(scale) -> (batch,)` scores of the continuations under that scale, higher is
        better.
    Returns: float32 (batch,), the first best scale of each row.
    Raises: ValueError without candidates or if a score is nan.
    """
    if not scales:
        raise ValueError("choose_scale needs at least one candidate scale")
    scores = torch.stack([evaluate(scale).float() for scale in scales])
    if bool(torch.isnan(scores).any()):
        raise ValueError("a scorer returned nan")
    return torch.tensor(list(scales), device=scores.device)[scores.argmax(dim=0)]
