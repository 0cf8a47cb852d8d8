"""Smaller models that guide the served one: amateurs, experts, class-conditional models.

They are no rows of vLLM's batch, which knows one model, but run inside the logits processor: weights and caches of
their own on the worker's device, outside vLLM's KV cache. A request's states are found by its tokens
(`guidance/runner.py`), so a position that is taken back, a preempted request and another row after each step need no
bookkeeping; what has ended is forgotten. All rows that ask one model in a step share a forward pass. Under tensor
parallelism each worker holds and runs a copy.

The models are named when the server starts (`guiderail serve --guide-model NAME=PATH`, in vLLM's words
`--additional-config '{"guiderail": {"guide_models": {"NAME": "PATH"}}}'`), and requests choose among these names.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from guiderail.guidance.runner import Evaluation, Request, StreamRunner
from guiderail.integrations.vllm.settings import guide_models

__all__ = ["GuideModels"]


class GuideModels:
    """The guide models of one worker.

    Args:
        vllm_config: vLLM's; dtype, tokenizer and greatest length are the served model's.
        device: where they run.
    Raises: ValueError for a model that cannot guide this one; what transformers raises if one cannot be loaded.
    """

    def __init__(self, vllm_config: Any, device: torch.device) -> None:
        served = vllm_config.model_config
        self._vocab_size: int = served.get_vocab_size()
        self._runners: dict[str, StreamRunner] = {}
        for name, path in guide_models(vllm_config).items():
            model = _loaded(path, served.dtype).to(device).eval()
            _check(name, path, model, served)
            self._runners[name] = StreamRunner(model)

    @property
    def names(self) -> list[str]:
        return list(self._runners)

    @torch.inference_mode()
    def evaluate(self, asked: Sequence[tuple[str, Request]]) -> list[Evaluation]:
        """What each named model says after a prefix, in order; one pass per model.

        Returns: logits (vocab,) of the served model's width; what a guide lacks is -inf, what it has besides is cut.
        """
        found: dict[int, Evaluation] = {}
        for name in dict.fromkeys(name for name, _ in asked):
            places = [index for index, (other, _) in enumerate(asked) if other == name]
            answers = self._runners[name].evaluate([asked[index][1] for index in places])
            found.update(zip(places, answers, strict=True))
        return [
            Evaluation(_fitted(found[index].logits, self._vocab_size), found[index].log_likelihood)
            for index in range(len(asked))
        ]

    def forget(self, owners: Collection[Any]) -> None:
        """Drop the states of sequences that have left the batch."""
        for runner in self._runners.values():
            runner.forget(owners)


def _loaded(path: str, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype)


def _check(name: str, path: str, model: Any, served: Any) -> None:
    from transformers import AutoTokenizer

    longest = getattr(model.config, "max_position_embeddings", None)
    if longest is not None and longest < served.max_model_len:
        raise ValueError(f"guiderail: guide model {name} reads {longest} tokens at most: set --max-model-len {longest}")
    own = AutoTokenizer.from_pretrained(served.tokenizer).get_vocab()
    if model.config.vocab_size < len(own):
        raise ValueError(
            f"guiderail: guide model {name} has {model.config.vocab_size} tokens, the served model {len(own)}: scores "
            "are added token by token, so both need the same vocabulary"
        )
    try:
        other = AutoTokenizer.from_pretrained(path).get_vocab()
    except (OSError, ValueError):  # a model that was saved without its tokenizer
        return
    if other != own:
        raise ValueError(f"guiderail: guide model {name} has another vocabulary than the served model")


def _fitted(logits: Tensor, width: int) -> Tensor:
    if logits.shape[-1] >= width:
        return logits[..., :width]
    return torch.nn.functional.pad(logits, (0, width - logits.shape[-1]), value=float("-inf"))
