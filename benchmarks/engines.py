"""One face for the engines under test, each called the way its own documentation recommends.

An adapter is created once per process (`setup_s` is that cost). `compile_*` returns something that is immutable as far
as the benchmark cares; `session` opens one text on it. Everything that is timed is a bound call without Python
wrappers of ours in between: `Session.fill()` and `Session.accept(token_id)`.

Settings, and why:

* llguidance: `LLTokenizer` with its default slices (its JSON slices measure the same within noise); the mask goes to a
  kept pointer (`unsafe_compute_mask_ptr`), which is its cheapest entry. It has no compiled object: the matcher is built
  from the grammar text, so 'compile' is the construction of the first matcher.
* xgrammar: `strict_mode=True` (its default) and any whitespace; one thread, its grammar cache off (a benchmark of
  compilation must not be answered from a cache).
* outlines-core: schema to regex to `Index`, `Guide.write_mask_into`.
* guiderail: `gr.compile` with default limits.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .llama3_vocabulary import BenchmarkVocabulary


class Refused(Exception):
    """The engine said no to this grammar, in its own words."""


@dataclass
class Session:
    """One text in one compiled grammar. `mask` is what `fill` writes: int32 (words,), bit 1 = allowed."""

    fill: Callable[[], Any]
    accept: Callable[[int], bool]
    restart: Callable[[], Any]
    is_accepting: Callable[[], bool]
    mask: np.ndarray[Any, np.dtype[np.int32]]
    rows_known: Callable[[], int] | None = None
    """How many masks the compiled grammar keeps, where an engine says so: tells a first visit from a repetition."""

    def allows(self, token_id: int) -> bool:
        return bool((int(self.mask[token_id >> 5]) >> (token_id & 31)) & 1)


class Engine(Protocol):
    name: str
    version: str
    compiles_eagerly: bool
    """True if compile leaves nothing to be found out later, so that a second session is as cold as the first."""

    def compile_json_schema(self, schema: Any) -> Any: ...
    def compile_builtin_json(self) -> Any: ...
    def session(self, compiled: Any) -> Session: ...
    def counters(self, compiled: Any) -> dict[str, int]: ...


def _kept_mask(vocabulary: BenchmarkVocabulary) -> np.ndarray[Any, np.dtype[np.int32]]:
    return np.zeros((1, (len(vocabulary) + 31) // 32), dtype=np.int32)


class Guiderail:
    name = "guiderail"
    compiles_eagerly = False

    def __init__(self, vocabulary: BenchmarkVocabulary) -> None:
        import guiderail as gr

        self._gr = gr
        self.version = gr.__version__
        self._size = vocabulary
        self._vocabulary = gr.Vocabulary.from_bytes(
            vocabulary.token_bytes,
            eos_token_ids=vocabulary.eos_token_ids,
            special_tokens=vocabulary.special_tokens,
        )
        # The trie is built for the first grammar; that is set-up, not compilation.
        gr.compile(gr.Grammar.from_choices(["a"]), self._vocabulary)

    def _compile(self, make_grammar: Callable[[], Any]) -> Any:
        try:
            return self._gr.compile(make_grammar(), self._vocabulary)
        except self._gr.GuiderailError as error:
            raise Refused(f"{type(error).__name__}: {error}") from error

    def compile_json_schema(self, schema: Any) -> Any:
        return self._compile(lambda: self._gr.Grammar.from_json_schema(schema))

    def compile_builtin_json(self) -> Any:
        return self._compile(lambda: self._gr.Grammar.builtin("json"))

    def compile_lark(self, text: str) -> Any:
        return self._compile(lambda: self._gr.Grammar.from_lark(text, lexer="munch"))

    def session(self, compiled: Any) -> Session:
        matcher = compiled.matcher()
        mask = _kept_mask(self._size)
        fill_next = matcher.fill_next_token_bitmask
        return Session(
            fill=lambda: fill_next(mask, 0),
            accept=matcher.accept_token,
            restart=matcher.reset,
            is_accepting=lambda: matcher.is_accepting,
            mask=mask[0],
            rows_known=lambda: int(compiled.counters()["mask_rows"]),
        )

    def counters(self, compiled: Any) -> dict[str, int]:
        return dict(compiled.counters())


class LLGuidance:
    name = "llguidance"
    compiles_eagerly = False

    def __init__(self, vocabulary: BenchmarkVocabulary) -> None:
        from importlib.metadata import version

        import llguidance
        from llguidance.tiktoken import lltokenizer_from_encoding

        self._llg = llguidance
        self.version = version("llguidance")
        self._vocabulary = vocabulary
        self._tokenizer = lltokenizer_from_encoding(
            vocabulary.encoding,
            n_vocab=len(vocabulary),
            eos_token=vocabulary.eos_token_ids,
        )

    def _compile(self, grammar: str) -> Any:
        matcher = self._llg.LLMatcher(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise Refused(matcher.get_error())
        return matcher

    def compile_json_schema(self, schema: Any) -> Any:
        try:
            grammar = self._llg.LLMatcher.grammar_from_json_schema(json.dumps(schema))
        except ValueError as error:
            raise Refused(str(error)) from error
        return self._compile(grammar)

    def compile_builtin_json(self) -> Any:
        return self.compile_json_schema({})

    def session(self, compiled: Any) -> Session:
        matcher = compiled.deep_copy()
        mask = _kept_mask(self._vocabulary)
        compute, pointer, size = matcher.unsafe_compute_mask_ptr, mask.ctypes.data, mask.nbytes
        return Session(
            fill=lambda: compute(pointer, size),
            accept=matcher.consume_token,
            restart=matcher.reset,
            is_accepting=matcher.is_accepting,
            mask=mask[0],
        )

    def counters(self, compiled: Any) -> dict[str, int]:
        return {}


class XGrammar:
    name = "xgrammar"
    compiles_eagerly = False
    strict_mode = True

    def __init__(self, vocabulary: BenchmarkVocabulary) -> None:
        from importlib.metadata import version

        import torch
        import xgrammar

        torch.set_num_threads(1)
        self._xgr = xgrammar
        self.version = version("xgrammar")
        self._vocabulary = vocabulary
        info = xgrammar.TokenizerInfo(
            vocabulary.token_bytes,
            xgrammar.VocabType.RAW,
            vocab_size=len(vocabulary),
            stop_token_ids=vocabulary.eos_token_ids,
        )
        self._compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)

    def compile_json_schema(self, schema: Any) -> Any:
        try:
            return self._compiler.compile_json_schema(json.dumps(schema), strict_mode=self.strict_mode)
        except (RuntimeError, ValueError) as error:
            raise Refused(str(error)) from error

    def compile_builtin_json(self) -> Any:
        return self._compiler.compile_builtin_json_grammar()

    def session(self, compiled: Any) -> Session:
        # Terminate on acceptance would end the session before 'is complete' can be asked; stop tokens are ours to send.
        matcher = self._xgr.GrammarMatcher(compiled)
        mask = _kept_mask(self._vocabulary)
        fill_next = matcher.fill_next_token_bitmask
        return Session(
            fill=lambda: fill_next(mask, 0),
            accept=matcher.accept_token,
            restart=matcher.reset,
            is_accepting=matcher.is_completed,
            mask=mask[0],
        )

    def counters(self, compiled: Any) -> dict[str, int]:
        return {"bytes": int(compiled.memory_size_bytes)}


class XGrammarLoose(XGrammar):
    name = "xgrammar-loose"
    strict_mode = False


class OutlinesCore:
    name = "outlines-core"
    compiles_eagerly = True

    def __init__(self, vocabulary: BenchmarkVocabulary) -> None:
        from importlib.metadata import version

        import outlines_core

        self._outlines = outlines_core
        self.version = version("outlines-core")
        self._size = vocabulary
        token_ids: dict[bytes, list[int]] = {}
        for token_id, data in enumerate(vocabulary.token_bytes):
            if data:
                token_ids.setdefault(data, []).append(token_id)
        self._vocabulary = outlines_core.Vocabulary(vocabulary.eos_token_ids[0], token_ids)

    def compile_json_schema(self, schema: Any) -> Any:
        from outlines_core.json_schema import build_regex_from_schema

        try:
            return self._outlines.Index(build_regex_from_schema(json.dumps(schema)), self._vocabulary)
        except (RuntimeError, ValueError, TypeError) as error:
            raise Refused(str(error)) from error

    def compile_builtin_json(self) -> Any:
        raise Refused("JSON is not a regular language")

    def session(self, compiled: Any) -> Session:
        guide = self._outlines.Guide(compiled)
        mask = _kept_mask(self._size)
        write, pointer, words, width = guide.write_mask_into, mask.ctypes.data, mask.size, mask.itemsize
        advance = guide.advance

        def accept(token_id: int) -> bool:
            # Guide.advance raises on a refused token; `return_tokens=False` spares it the list of allowed ones.
            try:
                advance(token_id, return_tokens=False)
            except ValueError:
                return False
            return True

        return Session(
            fill=lambda: write(pointer, words, width),
            accept=accept,
            restart=guide.reset,
            is_accepting=guide.is_finished,
            mask=mask[0],
        )

    def counters(self, compiled: Any) -> dict[str, int]:
        return {}


ENGINES: dict[str, Callable[[BenchmarkVocabulary], Engine]] = {
    engine.name: engine for engine in (Guiderail, LLGuidance, XGrammar, XGrammarLoose, OutlinesCore)
}
