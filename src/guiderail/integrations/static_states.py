"""Caches of a fixed size from transformers, and compiled decoding passes over them.

A growing cache has a new shape at every token, so nothing about a pass can be prepared. In a static one every decoding
pass of a batch has the same shapes: `torch.compile` traces it once, and its CUDA graphs replace the launches of a few
hundred small kernels, which is what small batches on a GPU wait for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import StaticCache


class StaticStates:
    """What `StreamRunner` needs to keep its rows in static caches.

    Args: options for `torch.compile`, applied to decoding passes only (prefills have all lengths); None = not compiled.
    """

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        self._options = options
        self._compiled: dict[int, Any] = {}

    def cache(self, model: Any, slots: int) -> StaticCache:
        """An empty cache for `slots` tokens per row; the number of rows is that of the first pass."""
        return StaticCache(config=model.config, max_cache_len=slots)

    def call(self, model: Any, inputs: dict[str, Any]) -> Any:
        """A decoding pass. CUDA graphs write every result to the same place, so logits are copied out of it."""
        if self._options is None:
            return model(**inputs)
        if id(model) not in self._compiled:
            self._compiled[id(model)] = torch.compile(model, **self._options)
        output = self._compiled[id(model)](**inputs)
        output.logits = output.logits.clone()
        return output
