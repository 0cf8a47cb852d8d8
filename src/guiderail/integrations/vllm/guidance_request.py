"""What a request to vLLM says about guidance: `extra_args` offline, `vllm_xargs` over HTTP.

| key | value | meaning |
|---|---|---|
| `guidance_scale` | number | 1 is off, 0 the negative prompt alone, larger is stronger |
| `negative_prompt` | text | what to move away from, tokenised as a completion's prompt is |
| `negative_prompt_ids` | token ids | the same as tokens. Neither of both: the last token of the prompt, i.e. no
condition |
| `guidance_prompts`, `guidance_weights` | texts, numbers | more prompts: towards (> 0) or away from (< 0); 0 is off |
| `guidance_interval` | [start, stop] | guide output positions start <= t < stop only; stop -1: to the end |
| `guidance_ramp` | steps | grow linearly from nothing at position 0 to all at position steps - 1 |
| `plausibility` | 0 < p <= 1 | only tokens within the factor p of the likeliest legal one |

    g  =  c + sum_i w_i (l_i - c)         w = 1 - guidance_scale for the negative prompt; log-probabilities

Positions are those of the output, so a schedule is right under preemption and whatever else is in the batch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["GuidanceRequest"]

_KEYS = frozenset(
    {
        "guidance_scale",
        "negative_prompt",
        "negative_prompt_ids",
        "guidance_prompts",
        "guidance_weights",
        "guidance_interval",
        "guidance_ramp",
        "plausibility",
    }
)
# A misspelt key must not go unnoticed: a request would run unguided.
_PREFIXES = ("guidance", "negative_prompt", "plausib")
MOST_PROMPTS = 8


@dataclasses.dataclass(frozen=True, slots=True)
class GuidanceRequest:
    """Guidance of one request, checked.

    Args:
        prompts: one per companion stream: text, token ids, or None for the last token of the request's own prompt.
        weights: as many; the weight of each stream at full strength.
        start, stop: output positions at which guidance is on; stop None: to the end.
        ramp: number of steps until full strength; 0: at once.
        plausibility: 0: no filter.
    """

    prompts: tuple[str | tuple[int, ...] | None, ...]
    weights: tuple[float, ...]
    start: int = 0
    stop: int | None = None
    ramp: int = 0
    plausibility: float = 0.0

    @classmethod
    def from_extra_args(cls, extra_args: Mapping[str, Any] | None) -> GuidanceRequest | None:
        """None where nothing is asked for, which includes the scale 1.

        Raises: ValueError that names the key.
        """
        given = {key: value for key, value in (extra_args or {}).items() if key.startswith(_PREFIXES)}
        if not given:
            return None
        unknown = sorted(set(given) - _KEYS)
        if unknown:
            raise ValueError(f"unknown guidance argument {unknown[0]!r}; there are: {', '.join(sorted(_KEYS))}")
        prompts, weights = _streams(given)
        start, stop = _interval(given.get("guidance_interval"))
        request = cls(
            prompts,
            weights,
            start,
            stop,
            _ramp(given.get("guidance_ramp", 0)),
            _plausibility(given.get("plausibility")),
        )
        return request if request.prompts or request.plausibility else None

    def weights_at(self, position: int) -> list[float]:
        """The weight of each stream for the output token at `position` (0 is the first)."""
        if position < self.start or (self.stop is not None and position >= self.stop):
            return [0.0] * len(self.weights)
        strength = min(position / (self.ramp - 1), 1.0) if self.ramp > 1 else 1.0
        return [strength * weight for weight in self.weights]

    def prompt_ids(
        self, own: Sequence[int], encode: Callable[[str], Sequence[int]] | None, vocab_size: int
    ) -> list[list[int]]:
        """Token ids of each stream's prompt.

        Args:
            own: the prompt of the request itself.
            encode: the tokenizer's, as for a completion's prompt; None where there is no tokenizer.
        Raises: ValueError for a prompt without tokens, a token id that the model does not have, or a text without
        tokenizer.
        """
        found = []
        for prompt in self.prompts:
            if isinstance(prompt, str):
                if encode is None:
                    raise ValueError("a prompt given as text needs a tokenizer; give negative_prompt_ids")
                ids = list(encode(prompt))
            else:
                ids = [own[-1]] if prompt is None else list(prompt)
            if not ids:
                raise ValueError("a guidance prompt has no tokens")
            wrong = next((token for token in ids if not 0 <= token < vocab_size), None)
            if wrong is not None:
                raise ValueError(f"negative_prompt_ids: {wrong} is not a token of this model (0 to {vocab_size - 1})")
            found.append(ids)
        return found


def _streams(given: Mapping[str, Any]) -> tuple[tuple[str | tuple[int, ...] | None, ...], tuple[float, ...]]:
    prompts: list[str | tuple[int, ...] | None] = []
    weights: list[float] = []
    if "negative_prompt" in given and "negative_prompt_ids" in given:
        raise ValueError("give negative_prompt or negative_prompt_ids, not both")
    if "guidance_scale" in given:
        scale = _number("guidance_scale", given["guidance_scale"])
        if scale != 1.0:
            prompts.append(_negative(given))
            weights.append(1.0 - scale)
    elif "negative_prompt" in given or "negative_prompt_ids" in given:
        raise ValueError("a negative prompt needs guidance_scale (1 is off)")
    texts, own_weights = given.get("guidance_prompts", []), given.get("guidance_weights", [])
    if not _is_list(texts, str) or not isinstance(own_weights, list) or len(texts) != len(own_weights):
        raise ValueError("guidance_prompts is an array of texts and guidance_weights one of as many numbers")
    for text, value in zip(texts, own_weights, strict=True):
        weight = _number("guidance_weights", value)
        if weight != 0.0:
            prompts.append(text)
            weights.append(weight)
    if len(prompts) > MOST_PROMPTS:
        raise ValueError(f"guidance_prompts: {len(prompts)} streams; at most {MOST_PROMPTS}")
    return tuple(prompts), tuple(weights)


def _negative(given: Mapping[str, Any]) -> str | tuple[int, ...] | None:
    if "negative_prompt" in given:
        if not isinstance(given["negative_prompt"], str):
            raise ValueError("negative_prompt is a text")
        return str(given["negative_prompt"])
    if "negative_prompt_ids" in given:
        ids = given["negative_prompt_ids"]
        if not isinstance(ids, list) or not ids or any(not float(i).is_integer() for i in map(_whole, ids)):
            raise ValueError("negative_prompt_ids is an array of token ids, not empty")
        return tuple(int(i) for i in ids)
    return None


def _whole(value: Any) -> float:
    return _number("negative_prompt_ids", value)


def _interval(value: Any) -> tuple[int, int | None]:
    if value is None:
        return 0, None
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError("guidance_interval is [start, stop]; stop -1: to the end")
    start, stop = (int(_number("guidance_interval", part)) for part in value)
    if start < 0 or (stop != -1 and stop < start):
        raise ValueError(f"guidance_interval: [{start}, {stop}] is no interval of output positions")
    return start, None if stop == -1 else stop


def _ramp(value: Any) -> int:
    steps = _number("guidance_ramp", value)
    if steps < 0 or steps != int(steps):
        raise ValueError(f"guidance_ramp is a number of steps, got {value!r}")
    return int(steps)


def _plausibility(value: Any) -> float:
    if value is None:
        return 0.0
    number = _number("plausibility", value)
    if not 0 <= number <= 1:
        raise ValueError(f"plausibility lies between 0 and 1, got {value!r}")
    return number


def _number(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{key}: {value!r} is not a finite number")
    return float(value)


def _is_list(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)
