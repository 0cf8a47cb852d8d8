"""Sampling without the rows of companions: they get the token of the request that they guide.

Temperature, top-k, top-p and the draw cost time for each row, and a companion's own draw is thrown away. So vLLM's
`Sampler.sample` is asked about the other rows alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor

__all__ = ["sample_without"]


def sample_without(
    rows: Collection[int], sample: Callable[[Tensor, Any], tuple[Tensor, Tensor | None]], logits: Tensor, metadata: Any
) -> tuple[Tensor, Tensor | None]:
    """What `sample(logits, metadata)` gives; tokens in `rows` are 0.

    All rows are sampled where that cannot be separated: log-probabilities are wanted, or a processor that follows
    temperature is active (min_p), whose state is by row.

    Args: rows, of companions; logits: float32 (batch, vocab); metadata: vLLM's SamplingMetadata.
    """
    kept = [row for row in range(len(logits)) if row not in rows]
    wants_log_probs = metadata.max_num_logprobs is not None or metadata.logprob_token_ids
    active = [processor for processor in metadata.logitsprocs.argmax_invariant if not _idle(processor)]
    if len(kept) in (0, len(logits)) or wants_log_probs or active:
        return sample(logits, metadata)
    places = torch.tensor(kept, device=logits.device)

    def of_kept(values: Tensor | None) -> Tensor | None:
        return None if values is None else values[: len(logits)][places]

    generators = {place: metadata.generators[row] for place, row in enumerate(kept) if row in metadata.generators}
    reduced = dataclasses.replace(
        metadata,
        temperature=of_kept(metadata.temperature),
        top_p=of_kept(metadata.top_p),
        top_k=of_kept(metadata.top_k),
        generators=generators,
    )
    found, log_probs = sample(logits[places], reduced)
    sampled = found.new_zeros(len(logits))
    sampled[places] = found
    return sampled, log_probs


def _idle(processor: Any) -> bool:
    """Whether a processor does nothing in this step: vLLM's MinP says so, of others nothing is known."""
    return getattr(processor, "min_p_count", None) == 0
