"""Token bytes, checked by routes that share nothing with the package: the vocabulary files themselves, tiktoken's and
SentencePiece's own tables, and the tokenizer's decode() of whole sequences, of which token bytes must be the pieces."""

from __future__ import annotations

import itertools
import json
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import guiderail as gr
import real_tokenizers
from guiderail import Vocabulary, VocabularyError
from guiderail.token_bytes import interpret_decoder, printable_to_byte

tokenizers = pytest.importorskip("tokenizers")

BYTES = [bytes([b]) for b in range(256)]
TEXTS = [
    "hello world",
    " two  spaces and\ttabs\n\n  def f(x):\n    return {'a': 1}",
    '{"name": "Zoë", "tags": ["日本", "🎉👩\u200d👩"], "n": -1.5e10}',
    "שלום \u202eעולם\x00\x7f",
    "a",
    " ",
    "\n",
]


# --- small tokenizers -------------------------------------------------------------------------------------------------


def byte_level(**changes: Any) -> Any:
    """All 256 bytes and a few merges."""
    table = real_tokenizers._byte_to_printable()
    merges = [("t", "r"), ("u", "e"), ("tr", "ue"), (table[32], "true"), ('"', ":"), (table[0xC3], table[0xA9])]
    vocab = {character: i for i, character in enumerate(table)}
    for left, right in merges:
        vocab[left + right] = len(vocab)
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, merges))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=changes.get("prefix", False))
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    return tokenizer


def sentencepiece_like(decoder: Any, *, byte_fallback: bool = True) -> Any:
    """BPE over ▁ with byte fallback, and the decoder under test."""
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2}
    if byte_fallback:
        vocab |= {f"<0x{b:02X}>": 3 + b for b in range(256)}
    for piece in ["▁", "a", "b", "c", "é", "{", "▁a", "▁▁", "▁▁▁", "▁a▁b", "ab", "▁ab", "日", "▁{"]:
        vocab[piece] = len(vocab)
    merges = [("a", "b"), ("▁", "ab"), ("▁", "a"), ("▁", "▁"), ("▁", "▁▁"), ("▁", "{")]
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=byte_fallback, fuse_unk=True)
    )
    tokenizer.normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.Prepend("▁"), tokenizers.normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoder
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


def llama_decoder() -> Any:
    d = tokenizers.decoders
    return d.Sequence([d.Replace("▁", " "), d.ByteFallback(), d.Fuse(), d.Strip(" ", 1, 0)])


def gemma_decoder() -> Any:
    d = tokenizers.decoders
    return d.Sequence([d.Replace("▁", " "), d.ByteFallback(), d.Fuse()])


def unigram() -> Any:
    scores = {"<unk>": 0.0, "▁": -2.0, "▁yes": -3.0, "no": -3.0, "y": -5.0, "▁▁": -4.0, "e": -5.0, "s": -5.0}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.Unigram([*scores.items()], unk_id=0, byte_fallback=False))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    tokenizer.decoder = tokenizers.decoders.Metaspace()
    tokenizer.add_special_tokens(["<unk>"])
    return tokenizer


def word_piece(*, cleanup: bool) -> Any:
    pieces = ["[UNK]", "[SEP]", "hello", "##ly", "##s", "s", ".", "?", "'", "##", "{", "##'", "n't", "do", "é", "##é"]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = tokenizers.decoders.WordPiece(prefix="##", cleanup=cleanup)
    tokenizer.add_special_tokens(["[UNK]", "[SEP]"])
    return tokenizer


def without_decoder() -> Any:
    return tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1, "<unk>": 2}, unk_token="<unk>"))


SMALL = {
    "byte level": byte_level,
    "llama": lambda: sentencepiece_like(llama_decoder()),
    "gemma": lambda: sentencepiece_like(gemma_decoder()),
    "metaspace": lambda: sentencepiece_like(tokenizers.decoders.Metaspace(), byte_fallback=False),
    "metaspace, never": lambda: sentencepiece_like(
        tokenizers.decoders.Metaspace(prepend_scheme="never"), byte_fallback=False
    ),
    "unigram": unigram,
    "word piece": lambda: word_piece(cleanup=False),
    "word piece, cleanup": lambda: word_piece(cleanup=True),
    "no decoder": without_decoder,
}


def is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def check_against_decode(vocab: Vocabulary, tokenizer: Any, sequences: Any) -> int:
    """Token bytes are the pieces of decode(): returns how many sequences were compared (those that spell UTF-8)."""
    compared = 0
    for ids in sequences:
        if is_utf8(vocab.decode(ids)):
            assert vocab.decode(ids).decode() == tokenizer.decode(ids, skip_special_tokens=True), ids
            compared += 1
    return compared


@pytest.mark.parametrize("name", SMALL)
def test_concatenated_token_bytes_are_what_decode_says(name: str, rng: np.random.Generator) -> None:
    """Exhaustive over pairs, sampled over longer sequences, for every kind of decoder."""
    tokenizer = SMALL[name]()
    vocab = Vocabulary.from_tokenizer(tokenizer)
    plain = np.flatnonzero(vocab._packed()[2] == 1)
    singles = plain[:, None].tolist()
    pairs = itertools.product(plain.tolist(), repeat=2) if len(plain) < 40 else rng.choice(plain, (4000, 2)).tolist()
    longer = (rng.choice(plain, int(n)).tolist() for n in rng.integers(3, 9, 2000))
    assert check_against_decode(vocab, tokenizer, itertools.chain(singles, pairs, longer)) >= len(plain)


def test_byte_level_table_is_a_bijection_and_the_printable_one() -> None:
    forward = real_tokenizers._byte_to_printable()
    assert printable_to_byte() == {character: byte for byte, character in enumerate(forward)}
    assert forward[0x20] == "Ġ"
    assert forward[0x0A] == "Ċ"
    assert set(forward) == set(tokenizers.pre_tokenizers.ByteLevel.alphabet())


def test_byte_level() -> None:
    vocab = Vocabulary.from_tokenizer(byte_level())
    assert vocab.token_bytes[:256] == BYTES
    assert vocab.token_bytes[256:] == [b"tr", b"ue", b"true", b" true", b'":', b"\xc3\xa9"]
    assert vocab.first_token_bytes is None
    assert vocab.is_byte_complete
    assert vocab.special_tokens == {}
    assert vocab.eos_token_ids == ()


def test_sentencepiece_like() -> None:
    tokenizer = sentencepiece_like(llama_decoder())
    vocab = Vocabulary.from_tokenizer(tokenizer, eos_token_ids=tokenizer.token_to_id("</s>"))
    token = {piece: tokenizer.token_to_id(piece) for piece in tokenizer.get_vocab()}
    assert vocab.special_tokens == {"<unk>": 0, "<s>": 1, "</s>": 2}
    assert vocab.eos_token_ids == (2,)
    assert [vocab.token_bytes[3 + b] for b in range(256)] == BYTES
    assert vocab.first_token_bytes is not None
    for piece, later, first in [
        ("▁a▁b", b" a b", b"a b"),
        ("▁▁▁", b"   ", b"  "),
        ("▁", b" ", b""),
        ("ab", b"ab", b"ab"),
        ("日", "日".encode(), "日".encode()),
        ("<0x20>", b" ", b""),
        ("<0x0A>", b"\n", b"\n"),
    ]:
        assert (vocab.token_bytes[token[piece]], vocab.first_token_bytes[token[piece]]) == (later, first)
    assert vocab.decode([token["▁a"], token["▁a"]]) == b"a a"
    assert vocab.decode([1, token["▁a"], 2]) == b"a", "special tokens are not the first position"
    continued = vocab.as_continuation()
    assert continued.first_token_bytes is None
    assert continued.decode([token["▁a"], token["▁a"]]) == b" a a"
    assert continued.fingerprint != vocab.fingerprint
    assert continued.as_continuation() is continued


def test_metaspace_that_never_prepends_has_no_first_position() -> None:
    assert Vocabulary.from_tokenizer(SMALL["metaspace, never"]()).first_token_bytes is None
    assert Vocabulary.from_tokenizer(SMALL["metaspace"]()).first_token_bytes is not None
    assert Vocabulary.from_tokenizer(SMALL["gemma"]()).first_token_bytes is None


def test_word_piece() -> None:
    tokenizer = word_piece(cleanup=True)
    vocab = Vocabulary.from_tokenizer(tokenizer, eos_token_ids=1)
    token = tokenizer.token_to_id
    assert vocab.first_token_bytes is not None
    assert (vocab.token_bytes[token("hello")], vocab.first_token_bytes[token("hello")]) == (b" hello", b"hello")
    assert (vocab.token_bytes[token("##ly")], vocab.first_token_bytes[token("##ly")]) == (b"ly", b"##ly")
    assert (vocab.token_bytes[token(".")], vocab.token_bytes[token("{")]) == (b".", b" {")
    assert (vocab.token_bytes[token("##")], vocab.first_token_bytes[token("##")]) == (b"", b"##")
    assert not vocab.is_byte_complete
    assert ord("h") in vocab.missing_bytes
    flags = vocab._packed()[2]
    assert flags[token("##")] == 1, "plain: it has bytes at one of the two positions"
    assert vocab.encode("hellos hello.", first=True) == [token(t) for t in ("hello", "##s", "hello", ".")]
    assert vocab.encode("ly hello") == [token("##ly"), token("hello")]
    with pytest.raises(VocabularyError, match="no tokens of this vocabulary spell"):
        vocab.encode("hello", first=False)


def test_added_tokens() -> None:
    """Special ones have no bytes; others are text, whatever characters they hold; an id between them is unused."""
    tokenizer = byte_level()
    tokenizer.add_tokens(["<think>", "日本 語", tokenizers.AddedToken("two words", special=False)])
    tokenizer.add_special_tokens(["<|im_end|>"])
    vocab = Vocabulary.from_tokenizer(tokenizer, eos_token_ids=[tokenizer.token_to_id("<|im_end|>")])
    for text in ("<think>", "日本 語", "two words"):
        assert vocab.token_bytes[tokenizer.token_to_id(text)] == text.encode()
    assert vocab.special_tokens == {"<|im_end|>": vocab.eos_token_ids[0]}
    assert vocab.token_bytes[vocab.eos_token_ids[0]] == b""
    assert vocab.encode("a<think>b")[1] == tokenizer.token_to_id("<think>")


def test_a_special_token_is_never_used_to_spell_its_name() -> None:
    tokenizer = byte_level()
    tokenizer.add_special_tokens(["<|end|>"])
    assert tokenizer.encode("a<|end|>b").ids[1] == tokenizer.token_to_id("<|end|>")
    vocab = Vocabulary.from_tokenizer(tokenizer)
    ids = vocab.encode("a<|end|>b")
    assert tokenizer.token_to_id("<|end|>") not in ids
    assert vocab.decode(ids) == b"a<|end|>b"


@pytest.mark.parametrize(
    ("decoder", "reason"),
    [
        (tokenizers.decoders.BPEDecoder(), "BPEDecoder"),
        (tokenizers.decoders.CTC(), "CTC"),
        (tokenizers.decoders.Replace(tokenizers.Regex("a|b"), "c"), "regular expression"),
        (tokenizers.decoders.Sequence([tokenizers.decoders.Fuse(), tokenizers.decoders.Strip(" ", 0, 1)]), "Strip"),
        (tokenizers.decoders.Sequence([tokenizers.decoders.Fuse(), tokenizers.decoders.Strip(" ", 2, 0)]), "Strip"),
        (tokenizers.decoders.Sequence([tokenizers.decoders.Fuse(), tokenizers.decoders.Replace("ab", "c")]), "'ab'"),
        (tokenizers.decoders.Sequence([tokenizers.decoders.Fuse(), tokenizers.decoders.ByteLevel()]), "ByteLevel"),
    ],
)
def test_decoders_that_look_at_neighbours_are_refused_by_name(decoder: Any, reason: str) -> None:
    with pytest.raises(VocabularyError, match=reason):
        Vocabulary.from_tokenizer(sentencepiece_like(decoder))


def test_strip_before_fuse_acts_on_every_token() -> None:
    d = tokenizers.decoders
    decoder = d.Sequence([d.Strip("x", 1, 1), d.Fuse()])
    tokens = ["xxaxx", "ax", "xa", "b"]
    later, first = interpret_decoder(json.loads(decoder.__getstate__()), tokens)
    assert first is None
    assert [t.decode() for t in later] == [decoder.decode([t]) for t in tokens] == ["xax", "a", "a", "b"]


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(VocabularyError, match="not a tokenizer of a known kind"):
        Vocabulary.from_tokenizer("gpt2")
    with pytest.raises(VocabularyError, match="not a tokenizer of a known kind"):
        Vocabulary.from_tokenizer(None)


# --- from_bytes -------------------------------------------------------------------------------------------------------


def test_from_bytes() -> None:
    vocab = Vocabulary.from_bytes(
        [*BYTES, b"a", b"\x00\x00", b"", b"<|x|>", b""], eos_token_ids=[260, 260], special_tokens={"<|x|>": 259}
    )
    assert (vocab.size, len(vocab)) == (261, 261)
    assert vocab.token_bytes[256:] == [b"a", b"\x00\x00", b"", b"", b""]
    assert vocab.special_tokens == {"<|x|>": 259}
    assert vocab.eos_token_ids == (260,)
    assert vocab.is_byte_complete
    assert vocab.encode(b"\x00\x00a\xff") == [257, 97, 255], "of equal tokens the smallest id"
    assert vocab.decode([257, 259, 256, 258, 260]) == b"\x00\x00a"
    data, offsets, flags = vocab._packed()
    assert (offsets.dtype, flags.dtype) == (np.uint32, np.uint8)
    assert [data[a:b] for a, b in itertools.pairwise(offsets.tolist())] == vocab.token_bytes
    assert flags.tolist() == [1] * 258 + [0, 2, 2]
    assert "byte_complete=True" in repr(vocab)


def test_from_bytes_does_not_keep_or_change_what_it_was_given() -> None:
    given_bytes = [b"a", b"b"]
    vocab = Vocabulary.from_bytes(given_bytes, eos_token_ids=1)
    given_bytes[0] = b"z"
    assert vocab.token_bytes == [b"a", b""]
    assert given_bytes == [b"z", b"b"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"token_bytes": []}, "between 1 and"),
        ({"token_bytes": ["a"]}, r"token_bytes\[0\] is str, not bytes"),
        ({"token_bytes": [b"a", bytearray(b"b")]}, r"token_bytes\[1\] is bytearray"),
        ({"token_bytes": [b"a"], "eos_token_ids": [1]}, "token id 1 is not in a vocabulary of size 1"),
        ({"token_bytes": [b"a"], "eos_token_ids": [-1]}, "not negative"),
        ({"token_bytes": [b"a"], "eos_token_ids": ["</s>"]}, "an integer, not '</s>'"),
        ({"token_bytes": [b"a"], "special_tokens": {"x": 3}}, "token id 3 is not in"),
        ({"token_bytes": [b"a"], "vocab_size": 0}, "between 1 and"),
        ({"token_bytes": [b"a"], "vocab_size": 1 << 40}, "between 1 and"),
    ],
)
def test_from_bytes_refuses(arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(VocabularyError, match=reason):
        Vocabulary.from_bytes(**arguments)


def test_a_vocabulary_of_eos_alone_is_possible() -> None:
    vocab = Vocabulary.from_bytes([b""], eos_token_ids=[0])
    assert vocab._packed()[2].tolist() == [2]
    assert vocab.encode(b"") == []
    with pytest.raises(VocabularyError, match="spell"):
        vocab.encode(b"a")


def test_token_ids_out_of_range_are_errors() -> None:
    vocab = Vocabulary.from_bytes([b"a"])
    for token_id in (1, -1):
        with pytest.raises(VocabularyError, match="not in a vocabulary of size 1"):
            vocab.decode([token_id])


def test_width_of_the_logits() -> None:
    """Padded ids are unused; ids that the logits lack are left out, EOS and special tokens included."""
    tokenizer = byte_level()
    tokenizer.add_special_tokens(["<a>", "<b>"])
    a, b = tokenizer.token_to_id("<a>"), tokenizer.token_to_id("<b>")
    padded = Vocabulary.from_tokenizer(tokenizer, vocab_size=512)
    assert padded.size == 512
    assert padded._packed()[2][b + 1 :].max() == 0
    cut = Vocabulary.from_tokenizer(tokenizer, vocab_size=b)
    assert cut.size == b
    assert cut.special_tokens == {"<a>": a}
    with pytest.raises(VocabularyError, match="not in a vocabulary of size"):
        Vocabulary.from_tokenizer(tokenizer, vocab_size=b, eos_token_ids=[b])


def test_ids_with_gaps() -> None:
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 5, "b": 2, "u": 9}, unk_token="u"))
    vocab = Vocabulary.from_tokenizer(tokenizer)
    assert vocab.size == 10
    assert [i for i, flag in enumerate(vocab._packed()[2]) if flag == 1] == [2, 5]
    assert vocab.special_tokens == {"u": 9}


def test_fingerprint_depends_on_all_that_masks_depend_on() -> None:
    def make(**changes: Any) -> str:
        arguments: dict[str, Any] = {
            "token_bytes": [b"ab", b"c", b"", b""],
            "eos_token_ids": [2],
            "special_tokens": {"x": 3},
        }
        return Vocabulary.from_bytes(**(arguments | changes)).fingerprint

    variants = [
        make(),
        make(token_bytes=[b"a", b"bc", b"", b""]),
        make(token_bytes=[b"c", b"ab", b"", b""]),
        make(eos_token_ids=[3]),
        make(eos_token_ids=[2, 3]),
        make(eos_token_ids=[3, 2]),
        make(special_tokens={"y": 3}),
        make(special_tokens={}),
        make(vocab_size=5),
        make(first_token_bytes=[b"b", b"c", b"", b""]),
    ]
    assert len(set(variants)) == len(variants)
    assert make() == make(first_token_bytes=[b"ab", b"c", b"", b""]), "no difference at the first position"


@pytest.mark.parametrize("name", SMALL)
def test_pickle(name: str) -> None:
    vocab = Vocabulary.from_tokenizer(SMALL[name]())
    again = pickle.loads(pickle.dumps(vocab))
    assert again == vocab
    assert hash(again) == hash(vocab)
    assert again.token_bytes == vocab.token_bytes
    assert again.special_tokens == vocab.special_tokens
    text = vocab.decode([i for i in range(min(vocab.size, 300)) if vocab.token_bytes[i] == b"a" or i == 0])
    assert again.encode(text, first=True) == vocab.encode(text, first=True)


# --- encode -----------------------------------------------------------------------------------------------------------


@given(st.text(max_size=40))
def test_encode_is_the_tokenizers_own_choice(text: str) -> None:
    tokenizer = byte_level()
    assert Vocabulary.from_tokenizer(tokenizer).encode(text) == tokenizer.encode(text).ids


@pytest.mark.parametrize("name", ["byte level", "llama", "gemma"])
@given(data=st.binary(max_size=24) | st.text("ab é{▁", max_size=12).map(str.encode), first=st.booleans())
def test_encode_spells_any_bytes_exactly(name: str, data: bytes, first: bool) -> None:
    vocab = _cached(name)
    ids = vocab.encode(data, first=first)
    spoken = vocab if first else vocab.as_continuation()
    assert spoken.decode(ids) == data
    column = spoken.first_token_bytes or spoken.token_bytes
    assert not ids or column[ids[0]], "no token without bytes"


_SMALL_VOCABULARIES: dict[str, Vocabulary] = {}


def _cached(name: str) -> Vocabulary:
    if name not in _SMALL_VOCABULARIES:
        _SMALL_VOCABULARIES[name] = Vocabulary.from_tokenizer(SMALL[name]())
    return _SMALL_VOCABULARIES[name]


def test_encode_continues_where_the_tokenizer_would_prepend_a_space() -> None:
    tokenizer = sentencepiece_like(llama_decoder())
    vocab = Vocabulary.from_tokenizer(tokenizer)
    token = tokenizer.token_to_id
    assert tokenizer.encode("ab", add_special_tokens=False).ids == [token("▁ab")]
    assert vocab.encode("ab", first=True) == [token("▁ab")]
    assert vocab.encode("ab") == [token("ab")]
    assert vocab.encode(" ab") == [token("▁ab")]
    prefixing = Vocabulary.from_tokenizer(byte_level(prefix=True))
    assert prefixing.decode(prefixing.encode("true")) == b"true"
    assert prefixing.encode("true") == [258]


@example(["a", "aa"], "aaa")
@given(st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=5), st.text("ab", max_size=7))
def test_fewest_tokens_against_enumeration(tokens: list[str], text: str) -> None:
    """All segmentations, by definition: the shortest, and among those the lexicographically longest tokens first."""

    def segmentations(rest: str) -> list[list[str]]:
        if not rest:
            return [[]]
        return [[t, *more] for t in set(tokens) if rest.startswith(t) for more in segmentations(rest[len(t) :])]

    vocab = Vocabulary.from_bytes([t.encode() for t in tokens])
    everything = segmentations(text)
    if not everything:
        with pytest.raises(VocabularyError):
            vocab.encode(text)
        return
    best = min(everything, key=lambda s: (len(s), [-len(t) for t in s]))
    assert vocab.encode(text) == [tokens.index(t) for t in best]


# --- tokenizers in Python, tiktoken, SentencePiece, mistral-common ----------------------------------------------------


def test_slow_tokenizer_with_a_byte_table() -> None:
    transformers = pytest.importorskip("transformers")
    table = real_tokenizers._byte_to_printable()
    vocab_map = {c: i for i, c in enumerate(table)} | {"Ġtrue": 256, "<|endoftext|>": 257}

    class GPT2Like(transformers.PreTrainedTokenizer):  # type: ignore[misc]
        """As GPT-2's tokenizer in Python was: an encoder, and the byte table inverted."""

        def __init__(self) -> None:
            self.encoder = vocab_map
            self.by_id = {i: t for t, i in vocab_map.items()}
            self.byte_decoder = {c: b for b, c in enumerate(table)}
            super().__init__(eos_token="<|endoftext|>")

        @property
        def vocab_size(self) -> int:
            return len(self.encoder)

        def get_vocab(self) -> dict[str, int]:
            return dict(self.encoder)

        def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
            return [table[b] for b in text.encode()]

        def _convert_token_to_id(self, token: str) -> int:
            return self.encoder[token]

        def _convert_id_to_token(self, index: int) -> str:
            return self.by_id[index]

    vocab = Vocabulary.from_tokenizer(GPT2Like())
    assert vocab.token_bytes == [*BYTES, b" true", b""]
    assert vocab.eos_token_ids == (257,)
    assert vocab.special_tokens == {"<|endoftext|>": 257}
    assert vocab.encode("é") == [0xC3, 0xA9]


def test_slow_tokenizer_around_tiktoken() -> None:
    transformers = pytest.importorskip("transformers")
    tiktoken = pytest.importorskip("tiktoken")
    ranks = {token: i for i, token in enumerate([*BYTES, b"tr", b"ue", b"true"])}
    encoding = tiktoken.Encoding("t", pat_str=r"[\s\S]+", mergeable_ranks=ranks, special_tokens={"<|end|>": 300})

    class Wrapper(transformers.PreTrainedTokenizer):  # type: ignore[misc]
        """As several model repositories do: tiktoken inside, Hugging Face's interface outside."""

        def __init__(self) -> None:
            self.tokenizer = encoding
            super().__init__(eos_token="<|end|>")

        @property
        def vocab_size(self) -> int:
            return int(encoding.n_vocab)

        def get_vocab(self) -> dict[str, int]:
            return {"<|end|>": 300}

        def _tokenize(self, text: str, **kwargs: Any) -> list[Any]:
            return list(encoding.encode_ordinary(text))

        def _convert_token_to_id(self, token: Any) -> int:
            return 300 if token == "<|end|>" else token

        def _convert_id_to_token(self, index: int) -> Any:
            return "<|end|>" if index == 300 else index

    vocab = Vocabulary.from_tokenizer(Wrapper())
    assert vocab.token_bytes[:259] == [*BYTES, b"tr", b"ue", b"true"]
    assert vocab.eos_token_ids == (300,)
    assert vocab.size == 301
    assert vocab._packed()[2][259:].tolist() == [0] * 41 + [2]
    assert vocab.encode("true") == [258]


def test_slow_tokenizer_of_bytes() -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.ByT5Tokenizer()
    vocab = Vocabulary.from_tokenizer(tokenizer)
    assert vocab.token_bytes[3:259] == BYTES
    assert vocab.is_byte_complete
    assert vocab.eos_token_ids == (tokenizer.eos_token_id,)
    assert vocab.encode("é") == tokenizer.encode("é", add_special_tokens=False)


def test_slow_tokenizer_of_an_unknown_kind_is_refused() -> None:
    transformers = pytest.importorskip("transformers")

    class Unknown(transformers.PreTrainedTokenizer):  # type: ignore[misc]
        def get_vocab(self) -> dict[str, int]:
            return {"a": 0}

        @property
        def vocab_size(self) -> int:
            return 1

        def _convert_token_to_id(self, token: str) -> int:
            return 0

        def _convert_id_to_token(self, index: int) -> str:
            return "a"

    with pytest.raises(VocabularyError, match="Unknown is a tokenizer in Python of an unknown kind"):
        Vocabulary.from_tokenizer(Unknown())


@pytest.mark.parametrize("name", ["llama3", "qwen", "tekken"])
def test_tiktoken_encoding(name: str) -> None:
    ranks, _, special_tokens = real_tokenizers.require(real_tokenizers.tiktoken_parts, name)
    pytest.importorskip("tiktoken")
    encoding = real_tokenizers.tiktoken_encoding(name)
    vocab = Vocabulary.from_tokenizer(encoding)
    by_id = {rank: token for token, rank in ranks.items()}
    assert vocab.token_bytes == [by_id.get(i, b"") for i in range(encoding.n_vocab)]
    assert vocab.special_tokens == ({} if name == "tekken" else special_tokens)
    eos = special_tokens.get("<|endoftext|>")
    assert vocab.eos_token_ids == (() if eos is None else (eos,))
    for text in TEXTS:
        assert vocab.encode(text) == encoding.encode_ordinary(text)


@pytest.mark.parametrize("name", ["mistral1", "mistral3"])
def test_sentencepiece_processor(name: str) -> None:
    pytest.importorskip("sentencepiece")
    processor = real_tokenizers.require(real_tokenizers.sentencepiece_processor, name)
    vocab = Vocabulary.from_tokenizer(processor)
    assert vocab.size == processor.get_piece_size()
    assert vocab.eos_token_ids == (processor.eos_id(),)
    special = {i for i in range(vocab.size) if processor.is_control(i) or processor.is_unknown(i)}
    assert set(vocab.special_tokens.values()) == special
    for i in set(range(vocab.size)) - special:
        piece = processor.id_to_piece(i)
        expected = bytes.fromhex(piece[3:5]) if processor.is_byte(i) else piece.replace("▁", " ").encode()
        assert vocab.token_bytes[i] == expected, piece
    assert vocab.is_byte_complete
    assert vocab.first_token_bytes is not None
    for text in TEXTS:
        assert vocab.decode(vocab.encode(text, first=True)) == text.encode()
        assert b"".join(vocab.token_bytes[i] for i in vocab.encode(text)) == text.encode()
    assert vocab.encode("hello world", first=True) == processor.encode("hello world")


@pytest.mark.parametrize("name", ["mistral1", "mistral3"])
def test_sentencepiece_decodes_to_the_same_text(name: str, rng: np.random.Generator) -> None:
    pytest.importorskip("sentencepiece")
    processor = real_tokenizers.require(real_tokenizers.sentencepiece_processor, name)
    vocab = Vocabulary.from_tokenizer(processor)
    plain = np.flatnonzero(vocab._packed()[2] == 1)
    assert vocab.first_token_bytes is not None
    started = np.array([i for i in plain if vocab.first_token_bytes[i]])  # others may not come first
    compared = 0
    for n in rng.integers(1, 7, 3000):
        ids = [int(rng.choice(started)), *rng.choice(plain, int(n)).tolist()]
        text = vocab.decode(ids)
        if is_utf8(text):
            assert processor.decode(ids) == text.decode()
            compared += 1
    assert compared > 2000


def test_mistral_common_tekken() -> None:
    tekken = real_tokenizers.require(real_tokenizers.mistral_common_tekken)
    ranks, _, _ = real_tokenizers.tiktoken_parts("tekken")
    vocab = Vocabulary.from_tokenizer(tekken)
    assert vocab.size == 131072
    shift = tekken.num_special_tokens
    assert vocab.token_bytes[:shift] == [b""] * shift
    assert {token: i + shift for token, i in ranks.items()} == {t: i for i, t in enumerate(vocab.token_bytes) if t}
    assert vocab.special_tokens["</s>"] == 2
    assert vocab.eos_token_ids == (2,)
    for text in TEXTS:
        assert vocab.encode(text) == tekken.encode(text, bos=False, eos=False)


def test_mistral_common_as_transformers_wraps_it() -> None:
    real_tokenizers.require(real_tokenizers.mistral_common_tekken)
    backend = pytest.importorskip("transformers.tokenization_mistral_common").MistralCommonBackend
    for file in ("tekken_240911.json", "mistral_instruct_tokenizer_240323.model.v3"):
        tokenizer = backend(real_tokenizers.package_file("mistral_common", f"data/{file}"))
        vocab = Vocabulary.from_tokenizer(tokenizer)
        assert vocab.size == tokenizer.vocab_size
        assert vocab.is_byte_complete
        assert vocab.eos_token_ids == (tokenizer.eos_token_id,)


# --- real tokenizers through Hugging Face -----------------------------------------------------------------------------


@pytest.fixture(scope="module", params=real_tokenizers.NAMES)
def real(request: pytest.FixtureRequest) -> tuple[str, Any, Vocabulary]:
    tokenizer = real_tokenizers.require(real_tokenizers.load, request.param)
    return request.param, tokenizer, Vocabulary.from_tokenizer(tokenizer)


def test_real_token_bytes_are_the_files(real: tuple[str, Any, Vocabulary]) -> None:
    """Every single token, against the file the tokenizer came from."""
    name, tokenizer, vocab = real
    assert vocab.size == len(tokenizer)
    special = set(tokenizer.all_special_ids) | {i for i, t in tokenizer.added_tokens_decoder.items() if t.special}
    assert set(vocab.special_tokens.values()) == special
    if name in ("llama3", "qwen", "tekken"):
        ranks, _, named = real_tokenizers.tiktoken_parts(name)
        shift = len(named) if name == "tekken" else 0
        expected = {rank + shift: token for token, rank in ranks.items()}
    elif name.startswith("mistral"):
        processor = real_tokenizers.sentencepiece_processor(name)
        pieces = {i: processor.id_to_piece(i) for i in range(vocab.size) if i not in special}
        expected = {
            i: bytes.fromhex(p[3:5]) if processor.is_byte(i) else p.replace("▁", " ").encode()
            for i, p in pieces.items()
        }
    elif name == "bert":
        lines = real_tokenizers.word_piece_file().read_text(encoding="utf-8").splitlines()
        # What the decoder's clean-up does to single tokens of this vocabulary: no space before these.
        glued = {".", "...", "?", "!", ","}
        expected = {
            i: (line[2:] if line.startswith("##") else line if line in glued else " " + line).encode()
            for i, line in enumerate(lines)
            if i not in special
        }
    else:
        forward = {character: byte for byte, character in enumerate(real_tokenizers._byte_to_printable())}
        strings = {i: t for t, i in tokenizer.get_vocab().items() if i not in special}
        expected = {i: bytes(forward[c] for c in t) for i, t in strings.items()}
    assert vocab.token_bytes == [expected.get(i, b"") for i in range(vocab.size)]


def test_real_concatenation_is_decode(real: tuple[str, Any, Vocabulary], rng: np.random.Generator) -> None:
    _, tokenizer, vocab = real
    plain = np.flatnonzero(vocab._packed()[2] == 1)
    sequences = (rng.choice(plain, int(n)).tolist() for n in rng.integers(1, 9, 2000))
    assert check_against_decode(vocab, tokenizer, sequences) > 700


def test_real_canonical_tokens(real: tuple[str, Any, Vocabulary]) -> None:
    name, tokenizer, vocab = real
    if name == "bert":
        assert vocab.encode("hello world", first=True) == [7592, 2088]
        return
    for text in TEXTS:
        own = tokenizer.encode(text, add_special_tokens=False)
        if vocab.first_token_bytes is None:
            assert vocab.encode(text) == own
        elif vocab.first_token_bytes[own[0]]:
            assert vocab.encode(text, first=True) == own
        # past the first position: the tokens that follow a word, not those that follow a prepended space
        assert b"".join(vocab.token_bytes[i] for i in vocab.encode(text)) == text.encode()


def test_real_byte_completeness(real: tuple[str, Any, Vocabulary]) -> None:
    """SmolLM2 lacks some control characters and lead bytes: liveness is not a matter of WordPiece alone."""
    name, _, vocab = real
    singles = {t for t in vocab.token_bytes if len(t) == 1}
    assert vocab.is_byte_complete == (len(singles) == 256) == (name not in ("bert", "smollm2"))
    assert vocab.missing_bytes == {b for b in range(256) if bytes([b]) not in singles}
    if name == "smollm2":
        assert {0xF1, 0xF2, 0x04} < vocab.missing_bytes
        with pytest.raises(VocabularyError, match="spell"):
            vocab.encode("\x04")


@pytest.mark.timing
def test_real_set_up_is_fast(real: tuple[str, Any, Vocabulary]) -> None:
    _, tokenizer, _ = real
    start = time.process_time()
    Vocabulary.from_tokenizer(tokenizer)._packed()
    assert time.process_time() - start < 1.0


def test_real_pickle(real: tuple[str, Any, Vocabulary]) -> None:
    _, _, vocab = real
    again = pickle.loads(pickle.dumps(vocab))
    assert again == vocab
    assert again.encode("s") == vocab.encode("s") if vocab.token_bytes.count(b"s") else True


def test_slow_sentencepiece_and_word_piece() -> None:
    """Tokenizers in Python agree with SentencePiece and the fast WordPiece over the same files, clean-up apart."""
    pytest.importorskip("sentencepiece")
    slow_sp = pytest.importorskip("transformers.tokenization_utils_sentencepiece").SentencePieceBackend
    processor = real_tokenizers.require(real_tokenizers.sentencepiece_processor, "mistral1")
    file = str(real_tokenizers.package_file("mistral_common", "data/tokenizer.model.v1"))
    slow = Vocabulary.from_tokenizer(slow_sp(vocab_file=file, bos_token="<s>", eos_token="</s>", unk_token="<unk>"))
    assert slow == Vocabulary.from_tokenizer(processor)
    slow_bert = pytest.importorskip("transformers.models.bert.tokenization_bert_legacy").BertTokenizerLegacy
    bert = Vocabulary.from_tokenizer(slow_bert(str(real_tokenizers.require(real_tokenizers.word_piece_file))))
    fast = Vocabulary.from_tokenizer(real_tokenizers.load("bert"))
    differing = {a for a, b in zip(bert.token_bytes, fast.token_bytes, strict=True) if a != b}
    assert differing == {b" .", b" ...", b" ?", b" !", b" ,"}
    assert bert.first_token_bytes == fast.first_token_bytes


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama3", "tekken", "mistral1", "bert", "smollm2"])
def test_a_saved_vocabulary_is_the_same(name: str, tmp_path: Path) -> None:
    tokenizer = real_tokenizers.require(real_tokenizers.load, name)
    vocabulary = gr.Vocabulary.from_tokenizer(tokenizer)
    vocabulary.save(tmp_path / "file")
    alone, joined = gr.Vocabulary.load(tmp_path / "file"), gr.Vocabulary.load(tmp_path / "file", tokenizer)
    for loaded in (alone, joined):
        assert loaded == vocabulary
        assert loaded.token_bytes == vocabulary.token_bytes
        assert loaded.first_token_bytes == vocabulary.first_token_bytes
        assert loaded.special_tokens == vocabulary.special_tokens
        assert loaded.eos_token_ids == vocabulary.eos_token_ids
    text = "the grammar of a sentence"
    assert joined.encode(text) == vocabulary.encode(text)
    assert alone.decode(alone.encode(text, first=True)) == text.encode()


def test_a_saved_vocabulary_of_another_tokenizer_is_refused(tmp_path: Path) -> None:
    first, second = (real_tokenizers.require(real_tokenizers.load, name) for name in ("smollm2", "llama3"))
    gr.Vocabulary.from_tokenizer(first).save(tmp_path / "file")
    with pytest.raises(ValueError, match="was not saved for this tokenizer"):
        gr.Vocabulary.load(tmp_path / "file", second)
    gr.compile(gr.Grammar.from_regex("a"), gr.Vocabulary.from_bytes([b"a"])).save(tmp_path / "grammar")
    with pytest.raises(ValueError, match="is not a vocabulary saved by guiderail, but a compiled grammar"):
        gr.Vocabulary.load(tmp_path / "grammar")
