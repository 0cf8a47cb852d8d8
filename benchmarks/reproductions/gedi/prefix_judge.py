"""FUDGE's judge (Yang & Klein 2021): a recurrent network that guesses a text's class after every token.

Trained on every prefix of labelled texts, as in the paper, so that `guidance.PrefixClassifier` may ask it about a text
with a candidate appended. Its state after a prefix is remembered: rating 200 candidates costs one recurrent step of
200 rows, not 200 readings.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class PrefixJudge(nn.Module):
    """Class logits after every token."""

    def __init__(self, vocab: int, classes: int, width: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab, width)
        self.reader = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, classes)
        self._states: dict[tuple[int, ...], Tensor] = {}

    def forward(self, ids: Tensor) -> Tensor:
        """(batch, length) -> (batch, length, classes)"""
        out: Tensor = self.head(self.reader(self.embedding(ids))[0])
        return out

    @torch.no_grad()
    def log_probabilities(self, texts: Sequence[tuple[int, ...]], attribute: int) -> Tensor:
        """log P(attribute | text), float32 (texts,), for texts that differ in their last token."""
        prefix = texts[0][:-1]
        state = self._state(prefix)[:, None].repeat(1, len(texts), 1)
        last = self.embedding(torch.tensor([[text[-1]] for text in texts]))
        hidden = self.reader(last, state)[0][:, -1]
        return torch.log_softmax(self.head(hidden), -1)[:, attribute]

    def _state(self, prefix: tuple[int, ...]) -> Tensor:
        """Hidden state (layers, width) after a prefix."""
        if prefix not in self._states:
            before = self._states.get(prefix[:-1])
            new = prefix[-1:] if before is not None else prefix
            start = None if before is None else before[:, None]
            self._states[prefix] = self.reader(self.embedding(torch.tensor([new])), start)[1][:, 0]
            if len(self._states) > 4096:
                self._states.pop(next(iter(self._states)))
        return self._states[prefix]
