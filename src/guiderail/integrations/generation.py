"""Our own decoding loop: guidance and constraints together, with the passes that neither needs left out.

    text = generate(model, tokenizer, "Name a city:", guidance=[ClassifierFree(1.5)], constraint=compiled)

Inside `model.generate` a logits processor sees one step at a time and cannot skip the model. Here the loop is ours:

  * All streams of one model, the conditional one included, are rows of one forward pass.
  * Where the constraint leaves one token there is nothing to score: the token is appended, no model runs, and the
  skipped tokens
    are caught up in the next pass as a block (a prefill of a few tokens costs what one token costs).
  * Speculative guidance: drafts cost less than a guided pass for each token. The conditional stream drafts a few tokens
    alone, or they are looked up in the prompt and the constraint; all streams then read the whole draft in one pass,
    and rejection sampling keeps a prefix of it. The result is distributed exactly as if every token had been guided
    (Leviathan et al. 2023, arXiv:2211.17192, with the guided distribution as target and the conditional one, or a
    certain guess, as proposal). Under greedy decoding both distributions are points and the rule keeps the draft up
    to the first difference.

Order of a step, see architecture: streams -> combination -> plausibility -> repetition penalty -> grammar mask ->
temperature -> top-k, top-p, min-p -> sample. Sampling draws from a `torch.Generator`, so that a seed means the same
run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from guiderail.compiled import compile
from guiderail.errors import DeadEndError, LimitError
from guiderail.grammars.grammar import Grammar
from guiderail.guidance.engine import GuidanceEngine
from guiderail.guidance.streams import Row, RowInputs
from guiderail.guidance.terms import Sum, Term
from guiderail.healing import free_text, heal
from guiderail.integrations.static_states import StaticStates
from guiderail.logits.bitmask import allocate_token_bitmask, unpack_token_bitmask
from guiderail.logits.sampling import Sampling
from guiderail.vocabulary import Vocabulary

OnTokens = Callable[[int, list[int]], None]
"""Called as soon as tokens of a sequence are final: (index of the sequence, its new token ids, several after a
jump)."""


@dataclass(slots=True)
class Generation:
    """One finished sequence.

    Args:
        token_ids: without the end token. finish_reason: "end" (end token, or the constraint is complete) or "length".
        text: decoded; with a constraint, the exact bytes of its vocabulary.
        forced: how many of the tokens no model was asked for.
    """

    token_ids: list[int] = field(default_factory=list)
    finish_reason: Literal["end", "length"] = "length"
    text: str = ""
    forced: int = 0


@dataclass(slots=True)
class DecodingCounts:
    """What a decoding run cost, over all sequences.

    Args: steps rounds of the loop; forced tokens appended without a model; drafted and accepted tokens of speculation.
    """

    steps: int = 0
    forced: int = 0
    drafted: int = 0
    accepted: int = 0


@dataclass(slots=True)
class _Live:
    """A sequence in the making."""

    index: int
    prompt: tuple[int, ...]
    prompt_index: int
    inputs: RowInputs | None
    matcher: Any
    tokens: list[int] = field(default_factory=list)
    finish_reason: Literal["end", "length"] | None = None
    forced: int = 0

    def row(self, extra: Sequence[int] = ()) -> Row:
        return Row(self.prompt, (*self.tokens, *extra), self.prompt_index, self.inputs)


class GuidedDecoder:
    """The loop, for token ids in and token ids out.

    Args:
        model: a causal or encoder-decoder model. guidance: a term, or several to be added; empty for none.
        constraint: a compiled grammar, or one per prompt. sampling: how tokens are drawn.
        eos_token_ids: end tokens; None reads the model's. With a constraint its vocabulary's end tokens end a sequence.
        jump_forward: "single" appends a token without asking a model where only one is legal: exactly the masked
            distribution. "canonical" also appends `matcher.forced_tokens()`: longer jumps where bytes are forced but
            their tokenization is not; the tokenizer's own is then taken. "off" asks the model for every token.
        speculate: tokens drafted per round; 0 = off. Exact for any value.
        draft: who drafts. "conditional": the conditional stream alone, one pass of it per token. "lookup": nobody's
            pass; what the constraint forces, in the tokenizer's own spelling, and what followed the last tokens the
            last time they occurred (Saxena 2023, prompt lookup). A wrong draft costs a longer block, no pass.
        close_in_time: tell the constraint the budget, so that every sequence is complete when it is spent
            (`compiled.matcher(max_tokens=...)`). Otherwise a sequence may end with finish_reason "length".
        cache: "dynamic": states grow with the text. "static": a fixed size, so that all decoding passes have the same
            shapes. compile_options: for `torch.compile` of these passes ({} for its defaults); needs a static cache.
        generator: source of random numbers; None = a new one seeded with 0.
        trained_nulls: see `GuidanceEngine`.
    """

    def __init__(
        self,
        model: Any,
        guidance: Term | Sequence[Term] = (),
        constraint: Any = None,
        sampling: Sampling | None = None,
        *,
        eos_token_ids: Sequence[int] | None = None,
        jump_forward: Literal["single", "canonical", "off"] = "single",
        speculate: int = 0,
        draft: Literal["conditional", "lookup"] = "conditional",
        close_in_time: bool = False,
        generator: torch.Generator | None = None,
        encode: Callable[[str], Sequence[int]] | None = None,
        trained_nulls: Iterable[Iterable[str]] | None = None,
        cache: Literal["dynamic", "static"] = "dynamic",
        compile_options: Mapping[str, Any] | None = None,
    ) -> None:
        if cache not in ("dynamic", "static") or (compile_options is not None and cache == "dynamic"):
            raise ValueError(f"cache is 'dynamic' or 'static', and only 'static' can be compiled; got {cache!r}")
        if jump_forward not in ("single", "canonical", "off"):
            raise ValueError(f"jump_forward is 'single', 'canonical' or 'off', got {jump_forward!r}")
        if draft not in ("conditional", "lookup"):
            raise ValueError(f"draft is 'conditional' or 'lookup', got {draft!r}")
        if speculate < 0:
            raise ValueError(f"speculate counts tokens, got {speculate}")
        term = guidance if isinstance(guidance, Term) else Sum(list(guidance))
        self.engine = GuidanceEngine(
            term, model, encode, trained_nulls, None if cache == "dynamic" else StaticStates(compile_options)
        )
        self.sampling = sampling or Sampling()
        self.counts = DecodingCounts()
        self._compiled: list[Any] = []
        if constraint is not None:
            self._compiled = list(constraint) if isinstance(constraint, Sequence) else [constraint]
        own_ends = _end_tokens(model) if eos_token_ids is None else eos_token_ids
        self._eos = frozenset(own_ends).union(*(compiled.vocabulary.eos_token_ids for compiled in self._compiled))
        self._jump = jump_forward
        self._speculate = speculate
        self._draft = draft
        self._close_in_time = close_in_time
        self._generator = generator or torch.Generator(device=model.device).manual_seed(0)

    @property
    def end_token(self) -> int | None:
        """The token that ends a sequence, the smallest if there are several."""
        return min(self._eos, default=None)

    def decode(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int = 256,
        *,
        num_return_sequences: int = 1,
        inputs: Mapping[str, Any] | None = None,
        on_tokens: OnTokens | None = None,
        pending: Sequence[bytes] = (),
    ) -> list[Generation]:
        """Continue every prompt; several times if asked.

        Args:
            prompts: token ids, not padded, lengths may differ. For an encoder-decoder they are the sources.
            max_new_tokens: per sequence; see also `close_in_time`.
            inputs: forward inputs besides tokens (images), batched over prompts.
            on_tokens: see `OnTokens`.
            pending: for each prompt, bytes that were taken off its end (`guiderail.heal`); needs a constraint.
        Returns: `len(prompts) * num_return_sequences` generations, those of a prompt next to each other, without text.
        Raises:
            ValueError: an empty prompt, or constraints that do not fit the prompts.
            DeadEndError: the constraint allows nothing, or only tokens some earlier rule bans.
            LimitError: with `close_in_time`, the constraint cannot be completed within `max_new_tokens`.
        """
        if not prompts or not all(prompts):
            raise ValueError("every prompt needs at least one token")
        if len(self._compiled) not in (0, 1, len(prompts)):
            raise ValueError(f"{len(self._compiled)} constraints for {len(prompts)} prompts")
        if pending and (len(pending) != len(prompts) or not self._compiled):
            raise ValueError(
                "pending bytes are one for each prompt, and need a constraint (healing.free_text if no other)"
            )
        self.engine.reset()
        streams = len(self.engine.term.streams()) + 1
        for runner in {self.engine.runner(model) for model in (None, *(s.model for s in self.engine.term.streams()))}:
            # A draft longer than asked for may be forced; beyond the room the states are computed again.
            runner.reserve(max_new_tokens + self._speculate)
            runner.remember(len(prompts) * num_return_sequences * (self._speculate + 2) * streams)
        live = self._begin(prompts, max_new_tokens, num_return_sequences, inputs or {}, pending)
        while running := [row for row in live if row.finish_reason is None]:
            self.counts.steps += 1
            before = {row.index: len(row.tokens) for row in running}
            self._advance(running, max_new_tokens)
            if on_tokens is not None:
                for row in running:
                    if len(row.tokens) > before[row.index]:
                        on_tokens(row.index, row.tokens[before[row.index] :])
        return [Generation(row.tokens, row.finish_reason or "length", "", row.forced) for row in live]

    def _begin(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        repeats: int,
        inputs: Mapping[str, Any],
        pending: Sequence[bytes],
    ) -> list[_Live]:
        is_encoder_decoder = self.engine.runner().is_encoder_decoder
        live: list[_Live] = []
        for index, prompt in enumerate(prompts):
            tokens = tuple(int(token) for token in prompt)
            extra = {name: value[index : index + 1] for name, value in inputs.items()}
            if is_encoder_decoder:
                content: RowInputs | None = RowInputs(extra, 0, None if extra else tokens)
                start = self.engine.model.generation_config.decoder_start_token_id
                tokens = (self.engine.model.config.decoder_start_token_id if start is None else start,)
            else:
                content = RowInputs(extra, len(tokens)) if extra else None
            for _ in range(repeats):
                matcher = None
                if self._compiled:
                    compiled = self._compiled[0 if len(self._compiled) == 1 else index]
                    before = pending[index] if pending else b""
                    # Tokens that spell what is pending do not count for the matcher; they are at most its bytes.
                    room = max(0, max_new_tokens - len(before)) if self._close_in_time else None
                    matcher = compiled.matcher(max_tokens=room, **({"pending": before} if before else {}))
                live.append(_Live(len(live), tokens, index, content, matcher))
        return live

    def _advance(self, running: list[_Live], max_new_tokens: int) -> None:
        """One round: jump where the constraint decides, then guide the rest."""
        for row in running:
            self._jump_forward(row, max_new_tokens)
        open_rows = [row for row in running if row.finish_reason is None]
        if not open_rows:
            return
        if self._speculate and (self._draft == "lookup" or self.engine.term.streams()):
            self._speculative_round(open_rows, max_new_tokens)
            return
        legal, bitmask = self._legal([row.matcher for row in open_rows])
        scores = self.engine.evaluate([row.row() for row in open_rows], legal, bitmask)
        chosen = self._draw(self._probabilities(open_rows, [()] * len(open_rows), scores, legal))
        for row, token in zip(open_rows, chosen, strict=True):
            self._append(row, token, max_new_tokens)

    # -- constraint ---------------------------------------------------------------------------------------------------

    def _jump_forward(self, row: _Live, max_new_tokens: int) -> None:
        if row.matcher is None or self._jump == "off":
            return
        while row.finish_reason is None:
            forced = list(row.matcher.forced_tokens()) if self._jump == "canonical" else []
            if not forced:
                single = self._only_legal(row.matcher)
                if single is None:
                    return
                forced = [single]
            for token in forced:
                if row.finish_reason is None:
                    self._append(row, token, max_new_tokens)
                    row.forced += row.finish_reason is None
                    self.counts.forced += 1

    def _only_legal(self, matcher: Any) -> int | None:
        mask = self._mask_of(matcher)
        words = [index for index in range(mask.shape[1]) if mask[0, index]] if _few_words(mask) else []
        if len(words) != 1:
            return None
        bits = int(mask[0, words[0]]) & 0xFFFFFFFF
        return 32 * words[0] + bits.bit_length() - 1 if bits & (bits - 1) == 0 else None

    def _mask_of(self, matcher: Any) -> Any:
        mask = allocate_token_bitmask(1, self._compiled[0].vocabulary)
        matcher.fill_next_token_bitmask(mask, 0)
        return mask

    def _legal(self, matchers: Sequence[Any]) -> tuple[Tensor | None, Tensor | None]:
        """bool (rows, vocabulary of the constraint), or None without a constraint; and the same as a bitmask if it may
        be applied before the penalties, which is the case where there are none."""
        if not self._compiled:
            return None, None
        mask = allocate_token_bitmask(len(matchers), self._compiled[0].vocabulary)
        for index, matcher in enumerate(matchers):
            matcher.fill_next_token_bitmask(mask, index)
        width = self._logit_width()
        legal = unpack_token_bitmask(mask, width, device=self.engine.model.device)
        assert isinstance(legal, Tensor)
        packed = torch.from_numpy(mask).to(self.engine.model.device)
        return legal, packed if self.sampling.repetition_penalty == 1.0 else None

    def _logit_width(self) -> int:
        head = self.engine.model.get_output_embeddings()
        return int(head.weight.shape[0]) if head is not None else len(self._compiled[0].vocabulary)

    def _append(self, row: _Live, token: int, max_new_tokens: int) -> None:
        if row.matcher is not None and not row.matcher.accept_token(token):
            raise DeadEndError(f"the constraint refused token {token}, which it had allowed")
        if token in self._eos and (row.matcher is None or row.matcher.is_terminated):
            row.finish_reason = "end"
            return
        row.tokens.append(token)
        if row.matcher is not None and row.matcher.is_terminated:
            row.finish_reason = "end"
        elif len(row.tokens) >= max_new_tokens:
            # What the constraint accepts is complete, whether or not there was room for an end token.
            complete = row.matcher is not None and row.matcher.is_accepting
            row.finish_reason = "end" if complete else "length"

    # -- drawing ------------------------------------------------------------------------------------------------------

    def _probabilities(
        self, rows: Sequence[_Live], extra: Sequence[Sequence[int]], scores: Tensor, legal: Tensor | None
    ) -> Tensor:
        seen = [(*row.prompt, *row.tokens, *more) for row, more in zip(rows, extra, strict=True)]
        return self.sampling.probabilities(scores, seen, legal)

    def _draw(self, probabilities: Tensor) -> list[int]:
        if bool((probabilities.sum(dim=-1) <= 0).any()):
            raise DeadEndError("no token is both allowed by the constraint and possible for the model")
        if not self.sampling.do_sample:
            return [int(token) for token in probabilities.argmax(dim=-1)]
        return [int(token) for token in torch.multinomial(probabilities, 1, generator=self._generator).squeeze(-1)]

    # -- speculative guidance -----------------------------------------------------------------------------------------

    def _speculative_round(self, rows: list[_Live], max_new_tokens: int) -> None:
        """Draft, verify with all streams in one pass, keep what rejection sampling keeps."""
        drafts = [_Draft(row, None if row.matcher is None else row.matcher.fork()) for row in rows]
        if self._draft == "lookup":
            for draft in drafts:
                self._look_up(draft, max_new_tokens)
        else:
            self._draft_with_the_conditional_stream(drafts, max_new_tokens)
        self._verify(drafts, max_new_tokens)

    def _draft_with_the_conditional_stream(self, drafts: list[_Draft], max_new_tokens: int) -> None:
        for _ in range(self._speculate):
            growing = [draft for draft in drafts if draft.can_grow(max_new_tokens, self._eos)]
            if not growing:
                break
            legal, _ = self._legal([draft.matcher for draft in growing])
            scores = self.engine.conditional([draft.row.row(draft.tokens) for draft in growing])
            proposal = self._probabilities([d.row for d in growing], [d.tokens for d in growing], scores, legal)
            for index, (draft, token) in enumerate(zip(growing, self._draw(proposal), strict=True)):
                self.counts.drafted += 1
                draft.add(token, proposal[index], None if legal is None else legal[index])

    def _look_up(self, draft: _Draft, max_new_tokens: int) -> None:
        """Extend a draft without a model. Its proposals are certain, so a token is kept with its target probability."""
        width, left = self._logit_width(), self._speculate
        while draft.can_grow(max_new_tokens, self._eos):
            forced = [] if draft.matcher is None else list(draft.matcher.forced_tokens())
            guesses = forced or _continuation((*draft.row.prompt, *draft.row.tokens, *draft.tokens), left)
            before = len(draft.tokens)
            for token in guesses[: _LONGEST_DRAFT - before]:
                legal, _ = self._legal([] if draft.matcher is None else [draft.matcher])
                if token >= width or not draft.can_grow(max_new_tokens, self._eos):
                    break
                if legal is not None and not bool(legal[0, token]):
                    break
                certain = torch.zeros(width, device=self.engine.model.device)
                certain[token] = 1.0
                draft.add(token, certain, None if legal is None else legal[0])
                self.counts.drafted += 1
            grown = len(draft.tokens) - before
            left -= 0 if forced else grown
            if not grown or (forced and grown < len(forced)) or left <= 0:
                return

    def _verify(self, drafts: list[_Draft], max_new_tokens: int) -> None:
        places = [(draft, place) for draft in drafts for place in range(draft.places(max_new_tokens, self._eos))]
        legal_rows: list[Tensor | None] = []
        for draft, place in places:
            if place == len(draft.legal) and draft.matcher is not None:
                legal, _ = self._legal([draft.matcher])
                draft.legal.append(None if legal is None else legal[0])
            legal_rows.append(draft.legal[place] if place < len(draft.legal) else None)
        legal = torch.stack([row for row in legal_rows if row is not None]) if self._compiled else None
        scores = self.engine.evaluate([draft.row.row(draft.tokens[:place]) for draft, place in places], legal)
        target = self._probabilities(
            [draft.row for draft, _ in places], [draft.tokens[:place] for draft, place in places], scores, legal
        )
        for index, (draft, place) in enumerate(places):
            if draft.rejected or draft.row.finish_reason is not None:
                continue
            if place == len(draft.tokens):
                self._append(draft.row, self._draw(target[index : index + 1])[0], max_new_tokens)
                continue
            token, proposal = draft.tokens[place], draft.proposals[place]
            if self._accepts(float(target[index, token]), float(proposal[token])):
                self.counts.accepted += 1
                self._append(draft.row, token, max_new_tokens)
            else:
                draft.rejected = True
                left = (target[index] - proposal).clamp(min=0)
                # p = q up to rounding leaves nothing; the target itself is then the right distribution.
                rest = left if float(left.sum()) > 0 else target[index]
                self._append(draft.row, self._draw(rest[None] / rest.sum())[0], max_new_tokens)

    def _accepts(self, target: float, proposal: float) -> bool:
        if target >= proposal:
            return True
        draw = torch.rand((), generator=self._generator, device=self._generator.device)
        return bool(draw * proposal < target)


@dataclass(slots=True)
class _Draft:
    """Tokens proposed after a sequence, with the distributions they were drawn from and what was legal there."""

    row: _Live
    matcher: Any
    tokens: list[int] = field(default_factory=list)
    proposals: list[Tensor] = field(default_factory=list)
    legal: list[Tensor | None] = field(default_factory=list)
    rejected: bool = False

    def can_grow(self, max_new_tokens: int, eos: frozenset[int]) -> bool:
        return self.places(max_new_tokens, eos) > len(self.tokens)

    def places(self, max_new_tokens: int, eos: frozenset[int]) -> int:
        """Positions whose next token must be scored: one after each drafted token, unless the draft has ended."""
        ended = bool(self.tokens) and (
            (self.tokens[-1] in eos and self.matcher is None)
            or (self.matcher is not None and self.matcher.is_terminated)
        )
        full = len(self.row.tokens) + len(self.tokens) >= max_new_tokens
        return len(self.tokens) + (0 if ended or full else 1)

    def add(self, token: int, proposal: Tensor, legal: Tensor | None) -> None:
        if self.matcher is not None and not self.matcher.accept_token(token):
            raise DeadEndError(f"the constraint refused token {token}, which it had allowed")
        self.tokens.append(token)
        self.proposals.append(proposal)
        self.legal.append(legal)


_LONGEST_DRAFT = 64


def _continuation(tokens: tuple[int, ...], count: int) -> list[int]:
    """What followed the last three (two, one) tokens the last time they occurred: at most `count` tokens."""
    for size in (3, 2, 1):
        pattern = tokens[-size:]
        for start in range(len(tokens) - size - 1, -1, -1):
            if tokens[start : start + size] == pattern:
                return list(tokens[start + size : start + size + count])
    return []


def _few_words(mask: Any) -> bool:
    """Whether at most one word of a one-row mask is not empty: a cheap test before looking at bits."""
    return int((mask[0] != 0).sum()) == 1


def _end_tokens(model: Any) -> Sequence[int]:
    config = getattr(model, "generation_config", model.config)
    end = getattr(config, "eos_token_id", None)
    return [] if end is None else end if isinstance(end, list) else [end]


def generate(
    model: Any,
    tokenizer: Any,
    prompt: Any,
    *,
    guidance: Term | Sequence[Term] = (),
    constraint: Any = None,
    output_type: Any = None,
    max_new_tokens: int = 256,
    do_sample: bool = False,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    seed: int = 0,
    num_return_sequences: int = 1,
    jump_forward: Literal["single", "canonical", "off"] = "single",
    speculate: int = 0,
    draft: Literal["conditional", "lookup"] = "conditional",
    close_in_time: bool = False,
    heal_prompts: bool = False,
    cache: Literal["dynamic", "static"] = "dynamic",
    compile_options: Mapping[str, Any] | None = None,
    inputs: Mapping[str, Any] | None = None,
    on_tokens: OnTokens | None = None,
    return_generations: bool = False,
) -> Any:
    """Generate text under guidance and a constraint.

    Args:
        prompt: a string, a chat (list of {"role", "content"}), token ids, or a list of strings or of chats.
        guidance: a term, or a list of terms. constraint: a compiled grammar.
        output_type: a type that `Grammar.from_type` reads, instead of a constraint: the results are typed objects.
        max_new_tokens: per sequence. The sampling arguments are those of `Sampling`.
        seed: of this call's random numbers. jump_forward, speculate, draft, close_in_time, cache, compile_options: see
            `GuidedDecoder`.
        heal_prompts: take the last tokens of each prompt back where a longer token may have been meant, and let what is
            generated begin with their bytes (`guiderail.heal`); with a constraint or without. The text of a result goes
            on where the prompt ends; its token ids begin with those that spell the bytes again.
        inputs: forward inputs besides tokens, batched over prompts, say {"pixel_values": ...}.
        on_tokens: streaming callback, see `OnTokens`.
        return_generations: return `Generation` objects instead.
    Returns: for one prompt and one sequence a string, or an object of `output_type`; otherwise a list of them.
    Raises:
        ValueError: contradictory arguments.
        LimitError: a typed output has reached `max_new_tokens` before it was complete.
        DeadEndError: see `GuidedDecoder.decode`.
    """
    grammar: Grammar | None = None
    if output_type is not None:
        if constraint is not None or return_generations:
            raise ValueError("output_type goes with neither constraint nor return_generations")
        grammar = Grammar.from_type(output_type)
        constraint = compile(grammar, Vocabulary.from_tokenizer(tokenizer, vocab_size=model.config.vocab_size))
    prompts, is_single = _encoded(tokenizer, prompt)
    pending: list[bytes] = []
    if heal_prompts:
        if constraint is None:
            constraint = free_text(Vocabulary.from_tokenizer(tokenizer, vocab_size=model.config.vocab_size))
        first = constraint[0] if isinstance(constraint, Sequence) else constraint
        healed = [heal(ids, first.vocabulary) for ids in prompts]
        prompts, pending = [ids for ids, _ in healed], [before for _, before in healed]
    sampling = Sampling(do_sample, temperature, top_k, top_p, min_p, repetition_penalty)
    generator = torch.Generator(device=model.device).manual_seed(seed)
    decoder = GuidedDecoder(
        model,
        guidance,
        constraint,
        sampling,
        jump_forward=jump_forward,
        speculate=speculate,
        draft=draft,
        close_in_time=close_in_time,
        cache=cache,
        compile_options=compile_options,
        generator=generator,
        encode=lambda text: _text_ids(tokenizer, text),
    )
    generations = decoder.decode(
        prompts,
        max_new_tokens,
        num_return_sequences=num_return_sequences,
        inputs=inputs,
        on_tokens=on_tokens,
        pending=pending,
    )
    for index, generation in enumerate(generations):
        place = index // num_return_sequences
        before = pending[place] if pending else b""
        generation.text = _decoded(tokenizer, constraint, place, generation.token_ids, len(before))
    if return_generations:
        return generations
    if grammar is not None:
        for generation in generations:
            if generation.finish_reason == "length":
                raise LimitError(
                    f"the output is not complete after {max_new_tokens} tokens: {generation.text[:200]!r}",
                    limit="max_new_tokens",
                )
        objects = [grammar.parse(generation.text) for generation in generations]
        return objects[0] if is_single and num_return_sequences == 1 else objects
    results = [generation.text for generation in generations]
    return results[0] if is_single and num_return_sequences == 1 else results


def guided_decoding(
    model: Any,
    input_ids: Tensor,
    logits_processor: Any = None,
    stopping_criteria: Any = None,
    generation_config: Any = None,
    guidance: Term | Sequence[Term] = (),
    constraint: Any = None,
    jump_forward: Literal["single", "canonical", "off"] = "single",
    speculate: int = 0,
    draft: Literal["conditional", "lookup"] = "conditional",
    cache: Literal["dynamic", "static"] = "dynamic",
    compile_options: Mapping[str, Any] | None = None,
    on_tokens: OnTokens | None = None,
    **model_kwargs: Any,
) -> Tensor:
    """Our loop as a decoding method of transformers:

        model.generate(**inputs, custom_generate=guided_decoding, guidance=[term], constraint=compiled,
        max_new_tokens=64)

    Sampling settings, lengths and end tokens are read from the generation config; random numbers follow
    `torch.manual_seed`. Unlike a logits processor in plain `generate`, penalties run after guidance here. A
    streamer does not reach a decoding method of one's own; `on_tokens` streams.

    Returns: int64 (rows, longest), prompt included, right-padded.
    Raises: ValueError for what this loop does not do: beams, encoder-decoders (use `generate`), and logits processors
        or stopping criteria of one's own.
    """
    config = generation_config
    if config.num_beams not in (None, 1) or model.config.is_encoder_decoder:
        raise ValueError("guided_decoding decodes causal models without beams; GuidanceLogitsProcessor does the rest")
    for hook in (*(logits_processor or ()), *(stopping_criteria or ())):
        if not type(hook).__module__.startswith("transformers."):
            raise ValueError(f"guided_decoding does not run {type(hook).__name__}; it reads the generation config")
    width = input_ids.shape[1]
    mask = model_kwargs.get("attention_mask")
    kept = torch.ones_like(input_ids, dtype=torch.bool) if mask is None else mask[:, -width:].bool()
    repeats = config.num_return_sequences or 1
    prompts = [row[keep].tolist() for row, keep in zip(input_ids, kept, strict=True)][::repeats]
    inputs = {
        name: value[::repeats]
        for name, value in model_kwargs.items()
        if isinstance(value, Tensor) and name.startswith(("pixel_", "input_features", "image_"))
    }
    sampling = Sampling(
        bool(config.do_sample),
        config.temperature or 1.0,
        config.top_k or None,
        config.top_p,
        config.min_p,
        config.repetition_penalty or 1.0,
    )
    ends = getattr(config, "eos_token_id", None)
    decoder = GuidedDecoder(
        model,
        guidance,
        constraint,
        sampling,
        eos_token_ids=[] if ends is None else ends if isinstance(ends, list) else [ends],
        jump_forward=jump_forward,
        speculate=speculate,
        draft=draft,
        cache=cache,
        compile_options=compile_options,
        generator=torch.Generator(device=model.device).manual_seed(int(torch.randint(2**62, ()))),
    )
    generations = decoder.decode(
        prompts, config.max_length - width, num_return_sequences=repeats, inputs=inputs, on_tokens=on_tokens
    )
    end = decoder.end_token
    rows = [g.token_ids + ([end] if g.finish_reason == "end" and end is not None else []) for g in generations]
    longest = max(len(row) for row in rows)
    pad = config.pad_token_id if config.pad_token_id is not None else end if end is not None else 0
    new = torch.tensor([row + [pad] * (longest - len(row)) for row in rows], device=input_ids.device)
    return torch.cat([input_ids, new.to(input_ids.dtype)], dim=1)


def _text_ids(tokenizer: Any, text: str) -> list[int]:
    return [int(token) for token in tokenizer(text)["input_ids"]]


def _encoded(tokenizer: Any, prompt: Any) -> tuple[list[list[int]], bool]:
    """Prompts as token ids, and whether there was only one."""
    if isinstance(prompt, str):
        return [_text_ids(tokenizer, prompt)], True
    if isinstance(prompt, Tensor):
        rows = prompt.tolist()
        return (rows, False) if prompt.ndim == 2 else ([rows], True)
    items = list(prompt)
    if not items:
        raise ValueError("there is no prompt")
    if isinstance(items[0], int):
        return [items], True
    if isinstance(items[0], Mapping):
        return [_chat_ids(tokenizer, items)], True
    if isinstance(items[0], str):
        return [_text_ids(tokenizer, text) for text in items], False
    if isinstance(items[0][0], Mapping):
        return [_chat_ids(tokenizer, chat) for chat in items], False
    return [list(row) for row in items], False


def _chat_ids(tokenizer: Any, chat: Sequence[Mapping[str, Any]]) -> list[int]:
    text = tokenizer.apply_chat_template(list(chat), add_generation_prompt=True, tokenize=False)
    return [int(token) for token in tokenizer(text, add_special_tokens=False)["input_ids"]]


def _decoded(tokenizer: Any, constraint: Any, prompt_index: int, token_ids: list[int], behind: int) -> str:
    if constraint is None:
        return str(tokenizer.decode(token_ids, skip_special_tokens=True))
    compiled = (
        constraint[prompt_index if len(constraint) > 1 else 0] if isinstance(constraint, Sequence) else constraint
    )
    vocabulary = compiled.vocabulary
    # Behind pending bytes no token stands at the first position of a text.
    spelled = [vocabulary.token_bytes[token] for token in token_ids] if behind else [vocabulary.decode(token_ids)]
    decoded: bytes = b"".join(spelled)
    return decoded[behind:].decode("utf-8", errors="replace")
