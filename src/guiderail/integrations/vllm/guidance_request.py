"""What a request to vLLM says about guidance: `extra_args` offline, `vllm_xargs` over HTTP.

| key | value | meaning |
|---|---|---|
| `guidance_scale` | number | 1 is off, 0 the negative prompt alone, larger is stronger |
| `negative_prompt` | text | what to move away from, tokenised as a completion's prompt is |
| `negative_prompt_ids` | token ids | the same as tokens. Neither of both: the last token of the prompt, i.e. no
condition |
| `negative_media` | `"blank"`, `"none"` | instead: the request's own prompt with blank images (or other media), or
without them |
| `guidance_prompts`, `guidance_weights` | texts, numbers | more prompts: towards (> 0) or away from (< 0); 0 is off |
| `guidance_models`, `guidance_model_weights` | names, numbers | guide models of the server, reading the request's own
prompt: [-0.5] is contrastive decoding (set `plausibility`), [2, -2] an expert and an antiexpert |
| `guidance_class_model` | name | GeDi: a class-conditional guide model, with the next three |
| `guidance_desired`, `guidance_undesired` | text or token ids | control codes of the two classes, equally many tokens |
| `guidance_omega` | number | weight of the class posterior, 30 if absent; 0 is off |
| `guidance_class_filter` | [rho, tau] | GeDi's filter, [0.2, 0.8] if absent; [] for none |
| `guidance_interval` | [start, stop] | guide output positions start <= t < stop only; stop -1: to the end |
| `guidance_ramp` | steps | grow linearly from nothing at position 0 to all at position steps - 1 |
| `plausibility` | 0 < p <= 1 | only tokens within the factor p of the likeliest legal one |

    g  =  c + sum_i w_i (l_i - c)         w = 1 - guidance_scale for the negative prompt; log-probabilities
    g  =  g + omega log P(desired | text, token)                                   with a class-conditional model

Positions are those of the output, so a schedule is right under preemption and whatever else is in the batch.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["GuidanceRequest", "NullMedia"]

_KEYS = frozenset(
    {
        "guidance_scale",
        "negative_prompt",
        "negative_prompt_ids",
        "negative_media",
        "guidance_prompts",
        "guidance_weights",
        "guidance_models",
        "guidance_model_weights",
        "guidance_class_model",
        "guidance_desired",
        "guidance_undesired",
        "guidance_omega",
        "guidance_class_filter",
        "guidance_interval",
        "guidance_ramp",
        "plausibility",
    }
)
# A misspelt key must not go unnoticed: a request would run unguided.
_PREFIXES = ("guidance", "negative_", "plausib")
MOST_PROMPTS = 8
MOST_WEIGHT = 1e6
"""Beyond it float32 scores say little, and far beyond it they overflow."""


class NullMedia(enum.Enum):
    """What is put in the place of a prompt's images or other media: see null_media.py."""

    BLANK = "blank"
    NONE = "none"


Prompt = str | tuple[int, ...] | NullMedia | None


@dataclasses.dataclass(frozen=True, slots=True)
class ClassGuidance:
    """GeDi, see `guiderail.guidance.GeDi`.

    Args:
        model: name of a class-conditional guide model.
        desired, undesired: control codes: text or token ids.
        omega: weight at full strength.
        filter_mass, filter_threshold: rho and tau; rho None: no filter.
    """

    model: str
    desired: str | tuple[int, ...]
    undesired: str | tuple[int, ...]
    omega: float = 30.0
    filter_mass: float | None = 0.2
    filter_threshold: float = 0.8


@dataclasses.dataclass(frozen=True, slots=True)
class GuidanceRequest:
    """Guidance of one request, checked.

    Args:
        prompts: one per companion stream: text, token ids, None for the last token of the request's own prompt, or that
            prompt without what its media show.
        weights: as many; the weight of each stream at full strength.
        start, stop: output positions at which guidance is on; stop None: to the end.
        ramp: number of steps until full strength; 0: at once.
        plausibility: 0: no filter.
        models, model_weights: guide models by name, and the weight of each at full strength.
        classes: GeDi, if it is asked for.
    """

    prompts: tuple[Prompt, ...]
    weights: tuple[float, ...]
    start: int = 0
    stop: int | None = None
    ramp: int = 0
    plausibility: float = 0.0
    models: tuple[str, ...] = ()
    model_weights: tuple[float, ...] = ()
    classes: ClassGuidance | None = None

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
            *_models(given),
            _classes(given),
        )
        return request if request.prompts or request.plausibility or request.model_names else None

    @property
    def model_names(self) -> set[str]:
        """The guide models that the request needs."""
        return {*self.models, *([self.classes.model] if self.classes is not None else [])}

    @property
    def texts(self) -> list[str]:
        """What will be tokenised."""
        codes = (self.classes.desired, self.classes.undesired) if self.classes is not None else ()
        return [text for text in (*self.prompts, *codes) if isinstance(text, str)]

    def weights_at(self, position: int) -> list[float]:
        """The weight of each stream, prompts first, then models, for the output token at `position` (0: the first)."""
        strength = self._strength(position)
        return [strength * weight for weight in (*self.weights, *self.model_weights)]

    def omega_at(self, position: int) -> float:
        """The weight of the class posterior for the output token at `position`."""
        return self._strength(position) * self.classes.omega if self.classes is not None else 0.0

    def _strength(self, position: int) -> float:
        if position < self.start or (self.stop is not None and position >= self.stop):
            return 0.0
        return min(position / (self.ramp - 1), 1.0) if self.ramp > 1 else 1.0

    def class_codes(
        self, encode: Callable[[str], Sequence[int]] | None, vocab_size: int
    ) -> tuple[list[int], list[int]] | None:
        """Token ids of the desired and the undesired code; None without GeDi. Raises: as `prompt_ids`."""
        if self.classes is None:
            return None
        desired, undesired = (
            _tokens_of(code, encode, vocab_size, "a control code")
            for code in (self.classes.desired, self.classes.undesired)
        )
        if len(desired) != len(undesired):
            raise ValueError(
                f"guidance_desired has {len(desired)} tokens and guidance_undesired {len(undesired)}: likelihoods of "
                "texts are compared, which needs equally many"
            )
        return desired, undesired

    def prompt_ids(
        self, own: Sequence[int], encode: Callable[[str], Sequence[int]] | None, vocab_size: int
    ) -> list[list[int]]:
        """Token ids of each stream's prompt; of those without media, the request's own.

        Args:
            own: the prompt of the request itself.
            encode: the tokenizer's, as for a completion's prompt; None where there is no tokenizer.
        Raises: ValueError for a prompt without tokens, a token id that the model does not have, or a text without
        tokenizer.
        """
        own_end = (own[-1],)
        return [
            list(own)
            if isinstance(prompt, NullMedia)
            else _tokens_of(own_end if prompt is None else prompt, encode, vocab_size, "a guidance prompt")
            for prompt in self.prompts
        ]


def _tokens_of(
    given: str | tuple[int, ...], encode: Callable[[str], Sequence[int]] | None, vocab_size: int, what: str
) -> list[int]:
    if isinstance(given, str):
        if encode is None:
            raise ValueError(f"{what} given as text needs a tokenizer; give token ids")
        if any("\ud800" <= character <= "\udfff" for character in given):
            raise ValueError(f"{what} is not Unicode text: it has a surrogate without its partner")
        ids = list(encode(given))
    else:
        ids = list(given)
    if not ids:
        raise ValueError(f"{what} has no tokens; to guide away from no condition at all, leave negative_prompt out")
    wrong = next((token for token in ids if not 0 <= token < vocab_size), None)
    if wrong is not None:
        raise ValueError(f"{what}: {wrong} is not a token of this model (0 to {vocab_size - 1})")
    return ids


_NEGATIVES = ("negative_prompt", "negative_prompt_ids", "negative_media")


def _streams(given: Mapping[str, Any]) -> tuple[tuple[Prompt, ...], tuple[float, ...]]:
    prompts: list[Prompt] = []
    weights: list[float] = []
    negatives = [key for key in _NEGATIVES if key in given]
    if len(negatives) > 1:
        raise ValueError(f"give {negatives[0]} or {negatives[1]}, not both")
    if "guidance_scale" in given:
        scale = _weight("guidance_scale", given["guidance_scale"])
        if scale != 1.0:
            prompts.append(_negative(given))
            weights.append(1.0 - scale)
    elif negatives:
        raise ValueError(f"{negatives[0]} needs guidance_scale (1 is off)")
    texts, own_weights = given.get("guidance_prompts", []), given.get("guidance_weights", [])
    if not _is_list(texts, str) or not isinstance(own_weights, list) or len(texts) != len(own_weights):
        raise ValueError("guidance_prompts is an array of texts and guidance_weights one of as many numbers")
    for text, value in zip(texts, own_weights, strict=True):
        weight = _weight("guidance_weights", value)
        if weight != 0.0:
            prompts.append(text)
            weights.append(weight)
    if len(prompts) > MOST_PROMPTS:
        raise ValueError(f"guidance_prompts: {len(prompts)} streams; at most {MOST_PROMPTS}")
    return tuple(prompts), tuple(weights)


def _negative(given: Mapping[str, Any]) -> Prompt:
    if "negative_prompt" in given:
        if not isinstance(given["negative_prompt"], str):
            raise ValueError("negative_prompt is a text")
        return str(given["negative_prompt"])
    if "negative_prompt_ids" in given:
        return _ids("negative_prompt_ids", given["negative_prompt_ids"])
    if "negative_media" in given:
        kinds = {kind.value: kind for kind in NullMedia}
        if not isinstance(given["negative_media"], str) or given["negative_media"] not in kinds:
            raise ValueError(f"negative_media is one of {', '.join(sorted(kinds))}, got {given['negative_media']!r}")
        return kinds[given["negative_media"]]
    return None


def _ids(key: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not value or any(not _number(key, token).is_integer() for token in value):
        raise ValueError(f"{key} is an array of token ids, not empty")
    return tuple(int(token) for token in value)


def _models(given: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[float, ...]]:
    names, weights = given.get("guidance_models", []), given.get("guidance_model_weights", [])
    if not _is_list(names, str) or not isinstance(weights, list) or len(names) != len(weights):
        raise ValueError("guidance_models is an array of names and guidance_model_weights one of as many numbers")
    if len(set(names)) < len(names):
        raise ValueError("guidance_models names a model twice: add up its weights")
    pairs = [(name, _weight("guidance_model_weights", weight)) for name, weight in zip(names, weights, strict=True)]
    if len(pairs) > MOST_PROMPTS:
        raise ValueError(f"guidance_models: {len(pairs)} models; at most {MOST_PROMPTS}")
    used = [(name, weight) for name, weight in pairs if weight != 0.0]
    return tuple(name for name, _ in used), tuple(weight for _, weight in used)


_CLASS_KEYS = ("guidance_desired", "guidance_undesired", "guidance_omega", "guidance_class_filter")


def _classes(given: Mapping[str, Any]) -> ClassGuidance | None:
    if "guidance_class_model" not in given:
        alone = next((key for key in _CLASS_KEYS if key in given), None)
        if alone is not None:
            raise ValueError(f"{alone} needs guidance_class_model")
        return None
    model = given["guidance_class_model"]
    if not isinstance(model, str):
        raise ValueError("guidance_class_model is the name of a guide model")
    codes = []
    for key in ("guidance_desired", "guidance_undesired"):
        if key not in given:
            raise ValueError(f"guidance_class_model needs {key}")
        codes.append(given[key] if isinstance(given[key], str) else _ids(key, given[key]))
    bounds = given.get("guidance_class_filter", [0.2, 0.8])
    if not isinstance(bounds, list) or len(bounds) not in (0, 2):
        raise ValueError("guidance_class_filter is [rho, tau], or [] for none")
    numbers = [_number("guidance_class_filter", bound) for bound in bounds]
    if any(not 0 <= number <= 1 for number in numbers):
        raise ValueError(f"guidance_class_filter: {bounds} are no probabilities")
    mass, threshold = numbers or (None, 0.0)
    omega = _weight("guidance_omega", given.get("guidance_omega", 30.0))
    return ClassGuidance(model, codes[0], codes[1], omega, mass, threshold) if omega != 0.0 else None


def _interval(value: Any) -> tuple[int, int | None]:
    if value is None:
        return 0, None
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError("guidance_interval is [start, stop]; stop -1: to the end")
    bounds = [_number("guidance_interval", part) for part in value]
    if not all(bound.is_integer() for bound in bounds):
        raise ValueError(f"guidance_interval: {value} are no output positions")
    start, stop = map(int, bounds)
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


def _weight(key: str, value: Any) -> float:
    number = _number(key, value)
    if abs(number) > MOST_WEIGHT:
        raise ValueError(f"{key}: {value!r} exceeds {MOST_WEIGHT:.0f}")
    return number


def _is_list(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)
