"""From guided scores to the distribution a token is drawn from: penalty, mask, temperature, truncation, in that order.

    scores -> repetition penalty -> grammar mask -> temperature -> top-k, top-p, min-p -> probabilities

The mask comes before truncation: a nucleus computed over everything may hold nothing legal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from guiderail.logits.combination import log_probabilities
from guiderail.logits.temperature import apply_temperature
from guiderail.logits.truncation import truncate


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a token is drawn from guided, masked scores.

    Args:
        do_sample: False = the most likely token, and nothing below matters but the penalty.
        temperature: 1.0 = off. top_k, top_p, min_p: None = off.
        repetition_penalty: 1.0 = off. Multiplies the log-probability of tokens already present (prompt included), so
            1.2 makes a token at -1 nat one at -1.2; a definition on log-probabilities does not depend on the models'
            logit offset.
        truncate_before_temperature: some decoders (VoxInstruct) truncate at temperature 1 and cool afterwards.
    """

    do_sample: bool = False
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    truncate_before_temperature: bool = False

    def probabilities(self, scores: Tensor, seen: Sequence[Sequence[int]], legal: Tensor | None) -> Tensor:
        """The distribution tokens are drawn from.

        Args: scores (rows, vocab) guided log-probabilities; seen tokens of each row; legal bool (rows, vocab) or None.
        Returns: float32 (rows, vocab); a point mass when not sampling. All zero where nothing is legal and possible.
        """
        scores = log_probabilities(scores)
        if self.repetition_penalty != 1.0:
            for index, tokens in enumerate(seen):
                present = torch.tensor(sorted(set(tokens)), device=scores.device)
                scores[index, present] = scores[index, present] * self.repetition_penalty
        if legal is not None:
            scores = scores.masked_fill(~legal, -math.inf)
        possible = scores.amax(dim=-1, keepdim=True) > -math.inf
        if not self.do_sample:
            point = torch.zeros_like(scores).scatter(-1, scores.argmax(dim=-1, keepdim=True), 1.0)
            return torch.where(possible, point, 0.0)
        if not self.truncate_before_temperature:
            scores = apply_temperature(scores, self.temperature)
        scores = truncate(scores, top_k=self.top_k, top_p=self.top_p, min_p=self.min_p)
        if self.truncate_before_temperature:
            scores = apply_temperature(scores, self.temperature)
        return torch.where(possible, log_probabilities(scores).exp(), 0.0)
