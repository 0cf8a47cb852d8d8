"""The engines that are measured in this environment, each over the tokenizer of SmolLM2 and in a process of its own."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..engines import Guiderail, LLGuidance, Refused, Session, XGrammar
from ..masks import HERE
from .environment import grammar_file

sys.path.insert(0, str(HERE.parent / "tests"))

now = time.process_time_ns


class _Size:
    """As much of a vocabulary as the adapters' sessions need: its length."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size


def tokenizer() -> Any:
    import real_tokenizers

    return real_tokenizers.load("smollm2")


class OurGrammar(Guiderail):
    """The built-in grammar of a language."""

    def __init__(self) -> None:
        import guiderail as gr

        self._gr, self.version = gr, gr.__version__
        self._vocabulary = gr.Vocabulary.from_tokenizer(tokenizer())
        self._size = self._vocabulary  # type: ignore[assignment]

    def compile_language(self, language: str) -> Any:
        return self._compile(lambda: self._gr.Grammar.builtin(language))

    def save(self, compiled: Any, path: Path) -> None:
        compiled.save(path)

    def load(self, path: Path) -> Any:
        return self._gr.CompiledGrammar.load(path)


class TheirGrammar(OurGrammar):
    """SynCode's grammar file, as it is, with the blocks by indentation that its code adds to the Python one."""

    def compile_language(self, language: str) -> Any:
        from lark.indenter import PythonIndenter

        class Blocks(PythonIndenter):
            NL_type = "_NL"
            tab_len = 4

        text = grammar_file(language).read_text(encoding="utf-8")
        postlex = Blocks if language == "python" else None
        return self._compile(lambda: self._gr.Grammar.from_lark(text, postlex=postlex))


class SmolLLGuidance(LLGuidance):
    def __init__(self) -> None:
        import llguidance
        from llguidance.hf import from_tokenizer

        self._llg = llguidance
        self._tokenizer = from_tokenizer(tokenizer())
        self._vocabulary = _Size(self._tokenizer.vocab_size)  # type: ignore[assignment]

    def compile_language(self, language: str) -> Any:
        if language == "json":
            return self.compile_builtin_json()
        refusals = []
        for name, text in (("SynCode's", grammar_file(language).read_text()), ("ours", _ours(language))):
            try:
                return self._compile(self._llg.LLMatcher.grammar_from_lark(text))
            except (Refused, ValueError) as refusal:
                refusals.append(f"{name}: {' '.join(str(refusal).split())[:120]}")
        raise Refused("; ".join(refusals))


class SmolXGrammar(XGrammar):
    def __init__(self) -> None:
        import torch
        import xgrammar

        torch.set_num_threads(1)
        self._xgr = xgrammar
        info = xgrammar.TokenizerInfo.from_huggingface(tokenizer())
        self._vocabulary = _Size(info.vocab_size)  # type: ignore[assignment]
        self._compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)

    def compile_language(self, language: str) -> Any:
        if language == "json":
            return self.compile_builtin_json()
        raise Refused("it reads no Lark grammars")


def _ours(language: str) -> str:
    from guiderail.grammars import library

    return library.text(language)


RIVALS = {
    "guiderail": OurGrammar,
    "guiderail, SynCode's grammar": TheirGrammar,
    "llguidance": SmolLLGuidance,
    "xgrammar": SmolXGrammar,
}


def _walk(session: Session, ids: Sequence[int]) -> tuple[list[float], list[float], bool]:
    """Microseconds of masks and of accepts, and whether every token was allowed."""
    masks, accepts = [], []
    for token in ids:
        start = now()
        session.fill()
        masks.append((now() - start) / 1000)
        allowed = session.allows(token)
        start = now()
        taken = session.accept(token)
        accepts.append((now() - start) / 1000)
        if not (allowed and taken):
            return masks, accepts, False
    return masks, accepts, True


def measure(
    name: str, language: str, texts: Sequence[Sequence[int]], places: Sequence[Sequence[int]]
) -> dict[str, Any]:
    """Build, then the masks of all texts twice, then those after `places`. Everything as token ids; in a fresh process.

    Returns: build_s, to the first mask; first_us and again_us, a list for each text; refused, how many texts; rows, the
    allowed ids at each place, None where it was not reached. Or refusal, in its words.
    """
    engine = RIVALS[name]()
    start = now()
    try:
        compiled = engine.compile_language(language)
    except Refused as refusal:
        return {"refusal": str(refusal)[:400]}
    session = engine.session(compiled)
    session.fill()
    result: dict[str, Any] = {
        "build_s": (now() - start) / 1e9,
        "first_us": [],
        "again_us": [],
        "accept_us": [],
        "refused": 0,
    }
    for key in ("first_us", "again_us"):
        for ids in texts:
            session = engine.session(compiled)
            masks, accepts, whole = _walk(session, ids)
            result[key].append(masks)
            if key == "first_us":
                result["accept_us"] += accepts
                result["refused"] += not whole
    result["rows"] = []
    for ids in places:
        session = engine.session(compiled)
        if not all(session.accept(token) for token in ids):
            result["rows"].append(None)
            continue
        session.fill()
        bits = np.unpackbits(session.mask.view(np.uint8), bitorder="little")
        result["rows"].append(np.flatnonzero(bits).tolist())
    return result


def load_again(name: str, language: str, path: str) -> dict[str, float]:
    """Seconds from a saved compiled grammar to the first mask, in a fresh process."""
    engine = RIVALS[name]()
    start = now()
    session = engine.session(engine.load(Path(path)))  # type: ignore[attr-defined]
    session.fill()
    return {"cached_s": (now() - start) / 1e9}


def save(name: str, language: str) -> str:
    engine = RIVALS[name]()
    path = Path(tempfile.mkdtemp()) / "compiled"
    engine.save(engine.compile_language(language), path)  # type: ignore[attr-defined]
    return str(path)
