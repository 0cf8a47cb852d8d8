"""What a stream is: whose logits, under which condition.

A stream is a description, not a state: a frozen, hashable value. Two terms that name the same stream share it, and the
runner evaluates it once. All streams of a sequence end in the same generated tokens; they differ in what stands before.

| stream | model | condition |
|---|---|---|
| null | guided model | `LastPromptToken()` (what transformers does), or a null prompt, image or label |
| negative, positive | guided model | `PromptTokens(...)`, `PromptText(...)` |
| expert, antiexpert, base, tuned | another model, same vocabulary | `SamePrompt()` |
| amateur | a smaller model | `SamePrompt()` or `PromptTail(n)` |
| class-conditional | a class-conditional model | `ControlCode(ids)` before the prompt |
| perturbed | guided model | `SamePrompt()` with a `perturbation` |
| null image | guided model | `ChangedInputs(change)` |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from guiderail.guidance.perturbation import Perturbation


@dataclass(frozen=True, slots=True)
class SamePrompt:
    """The prompt (and source, and image) of the guided sequence."""


@dataclass(frozen=True, slots=True)
class LastPromptToken:
    """Only the last token of the prompt, the null of transformers; an encoder-decoder's encoder sees its end token
    only.

    It keeps the model in distribution without a trained null, but is weak for instructions that end in a template
    token.
    """


@dataclass(frozen=True, slots=True)
class PromptTail:
    """The last `length` tokens of the prompt: a weak stream by missing context."""

    length: int


@dataclass(frozen=True, slots=True)
class PromptTokens:
    """Another prompt, as token ids: one for all rows, or one per prompt row (not per beam)."""

    prompts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class PromptText:
    """Another prompt, as text; whoever runs the stream must have a tokenizer."""

    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ControlCode:
    """Control tokens, then the prompt: a class-conditional model."""

    code: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ChangedInputs:
    """The same prompt tokens with other forward inputs: a blank image, a null embedding, a dropped label.

    `change` maps the forward keyword arguments of the prompt (one row: tensors of batch 1) to those of the null.
    """

    change: Callable[[Mapping[str, Any]], Mapping[str, Any]]


Condition = SamePrompt | LastPromptToken | PromptTail | PromptTokens | PromptText | ControlCode | ChangedInputs


@dataclass(frozen=True, slots=True)
class Stream:
    """One source of next-token log-probabilities.

    Args:
        condition: what stands before the generated tokens.
        model: a causal or encoder-decoder model with the guided model's vocabulary; None is the guided model itself.
        perturbation: how the forward pass is weakened, for this stream's rows only.
        with_likelihood: also keep the log-likelihood of everything after the first token (GeDi's running sums).
        early_layers: also return the output head applied to these layers (DoLa).
        drops: names of the conditions this stream is without, for whoever says which combinations were trained.
    """

    condition: Condition
    model: Any = None
    perturbation: Perturbation | None = None
    with_likelihood: bool = False
    early_layers: tuple[int, ...] = ()
    drops: frozenset[str] = frozenset()


@dataclass(slots=True, eq=False)
class RowInputs:
    """Forward inputs of one row that are not its tokens: an image, encoder states. Compared by identity.

    Args:
        tensors: keyword arguments, tensors of batch 1.
        prompt_length: leading tokens these inputs belong to; they must be evaluated together with them.
        encoder_tokens: for an encoder-decoder, the source, if its states are not among `tensors`.
    """

    tensors: Mapping[str, Any] = field(default_factory=dict)
    prompt_length: int = 0
    encoder_tokens: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence being decoded, as every stream sees it."""

    prompt: tuple[int, ...]
    generated: tuple[int, ...]
    prompt_index: int
    inputs: RowInputs | None = None

    @property
    def step(self) -> int:
        """Tokens generated so far: the argument of schedules."""
        return len(self.generated)


def prompt_tokens(
    ids: Tensor | Sequence[int] | Sequence[Sequence[int]], mask: Tensor | Sequence[Any] | None = None
) -> PromptTokens:
    """Token ids of one or several prompts, padding removed by the mask, wherever it is.

    Args: ids (length,) or (prompts, length), tensor or lists (then of any lengths); mask the same shape, 1 = a token.
    Raises: ValueError if mask and ids differ in shape or a prompt ends up empty.
    """
    rows: list[Any] = ids.tolist() if isinstance(ids, Tensor) else list(ids)
    kept: list[Any] | None = mask.tolist() if isinstance(mask, Tensor) else None if mask is None else list(mask)
    if rows and isinstance(rows[0], int):
        rows, kept = [rows], None if kept is None else [kept]
    if kept is not None:
        if [len(row) for row in rows] != [len(row) for row in kept]:
            raise ValueError("a prompt's attention mask must have the shape of its ids")
        rows = [
            [token for token, keep in zip(row, flags, strict=True) if keep]
            for row, flags in zip(rows, kept, strict=True)
        ]
    if not rows or not all(rows):
        raise ValueError("a prompt needs at least one token that is not padding")
    return PromptTokens(tuple(tuple(int(token) for token in row) for row in rows))


def row_of(values: Sequence[Any], prompt_index: int, what: str) -> Any:
    """The entry for a prompt: the only one, or the one at its index."""
    if len(values) == 1:
        return values[0]
    if prompt_index >= len(values):
        raise ValueError(f"{what}: {len(values)} given, but there is a prompt number {prompt_index}")
    return values[prompt_index]


def blank(*names: str) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """A null condition: the named inputs become zeros. Blank pixels, a null embedding, zeroed encoder states.

    Whether zeros are what the model was trained with as 'no image' is the user's claim: a model fine-tuned with blanked
    images has this null, one that never saw a blank image does not.

    Raises (when used): ValueError if the prompt has none of these inputs.
    """

    def change(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        return _changed(inputs, names, lambda value: _map_tensors(value, torch.zeros_like))

    return change


def replaced(**values: Any) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """A null condition: the named inputs are replaced by fixed tensors of batch 1, say a learned null embedding."""

    def change(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**inputs, **values}

    return change


def dropped(*names: str) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """A null condition: the named inputs are left out; for models that accept their absence."""

    def change(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        return {name: value for name, value in inputs.items() if name not in names}

    return change


def _changed(inputs: Mapping[str, Any], names: Sequence[str], change: Callable[[Any], Any]) -> Mapping[str, Any]:
    present = [name for name in names if inputs.get(name) is not None]
    if not present:
        raise ValueError(f"the prompt has none of the inputs {', '.join(names)}; it has {', '.join(inputs) or 'none'}")
    return {name: change(value) if name in present else value for name, value in inputs.items()}


def _map_tensors(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):  # model outputs are mappings: rebuild the same class
        return type(value)(**{key: _map_tensors(item, function) for key, item in value.items()})
    if isinstance(value, tuple | list):
        return type(value)(_map_tensors(item, function) for item in value)
    return value
