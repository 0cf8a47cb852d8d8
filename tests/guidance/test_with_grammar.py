"""Guidance under the real engine: valid at every scale, greedy equal to the reference, and cheaper by what is
forced."""

from __future__ import annotations

import functools
import json
import math
import re

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import guiderail
from guidance.rule_cases import NEGATIVE
from guiderail import guidance as gr
from guiderail.guidance.token_models import SegmentTable
from guiderail.integrations.generation import GuidedDecoder
from guiderail.integrations.transformers import GrammarLogitsProcessor, GuidanceLogitsProcessor
from guiderail.logits import Sampling
from oracles import guidance_reference as reference

EOS = 0
SPELLINGS = [b"", *(bytes([byte]) for byte in range(32, 127)), b'{"', b'":', b'","', b'"}', b"true", b"12"]


@functools.cache
def vocabulary() -> guiderail.Vocabulary:
    return guiderail.Vocabulary.from_bytes(SPELLINGS, eos_token_ids=[EOS])


@functools.cache
def model() -> LlamaForCausalLM:
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=len(SPELLINGS) + 3,  # models pad their output layer
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.35,
        pad_token_id=EOS,
        eos_token_id=EOS,
    )
    built = LlamaForCausalLM(config).eval()
    built.generation_config.eos_token_id = EOS
    return built


@functools.cache
def record() -> guiderail.CompiledGrammar:
    grammar = guiderail.Grammar.from_regex(r'\{"name":"[a-z]{1,6}","ok":(true|false),"n":[0-9]{1,3}\}')
    return guiderail.compile(grammar, vocabulary())


PROMPTS = [[40, 41, 42], [50, 33, 60, 61, 62]]


def masked_reference(prompt: list[int], scale: float):
    c, u = reference.stream(model(), prompt), reference.stream(model(), NEGATIVE)

    def row(generated: tuple[int, ...]) -> np.ndarray:
        scores = reference.affine([c(generated), u(generated)], [scale, 1 - scale])
        text = b"".join(SPELLINGS[token] for token in generated)
        for token in range(len(scores)):
            if not completable(text, token):
                scores[token] = -math.inf
        return scores

    return row


# (a part, what may stand of it when the text ends inside it)
PARTS = [
    (r'\{"name":"', "|".join(re.escape('{"name":"'[:end]) for end in range(9))),
    ("[a-z]{1,6}", "[a-z]{0,6}"),
    ('","ok":', "|".join('","ok":'[:end] for end in range(7))),
    ("(true|false)", "|".join(word[:end] for word in ("true", "false") for end in range(len(word)))),
    (',"n":', "|".join(',"n":'[:end] for end in range(5))),
    ("[0-9]{1,3}", "[0-9]{0,3}"),
    (r"\}", ""),
]
WHOLE = "".join(part for part, _ in PARTS)
PREFIX = re.compile(
    "|".join([WHOLE, *("".join(p for p, _ in PARTS[:i]) + f"({begun})" for i, (_, begun) in enumerate(PARTS))]).encode()
)


def completable(text: bytes, token: int) -> bool:
    """Written by hand for this one expression: may the text go on with the token?"""
    if token == EOS:
        return text.endswith(b"}")
    if token >= len(SPELLINGS):
        return False
    return PREFIX.fullmatch(text + SPELLINGS[token]) is not None


def test_the_hand_written_prefixes_are_right() -> None:
    whole = b'{"name":"ab","ok":false,"n":12}'
    assert all(PREFIX.fullmatch(whole[:end]) for end in range(len(whole) + 1))
    for wrong in (
        b'{"name":"",',
        b'{"name":"abcdefg',
        b'{"name":"a","ok":tf',
        b'{"name":"a","ok":true,"n":}',
        whole + b"}",
    ):
        assert not PREFIX.fullmatch(wrong)


@pytest.mark.parametrize("scale", [-2.0, 0.0, 1.0, 1.5, 8.0])
@pytest.mark.parametrize("speculate", [0, 3])
def test_greedy_equals_the_reference_under_a_regular_expression(scale: float, speculate: int) -> None:
    decoder = GuidedDecoder(model(), gr.ClassifierFree(scale, NEGATIVE), record(), speculate=speculate)
    for prompt, generation in zip(PROMPTS, decoder.decode(PROMPTS, 64), strict=True):
        assert generation.finish_reason == "end"
        reference.check_greedy(
            masked_reference(prompt, scale), [*generation.token_ids, EOS], EOS, reference.Agreement()
        )


def test_both_processors_and_the_combined_one_give_the_same_texts() -> None:
    term, ids = gr.ClassifierFree(1.6, NEGATIVE), torch.tensor([PROMPTS[0]])
    chains = [
        [GuidanceLogitsProcessor(term, model=model()), GrammarLogitsProcessor(record())],
        [GuidanceLogitsProcessor(term, model=model(), constraint=record())],
    ]
    for settings in ({"num_beams": 3, "num_return_sequences": 3}, {"num_beams": 1}):
        outputs = [
            model().generate(
                ids,
                attention_mask=torch.ones_like(ids),
                logits_processor=chain,
                max_new_tokens=64,
                do_sample=False,
                **settings,
            )
            for chain in chains
        ]
        assert outputs[0].tolist() == outputs[1].tolist()
        for row in outputs[0][:, 3:].tolist():
            assert record().vocabulary.decode([token for token in row if token != EOS]).endswith(b"}")


@pytest.mark.parametrize("scale", [-3.0, 0.0, 0.5, 1.0, 4.0, 50.0])
def test_sampling_is_valid_at_every_scale(scale: float) -> None:
    term = gr.ClassifierFree(scale, NEGATIVE, plausibility=0.2) + gr.GeDi(None, 70, 71, 30.0)
    sampling = Sampling(True, temperature=1.3, top_k=3, top_p=0.5)
    for generation in GuidedDecoder(model(), term, record(), sampling).decode(PROMPTS, 64, num_return_sequences=3):
        data = json.loads(re.sub(r":0+(?=\d)", ":", record().vocabulary.decode(generation.token_ids).decode()))
        assert set(data) == {"name", "ok", "n"}


def test_forced_text_costs_no_model() -> None:
    passes, lengths = {}, {}
    for jump in ("off", "single", "canonical"):
        decoder = GuidedDecoder(model(), gr.ClassifierFree(1.5, NEGATIVE), record(), jump_forward=jump)
        (generation,) = decoder.decode(PROMPTS[:1], 64)
        assert record().vocabulary.decode(generation.token_ids).endswith(b"}")
        passes[jump], lengths[jump] = decoder.engine.runner().counts.passes, len(generation.token_ids)
    assert passes["off"] == lengths["off"] + 1
    assert passes["single"] < passes["off"]
    assert passes["canonical"] <= passes["single"]


def test_phases_over_token_ids_are_a_grammar_like_any_other() -> None:
    """Semantic codes, an end marker, then as many codebook codes as wanted: an automaton over ids in the text
    engine."""
    table = SegmentTable([("end", 2), ("semantic", 20), ("acoustic", 30)])
    codes = guiderail.Vocabulary.from_bytes([b"", *table.token_bytes()], eos_token_ids=[0])
    grammar = guiderail.Grammar.from_regex(r"(semantic:\d+;){2,4}end:0;(acoustic:\d+;){3}end:1;")
    compiled = guiderail.compile(grammar, codes)
    sampling = Sampling(True, temperature=2.0)
    for generation in GuidedDecoder(model(), gr.ClassifierFree(2.0), compiled, sampling).decode(PROMPTS, 12):
        phases = [table.segment_of(token - 1) for token in generation.token_ids]
        middle = phases.index("end")
        assert 2 <= middle <= 4
        assert phases == ["semantic"] * middle + ["end"] + ["acoustic"] * 3 + ["end"]
