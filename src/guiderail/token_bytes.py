"""What bytes each token of a tokenizer stands for, read from the tokenizer's own definition.

Two halves. `interpret_decoder` reads the decoder of a `tokenizers` library tokenizer, which is a short pipeline of
named steps that the library can serialise to JSON, and runs it over all tokens at once, on bytes:

    [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
     {"type": "Strip", "content": " ", "start": 1, "stop": 0}]

    '▁true' → b' true' (and b'true' if it is the first token: after Fuse there is one string, so Strip sees the start
    only) '<0x0A>' → b'\\n'

A pipeline is usable if every token's bytes depend on nothing but the token and whether it is the first. Steps that look
further are refused by name. The alternative, one rule for each class of tokenizer, is what other libraries do; it is
wrong as soon as a tokenizer of a known class comes with a decoder of its own.

`read_tokenizer` knows the kinds: which attributes hold the vocabulary, the special tokens, EOS and the encoder. A kind
is recognised by class names and attributes, so that no tokenizer library is imported here.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from guiderail.errors import VocabularyError

__all__ = ["TextEncoder", "TokenTable", "interpret_decoder", "printable_to_byte", "read_tokenizer", "text_encoder"]

SPACE_SYMBOL = "▁"  # U+2581, SentencePiece's space


@dataclass(frozen=True)
class TextEncoder:
    """The tokenizer's own tokenization of a text, no special tokens added. A class, not a closure: it is pickled."""

    kind: str
    tokenizer: Any

    def __call__(self, text: str) -> list[int]:
        match self.kind:
            case "tokenizers":
                ids = self.tokenizer.encode(text, add_special_tokens=False).ids
            case "transformers":
                ids = self.tokenizer.encode(text, add_special_tokens=False)
            case "tiktoken":
                ids = self.tokenizer.encode_ordinary(text)
            case "sentencepiece":
                ids = self.tokenizer.encode(text)
            case "mistral-common":
                ids = self.tokenizer.encode(text, bos=False, eos=False)
            case _:
                raise AssertionError(self.kind)
        return list(ids)


@dataclass(frozen=True)
class TokenTable:
    """A tokenizer, read.

    Attributes:
        token_bytes:       id → bytes, past the first position. Ids may have gaps.
        first_token_bytes: the same at the first position; None when there is no difference.
        special_tokens:    name → id; their entries in the two columns mean nothing.
        eos_token_ids:     the tokenizer's own.
        encode_text:       its encoder.
    """

    token_bytes: dict[int, bytes]
    first_token_bytes: dict[int, bytes] | None
    special_tokens: dict[str, int]
    eos_token_ids: tuple[int, ...]
    encode_text: TextEncoder

    @property
    def size(self) -> int:
        """One more than the largest id."""
        return 1 + max((*self.token_bytes, *self.special_tokens.values()), default=-1)


# --- decoders ---------------------------------------------------------------------------------------------------------

Column = list[bytes]
Step = Callable[[Column, bool], Column]  # (values, are these first tokens?) → values


def printable_to_byte() -> dict[str, int]:
    """GPT-2's table: the printable character that stands for each byte in a byte-level vocabulary, inverted.

    Printable Latin-1 characters stand for themselves; the other 68 bytes, in order, for the characters from U+0100 on.
    So a vocabulary file holds neither spaces nor control characters: 'Ġ' (U+0120) is the space, 'Ċ' (U+010A) the
    newline.

    Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.2.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = sorted(set(range(256)) - set(printable))
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(others)}


_PRINTABLE_TO_BYTE = printable_to_byte()


def byte_level(token: str) -> bytes:
    """The bytes of a byte-level token; a token with a character outside the table stands for its own UTF-8.

    >>> byte_level("Ġtrue"), byte_level("日本")
    (b' true', b'\\xe6\\x97\\xa5\\xe6\\x9c\\xac')
    """
    try:
        return bytes([_PRINTABLE_TO_BYTE[c] for c in token])
    except KeyError:
        return token.encode()


_PRINTABLE_TO_LATIN_1 = str.maketrans({c: chr(b) for c, b in _PRINTABLE_TO_BYTE.items()})


def _byte_level_column(column: Column) -> Column:
    """`byte_level` of every token, in one translation of all of them joined: five times faster for 128k tokens.

    One character is one byte, so the lengths of the strings are those of the slices.
    """
    tokens = [token.decode() for token in column]
    joined = "".join(tokens)
    outside = set(joined) - _PRINTABLE_TO_BYTE.keys()
    if outside:  # added tokens, as a rule: few
        exceptions = {i: token for i, token in enumerate(tokens) if not outside.isdisjoint(token)}
        plain = _byte_level_column([b"" if i in exceptions else token for i, token in enumerate(column)])
        return [byte_level(exceptions[i]) if i in exceptions else token for i, token in enumerate(plain)]
    data = joined.translate(_PRINTABLE_TO_LATIN_1).encode("latin-1")
    ends = list(itertools.accumulate(map(len, tokens), initial=0))
    return [data[start:end] for start, end in itertools.pairwise(ends)]


def interpret_decoder(spec: Mapping[str, Any] | None, tokens: Iterable[str]) -> tuple[Column, Column | None]:
    """The bytes that a `tokenizers` decoder gives each token, past the first position and at it.

    Args:
        spec:   the decoder as the library serialises it (the "decoder" of a tokenizer.json); None if it has none.
        tokens: token strings, added tokens included.
    Returns: two columns in the order of `tokens`; the second is None when the decoder treats all positions alike.
    Raises: VocabularyError naming a step that makes a token's bytes depend on other tokens.

    >>> metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    >>> interpret_decoder(metaspace, ["▁yes", "no"])
    ([b' yes', b'no'], [b'yes', b'no'])
    """
    steps, position_matters = _steps(spec)
    strings = [token.encode() for token in tokens]

    def run(first: bool) -> Column:
        column = strings
        for step in steps:
            column = step(column, first)
        return column

    return run(False), run(True) if position_matters else None


def _steps(spec: Mapping[str, Any] | None) -> tuple[list[Step], bool]:
    """The pipeline as functions, and whether any of them looks at the position."""
    if spec is None:  # the library joins tokens with spaces
        return [lambda column, first: column if first else [b" " + token for token in column]], True
    steps: list[Step] = []
    position_matters = False
    fused = False  # whether the tokens have become one string, in which the next step no longer sees where they begin
    for part in _flatten(spec):
        kind = part["type"]
        if fused and kind in ("ByteFallback", "ByteLevel", "Metaspace", "WordPiece"):
            raise VocabularyError(f"tokenizer's decoder: {kind} after the tokens are joined acts across tokens")
        match kind:
            case "Fuse":
                fused = True
            case "ByteLevel":
                steps.append(lambda column, first: _byte_level_column(column))
                fused = True
            case "ByteFallback":
                steps.append(lambda column, first: [_byte_fallback(token) for token in column])
            case "Replace":
                steps.append(_replace(part, fused))
            case "Metaspace":
                symbol = part.get("replacement", SPACE_SYMBOL).encode()
                strips = part.get("prepend_scheme", "always") != "never"
                position_matters |= strips
                steps.append(_metaspace(symbol, strips))
            case "WordPiece":
                position_matters = True
                steps.append(_word_piece(part.get("prefix", "##").encode(), bool(part.get("cleanup", True))))
            case "Strip":
                position_matters |= fused
                steps.append(_strip(part, fused))
            case _:
                raise VocabularyError(f"tokenizer's decoder: with {kind!r} a token's bytes depend on its neighbours")
    return steps, position_matters


def _flatten(spec: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    if spec["type"] == "Sequence":
        for part in spec["decoders"]:
            yield from _flatten(part)
    else:
        yield spec


_BYTE_TOKEN = re.compile(rb"<0x([0-9A-Fa-f]{2})>")


def _byte_fallback(token: bytes) -> bytes:
    match = _BYTE_TOKEN.fullmatch(token)
    return bytes([int(match.group(1), 16)]) if match else token


def _replace(part: Mapping[str, Any], fused: bool) -> Step:
    pattern = part["pattern"].get("String")
    if not pattern:
        raise VocabularyError("tokenizer's decoder: Replace with a regular expression is not supported")
    if fused and len(pattern) > 1:
        raise VocabularyError(
            f"tokenizer's decoder: replacing {pattern!r} after the tokens are joined acts across tokens"
        )
    old, new = pattern.encode(), part["content"].encode()
    return lambda column, first: [token.replace(old, new) for token in column]


def _metaspace(symbol: bytes, strips: bool) -> Step:
    # At the start of a text the library drops every ▁ of the token, not only the leading one.
    return lambda column, first: [token.replace(symbol, b"" if first and strips else b" ") for token in column]


# What the WordPiece decoder tidies up, token by token, each with the space that was put before it.
_CLEANUP = tuple(
    (old.encode(), new.encode())
    for old, new in (
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" do not", " don't"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    )
)


def _word_piece(prefix: bytes, cleanup: bool) -> Step:
    def piece(token: bytes, first: bool) -> bytes:
        if not first:
            token = token[len(prefix) :] if token.startswith(prefix) else b" " + token
        if cleanup:
            for old, new in _CLEANUP:
                token = token.replace(old, new)
        return token

    return lambda column, first: [piece(token, first) for token in column]


def _strip(part: Mapping[str, Any], fused: bool) -> Step:
    content, start, stop = part["content"].encode(), part["start"], part["stop"]
    if fused and (stop or start > 1):
        raise VocabularyError("tokenizer's decoder: Strip looks beyond the first token")

    def strip(token: bytes) -> bytes:
        for _ in range(start):
            token = token.removeprefix(content)
        for _ in range(stop):
            token = token.removesuffix(content)
        return token

    return lambda column, first: [strip(token) for token in column] if first or not fused else column


# --- kinds of tokenizers ----------------------------------------------------------------------------------------------


def read_tokenizer(tokenizer: Any) -> TokenTable:
    """The table of any supported tokenizer.

    Raises: VocabularyError for an unknown kind, or a decoder that `interpret_decoder` refuses.
    """
    kind, inner = _kind_of(tokenizer)
    match kind:
        case "transformers":
            return _read_transformers(inner)
        case "tokenizers":
            return _read_tokenizers(inner)
        case "tiktoken":
            return _read_tiktoken(inner)
        case "sentencepiece":
            return _read_sentencepiece(inner)
        case _:
            return _read_mistral_common(inner)


def text_encoder(tokenizer: Any) -> TextEncoder:
    """Only the encoder of any supported tokenizer, which takes no time. Raises: VocabularyError for an unknown kind."""
    kind, inner = _kind_of(tokenizer)
    backend = getattr(inner, "backend_tokenizer", None) if kind == "transformers" else None
    return TextEncoder(kind, inner) if backend is None else TextEncoder("tokenizers", backend)


def _kind_of(tokenizer: Any) -> tuple[str, Any]:
    """A kind that `TextEncoder` knows, and the object that tokenizes."""
    lineage = {(cls.__module__.partition(".")[0], cls.__name__) for cls in type(tokenizer).__mro__}
    modules, names = {module for module, _ in lineage}, {name for _, name in lineage}
    if "PreTrainedTokenizerBase" in names:
        if "MistralCommonBackend" in names or "MistralCommonTokenizer" in names:
            return "mistral-common", _within_mistral_common(tokenizer.tokenizer)
        return "transformers", tokenizer
    if ("tokenizers", "Tokenizer") in lineage:
        return "tokenizers", tokenizer
    if ("tokenizers", "BaseTokenizer") in lineage:
        return "tokenizers", tokenizer._tokenizer
    if ("tiktoken", "Encoding") in lineage:
        return "tiktoken", tokenizer
    if "SentencePieceProcessor" in names:
        return "sentencepiece", tokenizer
    if "mistral_common" in modules:
        return "mistral-common", _within_mistral_common(tokenizer)
    raise VocabularyError(
        f"{type(tokenizer).__module__}.{type(tokenizer).__qualname__} is not a tokenizer of a known kind "
        "(Hugging Face, tokenizers, tiktoken, SentencePiece, mistral-common); Vocabulary.from_bytes takes any"
    )


def _read_tokenizers(
    backend: Any, *, specials: Mapping[str, int] | None = None, eos_token_ids: tuple[int, ...] = ()
) -> TokenTable:
    """The `tokenizers` library, which is also what Hugging Face's fast tokenizers hold."""
    strings = {i: token for token, i in backend.get_vocab(with_added_tokens=True).items()}
    added = backend.get_added_tokens_decoder()
    strings |= {i: token.content for i, token in added.items()}
    special_tokens = {token.content: i for i, token in added.items() if token.special} | dict(specials or {})
    unknown = getattr(backend.model, "unk_token", None)
    if unknown is not None and backend.token_to_id(unknown) is not None:
        special_tokens[unknown] = backend.token_to_id(unknown)
    decoder = backend.decoder
    spec = None if decoder is None else json.loads(decoder.__getstate__())
    later, first = interpret_decoder(spec, strings.values())
    return TokenTable(
        dict(zip(strings, later, strict=True)),
        None if first is None else dict(zip(strings, first, strict=True)),
        special_tokens,
        eos_token_ids,
        TextEncoder("tokenizers", backend),
    )


def _read_transformers(tokenizer: Any) -> TokenTable:
    eos = tokenizer.eos_token_id
    eos_token_ids = () if eos is None else tuple(eos) if isinstance(eos, list | tuple) else (eos,)
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in tokenizer.all_special_tokens}
    specials = {name: i for name, i in ids.items() if i is not None}
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        return _read_tokenizers(backend, specials=specials, eos_token_ids=eos_token_ids)
    added = {i: str(token) for i, token in tokenizer.added_tokens_decoder.items()}
    specials |= {str(token): i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    later, first = _slow_columns(tokenizer, added)
    literal = {i: token.encode() for i, token in added.items()}
    return TokenTable(
        later | literal,
        None if first is None else first | literal,
        specials,
        eos_token_ids,
        TextEncoder("transformers", tokenizer),
    )


def _slow_columns(tokenizer: Any, added: Mapping[int, str]) -> tuple[dict[int, bytes], dict[int, bytes] | None]:
    """The columns of a tokenizer in Python, without its added tokens."""
    encodings = [value for value in vars(tokenizer).values() if type(value).__module__.startswith("tiktoken")]
    if encodings:
        return _read_tiktoken(encodings[0]).token_bytes, None
    strings = {i: token for token, i in tokenizer.get_vocab().items() if i not in added}
    if hasattr(tokenizer, "sp_model"):
        # Their decode() strips the text; the last position's part of that is not a property of tokens.
        return _sentencepiece_columns(strings, tokenizer.sp_model, strips=True)
    if hasattr(tokenizer, "byte_decoder"):
        return {i: byte_level(token) for i, token in strings.items()}, None
    if any(
        cls.__name__ == "ByT5Tokenizer" for cls in type(tokenizer).__mro__
    ):  # the character with a byte's number stands for the byte
        return {i: token.encode("latin-1") for i, token in strings.items()}, None
    if hasattr(tokenizer, "wordpiece_tokenizer"):
        later, first = interpret_decoder({"type": "WordPiece", "prefix": "##", "cleanup": False}, strings.values())
        return dict(zip(strings, later, strict=True)), dict(zip(strings, first or later, strict=True))
    raise VocabularyError(
        f"{type(tokenizer).__name__} is a tokenizer in Python of an unknown kind; use its fast version, or "
        "Vocabulary.from_bytes"
    )


def _read_tiktoken(encoding: Any) -> TokenTable:
    token_bytes: dict[int, bytes] = {}
    for i in range(encoding.n_vocab):
        try:
            token_bytes[i] = encoding.decode_single_token_bytes(i)
        except KeyError:  # a gap: special tokens often begin at a round number
            continue
    special_tokens = {name: encoding.encode_single_token(name) for name in sorted(encoding.special_tokens_set)}
    eos = special_tokens.get("<|endoftext|>")  # what the library calls eot_token
    return TokenTable(
        token_bytes, None, special_tokens, () if eos is None else (eos,), TextEncoder("tiktoken", encoding)
    )


def _read_sentencepiece(processor: Any) -> TokenTable:
    strings = {i: processor.id_to_piece(i) for i in range(processor.get_piece_size())}
    # Whether the model's decoder takes away the space that its encoder puts before a text is in its normalizer's
    # settings, which the library shows only as protobuf. One piece that begins with ▁ tells.
    probe = next((i for i, s in strings.items() if len(s) > 1 and s[0] == SPACE_SYMBOL and s[1] != SPACE_SYMBOL), None)
    strips = probe is not None and not processor.decode([probe]).startswith(" ")
    later, first = _sentencepiece_columns(strings, processor, strips=strips)
    special_tokens = {s: i for i, s in strings.items() if processor.is_control(i) or processor.is_unknown(i)}
    eos = processor.eos_id()
    return TokenTable(later, first, special_tokens, (eos,) if eos >= 0 else (), TextEncoder("sentencepiece", processor))


def _sentencepiece_columns(
    strings: Mapping[int, str], processor: Any, *, strips: bool
) -> tuple[dict[int, bytes], dict[int, bytes] | None]:
    """Pieces → bytes. `strings` may number the pieces differently from the model (fairseq's offset by one)."""
    later: dict[int, bytes] = {}
    first: dict[int, bytes] = {}
    for i, piece in strings.items():
        own = processor.piece_to_id(piece)
        known = processor.id_to_piece(own) == piece  # an unknown piece has the id of <unk>
        if known and (processor.is_control(own) or processor.is_unknown(own) or processor.is_unused(own)):
            continue
        if known and processor.is_byte(own):
            later[i] = first[i] = _byte_fallback(piece.encode())
        else:
            later[i] = piece.replace(SPACE_SYMBOL, " ").encode()
            first[i] = later[i].removeprefix(b" ") if piece.startswith(SPACE_SYMBOL) else later[i]
    return later, first if strips else None


def _within_mistral_common(tokenizer: Any) -> Any:
    """What tokenizes inside a MistralTokenizer, or inside what wraps that."""
    for name in ("instruct_tokenizer", "tokenizer"):
        tokenizer = getattr(tokenizer, name, tokenizer)
    return tokenizer


def _read_mistral_common(inner: Any) -> TokenTable:
    """The two kinds that a MistralTokenizer wraps: SentencePiece, and tekken (byte-level BPE, special tokens first)."""
    encode_text = TextEncoder("mistral-common", inner)
    if hasattr(inner, "id_to_byte_piece") and hasattr(inner, "num_special_tokens"):
        below = inner.num_special_tokens
        token_bytes = {i: inner.id_to_byte_piece(i) for i in range(below, inner.n_words)}
        special_tokens = {inner.id_to_piece(i): i for i in range(below)}
        return TokenTable(token_bytes, None, special_tokens, (inner.eos_id,), encode_text)
    processor = getattr(inner, "_model", None)
    if processor is None or type(processor).__name__ != "SentencePieceProcessor":
        raise VocabularyError(f"{type(inner).__name__} holds neither a tekken nor a SentencePiece model")
    table = _read_sentencepiece(processor)
    return TokenTable(
        table.token_bytes, table.first_token_bytes, table.special_tokens, table.eos_token_ids, encode_text
    )
