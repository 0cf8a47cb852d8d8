"""Whole `generate` runs of MusicGen, Dia and Janus (random weights), whose models double the batch themselves: once
with the guidance processor of transformers, once with ours in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import (
    DiaConfig,
    DiaForConditionalGeneration,
    JanusConfig,
    JanusForConditionalGeneration,
    MusicgenForCausalLM,
)
from transformers.models.dia import generation_dia
from transformers.models.dia.configuration_dia import DiaDecoderConfig, DiaEncoderConfig
from transformers.models.janus import modeling_janus
from transformers.models.janus.configuration_janus import JanusVisionConfig, JanusVQVAEConfig
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.musicgen import modeling_musicgen
from transformers.models.musicgen.configuration_musicgen import MusicgenDecoderConfig

import guiderail
from guiderail.guidance import token_models
from guiderail.integrations.transformers import GrammarLogitsProcessor

Run = Callable[[float, bool], torch.Tensor]


def musicgen() -> tuple[Any, str, Run, Callable[..., Any]]:
    torch.manual_seed(0)
    config = MusicgenDecoderConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=48, num_codebooks=4,
        initializer_factor=0.5, pad_token_id=40, bos_token_id=40, max_position_embeddings=64,
    )  # fmt: skip
    model = MusicgenForCausalLM(config).eval()
    model.generation_config.pad_token_id = model.generation_config.bos_token_id = 40
    model.generation_config.decoder_start_token_id = 40
    states = torch.randn(2, 5, 32)

    def run(scale: float, sampled: bool) -> torch.Tensor:
        return model.generate(
            encoder_hidden_states=torch.cat([states, torch.zeros_like(states)]) if scale > 1 else states,
            input_ids=torch.full((2 * 4, 1), 40),
            guidance_scale=scale,
            do_sample=sampled,
            num_return_sequences=1,
            max_new_tokens=10,
        )

    def ours(scale: float) -> Any:
        preset = token_models.DoubledBatch(scale, codebooks=4)
        return lambda ids, scores: preset(scores)

    return modeling_musicgen, "ClassifierFreeGuidanceLogitsProcessor", run, ours


def dia() -> tuple[Any, str, Run, Callable[..., Any]]:
    torch.manual_seed(1)
    encoder = DiaEncoderConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        head_dim=8, vocab_size=30, initializer_range=0.4,
    )  # fmt: skip
    decoder = DiaDecoderConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=8, cross_num_attention_heads=4, cross_head_dim=8, cross_num_key_value_heads=4, cross_hidden_size=16,
        vocab_size=40, num_channels=3, eos_token_id=37, pad_token_id=38, bos_token_id=39, initializer_range=0.4,
    )  # fmt: skip
    config = DiaConfig(
        encoder_config=encoder.to_dict(), decoder_config=decoder.to_dict(), delay_pattern=[0, 1, 2],
        eos_token_id=37, pad_token_id=38, bos_token_id=39, initializer_range=0.4,
    )  # fmt: skip
    model = DiaForConditionalGeneration(config).eval()
    ids = torch.randint(1, 30, (2, 6))

    def run(scale: float, sampled: bool) -> torch.Tensor:
        return model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            guidance_scale=scale,
            do_sample=sampled,
            top_k=9,
            max_new_tokens=10,
        )

    def ours(guidance_scale: float, guidance_top_k: int | None = None) -> Any:
        preset = token_models.DoubledBatch(guidance_scale, "ho-salimans", shortlist=guidance_top_k, codebooks=3)
        return lambda ids, scores: preset(scores)

    return generation_dia, "DiaClassifierFreeGuidanceLogitsProcessor", run, ours


def janus() -> tuple[Any, str, Run, Callable[..., Any]]:
    torch.manual_seed(2)
    text = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.4, max_position_embeddings=128, pad_token_id=0, bos_token_id=1,
        eos_token_id=2,
    )  # fmt: skip
    vision = JanusVisionConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=2, projection_dim=32,
        num_image_tokens=9, mlp_ratio=1.0, depth=2,
    )  # fmt: skip
    codes = JanusVQVAEConfig(
        embed_dim=8, num_embeddings=24, double_latent=False, latent_channels=8, num_patches=3, base_channels=32,
        channel_multiplier=[1], num_res_blocks=1, projection_dim=32, image_token_embed_dim=32, hidden_size=32,
    )  # fmt: skip
    config = JanusConfig(text_config=text, vision_config=vision, vq_config=codes)
    model = JanusForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.model.generation_head.parameters():
            parameter.mul_(20)  # scores far enough apart for the scale to matter
    model.generation_config.generation_kwargs = {"boi_token_id": 3}
    model.generation_config.pad_token_id, model.generation_config.bos_token_id = 0, 1
    ids = torch.tensor([[1, 7, 8, 9, 3], [1, 12, 5, 30, 3]])

    def run(scale: float, sampled: bool) -> torch.Tensor:
        return model.generate(
            ids, attention_mask=torch.ones_like(ids), generation_mode="image", guidance_scale=scale, do_sample=sampled,
            max_length=32,
        )  # fmt: skip

    def ours(scale: float) -> Any:
        preset = token_models.DoubledBatch(scale)
        return lambda ids, scores: preset(scores)

    return modeling_janus, "ClassifierFreeGuidanceLogitsProcessor", run, ours


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("family", [musicgen, dia, janus])
def test_generate_is_the_same_with_our_rule(
    family: Callable[[], tuple[Any, str, Run, Callable[..., Any]]], sampled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, name, run, ours = family()
    calls = []

    def made(*given: Any, **named: Any) -> Any:
        processor = ours(*given, **named)
        return lambda ids, scores: calls.append(tuple(scores.shape)) or processor(ids, scores)

    torch.manual_seed(7)
    theirs = run(3.0, sampled)
    torch.manual_seed(7)
    weaker = run(1.5, sampled)
    monkeypatch.setattr(module, name, made)
    torch.manual_seed(7)
    produced = run(3.0, sampled)
    assert len(calls) > 5
    assert produced.tolist() == theirs.tolist()
    assert weaker.tolist() != theirs.tolist()  # the scale decides something here


def test_one_grammar_per_codebook_under_guidance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Codes spelled as text: codebook k may use only codes that leave k when divided by four. MusicGen guides after all
    custom processors, on doubled rows; guide first, mask last means taking the place of its guidance."""
    module, name, run, ours = musicgen()
    codes = guiderail.Vocabulary.from_bytes([*(f"{code};".encode() for code in range(40)), b""], eos_token_ids=[40])
    grammars = [
        guiderail.Grammar.from_regex(f"(?:{'|'.join(f'{code};' for code in range(codebook, 40, 4))})*")
        for codebook in range(4)
    ]
    compiled = [guiderail.compile(grammar, codes) for grammar in grammars] * 2  # rows: two sequences of four codebooks
    torch.manual_seed(3)
    free = run(3.0, True).reshape(2, 4, -1)
    torch.manual_seed(3)
    mask = GrammarLogitsProcessor(compiled)
    monkeypatch.setattr(module, name, lambda scale: lambda ids, scores: mask(ids, ours(scale)(ids, scores)))
    held = run(3.0, True).reshape(2, 4, -1)
    for codebook in range(4):
        row = held[:, codebook]
        sounded = row[row < 40]
        assert sounded.numel() > 8
        assert (sounded % 4 == codebook).all()
    assert not ((free % 4) == torch.arange(4)[None, :, None]).all()
