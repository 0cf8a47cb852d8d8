"""The guidance terms users name: which streams a rule reads, and with which weights.

The formulas are those of `guiderail.logits`; here they are split into contributions, so that they compose. Every term
states its neutral value; a term at its neutral value asks for no stream at all, in no row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from guiderail.guidance.perturbation import Perturbation
from guiderail.guidance.streams import (
    ChangedInputs,
    Condition,
    ControlCode,
    LastPromptToken,
    PromptTail,
    PromptText,
    SamePrompt,
    Stream,
    prompt_tokens,
)
from guiderail.guidance.terms import Contribution, Scale, Schedule, Step, Term, apply_contribution, count_of
from guiderail.logits.combination import log_probabilities
from guiderail.logits.contrastive import jensen_shannon_divergence, most_divergent_layer
from guiderail.logits.controllers import AdaptiveStop, StopState
from guiderail.logits.gedi import gedi_class_posterior, gedi_guidance
from guiderail.logits.plausibility import plausible_tokens
from guiderail.logits.projected import projected_direction
from guiderail.logits.temperature import entropy_matched
from guiderail.logits.truncation import top_p_tokens

TokenIds = Tensor | Sequence[int] | Sequence[Sequence[int]]
InputChange = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def _prompt_condition(ids: TokenIds | None, mask: Any, text: str | Sequence[str] | None) -> Condition | None:
    if ids is not None and text is not None:
        raise ValueError("give a prompt as ids or as text, not both")
    if ids is not None:
        return prompt_tokens(ids, mask)
    if mask is not None:
        raise ValueError("an attention mask without the ids it belongs to")
    if text is not None:
        return PromptText((text,) if isinstance(text, str) else tuple(text))
    return None


def prompt_condition(prompt: TokenIds | str) -> Condition:
    """A prompt given as text or as token ids."""
    condition = (
        _prompt_condition(None, None, prompt) if isinstance(prompt, str) else _prompt_condition(prompt, None, None)
    )
    assert condition is not None
    return condition


class WeightedStreams(Term):
    """Any affine rule: `g = c + own * c + sum_k weight_k * l_k`.

    Args:
        weights: stream -> weight; 0.0 everywhere (and own = 0.0) is off. A weight may be per prompt or a schedule.
        own: added to the conditional stream's weight of 1; None makes all weights sum to 1.
    """

    def __init__(self, weights: Mapping[Stream, Scale], own: Scale | None = None) -> None:
        self.weights = dict(weights)
        self.own = own

    def __repr__(self) -> str:
        return f"WeightedStreams({self.weights!r}, own={self.own!r})"

    def streams(self) -> tuple[Stream, ...]:
        return tuple(self.weights)

    def prompt_count(self) -> int:
        return count_of([*self.weights.values(), *([] if self.own is None else [self.own])], self.streams())

    def wanted(self, step: Step) -> dict[Stream, list[bool]]:
        values = {stream: step.per_row(weight) for stream, weight in self.weights.items()}
        return {stream: [value != 0 for value in row] for stream, row in values.items() if any(row)}

    def contribute(self, step: Step) -> Contribution | None:
        values = {stream: step.per_row(weight) for stream, weight in self.weights.items()}
        columns = {stream: step.column(row) for stream, row in values.items() if any(row)}
        if self.own is not None:
            own = step.column(step.per_row(self.own))
        else:
            own = step.column([-math.fsum(row) for row in zip(*values.values(), strict=True)])
        active = own.squeeze(-1) != 0
        for column in columns.values():
            active = active | (column.squeeze(-1) != 0)
        return Contribution(active, own, columns) if bool(active.any()) else None


class _AwayFrom(Term):
    """`g = other + scale (c - other)` with an optional plausibility filter; 1.0 is off. The shape of most rules
    here."""

    def __init__(
        self, stream: Stream, scale: Scale, plausibility: float | None, stop: AdaptiveStop | None = None
    ) -> None:
        if plausibility is not None and not 0 <= plausibility <= 1:
            raise ValueError(f"plausibility must lie in [0, 1], got {plausibility}")
        self.stream = stream
        self.scale = scale
        self.plausibility = plausibility
        self.stop = stop

    def __repr__(self) -> str:
        return f"{type(self).__name__}(scale={self.scale!r}, stream={self.stream!r})"

    def streams(self) -> tuple[Stream, ...]:
        return (self.stream,)

    def prompt_count(self) -> int:
        return count_of([self.scale], self.streams())

    def _active(self, step: Step) -> list[bool]:
        active = [scale != 1 for scale in step.per_row(self.scale)]
        if self.stop is None:
            return active
        wants = []
        for on, row in zip(active, step.rows, strict=True):
            state = step.memory.get(self, row, StopState())
            wants.append(on and self.stop.wants_stream(state, row.step))
            if not wants[-1]:
                step.memory.put(self, row, state)  # so that the next step finds it one token back, not a thousand
        return wants

    def wanted(self, step: Step) -> dict[Stream, list[bool]]:
        active = self._active(step)
        return {self.stream: active} if any(active) else {}

    def contribute(self, step: Step) -> Contribution | None:
        active = self._active(step)
        if not any(active):
            return None
        strength = step.column(step.per_row(self.scale)) - 1
        contribution = self._direction(step, strength)
        contribution.active = torch.tensor(active, device=step.raw.device)
        if self.plausibility is not None:
            contribution.plausibility = self.plausibility
        self._record(step, active)
        return contribution

    def _direction(self, step: Step, strength: Tensor) -> Contribution:
        return Contribution(torch.empty(0), strength, {self.stream: -strength})

    def _record(self, step: Step, active: list[bool]) -> None:
        if self.stop is None:
            return
        divergence = jensen_shannon_divergence(step.conditional, step.scores[self.stream].log_probs).tolist()
        for row, on, evidence in zip(step.rows, active, divergence, strict=True):
            if on:
                before = step.memory.get(self, row, StopState())
                step.memory.put(self, row, self.stop.advance(before, row.step, evidence))


class ClassifierFree(_AwayFrom):
    """Classifier-free guidance: `g = null + scale (c - null)`, 1.0 = off, 0.0 = the null stream.

    Args:
        scale: 1-neutral; other conventions through `guiderail.logits.canonical_scale`. A number, one per prompt, or a
            schedule.
        negative_prompt_ids: what to move away from, (length,) or (prompts, length); lists may be ragged.
        negative_attention_mask: its padding, anywhere.
        negative_prompt: the same as text, one or one per prompt; needs a tokenizer where the term is used.
        null_inputs: for images, labels and encoders: `streams.blank("pixel_values")`, `replaced(...)`, `dropped(...)`.
            Without any of these the null is the prompt's last token, as in transformers.
        drops: names of the conditions the null is without, checked against `trained_nulls` where the term is used.
        plausibility: keep only tokens with p(v) >= plausibility * max p over legal tokens; None = no filter, as
            published.
        stop: stop paying for the null stream once it agrees for a while.
    """

    def __init__(
        self,
        scale: Scale = 1.5,
        negative_prompt_ids: TokenIds | None = None,
        negative_attention_mask: Tensor | Sequence[Any] | None = None,
        *,
        negative_prompt: str | Sequence[str] | None = None,
        null_inputs: InputChange | None = None,
        drops: Iterable[str] = (),
        plausibility: float | None = None,
        stop: AdaptiveStop | None = None,
    ) -> None:
        condition = _prompt_condition(negative_prompt_ids, negative_attention_mask, negative_prompt)
        if null_inputs is not None:
            if condition is not None:
                raise ValueError("a null has either another prompt or other inputs; add two terms for two nulls")
            condition = ChangedInputs(null_inputs)
        super().__init__(Stream(condition or LastPromptToken(), drops=frozenset(drops)), scale, plausibility, stop)


class Projected(_AwayFrom):
    """Adaptive projected guidance: classifier-free guidance whose sharpening part is scaled separately.

    Args: scale 1.0 = off; parallel_weight 1.0 = plain guidance, 0.0 = re-rank without sharpening; norm_limit caps the
        difference, in nats of standard deviation. Null as in `ClassifierFree`.
    """

    def __init__(
        self,
        scale: Scale = 3.0,
        negative_prompt_ids: TokenIds | None = None,
        negative_attention_mask: Tensor | Sequence[Any] | None = None,
        *,
        negative_prompt: str | Sequence[str] | None = None,
        null_inputs: InputChange | None = None,
        parallel_weight: float = 0.0,
        norm_limit: float | None = None,
    ) -> None:
        condition = _prompt_condition(negative_prompt_ids, negative_attention_mask, negative_prompt)
        if null_inputs is not None:
            condition = ChangedInputs(null_inputs)
        super().__init__(Stream(condition or LastPromptToken()), scale, None)
        self.parallel_weight = parallel_weight
        self.norm_limit = norm_limit

    def _direction(self, step: Step, strength: Tensor) -> Contribution:
        null = step.scores[self.stream].log_probs
        direction = projected_direction(step.conditional, null, self.parallel_weight, self.norm_limit)
        return Contribution(torch.empty(0), additive=strength * direction)


class Prompts(WeightedStreams):
    """Several positive and negative prompts with signed weights: `g = c + sum_i w_i (l_i - c)`.

    Args: prompts list of (ids or text, weight); weight -0.5 is classifier-free guidance at 1.5 against that prompt,
        +0.5 mixes half of it in, 0.0 is off. Coefficients sum to 1.
    """

    def __init__(self, prompts: Sequence[tuple[TokenIds | str, Scale]]) -> None:
        weights: dict[Stream, Scale] = {}
        for prompt, weight in prompts:
            weights[Stream(prompt_condition(prompt))] = weight
        super().__init__(weights)


class Contrastive(_AwayFrom):
    """Contrastive decoding: away from an amateur, among the tokens the guided model finds plausible.

    Args:
        amateur: a smaller model with the same vocabulary, or None for the guided model with a short context.
        scale: 1.0 = off; 1 + beta of the later form, 1.5 by default.
        plausibility: alpha.
        context: how many last prompt tokens the amateur sees; None = the whole prompt.
    """

    def __init__(
        self, amateur: Any = None, scale: Scale = 1.5, *, plausibility: float = 0.1, context: int | None = None
    ) -> None:
        if amateur is None and context is None:
            raise ValueError("without another model the amateur must at least see less: give `context`")
        condition = SamePrompt() if context is None else PromptTail(context)
        super().__init__(Stream(condition, amateur), scale, plausibility)


class Autoguidance(_AwayFrom):
    """Away from a weaker model of the same task: `weak + scale (strong - weak)`; 1.0 = off. No filter."""

    def __init__(self, weak_model: Any, scale: Scale = 1.5) -> None:
        super().__init__(Stream(SamePrompt(), weak_model), scale, None)


class Perturbed(_AwayFrom):
    """Away from a perturbed pass of the same model on the same prompt: needs no null condition and no second model.

    Args:
        perturbation: `SkipLayers(...)`, `IdentityAttention(...)` (PAG) or `Dropout(...)`.
        scale: 1.0 = off; PAG's own scale is this minus 1.
    """

    def __init__(self, perturbation: Perturbation, scale: Scale = 1.5, *, plausibility: float | None = None) -> None:
        super().__init__(Stream(SamePrompt(), perturbation=perturbation), scale, plausibility)


class Realignment(_AwayFrom):
    """RLG / DeRa: the guided model is the aligned one; `reference + scale (aligned - reference)`.

    Args: reference the model before alignment; scale 1.0 = as aligned, 0.0 = reference, > 1 = further.
    """

    def __init__(self, reference: Any, scale: Scale = 2.0) -> None:
        super().__init__(Stream(SamePrompt(), reference), scale, None)


class ContextAware(_AwayFrom):
    """Context-aware decoding: `(1 + alpha) log p(. | context, question) - alpha log p(. | question)`; alpha 0.0 = off.

    Args: alpha a number, one per prompt, or a schedule. question_ids or question: the prompt without its context (one,
        or one per prompt).
    """

    def __init__(
        self,
        alpha: Scale = 0.5,
        question_ids: TokenIds | None = None,
        question_attention_mask: Tensor | Sequence[Any] | None = None,
        *,
        question: str | Sequence[str] | None = None,
    ) -> None:
        condition = _prompt_condition(question_ids, question_attention_mask, question)
        if condition is None:
            raise ValueError("context-aware decoding needs the question without its context")
        super().__init__(Stream(condition), _one_more(alpha), None)


def _one_more(weight: Scale) -> Scale:
    """A 0-neutral weight as a 1-neutral scale, number by number."""
    if isinstance(weight, int | float | Tensor):
        return 1 + weight
    if callable(weight):
        return lambda step: _numbers_plus_one(weight(step))
    return [_schedule_plus_one(own) if callable(own) else 1 + own for own in weight]


def _numbers_plus_one(value: float | Sequence[float]) -> float | Sequence[float]:
    return 1 + value if isinstance(value, int | float) else [1 + number for number in value]


def _schedule_plus_one(schedule: Schedule) -> Schedule:
    return lambda step: 1 + schedule(step)


class DExperts(Term):
    """`g = base + alpha (expert - antiexpert)`; alpha 0.0 = off.

    Args:
        expert, antiexpert: models with the guided model's vocabulary; both read the prompt.
        base_top_p: consider only the guided model's nucleus (the paper's 0.9); None = everything.
    """

    def __init__(self, expert: Any, antiexpert: Any, alpha: Scale = 2.0, *, base_top_p: float | None = None) -> None:
        self.expert = Stream(SamePrompt(), expert)
        self.antiexpert = Stream(SamePrompt(), antiexpert)
        self.alpha = alpha
        self.base_top_p = base_top_p

    def __repr__(self) -> str:
        return f"{type(self).__name__}(alpha={self.alpha!r})"

    def streams(self) -> tuple[Stream, ...]:
        return self.expert, self.antiexpert

    def prompt_count(self) -> int:
        return count_of([self.alpha], self.streams())

    def wanted(self, step: Step) -> dict[Stream, list[bool]]:
        active = [alpha != 0 for alpha in step.per_row(self.alpha)]
        return dict.fromkeys(self.streams(), active) if any(active) else {}

    def contribute(self, step: Step) -> Contribution | None:
        alpha = step.column(step.per_row(self.alpha))
        active = alpha.squeeze(-1) != 0
        if not bool(active.any()):
            return None
        keep = None if self.base_top_p is None else top_p_tokens(step.conditional, self.base_top_p)
        return Contribution(active, None, {self.expert: alpha, self.antiexpert: -alpha}, None, keep)


class ProxyTuning(DExperts):
    """A large model steered by what tuning did to a small one: `large + alpha (tuned - untuned)`; alpha 0.0 = off."""

    def __init__(self, tuned: Any, untuned: Any, alpha: Scale = 1.0) -> None:
        super().__init__(tuned, untuned, alpha)


class DoLa(Term):
    """Final layer minus the most divergent early layer, among plausible tokens. There is no neutral scale; leave it
    out.

    Args:
        layers: candidate early layers, as indices into the hidden states (0 = embeddings).
        plausibility: alpha.

    The early layers come from a stream of the guided model on the same prompt: one extra pass per step, shared with any
    other `SamePrompt` stream. The final normalisation is applied before the output head.
    """

    def __init__(self, layers: Sequence[int], *, plausibility: float = 0.1) -> None:
        if not layers:
            raise ValueError("DoLa needs at least one candidate layer")
        self.stream = Stream(SamePrompt(), early_layers=tuple(layers))
        self.plausibility = plausibility

    def streams(self) -> tuple[Stream, ...]:
        return (self.stream,)

    def wanted(self, step: Step) -> dict[Stream, list[bool]]:
        return {self.stream: [True] * len(step.rows)}

    def contribute(self, step: Step) -> Contribution | None:
        early = step.scores[self.stream].early_log_probs
        assert early is not None
        chosen = most_divergent_layer(step.conditional, early)
        index = chosen.reshape(1, -1, 1).expand(1, *step.conditional.shape)
        active = torch.ones(len(step.rows), dtype=torch.bool, device=step.conditional.device)
        keep = plausible_tokens(step.conditional, self.plausibility, step.legal)
        return Contribution(active, additive=-early.gather(0, index).squeeze(0), keep=keep)


class GeDi(Term):
    """A class-conditional language model as a discriminator: `g = c + omega log P(desired | text + v)`, omega 0.0 =
    off.

    Args:
        model: the class-conditional model, same vocabulary; None = the guided model.
        desired, undesired: control codes, one token id or several.
        omega: the paper's disc_weight, 30; `schedules.length_compensated` undoes its fading with length.
        logit_scale, biases: learned in GeDi training; biases are (desired, undesired), by code, never by column.
        normalization: "mean" divides by length as in the paper, "sum" does not.
        filter_mass, filter_threshold: rho and tau, see `guiderail.logits.gedi_guidance`; filter_mass None = no filter.

    The discriminator is soft: under a grammar a token it removes is still there if nothing else is legal.
    """

    def __init__(
        self,
        model: Any,
        desired: int | Sequence[int],
        undesired: int | Sequence[int],
        omega: Scale = 30.0,
        *,
        logit_scale: float = 1.0,
        biases: tuple[float, float] = (0.0, 0.0),
        normalization: str = "mean",
        filter_mass: float | None = 0.2,
        filter_threshold: float = 0.8,
    ) -> None:
        if normalization not in ("mean", "sum"):
            raise ValueError(f"normalization is 'mean' or 'sum', got {normalization!r}")
        codes = [(code,) if isinstance(code, int) else tuple(code) for code in (desired, undesired)]
        self.desired, self.undesired = (Stream(ControlCode(code), model, with_likelihood=True) for code in codes)
        self._code_lengths = [len(code) for code in codes]
        self.omega = omega
        self.logit_scale = logit_scale
        self.biases = biases
        self.normalization = normalization
        self.filter_mass = filter_mass
        self.filter_threshold = filter_threshold

    def streams(self) -> tuple[Stream, ...]:
        return self.desired, self.undesired

    def prompt_count(self) -> int:
        return count_of([self.omega], self.streams())

    def wanted(self, step: Step) -> dict[Stream, list[bool]]:
        active = [omega != 0 for omega in step.per_row(self.omega)]
        return dict.fromkeys(self.streams(), active) if any(active) else {}

    def contribute(self, step: Step) -> Contribution | None:
        omega = step.per_row(self.omega)
        weight = step.column(omega).squeeze(-1)
        if not any(omega):
            return None
        # Every token after the first of the code counts: the rest of the code, the prompt, the text, the candidate.
        text = [len(row.prompt) + len(row.generated) + 1 for row in step.rows]
        length = [count + self._code_lengths[0] - 1 if self.normalization == "mean" else 1 for count in text]
        desired, undesired = step.scores[self.desired], step.scores[self.undesired]
        posterior = gedi_class_posterior(
            desired.log_probs,
            undesired.log_probs,
            desired.log_likelihood,
            undesired.log_likelihood,
            step.column([float(count) for count in length]).squeeze(-1),
            logit_scale=self.logit_scale,
            desired_bias=self.biases[0],
            undesired_bias=self.biases[1],
        )
        possible = step.conditional > -math.inf
        guided = gedi_guidance(
            step.conditional, posterior, weight, filter_mass=self.filter_mass, filter_threshold=self.filter_threshold
        )
        additive = torch.where(possible, guided - step.conditional.masked_fill(~possible, 0.0), 0.0)
        return Contribution(weight != 0, additive=additive)


class LanguageModelCaption(Term):
    """Caption guidance by a language model: `alpha lm + beta (c - null)`; it has no neutral value of its own.

    Args:
        language_model: shares the captioner's vocabulary. lm_prompt_ids: what it reads before the caption.
        alpha: weight of the language model (also an inverse temperature), beta: weight of the image's ratio; a number,
            one per prompt, or a schedule each.
        null_inputs: the captioner without the image, as in `ClassifierFree`.
    """

    def __init__(
        self,
        language_model: Any,
        lm_prompt_ids: TokenIds,
        null_inputs: InputChange,
        alpha: Scale = 1.0,
        beta: Scale = 1.0,
    ) -> None:
        self.language = Stream(prompt_tokens(lm_prompt_ids), language_model)
        self.null = Stream(ChangedInputs(null_inputs))
        self.alpha = alpha
        self.beta = beta

    def streams(self) -> tuple[Stream, ...]:
        return self.language, self.null

    def prompt_count(self) -> int:
        return count_of([self.alpha, self.beta], self.streams())

    def wanted(self, step: Step) -> dict[Stream, list[bool]]:
        return dict.fromkeys(self.streams(), [True] * len(step.rows))

    def contribute(self, step: Step) -> Contribution | None:
        active = torch.ones(len(step.rows), dtype=torch.bool, device=step.conditional.device)
        beta = step.column(step.per_row(self.beta))
        alpha = step.column(step.per_row(self.alpha))
        return Contribution(active, beta - 1, {self.null: -beta, self.language: alpha})


class EntropyMatched(Term):
    """Any term, at the conditional entropy: its order of tokens, the model's own decisiveness. Off where the term is
    off."""

    def __init__(self, term: Term) -> None:
        self.term = term

    def __repr__(self) -> str:
        return f"EntropyMatched({self.term!r})"

    def streams(self) -> tuple[Stream, ...]:
        return self.term.streams()

    def prompt_count(self) -> int:
        return self.term.prompt_count()

    def wanted(self, step: Step) -> dict[Stream, list[bool]]:
        return self.term.wanted(step)

    def contribute(self, step: Step) -> Contribution | None:
        inner = self.term.contribute(step)
        if inner is None:
            return None
        inner = inner.filtered(step)
        keep, inner.keep = inner.keep, None
        guided = apply_contribution(
            Step(step.rows, step.conditional, step.legal, scores=step.scores), step.conditional, inner
        )
        matched = entropy_matched(guided, step.conditional)
        possible = step.conditional > -math.inf
        change = torch.where(possible, matched - log_probabilities(step.conditional).masked_fill(~possible, 0.0), 0.0)
        return Contribution(inner.active, additive=change, keep=keep)
