"""VAR, class-conditional: next-scale prediction as published, small enough to read, its checkpoints by name.

Source: Tian et al. 2024, "Visual Autoregressive Modeling: Scalable Image Generation via Next-Scale Prediction",
arXiv:2404.02905. An image is a pyramid of token maps, coarse to fine; all tokens of a scale are predicted at once from
all coarser scales. With f the feature map rebuilt so far (sum of upsampled code vectors),

    scale 0      reads  class embedding + start position, for each of its tokens
    scale k > 0  reads  a linear map of f, averaged down to the size of scale k

plus an embedding of level and position. The blocks' LayerNorms have no weights of their own: the class gives gain,
shift and output gate of every block ("AdaLN"). Queries and keys are normalised, their product scaled by a learned
factor a head, as in all released models. Attention is full within a scale and to coarser ones.

Parameter names and shapes are those of the release, so `load_released` reads `var_d16.pth`, `_d20`, `_d24`, `_d30` as
they are; `var_d36.pth` shares one modulation between blocks (`shared_modulation`). The tokenizer (a VQ-VAE with a
residual multi-scale quantiser) is outside: `ResidualPyramid` is its quantiser without convolutions, enough for pictures
quantised directly.

Example: `load_released("var_d16.pth", VarSettings())`; sampling with guidance that ramps over scales is
`sample_pyramid` with `guidance.token_models.Var`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize, scaled_dot_product_attention

_BUFFERS = ("lvl_1L", "attn_bias_for_masking", "zero_k_bias")
"""Constants that the release stores beside its parameters; they follow from the settings."""


@dataclass(frozen=True, slots=True)
class VarSettings:
    """Shape of a model; the defaults are the smallest released one, depth 16 at 256 pixels.

    Args: code_width of the tokenizer's code vectors; sides of the token maps, coarse to fine; width is 64 a layer and
        heads one a layer in the release; normalised_attention False scales by 0.25 / sqrt(head width) instead;
        shared_modulation one gain-shift-gate map for all blocks.
    """

    vocab: int = 4096
    code_width: int = 32
    width: int = 1024
    layers: int = 16
    heads: int = 16
    sides: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
    classes: int = 1000
    normalised_attention: bool = True
    shared_modulation: bool = False
    epsilon: float = 1e-6

    @property
    def starts(self) -> tuple[int, ...]:
        """Where each scale begins in the sequence, and its length at the end: 0, 1, 5, 14, ..."""
        starts = [0]
        for side in self.sides:
            starts.append(starts[-1] + side**2)
        return tuple(starts)


class _Attention(nn.Module):
    zero_k_bias: Tensor

    def __init__(self, settings: VarSettings) -> None:
        super().__init__()
        self.heads, width = settings.heads, settings.width
        self.scale = 1.0 if settings.normalised_attention else 0.25 / math.sqrt(width // settings.heads)
        self.normalised = settings.normalised_attention
        if self.normalised:
            self.scale_mul_1H11 = nn.Parameter(torch.full((1, self.heads, 1, 1), math.log(4.0)))
        self.mat_qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias, self.v_bias = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))
        self.register_buffer("zero_k_bias", torch.zeros(width), persistent=False)
        self.proj = nn.Linear(width, width)

    def forward(self, hidden: Tensor, mask: Tensor | None, past: list[Tensor] | None) -> Tensor:
        batch, length, width = hidden.shape
        bias = torch.cat([self.q_bias, self.zero_k_bias, self.v_bias])
        states = nn.functional.linear(hidden, self.mat_qkv.weight, bias).view(batch, length, 3, self.heads, -1)
        query, key, value = states.permute(2, 0, 3, 1, 4).unbind(0)
        if self.normalised:
            factor = self.scale_mul_1H11.clamp(max=math.log(100.0)).exp()
            query, key = normalize(query, dim=-1) * factor, normalize(key, dim=-1)
        if past is not None:
            if past:
                key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
            past[:] = [key, value]
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=self.scale)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, length, width))
        return out


class _FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        out: Tensor = self.fc2(nn.functional.gelu(self.fc1(hidden), approximate="tanh"))
        return out


class _Block(nn.Module):
    def __init__(self, settings: VarSettings) -> None:
        super().__init__()
        width = settings.width
        self.attn = _Attention(settings)
        self.ffn = _FeedForward(width)
        self.ln_wo_grad = nn.LayerNorm(width, eps=settings.epsilon, elementwise_affine=False)
        self.shared = settings.shared_modulation
        if self.shared:
            self.ada_gss = nn.Parameter(torch.randn(1, 1, 6, width) / width**0.5)
        else:
            self.ada_lin = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, hidden: Tensor, condition: Tensor, mask: Tensor | None, past: list[Tensor] | None) -> Tensor:
        parts = self.ada_gss + condition if self.shared else self.ada_lin(condition).view(len(condition), 1, 6, -1)
        gate1, gate2, gain1, gain2, shift1, shift2 = parts.unbind(2)
        hidden = hidden + gate1 * self.attn(self.ln_wo_grad(hidden) * (1 + gain1) + shift1, mask, past)
        out: Tensor = hidden + gate2 * self.ffn(self.ln_wo_grad(hidden) * (1 + gain2) + shift2)
        return out


class _SharedModulation(nn.Linear):
    def forward(self, condition: Tensor) -> Tensor:
        return super().forward(condition).view(len(condition), 1, 6, -1)


class _HeadNorm(nn.Module):
    def __init__(self, settings: VarSettings) -> None:
        super().__init__()
        self.ln_wo_grad = nn.LayerNorm(settings.width, eps=settings.epsilon, elementwise_affine=False)
        self.ada_lin = nn.Sequential(nn.SiLU(), nn.Linear(settings.width, 2 * settings.width))

    def forward(self, hidden: Tensor, condition: Tensor) -> Tensor:
        gain, shift = self.ada_lin(condition).view(len(condition), 1, 2, -1).unbind(2)
        out: Tensor = self.ln_wo_grad(hidden) * (1 + gain) + shift
        return out


class VarModel(nn.Module):
    """Logits of the tokens of every scale.

    Condition dropout is the caller's: label `settings.classes` is the null.
    """

    levels: Tensor

    def __init__(self, settings: VarSettings) -> None:
        super().__init__()
        self.settings, width = settings, settings.width
        length, first = settings.starts[-1], settings.sides[0] ** 2
        self.word_embed = nn.Linear(settings.code_width, width)
        self.class_emb = nn.Embedding(settings.classes + 1, width)
        self.pos_start = nn.Parameter(torch.empty(1, first, width))
        self.pos_1LC = nn.Parameter(torch.empty(1, length, width))
        self.lvl_embed = nn.Embedding(len(settings.sides), width)
        self.shared_ada_lin: nn.Module = nn.Identity()
        if settings.shared_modulation:
            self.shared_ada_lin = nn.Sequential(nn.SiLU(), _SharedModulation(width, 6 * width))
        self.blocks = nn.ModuleList(_Block(settings) for _ in range(settings.layers))
        self.head_nm = _HeadNorm(settings)
        self.head = nn.Linear(width, settings.vocab)
        levels = torch.cat([torch.full((side**2,), index) for index, side in enumerate(settings.sides)])
        self.register_buffer("levels", levels, persistent=False)
        deviation = (1 / width / 3) ** 0.5
        for table in (self.class_emb.weight, self.pos_start, self.pos_1LC, self.lvl_embed.weight):
            nn.init.trunc_normal_(table, std=deviation)

    def forward(self, labels: Tensor, known: Tensor | None) -> Tensor:
        """Teacher-forced logits of all scales that `known` allows.

        Args: labels int64 (batch,); known float (batch, positions after the first scale, code_width), from
            `ResidualPyramid.inputs`, whole scales; None = the first scale alone.
        Returns: float32 (batch, length, vocab), entry i predicts token i of the pyramid.
        Raises: ValueError if `known` does not end with a scale.
        """
        length = self.settings.starts[1] + (0 if known is None else known.shape[1])
        if length not in self.settings.starts:
            raise ValueError(f"{length} positions end inside a scale; scales end at {self.settings.starts[1:]}")
        levels = self.levels[:length]
        seen = levels[:, None] >= levels[None]
        return self._run(labels, self._embedded(labels, known, 0), seen[None, None], None)

    def scale(self, labels: Tensor, known: Tensor | None, index: int, past: list[list[Tensor]]) -> Tensor:
        """Logits of one scale, the coarser ones being in `past` (see `cache`), which is filled as a side effect.

        Args: known float (batch, tokens of this scale, code_width); None at scale 0.
        Returns: float32 (batch, tokens of this scale, vocab).
        """
        return self._run(labels, self._embedded(labels, known, index), None, past)

    def cache(self) -> list[list[Tensor]]:
        """An empty cache of keys and values, one list a block."""
        return [[] for _ in self.blocks]

    def _embedded(self, labels: Tensor, known: Tensor | None, index: int) -> Tensor:
        parts = []
        if index == 0:
            parts.append(self.class_emb(labels)[:, None] + self.pos_start)
        if known is not None:
            parts.append(self.word_embed(known))
        hidden = torch.cat(parts, 1)
        start = self.settings.starts[index]
        stop = start + hidden.shape[1]
        out: Tensor = hidden + self.lvl_embed(self.levels[start:stop]) + self.pos_1LC[:, start:stop]
        return out

    def _run(self, labels: Tensor, hidden: Tensor, mask: Tensor | None, past: list[list[Tensor]] | None) -> Tensor:
        condition = self.class_emb(labels)
        modulation = self.shared_ada_lin(condition)
        for index, block in enumerate(self.blocks):
            hidden = block(hidden, modulation, mask, None if past is None else past[index])
        logits: Tensor = self.head(self.head_nm(hidden.float(), condition)).float()
        return logits


class ResidualPyramid:
    """Maps of code vectors, coarse to fine, whose upsampled sum is the picture: VAR's quantiser without convolutions.

    Each scale codes what the coarser ones left: average down, nearest code, upsample (bicubic), subtract.

    Args: book float (vocab, code_width), shared by all scales; sides as in `VarSettings`.
    """

    def __init__(self, book: Tensor, sides: Sequence[int]) -> None:
        self.book, self.sides = book, tuple(sides)

    def encode(self, features: Tensor) -> Tensor:
        """(batch, code_width, side, side) -> tokens of all scales int64 (batch, length)."""
        rest, tokens = features.clone(), []
        for side in self.sides:
            vectors = interpolate(rest, size=(side, side), mode="area").flatten(2).transpose(1, 2)
            chosen = torch.cdist(vectors, self.book.expand(len(vectors), -1, -1)).argmin(-1)
            tokens.append(chosen)
            rest = rest - self._upsampled(chosen, side)
        return torch.cat(tokens, 1)

    def decode(self, tokens: Tensor) -> Tensor:
        """Inverse of `encode`, as far as the code book allows; also for the first scales alone."""
        return self._sums(tokens)[-1]

    def inputs(self, tokens: Tensor) -> Tensor:
        """What the model reads at every scale but the first: (batch, positions, code_width).

        Args: tokens of whole scales, at least the first; the finest is not read by anything and may be missing.
        """
        maps = []
        for rebuilt, side in zip(self._sums(tokens), self.sides[1:], strict=False):
            maps.append(interpolate(rebuilt, size=(side, side), mode="area").flatten(2).transpose(1, 2))
        return torch.cat(maps, 1)

    def _sums(self, tokens: Tensor) -> list[Tensor]:
        sums: list[Tensor] = []
        start = 0
        for side in self.sides:
            if start == tokens.shape[1]:
                break
            part = self._upsampled(tokens[:, start : start + side**2], side)
            sums.append(part if not sums else sums[-1] + part)
            start += side**2
        return sums

    def _upsampled(self, tokens: Tensor, side: int) -> Tensor:
        maps = self.book[tokens].transpose(1, 2).reshape(len(tokens), -1, side, side)
        full = self.sides[-1]
        return maps if side == full else interpolate(maps, size=(full, full), mode="bicubic")


class ScaleGuidance(Protocol):
    """`guidance.token_models.Var`, or any rule of its shape."""

    def needs_null(self, scale_index: int) -> bool: ...

    def probabilities(self, conditional: Tensor, null: Tensor | None, scale_index: int) -> Tensor: ...


@torch.no_grad()
def sample_pyramid(
    model: VarModel,
    pyramid: ResidualPyramid,
    labels: Tensor,
    guidance: ScaleGuidance,
    generator: torch.Generator | None = None,
    *,
    report: Callable[[int], None] | None = None,
) -> tuple[Tensor, int]:
    """Tokens of all scales, int64 (batch, length), and how many positions the model evaluated per picture.

    Where guidance is off the null stream does not run; its cache catches up scale by scale when guidance begins.
    """
    settings, evaluated = model.settings, 0
    nulls = torch.full_like(labels, settings.classes)
    past, null_past = model.cache(), model.cache()
    tokens = torch.zeros(len(labels), 0, dtype=torch.long, device=labels.device)
    read = 0  # scales in the null stream's cache
    for index, side in enumerate(settings.sides):
        known = pyramid.inputs(tokens)[:, -(side**2) :] if index else None
        conditional = model.scale(labels, known, index, past)
        evaluated += side**2
        null = None
        if guidance.needs_null(index):
            for missed in range(read, index + 1):
                start = settings.starts[missed] - settings.starts[1]
                part = pyramid.inputs(tokens)[:, start : start + settings.sides[missed] ** 2] if missed else None
                null = model.scale(nulls, part, missed, null_past)
                evaluated += settings.sides[missed] ** 2
            read = index + 1
        probabilities = guidance.probabilities(conditional, null, index)
        drawn = torch.multinomial(probabilities.flatten(0, 1), 1, generator=generator).view(len(labels), -1)
        tokens = torch.cat([tokens, drawn], 1)
        if report is not None:
            report(index)
    return tokens, evaluated


def load_released(path: str | Path, settings: VarSettings) -> VarModel:
    """A model from a released checkpoint: a state dict, bare or under "trainer" / "var_wo_ddp" as training writes it.

    Raises: ValueError naming parameters that are missing, unexpected or of another shape. Only tensors are unpickled.
    """
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    for wrapper in ("trainer", "var_wo_ddp"):
        if isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    state = {name: value for name, value in state.items() if name.rpartition(".")[2] not in _BUFFERS}
    model = VarModel(settings)
    expected = model.state_dict()
    wrong = [name for name in state if name in expected and state[name].shape != expected[name].shape]
    if state.keys() != expected.keys() or wrong:
        raise ValueError(
            f"{path}: missing {sorted(expected.keys() - state.keys())}, unexpected "
            f"{sorted(state.keys() - expected.keys())}, other shape {wrong}"
        )
    model.load_state_dict(state)
    return model.eval()
