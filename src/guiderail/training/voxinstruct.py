"""VoxInstruct's first stage: instruction features, then semantic tokens, then the first acoustic codebook, one decoder.

Source: Zhou et al. 2024, arXiv:2408.15676. Input vectors are

    text features (projected; zero where padded or dropped)  |  BOS, language, semantic ..., EOS1, acoustic ..., EOS2

plus an embedding of the segment: 0 text, 1 up to and with EOS1, 2 after it. Ids are those of
`guidance.token_models.VOXINSTRUCT_TOKENS`; id 0 embeds to zero, which is how semantic tokens are hidden. Parameter
names follow the release (`model`, `embed_tokens`, `embed_segments`, `prompt_fc`), except that the text encoder is
outside: features come in, from mT5 or anything else.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


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
    ) -> Tensor:
        """Logits (batch, length, vocab): entry i follows `ids[:, i]`.

        Args:
            features: (batch, text length, feature width); text_mask: (batch, text length), 1 = present.
            ids, segments: int64 (batch, length); segments hold 1 or 2.
            drop_text, drop_semantic: bool (batch,), rows that read the null. None = none.
        """
        text = self.prompt_fc(features) * text_mask.unsqueeze(-1)
        if drop_text is not None:
            text = text.masked_fill(drop_text[:, None, None], 0.0)
        if drop_semantic is not None:
            ids = ids.masked_fill((segments == 1) & drop_semantic[:, None], 0)
        zeros = torch.zeros(text.shape[:2], dtype=torch.long, device=ids.device)
        inputs = torch.cat([text, self.embed_tokens(ids)], 1)
        inputs = inputs + self.embed_segments(torch.cat([zeros, segments], 1))
        logits: Tensor = self.model(inputs_embeds=inputs).logits[:, text.shape[1] :]
        return logits
