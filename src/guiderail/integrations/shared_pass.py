"""Compute guidance streams inside the forward passes that `model.generate` runs anyway.

A logits processor is called after the model, so its streams would need a second pass for every token: twice the
weights read, twice the overhead. But what the next pass will be fed is known before it: each row of the call before,
and the token chosen since. So when `generate` runs its next pass, the streams' rows are put below its own,

    input ids     [host rows ]         keys and values   [.. host ....]
                  [guest rows]                           [  guest ....]     right-aligned, the gap is masked

and taken off the output again before `generate` sees it. The answers wait in the runner, under the tokens they belong
to. Beam search permutes its rows between two passes and tells nobody, but the cache shows it: what the last layer keeps
for the last token depends on the whole row, so each row is found again by its bits. If a guess about the rows was wrong
all the same, nobody asks for them and the streams are evaluated the ordinary way: a guess costs time, never a result.
The host's own scores change as they do in any larger batch, by rounding.

Both caches stay what they are, with their tensors as views of the joint one, so joining copies once and every later
pass copies no more than two separate ones would. A static cache of the host is written in place; there both parts begin
at slot 0, and the guests' views grow.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer, StaticLayer

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

    def __init__(self, host: Cache, over: Callable[[], None]) -> None:
        self._host_reference: Callable[[], Any] = weakref.ref(host, lambda _: over())
        self._cache: _JointCache | None = None
        self._guests: GuestRows | None = None
        self._marks: Tensor | None = None

    def parents(self, rows: int) -> list[int] | None:
        """Which row of the last call each row of the coming pass continues; None if that cannot be told."""
        marks, self._marks = self._marks, None
        if marks is None:  # after the prefill, rows that may be permuted are copies of each other
            return list(range(rows))
        now = _marks(self._host_reference())
        if now.shape != marks.shape:
            return None
        found: list[list[bool]] = (now[:, None] == marks[None]).all(dim=-1).tolist()
        return [row.index(True) for row in found] if all(map(any, found)) else None

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
            and _is_known_mask(mask, len(ids), cache)
            and kwargs.get("use_cache") is True
            and kwargs.get("return_dict") is True
            and all(value is None or value is False or name in _KNOWN for name, value in kwargs.items())
            and not cache.offloading
            and {type(layer) for layer in cache.layers} in ({DynamicLayer}, {StaticLayer})
        )

    def join(self, guests: GuestRows, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The forward arguments of the pass with the guests in it."""
        host = kwargs["past_key_values"]
        if self._cache is None or self._cache.guest is not guests.cache:
            self._cache = _JointCache(host, guests.cache)
        self._guests = guests
        ids = kwargs["input_ids"]
        own = kwargs.get("attention_mask")
        if own is None:  # all of the host's slots, and none of the gap before them
            own = torch.ones(len(ids), int(host.get_seq_length()) + 1, dtype=torch.long, device=ids.device)
        width = self._cache.join()
        return {
            **kwargs,
            "input_ids": torch.cat([ids, guests.ids]),
            "position_ids": torch.cat([kwargs["position_ids"], guests.positions]),
            "attention_mask": _joint_mask(own, guests.mask, width),
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
        output.past_key_values = host = self._host_reference()
        self._marks = _marks(host)
        guests.finish(logits[rows:])


def _marks(cache: Any) -> Tensor:
    """(rows, heads * width): the keys of the last token in the last layer."""
    layer = cache.layers[-1]
    end = int(layer.get_seq_length())
    marks: Tensor = layer.keys[:, :, end - 1].flatten(1).clone()
    return marks


def _is_static(cache: Any) -> bool:
    return type(cache.layers[0]) is StaticLayer


def _is_known_mask(mask: Any, rows: int, cache: Any) -> bool:
    if _is_static(cache):  # generate makes the mask of a static cache itself: what the one new token sees
        return isinstance(mask, Tensor) and mask.shape == (rows, 1, 1, cache.layers[0].max_cache_len)
    return mask is None or (isinstance(mask, Tensor) and mask.shape == (rows, cache.get_seq_length() + 1))


def _joint_mask(own: Tensor, guests: Tensor, width: int) -> Tensor:
    """Both masks in one: (rows, slots) with 1 for visible, or the host's ready-made (rows, 1, 1, slots)."""
    pad = torch.nn.functional.pad
    if own.ndim == 2:
        return torch.cat([pad(mask.long(), (width - mask.shape[1], 0)) for mask in (own, guests)])
    visible = pad(guests, (0, width - guests.shape[1])).bool()[:, None, None]
    if own.dtype != torch.bool:  # added to the attention scores
        hidden = torch.finfo(own.dtype).min
        visible = torch.zeros_like(visible, dtype=own.dtype).masked_fill(~visible, hidden)
        return torch.cat([pad(own, (0, width - own.shape[-1]), value=hidden), visible])
    return torch.cat([pad(own, (0, width - own.shape[-1])), visible])


class _JointCache(Cache):
    """Two caches as one: the rows of the host above those of the guest."""

    def __init__(self, host: Any, guest: Any) -> None:
        self.guest = guest
        kind = _JointStaticLayer if _is_static(host) else _JointLayer
        self._joined = [kind(*pair) for pair in zip(host.layers, guest.layers, strict=True)]
        super().__init__(layers=list(self._joined))

    def join(self) -> int:
        """Prepare for one more token in every row. Returns how wide its attention mask is."""
        return max(layer.join() for layer in self._joined)


class _JointLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values (host rows + guest rows, heads, slots, width); the parts' own tensors are views of these."""

    def __init__(self, host: Any, guest: DynamicLayer) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._parts: tuple[Any, Any] = host, guest
        self._views: tuple[Tensor, Tensor] | None = None

    def _is_joined(self) -> bool:
        """Whether the parts still look at the joint tensors; whoever permutes or cuts one makes it look elsewhere."""
        now = tuple(_states(part)[0] for part in self._parts)
        return self._views is not None and now[0] is self._views[0] and now[1] is self._views[1]

    def join(self) -> int:
        keys = [_states(part)[0] for part in self._parts]
        self.dtype, self.device, self.is_initialized = keys[0].dtype, keys[0].device, True
        return max(part.shape[-2] for part in keys) + 1

    def get_seq_length(self) -> int:
        return max(_states(part)[0].shape[-2] for part in self._parts)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        new = key_states.shape[-2]
        if self._is_joined():
            keys, values = super().update(key_states, value_states, *args, **kwargs)
        else:
            parts = [_states(part) for part in self._parts]
            keys = _appended([part[0] for part in parts], key_states)
            values = _appended([part[1] for part in parts], value_states)
            self.keys, self.values = keys, values
        width, start, views = keys.shape[-2], 0, []
        for part in self._parts:
            rows, _, slots, _ = _states(part)[0].shape
            end, skipped = start + rows, width - slots - new
            part.keys, part.values = keys[start:end, :, skipped:], values[start:end, :, skipped:]
            views.append(part.keys)
            start = end
        self._views = views[0], views[1]
        return keys, values


class _JointStaticLayer(_JointLayer):  # type: ignore[no-untyped-call]
    """The same over a static layer of the host: tensors of a fixed size, written in place, both parts from slot 0."""

    def join(self) -> int:
        host, guest = self._parts
        (host_keys, host_values), (guest_keys, guest_values) = map(_states, self._parts)
        used, slots = int(host.cumulative_length), guest_keys.shape[-2]
        # A guest may be longer than the host, and grows as far as the host may.
        width = host.max_cache_len + max(0, slots - used)
        rows = len(host_keys) + len(guest_keys)
        known = self.keys
        if known is None or known.shape[-2] < width or len(known) != rows:
            self.dtype, self.device, self.is_initialized, self._views = host_keys.dtype, host_keys.device, True, None
            self.keys, self.values = (
                like.new_zeros(rows, like.shape[1], width, like.shape[3]) for like in (host_keys, host_values)
            )
        keys, values = _states(self)
        width = int(keys.shape[-2])
        if not self._is_joined():
            first = len(host_keys)
            for joint, own, other in ((keys, host_keys, guest_keys), (values, host_values, guest_values)):
                joint[:first, :, : own.shape[-2]] = own
                joint[first:, :, :slots] = other
            host.keys, host.values = (joint[:first, :, : host.max_cache_len] for joint in (keys, values))
            guest.keys, guest.values = (joint[first:, :, :slots] for joint in (keys, values))
            self._views = host.keys, guest.keys
        return width

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        host, guest = self._parts
        keys, values = _states(self)
        rows, used, slots, new = len(host.keys), int(host.cumulative_length), guest.keys.shape[-2], key_states.shape[-2]
        for joint, states in ((keys, key_states), (values, value_states)):
            joint[:rows, :, used : used + new] = states[:rows]
            joint[rows:, :, slots : slots + new] = states[rows:]
        host.cumulative_length.add_(new)
        guest.keys, guest.values = (joint[rows:, :, : slots + new] for joint in (keys, values))
        self._views = host.keys, guest.keys
        return keys, values


def _states(layer: Any) -> tuple[Tensor, Tensor]:
    assert layer.keys is not None
    assert layer.values is not None
    return layer.keys, layer.values


def _appended(parts: list[Tensor], new: Tensor) -> Tensor:
    """Rows of all parts, (rows, heads, slots, width), the shorter with zeros at their left, and one block more."""
    slots = max(part.shape[-2] for part in parts)
    joint = new.new_empty(len(new), new.shape[1], slots + new.shape[-2], new.shape[3])
    start = 0
    for part in parts:
        rows, missing = joint[start : start + len(part)], slots - part.shape[-2]
        rows[:, :, :missing] = 0
        rows[:, :, missing:slots] = part
        start += len(part)
    joint[:, :, slots:] = new
    return joint
