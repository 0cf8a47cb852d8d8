"""SGLang: the grammar backend `guiderail`, through SGLang's own registry.

    guiderail.integrations.sglang.register()          # in the process that starts the server, before it starts
    python -m sglang.launch_server … --grammar-backend guiderail

Requests are SGLang's: `json_schema`, `regex`, `ebnf` (GBNF, Lark or the name of a built-in grammar, see
request_grammars.py), `structural_tag`. A constraint that is refused becomes SGLang's `InvalidGrammarObject` with our
message, which fails that request. A server with `--reasoning-parser` is refused: SGLang hands reasoning to its own
backends only, and thoughts would be held to the constraint. Written against SGLang 0.5.23. Jump-forward is off: SGLang
re-tokenises what was jumped over, which changes the distribution.
"""

from __future__ import annotations

from typing import Any

import torch
from sglang.srt.constrained.base_grammar_backend import (
    BaseGrammarBackend,
    BaseGrammarObject,
    GrammarStats,
    InvalidGrammarObject,
    register_grammar_backend,
)

from guiderail.compiled import CompiledGrammar, fill_next_token_bitmask_batch
from guiderail.errors import GuiderailError
from guiderail.integrations.request_grammars import RequestCompiler, RequestGrammar
from guiderail.logits.bitmask import apply_token_bitmask_inplace

__all__ = ["GuiderailGrammarBackend", "GuiderailGrammarObject", "register"]

NAME = "guiderail"
# SGLang's word for "any JSON value".
_ANY = "$$ANY$$"


def register() -> None:
    """Make `--grammar-backend guiderail` known."""
    register_grammar_backend(NAME, _create)


def _create(server_args: Any, tokenizer: Any, vocab_size: int, eos_token_ids: Any = None) -> GuiderailGrammarBackend:
    if getattr(server_args, "reasoning_parser", None):
        raise ValueError(
            "guiderail: SGLang's registered grammar backends cannot follow --reasoning-parser: leave it out"
        )
    return GuiderailGrammarBackend(tokenizer, vocab_size, eos_token_ids or ())


class GuiderailGrammarObject(BaseGrammarObject):
    """The position of one request in its grammar."""

    def __init__(self, compiled: CompiledGrammar) -> None:
        super().__init__()
        self._compiled = compiled
        self._matcher = compiled.matcher()
        self.grammar_stats = GrammarStats()

    def accept_token(self, token: int) -> None:
        """Raises: ValueError for a token that the mask forbade."""
        if self._matcher.is_terminated:
            return
        if not self._matcher.accept_token(token):
            raise ValueError(f"token {token} is not allowed here")
        self.current_token = token

    def rollback(self, k: int) -> None:
        self._matcher.rollback(k)

    def is_terminated(self) -> bool:
        return self._matcher.is_terminated

    def allocate_vocab_mask(self, vocab_size: int, batch_size: int, device: Any) -> torch.Tensor:
        """int32 (batch_size, words) on the host, all allowed: filled there and moved afterwards."""
        return torch.full((batch_size, (vocab_size + 31) // 32), -1, dtype=torch.int32)

    def fill_vocab_mask(self, vocab_mask: torch.Tensor, idx: int) -> None:
        self._matcher.fill_next_token_bitmask(vocab_mask.numpy(), idx)

    @staticmethod
    def fill_vocab_mask_batched(entries: list[Any], vocab_mask: torch.Tensor) -> None:
        """All rows in one crossing."""
        ours = [entry for entry in entries if isinstance(entry.grammar, GuiderailGrammarObject)]
        if ours:
            matchers = [entry.grammar._matcher for entry in ours]
            fill_next_token_bitmask_batch(matchers, vocab_mask.numpy(), [entry.row for entry in ours])
        for entry in entries:
            if not isinstance(entry.grammar, GuiderailGrammarObject):  # a wrapper of SGLang's, around one of ours
                entry.grammar.fill_vocab_mask(vocab_mask, entry.row)

    @staticmethod
    def reset_vocab_mask(vocab_mask: torch.Tensor) -> None:
        vocab_mask.fill_(-1)

    @staticmethod
    def move_vocab_mask(vocab_mask: torch.Tensor, device: Any) -> torch.Tensor:
        return vocab_mask.to(device, non_blocking=True)

    @staticmethod
    def apply_vocab_mask(logits: torch.Tensor, vocab_mask: torch.Tensor) -> None:
        apply_token_bitmask_inplace(logits, vocab_mask)

    def copy(self) -> GuiderailGrammarObject:
        """A new position at the start: SGLang keeps one object for each constraint and copies it for each request."""
        return GuiderailGrammarObject(self._compiled)

    def try_jump_forward(self, tokenizer: Any) -> None:
        return None


class GuiderailGrammarBackend(BaseGrammarBackend):
    """Compiles the constraints of an SGLang server, in its thread pool.

    Raises: VocabularyError for a tokenizer that is not supported.
    """

    def __init__(self, tokenizer: Any, vocab_size: int, eos_token_ids: Any = ()) -> None:
        super().__init__()
        self._compiler = RequestCompiler(tokenizer, vocab_size)
        self._stops = tuple(int(token) for token in eos_token_ids)

    def dispatch_json(self, key_string: str) -> BaseGrammarObject:
        if key_string == _ANY:
            return self._make(RequestGrammar("grammar", "json"))
        return self._make(RequestGrammar("json", key_string))

    def dispatch_regex(self, key_string: str) -> BaseGrammarObject:
        return self._make(RequestGrammar("regex", key_string))

    def dispatch_ebnf(self, key_string: str) -> BaseGrammarObject:
        return self._make(RequestGrammar("grammar", key_string))

    def dispatch_structural_tag(self, key_string: str) -> BaseGrammarObject:
        return self._make(RequestGrammar("structural_tag", key_string))

    def _make(self, request: RequestGrammar) -> BaseGrammarObject:
        try:
            return GuiderailGrammarObject(self._compiler.compile(request, self._stops)[0])
        except (GuiderailError, ValueError, TypeError) as error:
            return InvalidGrammarObject(f"guiderail: {type(error).__name__}: {error}")
