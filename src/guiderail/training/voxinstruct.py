"""VoxInstruct's two stages: one decoder for semantic tokens and the first acoustic codebook, one that fills the others.

Source: Zhou et al. 2024, arXiv:2408.15676. Input vectors of the first stage (`VoxInstructAr`) are

    text features (projected; zero where padded or dropped)  |  BOS, language, semantic ..., EOS1, acoustic ..., EOS2

plus an embedding of the segment: 0 text, 1 up to and with EOS1, 2 after it. Ids are those of
`guidance.token_models.VOXINSTRUCT_TOKENS`; id 0 embeds to zero, which is how tokens are hidden.

The second stage (`VoxInstructNar`) reads all codebooks at once, without a causal mask: an input vector is the sum over
codebooks of their embeddings, of the segment and of the codebook to predict. Semantic positions hold the same id in
every codebook. It predicts codebook q from those below it and from what is known of q itself, in a few rounds that
make the most confident positions final (SoundStorm, arXiv:2305.09636; `guidance.token_models.fill_by_confidence`).

Parameter names follow the release (`model`, `embed_tokens` or `all_embed_tokens`, `embed_segments`, `embed_res`,
`out_proj`, `prompt_fc`), except that the text encoder is outside: features come in, from mT5 or anything else.
`load_released` fills a stage from a released file and hands out the file's text encoder.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from guiderail.guidance.token_models import VOXINSTRUCT_TOKENS, VoxInstruct, fill_by_confidence
from guiderail.logits.classifier_free import classifier_free_guidance


class VoxInstructAr(nn.Module):
    """The decoder over a flat vocabulary.

    Args: config a transformers LlamaConfig (its vocab_size is the flat vocabulary's); feature_width of the text
        encoder.
    """

    def __init__(self, config: Any, feature_width: int) -> None:
        super().__init__()
        import transformers

        self.model = transformers.LlamaForCausalLM(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=0)
        nn.init.trunc_normal_(self.embed_tokens.weight, std=0.02)
        nn.init.zeros_(self.embed_tokens.weight[0])
        self.embed_segments = nn.Embedding(3, config.hidden_size)
        # As small as the tokens': at the default's 1 they drown the tokens for the first thousand steps of training.
        nn.init.trunc_normal_(self.embed_segments.weight, std=0.02)
        self.prompt_fc = nn.Linear(feature_width, config.hidden_size)

    def forward(
        self,
        features: Tensor,
        text_mask: Tensor,
        ids: Tensor,
        segments: Tensor,
        *,
        drop_text: Tensor | None = None,
        drop_semantic: Tensor | None = None,
        past: Any = None,
    ) -> Tensor:
        """Logits (batch, length, vocab): entry i follows `ids[:, i]`.

        Args:
            features: (batch, text length, feature width); text_mask: (batch, text length), 1 = present.
            ids, segments: int64 (batch, length); segments hold 1 or 2.
            drop_text, drop_semantic: bool (batch,), rows that read the null. None = none.
            past: a transformers cache, extended by what is read. With the first ids it takes the text; later calls
                bring new ids only, and features of length 0.
        """
        text = self.prompt_fc(features) * text_mask.unsqueeze(-1)
        if drop_text is not None:
            text = text.masked_fill(drop_text[:, None, None], 0.0)
        if drop_semantic is not None:
            ids = ids.masked_fill((segments == 1) & drop_semantic[:, None], 0)
        zeros = torch.zeros(text.shape[:2], dtype=torch.long, device=ids.device)
        inputs = torch.cat([text, self.embed_tokens(ids)], 1)
        inputs = inputs + self.embed_segments(torch.cat([zeros, segments], 1))
        logits: Tensor = self.model(inputs_embeds=inputs, past_key_values=past, use_cache=past is not None).logits
        return logits[:, text.shape[1] :]

    @torch.no_grad()
    def plan(
        self, features: Tensor, text_mask: Tensor, preset: VoxInstruct, *, language: int = 0, limit: int,
        generator: torch.Generator | None = None,
    ) -> list[list[int]]:  # fmt: skip
        """Draw the semantic phase: a list of ids a row, from BOS to EOS1.

        Args: features, text_mask as in `forward`; language 0 or 1; limit on semantic tokens, after which EOS1 is set.
        """
        begin, speech = VOXINSTRUCT_TOKENS["begin"].start, VOXINSTRUCT_TOKENS["language"].start + language
        end, batch, device = VOXINSTRUCT_TOKENS["end_semantic"].start, len(features), features.device
        rows = [[begin, speech] for _ in range(batch)]
        ids = torch.tensor(rows, device=device)
        streams = self._streams(batch, preset.weights("semantic"), device)
        done = torch.zeros(batch, dtype=torch.bool, device=device)
        for step in range(limit + 1):
            logits = self._read(streams, features, text_mask, ids, torch.ones_like(ids))
            chances = preset.probabilities("semantic", *logits)
            drawn = torch.multinomial(chances, 1, generator=generator)
            if step == limit:
                drawn = torch.full_like(drawn, end)
            for row, token, over in zip(rows, drawn[:, 0].tolist(), done.tolist(), strict=True):
                if not over:
                    row.append(token)
            done |= drawn[:, 0] == end
            if bool(done.all()):
                break
            features, text_mask, ids = features[:, :0], text_mask[:, :0], drawn
        return rows

    @torch.no_grad()
    def speak(
        self, features: Tensor, text_mask: Tensor, plans: Sequence[Sequence[int]], preset: VoxInstruct, *, limit: int,
        generator: torch.Generator | None = None, rule: Callable[..., Tensor] | None = None,
    ) -> list[list[int]]:  # fmt: skip
        """Draw the acoustic phase after `plan`: ids of the first codebook a row, without EOS2.

        Rows whose plans have one length run together. A stream whose weight is 0 does not run.

        Args: plans as `plan` gives them; limit on codes; rule in place of the preset's own: (conditional, text null,
            semantic null) (batch, vocab) -> probabilities; all three streams run for it.
        """
        end, device = VOXINSTRUCT_TOKENS["end_acoustic"].start, features.device
        out: list[list[int]] = [[] for _ in plans]
        for length in sorted({len(plan) for plan in plans}):
            group = [index for index, plan in enumerate(plans) if len(plan) == length]
            text, mask = features[group], text_mask[group]
            ids = torch.tensor([list(plans[index]) for index in group], device=device)
            segments = torch.ones_like(ids)
            weights = preset.weights("acoustic") if rule is None else (1.0, 1.0, 1.0)
            streams = self._streams(len(group), weights, device)
            done = torch.zeros(len(group), dtype=torch.bool, device=device)
            for _ in range(limit):
                logits = self._read(streams, text, mask, ids, segments)
                chances = preset.probabilities("acoustic", *logits) if rule is None else rule(*logits)
                ids = torch.multinomial(chances, 1, generator=generator)
                done |= ids[:, 0] == end
                for index, token, over in zip(group, ids[:, 0].tolist(), done.tolist(), strict=True):
                    if not over:
                        out[index].append(token)
                if bool(done.all()):
                    break
                text, mask, segments = text[:, :0], mask[:, :0], torch.full_like(ids, 2)
        return out

    @staticmethod
    def _streams(batch: int, weights: Sequence[Any], device: Any) -> list[tuple[dict[str, Tensor], Any] | None]:
        """(what a stream hides, its cache): conditional, text null, semantic null. None = a null of weight 0."""
        from transformers import DynamicCache

        yes = torch.ones(batch, dtype=torch.bool, device=device)
        hidden: tuple[dict[str, Tensor], ...] = ({}, {"drop_text": yes}, {"drop_semantic": yes})
        pairs = zip(hidden, weights, strict=True)
        return [(drops, DynamicCache()) if not drops or weight != 0 else None for drops, weight in pairs]

    def _read(
        self, streams: Sequence[tuple[dict[str, Tensor], Any] | None], features: Tensor, text_mask: Tensor, ids: Tensor,
        segments: Tensor,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:  # fmt: skip
        """Logits (batch, vocab) after `ids`, of every stream that runs."""

        def read(stream: tuple[dict[str, Tensor], Any]) -> Tensor:
            logits: Tensor = self(features, text_mask, ids, segments, **stream[0], past=stream[1])
            return logits[:, -1]

        conditional, text_null, semantic_null = streams
        if conditional is None:
            raise ValueError("the conditional stream always runs")
        return read(conditional), text_null and read(text_null), semantic_null and read(semantic_null)


class VoxInstructNar(nn.Module):
    """The model of the later codebooks.

    Args: config a transformers LlamaConfig (its vocab_size is the flat vocabulary's); feature_width of the text
        encoder; codebooks of the codec.
    """

    def __init__(self, config: Any, feature_width: int, codebooks: int = 8) -> None:
        super().__init__()
        import transformers

        self.codebooks = codebooks
        self.codes = len(VOXINSTRUCT_TOKENS["acoustic"])
        self.model = transformers.LlamaModel(config)
        width = config.hidden_size
        self.all_embed_tokens = nn.ModuleList(
            nn.Embedding(config.vocab_size, width, padding_idx=0) for _ in range(codebooks)
        )
        for table in self.all_embed_tokens:
            nn.init.trunc_normal_(table.weight, std=0.02)  # type: ignore[arg-type]
            nn.init.zeros_(table.weight[0])  # type: ignore[index]
        self.embed_segments = nn.Embedding(3, width)
        self.embed_res = nn.Embedding(codebooks - 1, width)
        for small in (self.embed_segments, self.embed_res):  # as the tokens: see the first stage
            nn.init.trunc_normal_(small.weight, std=0.02)
        # Three outputs beyond the codes, as released; nothing trains or reads them.
        self.out_proj = nn.ModuleList(nn.Linear(width, self.codes + 3, bias=False) for _ in range(codebooks - 1))
        self.prompt_fc = nn.Linear(feature_width, width)

    def forward(
        self,
        features: Tensor,
        text_mask: Tensor,
        ids: Tensor,
        segments: Tensor,
        codebook: Tensor,
        *,
        drop_text: Tensor | None = None,
    ) -> Tensor:
        """Logits (batch, length, codes) of one codebook at every position.

        Args:
            features: (batch, text length, feature width); text_mask: (batch, text length), 1 = present. Absent text is
                zero but attended to, as released.
            ids: int64 (batch, length, codebooks), 0 = hidden; segments: int64 (batch, length), 1 semantic, 2 acoustic,
                0 = padding at the end.
            codebook: int64 (batch,), 1 ... codebooks - 1, the one to predict.
            drop_text: bool (batch,), rows that read the null. None = none.
        """
        text = self.prompt_fc(features) * text_mask.unsqueeze(-1)
        if drop_text is not None:
            text = text.masked_fill(drop_text[:, None, None], 0.0)
        hidden = self.embed_res(codebook - 1)[:, None]
        for index, table in enumerate(self.all_embed_tokens):
            hidden = hidden + table(ids[:, :, index])
        zeros = torch.zeros(text.shape[:2], dtype=torch.long, device=ids.device)
        inputs = torch.cat([text, hidden], 1) + self.embed_segments(torch.cat([zeros, segments], 1))
        present = torch.cat([torch.ones_like(zeros, dtype=torch.bool), segments > 0], 1)
        mask = torch.zeros(len(ids), 1, inputs.shape[1], inputs.shape[1], dtype=inputs.dtype, device=inputs.device)
        mask = mask.masked_fill(~present[:, None, None], torch.finfo(inputs.dtype).min)
        states = self.model(inputs_embeds=inputs, attention_mask=mask, use_cache=False).last_hidden_state
        weights = torch.stack([head.weight for head in self.out_proj])[codebook - 1]  # type: ignore[misc]
        logits: Tensor = states[:, text.shape[1] :] @ weights.transpose(1, 2)
        return logits[..., : self.codes]

    def hide(
        self,
        ids: Tensor,
        segments: Tensor,
        codebook: Tensor,
        generator: torch.Generator | None = None,
        *,
        no_prompt_probability: float = 0.3,
    ) -> tuple[Tensor, Tensor]:
        """A training example: what the model may see, and where it is to answer.

        Visible are semantic positions, an acoustic prompt of random length in all codebooks, and the codebooks below
        the one asked for; of that one, a random part, the hidden share being cos(pi / 2 u).

        Args: ids, segments, codebook as in `forward`; no_prompt_probability for the whole batch, as published.
        Returns: ids with 0 where hidden; bool (batch, length), the positions to predict, at least one a row.
        Raises: ValueError for a row without acoustic positions.
        """
        acoustic = segments == 2
        lengths = acoustic.sum(1)
        if bool((lengths == 0).any()):
            raise ValueError("every row needs an acoustic position to predict")

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator, device=ids.device)

        share = uniform(len(ids)) * float(uniform(1)[0] >= no_prompt_probability)
        prompt = acoustic & (acoustic.cumsum(1) <= (share * lengths).floor()[:, None])
        open_positions = acoustic & ~prompt
        counts = (open_positions.sum(1) * torch.cos(math.pi / 2 * uniform(len(ids)))).floor().clamp(min=1)
        noise = uniform(*segments.shape).masked_fill(~open_positions, 2.0)
        targets = noise.argsort(1).argsort(1) < counts[:, None]
        index = torch.arange(self.codebooks, device=ids.device)
        below, same = index < codebook[:, None, None], index == codebook[:, None, None]
        always = ((segments == 1) | prompt)[..., None]
        visible = always | (below & acoustic[..., None]) | (same & (acoustic & ~targets)[..., None])
        return ids * visible, targets

    def loss(self, features: Tensor, text_mask: Tensor, ids: Tensor, segments: Tensor, codebook: Tensor,
             generator: torch.Generator | None = None, *, text_drop: float = 0.25) -> Tensor:  # fmt: skip
        """Mean cross-entropy at the hidden positions of `hide`, text dropped as published."""
        seen, targets = self.hide(ids, segments, codebook, generator)
        dropped = torch.rand(len(ids), generator=generator, device=ids.device) < text_drop
        logits = self(features, text_mask, seen, segments, codebook, drop_text=dropped)
        wanted = ids.gather(2, codebook[:, None, None].expand(-1, ids.shape[1], 1)).squeeze(2)
        return nn.functional.cross_entropy(logits[targets], wanted[targets] - VOXINSTRUCT_TOKENS["acoustic"].start)

    @torch.no_grad()
    def complete(
        self,
        features: Tensor,
        text_mask: Tensor,
        ids: Tensor,
        segments: Tensor,
        prompt_lengths: Tensor,
        *,
        iterations: int = 8,
        text_scale: float = 1.0,
        report: Callable[[int], None] | None = None,
    ) -> Tensor:
        """All codebooks of a batch whose first one is known: int64 (batch, length, codebooks).

        Args: prompt_lengths: int64 (batch,), acoustic positions known in every codebook; iterations a codebook (1 by
            the release's command line, 8 by its script); text_scale 1-neutral guidance away from the text null, off in
            the release although text was dropped in training.
        """
        acoustic = segments == 2
        masked = acoustic & (acoustic.cumsum(1) > prompt_lengths[:, None])
        start = VOXINSTRUCT_TOKENS["acoustic"].start
        ids = torch.where(masked[..., None] & (torch.arange(self.codebooks, device=ids.device) > 0), 0, ids)
        yes = torch.ones(len(ids), dtype=torch.bool, device=ids.device)
        for number in range(1, self.codebooks):
            codebook = torch.full((len(ids),), number, device=ids.device)

            def predict(
                tokens: Tensor, still_open: Tensor, number: int = number, codebook: Tensor = codebook
            ) -> Mapping[str, Tensor]:
                seen = ids.clone()
                seen[:, :, number] = torch.where(masked, (tokens + start) * ~still_open, seen[:, :, number])
                streams = {"conditional": self(features, text_mask, seen, segments, codebook)}
                if text_scale != 1:
                    streams["null"] = self(features, text_mask, seen, segments, codebook, drop_text=yes)
                return streams

            def guided(streams: Mapping[str, Tensor]) -> Tensor:
                if "null" not in streams:
                    return streams["conditional"]
                return classifier_free_guidance(streams["conditional"], streams["null"], text_scale)

            filled = fill_by_confidence(predict, torch.zeros_like(segments), masked, iterations, guided)
            ids[:, :, number] = torch.where(masked, filled + start, ids[:, :, number])
            if report is not None:
                report(number)
        return ids


def load_released(
    path: str | Path, stage: VoxInstructAr | VoxInstructNar, *, lora_scale: float = 1.0
) -> dict[str, Tensor]:
    """Fill a stage from a released checkpoint (its weights are under "model", the text encoder's below `t5_model.`).

    Args: lora_scale of the encoder's low-rank updates, alpha / r; the release has 16 / 16.
    Returns: the text encoder's weights with the updates folded in, under transformers' names: for
        `MT5EncoderModel(config).load_state_dict(...)`. Empty if the file has none.
    Raises: ValueError naming parameters that are missing, unexpected or of another shape. Only tensors are unpickled.
    """
    loaded: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    state: dict[str, Tensor] = loaded["model"] if isinstance(loaded.get("model"), dict) else loaded
    encoder: dict[str, Tensor] = {}
    own: dict[str, Tensor] = {}
    for name, tensor in state.items():
        short = name.removeprefix("t5_model.")
        (own if short == name else encoder)[short.removeprefix("base_model.model.")] = tensor
    expected = stage.state_dict()
    wrong = [name for name in own if name in expected and own[name].shape != expected[name].shape]
    if own.keys() != expected.keys() or wrong:
        raise ValueError(
            f"{path}: missing {sorted(expected.keys() - own.keys())}, unexpected "
            f"{sorted(own.keys() - expected.keys())}, other shape {wrong}"
        )
    stage.load_state_dict(own)
    return _folded(encoder, lora_scale)


def _folded(state: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """Weights of a model wrapped for low-rank updates: W + scale B A, under the names of the bare model."""
    plain = {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in state.items()
        if ".lora_A." not in name and ".lora_B." not in name
    }
    for name, down in state.items():
        if ".lora_A." not in name:
            continue
        target = name.partition(".lora_A.")[0] + ".weight"
        plain[target] = plain[target] + scale * (state[name.replace(".lora_A.", ".lora_B.")] @ down)
    return plain
