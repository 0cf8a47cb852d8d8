"""llama-cpp-python: a logits processor.

    vocabulary = vocabulary_of(llama)
    processor = GrammarLogitsProcessor(guiderail.compile(grammar, vocabulary))
    llama.create_completion(prompt, logits_processor=[processor], max_tokens=100)

llama-cpp-python calls processors with all token ids so far and the scores of the next one, and ends at the model's own
EOS. This module imports nothing of it: what it needs of a `Llama` object is `n_vocab()`, `token_eos()` and
`detokenize`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from guiderail.compiled import CompiledGrammar
from guiderail.errors import DeadEndError
from guiderail.logits.bitmask import allocate_token_bitmask, apply_token_bitmask_inplace
from guiderail.vocabulary import Vocabulary

__all__ = ["GrammarLogitsProcessor", "vocabulary_of"]


def vocabulary_of(llama: Any) -> Vocabulary:
    """The vocabulary of a loaded model: the bytes of every token, as the model itself writes them.

    Tokens that write nothing (control tokens) get no bytes and are never allowed, except EOS.
    """
    eos = int(llama.token_eos())
    pieces = [b"" if token == eos else bytes(llama.detokenize([token])) for token in range(int(llama.n_vocab()))]
    return Vocabulary.from_bytes(pieces, eos_token_ids=[eos])


class GrammarLogitsProcessor:
    """Allows only tokens from which the text can still be completed to one of the grammar's language.

    The first call's tokens are the prompt, which is not part of the constrained text. A call whose tokens do not
    continue the previous call's begins a new text, so one processor serves any number of completions, one at a time.

    Args:
        compiled: for the model's vocabulary; see `vocabulary_of`.
        prefix: text of the language that the prompt ends with already.
    """

    def __init__(self, compiled: CompiledGrammar, *, prefix: bytes | str = b"") -> None:
        self._matcher = compiled.matcher(prefix=prefix)
        self._bitmask = allocate_token_bitmask(1, compiled.vocabulary)
        self._seen: npt.NDArray[np.intc] | None = None

    def __call__(self, input_ids: npt.NDArray[np.intc], scores: npt.NDArray[np.single]) -> npt.NDArray[np.single]:
        """Scores with -inf for tokens that are not allowed.

        Args:
            input_ids: integer (tokens,), prompt and output so far.
            scores: float32 (vocab,), changed in place.
        Raises: DeadEndError if the last token does not fit, or no token can follow.
        """
        ids = np.array(input_ids, copy=True)
        self._follow(ids)
        self._seen = ids
        self._matcher.fill_next_token_bitmask(self._bitmask)
        if not self._bitmask.any():
            raise DeadEndError("no token of the vocabulary can continue the text")
        apply_token_bitmask_inplace(scores.reshape(1, -1), self._bitmask)
        return scores

    def _follow(self, ids: npt.NDArray[np.intc]) -> None:
        seen = self._seen
        if seen is None or len(ids) <= len(seen) or not np.array_equal(ids[: len(seen)], seen):
            self._matcher.reset()
            return
        for token in ids[len(seen) :].tolist():
            if not self._matcher.accept_token(token):
                raise DeadEndError(f"token {token} was not allowed here: another processor or sampler chose it")
