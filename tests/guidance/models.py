"""Tiny random models, large enough to disagree with each other at every step."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

VOCAB = 41
PAD, EOS = 0, 1


def _random_weights(build: Callable[..., Any]) -> Callable[..., Any]:
    """Built once, on first use, from random numbers of its own: a test that has set a seed is not disturbed."""

    @functools.cache
    @functools.wraps(build)
    def once(*arguments: Any, **settings: Any) -> Any:
        with torch.random.fork_rng(devices=[]):
            return build(*arguments, **settings)

    return once


@_random_weights
def llama(seed: int = 0, layers: int = 2) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.35,
        pad_token_id=PAD,
        bos_token_id=2,
        eos_token_id=EOS,
    )
    return _ready(LlamaForCausalLM(config))


@_random_weights
def mistral(seed: int = 0) -> MistralForCausalLM:
    """Sliding windows: a masked slot in the middle would shift them."""
    torch.manual_seed(seed)
    config = MistralConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=5,
        initializer_range=0.35,
        pad_token_id=PAD,
        bos_token_id=2,
        eos_token_id=EOS,
    )
    return _ready(MistralForCausalLM(config))


@_random_weights
def gpt2(seed: int = 0) -> GPT2LMHeadModel:
    """Learned absolute positions."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=VOCAB,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=128,
        initializer_range=0.35,
        pad_token_id=PAD,
        bos_token_id=2,
        eos_token_id=EOS,
    )
    return _ready(GPT2LMHeadModel(config))


@_random_weights
def t5(seed: int = 0) -> T5ForConditionalGeneration:
    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=VOCAB,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        initializer_factor=3.0,
        pad_token_id=PAD,
        eos_token_id=EOS,
        decoder_start_token_id=PAD,
        tie_word_embeddings=False,
    )
    return _ready(T5ForConditionalGeneration(config))


def _ready(model: torch.nn.Module) -> torch.nn.Module:
    model.eval()
    model.generation_config.max_length = None
    # Fixed-length runs: every test decides on its own whether the end token ends anything.
    model.generation_config.eos_token_id = None
    return model


def prompts(seed: int, lengths: tuple[int, ...]) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, VOCAB, (length,), generator=generator).tolist() for length in lengths]


def left_padded(rows: list[list[int]]) -> dict[str, torch.Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([[PAD] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}


def right_padded(rows: list[list[int]]) -> dict[str, torch.Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([row + [PAD] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}
