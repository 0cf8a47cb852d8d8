"""Captioning guidance: the null is the same prompt with a blank image, however the image gets to the decoder."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    CLIPVisionConfig,
    GitConfig,
    GitForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTModel,
)

from guidance import models
from guiderail import guidance as gr
from guiderail.integrations.generation import GuidedDecoder
from guiderail.integrations.transformers_guidance import GuidanceLogitsProcessor
from oracles import guidance_reference as reference

STEPS, SCALE = 5, 1.8
VISION = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8}
IMAGE_TOKEN = models.VOCAB - 1


@functools.cache
def encoder_decoder() -> VisionEncoderDecoderModel:
    torch.manual_seed(0)
    vision = ViTModel(ViTConfig(patch_size=4, initializer_range=0.5, **VISION))
    text = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=models.VOCAB,
            n_embd=16,
            n_layer=2,
            n_head=2,
            n_positions=32,
            add_cross_attention=True,
            initializer_range=0.4,
            bos_token_id=2,
            eos_token_id=models.EOS,
        )
    )
    model = VisionEncoderDecoderModel(encoder=vision, decoder=text).eval()
    model.config.decoder_start_token_id = model.generation_config.decoder_start_token_id = 2
    model.config.pad_token_id = model.generation_config.pad_token_id = models.PAD
    return model


@functools.cache
def llava() -> LlavaForConditionalGeneration:
    torch.manual_seed(1)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(patch_size=4, initializer_range=0.5, projection_dim=16, **VISION),
        text_config=LlamaConfig(
            vocab_size=models.VOCAB,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            initializer_range=0.4,
            pad_token_id=models.PAD,
            bos_token_id=2,
            eos_token_id=models.EOS,
        ),
        image_token_index=IMAGE_TOKEN,
        image_seq_length=4,
        vision_feature_layer=-1,
    )
    return LlavaForConditionalGeneration(config).eval()


@functools.cache
def git() -> GitForCausalLM:
    torch.manual_seed(2)
    config = GitConfig(
        vision_config={"patch_size": 4, "initializer_range": 0.5, **VISION},
        vocab_size=models.VOCAB,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=32,
        bos_token_id=2,
        eos_token_id=models.EOS,
        pad_token_id=models.PAD,
        initializer_range=0.4,
    )
    return GitForCausalLM(config).eval()


@functools.cache
def blip() -> BlipForConditionalGeneration:
    torch.manual_seed(3)
    config = BlipConfig(
        vision_config={"patch_size": 4, "initializer_range": 0.5, **VISION},
        text_config={
            "vocab_size": models.VOCAB,
            "hidden_size": 16,
            "encoder_hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 32,
            "bos_token_id": 2,
            "eos_token_id": models.EOS,
            "sep_token_id": models.EOS,
            "pad_token_id": models.PAD,
            "initializer_range": 0.4,
        },
        projection_dim=16,
    )
    return BlipForConditionalGeneration(config).eval()


def images(seed: int, count: int) -> torch.Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def no_end(model) -> None:
    for part in (model, getattr(model, "text_decoder", None), getattr(model, "decoder", None)):
        if part is not None and getattr(part, "generation_config", None) is not None:
            part.generation_config.eos_token_id = None


def guided_by_pixels(logits_of, pixels: torch.Tensor):
    """Reference: `logits_of(tokens, pixels)` recomputed for the image and for a blank one."""

    def row(generated: tuple[int, ...]) -> np.ndarray:
        with torch.no_grad():
            c, u = (logits_of(generated, x).double().numpy() for x in (pixels, torch.zeros_like(pixels)))
        return reference.affine([c, u], [SCALE, 1 - SCALE])

    return row


def check(produced: list[list[int]], guided) -> None:
    agreement = reference.Agreement()
    for index, tokens in enumerate(produced):
        assert len(tokens) == STEPS
        reference.check_greedy(guided(index), tokens, None, agreement)
    assert agreement.ties == 0


def blank() -> gr.Term:
    return gr.ClassifierFree(SCALE, null_inputs=gr.blank("pixel_values"))


def vision_encoder_decoder_reference(pixels: torch.Tensor):
    model = encoder_decoder()

    def logits(generated: tuple[int, ...], x: torch.Tensor) -> torch.Tensor:
        return model(pixel_values=x, decoder_input_ids=torch.tensor([[2, *generated]]), use_cache=False).logits[0, -1]

    return lambda index: guided_by_pixels(logits, pixels[index : index + 1])


def test_vision_encoder_decoder() -> None:
    model, pixels = encoder_decoder(), images(0, 2)
    no_end(model)
    processor = GuidanceLogitsProcessor(blank(), model=model)
    output = model.generate(pixels, logits_processor=[processor], max_new_tokens=STEPS, do_sample=False)
    check(output[:, 1:].tolist(), vision_encoder_decoder_reference(pixels))
    beams = model.generate(
        pixels,
        logits_processor=[processor],
        max_new_tokens=STEPS,
        num_beams=3,
        do_sample=False,
        length_penalty=0.0,
        return_dict_in_generate=True,
        output_scores=True,
    )
    for index in range(2):
        score, _ = reference.beam_search(vision_encoder_decoder_reference(pixels)(index), 3, STEPS)[0]
        assert float(beams.sequences_scores[index]) == pytest.approx(score, abs=1e-3)


def test_a_zeroed_embedding_is_another_null_than_a_blank_image() -> None:
    model, pixels = encoder_decoder(), images(1, 1)
    no_end(model)
    term = gr.ClassifierFree(SCALE, null_inputs=gr.blank("encoder_outputs"))
    processor = GuidanceLogitsProcessor(term, model=model)
    output = model.generate(pixels, logits_processor=[processor], max_new_tokens=STEPS, do_sample=False)[0, 1:].tolist()

    def row(generated: tuple[int, ...]) -> np.ndarray:
        tokens = torch.tensor([[2, *generated]])
        with torch.no_grad():
            states = model.encoder(pixels).last_hidden_state
            c, u = (
                model(encoder_outputs=(s,), decoder_input_ids=tokens, use_cache=False).logits[0, -1].double().numpy()
                for s in (states, torch.zeros_like(states))
            )
        return reference.affine([c, u], [SCALE, 1 - SCALE])

    reference.check_greedy(row, output, None, reference.Agreement())


def test_own_loop_on_a_vision_encoder_decoder_with_language_model_guidance() -> None:
    model, pixels, language = encoder_decoder(), images(2, 2), models.llama(4)
    no_end(model)
    term = gr.LanguageModelCaption(language, [5, 6], gr.blank("pixel_values"), alpha=0.7, beta=1.5)
    # what an encoder-decoder calls prompt is its source: here the image alone
    decoder = GuidedDecoder(model, term, eos_token_ids=[])
    produced = [g.token_ids for g in decoder.decode([[0], [0]], STEPS, inputs={"pixel_values": pixels})]

    def guided(index: int):
        x = pixels[index : index + 1]
        lm = reference.stream(language, [5, 6])

        def row(generated: tuple[int, ...]) -> np.ndarray:
            tokens = torch.tensor([[2, *generated]])
            with torch.no_grad():
                c, u = (
                    model(pixel_values=y, decoder_input_ids=tokens, use_cache=False).logits[0, -1].double().numpy()
                    for y in (x, torch.zeros_like(x))
                )
            return reference.affine([c, u, lm(generated)], [1.5, -1.5, 0.7])

        return row

    check(produced, guided)


@pytest.mark.parametrize("loop", ["processor", "own"])
def test_image_tokens_inside_the_prompt(loop: str) -> None:
    model, pixels = llava(), images(3, 2)
    no_end(model)
    prompts = [[2, *[IMAGE_TOKEN] * 4, 5, 6], [2, *[IMAGE_TOKEN] * 4, 9]]
    if loop == "own":
        decoder = GuidedDecoder(model, blank(), eos_token_ids=[])
        produced = [g.token_ids for g in decoder.decode(prompts, STEPS, inputs={"pixel_values": pixels})]
    else:
        processor = GuidanceLogitsProcessor(blank(), model=model)
        inputs = models.left_padded(prompts)
        output = model.generate(
            **inputs, pixel_values=pixels, logits_processor=[processor], max_new_tokens=STEPS, do_sample=False
        )
        produced = output[:, 7:].tolist()

    def guided(index: int):
        def logits(generated: tuple[int, ...], x: torch.Tensor) -> torch.Tensor:
            ids = torch.tensor([[*prompts[index], *generated]])
            return model(input_ids=ids, pixel_values=x, use_cache=False).logits[0, -1]

        return guided_by_pixels(logits, pixels[index : index + 1])

    check(produced, guided)


def test_image_features_in_front_of_the_text() -> None:
    model, pixels = git(), images(4, 2)
    no_end(model)
    processor = GuidanceLogitsProcessor(blank(), model=model)
    ids = torch.tensor([[2, 5], [2, 7]])
    output = model.generate(
        input_ids=ids, pixel_values=pixels, logits_processor=[processor], max_new_tokens=STEPS, do_sample=False
    )

    def guided(index: int):
        def logits(generated: tuple[int, ...], x: torch.Tensor) -> torch.Tensor:
            tokens = torch.tensor([[*ids[index].tolist(), *generated]])
            return model(input_ids=tokens, pixel_values=x, use_cache=False).logits[0, -1]

        return guided_by_pixels(logits, pixels[index : index + 1])

    check(output[:, 2:].tolist(), guided)


def test_a_captioner_that_delegates_to_its_text_decoder() -> None:
    model, pixels = blip(), images(5, 2)
    no_end(model)
    with torch.no_grad():
        null = model.vision_model(torch.zeros(1, 3, 8, 8))[0]
    term = gr.ClassifierFree(SCALE, null_inputs=gr.replaced(encoder_hidden_states=null))
    processor = GuidanceLogitsProcessor(term, model=model.text_decoder)
    output = model.generate(pixels, logits_processor=[processor], max_new_tokens=STEPS, do_sample=False)

    def guided(index: int):
        def logits(generated: tuple[int, ...], x: torch.Tensor) -> torch.Tensor:
            states = model.vision_model(x)[0]
            tokens = torch.tensor([[2, *generated]])
            mask = torch.ones(states.shape[:2], dtype=torch.long)
            return model.text_decoder(
                input_ids=tokens, encoder_hidden_states=states, encoder_attention_mask=mask, use_cache=False
            ).logits[0, -1]

        return guided_by_pixels(logits, pixels[index : index + 1])

    for index, row in enumerate(output.tolist()):
        agreement = reference.Agreement()
        reference.check_greedy(guided(index), row[1:], models.EOS, agreement)
        assert agreement.ties == 0
