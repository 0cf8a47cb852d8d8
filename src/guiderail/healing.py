"""Token healing: a prompt's last tokens are taken back, and what is generated begins with their bytes.

A prompt that ends in `http:` ends in a token that a text would hardly have had there: `://` is one token. Taken back,
`:` is spelled again by whatever token the model likes best among those that begin with it.

    ids, pending = heal(tokenizer(prompt).input_ids, vocabulary)
    matcher = compiled.matcher(pending=pending)             # with a grammar
    matcher = free_text(vocabulary).matcher(pending=pending)  # with none

`GrammarLogitsProcessor(..., pending=[...])` does it inside `model.generate`, `generate(..., heal_prompts=True)` all of
it. The mask is exact: a token is allowed if it spells a part of what is pending, or all of it and then goes on with
the text.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from guiderail.compiled import CompiledGrammar
    from guiderail.vocabulary import Vocabulary

__all__ = ["Healed", "free_text", "heal"]


class Healed(NamedTuple):
    """A prompt to be continued.

    Args:
        token_ids: what is left of it, at least one token. pending: the bytes that were taken back.
    """

    token_ids: list[int]
    pending: bytes


def heal(prompt_ids: Sequence[int], vocabulary: Vocabulary) -> Healed:
    """Take back as many tokens at the end of a prompt as could have been the beginning of one longer token.

    Special tokens are never taken back, nor what stands before them, nor the first token. Where no token of the
    vocabulary goes beyond the prompt's end, nothing is pending.

        >>> from guiderail import Vocabulary
        >>> vocabulary = Vocabulary.from_bytes([b"http", b":", b"://", b"", b"p:"], eos_token_ids=[3])
        >>> heal([0, 1], vocabulary)
        Healed(token_ids=[0], pending=b':')
        >>> heal([1, 0], vocabulary)
        Healed(token_ids=[1, 0], pending=b'')

    Raises: IndexError for an id that is not in the vocabulary.
    """
    ids = [int(token) for token in prompt_ids]
    tokens = _sorted_tokens(vocabulary)
    no_text = {*vocabulary.special_tokens.values(), *vocabulary.eos_token_ids}
    tail, kept, pending = b"", len(ids), b""
    for place in range(len(ids) - 1, 0, -1):
        token = ids[place]
        if token in no_text or not vocabulary.token_bytes[token]:
            break
        tail = vocabulary.token_bytes[token] + tail
        longer = bisect_right(tokens, tail)
        if longer < len(tokens) and tokens[longer].startswith(tail):
            kept, pending = place, tail
        if len(tail) >= _longest(vocabulary):
            break
    return Healed(ids[:kept], pending)


@lru_cache(maxsize=8)
def free_text(vocabulary: Vocabulary) -> CompiledGrammar:
    """Any text at all: a constraint for healing where there is no other."""
    from guiderail.compiled import compile
    from guiderail.grammars.grammar import Grammar

    return compile(Grammar.from_regex("(?s:.*)"), vocabulary)


@lru_cache(maxsize=8)
def _sorted_tokens(vocabulary: Vocabulary) -> list[bytes]:
    no_text = {*vocabulary.special_tokens.values(), *vocabulary.eos_token_ids}
    return sorted({data for token, data in enumerate(vocabulary.token_bytes) if data and token not in no_text})


@lru_cache(maxsize=8)
def _longest(vocabulary: Vocabulary) -> int:
    return max(map(len, _sorted_tokens(vocabulary)), default=0)
