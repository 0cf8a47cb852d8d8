"""GeDi training: a class-conditional language model that is also a good classifier of its own texts.

Source: Krause et al. 2020, arXiv:2009.06367. Every text is read under each control code. With n_k the mean negative
log-likelihood per token under code k, alpha a learned scale and b_k learned biases,

    L_generative      =  mean of n_true
    L_discriminative  =  cross-entropy of the true code under softmax_k(-alpha n_k + b_k)
    L                 =  lambda L_generative + (1 - lambda) L_discriminative

lambda = 1 is a plain class-conditional model, the shipped recipe uses 0.8. Biases belong to codes by name: the release
orders its columns differently in training and decoding, and would apply a learned bias to the wrong class.

More than two topics become one binary problem: a text with its own topic word in front is "true", with a wrong one
"false" (`topic_examples`), so that topic words are open vocabulary and new ones can be tried without training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from guiderail.guidance.rules import GeDi
from guiderail.training.likelihood import token_log_probs


def gedi_loss(
    losses_by_code: Tensor,
    true_code: Tensor,
    *,
    generative_weight: float = 0.8,
    logit_scale: Tensor | float = 1.0,
    biases: Tensor | None = None,
    generative_rows: Tensor | None = None,
) -> Tensor:
    """The GeDi loss of a batch.

    Args:
        losses_by_code: float (batch, codes), mean negative log-likelihood per token under each code.
        true_code: int64 (batch,), column of the right code.
        generative_weight: lambda in [0, 1].
        logit_scale: alpha. biases: (codes,), None = none.
        generative_rows: bool (batch,), rows that count in L_generative (detoxification leaves toxic texts out).
    Returns: float32 scalar. Raises ValueError for lambda outside [0, 1].
    """
    if not 0 <= generative_weight <= 1:
        raise ValueError(f"generative_weight must lie in [0, 1], got {generative_weight}")
    logits = -losses_by_code * logit_scale
    if biases is not None:
        logits = logits + biases
    own = losses_by_code.gather(1, true_code[:, None]).squeeze(1)
    if generative_rows is not None:
        own = own[generative_rows]
    generative = own.mean() if own.numel() else losses_by_code.sum() * 0.0
    return generative_weight * generative + (1 - generative_weight) * cross_entropy(logits, true_code)


class GeDiModel(nn.Module):
    """A causal model with named control codes, the learned scale and, if wanted, learned biases.

    Args:
        model: any transformers causal LM. codes: name -> token ids of the control code (all of one length).
        learned_scale, learned_biases: the shipped recipe learns the scale and no bias.
    Raises: ValueError for codes of different lengths, or fewer than two.
    """

    def __init__(
        self,
        model: Any,
        codes: Mapping[str, int | Sequence[int]],
        *,
        learned_scale: bool = True,
        learned_biases: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.codes = {name: (ids,) if isinstance(ids, int) else tuple(ids) for name, ids in codes.items()}
        if len(self.codes) < 2 or len({len(ids) for ids in self.codes.values()}) != 1:
            raise ValueError(f"GeDi needs two or more control codes of one length, got {self.codes}")
        self.logit_scale = nn.Parameter(torch.ones(()), requires_grad=learned_scale)
        self.biases = nn.ParameterDict(
            {name: nn.Parameter(torch.zeros(()), requires_grad=learned_biases) for name in self.codes}
        )

    def losses(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Mean negative log-likelihood per token under every code.

        Args: input_ids int64 (batch, length), right-padded, without code; attention_mask (batch, length), 1 = counts.
            Let it cover the end token: the model is to know where a text of its class ends.
        Returns: float32 (batch, codes), columns in the order of `codes`.
        """
        batch, ones = input_ids.shape[0], torch.ones_like(attention_mask)
        rows, masks = [], []
        for ids in self.codes.values():
            code = torch.tensor(ids, device=input_ids.device).expand(batch, -1)
            rows.append(torch.cat([code, input_ids], dim=1))
            masks.append(torch.cat([ones[:, :1].expand(-1, len(ids)), attention_mask], dim=1))
        logits = self.model(input_ids=torch.cat(rows), attention_mask=torch.cat(masks)).logits
        start = len(next(iter(self.codes.values())))
        values = token_log_probs(logits[:, start - 1 : -1], input_ids.repeat(len(rows), 1))
        counted = attention_mask.repeat(len(rows), 1).bool()
        mean = -torch.where(counted, values, 0.0).sum(-1) / counted.sum(-1).clamp(min=1)
        return mean.reshape(len(rows), batch).T

    def class_log_probs(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """log P(code | text), float32 (batch, codes)."""
        return torch.log_softmax(-self.losses(input_ids, attention_mask) * self.logit_scale + self._bias_row(), -1)

    def loss(
        self, input_ids: Tensor, attention_mask: Tensor, true_code: Tensor, generative_weight: float = 0.8
    ) -> Tensor:
        """`gedi_loss` of a batch with this model's scale and biases."""
        losses = self.losses(input_ids, attention_mask)
        return gedi_loss(
            losses,
            true_code,
            generative_weight=generative_weight,
            logit_scale=self.logit_scale,
            biases=self._bias_row(),
        )

    def term(self, desired: str, undesired: str, omega: float = 30.0, **settings: Any) -> GeDi:
        """The decoding rule for what was trained: scale and biases go along, by the codes' names."""
        return GeDi(
            self.model,
            self.codes[desired],
            self.codes[undesired],
            omega,
            logit_scale=float(self.logit_scale.detach()),
            biases=(float(self.biases[desired].detach()), float(self.biases[undesired].detach())),
            **settings,
        )

    def _bias_row(self) -> Tensor:
        return torch.stack([self.biases[name] for name in self.codes])


def topic_examples(
    topics: Sequence[str], all_topics: Sequence[str], generator: torch.Generator
) -> list[tuple[int, str, bool]]:
    """Binary examples from a topic task: every text twice, with its own topic word and with a wrong one.

    Args: topics of the texts; all_topics, at least two; generator for the wrong ones, drawn uniformly.
    Returns: (index of the text, topic word to put in front, is it right), two per text.
    Raises: ValueError if a text's topic is unknown.
    """
    examples: list[tuple[int, str, bool]] = []
    for index, topic in enumerate(topics):
        others = [other for other in all_topics if other != topic]
        if len(others) == len(all_topics) or not others:
            raise ValueError(f"topic {topic!r} is not one of two or more topics")
        wrong = others[int(torch.randint(len(others), (), generator=generator))]
        examples += [(index, topic, True), (index, wrong, False)]
    return examples


def load_released(path: str | Path, config: Any, codes: Mapping[str, int | Sequence[int]]) -> GeDiModel:
    """A model in the layout the authors released: a GPT-2 state dict with `logit_scale` (1, 1) and `bias` (1, n).

    Args: path to `pytorch_model.bin`; config a transformers GPT2Config; codes in the release's column order (code_0
        first), by name.
    Raises: ValueError naming what is missing, unexpected or has another number of biases. Only tensors are unpickled.
    """
    import transformers

    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    scale, bias = state.pop("logit_scale", None), state.pop("bias", None)
    # Causal masks were buffers in older versions of GPT-2; they hold no knowledge.
    state = {k: v for k, v in state.items() if not k.endswith((".attn.bias", ".attn.masked_bias"))}
    model = transformers.GPT2LMHeadModel(config)
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [name for name in missing if name != "lm_head.weight"]
    if missing or unexpected:
        raise ValueError(f"{path} is no GPT-2 of this shape: missing {missing}, unexpected {unexpected}")
    model.tie_weights()
    gedi = GeDiModel(model, codes)
    with torch.no_grad():
        if scale is not None:
            gedi.logit_scale.copy_(scale.reshape(()))
        if bias is not None:
            if bias.numel() != len(gedi.codes):
                raise ValueError(f"{path} has {bias.numel()} biases for {len(gedi.codes)} codes")
            for name, number in zip(gedi.codes, bias.reshape(-1), strict=True):
                gedi.biases[name].copy_(number)
    return gedi
