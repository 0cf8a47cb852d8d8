"""The Llama-3 vocabulary as the `llama-models` package ships it: 128,000 byte-pair tokens and 256 special ones.

Token bytes come straight from the tiktoken file, never from `decode`, so that half a UTF-8 character is what it is.
Special tokens have no bytes here (`b""`), which every engine under test reads as 'never inside the text'.
"""

from __future__ import annotations

import base64
import importlib.util
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

END_OF_TEXT = "<|end_of_text|>"
END_OF_TURN = "<|eot_id|>"


@dataclass(frozen=True)
class BenchmarkVocabulary:
    """Everything an engine's adapter needs to know about the tokenizer.

    token_bytes:      index = token id; special tokens are `b""`.
    special_tokens:   text of a special token -> token id.
    eos_token_ids:    the ids that end a text; the first is the canonical one.
    """

    name: str
    token_bytes: list[bytes]
    special_tokens: dict[str, int]
    eos_token_ids: list[int]
    split_pattern: str

    def __len__(self) -> int:
        return len(self.token_bytes)

    @cached_property
    def encoding(self) -> Any:
        """The reference tokenizer (tiktoken), for the canonical token ids of a text."""
        import tiktoken

        return tiktoken.Encoding(
            name=self.name,
            pat_str=self.split_pattern,
            mergeable_ranks={data: token_id for token_id, data in enumerate(self.token_bytes) if data},
            special_tokens=self.special_tokens,
        )

    def encode(self, text: str) -> list[int]:
        return self.encoding.encode(text, disallowed_special=())


def _package_file(name: str) -> Path:
    spec = importlib.util.find_spec("llama_models")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("benchmarks need the package llama-models (pip install llama-models) for the 128k vocabulary")
    return Path(next(iter(spec.submodule_search_locations))) / "llama3" / name


@lru_cache(maxsize=1)
def load() -> BenchmarkVocabulary:
    """Read the vocabulary (about 0.2 s)."""
    from llama_models.llama3.tokenizer import Tokenizer

    token_bytes: list[bytes] = []
    with _package_file("tokenizer.model").open("rb") as lines:
        for line in lines:
            encoded, rank = line.split()
            if int(rank) != len(token_bytes):
                raise ValueError("tokenizer.model is not in rank order")
            token_bytes.append(base64.b64decode(encoded))
    special_tokens = Tokenizer.get_instance().special_tokens
    token_bytes.extend(b"" for _ in special_tokens)
    return BenchmarkVocabulary(
        name="llama3",
        token_bytes=token_bytes,
        special_tokens=dict(special_tokens),
        eos_token_ids=[special_tokens[END_OF_TEXT], special_tokens[END_OF_TURN]],
        split_pattern=Tokenizer.pat_str,
    )


def load_bytes() -> BenchmarkVocabulary:
    """A token per byte and two special ones: for what a grammar accepts, where its masks do not matter."""
    specials = {END_OF_TEXT: 256, END_OF_TURN: 257}
    return BenchmarkVocabulary(
        name="bytes",
        token_bytes=[bytes([byte]) for byte in range(256)] + [b"", b""],
        special_tokens=specials,
        eos_token_ids=list(specials.values()),
        split_pattern=r"[\s\S]",
    )


VOCABULARIES = {"llama3": load, "bytes": load_bytes}
