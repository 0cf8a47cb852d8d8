"""From what a server's request says to a compiled grammar: shared by the integrations with serving engines.

Servers name constraints alike: `json`, `json_object`, `regex`, `choice`, `grammar`, `structural_tag`, each with one
text. A grammar's notation is read off the text, by rules that are stated here and that never guess twice:

- a single word is the name of a built-in grammar (`json`, …): no notation has a grammar of one word;
- a text with a line `name ::= …` is GBNF, the notation of llama.cpp and of the EBNF that other backends take;
- everything else is Lark.
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Collection
from typing import Any, NamedTuple

from guiderail.compiled import CompiledGrammar, Limits, compile
from guiderail.errors import GrammarError, GuiderailError
from guiderail.grammars.grammar import Grammar
from guiderail.integrations.structural_tags import read_structural_tag
from guiderail.vocabulary import Vocabulary

__all__ = ["KINDS", "RequestCompiler", "RequestGrammar"]

KINDS = ("json", "json_object", "regex", "choice", "grammar", "structural_tag")

# Compiled grammars kept for the next request with the same text. A server's templates are few; what is evicted while
# requests use it lives on with them.
_KEPT_GRAMMARS = 64
# One vocabulary for each set of stop tokens. Requests choose the set, so their number is bounded.
_KEPT_VOCABULARIES = 4

_WORD = re.compile(r"\s*[A-Za-z][A-Za-z0-9_-]*\s*")
_GBNF_RULE = re.compile(r"^[ \t]*[A-Za-z][A-Za-z0-9_-]*[ \t]*::=", re.MULTILINE)


class RequestGrammar(NamedTuple):
    """The constraint of one request.

    Args:
        kind: one of `KINDS`.
        text: the schema, pattern, grammar or tag as text; for `choice` a JSON array of strings; empty for
        `json_object`. whitespace: as in `Grammar.from_json_schema`.
        strict: likewise.
    """

    kind: str
    text: str
    whitespace: str = "flexible"
    strict: bool = False

    def read(self) -> Grammar:
        """The grammar.

        Raises: GrammarError, SchemaError (with the JSON pointer), UnsatisfiableError or LimitError.
        """
        if self.kind == "json":
            return Grammar.from_json_schema(self.text, whitespace=self.whitespace, strict=self.strict)
        if self.kind == "json_object":
            return Grammar.from_json_schema({"type": "object"}, whitespace=self.whitespace)
        if self.kind == "regex":
            return Grammar.from_regex(self.text)
        if self.kind == "choice":
            return Grammar.from_choices(_choices(self.text))
        if self.kind == "grammar":
            return _read_grammar(self.text)
        if self.kind == "structural_tag":
            return read_structural_tag(self.text)
        raise GrammarError(f"a constraint of unknown kind {self.kind!r}; there are: {', '.join(KINDS)}")


class RequestCompiler:
    """Compiles the constraints of requests for one tokenizer; threads may share it.

    Args:
        tokenizer: what `Vocabulary.from_tokenizer` reads.
        vocab_size: width of the model's logits, which may exceed the tokenizer's.
        limits: budgets of each grammar; None: the defaults of `Limits`.
    Raises: VocabularyError for a tokenizer that is not supported.
    """

    def __init__(self, tokenizer: Any, vocab_size: int, limits: Limits | None = None) -> None:
        self._lock = threading.Lock()
        self._limits = limits
        self._vocabulary = Vocabulary.from_tokenizer(tokenizer, vocab_size=vocab_size)
        self._vocabularies: OrderedDict[frozenset[int], Vocabulary] = OrderedDict()
        # A refusal is kept as well: what takes long to be refused is refused at once the second time.
        self._grammars: OrderedDict[tuple[RequestGrammar, frozenset[int]], CompiledGrammar | GuiderailError] = (
            OrderedDict()
        )

    @property
    def vocab_size(self) -> int:
        return len(self._vocabulary)

    def compile(self, request: RequestGrammar, stop_token_ids: Collection[int] = ()) -> tuple[CompiledGrammar, bool]:
        """The compiled grammar, and whether it had been compiled before.

        Args:
            stop_token_ids: tokens that end the text, besides the tokenizer's own. They are allowed where a text of the
                grammar is complete, and nowhere else.
        Raises: what `RequestGrammar.read` and `guiderail.compile` raise.
        """
        stops = frozenset(stop_token_ids)
        key = (request, stops)
        with self._lock:
            known = self._grammars.get(key)
            if known is not None:
                self._grammars.move_to_end(key)
        if isinstance(known, GuiderailError):
            raise known.with_traceback(None)
        if known is not None:
            return known, True
        try:
            compiled = compile(request.read(), self._vocabulary_with(stops), self._limits)
        except GuiderailError as error:
            with self._lock:
                _remember(self._grammars, key, error.with_traceback(None), _KEPT_GRAMMARS)
            raise
        with self._lock:
            _remember(self._grammars, key, compiled, _KEPT_GRAMMARS)
        return compiled, False

    def _vocabulary_with(self, stops: frozenset[int]) -> Vocabulary:
        base = self._vocabulary
        missing = {token for token in stops if 0 <= token < len(base)} - set(base.eos_token_ids)
        if not missing:
            return base
        key = frozenset(missing)
        with self._lock:
            known = self._vocabularies.get(key)
            if known is not None:
                self._vocabularies.move_to_end(key)
                return known
        special = {name: token for name, token in base.special_tokens.items() if token not in missing}
        made = Vocabulary.from_bytes(
            [b"" if token in missing else text for token, text in enumerate(base.token_bytes)],
            eos_token_ids=[*base.eos_token_ids, *sorted(missing)],
            special_tokens=special,
            first_token_bytes=base.first_token_bytes,
        )
        with self._lock:
            _remember(self._vocabularies, key, made, _KEPT_VOCABULARIES)
        return made


def _remember(kept: OrderedDict[Any, Any], key: Any, value: Any, most: int) -> None:
    kept[key] = value
    while len(kept) > most:
        kept.popitem(last=False)


def _choices(text: str) -> list[str]:
    choices = json.loads(text)
    if not isinstance(choices, list):
        raise GrammarError("choice must be an array of strings")
    return choices


def _read_grammar(text: str) -> Grammar:
    if _WORD.fullmatch(text):
        return Grammar.builtin(text.strip())
    return Grammar.from_gbnf(text) if _GBNF_RULE.search(text) else Grammar.from_lark(text)
