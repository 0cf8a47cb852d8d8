"""`generate(output_type=...)`: a model of random weights says typed objects, or the limit is named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from guiderail import Grammar, LimitError
from guiderail.integrations.generation import generate


@dataclass
class Answer:
    colour: Literal["red", "blue"]
    sure: bool


@pytest.fixture(scope="module")
def model_and_tokenizer() -> tuple[Any, Any]:
    torch.manual_seed(0)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>")
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, **sizes)
    return LlamaForCausalLM(config).eval(), tokenizer


def test_the_result_is_a_typed_object(model_and_tokenizer: tuple[Any, Any]) -> None:
    model, tokenizer = model_and_tokenizer
    answer = generate(model, tokenizer, "Which?", output_type=Answer, max_new_tokens=200, do_sample=True)
    assert isinstance(answer, Answer)
    assert answer.colour in ("red", "blue")
    several = generate(model, tokenizer, ["a", "b"], output_type=Literal[1, "x"], max_new_tokens=100)
    assert all(value in (1, "x") for value in several)
    assert len(several) == 2


def test_an_output_cut_off_by_length_is_an_error(model_and_tokenizer: tuple[Any, Any]) -> None:
    model, tokenizer = model_and_tokenizer
    with pytest.raises(LimitError, match="not complete") as caught:
        generate(model, tokenizer, "Which?", output_type=Literal["a long constant"], max_new_tokens=5)
    assert caught.value.limit == "max_new_tokens"


def test_one_constraint_at_a_time(model_and_tokenizer: tuple[Any, Any]) -> None:
    model, tokenizer = model_and_tokenizer
    with pytest.raises(ValueError, match="output_type"):
        generate(model, tokenizer, "Which?", output_type=int, constraint=Grammar.from_type(int))
