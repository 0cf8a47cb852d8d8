"""Evaluate streams: one forward pass per model for all of them, with a key-value cache that is looked up by tokens.

The problem. Guidance evaluates prefixes chosen by somebody else: beams are reordered, drafts are rejected, a stream
is skipped for a while, one processor object serves many prompts. A cache that advances with a counter is wrong for
all of these, and wrong silently.

The idea. A cached row *is* the token sequence it was computed from. To evaluate a prefix, look for the cached row
that shares the longest prefix with it, keep that many of its slots, and feed the rest:

    cached      [a b c d]                [a b c]              [a b]
    wanted      [a b c e]                [a b c x]            [a b c d e]
    reuse       a b c, feed e            a b c, feed x        a b, feed c d e in one pass
                (draft rejected)         (plain decoding)     (stream had been skipped)

A beam reorder is a row gather, `num_return_sequences` a row gathered twice, a new prompt shares nothing and is
prefilled.

Rows of different lengths share one rectangular cache. A rejected or padded slot is not moved, it is *masked*: attention
masks hide it and explicit position ids keep counting the row's own tokens. Slots that no row needs at the end are cut
off, and when masked slots outnumber the used ones the rows are compacted.

Models for which a masked slot in the middle is not invisible (sliding windows, relative positions by slot, recurrent
states, encoder-decoders, images in the prompt) are *rigid*: their rows are grouped by prompt length so that no hole
arises, and a prefix that would need one is recomputed from its first token. That is slower and never wrong.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from guiderail.guidance.perturbation import Perturbation, decoder_layers, perturbed_rows
from guiderail.guidance.streams import RowInputs
from guiderail.logits.combination import log_probabilities

_MIN_REMEMBERED = 64
_COMPACT_ABOVE = 64
# Sizes of fixed caches are multiples of this: prompts of similar length share compiled code.
_ROUND_ROOM_TO = 64


@dataclass(frozen=True, slots=True)
class Request:
    """One prefix to evaluate: all its tokens, prompt first. Equal requests are evaluated once.

    `owner` says whose rows these are. It changes no result: cached rows of owners that ask for nothing this time are
    set aside instead of dropped.
    """

    tokens: tuple[int, ...]
    prompt_length: int
    inputs: RowInputs | None = None
    perturbation: Perturbation | None = None
    with_likelihood: bool = False
    early_layers: tuple[int, ...] = ()
    owner: Any = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a stream says after a prefix.

    Args:
        logits: (vocab,), the model's dtype.
        log_likelihood: sum of log p over all tokens but the first (0.0 unless the request asked for it).
        early_logits: (layers, vocab) or None.
    """

    logits: Tensor
    log_likelihood: float = 0.0
    early_logits: Tensor | None = None


@dataclass(slots=True)
class RunnerCounts:
    """What the evaluations cost; the benchmark's and the tests' evidence.

    Args:
        passes: forward passes of the model. rows: rows in them. tokens: positions computed. prefills: passes from
            nothing. shared: passes somebody else ran anyway, in which rows of ours were computed too.
    """

    passes: int = 0
    rows: int = 0
    tokens: int = 0
    prefills: int = 0
    shared: int = 0


class FixedStates(Protocol):
    """Caches of a fixed size: every decoding pass has the same shapes, so that it can be compiled or captured."""

    def cache(self, model: Any, slots: int) -> Any:
        """An empty cache with room for this many tokens per row."""

    def call(self, model: Any, inputs: dict[str, Any]) -> Any:
        """One decoding pass (one new token per row), compiled or not. Its output must not be overwritten by the
        next."""


_Key = tuple[RowInputs | None, Perturbation | None]


@dataclass(slots=True)
class _CachedRow:
    key: _Key
    owner: Any
    tokens: tuple[int, ...]
    slots: list[int]
    log_probs: list[float] | None
    last_logits: Tensor | None

    def copy(self) -> _CachedRow:
        return replace(self, slots=list(self.slots))


@dataclass(slots=True)
class _Batch:
    """A rectangular cache. `mask` (rows, slots): 1 where a slot holds a token of its row; None: all of them do."""

    cache: Any = None
    rows: list[_CachedRow] = field(default_factory=list)
    slot_count: int = 0
    room: int = 0
    mask: Tensor | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def full_mask(self, device: torch.device) -> Tensor:
        if self.mask is not None:
            return self.mask
        return torch.ones(len(self.rows), self.slot_count, dtype=torch.long, device=device)


@dataclass(slots=True)
class _Block:
    """What one pass feeds: the new tokens of every row, right-aligned. `mask` (rows, slots with the new ones) or None:
    no hole and no padding."""

    ids: Tensor
    new: list[list[int]]
    pads: list[int]
    mask: Tensor | None
    positions: Tensor | None


@dataclass(slots=True)
class GuestRows:
    """Rows of a runner that a pass run by somebody else can compute as well, one token each.

    Args:
        ids, positions: int64 (rows, 1). mask: int64 (rows, slots + 1). cache: the states of these rows before the pass;
            afterwards they must hold one slot more.
        finish: to be called with the logits (rows, 1, vocab) of these rows.
    """

    ids: Tensor
    positions: Tensor
    mask: Tensor
    cache: Any
    finish: Callable[[Tensor], None]


@dataclass(slots=True)
class _Parked:
    """Rows set aside with their states: (keys, values) per layer, all of `slots` width."""

    rows: list[_CachedRow]
    mask: Tensor
    states: list[tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class _Plan:
    parent: int
    reuse: int


class StreamRunner:
    """Evaluates prefixes on one model.

    Not thread-safe; a runner belongs to one decoding loop. `reset()` forgets everything, which is needed only if the
    model's weights change: cached states are found by tokens and cannot be mistaken for those of another text.

    Args: fixed: keep states in caches of a fixed size. Raises: ValueError for a rigid model, see the header.
    """

    def __init__(self, model: Any, fixed: FixedStates | None = None) -> None:
        self.model = model
        self.counts = RunnerCounts()
        self.is_running = False
        parameters = inspect.signature(model.forward).parameters
        self._accepts = frozenset(parameters)
        config = getattr(model, "config", None)
        self.is_encoder_decoder = bool(getattr(config, "is_encoder_decoder", False))
        self._rigid = (
            self.is_encoder_decoder or "position_ids" not in self._accepts or not _attends_to_everything(config)
        )
        if fixed is not None and self._rigid:
            raise ValueError(f"{type(model).__name__} does not attend to every slot: no cache of a fixed size for it")
        self._fixed = fixed
        self._room = 0
        self._batches: dict[Any, _Batch] = {}
        self._parked: dict[Any, _Parked] = {}
        self._capacity = _MIN_REMEMBERED
        self._remembered: OrderedDict[Request, Evaluation] = OrderedDict()
        self._encoded: dict[RowInputs, tuple[Any, Tensor, Tensor]] = {}
        self._known_device: torch.device | None = None

    def reset(self) -> None:
        """Forget all cached states and results."""
        self._batches.clear()
        self._parked.clear()
        self._remembered.clear()
        self._encoded.clear()
        self._known_device = None

    def forget(self, owners: Collection[Any]) -> None:
        """Drop cached rows of these owners, for a loop in which sequences come and go. Changes no result."""
        gone = set(owners)
        for group, parked in list(self._parked.items()):
            stay = [index for index, row in enumerate(parked.rows) if row.owner not in gone]
            if not stay:
                del self._parked[group]
            elif len(stay) < len(parked.rows):
                self._parked[group] = _selected(parked, stay)
        for group, batch in list(self._batches.items()):
            stay = [index for index, row in enumerate(batch.rows) if row.owner not in gone]
            layers = _plain_layers(batch.cache) if batch.cache is not None else None
            if not stay:
                del self._batches[group]
            elif len(stay) < len(batch.rows) and layers is not None and not batch.extra:
                states = [(layer.keys, layer.values) for layer in layers]
                kept = _selected(_Parked(batch.rows, batch.full_mask(self._device()), states), stay)
                batch.rows, batch.mask = kept.rows, kept.mask
                for layer, (keys, values) in zip(layers, kept.states, strict=True):
                    layer.keys, layer.values = keys, values

    def remember(self, results: int) -> None:
        """Keep at least this many results; a loop that asks again for what it drafted says how much that is."""
        self._capacity = max(self._capacity, results)

    def reserve(self, tokens: int) -> None:
        """How far rows will grow: what caches of a fixed size leave room for."""
        self._room = tokens

    def evaluate(self, requests: Sequence[Request]) -> list[Evaluation]:
        """Next-token logits for every request, in order.

        Requests already answered recently cost nothing; the others go through the model together, one forward pass
        per group of rows that can share a cache (all of them, for an ordinary text model).

        Raises: ValueError if a request has no tokens.
        """
        unique = list(dict.fromkeys(requests))
        missing = [request for request in unique if request not in self._remembered]
        groups: dict[Any, list[Request]] = {}
        for request in missing:
            if not request.tokens:
                raise ValueError("a stream needs at least one token before the first generated one")
            groups.setdefault(self._group_of(request), []).append(request)
        found = {request: self._remembered[request] for request in unique if request in self._remembered}
        for group, members in groups.items():
            for request, evaluation in zip(members, self._run_group(group, members), strict=True):
                found[request] = self._remembered[request] = evaluation
        for request in unique:
            self._remembered.move_to_end(request)
        while len(self._remembered) > max(self._capacity, 2 * len(unique)):
            self._remembered.popitem(last=False)
        return [found[request] for request in requests]

    def _group_of(self, request: Request) -> Any:
        names = frozenset(request.inputs.tensors) if request.inputs is not None else frozenset()
        encoded = request.inputs is not None and request.inputs.encoder_tokens is not None
        if self._rigid or names:
            return names, encoded, request.prompt_length
        return names, encoded, None

    def _run_group(self, group: Any, requests: list[Request]) -> list[Evaluation]:
        chains = _chains(requests)
        answers: dict[Request, Evaluation] = {}
        rigid = self._rigid or bool(group[0])
        lengths = {len(chain[0].tokens) for chain in chains}
        if rigid and len(lengths) > 1:
            # No rectangle without holes: evaluate each length on its own, and keep none of it.
            for length in sorted(lengths):
                same = [chain for chain in chains if len(chain[0].tokens) == length]
                self._forward(_Batch(), same, [_Plan(0, 0)] * len(same), rigid, answers)
            return [answers[request] for request in requests]
        batch, plans = self._planned(group, chains, rigid)
        reused = sum(plan.reuse for plan in plans)
        wanted = sum(len(chain[0].tokens) for chain in chains)
        uniform = len({plan.reuse for plan in plans}) == 1
        # Feeding nearly everything into an old rectangle would only widen it.
        fits = (
            batch.slot_count + max(len(c[0].tokens) - p.reuse for c, p in zip(chains, plans, strict=True)) <= batch.room
        )
        worthwhile = (
            (self._fixed is None or fits)
            and reused > 0
            and (uniform if rigid else 2 * reused >= wanted or len(plans) == 1)
        )
        if not worthwhile or not _keep_rows(batch, plans, rigid, self._device()):
            batch, plans = _Batch(), [_Plan(0, 0)] * len(chains)
        self._batches[group] = self._forward(batch, chains, plans, rigid, answers)
        return [answers[request] for request in requests]

    def _planned(self, group: Any, chains: list[list[Request]], rigid: bool) -> tuple[_Batch, list[_Plan]]:
        batch = self._batches.get(group, _Batch())
        if not rigid:
            self._park_and_recall(group, batch, {chain[0].owner for chain in chains})
        return batch, [_plan(batch, chain) for chain in chains]

    def as_guests(self, requests: Sequence[Request]) -> GuestRows | None:
        """Prepare requests for a pass of this model that somebody else is about to run.

        None, and nothing has happened, unless each of them is one token away from a cached row of a cache that other
        rows can be joined to. Afterwards `evaluate` finds the answers without a pass.
        """
        missing = [request for request in dict.fromkeys(requests) if request not in self._remembered]
        group = (frozenset[str](), False, None)
        if not missing or self._rigid or any(self._group_of(request) != group for request in missing):
            return None
        if any(r.perturbation is not None or r.with_likelihood or r.early_layers or not r.tokens for r in missing):
            return None
        chains = _chains(missing)
        if any(len(chain) > 1 for chain in chains):
            return None
        batch, plans = self._planned(group, chains, rigid=False)
        if any(plan.reuse != len(chain[0].tokens) - 1 for plan, chain in zip(plans, chains, strict=True)):
            return None
        if not any(plan.reuse for plan in plans) or _plain_layers(batch.cache) is None:
            return None
        if not _keep_rows(batch, plans, False, self._device()):
            return None
        block = self._block(batch, chains, plans)
        mask = torch.ones(len(chains), batch.slot_count + 1, dtype=torch.long, device=block.ids.device)
        positions = torch.tensor([[plan.reuse] for plan in plans], device=block.ids.device)

        def finish(logits: Tensor) -> None:
            self.counts.shared += 1
            self._count(block)
            answers: dict[Request, Evaluation] = {}
            self._absorb(batch, block, chains, plans, logits, None, answers)
            self._remembered.update(answers)

        return GuestRows(block.ids, positions, mask if block.mask is None else block.mask, batch.cache, finish)

    def _park_and_recall(self, group: Any, batch: _Batch, owners: set[Any]) -> None:
        """Set aside the rows of owners that ask for nothing, and bring back those of owners that ask again.

        Only rows whose owner pauses are worth keeping. A beam that lost belongs to an owner that still asks, and goes.
        """
        parked = self._parked.pop(group, None)
        paused = [index for index, row in enumerate(batch.rows) if row.owner not in owners]
        layers = _plain_layers(batch.cache) if batch.cache is not None else None
        if layers is None:
            if parked is not None:
                self._parked[group] = parked
            return
        if paused:
            device = self._device()
            index = torch.tensor(paused, device=device)
            states = [(layer.keys[index], layer.values[index]) for layer in layers]
            fresh = _Parked([batch.rows[i].copy() for i in paused], batch.full_mask(device)[index], states)
            parked = fresh if parked is None else _joined(parked, fresh)
        if parked is None:
            return
        back = [index for index, row in enumerate(parked.rows) if row.owner in owners]
        if not back:
            self._parked[group] = parked
            return
        own = _Parked(batch.rows, batch.full_mask(self._device()), [(layer.keys, layer.values) for layer in layers])
        together = _joined(own, _selected(parked, back))
        batch.rows, batch.mask, batch.slot_count = together.rows, together.mask, int(together.mask.shape[1])
        for layer, (keys, values) in zip(layers, together.states, strict=True):
            layer.keys, layer.values = keys, values
        stay = [index for index, row in enumerate(parked.rows) if row.owner not in owners]
        if stay:
            self._parked[group] = _selected(parked, stay)

    def _forward(
        self,
        batch: _Batch,
        chains: list[list[Request]],
        plans: list[_Plan],
        rigid: bool,
        answers: dict[Request, Evaluation],
    ) -> _Batch:
        """Feed what each row lacks, one row per chain; fill `answers`; return the batch that now holds these rows.

        `batch` holds the parents of these rows, cut to what `plans` reuse.
        """
        leaders = [chain[0] for chain in chains]
        block = self._block(batch, chains, plans)
        inputs: dict[str, Any] = {"use_cache": True}
        if self.is_encoder_decoder:
            inputs["decoder_input_ids"] = block.ids
        else:
            inputs["input_ids"] = block.ids
            if self._fixed is not None and not rigid:
                self._fix(batch, block, plans, inputs)
            # Without a hole the model's own mask and positions are the right ones, and cheaper than being told.
            elif block.mask is not None:
                inputs["attention_mask"] = block.mask
                if not rigid:
                    inputs["position_ids"] = block.positions
        if batch.cache is not None:
            inputs["past_key_values"] = batch.cache
        inputs |= batch.extra if batch.cache is not None else self._extra_inputs(batch, leaders)
        if "logits_to_keep" in self._accepts and not any(leader.with_likelihood for leader in leaders):
            inputs["logits_to_keep"] = max(len(chain[0].tokens) - len(chain[-1].tokens) for chain in chains) + 1
        if any(request.early_layers for chain in chains for request in chain):
            inputs["output_hidden_states"] = True
        self.counts.passes += 1
        self.counts.prefills += not batch.slot_count
        self._count(block)
        plain_step = block.ids.shape[1] == 1 and "output_hidden_states" not in inputs and not rigid
        output = self._call(inputs, [leader.perturbation for leader in leaders], plain_step)
        batch.cache = getattr(output, "past_key_values", None)
        self._absorb(batch, block, chains, plans, output.logits, output, answers)
        # A cache that cannot be addressed by tokens is not kept; the next pass starts from nothing.
        return batch if _is_one_slot_per_token(batch.cache, batch.slot_count) else _Batch()

    def _block(self, batch: _Batch, chains: list[list[Request]], plans: list[_Plan]) -> _Block:
        device = self._device()
        leaders = [chain[0] for chain in chains]
        new = [list(leader.tokens[plan.reuse :]) for leader, plan in zip(leaders, plans, strict=True)]
        width = max(len(tokens) for tokens in new)
        pads = [width - len(tokens) for tokens in new]
        ids = torch.tensor([[0] * pad + tokens for pad, tokens in zip(pads, new, strict=True)], device=device)
        if all(batch.slot_count + width == len(leader.tokens) for leader in leaders):
            return _Block(ids, new, pads, None, None)
        fresh = torch.ones_like(ids)
        for index, pad in enumerate(pads):
            if pad:
                fresh[index, :pad] = 0
        mask = fresh if not batch.slot_count else torch.cat([batch.full_mask(device), fresh], dim=1)
        ends = [(plan.reuse, len(leader.tokens)) for plan, leader in zip(plans, leaders, strict=True)]
        positions = [[0] * pad + list(range(*end)) for pad, end in zip(pads, ends, strict=True)]
        return _Block(ids, new, pads, mask, torch.tensor(positions, device=device))

    def _count(self, block: _Block) -> None:
        self.counts.rows += len(block.new)
        self.counts.tokens += sum(map(len, block.new))

    def _absorb(
        self,
        batch: _Batch,
        block: _Block,
        chains: list[list[Request]],
        plans: list[_Plan],
        all_logits: Tensor,
        output: Any,
        answers: dict[Request, Evaluation],
    ) -> None:
        """Read the answers off a pass, and note which tokens the rows of the batch now hold."""
        start, end = batch.slot_count, batch.slot_count + int(block.ids.shape[1])
        rows = []
        for index, (chain, plan) in enumerate(zip(chains, plans, strict=True)):
            leader = chain[0]
            old = batch.rows[index] if batch.rows else None
            logits = all_logits[index]
            log_probs = None
            if leader.with_likelihood:
                log_probs = _token_log_probs(logits[block.pads[index] :], leader.tokens, plan.reuse, old)
            for request in chain:
                back = len(leader.tokens) - len(request.tokens) + 1
                likelihood = 0.0 if log_probs is None else sum(log_probs[: len(request.tokens) - 1])
                early = self._early_logits(output, index, back, request.early_layers)
                answers[request] = Evaluation(logits[-back], likelihood, early)
            slots = [*(old.slots[: plan.reuse] if old else []), *range(start + block.pads[index], end)]
            last_logits = None if log_probs is None else logits[-1]
            rows.append(_CachedRow(_key(leader), leader.owner, leader.tokens, slots, log_probs, last_logits))
        batch.rows, batch.slot_count, batch.mask = rows, end, block.mask

    def _device(self) -> torch.device:
        if self._known_device is None:  # a property that walks the model's modules; models move between calls only
            self._known_device = self.model.device
        return self._known_device

    def _fix(self, batch: _Batch, block: _Block, plans: list[_Plan], inputs: dict[str, Any]) -> None:
        """Give a pass its cache of a fixed size, and a mask of that size."""
        assert self._fixed is not None
        used = batch.slot_count + int(block.ids.shape[1])
        if batch.cache is None:
            batch.room = -(-(used + self._room) // _ROUND_ROOM_TO) * _ROUND_ROOM_TO
            batch.cache = self._fixed.cache(self.model, batch.room)
        mask = block.mask
        if mask is None:
            mask = torch.ones(len(block.new), used, dtype=torch.long, device=block.ids.device)
        inputs["attention_mask"] = torch.nn.functional.pad(mask, (0, batch.room - used))
        positions = block.positions
        if positions is None:
            ends = [(plan.reuse, plan.reuse + len(tokens)) for plan, tokens in zip(plans, block.new, strict=True)]
            positions = torch.tensor([list(range(*end)) for end in ends], device=block.ids.device)
        inputs["position_ids"] = positions

    def _call(self, inputs: dict[str, Any], perturbations: list[Perturbation | None], plain_step: bool) -> Any:
        self.is_running = True
        try:
            with torch.no_grad(), perturbed_rows(self.model, perturbations):
                if self._fixed is not None and plain_step and not any(perturbations):
                    return self._fixed.call(self.model, {**inputs, "return_dict": True})
                return self.model(**inputs, return_dict=True)
        finally:
            self.is_running = False

    def _early_logits(self, output: Any, row: int, back: int, layers: tuple[int, ...]) -> Tensor | None:
        if not layers:
            return None
        head, norm = self.model.get_output_embeddings(), _final_norm(self.model)
        hidden = torch.stack([output.hidden_states[layer][row, -back] for layer in layers])
        with torch.no_grad():
            logits = head(norm(hidden))
        assert isinstance(logits, Tensor)
        return logits

    def _extra_inputs(self, batch: _Batch, requests: list[Request]) -> dict[str, Any]:
        """Inputs besides tokens for a prefill; those every later pass needs too stay in `batch.extra`."""
        if self.is_encoder_decoder:
            batch.extra = self._encoder_inputs(requests)
            return batch.extra
        rows = [dict(request.inputs.tensors) if request.inputs is not None else {} for request in requests]
        stacked = {name: _stack([row[name] for row in rows]) for name in rows[0]}
        # Cross-attention inputs of a decoder on its own (captioners) are read at every pass, images only at the first.
        batch.extra = {name: value for name, value in stacked.items() if name.startswith("encoder_")}
        return stacked

    def _encoder_inputs(self, requests: list[Request]) -> dict[str, Any]:
        encoded = [self._encode(request.inputs) for request in requests]
        longest = max(states.shape[1] for _, states, _ in encoded)
        kind = encoded[0][0]
        states = torch.cat([_pad_to(states, longest) for _, states, _ in encoded])
        mask = torch.cat([_pad_to(mask, longest) for _, _, mask in encoded])
        inputs: dict[str, Any] = {"encoder_outputs": kind(last_hidden_state=states)}
        if "attention_mask" in self._accepts:
            inputs["attention_mask"] = mask
        return inputs

    def _encode(self, inputs: RowInputs | None) -> tuple[Any, Tensor, Tensor]:
        """Encoder states (1, length, width) and their mask (1, length), computed once per source."""
        if inputs is None:
            raise ValueError("an encoder-decoder stream needs a source")
        if inputs not in self._encoded:
            given = dict(inputs.tensors)
            device = self.model.device
            outputs = given.pop("encoder_outputs", None)
            mask = given.pop("attention_mask", None)
            if outputs is None:
                if inputs.encoder_tokens is None and not given:
                    raise ValueError(
                        "an encoder-decoder stream needs a source, and only the guided model's states are known"
                    )
                if inputs.encoder_tokens is not None:
                    given["input_ids"] = torch.tensor([inputs.encoder_tokens], device=device)
                    mask = torch.ones_like(given["input_ids"])
                self.is_running = True
                try:
                    with torch.no_grad():
                        source_mask = {"attention_mask": mask} if mask is not None else {}
                        outputs = self.model.get_encoder()(**given, **source_mask, return_dict=True)
                finally:
                    self.is_running = False
            states = outputs[0]
            if mask is None:
                mask = torch.ones(states.shape[:2], dtype=torch.long, device=states.device)
            self._encoded[inputs] = (type(outputs), states, mask)
        return self._encoded[inputs]


def _key(request: Request) -> _Key:
    return request.inputs, request.perturbation


def _common_prefix(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    low, high = 0, min(len(a), len(b))
    while low < high:  # slices compare in C; a Python loop over 4 000 tokens would cost more than the mask
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _chains(requests: list[Request]) -> list[list[Request]]:
    """Requests grouped so that each is a prefix of its group's first: one row answers them all, at several
    positions."""
    chains: list[list[Request]] = []
    for request in sorted(requests, key=lambda request: -len(request.tokens)):
        for chain in chains:
            leader = chain[0]
            if (
                _key(leader) == _key(request)
                and leader.prompt_length == request.prompt_length
                and leader.with_likelihood == request.with_likelihood
                and leader.tokens[: len(request.tokens)] == request.tokens
            ):
                chain.append(request)
                break
        else:
            chains.append([request])
    return chains


def _plan(batch: _Batch, chain: list[Request]) -> _Plan:
    """The cached row that shares most with a chain's longest prefix.

    At least the last token of the shortest prefix is fed again: its logits are wanted.
    """
    leader, limit = chain[0], len(chain[-1].tokens) - 1
    best = _Plan(0, 0)
    for index, row in enumerate(batch.rows):
        if row.key != _key(leader):
            continue
        shared = _common_prefix(row.tokens, leader.tokens)
        reuse = min(shared, limit)
        if leader.with_likelihood:
            if row.log_probs is None:
                continue
            # What predicts the first token fed is the position before it, whose logits are kept only at a row's end.
            # Elsewhere one more known token is fed again.
            if reuse < len(row.tokens):
                reuse = min(max(shared - 1, 0), limit)
        if leader.inputs is not None and reuse < leader.inputs.prompt_length:
            reuse = 0
        if reuse > best.reuse:
            best = _Plan(index, reuse)
    return best


def _selected(parked: _Parked, indices: list[int]) -> _Parked:
    index = torch.tensor(indices, device=parked.mask.device)
    states = [(keys[index], values[index]) for keys, values in parked.states]
    return _Parked([parked.rows[i] for i in indices], parked.mask[index], states)


def _joined(a: _Parked, b: _Parked) -> _Parked:
    """Rows of two rectangles in one: the narrower gets masked slots at its left, so every row keeps its order."""
    width = max(a.mask.shape[1], b.mask.shape[1])

    def widened(part: _Parked) -> _Parked:
        missing = width - part.mask.shape[1]
        if not missing:
            return part
        rows = [replace(row, slots=[slot + missing for slot in row.slots]) for row in part.rows]
        pad = torch.nn.functional.pad
        states = [(pad(keys, (0, 0, missing, 0)), pad(values, (0, 0, missing, 0))) for keys, values in part.states]
        return _Parked(rows, pad(part.mask, (missing, 0)), states)

    a, b = widened(a), widened(b)
    states = [(torch.cat([x[0], y[0]]), torch.cat([x[1], y[1]])) for x, y in zip(a.states, b.states, strict=True)]
    return _Parked([*a.rows, *b.rows], torch.cat([a.mask, b.mask]), states)


def _keep_rows(batch: _Batch, plans: list[_Plan], rigid: bool, device: torch.device) -> bool:
    """Turn the cached rows into the parents of the wanted ones. False if this cache cannot (the caller starts
    afresh)."""
    parents = [plan.parent for plan in plans]
    rows = [batch.rows[parent] for parent in parents]
    whole = batch.mask is None and all(plan.reuse == len(row.tokens) for row, plan in zip(rows, plans, strict=True))
    if not whole and batch.mask is None:
        batch.mask = batch.full_mask(device)
    if parents != list(range(len(batch.rows))):
        index = torch.tensor(parents, device=device)
        if _static_layers(batch.cache) is not None:
            batch.cache.reorder_cache(index)  # selects rows; what static layers call it
        else:
            batch.cache.batch_select_indices(index)
        batch.mask = None if batch.mask is None else batch.mask[index]
        batch.extra = {name: _select(value, index) for name, value in batch.extra.items()}
    elif batch.mask is not None:
        batch.mask = batch.mask.clone()
    for position, (row, plan) in enumerate(zip(rows, plans, strict=True)):
        if batch.mask is not None and plan.reuse < len(row.tokens):
            batch.mask[position, row.slots[plan.reuse :]] = 0
    batch.rows = [
        _CachedRow(
            row.key,
            row.owner,
            row.tokens[: plan.reuse],
            row.slots[: plan.reuse],
            row.log_probs[: plan.reuse] if row.log_probs is not None else None,
            row.last_logits if plan.reuse == len(row.tokens) else None,
        )
        for row, plan in zip(rows, plans, strict=True)
    ]
    used = max(row.slots[-1] + 1 if row.slots else 0 for row in batch.rows)
    surplus = batch.slot_count - used
    if surplus:
        if not _cut(batch.cache, used):
            return False
        batch.slot_count = used
        batch.mask = None if batch.mask is None else batch.mask[:, :used]
    longest = max(len(row.slots) for row in batch.rows)
    if all(len(row.slots) == batch.slot_count for row in batch.rows):
        batch.mask = None
    if rigid:
        return used == longest and all(len(row.slots) == longest for row in batch.rows)
    if used - longest > max(_COMPACT_ABOVE, longest):
        _compact(batch, longest)
    return True


def _is_one_slot_per_token(cache: Any, width: int) -> bool:
    """Whether a cache can be addressed by tokens: no recurrent state, no image positions of its own."""
    if cache is None or not hasattr(cache, "batch_select_indices"):
        return False
    linear = getattr(cache, "is_linear", None)
    return not (linear and any(linear)) and bool(cache.get_seq_length() == width)


def _self_attention_cache(cache: Any) -> Any:
    return getattr(cache, "self_attention_cache", cache)


def _plain_layers(cache: Any) -> list[Any] | None:
    """The layers of a cache whose slots are exactly its tokens, or None."""
    layers = getattr(_self_attention_cache(cache), "layers", None)
    if layers is None:
        return None
    plain = [
        layer
        for layer in layers
        if isinstance(getattr(layer, "keys", None), Tensor)
        and isinstance(getattr(layer, "values", None), Tensor)
        and not getattr(layer, "is_sliding", False)
        and type(layer).__name__ == "DynamicLayer"
    ]
    return plain if len(plain) == len(layers) else None


def _static_layers(cache: Any) -> list[Any] | None:
    """The layers of a cache of a fixed size, or None."""
    layers = getattr(cache, "layers", None)
    if not layers or any(type(layer).__name__ != "StaticLayer" for layer in layers):
        return None
    return list(layers)


def _cut(cache: Any, slots: int) -> bool:
    for layer in _static_layers(cache) or ():
        layer.cumulative_length.fill_(slots)
    if _static_layers(cache) is not None:
        return True
    layers = _plain_layers(cache)
    if layers is None:
        return False
    for layer in layers:
        layer.keys = layer.keys[..., :slots, :]
        layer.values = layer.values[..., :slots, :]
    return True


def _compact(batch: _Batch, longest: int) -> None:
    """Move every row's used slots to the right end of a narrower cache. Keys carry their positions, so order is all
    that counts."""
    layers = _plain_layers(batch.cache)
    if layers is None or batch.mask is None:
        return
    order = torch.tensor([[0] * (longest - len(row.slots)) + row.slots for row in batch.rows], device=batch.mask.device)
    for layer in layers:
        index = order.to(layer.keys.device)[:, None, :, None]
        layer.keys = layer.keys.gather(2, index.expand(-1, layer.keys.shape[1], -1, layer.keys.shape[3]))
        layer.values = layer.values.gather(2, index.expand(-1, layer.values.shape[1], -1, layer.values.shape[3]))
    batch.slot_count = longest
    batch.mask = torch.zeros_like(order)
    for position, row in enumerate(batch.rows):
        row.slots = list(range(longest - len(row.slots), longest))
        batch.mask[position, row.slots] = 1


def _token_log_probs(logits: Tensor, tokens: tuple[int, ...], reuse: int, old: _CachedRow | None) -> list[float]:
    """log p of every token after the first (entry i belongs to token i + 1). `logits` are those of tokens[reuse:]."""
    predictions = logits[:-1]
    if reuse == 0 or old is None or old.log_probs is None:
        known, targets = [], tokens[1:]
    elif old.last_logits is not None:
        known, targets = old.log_probs[: reuse - 1], tokens[reuse:]
        predictions = torch.cat([old.last_logits[None], predictions])
    else:  # tokens[reuse] is a known token fed again, see `_plan`
        known, targets = old.log_probs[:reuse], tokens[reuse + 1 :]
    if not targets:
        return list(known)
    rows = log_probabilities(predictions)
    picked = rows.gather(-1, torch.tensor(targets, device=rows.device)[:, None]).squeeze(-1)
    return [*known, *picked.clamp(min=-1e4).tolist()]


def _attends_to_everything(config: Any) -> bool:
    """Whether every layer sees every earlier token, so that a masked slot changes nothing."""
    if config is None:
        return False
    if hasattr(config, "get_text_config"):
        config = config.get_text_config(decoder=True)
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        return all(kind == "full_attention" for kind in kinds)
    if "local" in (getattr(config, "attention_layers", None) or ()):
        return False
    return getattr(config, "sliding_window", None) is None and not getattr(config, "alibi", False)


def _final_norm(model: Any) -> Any:
    """The normalisation before the output head; found next to the decoder layers."""
    layers = decoder_layers(model)
    for module in model.modules():
        if any(child is layers for child in module.children()):
            for name in ("norm", "final_layernorm", "final_layer_norm", "ln_f"):
                if getattr(module, name, None) is not None:
                    return getattr(module, name)
    raise TypeError(f"cannot find the final normalisation of {type(model).__name__}")


def _stack(values: list[Any]) -> Any:
    if isinstance(values[0], Tensor):
        return torch.cat(values)
    if any(value != values[0] for value in values[1:]):
        raise ValueError(f"inputs of one forward pass must agree, got {values}")
    return values[0]


def _select(value: Any, index: Tensor) -> Any:
    if isinstance(value, Tensor):
        return value[index.to(value.device)]
    if hasattr(value, "last_hidden_state"):
        return type(value)(last_hidden_state=value.last_hidden_state[index.to(value.last_hidden_state.device)])
    return value


def _pad_to(tensor: Tensor, length: int) -> Tensor:
    missing = length - tensor.shape[1]
    if not missing:
        return tensor
    return torch.cat([tensor, tensor.new_zeros((tensor.shape[0], missing, *tensor.shape[2:]))], dim=1)
