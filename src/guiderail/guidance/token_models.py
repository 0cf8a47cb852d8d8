"""Decoders of token models (images, speech, sound) as released: which rule, which schedule, which order of truncation.

Token models differ from text in what surrounds the rule, not in the rule: codes come from segments of one vocabulary
or in several codebooks at once, scales change along the sequence, and each release truncates and cools in its own
order. A preset carries exactly that, as a value; it maps the streams' scores to the distribution a code is drawn
from, and knows at which steps a stream is not needed. The forward passes stay the model's.

| preset | rule | schedule | order |
|---|---|---|---|
| `LlamaGen` | classifier-free | interval | temperature, top-k, top-p |
| `Var` | classifier-free, 0-neutral | linear ramp over scales | top-k, top-p |
| `VoxInstruct` | one null, then two nested | by phase | legality, top-k, top-p, temperature last |
| `DoubledBatch` | classifier-free on [conditional; null] rows | constant or per codebook | none: what MusicGen,
Janus, Dia do |
| `Emu3` | classifier-free with a negative prompt | constant | grid automaton, top-k |

Sources: LlamaGen, Sun et al. 2024, arXiv:2406.06525; VAR, Tian et al. 2024, arXiv:2404.02905; VoxInstruct, Zhou et
al. 2024, arXiv:2408.15676; MaskGIT, Chang et al. 2022, arXiv:2202.04200; Emu3, Wang et al. 2024, arXiv:2409.18869;
MusicGen, Copet et al. 2023, arXiv:2306.05284.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from guiderail.logits.classifier_free import Convention, canonical_scale, classifier_free_guidance
from guiderail.logits.combination import Weight, affine_combination, log_probabilities
from guiderail.logits.multi_condition import nested_weights
from guiderail.logits.sampling import Sampling
from guiderail.logits.schedules import Schedule, interval, linear_ramp


class SegmentTable:
    """One flat vocabulary cut into named segments: the only place where id ranges are written down.

    Hand-written ranges drift (the VoxInstruct release forbids two legal speech tokens and allows padding); masks
    derived from one table cannot.

    Args: segments (name, number of ids), in order, from id 0.
    Raises: ValueError for an empty or repeated segment.
    """

    def __init__(self, segments: Sequence[tuple[str, int]]) -> None:
        self._ranges: dict[str, range] = {}
        start = 0
        for name, count in segments:
            if name in self._ranges or count < 1:
                raise ValueError(f"segment {name!r} is repeated or empty")
            self._ranges[name] = range(start, start + count)
            start += count
        self.size = start

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, name: str) -> range:
        return self._ranges[name]

    def segment_of(self, token_id: int) -> str:
        """The segment an id belongs to. Raises ValueError outside the table."""
        for name, ids in self._ranges.items():
            if token_id in ids:
                return name
        raise ValueError(f"id {token_id} is in no segment of {self.size} ids")

    def legal(self, *names: str, device: torch.device | str | None = None) -> Tensor:
        """bool (size,): True for the ids of the named segments."""
        allowed = torch.zeros(self.size, dtype=torch.bool, device=device)
        for name in names:
            ids = self._ranges[name]
            allowed[ids.start : ids.stop] = True
        return allowed

    def token_bytes(self) -> list[bytes]:
        """A spelling for every id, `name:number;`, so that a grammar over ids is a grammar over text.

        `Vocabulary.from_bytes(table.token_bytes())` with a regular expression such as `(semantic:\\d+;)+end:0;` is a
        phase automaton in the same engine that constrains text.
        """
        return [f"{name}:{index};".encode() for name, ids in self._ranges.items() for index in range(len(ids))]


@dataclass(frozen=True, slots=True)
class LlamaGen:
    """LlamaGen's decoder, class- or text-conditional.

    Args:
        scale: 1.0 = off. The release runs one unguided stream for every scale up to 1; here interpolation and
            inversion work.
        guided_steps: the release's cfg_interval: -1 = always; k = the first token and the k + 1 after it.
        temperature, top_k (0 = all), top_p: temperature first, then top-k, then top-p.
    """

    scale: float = 4.0
    guided_steps: int = -1
    temperature: float = 1.0
    top_k: int = 2000
    top_p: float = 1.0

    @property
    def schedule(self) -> Schedule:
        """Scale by step; step 0 is the token the prefill predicts."""
        return interval(self.scale) if self.guided_steps < 0 else interval(self.scale, 0, self.guided_steps + 2)

    def needs_null(self, step: int) -> bool:
        """False where the scale is 1: the null stream and its cache can rest."""
        return self.schedule(step) != 1

    def probabilities(self, conditional: Tensor, null: Tensor | None, step: int) -> Tensor:
        """float32 (..., vocab). `null` may be None where it is not needed."""
        scale = self.schedule(step)
        guided = conditional.float() if null is None else classifier_free_guidance(conditional, null, scale)
        if null is None and scale != 1:
            raise ValueError(f"step {step} is guided and needs the null stream")
        return Sampling(True, self.temperature, self.top_k or None, self.top_p).probabilities(guided, [], None)


@dataclass(frozen=True, slots=True)
class Var:
    """VAR's decoder over scales: no guidance at the first, all of it at the last.

    Args:
        weight: the release's cfg, 0-neutral; 1.5 for its benchmark, about 5 for looks.
        scales: number of resolutions. top_k, top_p: the benchmark's 900 and 0.96; 0 = off.
    """

    weight: float = 1.5
    scales: int = 10
    top_k: int = 900
    top_p: float = 0.96

    @property
    def schedule(self) -> Schedule:
        """1-neutral scale by index of the resolution."""
        return linear_ramp(canonical_scale(self.weight, "var"), self.scales)

    def needs_null(self, scale_index: int) -> bool:
        """False at the first scale, where the release runs the null stream for nothing."""
        return self.schedule(scale_index) != 1

    def probabilities(self, conditional: Tensor, null: Tensor | None, scale_index: int) -> Tensor:
        """float32 (batch, tokens of this scale, vocab); tokens of one scale are drawn independently."""
        scale = self.schedule(scale_index)
        if null is None and scale != 1:
            raise ValueError(f"scale {scale_index} is guided and needs the null stream")
        guided = conditional.float() if null is None else classifier_free_guidance(conditional, null, scale)
        return Sampling(True, 1.0, self.top_k or None, self.top_p or None).probabilities(guided, [], None)


VOXINSTRUCT_TOKENS = SegmentTable(
    [
        ("pad", 1),
        ("language", 2),
        ("semantic", 500),
        ("acoustic", 1024),
        ("begin", 1),
        ("end_semantic", 1),
        ("end_acoustic", 1),
    ]
)
"""VoxInstruct's flat vocabulary of 1530: HuBERT clusters, first EnCodec codebook, markers."""


@dataclass(frozen=True, slots=True)
class VoxInstruct:
    """VoxInstruct's two phases: semantic tokens guided by the text, acoustic ones by text and semantics, nested.

    Args: text_scale_semantic, text_scale_acoustic, semantic_scale: 1.0 = off, the script's values by default.
        Truncation is computed at temperature 1 and the temperature applied after it, the reverse of LlamaGen. Only
        single nulls are used: text and semantic tokens were dropped independently in training, hardly ever together.
    """

    text_scale_semantic: float = 1.5
    text_scale_acoustic: float = 3.0
    semantic_scale: float = 1.5
    temperature: float = 0.8
    top_p: float = 0.95
    top_k_semantic: int = 5
    top_k_acoustic: int = 50

    def weights(self, phase: Literal["semantic", "acoustic"]) -> tuple[Weight, Weight, Weight]:
        """Weights of (conditional, text null, semantic null). Weight 0 = that stream need not run."""
        if phase == "semantic":
            return self.text_scale_semantic, 1 - self.text_scale_semantic, 0.0
        return nested_weights(self.text_scale_acoustic, self.semantic_scale)

    def legal(self, phase: Literal["semantic", "acoustic"], device: torch.device | str | None = None) -> Tensor:
        """The ids a phase may produce: its own segment and its end marker."""
        return VOXINSTRUCT_TOKENS.legal(phase, f"end_{phase}", device=device)

    def probabilities(
        self,
        phase: Literal["semantic", "acoustic"],
        conditional: Tensor,
        text_null: Tensor | None = None,
        semantic_null: Tensor | None = None,
    ) -> Tensor:
        """float32 (..., 1530). Raises ValueError if a stream with a weight other than 0 is missing."""
        streams, weights = [conditional], self.weights(phase)
        used = [weights[0]]
        for name, stream, weight in zip(("text", "semantic"), (text_null, semantic_null), weights[1:], strict=True):
            if weight == 0:
                continue
            if stream is None:
                raise ValueError(f"the {phase} phase needs the {name} null")
            streams.append(stream)
            used.append(weight)
        guided = affine_combination(streams, used)
        top_k = self.top_k_semantic if phase == "semantic" else self.top_k_acoustic
        sampling = Sampling(True, self.temperature, top_k, self.top_p, truncate_before_temperature=True)
        return sampling.probabilities(guided, [], self.legal(phase, guided.device))


@dataclass(frozen=True, slots=True)
class DoubledBatch:
    """Guidance where the model already runs a doubled batch, conditional rows first: MusicGen, Janus, Dia, LlamaGen.

    Args:
        scale: in `convention`: MusicGen, Janus: "canonical"; Dia writes c + w (c - u): "ho-salimans". A number, or
            one per codebook.
        shortlist: Dia: guidance only chooses the k best tokens; their scores are the conditional ones. None = off.
        codebooks: rows per sequence, if scores come as (2 * batch * codebooks, vocab).
    """

    scale: float | Sequence[float] = 3.0
    convention: Convention = "canonical"
    shortlist: int | None = None
    codebooks: int = 1

    def __call__(self, scores: Tensor) -> Tensor:
        """Guided float32 log-probabilities, half as many rows.

        Args: scores (2 * batch [* codebooks], [codebooks,] vocab), raw.
        Raises: ValueError for an odd number of rows, or codebooks that do not fit.
        """
        if scores.shape[0] % 2:
            raise ValueError(f"a doubled batch has an even number of rows, got {scores.shape[0]}")
        conditional, null = scores.chunk(2)
        guided = classifier_free_guidance(conditional, null, self._scale_for(conditional))
        if self.shortlist is None:
            return guided
        if self.shortlist < 1:
            raise ValueError(f"a shortlist holds at least one token, got {self.shortlist}")
        best = guided.topk(min(self.shortlist, guided.shape[-1]), dim=-1).indices
        keep = torch.zeros_like(guided, dtype=torch.bool).scatter(-1, best, True)
        return log_probabilities(conditional.float().masked_fill(~keep, -math.inf))

    def _scale_for(self, conditional: Tensor) -> Weight:
        if isinstance(self.scale, int | float):
            return canonical_scale(self.scale, self.convention)
        scales = torch.tensor([canonical_scale(value, self.convention) for value in self.scale])
        if conditional.ndim == 3:
            if conditional.shape[1] != len(scales):
                raise ValueError(f"{len(scales)} scales for {conditional.shape[1]} codebooks")
            return scales.to(conditional.device).expand(conditional.shape[:2])
        if self.codebooks != len(scales) or conditional.shape[0] % self.codebooks:
            raise ValueError(f"{len(scales)} scales for {conditional.shape[0]} rows of {self.codebooks} codebooks")
        return scales.to(conditional.device).repeat(conditional.shape[0] // self.codebooks)


@dataclass(frozen=True, slots=True)
class Emu3:
    """Emu3's image decoder: guidance with a negative prompt, visual tokens in rows, each row with an end mark.

    Streams are ordinary prompts, so `GuidedDecoder` and `GuidanceLogitsProcessor` run it: `ClassifierFree(scale,
    negative)` under the constraint of `grid`. There is no null token to know.

    Args: scale 1.0 = off. top_k: 0 = all. The defaults are the release's.
    """

    scale: float = 3.0
    top_k: int = 2048

    @property
    def sampling(self) -> Sampling:
        """How a token is drawn."""
        return Sampling(True, 1.0, self.top_k or None)

    @staticmethod
    def grid(
        height: int, width: int, *, visual: str = "visual", marks: tuple[str, str, str] = ("eol", "eof", "eoi")
    ) -> str:
        """A regular expression over `SegmentTable.token_bytes`: `height` rows of `width` visual tokens and an end mark
        each, then the marks of the frame's and the image's end.

        Args: visual the segment of visual tokens; marks the segments (of one id each) that end a row, frame and image.
        Raises: ValueError for an empty grid.
        """
        if height < 1 or width < 1:
            raise ValueError(f"a grid has at least one row and column, got {height} x {width}")
        row, frame, image = (f"{mark}:0;" for mark in marks)
        return rf"((?:{visual}:\d+;){{{width}}}{row}){{{height}}}{frame}{image}"


def delayed(codes: Tensor, pad: int) -> Tensor:
    """The delay pattern: codebook k starts k steps late, so that one step predicts one code of each.

    Args: codes (batch, codebooks, length). Returns: (batch, codebooks, length + codebooks - 1), `pad` where nothing
        is due.
    """
    batch, codebooks, length = codes.shape
    shifted = codes.new_full((batch, codebooks, length + codebooks - 1), pad)
    for index in range(codebooks):
        shifted[:, index, index : index + length] = codes[:, index]
    return shifted


def undelayed(shifted: Tensor) -> Tensor:
    """Inverse of `delayed`: (batch, codebooks, length)."""
    codebooks = shifted.shape[1]
    length = shifted.shape[2] - codebooks + 1
    if length < 1:
        raise ValueError(f"{shifted.shape[2]} steps are too few for {codebooks} delayed codebooks")
    return torch.stack([shifted[:, index, index : index + length] for index in range(codebooks)], dim=1)


def delay_legal(step: int, codebooks: int, length: int, vocab: int, pad: int) -> Tensor:
    """Which codes each codebook may produce at a step of the delay pattern: bool (codebooks, vocab).

    A codebook that has not begun or is done must pad; one in progress must not.
    """
    legal = torch.zeros(codebooks, vocab, dtype=torch.bool)
    for index in range(codebooks):
        if index <= step < index + length:
            legal[index] = True
            legal[index, pad] = False
        else:
            legal[index, pad] = True
    return legal


def committed(iteration: int, iterations: int, length: int) -> int:
    """How many positions are final after an iteration of confidence-ordered decoding: ceil(N (1 - cos(pi/2
    (k+1)/K)))."""
    if not 0 <= iteration < iterations:
        raise ValueError(f"iteration {iteration} of {iterations}")
    if iteration == iterations - 1:
        return length  # cos(pi/2) is not exactly 0 in floating point
    return math.ceil(length * (1 - math.cos(math.pi / 2 * (iteration + 1) / iterations)))


def fill_by_confidence(
    predict: Callable[[Tensor, Tensor], Mapping[str, Tensor]],
    tokens: Tensor,
    masked: Tensor,
    iterations: int,
    guidance: Callable[[Mapping[str, Tensor]], Tensor],
) -> Tensor:
    """Iterative parallel decoding (MaskGIT, VoxInstruct's later codebooks), guided, greedy in value and order.

    Every iteration predicts all open positions at once, and makes final those in which the guided model is most
    confident, as many as the cosine schedule says.

    Args:
        predict: (tokens, open positions) -> stream name -> logits (batch, length, vocab).
        tokens: int64 (batch, length), anything where masked. masked: bool (batch, length), the positions to fill.
        guidance: streams -> guided scores (batch, length, vocab), say
            `lambda s: classifier_free_guidance(s["conditional"], s["null"], 2.0)`.
    Returns: the tokens with every position filled; inputs are not modified.
    """
    tokens, still_open = tokens.clone(), masked.clone()
    total = masked.sum(dim=-1)
    for iteration in range(iterations):
        scores = log_probabilities(guidance(predict(tokens, still_open)))
        confidence, best = scores.max(dim=-1)
        confidence = torch.where(still_open, confidence, -math.inf)
        order = confidence.argsort(dim=-1, descending=True, stable=True)
        for row in range(tokens.shape[0]):
            length = int(total[row])
            already = length - int(still_open[row].sum())
            chosen = order[row, : committed(iteration, iterations, length) - already]
            tokens[row, chosen] = best[row, chosen]
            still_open[row, chosen] = False
    return tokens
