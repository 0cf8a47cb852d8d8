"""Vocabulary: token id → bytes.

A constraint is a language of texts, and a text is bytes; a model writes token ids. This file says which bytes each id
adds to the text, for the tokenizer families in use, so that nothing else has to know about tokenizers.

**The convention.** A token's bytes are what the tokenizer's own decoder makes of it, read token by token. They are
never derived by decode(encode(...)): normalizers lose information (NFKC, lower case), and a token that is part of a
UTF-8 character decodes to U+FFFD on its own. So the decoder's definition is interpreted, on bytes (token_bytes.py):

    byte-level BPE     'Ġtrue'    → b' true'         one printable character per byte (GPT-2's table)
    SentencePiece      '▁true'    → b' true'         ▁ is a space; '<0x0A>' is the byte 0x0A
    WordPiece          'true'     → b' true'         a space before each piece that does not continue a word
                       '##ly'     → b'ly'

**The first position.** Some decoders treat the first token of a text differently: SentencePiece tokenizers that add a
space before the text take it away again ('▁true' at the start is b'true'), and WordPiece puts no space before the first
piece. For those, `first_token_bytes` holds the bytes at the start of the text; `token_bytes` holds those everywhere
else. A token whose bytes are empty at the start ('▁' alone) is not allowed there. Text that is continued (a prefix the
user wrote) is past its first position. Where an engine decodes the new tokens together with the prompt, no position is
the first: use `as_continuation()`.

**What may be lost.** Options that rewrite the text after decoding (`clean_up_tokenization_spaces`, a final `strip()`)
are not a property of tokens; decode without them. A decoder in which a token's bytes depend on what follows it (the
'</w>' suffix of the first BPE models) has no such table, and raises VocabularyError.

**Special tokens** (control, unknown, padding, EOS) have no bytes: they are separate symbols, which only a grammar that
names them can match. Added tokens that are not special are plain text. An id that no token owns is never allowed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from guiderail.errors import VocabularyError
from guiderail.saved_file import read_file, write_file
from guiderail.token_bytes import read_tokenizer, text_encoder

__all__ = ["Vocabulary"]

# Above any tokenizer in sight (262k), below what a wrong id would make us allocate.
MAX_SIZE = 1 << 24

_KIND = "vocabulary"
# What a tokenizer is asked to write, to see whether a saved vocabulary is its own.
_SAMPLES = ("constrained decoding", '{"name":[1,2]}')

# Strings put before a text so that tokenizers that prepend a space prepend it to them; tried in turn. None of them
# merges with what follows in any vocabulary seen, and the result is checked in bytes.
_MARKERS = ("\x02", "\n", "|")


class Vocabulary:
    """The bytes of every token, the special tokens, and how a text may end. Immutable; threads may share it.

    Attributes:
        size:              number of ids, which is the width of the logits; at least one.
        token_bytes:       list of `size` byte strings; b"" for special and unused ids.
        first_token_bytes: the same for the first token of a text, or None when it is no exception (see the module's
            text).
        special_tokens:    name → id. EOS is among them if the tokenizer names it.
        eos_token_ids:     ids that end a text, without duplicates. May be empty: then a text ends only by its length.
    """

    size: int
    special_tokens: dict[str, int]
    eos_token_ids: tuple[int, ...]

    def __init__(
        self,
        token_bytes: Sequence[bytes],
        *,
        eos_token_ids: int | Iterable[int] = (),
        special_tokens: Mapping[str, int] | None = None,
        first_token_bytes: Sequence[bytes] | None = None,
        vocab_size: int | None = None,
        _encode_text: Callable[[str], list[int]] | None = None,
    ) -> None:
        size = len(token_bytes) if vocab_size is None else int(vocab_size)
        if not 0 < size <= MAX_SIZE:
            raise VocabularyError(f"a vocabulary has between 1 and {MAX_SIZE} tokens, not {size}")
        self.size = size
        later = _fit(token_bytes, size, "token_bytes")
        first = None if first_token_bytes is None else _fit(first_token_bytes, size, "first_token_bytes")
        self._name(special_tokens or {}, eos_token_ids)
        for token_id in self._special_ids:
            later[token_id] = b""
            if first is not None:
                first[token_id] = b""
        self._columns = (_join(later), None if first is None or first == later else _join(first))
        self._encode_text = _encode_text

    def _name(self, special_tokens: Mapping[str, int], eos_token_ids: int | Iterable[int]) -> None:
        self.special_tokens = {name: _index(i) for name, i in special_tokens.items()}
        self.eos_token_ids = _unique(eos_token_ids)
        for token_id in (*self.special_tokens.values(), *self.eos_token_ids):
            if token_id >= self.size:
                raise VocabularyError(f"token id {token_id} is not in a vocabulary of size {self.size}")
        self._special_ids = frozenset(self.special_tokens.values()) | frozenset(self.eos_token_ids)

    # Lists are taken apart when somebody asks: the core reads columns, and a file holds them.
    @cached_property
    def token_bytes(self) -> list[bytes]:
        return self._columns[0].split()

    @cached_property
    def first_token_bytes(self) -> list[bytes] | None:
        return None if self._columns[1] is None else self._columns[1].split()

    @classmethod
    def from_bytes(
        cls,
        token_bytes: Sequence[bytes],
        *,
        eos_token_ids: int | Iterable[int] = (),
        special_tokens: Mapping[str, int] | None = None,
        first_token_bytes: Sequence[bytes] | None = None,
        vocab_size: int | None = None,
    ) -> Vocabulary:
        """The vocabulary whose token `i` is `token_bytes[i]`.

        Duplicates and NUL bytes are fine; b"" marks an id that is never allowed. The bytes of a special token are
        ignored.

        >>> vocab = Vocabulary.from_bytes([b"yes", b"no", b""], eos_token_ids=[2])
        >>> vocab.decode([0, 1, 2]), vocab.encode("noyes"), vocab.is_byte_complete
        (b'yesno', [1, 0], False)

        Args:
            token_bytes:       one byte string per id.
            eos_token_ids:     ids that end a text.
            special_tokens:    name → id, for grammars that name them.
            first_token_bytes: as `token_bytes`, at the start of a text; None when the same.
            vocab_size:        width of the logits, if it is not len(token_bytes).
        Raises: VocabularyError for an empty list, an id out of range, or an element that is not bytes.
        """
        return cls(
            token_bytes,
            eos_token_ids=eos_token_ids,
            special_tokens=special_tokens,
            first_token_bytes=first_token_bytes,
            vocab_size=vocab_size,
        )

    @classmethod
    def from_tokenizer(
        cls,
        tokenizer: Any,
        *,
        vocab_size: int | None = None,
        eos_token_ids: int | Iterable[int] | None = None,
    ) -> Vocabulary:
        """The vocabulary of a tokenizer.

        Args:
            tokenizer:     Hugging Face's fast or slow, `tokenizers.Tokenizer`, `tiktoken.Encoding`,
                           `sentencepiece.SentencePieceProcessor`, or mistral-common's (tekken too). It is kept for
                           `encode`, and not modified.
            vocab_size:    width of the model's logits (`model.config.vocab_size`). Often padded beyond the tokenizer:
                           the ids in between are never allowed. Tokens at or beyond it cannot be sampled (an image
                           token that only the tokenizer knows, say) and are left out.
            eos_token_ids: more ids that end a text (`model.generation_config.eos_token_id`), besides the tokenizer's.
        Raises: VocabularyError for a tokenizer of an unknown kind, or one whose tokens have no fixed bytes.
        """
        table = read_tokenizer(tokenizer)
        size = table.size
        if size > MAX_SIZE:
            raise VocabularyError(f"token id {size - 1} is beyond the largest vocabulary ({MAX_SIZE})")
        width = size if vocab_size is None else int(vocab_size)
        # An EOS that the tokenizer names and the logits lack is left out; one that the user names is an error.
        own = [i for i in table.eos_token_ids if i < width]
        return cls(
            _column(table.token_bytes, size),
            eos_token_ids=(*_unique(() if eos_token_ids is None else eos_token_ids), *own),
            special_tokens={name: i for name, i in table.special_tokens.items() if i < width},
            first_token_bytes=None if table.first_token_bytes is None else _column(table.first_token_bytes, size),
            vocab_size=width,
            _encode_text=table.encode_text,
        )

    # --- files -------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything but the tokenizer's `encode` to `path`, atomically. Raises: OSError.

        Reading a tokenizer of 128k tokens takes some 200 ms, loading what was saved some 25, core included.
        """
        write_file(path, _KIND, {"vocabulary": self.fingerprint}, self._sections())

    @classmethod
    def load(cls, path: str | os.PathLike[str], tokenizer: Any = None) -> Vocabulary:
        """Read what `save` wrote.

        Args:
            tokenizer: the one that the vocabulary was read from, for `encode` and canonical forced tokens; as for
                `from_tokenizer`. None: texts are encoded in the fewest tokens.
        Raises:
            ValueError: not such a file, another format version, damaged, or `tokenizer` writes a text in tokens that
                mean another one in this vocabulary.
            VocabularyError: a tokenizer of an unknown kind.
            OSError: the file cannot be read.
        """
        header, sections = read_file(path, _KIND)
        vocabulary = cls._from_sections(sections)
        if vocabulary.fingerprint != header["vocabulary"]:
            raise ValueError(f"{path} is damaged")
        if tokenizer is not None:
            encode = text_encoder(tokenizer)
            for text in _SAMPLES:
                ids = encode(text)
                known = all(i < vocabulary.size for i in ids)
                # Some tokenizers put spaces where there were none.
                if not known or vocabulary.decode(ids).replace(b" ", b"") != text.encode().replace(b" ", b""):
                    raise ValueError(f"{path} was not saved for this tokenizer")
            vocabulary._encode_text = encode
        return vocabulary

    def _sections(self) -> dict[str, bytes]:
        facts = {"eos_token_ids": list(self.eos_token_ids), "special_tokens": self.special_tokens}
        sections = {"facts": json.dumps(facts).encode("utf-8", "surrogatepass")}
        for name, column in zip(("later", "first"), self._columns, strict=True):
            if column is not None:
                sections[f"{name} offsets"] = column.offsets.astype("<u4").tobytes()
                sections[f"{name} bytes"] = column.data
        return sections

    @classmethod
    def _from_sections(cls, sections: Mapping[str, bytes]) -> Vocabulary:
        damaged = ValueError("the file's vocabulary is damaged")
        self = cls.__new__(cls)
        try:
            later = _Column.read(sections["later bytes"], sections["later offsets"])
            self.size = later.offsets.size - 1
            facts = json.loads(sections["facts"].decode("utf-8", "surrogatepass"))
            self._name(facts["special_tokens"], facts["eos_token_ids"])
            first = (
                _Column.read(sections["first bytes"], sections["first offsets"]) if "first bytes" in sections else None
            )
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError, VocabularyError) as error:
            raise damaged from error
        special = list(self._special_ids)
        for column in (later, first):
            # Never written: no or too many tokens, columns of different lengths, bytes of special tokens.
            if column and (not 0 < column.offsets.size - 1 == self.size <= MAX_SIZE or column.lengths[special].any()):
                raise damaged
        if first and first.data == later.data and np.array_equal(first.offsets, later.offsets):
            raise damaged
        self._columns = (later, first)
        self._encode_text = None
        return self

    def as_continuation(self) -> Vocabulary:
        """This vocabulary without a first position: for engines that decode new tokens together with the prompt's."""
        if self._columns[1] is None:
            return self
        return Vocabulary(
            self.token_bytes,
            eos_token_ids=self.eos_token_ids,
            special_tokens=self.special_tokens,
            _encode_text=self._encode_text,
        )

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 over all that masks depend on: bytes at both positions, special tokens, EOS; not `encode`."""
        digest = hashlib.sha256(b"guiderail vocabulary 1\0")
        for first in (False, True):
            data, offsets, flags = self._packed(first=first)
            for part in (len(data).to_bytes(8, "little"), data, offsets.astype("<u4").tobytes(), flags.tobytes()):
                digest.update(part)
        names = sorted(self.special_tokens.items())
        digest.update(json.dumps([names, list(self.eos_token_ids)]).encode())
        return digest.hexdigest()

    @cached_property
    def missing_bytes(self) -> frozenset[int]:
        """Bytes that no token consists of past the first position, so that not every text can be written."""
        column = self._columns[0]
        single = column.offsets[:-1][column.lengths == 1]
        return frozenset(range(256)) - frozenset(np.frombuffer(column.data, np.uint8)[single].tolist())

    @property
    def is_byte_complete(self) -> bool:
        """Whether every byte string can be written past the first position. If not, liveness has to be checked."""
        return not self.missing_bytes

    def decode(self, token_ids: Iterable[int]) -> bytes:
        """The text of these tokens, from the first position on. Special tokens add nothing to it.

        Raises: VocabularyError for an id out of range.
        """
        parts: list[bytes] = []
        column = self.token_bytes if self.first_token_bytes is None else self.first_token_bytes
        for token_id in token_ids:
            if not 0 <= token_id < self.size:
                raise VocabularyError(f"token id {token_id} is not in a vocabulary of size {self.size}")
            parts.append(column[token_id])
            if token_id not in self._special_ids:
                column = self.token_bytes
        return b"".join(parts)

    def encode(self, text: bytes | str, *, first: bool = False) -> list[int]:
        """Tokens whose bytes are exactly `text`, without special tokens; the tokenizer's own choice where it has one.

        That choice, the canonical tokenization, is what a model has seen in training. It exists where the tokenizer
        gives the text back byte for byte. Elsewhere (invalid UTF-8, a text that a normalizer changes or that spells a
        special token's name, a vocabulary without a tokenizer) the result has the fewest possible tokens, and of
        those choices the longest tokens first.

        Args:
            text:  bytes, or a string that is taken as UTF-8.
            first: True when the text begins at the first position, False when it continues one.
        Raises: VocabularyError if no tokens spell the text.
        """
        data = text.encode() if isinstance(text, str) else bytes(text)
        if not data:
            return []
        first = first and self.first_token_bytes is not None
        valid = data[: _utf8_prefix(data)]
        head = self._canonical(valid, first=first) if valid and self._encode_text is not None else None
        if head is None:
            return self._fewest(data, first=first)
        return head + self._fewest(data[len(valid) :], first=False)

    def _canonical(self, data: bytes, *, first: bool) -> list[int] | None:
        """What the tokenizer makes of this valid UTF-8, or None if that does not spell it."""
        assert self._encode_text is not None
        text = data.decode()
        ids = self._encode_text(text)
        if self._spell(ids, data, first=first):
            return ids
        if first:
            return None
        # A tokenizer that prepends a space does so before the marker; what comes after it is tokenized as a
        # continuation.
        for marker in _MARKERS:
            before = self._encode_text(marker)
            ids = self._encode_text(marker + text)
            rest = ids[len(before) :]
            if ids[: len(before)] == before and self._spell(rest, data, first=False):
                return rest
        return None

    def _spell(self, token_ids: Sequence[int], data: bytes, *, first: bool) -> bool:
        """Whether these are plain tokens of the vocabulary with exactly these bytes."""
        if not all(0 <= i < self.size and i not in self._special_ids for i in token_ids):
            return False
        columns = [self.token_bytes] * len(token_ids)
        if first and columns and self.first_token_bytes is not None:
            columns[0] = self.first_token_bytes
        parts = [column[i] for column, i in zip(columns, token_ids, strict=True)]
        # A token without bytes here can never be generated here.
        return all(parts) and b"".join(parts) == data

    def _fewest(self, data: bytes, *, first: bool) -> list[int]:
        """Fewest tokens, by dynamic programming from the end: O(len(data) * longest token) dictionary look-ups."""
        infinity = len(data) + 1
        count = [infinity] * len(data) + [0]
        choice = [-1] * len(data)
        for start in range(len(data) - 1, -1, -1):
            by_bytes, longest = self._by_bytes if start or not first else self._by_first_bytes
            for end in range(min(len(data), start + longest), start, -1):
                if count[end] + 1 < count[start]:
                    token_id = by_bytes.get(data[start:end])
                    if token_id is not None:
                        count[start], choice[start] = count[end] + 1, token_id
        if data and count[0] == infinity:
            raise VocabularyError(f"no tokens of this vocabulary spell {data[:40]!r}{'…' if len(data) > 40 else ''}")
        found: list[int] = []
        start = 0
        while start < len(data):
            found.append(choice[start])
            column = self.first_token_bytes if first and start == 0 and self.first_token_bytes else self.token_bytes
            start += len(column[choice[start]])
        return found

    @cached_property
    def _by_bytes(self) -> tuple[dict[bytes, int], int]:
        return _lookup(self.token_bytes)

    @cached_property
    def _by_first_bytes(self) -> tuple[dict[bytes, int], int]:
        return _lookup(self.first_token_bytes or self.token_bytes)

    def _packed(self, *, first: bool = False) -> tuple[bytes, npt.NDArray[np.uint32], npt.NDArray[np.uint8]]:
        """What the compiled core takes.

        Args:
            first: the bytes at the first position instead (the same as elsewhere if `first_token_bytes` is None).
        Returns: (data, offsets, flags). Token `i` is `data[offsets[i]:offsets[i + 1]]`. offsets: uint32 (size + 1).
            flags: uint8 (size), 0 = unused, 1 = plain text, 2 = special. A plain token may be empty at one of the two
                positions.
        """
        later, at_first = self._columns
        column = at_first if first and at_first is not None else later
        flags = (later.lengths > 0).astype(np.uint8)
        if at_first is not None:
            flags |= at_first.lengths > 0
        flags[list(self._special_ids)] = 2
        return column.data, column.offsets, flags

    def __len__(self) -> int:
        return self.size

    def __eq__(self, other: object) -> bool:
        return self.fingerprint == other.fingerprint if isinstance(other, Vocabulary) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        text = np.count_nonzero(self._columns[0].lengths)
        return (
            f"Vocabulary(size={self.size}, text={text}, special={len(self._special_ids)}, "
            f"eos_token_ids={self.eos_token_ids}, byte_complete={self.is_byte_complete}, "
            f"first_differs={self._columns[1] is not None}, fingerprint={self.fingerprint[:12]})"
        )


# --- columns ----------------------------------------------------------------------------------------------------------


class _Column(NamedTuple):
    """The bytes of all tokens at one kind of position, end to end: token `i` is `data[offsets[i]:offsets[i + 1]]`."""

    data: bytes
    offsets: npt.NDArray[np.uint32]

    @property
    def lengths(self) -> npt.NDArray[np.uint32]:
        return np.diff(self.offsets)

    def split(self) -> list[bytes]:
        return [self.data[begin:end] for begin, end in pairwise(self.offsets.tolist())]

    @classmethod
    def read(cls, data: bytes, offsets: bytes) -> _Column:
        """Raises: ValueError if the offsets do not divide the bytes."""
        ends = np.frombuffer(offsets, dtype="<u4").astype(np.uint32)
        if ends.size < 2 or ends[0] != 0 or ends[-1] != len(data) or (ends[1:] < ends[:-1]).any():
            raise ValueError("offsets do not fit the bytes")
        return cls(data, ends)


def _join(column: Sequence[bytes]) -> _Column:
    ends = np.cumsum(np.fromiter(map(len, column), dtype=np.uint64, count=len(column)), dtype=np.uint64)
    if ends[-1] >= 1 << 32:
        raise VocabularyError(f"the tokens' bytes exceed 4 GiB ({int(ends[-1])})")
    offsets = np.zeros(len(column) + 1, dtype=np.uint32)
    offsets[1:] = ends
    return _Column(b"".join(column), offsets)


# --- plain checks -----------------------------------------------------------------------------------------------------


def _index(value: Any) -> int:
    try:
        token_id = int(value.__index__())
    except (AttributeError, TypeError):
        raise VocabularyError(f"a token id is an integer, not {value!r}") from None
    if token_id < 0:
        raise VocabularyError(f"a token id is not negative: {token_id}")
    return token_id


def _unique(token_ids: int | Iterable[int]) -> tuple[int, ...]:
    ids = token_ids if isinstance(token_ids, Iterable) else (token_ids,)
    return tuple(dict.fromkeys(_index(i) for i in ids))


def _fit(column: Sequence[bytes], size: int, name: str) -> list[bytes]:
    """A copy of exactly `size` elements."""
    if not set(map(type, column)) <= {bytes}:
        i, token = next((i, token) for i, token in enumerate(column) if type(token) is not bytes)
        raise VocabularyError(f"{name}[{i}] is {type(token).__name__}, not bytes")
    return [*column[:size], *[b""] * (size - len(column))]


def _column(by_id: Mapping[int, bytes], size: int) -> list[bytes]:
    column = [b""] * size
    for i, token in by_id.items():
        column[i] = token
    return column


def _lookup(column: Sequence[bytes]) -> tuple[dict[bytes, int], int]:
    """Bytes → smallest id that has them, and the length of the longest."""
    by_bytes = {token: i for i, token in reversed(list(enumerate(column))) if token}
    return by_bytes, max(map(len, by_bytes), default=0)


def _utf8_prefix(data: bytes) -> int:
    """Length of the longest prefix that is valid UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.start
    return len(data)
