"""The structured-output backend `guiderail` of vLLM.

One backend serves one engine, in the EngineCore process. Compiling runs in vLLM's thread pool while the request waits;
an error fails that request alone. Masks of all rows of a step are filled in one crossing into the core, which fills
them in parallel (`fill_rows`, called by the plugin's `grammar_bitmask`); vLLM's own interface asks row by row.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from vllm.logger import init_logger
from vllm.v1.structured_output.backend_types import (
    StructuredOutputBackend,
    StructuredOutputGrammar,
    StructuredOutputOptions,
)

from guiderail.compiled import Matcher, fill_next_token_bitmask_batch
from guiderail.errors import DeadEndError, GuiderailError
from guiderail.integrations.request_grammars import RequestCompiler, RequestGrammar
from guiderail.integrations.vllm.metrics import METRICS

if TYPE_CHECKING:
    from vllm.v1.request import Request

logger = init_logger(__name__)

FAILURE = "guiderail: "
"""How a request's `stop_reason` begins where guiderail ended it: the front end answers HTTP 400 with that text."""

_KINDS = {
    StructuredOutputOptions.JSON: "json",
    StructuredOutputOptions.JSON_OBJECT: "json_object",
    StructuredOutputOptions.REGEX: "regex",
    StructuredOutputOptions.CHOICE: "choice",
    StructuredOutputOptions.GRAMMAR: "grammar",
    StructuredOutputOptions.STRUCTURAL_TAG: "structural_tag",
}


class GuiderailGrammar(StructuredOutputGrammar):
    """The position of one request in its grammar.

    Args:
        matcher: at the start of the text.
    """

    __slots__ = ("_closing_counted", "_failed", "matcher", "restricted")

    def __init__(self, matcher: Matcher) -> None:
        self.matcher = matcher
        self.restricted = False  # vLLM itself forbids the request some tokens besides the mask
        self._failed: GuiderailError | None = None
        self._closing_counted = False

    def fail(self, error: GuiderailError) -> None:
        """No mask could be made: whatever is sampled next will be rejected, and vLLM ends the request as an error."""
        logger.error("guiderail: a request is given up: %s: %s", type(error).__name__, error)
        METRICS.add("requests_failed_total")
        self._failed = error

    @property
    def failure(self) -> str | None:
        """Why the request is given up, for its client; None if it is not."""
        return f"{FAILURE}{type(self._failed).__name__}: {self._failed}" if self._failed is not None else None

    def accept_tokens(self, request_id: str, tokens: list[int]) -> bool:
        """Advance. Tokens after the end are ignored, as in vLLM's other backends (they come with `ignore_eos`)."""
        if self._failed is not None:
            return False
        for token in tokens:
            if self.matcher.is_terminated:
                return True
            try:
                if not self.matcher.accept_token(token):
                    return False
            except GuiderailError as error:
                self.fail(error)
                return False
        return True

    def count_closing(self) -> None:
        """Count this text, once, if its limit has changed it. For tokens that stay: drafts may be taken back."""
        if not self._closing_counted and self.matcher.closed_early:
            self._closing_counted = True
            METRICS.add("closed_early_total")

    def validate_tokens(self, tokens: list[int]) -> list[int]:
        """The longest prefix of `tokens` that fits; does not advance."""
        if self._failed is not None or self.matcher.is_terminated:
            return []
        return tokens[: self.matcher.count_valid(tokens)]

    def rollback(self, num_tokens: int) -> None:
        self.matcher.rollback(num_tokens)

    def fill_bitmask(self, bitmask: torch.Tensor, batch_index: int) -> None:
        """Fill one row: what vLLM calls under speculative decoding."""
        fill_rows(bitmask.numpy(), [self], [batch_index])

    def is_terminated(self) -> bool:
        return self.matcher.is_terminated

    def reset(self) -> None:
        self._failed = None
        self._closing_counted = False
        self.matcher.reset()


class GuiderailBackend(StructuredOutputBackend):
    """See the head of this file.

    Raises: VocabularyError for a tokenizer that is not supported.
    """

    def __init__(self, vllm_config: Any, tokenizer: Any, vocab_size: int) -> None:
        super().__init__(vllm_config, tokenizer, vocab_size)
        self.compiler = RequestCompiler(tokenizer, vocab_size)

    def compile_grammar(
        self, request_type: StructuredOutputOptions, grammar_spec: str, stop_token_ids: set[int] | None = None
    ) -> GuiderailGrammar:
        """The interface's own entry, which does not see a request's options. Raises: GuiderailError."""
        return self._compile(RequestGrammar(_KINDS[request_type], grammar_spec), stop_token_ids)

    def compile_request(self, request: Request) -> GuiderailGrammar:
        """The grammar of a request with all its options. Raises: GuiderailError."""
        structured, params = request.structured_output_request, request.sampling_params
        kind, spec = structured.structured_output_key
        grammar = self._compile(
            request_grammar(_KINDS[kind], spec, structured.params), params.all_stop_token_ids, self._room(request)
        )
        grammar.restricted = bool(params.bad_words_token_ids or params.min_tokens)
        return grammar

    def _room(self, request: Request) -> int | None:
        """How many tokens the answer may have; None where the text need not be complete by then."""
        if request.resumable or not closes_in_time(self.vllm_config.structured_outputs_config):
            return None
        longest: int = self.vllm_config.model_config.max_model_len - request.num_prompt_tokens
        return max(0, min(int(request.max_tokens), longest))

    def _compile(
        self, grammar: RequestGrammar, stop_token_ids: set[int] | None, max_tokens: int | None = None
    ) -> GuiderailGrammar:
        start = time.perf_counter()
        try:
            compiled, known = self.compiler.compile(grammar, stop_token_ids or ())
            matcher = compiled.matcher(max_tokens)
            # The first mask, which may be dear, is made here and not by the engine's thread.
            matcher.fill_next_token_bitmask(np.empty((1, (self.vocab_size + 31) // 32), np.int32))
        except GuiderailError:
            METRICS.add("requests_refused_total")
            raise
        METRICS.add("compile_seconds_sum", time.perf_counter() - start)
        METRICS.add("compile_seconds_count")
        METRICS.add("grammar_cache_hits_total" if known else "grammar_cache_misses_total")
        return GuiderailGrammar(matcher)

    def allocate_token_bitmask(self, max_num_seqs: int) -> torch.Tensor:
        """int32 (max_num_seqs, ceil(vocab_size / 32)), all allowed."""
        return torch.full((max_num_seqs, (self.vocab_size + 31) // 32), -1, dtype=torch.int32)

    def destroy(self) -> None:
        del self.compiler


def closes_in_time(structured_outputs_config: Any) -> bool:
    """Whether texts are complete at `max_tokens`.

    Not where a reasoning parser lets free tokens go before, of which the grammar sees nothing and so cannot count them;
    nor with GUIDERAIL_CLOSE_IN_TIME=0 in the environment of the server.
    """
    if structured_outputs_config.reasoning_parser and not structured_outputs_config.enable_in_reasoning:
        return False
    return os.environ.get("GUIDERAIL_CLOSE_IN_TIME", "1") != "0"


def request_grammar(kind: str, text: str, params: Any) -> RequestGrammar:
    """The constraint of a request's `StructuredOutputsParams`."""
    whitespace = params.whitespace_pattern
    if whitespace is None:
        whitespace = "compact" if params.disable_any_whitespace else "flexible"
    return RequestGrammar(kind, text, whitespace, bool(params.disable_additional_properties))


def require_token(masks: npt.NDArray[np.int32], request: Request, row: int) -> None:
    """See that vLLM's own bans leave a token of a filled row; else the request fails."""
    words = masks[row].view(np.uint32)
    for token in _forbidden_tokens(request):
        words[token >> 5] &= np.uint32(~(1 << (token & 31)) & 0xFFFFFFFF)
    if not words.any():
        request.structured_output_request.grammar.fail(
            DeadEndError("bad_words or min_tokens forbid every token that the constraint allows here")
        )
        masks[row] = -1


def _forbidden_tokens(request: Request) -> list[int]:
    """What vLLM itself forbids at this position after the mask: ends of bad words, and every end before min_tokens."""
    params, written = request.sampling_params, request.output_token_ids
    forbidden = list(params.all_stop_token_ids) if len(written) < params.min_tokens else []
    for word in params.bad_words_token_ids or ():
        before = len(word) - 1
        if before <= len(written) and list(written[len(written) - before :]) == word[:-1]:
            forbidden.append(word[-1])
    return forbidden


def fill_rows(bitmask: npt.NDArray[np.int32], grammars: Sequence[GuiderailGrammar], rows: Sequence[int]) -> None:
    """Fill the rows of all grammars at once.

    A grammar that exceeds a limit fails alone: its row allows everything, and the token that comes of it is rejected.
    """
    start = time.perf_counter()
    try:
        if len(grammars) == 1:
            grammars[0].matcher.fill_next_token_bitmask(bitmask, rows[0])
        else:
            fill_next_token_bitmask_batch([grammar.matcher for grammar in grammars], bitmask, rows)
    except GuiderailError:
        for grammar, row in zip(grammars, rows, strict=True):
            try:
                grammar.matcher.fill_next_token_bitmask(bitmask, row)
            except GuiderailError as error:
                grammar.fail(error)
                bitmask[row] = -1
    seconds = time.perf_counter() - start
    METRICS.add_all({"fill_seconds_sum": seconds, "fill_seconds_count": 1, "fill_rows_total": len(rows)})
