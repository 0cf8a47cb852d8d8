"""Guidance inside `transformers`' own `generate`, as a logits processor.

A logits processor is called with the tokens of all rows and the scores of the guided model, and nothing else. It is
not told where the prompt ends, which padding was masked, that beams were permuted, that a draft was thrown away, or
that a new call began. Everything here follows from two facts:

  * Streams are evaluated by their tokens (see `guidance.runner`), so order and history of the calls do not matter.
  * The model's own prefill shows the prompt. A forward pre-hook notes the inputs of passes that start from an empty
  cache: the
    prompt's width, its padding, its image or source. Where no such pass was seen (an assistant drafts before the model
    has run) the width at the first call is the prompt's, and leading pad tokens are padding.

Streams of the guided model cost no passes of their own where they can be computed in those of `generate`, see
`shared_pass`.

A call belongs to a new `generate` if its prompt differs, or if its rows do not extend rows seen before by one token;
then every cached state is dropped, so that weights may change between calls.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, LogitsProcessor, StaticCache

from guiderail.guidance.engine import GuidanceEngine
from guiderail.guidance.streams import ChangedInputs, Row, RowInputs, SamePrompt
from guiderail.guidance.terms import Term, agreed_count
from guiderail.integrations.shared_pass import SharedPass
from guiderail.logits.bitmask import allocate_token_bitmask, unpack_token_bitmask

# Forward arguments that belong to the caller's pass and not to the prompt's content.
_NOT_CONTENT = frozenset(
    {
        "attention_mask",
        "cache_position",
        "decoder_attention_mask",
        "decoder_input_ids",
        "decoder_inputs_embeds",
        "decoder_position_ids",
        "encoder_outputs",
        "input_ids",
        "inputs_embeds",
        "labels",
        "logits_to_keep",
        "output_attentions",
        "output_hidden_states",
        "past_key_values",
        "position_ids",
        "return_dict",
        "use_cache",
    }
)


class GuidanceLogitsProcessor(LogitsProcessor):
    """Guidance for `model.generate(..., logits_processor=[GuidanceLogitsProcessor(term, model=model)])`.

    Right for batches, left padding, sampling, beams, `num_return_sequences`, assisted decoding, static caches,
    encoder-decoders, images, and for one object used in many calls; nothing needs to be reset.

    Order. `generate` runs its built-in processors (repetition penalty, forbidden words, minimum length) before custom
    ones. Penalties therefore apply to the conditional scores only, before guidance, not after it; `guiderail`'s own
    `generate` keeps the normative order. Temperature and top-k/top-p run afterwards, as they should. Put a
    `GrammarLogitsProcessor` after this one, or pass `constraint` here.

    Cost. Streams of the guided model that read text are rows of the decoding passes `generate` runs anyway, which hooks
    on the model see to. Encoder-decoders, images, perturbed streams and compiled passes take a pass of their own.

    Args:
        term: what to do; terms add up with `+`.
        model: the model `generate` is called on (for captioners whose generate delegates, the text decoder).
        constraint: a compiled grammar, or one per prompt. Illegal tokens become -inf after guidance, and filters such
            as plausibility look at legal tokens only. A row that leaves the constraint's language (padding after the
            end, a draft that will be rejected) is not constrained.
        tokenizer: needed only for prompts given as text.
        trained_nulls: see `GuidanceEngine`.
    Raises: ValueError if the term needs a tokenizer and there is none, or a null that was not trained.
    """

    supports_continuous_batching = False

    def __init__(
        self,
        term: Term,
        *,
        model: Any,
        constraint: Any = None,
        tokenizer: Any = None,
        trained_nulls: Iterable[Iterable[str]] | None = None,
    ) -> None:
        encode = None if tokenizer is None else _encoder(tokenizer)
        self.engine = GuidanceEngine(term, model, encode, trained_nulls)
        self._constraint = None if constraint is None else ConstraintRows(constraint)
        # More than one: other processors and threads run the same model, and each is recognised by its tokens.
        self._prefills: deque[_Prefill] = deque(maxlen=8)
        self._source: dict[str, Any] = {}
        self._prompts: _Prompts | None = None
        self._shared: SharedPass | None = None
        self._calls = 0
        self._last: list[Row] = []
        self._expected: list[Row] = []
        self._watch(model)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        rows = self._rows(input_ids)
        if self._expected and self._expected != rows:
            self._shared = None  # the rows are not continued as was thought: not again in this call
        self._expected, self._last = [], rows
        legal = None
        if self._constraint is not None:
            legal = self._constraint.legal(rows, scores.shape[-1], scores.device)
        guided = self.engine.guide(rows, scores, legal)
        return guided if legal is None else guided.masked_fill(~legal, float("-inf"))

    # -- where the prompt ends ----------------------------------------------------------------------------------------

    def _rows(self, input_ids: Tensor) -> list[Row]:
        tokens = [tuple(row) for row in input_ids.tolist()]
        prefill = next((seen for seen in reversed(self._prefills) if seen.matches(tokens)), None)
        self._prefills.clear()
        begins = prefill is not None and prefill.cached
        if begins or self._prompts is None or not self._prompts.continued_by(tokens):
            self._begin(tokens, prefill)
        assert self._prompts is not None
        return self._prompts.rows(tokens)

    def _begin(self, tokens: list[tuple[int, ...]], prefill: _Prefill | None) -> None:
        self.engine.reset()
        if self._constraint is not None:
            self._constraint.reset()
        count = agreed_count(
            [self.engine.term.prompt_count(), 0 if self._constraint is None else self._constraint.count]
        )
        if len(tokens) % count:
            raise ValueError(f"{len(tokens)} rows cannot be shared out among {count} prompts")
        model = self.engine.model
        if prefill is not None:
            paddings = prefill.paddings()
        else:
            paddings = [_leading_padding(row, model) for row in tokens]
        inputs: list[RowInputs | None] = [None] * len(tokens)
        try:
            inputs = _row_inputs(tokens, paddings, prefill)
        except ValueError:
            # Inputs that are not batched by row (patches of all images in one tensor) matter only to streams that read
            # them; for others they merely tell prompts of equal tokens apart.
            if any(isinstance(stream.condition, SamePrompt | ChangedInputs) for stream in self.engine.term.streams()):
                raise
        self._prompts = _Prompts(tokens, paddings, count, inputs)
        cache = None if prefill is None else prefill.kwargs.get("past_key_values")
        self._shared = None
        if isinstance(cache, DynamicCache | StaticCache):
            self._calls += 1
            self._shared = SharedPass(cache, _forgetting(weakref.ref(self), self._calls))

    def _join(self, kwargs: dict[str, Any]) -> dict[str, Any] | None:
        """The arguments of a decoding step with our streams' rows added, if they are known and fit."""
        if self._shared is None or self._prompts is None or not self._last or not self._shared.can_join(kwargs):
            return None
        # A cache that holds more than tokens (image features without a place in the text) has its own idea of masks.
        if int(kwargs["past_key_values"].get_seq_length()) != self._prompts.width + self._last[0].step:
            return None
        tokens = kwargs["input_ids"][:, 0].tolist()
        if len(tokens) != len(self._last):
            return None
        parents = self._shared.parents(len(tokens))
        if parents is None:
            return None
        continued = [self._last[parent] for parent in parents]
        rows = [
            Row(row.prompt, (*row.generated, token), row.prompt_index, row.inputs)
            for row, token in zip(continued, tokens, strict=True)
        ]
        guests = self.engine.as_guests(rows)
        if guests is None:
            return None
        self._expected = rows
        return self._shared.join(guests, kwargs)

    def _watch(self, model: Any) -> None:
        this = weakref.ref(self)  # the model must not keep its processors alive

        def ours() -> GuidanceLogitsProcessor | None:
            processor = this()
            busy = processor is None or any(runner.is_running for runner in processor.engine.runners)
            return None if busy or torch.compiler.is_compiling() else processor

        def before_forward(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            processor = ours()
            cache = kwargs.get("past_key_values")
            if processor is None:
                return None
            if cache is not None and cache.get_seq_length() > 0:
                joined = processor._join(kwargs) if not args else None
                return None if joined is None else ((), joined)
            ids = kwargs.get("decoder_input_ids") if "decoder_input_ids" in kwargs else kwargs.get("input_ids")
            if ids is None and args and isinstance(args[0], Tensor):
                ids = args[0]
            if ids is not None:
                source, processor._source = processor._source, {}
                cached = kwargs.get("use_cache") is not False
                processor._prefills.append(_Prefill(ids, dict(kwargs), source, cached))
            return None

        def after_forward(module: Any, args: tuple[Any, ...], output: Any) -> None:
            processor = ours()
            if processor is not None and processor._shared is not None:
                processor._shared.part(output)

        def before_encoder(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            processor = ours()
            if processor is not None:
                processor._source = {name: value for name, value in kwargs.items() if isinstance(value, Tensor)}
                if args and isinstance(args[0], Tensor):
                    processor._source[module.main_input_name] = args[0]

        handles = [
            model.register_forward_pre_hook(before_forward, with_kwargs=True),
            model.register_forward_hook(after_forward),
        ]
        for encoder in _encoders(model):
            handles.append(encoder.register_forward_pre_hook(before_encoder, with_kwargs=True))
        for handle in handles:
            weakref.finalize(self, handle.remove)


def _forgetting(this: weakref.ref[GuidanceLogitsProcessor], call: int) -> Callable[[], None]:
    """What to do when a call's cache is gone: free the streams' states, which may be views of the same memory."""

    def forget() -> None:
        processor = this()
        if processor is not None and processor._calls == call:
            processor._shared = None
            for runner in processor.engine.runners:
                runner.reset()

    return forget


@dataclass(slots=True)
class _Prefill:
    """The inputs of a pass that started from an empty cache.

    Args: ids (rows, width) of the decoder; kwargs of the forward; source: inputs of the encoder, before rows were
        repeated;
        cached: False if every pass starts from nothing (`use_cache=False`), so that this one proves no new call.
    """

    ids: Tensor
    kwargs: dict[str, Any]
    source: dict[str, Any]
    cached: bool

    def matches(self, tokens: list[tuple[int, ...]]) -> bool:
        shape = (len(tokens), len(tokens[0]))
        return tuple(self.ids.shape) == shape and [tuple(row) for row in self.ids.tolist()] == tokens

    def paddings(self) -> list[int]:
        """Masked tokens at the left of each row."""
        rows, width = self.ids.shape
        name = "decoder_attention_mask" if "decoder_input_ids" in self.kwargs else "attention_mask"
        mask = self.kwargs.get(name)
        if isinstance(mask, Mapping):  # one mask per kind of layer; all show the last token the same padding
            mask = mask.get("full_attention", next(iter(mask.values())))
        if mask is None or not isinstance(mask, Tensor):
            return [0] * rows
        if mask.ndim == 4:  # static caches get a ready-made mask: what the last position sees
            last = mask[:, 0, -1, :width]
            visible = last if last.dtype == torch.bool else last == 0
            visible = visible.expand(rows, -1)
        else:
            visible = mask[:, -width:] != 0
        return [int(row.long().argmax()) if bool(row.any()) else 0 for row in visible]


class _Prompts:
    """The rows of one `generate` call: which prompt each belongs to, and which continuations have been seen."""

    def __init__(
        self, tokens: list[tuple[int, ...]], paddings: list[int], count: int, inputs: list[RowInputs | None]
    ) -> None:
        self.width = len(tokens[0])
        self._padded = tokens
        self._prompts = [row[padding:] for row, padding in zip(tokens, paddings, strict=True)]
        self._indices = [row * count // len(tokens) for row in range(len(tokens))]
        self._inputs = inputs
        self._seen = {hash(row) for row in tokens}

    def continued_by(self, tokens: list[tuple[int, ...]]) -> bool:
        if len(tokens) != len(self._padded) or len(tokens[0]) < self.width:
            return False
        for row, prompt in zip(tokens, self._padded, strict=True):
            if row[: self.width] != prompt:
                return False
            if len(row) > self.width and hash(row[:-1]) not in self._seen:
                return False
        return True

    def rows(self, tokens: list[tuple[int, ...]]) -> list[Row]:
        self._seen.update(map(hash, tokens))
        return [
            Row(prompt, row[self.width :], index, inputs)
            for row, prompt, index, inputs in zip(tokens, self._prompts, self._indices, self._inputs, strict=True)
        ]


class ConstraintRows:
    """Matchers found by tokens: which tokens a constraint allows after each row.

    Args: constraint a compiled grammar for all rows, or one per prompt.
    """

    def __init__(self, constraint: Any) -> None:
        self._compiled = list(constraint) if isinstance(constraint, Sequence) else [constraint]
        self._matchers: OrderedDict[tuple[int, tuple[int, ...]], Any] = OrderedDict()

    @property
    def count(self) -> int:
        """Number of grammars."""
        return len(self._compiled)

    def reset(self) -> None:
        """Forget all matchers."""
        self._matchers.clear()

    def legal(self, rows: Sequence[Row], vocab: int, device: torch.device) -> Tensor:
        """bool (rows, vocab). Rows that have ended or left the language allow everything."""
        mask = allocate_token_bitmask(len(rows), vocab)
        free = []
        for index, row in enumerate(rows):
            matcher = self._matcher(row)
            if matcher is None or matcher.is_terminated:
                free.append(index)
            else:
                own = allocate_token_bitmask(1, self._compiled_for(row).vocabulary)
                matcher.fill_next_token_bitmask(own, 0)
                words = min(own.shape[1], mask.shape[1])
                mask[index] = 0
                mask[index, :words] = own[0, :words]
        while len(self._matchers) > 4 * len(rows) + 64:
            self._matchers.popitem(last=False)
        allowed = unpack_token_bitmask(mask, vocab, device=device)
        assert isinstance(allowed, Tensor)
        if free:
            allowed[torch.tensor(free, device=device)] = True
        return allowed

    def _compiled_for(self, row: Row) -> Any:
        return self._compiled[0 if len(self._compiled) == 1 else row.prompt_index]

    def _matcher(self, row: Row) -> Any:
        owner = 0 if len(self._compiled) == 1 else row.prompt_index
        key = owner, row.generated
        if key in self._matchers:
            self._matchers.move_to_end(key)
            return self._matchers[key]
        matcher, known = None, 0
        for known in range(len(row.generated) - 1, -1, -1):
            parent = owner, row.generated[:known]
            if parent in self._matchers:
                matcher = self._matchers[parent]
                matcher = None if matcher is None else matcher.fork()
                break
        else:
            matcher, known = self._compiled_for(row).matcher(), 0
        if matcher is not None and not all(matcher.accept_token(token) for token in row.generated[known:]):
            matcher = None
        self._matchers[key] = matcher
        return matcher


def _encoders(model: Any) -> list[Any]:
    """The parts of a model that read what is not the decoder's text; `generate` runs them before the first pass."""
    if getattr(model.config, "is_encoder_decoder", False):
        return [model.get_encoder()]
    found: list[Any] = []
    for module in model.modules():  # parents come before their children
        reads_other = getattr(module, "main_input_name", "input_ids") in (
            "pixel_values",
            "input_features",
            "input_values",
        )
        if module is not model and reads_other and not any(module in set(outer.modules()) for outer in found):
            found.append(module)
    return found


def _encoder(tokenizer: Any) -> Any:
    return lambda text: tokenizer(text)["input_ids"]


def _leading_padding(row: tuple[int, ...], model: Any) -> int:
    """Pad tokens at the left of a prompt nobody showed us a mask for, as `generate` itself would infer them."""
    config = getattr(model, "generation_config", model.config)
    pad, end = getattr(config, "pad_token_id", None), getattr(config, "eos_token_id", None)
    if model.config.is_encoder_decoder or pad is None or pad in (end if isinstance(end, list) else [end]):
        return 0
    return next((index for index, token in enumerate(row) if token != pad), 0)


def _row_inputs(tokens: list[tuple[int, ...]], paddings: list[int], prefill: _Prefill | None) -> list[RowInputs | None]:
    """What besides tokens belongs to each row's prompt. Rows of one prompt share one object, so their states are
    shared."""
    if prefill is None:
        return [None] * len(tokens)
    content = {name: value for name, value in prefill.kwargs.items() if name not in _NOT_CONTENT and _has_rows(value)}
    outputs = prefill.kwargs.get("encoder_outputs")
    if outputs is not None:
        mask = prefill.kwargs.get("attention_mask")
        content = {"encoder_outputs": outputs, **({} if mask is None else {"attention_mask": mask})}
    if not content and not prefill.source:
        return [None] * len(tokens)
    made: list[RowInputs] = []
    for index, row in enumerate(tokens):
        tensors = {name: _row(value, index, len(tokens), len(row), paddings[index]) for name, value in content.items()}
        for name, value in prefill.source.items():
            tensors.setdefault(name, _row(value, index, len(tokens), -1, 0))
        length = 0 if outputs is not None else len(row) - paddings[index]
        # Rows of one prompt follow each other.
        again = bool(made) and tokens[index - 1] == row and _equal(made[-1].tensors, tensors)
        made.append(made[-1] if again else RowInputs(tensors, length))
    return list(made)


def _has_rows(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0


def _row(value: Any, index: int, rows: int, width: int, padding: int) -> Any:
    """Row `index` of a batched input, with batch 1; per-token inputs lose the row's padding."""
    if not isinstance(value, Tensor):
        return type(value)(last_hidden_state=_row(value[0], index, rows, -1, 0))
    if rows % value.shape[0]:
        raise ValueError(f"cannot tell which of {value.shape[0]} inputs belong to row {index} of {rows}")
    index = index * value.shape[0] // rows  # the encoder ran before rows were repeated for beams
    row = value[index : index + 1]
    return row[:, padding:] if value.ndim == 2 and value.shape[1] == width and padding else row


def _equal(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    def same(x: Any, y: Any) -> bool:
        if isinstance(x, Tensor):
            return bool(torch.equal(x, y))
        return bool(torch.equal(x[0], y[0]))

    return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
