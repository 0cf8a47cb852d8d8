"""Emu3 with random weights: transformers' own guidance under its allowed-token function, and ours under a grammar over
token ids, token for token."""

from __future__ import annotations

import re

import pytest
import torch
from transformers import Emu3Config, Emu3ForConditionalGeneration
from transformers.models.emu3.configuration_emu3 import Emu3TextConfig, Emu3VQVAEConfig

import guiderail
from guiderail import guidance as gr
from guiderail.guidance.token_models import Emu3, SegmentTable
from guiderail.integrations.generation import GuidedDecoder
from guiderail.integrations.transformers_guidance import GuidanceLogitsProcessor

TABLE = SegmentTable([("pad", 1), ("end", 1), ("text", 20), ("visual", 30), ("eol", 1), ("eof", 1), ("eoi", 1)])
HEIGHT, WIDTH = 3, 4
PROMPT, NEGATIVE = [5, 9, 12, 7], [4, 18]


def emu3() -> Emu3ForConditionalGeneration:
    torch.manual_seed(3)
    text = Emu3TextConfig(
        vocab_size=len(TABLE), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.35, max_position_embeddings=128, pad_token_id=0, bos_token_id=2,
        eos_token_id=1,
    )  # fmt: skip
    codes = Emu3VQVAEConfig(
        codebook_size=30, embed_dim=4, latent_channels=4, base_channels=32, channel_multiplier=[1], num_res_blocks=1,
        attn_resolutions=[], hidden_size=16,
    )  # fmt: skip
    names = {"<image>": 2, **{f"<|visual token {index:06d}|>": TABLE["visual"][index] for index in range(30)}}
    config = Emu3Config(vq_config=codes, text_config=text, vocabulary_map=names)
    model = Emu3ForConditionalGeneration(config).eval()
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = 0, 1
    return model


def allowed(batch: int, ids: torch.Tensor) -> list[int]:
    """The release's rule: what may come next is a function of how many tokens the image has."""
    place = len(ids) - len(PROMPT)
    if place < HEIGHT * (WIDTH + 1):
        return [TABLE["eol"][0]] if place % (WIDTH + 1) == WIDTH else list(TABLE["visual"])
    return [[TABLE["eof"][0]], [TABLE["eoi"][0]], [1]][place - HEIGHT * (WIDTH + 1)]


@pytest.mark.parametrize("sampled", [False, True])
def test_equal_to_transformers_guidance_under_its_allowed_tokens(sampled: bool) -> None:
    model, preset = emu3(), Emu3(top_k=12)
    codes = guiderail.Vocabulary.from_bytes([b"", b"", *TABLE.token_bytes()[2:]], eos_token_ids=[1])
    compiled = guiderail.compile(guiderail.Grammar.from_regex(preset.grid(HEIGHT, WIDTH)), codes)
    ids = torch.tensor([PROMPT])
    fixed = {"max_new_tokens": 30, "do_sample": sampled, "attention_mask": torch.ones_like(ids)}
    if sampled:
        fixed["top_k"] = preset.top_k
    torch.manual_seed(0)
    theirs = model.generate(
        ids,
        guidance_scale=preset.scale,
        negative_prompt_ids=torch.tensor([NEGATIVE]),
        prefix_allowed_tokens_fn=allowed,
        **fixed,
    )
    term = gr.ClassifierFree(preset.scale, NEGATIVE)
    torch.manual_seed(0)
    ours = model.generate(
        ids, logits_processor=[GuidanceLogitsProcessor(term, model=model, constraint=compiled)], **fixed
    )
    assert ours.tolist() == theirs.tolist()
    assert ours.shape[1] == len(PROMPT) + HEIGHT * (WIDTH + 1) + 3
    assert len(set(ours[0, len(PROMPT) :].tolist())) > 6  # the image is not one colour
    if not sampled:
        (generation,) = GuidedDecoder(model, term, compiled).decode([PROMPT], 30)
        assert [*generation.token_ids, 1] == theirs[0, len(PROMPT) :].tolist()
        assert generation.forced == HEIGHT + 2  # the marks cost no pass


def test_a_grid_of_the_released_size_and_its_refusals() -> None:
    pattern = re.compile(Emu3.grid(90, 90))
    text = ("visual:7;" * 90 + "eol:0;") * 90 + "eof:0;eoi:0;"
    assert pattern.fullmatch(text)
    assert not pattern.fullmatch(text.replace("visual:7;", "", 1))
    assert guiderail.Grammar.from_regex(Emu3.grid(90, 90)).accepts(text.encode())
    with pytest.raises(ValueError, match="at least one"):
        Emu3.grid(0, 4)
