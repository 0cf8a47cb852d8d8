"""Bring streams and terms together: from the scores of one step to guided scores.

`GuidanceEngine` owns one `StreamRunner` per model and nothing about any particular loop. Whoever decodes (a
transformers processor, our own loop) tells it the rows and the conditional scores; the engine finds out which streams
are needed for which rows, evaluates the streams of one model in one pass, and applies the term.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from guiderail.guidance.runner import Evaluation, FixedStates, GuestRows, Request, StreamRunner
from guiderail.guidance.streams import (
    ChangedInputs,
    ControlCode,
    LastPromptToken,
    PromptTail,
    PromptText,
    PromptTokens,
    Row,
    RowInputs,
    SamePrompt,
    Stream,
    dropped,
    row_of,
)
from guiderail.guidance.terms import Step, StreamScores, Term, TokenMemory, apply_contribution
from guiderail.logits.combination import beliefs, without_bans
from guiderail.logits.multi_condition import require_trained_nulls

Encode = Callable[[str], Sequence[int]]
"""Text to token ids, as the guided model's prompts are encoded."""


CONDITIONAL = Stream(SamePrompt())
"""The guided model on the guided prompt: the stream whose scores guidance starts from."""

# Another encoder-decoder reads the same source through its own encoder.
_OWN_STATES = ChangedInputs(dropped("encoder_outputs"))


class GuidanceEngine:
    """Evaluates a term for batches of sequences.

    Args:
        model: the guided model; streams without a model of their own run on it.
        encode: needed only if a stream's prompt is given as text.
        fixed: how to keep states in caches of a fixed size, see `StreamRunner`; None: caches that grow.
        trained_nulls: the combinations of conditions the model was trained without, say [{"image"}, {"text"}]; streams
            that drop another combination, or change the inputs without saying what that drops, are refused. None: the
            user vouches for them.
    Raises: ValueError for a text without `encode`, or a null that was not trained.
    """

    def __init__(
        self,
        term: Term,
        model: Any,
        encode: Encode | None = None,
        trained_nulls: Iterable[Iterable[str]] | None = None,
        fixed: FixedStates | None = None,
    ) -> None:
        if trained_nulls is not None:
            _require_trained(term, trained_nulls)
        self.term = term
        self.model = model
        self._encode = encode
        self._fixed = fixed
        self._runners: dict[int, StreamRunner] = {}
        self._null_inputs: dict[tuple[Any, RowInputs], RowInputs] = {}
        self._sources: dict[tuple[int, ...], RowInputs] = {}
        self.memory = TokenMemory()
        if encode is None and any(isinstance(stream.condition, PromptText) for stream in term.streams()):
            raise ValueError("a prompt was given as text: pass a tokenizer, or give the prompt as token ids")

    def runner(self, model: Any = None) -> StreamRunner:
        """The runner of a model; None is the guided model's."""
        model = self.model if model is None else model
        if id(model) not in self._runners:
            self._runners[id(model)] = StreamRunner(model, self._fixed)
        return self._runners[id(model)]

    @property
    def runners(self) -> list[StreamRunner]:
        """All runners in use, for their counts."""
        return list(self._runners.values())

    def reset(self) -> None:
        """Forget every cached state; call it when a model's weights may have changed."""
        for runner in self._runners.values():
            runner.reset()
        self._null_inputs.clear()
        self._sources.clear()
        self.memory.clear()

    def guide(self, rows: Sequence[Row], scores: Tensor, legal: Tensor | None = None) -> Tensor:
        """Guided scores of one step, for a loop that owns the guided model's pass.

        Args:
            rows: the sequences. scores: (rows, vocab) logits or log-probabilities of the guided model after them.
            legal: bool (rows, vocab), what a constraint allows, for filters to respect; it is not applied here.
        Returns: float32 (rows, vocab); see `apply_contribution`.
        """
        step = Step(rows, scores, legal, memory=self.memory)
        self._fill(step, self._answers(step, self.term.wanted(step)))
        return apply_contribution(step, scores, self.term.contribute(step))

    def evaluate(self, rows: Sequence[Row], legal: Tensor | None = None, bitmask: Tensor | None = None) -> Tensor:
        """Guided scores of one step including the guided model's own pass, which shares a batch with its other
        streams.

        Args: bitmask: `legal` packed, int32 (rows, words); if given, illegal tokens may already be -inf in the result.
        """
        step = Step(rows, torch.empty(len(rows), 0), legal, bitmask, memory=self.memory)
        wanted = {CONDITIONAL: [True] * len(rows)}
        for stream, flags in self.term.wanted(step).items():
            wanted[stream] = [True] * len(rows) if stream == CONDITIONAL else flags
        answers = self._answers(step, wanted)
        scores = stacked_rows([answers[CONDITIONAL][index].logits for index in range(len(rows))])
        step.raw = scores
        self._fill(step, answers)
        return apply_contribution(step, scores, self.term.contribute(step))

    def as_guests(self, rows: Sequence[Row]) -> GuestRows | None:
        """The guided model's streams for these rows, to be computed in a pass of the model that is about to run for its
        own sake; None if that cannot be. See `StreamRunner.as_guests`."""
        step = Step(rows, torch.empty(len(rows), 0), memory=self.memory)
        requests = [
            self.request(stream, row)
            for stream, flags in self.term.wanted(step).items()
            if stream.model is None
            for row, flag in zip(rows, flags, strict=True)
            if flag
        ]
        return self.runner().as_guests(requests) if requests else None

    def conditional(self, rows: Sequence[Row]) -> Tensor:
        """The guided model's own logits (rows, vocab), no other stream."""
        step = Step(rows, torch.empty(len(rows), 0))
        answers = self._answers(step, {CONDITIONAL: [True] * len(rows)})
        return stacked_rows([answers[CONDITIONAL][index].logits for index in range(len(rows))])

    def _answers(self, step: Step, wanted: dict[Stream, list[bool]]) -> dict[Stream, dict[int, Evaluation]]:
        """Evaluate streams, all those of one model together: stream -> row index -> answer."""
        by_runner: dict[int, list[tuple[Stream, int, Request]]] = {}
        runners: dict[int, StreamRunner] = {}
        for stream, flags in wanted.items():
            runner = self.runner(stream.model)
            runners[id(runner)] = runner
            for index, (row, flag) in enumerate(zip(step.rows, flags, strict=True)):
                if flag:
                    by_runner.setdefault(id(runner), []).append((stream, index, self.request(stream, row)))
        answers: dict[Stream, dict[int, Evaluation]] = {}
        for key, asked in by_runner.items():
            found = runners[key].evaluate([request for *_, request in asked])
            for (stream, index, _), answer in zip(asked, found, strict=True):
                answers.setdefault(stream, {})[index] = answer
        return answers

    def _fill(self, step: Step, answers: dict[Stream, dict[int, Evaluation]]) -> None:
        for stream, rows in answers.items():
            step.scores[stream] = _gathered(step, stream, rows)

    def request(self, stream: Stream, row: Row) -> Request:
        """What a stream must evaluate for a row.

        Raises: ValueError if the stream needs inputs (an image, a source) that the row does not have.
        """
        runner = self.runner(stream.model)
        prompt, inputs = self._prompt(stream, row, runner.is_encoder_decoder)
        return Request(
            (*prompt, *row.generated),
            len(prompt),
            inputs,
            stream.perturbation,
            stream.with_likelihood,
            stream.early_layers,
            owner=(stream, row.prompt_index),
        )

    def _prompt(self, stream: Stream, row: Row, is_encoder_decoder: bool) -> tuple[tuple[int, ...], RowInputs | None]:
        condition = stream.condition
        if is_encoder_decoder and (isinstance(condition, PromptTail | ControlCode) or stream.early_layers):
            what = "early layers" if stream.early_layers else f"a {type(condition).__name__} stream"
            raise ValueError(f"{what} of an encoder-decoder: only decoder-only models have this stream")
        if isinstance(condition, ChangedInputs):
            if row.inputs is None:
                raise ValueError("a null made by changing the inputs needs a prompt with inputs besides its tokens")
            return row.prompt, self._changed(condition, row.inputs)
        tokens = self._tokens(stream, row)
        if tokens is None:  # the guided prompt itself, with its image or source
            if stream.model is None or row.inputs is None:
                return row.prompt, row.inputs
            return row.prompt, self._changed(_OWN_STATES, row.inputs) if is_encoder_decoder else None
        if not is_encoder_decoder:
            return tokens, None
        if isinstance(condition, LastPromptToken):
            end = self.runner(stream.model).model.config.eos_token_id
            tokens = (end[0] if isinstance(end, list) else end,)
        return row.prompt, self._sources.setdefault(tokens, RowInputs({}, 0, tokens))

    def _tokens(self, stream: Stream, row: Row) -> tuple[int, ...] | None:
        """The tokens a stream reads before the generated ones; None for the guided prompt."""
        condition = stream.condition
        if isinstance(condition, LastPromptToken):
            return row.prompt[-1:]
        if isinstance(condition, PromptTail):
            return row.prompt[-condition.length :]
        if isinstance(condition, PromptTokens):
            prompt = row_of(condition.prompts, row.prompt_index, "prompts")
            assert isinstance(prompt, tuple)
            return prompt
        if isinstance(condition, PromptText):
            assert self._encode is not None
            return tuple(self._encode(row_of(condition.texts, row.prompt_index, "prompts")))
        if isinstance(condition, ControlCode):
            return (*condition.code, *row.prompt)
        return None

    def _changed(self, condition: ChangedInputs, inputs: RowInputs) -> RowInputs:
        # Rows are found by the identity of their inputs, so the same change of the same inputs must be the same object.
        key = condition, inputs
        if key not in self._null_inputs:
            changed = dict(condition.change(inputs.tensors))
            # States of the old source do not belong to a changed one.
            if changed.get("encoder_outputs") is inputs.tensors.get("encoder_outputs"):
                changed.pop("encoder_outputs", None)
            self._null_inputs[key] = RowInputs(changed, inputs.prompt_length, inputs.encoder_tokens)
        return self._null_inputs[key]


def _require_trained(term: Term, trained_nulls: Iterable[Iterable[str]]) -> None:
    for stream in term.streams():
        if isinstance(stream.condition, ChangedInputs) and not stream.drops:
            raise ValueError("a null made by changing the inputs must say what it drops: drops={'image'}")
    require_trained_nulls([stream.drops for stream in term.streams()], [frozenset(names) for names in trained_nulls])


def _gathered(step: Step, stream: Stream, rows: dict[int, Evaluation]) -> StreamScores:
    """A stream's answers as tensors over all rows. Rows that did not ask repeat the conditional scores, which is
    neutral."""
    raw = step.raw
    order = sorted(rows)
    likelihood = [rows[i].log_likelihood if i in rows else 0.0 for i in range(raw.shape[0])]
    column = step.column(likelihood).squeeze(-1)
    logits = stacked_rows([rows[i].logits for i in order])
    if len(order) == raw.shape[0] and not stream.early_layers:
        return StreamScores(_fitted(logits.to(raw.device), raw.shape[-1]), column)
    like = step.conditional
    index = torch.tensor(order, device=like.device)

    def scattered(values: Tensor, neutral: Tensor) -> Tensor:
        values = beliefs(_fitted(values.to(like.device), like.shape[-1]))
        if len(order) == like.shape[0]:
            return values
        return neutral.index_copy(0, index, values.to(neutral.dtype))

    # Only rows that did not ask need the stand-in.
    neutral = like if len(order) == like.shape[0] else without_bans(like)
    log_probs = scattered(logits, neutral)
    early = None
    if stream.early_layers:
        per_row = [rows[i].early_logits for i in order]
        stacked = torch.stack([layers for layers in per_row if layers is not None], dim=1)
        early = torch.stack([scattered(layer, neutral) for layer in stacked])
    return StreamScores(log_probs, column, early, log_probs)


def stacked_rows(rows: Sequence[Tensor]) -> Tensor:
    """Rows (vocab,) as (rows, vocab); a view where they already lie at equal distances in one tensor."""
    first = rows[0]
    base, width = first.untyped_storage().data_ptr(), first.shape[0]
    offsets = [row.storage_offset() for row in rows]
    distance = offsets[1] - offsets[0] if len(rows) > 1 else width
    if distance > 0 and all(
        row.untyped_storage().data_ptr() == base
        and row.shape == first.shape
        and row.dtype == first.dtype
        and row.stride() == (1,)
        and offset == offsets[0] + index * distance
        for index, (row, offset) in enumerate(zip(rows, offsets, strict=True))
    ):
        return first.as_strided((len(rows), width), (distance, 1))
    return torch.stack(list(rows))


def _fitted(logits: Tensor, vocab: int) -> Tensor:
    """Logits cut or padded to the guided vocabulary: models of one family pad their output layers differently."""
    if logits.shape[-1] > vocab:
        return logits[..., :vocab]
    if logits.shape[-1] < vocab:
        return torch.nn.functional.pad(logits, (0, vocab - logits.shape[-1]), value=float("-inf"))
    return logits
