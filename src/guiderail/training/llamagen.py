"""LlamaGen, class- and text-conditional: the published architecture, small enough to read, its checkpoints by name.

Source: Sun et al. 2024, "Autoregressive Model Beats Diffusion: Llama for Scalable Image Generation", arXiv:2406.06525.
A Llama decoder over the codes of an image in raster order, with

  * a prefix in place of a prompt: one class embedding, or 120 projected text features; the last entry of the class
    table, or a fixed `uncond_embedding`, is the null;
  * rotary positions in two dimensions: half of each head turns with the row, half with the column, the prefix is not
    rotated. (The released table multiplies the prefix by 0 instead of leaving it alone, so prefix queries and keys are
    zero: attention from the prefix is uniform, and image positions give it the score 0. Kept, for equal results.)

Parameter names and shapes are those of the release, so `load_released` reads its files as they are. `sample_codes`
draws images with `guidance.token_models.LlamaGen`; the tokenizer that makes pixels of codes is outside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

from guiderail.guidance.token_models import LlamaGen


@dataclass(frozen=True, slots=True)
class LlamaGenSettings:
    """Shape of a model; the defaults are GPT-B at 256 pixels.

    Args: grid the codes per side; conditions "class" or "text"; prefix its length (1 class, 120 text tokens);
        caption_width of the text features; multiple_of rounds the feed-forward width up.
    """

    vocab: int = 16384
    width: int = 768
    layers: int = 12
    heads: int = 12
    grid: int = 16
    conditions: Literal["class", "text"] = "class"
    classes: int = 1000
    prefix: int = 1
    caption_width: int = 2048
    multiple_of: int = 256
    dropout: float = 0.0
    rope_base: float = 10_000.0
    epsilon: float = 1e-5

    @property
    def feed_forward(self) -> int:
        """Width of the gated layer: 8/3 of the width, rounded up to `multiple_of`."""
        return -(-int(2 * 4 * self.width / 3) // self.multiple_of) * self.multiple_of


class _RmsNorm(nn.Module):
    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, hidden: Tensor) -> Tensor:
        wide = hidden.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.epsilon)).type_as(hidden) * self.weight


class _Attention(nn.Module):
    def __init__(self, settings: LlamaGenSettings) -> None:
        super().__init__()
        self.heads = settings.heads
        self.wqkv = nn.Linear(settings.width, 3 * settings.width, bias=False)
        self.wo = nn.Linear(settings.width, settings.width, bias=False)

    def forward(
        self, hidden: Tensor, rotation: Tensor, past: list[Tensor] | None, seen: Tensor | None = None
    ) -> Tensor:
        batch, length, width = hidden.shape
        query, key, value = self.wqkv(hidden).view(batch, length, 3, self.heads, -1).unbind(2)
        query, key = (_rotated(states, rotation).transpose(1, 2) for states in (query, key))
        value = value.transpose(1, 2)
        if past is not None:
            if past:
                key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
            past[:] = [key, value]
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=seen, is_causal=seen is None and length > 1)
        out: Tensor = self.wo(mixed.transpose(1, 2).reshape(batch, length, width))
        return out


class _FeedForward(nn.Module):
    def __init__(self, settings: LlamaGenSettings) -> None:
        super().__init__()
        self.w1 = nn.Linear(settings.width, settings.feed_forward, bias=False)
        self.w3 = nn.Linear(settings.width, settings.feed_forward, bias=False)
        self.w2 = nn.Linear(settings.feed_forward, settings.width, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        out: Tensor = self.w2(silu(self.w1(hidden)) * self.w3(hidden))
        return out


class _Block(nn.Module):
    def __init__(self, settings: LlamaGenSettings) -> None:
        super().__init__()
        self.attention = _Attention(settings)
        self.feed_forward = _FeedForward(settings)
        self.attention_norm = _RmsNorm(settings.width, settings.epsilon)
        self.ffn_norm = _RmsNorm(settings.width, settings.epsilon)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(
        self, hidden: Tensor, rotation: Tensor, past: list[Tensor] | None, seen: Tensor | None = None
    ) -> Tensor:
        hidden = hidden + self.dropout(self.attention(self.attention_norm(hidden), rotation, past, seen))
        out: Tensor = hidden + self.dropout(self.feed_forward(self.ffn_norm(hidden)))
        return out


class _ClassPrefix(nn.Module):
    def __init__(self, settings: LlamaGenSettings) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(settings.classes + 1, settings.width)

    def forward(self, condition: Tensor) -> Tensor:
        out: Tensor = self.embedding_table(condition).unsqueeze(1)
        return out


class _Projection(nn.Module):
    def __init__(self, settings: LlamaGenSettings) -> None:
        super().__init__()
        self.fc1 = nn.Linear(settings.caption_width, settings.width, bias=False)
        self.fc2 = nn.Linear(settings.width, settings.width, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.fc2(nn.functional.gelu(self.fc1(features), approximate="tanh"))
        return out


class _TextPrefix(nn.Module):
    uncond_embedding: Tensor

    def __init__(self, settings: LlamaGenSettings) -> None:
        super().__init__()
        self.cap_proj = _Projection(settings)
        null = torch.randn(settings.prefix, settings.caption_width) / settings.caption_width**0.5
        self.register_buffer("uncond_embedding", null)

    def forward(self, condition: Tensor) -> Tensor:
        out: Tensor = self.cap_proj(condition)
        return out


class LlamaGenModel(nn.Module):
    """Next-code logits of an image.

    Condition dropout is the caller's (`ConditionDropout`): pass `null_condition` where it is dropped.
    """

    rotation: Tensor

    def __init__(self, settings: LlamaGenSettings) -> None:
        super().__init__()
        self.settings = settings
        self.cls_embedding = _ClassPrefix(settings) if settings.conditions == "class" else _TextPrefix(settings)
        self.tok_embeddings = nn.Embedding(settings.vocab, settings.width)
        self.tok_dropout = nn.Dropout(settings.dropout)
        self.layers = nn.ModuleList(_Block(settings) for _ in range(settings.layers))
        self.norm = _RmsNorm(settings.width, settings.epsilon)
        self.output = nn.Linear(settings.width, settings.vocab, bias=False)
        self.register_buffer("rotation", _rotation_table(settings), persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(self.output.weight)

    def forward(
        self,
        condition: Tensor | None,
        codes: Tensor | None,
        past: list[list[Tensor]] | None = None,
        condition_mask: Tensor | None = None,
    ) -> Tensor:
        """Logits that predict the codes.

        Args:
            condition: int64 (batch,), or text features (batch, prefix, caption_width); None once it is in `past`.
            codes: int64 (batch, length) known codes; None at the prefill.
            past: `cache()`, filled as a side effect; None = no cache, everything at once.
            condition_mask: bool (batch, prefix), False where a text is padded (on the left, as released): those
                features count as zero and are seen by themselves alone. With a cache, give it at every step.
        Returns: float32; with a condition (batch, 1 + length, vocab), entry i predicts code i; without (batch, length,
            vocab), what follows each given code.
        Raises: ValueError with neither a condition nor codes, or for codes beyond the grid.
        """
        if condition is not None and condition_mask is not None:
            condition = condition * condition_mask.unsqueeze(-1)
        parts = [self.cls_embedding(condition)] if condition is not None else []
        if codes is not None:
            parts.append(self.tok_embeddings(codes))
        if not parts:
            raise ValueError("nothing to read: give a condition, codes or both")
        hidden = self.tok_dropout(torch.cat(parts, dim=1))
        start = past[0][0].shape[2] if past and past[0] else 0
        if start + hidden.shape[1] > len(self.rotation):
            raise ValueError(f"{start + hidden.shape[1]} positions, but the grid has {len(self.rotation)}")
        stop = start + hidden.shape[1]
        seen = None
        if condition_mask is not None:
            places = torch.arange(stop, device=hidden.device)
            present = torch.nn.functional.pad(condition_mask.bool(), (0, stop - self.settings.prefix), value=True)
            itself = places[start:, None] == places
            seen = ((places[start:, None] >= places) & (present[:, None] | itself))[:, None]
        for index, layer in enumerate(self.layers):
            hidden = layer(hidden, self.rotation[start:stop], None if past is None else past[index], seen)
        if condition is not None:
            hidden = hidden[:, self.settings.prefix - 1 :]
        logits: Tensor = self.output(self.norm(hidden)).float()
        return logits

    def cache(self) -> list[list[Tensor]]:
        """An empty cache of keys and values, one list a layer."""
        return [[] for _ in self.layers]

    def null_condition(self, batch: int) -> Tensor:
        """The condition that stands for none: (batch,) labels or (batch, prefix, caption_width) features."""
        device = self.output.weight.device
        if isinstance(self.cls_embedding, _TextPrefix):
            return self.cls_embedding.uncond_embedding.expand(batch, -1, -1)
        return torch.full((batch,), self.settings.classes, device=device)


@torch.no_grad()
def sample_codes(
    model: LlamaGenModel,
    condition: Tensor,
    guidance: LlamaGen,
    generator: torch.Generator | None = None,
    *,
    condition_mask: Tensor | None = None,
    report: Callable[[int], None] | None = None,
) -> tuple[Tensor, float]:
    """Codes of whole images, int64 (batch, grid^2), and how many rows the model evaluated per image and code.

    Guided steps run both streams as one batch of twice the rows; once guidance is over the null half is dropped.

    Args: condition and condition_mask as in `LlamaGenModel.forward` (the null is masked as the text is, as released);
        report is called with the number of codes drawn.
    """
    batch, length = len(condition), model.settings.grid**2
    guided, past, codes, rows = guidance.needs_null(0), model.cache(), [], 0
    if guided:
        condition = torch.cat([condition, model.null_condition(batch)])
        condition_mask = None if condition_mask is None else condition_mask.repeat(2, 1)
    logits = model(condition, None, past, condition_mask)[:, -1]
    for step in range(length):
        rows += len(logits)
        conditional, null = logits.chunk(2) if guided else (logits, None)
        drawn = torch.multinomial(guidance.probabilities(conditional, null, step), 1, generator=generator)
        codes.append(drawn)
        if report is not None:
            report(step + 1)
        if step + 1 == length:
            break
        if guided and not guidance.needs_null(step + 1):
            guided = False
            condition_mask = None if condition_mask is None else condition_mask[:batch]
            for kept in past:
                kept[:] = [states[:batch] for states in kept]
        logits = model(None, torch.cat([drawn, drawn]) if guided else drawn, past, condition_mask)[:, -1]
    return torch.cat(codes, 1), rows / (batch * length)


def load_released(path: str | Path, settings: LlamaGenSettings) -> LlamaGenModel:
    """A model from a released checkpoint: a state dict, bare or under "model", "module" or "state_dict".

    Raises: ValueError naming parameters that are missing, unexpected or of another shape. Only tensors are unpickled.
    """
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    for wrapper in ("model", "module", "state_dict"):
        if isinstance(state.get(wrapper), dict):
            state = state[wrapper]
            break
    model = LlamaGenModel(settings)
    expected = model.state_dict()
    wrong = [name for name in state if name in expected and state[name].shape != expected[name].shape]
    if state.keys() != expected.keys() or wrong:
        raise ValueError(
            f"{path}: missing {sorted(expected.keys() - state.keys())}, unexpected "
            f"{sorted(state.keys() - expected.keys())}, other shape {wrong}"
        )
    model.load_state_dict(state)
    return model.eval()


def _rotation_table(settings: LlamaGenSettings) -> Tensor:
    """(prefix + grid * grid, width of a head / 2, 2): cosine and sine of each pair's angle."""
    half = settings.width // settings.heads // 2
    frequencies = settings.rope_base ** -(torch.arange(0, half, 2)[: half // 2].float() / half)
    angles = torch.outer(torch.arange(settings.grid).float(), frequencies)
    rows, columns = angles.repeat_interleave(settings.grid, 0), angles.repeat(settings.grid, 1)
    table = torch.cat([rows, columns], dim=-1)
    turned = torch.stack([table.cos(), table.sin()], dim=-1)
    return torch.cat([torch.zeros(settings.prefix, *turned.shape[1:]), turned])


def _rotated(states: Tensor, rotation: Tensor) -> Tensor:
    """Args: states (batch, length, heads, head width); neighbours form the pairs."""
    pairs = states.float().reshape(*states.shape[:-1], -1, 2)
    cosine, sine = rotation[:, None, :, 0], rotation[:, None, :, 1]
    even, odd = pairs[..., 0], pairs[..., 1]
    return torch.stack([even * cosine - odd * sine, odd * cosine + even * sine], dim=-1).flatten(3).type_as(states)
