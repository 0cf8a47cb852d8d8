"""Weaker versions of a model, made inside its own forward pass: skipped layers, attention reduced to the token itself,
units left out.

A perturbed stream shares the model, the prompt and the batch with every other stream; only its rows take the other
branch. Hooks therefore act on *rows*: they are installed for one forward pass, told which rows are perturbed, and
removed after it. Other streams of the same pass are not touched, not even in the last bit, because their rows are
copied through.

Sources: perturbed-attention guidance, Ahn et al. 2024, arXiv:2403.17377 (self-attention map replaced by identity);
layer skipping as in skip-layer guidance and self-speculative decoding; dropout as in Monte-Carlo dropout, Gal &
Ghahramani 2016, arXiv:1506.02142, with one mask for all positions (arXiv:1512.05287).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class SkipLayers:
    """Leave the named decoder layers out: their output is their input. Negative indices count from the end."""

    layers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class IdentityAttention:
    """In the named decoder layers every token attends to itself only: attention returns the token's own value."""

    layers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Dropout:
    """In the named decoder layers a fixed random `share` of what the layer adds to each unit is left out, the rest
    scaled up.

    The units are drawn once from `seed` and are the same at every position and in every call: the weak model is a
    model, with states that can be cached, and not noise.

    Raises: ValueError unless 0 <= share < 1.
    """

    layers: tuple[int, ...]
    share: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise ValueError(f"a share of units lies in [0, 1), got {self.share}")

    def scale(self, layer: int, width: int) -> Tensor:
        """float32 (width,): 0 where a unit is left out, 1 / (1 - share) elsewhere."""
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + layer)
        return (torch.rand(width, generator=generator) >= self.share) / (1 - self.share)


Perturbation = SkipLayers | IdentityAttention | Dropout


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The list of a model's decoder layers, of a transformers model or of `training`'s image models.

    Raises: TypeError if no `ModuleList` has as many entries as the configuration says there are layers.
    """
    config = getattr(model, "config", None)
    if config is not None and hasattr(config, "get_text_config"):
        config = config.get_text_config(decoder=True)
    count = getattr(config, "num_hidden_layers", None) or getattr(config, "num_layers", None)
    if config is None:
        count = getattr(getattr(model, "settings", None), "layers", None)
    lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count and "encoder" not in name.split(".")
    ]
    if not lists:
        raise TypeError(f"cannot find the decoder layers of {type(model).__name__}")
    # Outermost first: experts inside a layer may be a list of the same length.
    return min(lists, key=lambda item: item[0].count("."))[1]


@contextmanager
def perturbed_rows(model: nn.Module, rows: Sequence[Perturbation | None]) -> Iterator[None]:
    """Run the body with row i of every batch perturbed by `rows[i]` (None: as it is).

    Raises: TypeError if the model's layers are built in a way these hooks do not know, IndexError for a missing layer.
    """
    handles: list[Any] = []
    try:
        for perturbation in {row for row in rows if row is not None}:
            selected = torch.tensor([row == perturbation for row in rows])
            layers = decoder_layers(model)
            for index in perturbation.layers:
                layer = layers[index]
                if isinstance(perturbation, Dropout):
                    drop = _drop(selected, perturbation, index % len(layers))
                    handles.append(layer.register_forward_hook(drop, with_kwargs=True))
                elif isinstance(perturbation, SkipLayers):
                    handles.append(layer.register_forward_hook(_skip(selected), with_kwargs=True))
                else:
                    attention = _self_attention(layer)
                    handles.append(attention.register_forward_hook(_identity(selected), with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _replace_rows(output: Any, replacement: Tensor, selected: Tensor) -> Any:
    first = output[0] if isinstance(output, tuple) else output
    chosen = selected.to(first.device).reshape(-1, *([1] * (first.ndim - 1)))
    mixed = torch.where(chosen, replacement.to(first.dtype), first)
    return (mixed, *output[1:]) if isinstance(output, tuple) else mixed


def _hidden_states(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    hidden = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
    assert isinstance(hidden, Tensor)
    return hidden


def _skip(selected: Tensor) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        return _replace_rows(output, _hidden_states(args, kwargs), selected)

    return hook


def _drop(selected: Tensor, dropout: Dropout, layer: int) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        hidden = _hidden_states(args, kwargs)
        after = output[0] if isinstance(output, tuple) else output
        scale = dropout.scale(layer, hidden.shape[-1]).to(after)
        return _replace_rows(output, hidden + scale * (after - hidden), selected)

    return hook


def _identity(selected: Tensor) -> Any:
    def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        values = module.v_proj(_hidden_states(args, kwargs))
        # Grouped queries: every value head serves as many query heads as the output projection expects.
        groups = module.o_proj.in_features // values.shape[-1]
        if groups > 1:
            heads = values.reshape(*values.shape[:-1], -1, module.head_dim)
            values = heads.repeat_interleave(groups, dim=-2).flatten(-2)
        return _replace_rows(output, module.o_proj(values), selected)

    return hook


def _self_attention(layer: nn.Module) -> nn.Module:
    attention = getattr(layer, "self_attn", None)
    if attention is None or not all(hasattr(attention, name) for name in ("v_proj", "o_proj", "head_dim")):
        raise TypeError(f"identity attention needs self_attn with v_proj and o_proj, {type(layer).__name__} has none")
    assert isinstance(attention, nn.Module)
    return attention
