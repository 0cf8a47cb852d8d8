"""Mixes streams before the language-model head, so that companions pass neither the head nor the sampler.

The head is affine, logits = W h + b, and the weights of a group sum to one. So

    sum_i w_i (W h_i + b)  =  W (sum_i w_i h_i) + b

and one row of logits is computed where the logits processor would have needed one for each stream. What the mixture of
log-probabilities has besides is a constant per row, which sampling and log-probabilities cancel. The processor keeps
the groups for which the constant or the order matters (`GuidanceLogitsProcessor` says which), and everything where
vLLM's head is not affine or not vLLM's own (soft caps, adapters on the head), or where states are float16: what is
mixed here is a subset, and the rest is right without it.

vLLM's `LogitsProcessor.forward` is the head. The runner calls it once in each step, with one row per request, after it
has told the processors about the rows (`Head.expect`); other calls (prompt log-probabilities, profiling) find nothing
expected.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["Head", "Mixture", "expected_head", "mix"]

Mixture = tuple[int, Sequence[int], Sequence[float]]
"""Row of the request, rows of its companions, and a weight for each companion."""

_expected: Head | None = None


class Head:
    """One batch's passage through the head.

    Args: prepare, asked once the hidden states of the step are there: the rows whose logits nobody needs, and the
    mixtures. A mixture's companions may be among the former.
    """

    def __init__(self, prepare: Callable[[], tuple[Sequence[int], Sequence[Mixture]]]) -> None:
        self._prepare = prepare
        self._rows = 0

    def expect(self, rows: int) -> None:
        """The next call of the head has so many rows, one per request; 0: it is none of ours."""
        global _expected
        self._rows = rows
        _expected = self if rows else None

    def logits(self, compute: Callable[[Tensor], Tensor | None], hidden: Tensor) -> Tensor | None:
        """Logits of all rows; those that nobody needs are zero.

        Args: compute, the head: (n, width) -> (n, vocab), or None on ranks that do not sample; hidden: (rows, width).
        """
        # Weights may be large, and float16 ends at 65,504.
        if len(hidden) != self._rows or hidden.dtype == torch.float16:
            return compute(hidden)
        unneeded, mixtures = self._prepare()
        if not unneeded and not mixtures:
            return compute(hidden)
        left_out = set(unneeded)
        kept = [row for row in range(len(hidden)) if row not in left_out]
        if not kept:  # tensor-parallel ranks meet in the head, whatever is needed of it
            return compute(hidden)
        places = torch.tensor(kept, device=hidden.device)
        states = hidden[places]
        if mixtures:
            place_of = {row: place for place, row in enumerate(kept)}
            owners = torch.tensor([place_of[own] for own, _, _ in mixtures], device=hidden.device)
            states[owners] = mix(hidden, mixtures)
        found = compute(states)
        if found is None:
            return None
        logits = torch.empty(len(hidden), found.shape[-1], dtype=torch.float32, device=found.device)
        logits[places] = found.float()
        if unneeded:
            logits[torch.tensor(list(unneeded), device=found.device)] = 0.0
        return logits


def expected_head(layer: Any) -> Head | None:
    """The head that this call belongs to, once; None for calls that are none of ours, or where it is not affine."""
    global _expected
    head, _expected = _expected, None
    affine = layer.soft_cap is None and not layer.logits_as_input
    return head if affine else None


def mix(hidden: Tensor, mixtures: Sequence[Mixture]) -> Tensor:
    """(mixtures, width), in the dtype of hidden (rows, width); the sums are taken in float32."""
    width = 1 + max(len(companions) for _, companions, _ in mixtures)
    rows, weights = [], []
    for own, companions, given in mixtures:
        missing = width - 1 - len(companions)  # groups of other sizes: the request's own row, with nothing
        rows.append([own, *companions, *[own] * missing])
        weights.append([1.0 - sum(given), *given, *[0.0] * missing])
    streams = hidden[torch.tensor(rows, device=hidden.device)].float()
    factors = torch.tensor(weights, device=hidden.device, dtype=torch.float32)
    return torch.einsum("gs,gsd->gd", factors, streams).to(hidden.dtype)
