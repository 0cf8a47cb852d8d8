"""Compute guidance streams inside the forward passes that `model.generate` runs anyway.

A logits processor is called after the model, so its streams would need a second pass for every token: twice the
weights read, twice the overhead. But what the next pass will be fed is known before it: each row of the call before,
and the token chosen since. So when `generate` runs its next pass, the streams' rows are put below its own,

    input ids     [host rows ]         keys and values   [.. host ....]
                  [guest rows]                           [  guest ....]     right-aligned, the gap is masked

and taken off the output again before `generate` sees it. The answers wait in the runner, under the tokens they belong
to. If the guess about the rows was wrong (beams were permuted), nobody asks for them and the streams are evaluated the
ordinary way: a guess costs time, never a result. The host's own scores change as they do in any larger batch, by
rounding.

Both caches stay what they are, with their tensors as views of the joint one, so joining copies once and every later
pass copies no more than two separate ones would.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from guiderail.guidance.runner import GuestRows

# What a plain decoding step is made of. Anything else (an image, a cross-attention, a flag for more outputs) would have
# to be understood before it could be doubled.
_KNOWN = frozenset(
    {
        "attention_mask",
        "input_ids",
        "logits_to_keep",
        "past_key_values",
        "position_ids",
        "return_dict",
        "use_cache",
    }
)


class SharedPass:
    """One processor's share in the passes of one `generate` call.

    Args: host the cache of that call, not kept alive. over: called when it is gone, and with it the call.
    """

    def __init__(self, host: DynamicCache, over: Callable[[], None]) -> None:
        self._host_reference: Callable[[], Any] = weakref.ref(host, lambda _: over())
        self._cache: _JointCache | None = None
        self._guests: GuestRows | None = None

    def can_join(self, kwargs: dict[str, Any]) -> bool:
        """Whether these forward arguments are one decoding step of the host, in a form guests can be added to."""
        ids, positions, mask = (kwargs.get(name) for name in ("input_ids", "position_ids", "attention_mask"))
        cache: Any = kwargs.get("past_key_values")
        return (
            cache is not None
            and cache is self._host_reference()
            and isinstance(ids, Tensor)
            and ids.ndim == 2
            and ids.shape[1] == 1
            and isinstance(positions, Tensor)
            and positions.shape == ids.shape
            and (mask is None or (isinstance(mask, Tensor) and mask.shape == (len(ids), cache.get_seq_length() + 1)))
            and kwargs.get("use_cache") is True
            and kwargs.get("return_dict") is True
            and all(value is None or value is False or name in _KNOWN for name, value in kwargs.items())
            and not cache.offloading
            and all(type(layer) is DynamicLayer for layer in cache.layers)
        )

    def join(self, guests: GuestRows, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The forward arguments of the pass with the guests in it."""
        host = kwargs["past_key_values"]
        if self._cache is None or self._cache.guest is not guests.cache:
            self._cache = _JointCache(host, guests.cache)
        self._guests = guests
        ids = kwargs["input_ids"]
        own = kwargs.get("attention_mask")
        if own is None:
            own = torch.ones(len(ids), host.get_seq_length() + 1, dtype=torch.long, device=ids.device)
        width = max(own.shape[1], guests.mask.shape[1])
        masks = [torch.nn.functional.pad(mask.long(), (width - mask.shape[1], 0)) for mask in (own, guests.mask)]
        self._cache.join()
        return {
            **kwargs,
            "input_ids": torch.cat([ids, guests.ids]),
            "position_ids": torch.cat([kwargs["position_ids"], guests.positions]),
            "attention_mask": torch.cat(masks),
            "past_key_values": self._cache,
        }

    def part(self, output: Any) -> None:
        """Take the guests off the output of a pass that `join` prepared, in place; other outputs are left alone."""
        if self._guests is None or getattr(output, "past_key_values", None) is not self._cache:
            return
        guests, self._guests = self._guests, None
        rows = len(output.logits) - len(guests.ids)
        logits = output.logits
        output.logits = logits[:rows]
        output.past_key_values = self._host_reference()
        guests.finish(logits[rows:])


class _JointCache(Cache):
    """Two caches as one: the rows of the host above those of the guest."""

    def __init__(self, host: Any, guest: Any) -> None:
        self.guest = guest
        self._joined = [_JointLayer(*pair) for pair in zip(host.layers, guest.layers, strict=True)]
        super().__init__(layers=list(self._joined))

    def join(self) -> None:
        for layer in self._joined:
            layer.join()


class _JointLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values (host rows + guest rows, heads, slots, width); the parts' own tensors are views of these."""

    def __init__(self, host: DynamicLayer, guest: DynamicLayer) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._parts = host, guest
        self._views: tuple[Tensor, Tensor] | None = None

    def join(self) -> None:
        """Build the joint tensors, unless they are still what the parts look at."""
        (host_keys, host_values), (guest_keys, guest_values) = map(_states, self._parts)
        if self._views is not None and host_keys is self._views[0] and guest_keys is self._views[1]:
            return
        self.dtype, self.device, self.is_initialized = host_keys.dtype, host_keys.device, True
        self.keys, self.values = _above(host_keys, guest_keys), _above(host_values, guest_values)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        new = key_states.shape[-2]
        keys, values = super().update(key_states, value_states, *args, **kwargs)
        width, start, views = keys.shape[-2], 0, []
        for part in self._parts:
            rows, _, slots, _ = _states(part)[0].shape
            end, skipped = start + rows, width - slots - new
            part.keys, part.values = keys[start:end, :, skipped:], values[start:end, :, skipped:]
            views.append(part.keys)
            start = end
        self._views = views[0], views[1]
        return keys, values


def _states(layer: DynamicLayer) -> tuple[Tensor, Tensor]:
    assert layer.keys is not None
    assert layer.values is not None
    return layer.keys, layer.values


def _above(first: Tensor, second: Tensor) -> Tensor:
    """Rows of both, (rows, heads, slots, width), the shorter with zeros at its left."""
    slots = max(first.shape[-2], second.shape[-2])
    return torch.cat([torch.nn.functional.pad(part, (0, 0, slots - part.shape[-2], 0)) for part in (first, second)])
