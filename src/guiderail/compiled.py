"""A grammar joined with a vocabulary, and matchers that follow sequences through it.

    compiled = guiderail.compile(grammar, vocabulary)
    matcher = compiled.matcher()
    matcher.fill_next_token_bitmask(bitmask)
    matcher.accept_token(token_id)

The work is the core's: `Matcher` is its class, so a call costs no more than a crossing into C++. Compiling is lazy.
Parser states and masks come into being as sequences meet them, once for all matchers of one compiled grammar.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from functools import lru_cache, partial

import numpy as np
import numpy.typing as npt

from guiderail import _core
from guiderail._core import Matcher
from guiderail.errors import GrammarError
from guiderail.grammars.grammar import Grammar
from guiderail.json_events import JsonEvents
from guiderail.saved_file import read_file, write_file
from guiderail.vocabulary import Vocabulary

__all__ = ["CompiledGrammar", "Limits", "Matcher", "compile", "fill_next_token_bitmask_batch"]

_KIND = "compiled grammar"
_DEFAULTS = _core.Limits()
# No sequence is that long, and the core counts in 32 bits.
_MOST_TOKENS = 2**31
_LARGEST_LIMIT = sys.maxsize


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """Budgets of one compiled grammar. Exceeding one raises `LimitError` with its name, for that call alone.

    Args:
        lexer_states_per_request: new states of lexical automata that one call may cause.
        states: sequence states alive at once.
        threads: readings of one text at once, for ambiguous grammars.
        grammar_bytes: parser and state tables, in bytes.
        mask_bytes: stored masks, in bytes.
        request_bytes: growth of shared tables that one matcher may cause, in bytes.
        munch_states: states of the search for whether a text can be completed under longest match, or in tokens.
    """

    lexer_states_per_request: int = _DEFAULTS.lexer_states_per_request
    states: int = _DEFAULTS.states
    threads: int = _DEFAULTS.threads
    grammar_bytes: int = _DEFAULTS.grammar_bytes
    mask_bytes: int = _DEFAULTS.mask_bytes
    request_bytes: int = _DEFAULTS.request_bytes
    munch_states: int = _DEFAULTS.munch_states

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
                raise ValueError(f"limit {name} must be a positive integer, got {value!r}")
            if value > _LARGEST_LIMIT:
                raise ValueError(f"limit {name} must be at most {_LARGEST_LIMIT}, got {value!r}")

    def _native(self) -> _core.Limits:
        limits = _core.Limits()
        for name, value in dataclasses.asdict(self).items():
            setattr(limits, name, value)
        return limits


class CompiledGrammar:
    """A constraint: for every state of the grammar, which tokens of the vocabulary may come next.

    Threads may share one. Make it with `compile`, or read one back with `load`.
    """

    __slots__ = ("_native", "grammar", "limits", "vocabulary")

    def __init__(self, grammar: Grammar, vocabulary: Vocabulary, limits: Limits) -> None:
        self.grammar = grammar
        self.vocabulary = vocabulary
        self.limits = limits
        native, first = _native_vocabulary(vocabulary)
        self._native = _core.compile(grammar._source, native, limits._native(), first)

    def matcher(
        self,
        max_tokens: int | None = None,
        prefix: bytes | str = b"",
        suffix: bytes | str | None = None,
        pending: bytes | str = b"",
    ) -> Matcher:
        """A new position at the start of the language.

        Args:
            max_tokens: the text is complete after at most that many tokens; None: no limit. Tokens of the text count,
                the end-of-sequence token and `prefix` do not. A token is allowed if a completion is known that still
                fits after it, so masks narrow towards the limit and the last of them allows EOS. Known completions
                are short, not always the shortest. `closed_early` says whether a token, or the end, was chosen under
                a mask that the limit had made smaller. Masks and `accept_token` may raise `LimitError` where finding
                completions takes too much, as it can under `uniqueItems`.
            prefix: text of the language that is there already. Masks and `is_accepting` take it as read; `rollback`
                and `reset` do not go behind it.
            suffix: text that follows what is written (infilling). A token is allowed if some text behind it leads to
                the suffix, and EOS where `prefix`, the text so far and the suffix are in the language together. The
                mask of a state that is met for the first time takes a walk through the vocabulary. None:
                nothing follows. Not together with `max_tokens`, and not for `uniqueItems`.
            pending: bytes that tokens spell before anything else, as `guiderail.heal` takes them off a prompt's end.
                They are no part of the text, and do not depend on it: where the prompt ends with text of the language,
                `prefix` holds all of that, pending bytes included. Tokens that spell nothing else do not count for
                `max_tokens`.
        Of a JSON grammar, `matcher.events()` lists what the text has said since the last call, and `matcher.partial()`
        is the value so far; see `guiderail.json_events`. For other grammars they raise GrammarError.

        Raises:
            DeadEndError: no tokens of the vocabulary spell `pending`.
            GrammarError: nothing in the language begins with `prefix`, or leads from it to `suffix`.
            LimitError: limit "max_tokens": no completion of at most `max_tokens` tokens is known. Limit
                "munch_states": whether a text can lead to the suffix takes too much.
            ValueError: `max_tokens` is neither None nor an integer from 0 on, or there is a suffix as well.
        """
        if suffix is not None and max_tokens is not None:
            raise ValueError("max_tokens and suffix cannot be used together")
        if max_tokens is not None:
            if not isinstance(max_tokens, int) or isinstance(max_tokens, bool) or max_tokens < 0:
                raise ValueError(f"max_tokens must be None or an integer from 0 on, got {max_tokens!r}")
            max_tokens = min(max_tokens, _MOST_TOKENS)
        data = prefix.encode("utf-8") if isinstance(prefix, str) else prefix
        reader = partial(_reader, self.grammar, data)
        after = suffix.encode("utf-8") if isinstance(suffix, str) else suffix
        before = pending.encode("utf-8") if isinstance(pending, str) else pending
        return self._native.matcher(data, self.vocabulary.encode, max_tokens, reader, after, before)

    def counters(self) -> dict[str, int]:
        """Sizes of what has come into being so far: states, masks, bytes."""
        return dict(self._native.counters())

    # --- files -------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write grammar, vocabulary and limits to `path`, atomically. Masks are not written: they come back as met.

        Raises: OSError.
        """
        header = {
            "grammar": self.grammar._make_recipe(),
            "limits": dataclasses.asdict(self.limits),
            "vocabulary": self.vocabulary.fingerprint,
        }
        write_file(path, _KIND, header, self.vocabulary._sections())

    @classmethod
    def load(cls, path: str | os.PathLike[str], vocabulary: Vocabulary | None = None) -> CompiledGrammar:
        """Read what `save` wrote.

        Args:
            vocabulary: used instead of the file's copy; keeps the tokenizer, which `forced_tokens` needs.
        Raises:
            ValueError: not such a file, another format version, damaged, or for another vocabulary.
            GuiderailError: a forged file may hold a grammar that is refused.
            OSError: the file cannot be read.
        """
        header, sections = read_file(path, _KIND)
        if vocabulary is None:
            vocabulary = Vocabulary._from_sections(sections)
        if vocabulary.fingerprint != header.get("vocabulary"):
            raise ValueError(f"{path} was saved for another vocabulary")
        try:
            grammar, limits = Grammar._from_recipe(header["grammar"]), Limits(**header["limits"])
        except (AttributeError, IndexError, KeyError, OverflowError, RecursionError, TypeError) as error:
            raise ValueError(f"{path} is damaged: its digests fit, its grammar is none") from error
        return cls(grammar, vocabulary, limits)

    def __repr__(self) -> str:
        return f"<guiderail.CompiledGrammar {self.grammar.fingerprint[:12]} for {self.vocabulary!r}>"


def compile(grammar: Grammar, vocabulary: Vocabulary, limits: Limits | None = None) -> CompiledGrammar:
    """Join a grammar with a vocabulary.

    Args:
        limits: budgets; None: the defaults of `Limits`.
    Raises:
        LimitError: see `Limits`.
        DeadEndError: no text of the grammar can be written in tokens of this vocabulary. (A grammar that is empty or
            malformed has been refused when it was made.)
    """
    return CompiledGrammar(grammar, vocabulary, limits or Limits())


def fill_next_token_bitmask_batch(
    matchers: Sequence[Matcher], bitmask: npt.NDArray[np.int32], rows: Sequence[int] | None = None
) -> None:
    """Fill one row for each matcher, in parallel and without the GIL.

    Args:
        matchers: any, of any compiled grammars.
        bitmask: int32 (batch, words), C-contiguous, written in place; a row wider than needed is cleared at its end.
        rows: where each matcher's mask goes; None: row i for matcher i.
    Raises: LimitError; TypeError or ValueError for a bitmask of the wrong type or shape.
    """
    _core.fill_next_token_bitmask_batch(list(matchers), bitmask, None if rows is None else list(rows))


def _reader(grammar: Grammar, prefix: bytes) -> JsonEvents:
    """What `Matcher.events` and `Matcher.partial` read the text with. Raises: GrammarError if it is not JSON."""
    recipe = grammar._make_recipe()
    if recipe["kind"] != "json schema" and recipe != {"kind": "builtin", "name": "json"}:
        raise GrammarError("events and partial are for JSON: from_json_schema, from_type, builtin('json')")
    return JsonEvents(prefix, grammar._parse)


# --- vocabularies ----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _native_vocabulary(vocabulary: Vocabulary) -> tuple[_core.Vocabulary, _core.Vocabulary | None]:
    """The core's vocabulary, and that of the first position where it differs. Equal vocabularies share them.

    The core keeps what it learns about terminals with the vocabulary, so sharing also warms other grammars.
    """
    special, eos = dict(vocabulary.special_tokens), list(vocabulary.eos_token_ids)
    native = _core.Vocabulary(*vocabulary._packed(), special, eos)
    if vocabulary.first_token_bytes is None:
        return native, None
    return native, _core.Vocabulary(*vocabulary._packed(first=True), special, eos)
