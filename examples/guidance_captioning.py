"""Captioning guidance: the null stream sees a blank image. Runs offline on a tiny random captioner in a second.

With a real captioner nothing changes but the model; whether a blank image is a null it knows is a question of its
training.
"""

from __future__ import annotations

import torch
from transformers import GPT2Config, GPT2LMHeadModel, VisionEncoderDecoderModel, ViTConfig, ViTModel

from guiderail import guidance
from guiderail.integrations.transformers_guidance import GuidanceLogitsProcessor


def tiny_captioner() -> VisionEncoderDecoderModel:
    torch.manual_seed(0)
    vision = ViTConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4,
        initializer_range=0.5,
    )  # fmt: skip
    text = GPT2Config(
        vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=32, add_cross_attention=True, initializer_range=0.4,
        bos_token_id=2, eos_token_id=1,
    )  # fmt: skip
    model = VisionEncoderDecoderModel(encoder=ViTModel(vision), decoder=GPT2LMHeadModel(text)).eval()
    model.generation_config.decoder_start_token_id = model.config.decoder_start_token_id = 2
    model.generation_config.pad_token_id = model.config.pad_token_id = 0
    model.generation_config.eos_token_id = None
    return model


def main() -> None:
    model = tiny_captioner()
    images = torch.randn(2, 3, 8, 8)
    for scale in (1.0, 2.0, 3.0):
        term = guidance.ClassifierFree(scale, null_inputs=guidance.blank("pixel_values"))
        processor = GuidanceLogitsProcessor(term, model=model)
        captions = model.generate(images, logits_processor=[processor], num_beams=2, do_sample=False, max_new_tokens=8)
        print(f"scale {scale}: {captions[:, 1:].tolist()}")


if __name__ == "__main__":
    main()
