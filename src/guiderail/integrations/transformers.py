"""Hugging Face transformers: logits processors for `model.generate`, and `generate` for prompts and types.

    processor = GrammarLogitsProcessor(compiled)
    model.generate(**inputs, logits_processor=[processor])

`GuidanceLogitsProcessor` and `generate` are imported on first use.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import LogitsProcessor

from guiderail.integrations.generation_tree import GenerationTree
from guiderail.logits.bitmask import apply_token_bitmask_inplace

if TYPE_CHECKING:
    from guiderail.compiled import CompiledGrammar
    from guiderail.integrations.generation import generate as generate
    from guiderail.integrations.transformers_guidance import GuidanceLogitsProcessor as GuidanceLogitsProcessor

__all__ = ["GrammarLogitsProcessor", "GuidanceLogitsProcessor", "generate"]

_HOME = {
    "GuidanceLogitsProcessor": "guiderail.integrations.transformers_guidance",
    "generate": "guiderail.integrations.generation",
}


class GrammarLogitsProcessor(LogitsProcessor):
    """Allows only tokens from which the text can still be completed to one of the grammar's language.

    Position is read off the tokens (see `generation_tree`), so nothing needs to be reset or told: batches with left
    padding, beam search, `num_return_sequences`, assisted decoding, prompt lookup, resuming a truncated output, and
    one processor for any number of `generate` calls all work. The prompt is what the rows of a generation's first
    call hold; it is not part of the constrained text.

    - When nothing but the end can follow, EOS is all that is allowed, and so it is for rows that have ended.
    - Where beam search has fewer legal continuations than beams, it fills up with beams of score -inf; those are not
      in the language.
    - transformers runs its own penalties (repetition, no_repeat_ngram, …) before this processor and sampling filters
      (temperature, top-k, …) after it. Of several custom processors this one should come last.
    - If two prompts of one processor are such that the second is the first plus its own output, the second resumes
      that output. Call `forget()` in between where that is not meant.

    Not for several threads at once: use one processor for each, on the same compiled grammar.

    Args:
        constraint: one compiled grammar for all rows, or one for each prompt of the batch, in its order.
        prefix: text of the language that the prompt ends with already, to be continued; or one for each constraint.
        pending: bytes that were taken off the prompt's end (`guiderail.heal`), which the new tokens begin with; or one
            for each constraint.
        max_tokens: every row is a complete text after at most that many new tokens, EOS not counted (see
            `CompiledGrammar.matcher`). A processor is not told what `generate` was called with: pass the same number as
            `max_new_tokens`. A resumed output goes on counting.
    Raises: ValueError for no constraint, vocabularies of different sizes, or as many prefixes or pending bytes as do
        not fit.
    """

    # Rows of a continuous batch come and go, and their tokens are not all shown; prompts could not be told apart.
    supports_continuous_batching = False

    def __init__(
        self,
        constraint: CompiledGrammar | Sequence[CompiledGrammar],
        *,
        prefix: bytes | str | Sequence[bytes | str] = b"",
        pending: bytes | Sequence[bytes] = b"",
        max_tokens: int | None = None,
    ) -> None:
        constraints = list(constraint) if isinstance(constraint, Sequence) else [constraint]
        if not constraints:
            raise ValueError("at least one constraint is needed")
        sizes = {len(compiled.vocabulary) for compiled in constraints}
        if len(sizes) > 1:
            raise ValueError(f"the constraints are for vocabularies of different sizes: {sorted(sizes)}")
        prefixes = [prefix] * len(constraints) if isinstance(prefix, (bytes, str)) else list(prefix)
        if len(prefixes) != len(constraints):
            raise ValueError(f"{len(prefixes)} prefixes for {len(constraints)} constraints")
        spelled = [pending] * len(constraints) if isinstance(pending, bytes) else list(pending)
        if len(spelled) != len(constraints):
            raise ValueError(f"{len(spelled)} pending texts for {len(constraints)} constraints")
        self._words = (sizes.pop() + 31) // 32
        encoded = [p.encode() if isinstance(p, str) else p for p in prefixes]
        self._tree = GenerationTree(constraints, encoded, max_tokens=max_tokens, pending=spelled)
        self._previous: torch.LongTensor | None = None

    def forget(self) -> None:
        """Take the rows of the next call as prompts, whatever they are."""
        self._tree.forget()
        self._previous = None

    def __call__(self, input_ids: torch.LongTensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores with -inf for tokens that are not allowed.

        Args:
            input_ids: int64 (rows, width), on any device.
            scores: float (rows, vocab), raw or log-softmaxed, on any device; not modified. May be wider than the
            vocabulary.
        Returns: a new tensor like `scores`.
        Raises:
            DeadEndError: no token of the vocabulary can continue a row.
            LimitError: limit "max_tokens": no completion of at most that many tokens is known.
            ValueError: the number of rows is not a multiple of the number of constraints.
        """
        rows = np.array(input_ids.detach().cpu().numpy(), dtype=np.int64, order="C")  # a copy: the tree keeps it
        positions = self._tree.locate(rows, drafted=self._is_draft(input_ids))
        indices, masks = self._tree.fill(positions, self._words)
        constrained = scores.clone()
        if len(indices) == len(positions):
            apply_token_bitmask_inplace(constrained, masks)
        elif indices:
            selected = constrained[indices]
            apply_token_bitmask_inplace(selected, masks)
            constrained[indices] = selected
        return constrained

    def _is_draft(self, input_ids: torch.LongTensor) -> bool:
        """Whether these rows are the next position of the candidate that the previous call asked about.

        Assisted decoding passes growing slices of one tensor; every other loop makes a new tensor for each step. The
        previous one is kept here, so its memory cannot have become another's.
        """
        previous, self._previous = self._previous, input_ids
        return (
            previous is not None
            and previous.untyped_storage().data_ptr() == input_ids.untyped_storage().data_ptr()
            and tuple(input_ids.shape) == (previous.shape[0], previous.shape[1] + 1)
        )


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value
