"""Four kinds of captioner, the nulls each of them can have, and language-model guidance: whole runs with random weights
against recomputing every stream. Greedy for every null; beams and language-model guidance with the first."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from guidance import models, test_images
from guidance.test_images import IMAGE_TOKEN, images, no_end
from guiderail import guidance as gr
from guiderail.integrations.transformers_guidance import GuidanceLogitsProcessor
from oracles import guidance_reference as reference

STEPS, SCALE = 5, 1.8
Logits = Callable[[tuple[int, ...], torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Captioner:
    """A model, how it is run, what it says after a text, and its nulls: (what a user writes, what the null says).

    Args: own, nulls: generated tokens and pixels (1, 3, 8, 8) -> logits (vocab,), recomputed from nothing.
    """

    build: Callable[[], Any]
    guided_part: Callable[[Any], Any]
    run: Callable[..., torch.Tensor]
    own: Callable[[Any], Logits]
    nulls: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Logits]]]


def _blank(logits: Callable[[Any], Logits]) -> Callable[[Any], Logits]:
    return lambda model: lambda text, pixels: logits(model)(text, torch.zeros_like(pixels))


# -- a vision encoder and a decoder with cross-attention --------------------------------------------------------------


def _seen_by_encoder(model: Any) -> Logits:
    return lambda text, pixels: model(
        pixel_values=pixels, decoder_input_ids=torch.tensor([[2, *text]]), use_cache=False
    ).logits[0, -1]


def _zero_states(model: Any) -> Logits:
    def logits(text: tuple[int, ...], pixels: torch.Tensor) -> torch.Tensor:
        states = torch.zeros_like(model.encoder(pixels).last_hidden_state)
        tokens = torch.tensor([[2, *text]])
        return model(encoder_outputs=(states,), decoder_input_ids=tokens, use_cache=False).logits[0, -1]

    return logits


ENCODER_DECODER = Captioner(
    test_images.encoder_decoder,
    lambda model: model,
    lambda model, pixels, **settings: model.generate(pixels, **settings)[:, 1:],
    _seen_by_encoder,
    {
        "blank pixels": (lambda model: {"null_inputs": gr.blank("pixel_values")}, _blank(_seen_by_encoder)),
        "zero embedding": (lambda model: {"null_inputs": gr.blank("encoder_outputs")}, _zero_states),
    },
)


# -- a captioner whose generate delegates to its text decoder ---------------------------------------------------------


def _blip_logits(states_of: Callable[[Any, torch.Tensor], torch.Tensor | None]) -> Callable[[Any], Logits]:
    def of(model: Any) -> Logits:
        def logits(text: tuple[int, ...], pixels: torch.Tensor) -> torch.Tensor:
            states = states_of(model, pixels)
            seen = {} if states is None else {
                "encoder_hidden_states": states, "encoder_attention_mask": torch.ones(states.shape[:2]).long()
            }  # fmt: skip
            return model.text_decoder(input_ids=torch.tensor([[2, *text]]), use_cache=False, **seen).logits[0, -1]

        return logits

    return of


def _blank_states(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.vision_model(torch.zeros(1, 3, 8, 8))[0]


BLIP = Captioner(
    test_images.blip,
    lambda model: model.text_decoder,
    lambda model, pixels, **settings: model.generate(pixels, **settings)[:, 1:],
    _blip_logits(lambda model, pixels: model.vision_model(pixels)[0]),
    {
        "blank pixels": (
            lambda model: {"null_inputs": gr.replaced(encoder_hidden_states=_blank_states(model))},
            _blip_logits(lambda model, pixels: model.vision_model(torch.zeros_like(pixels))[0]),
        ),
        "zero embedding": (
            lambda model: {"null_inputs": gr.blank("encoder_hidden_states")},
            _blip_logits(lambda model, pixels: torch.zeros_like(model.vision_model(pixels)[0])),
        ),
        "dropped": (
            lambda model: {"null_inputs": gr.dropped("encoder_hidden_states", "encoder_attention_mask")},
            _blip_logits(lambda model, pixels: None),
        ),
    },
)


# -- image features in front of the text ------------------------------------------------------------------------------


def _git_logits(model: Any) -> Logits:
    return lambda text, pixels: model(
        input_ids=torch.tensor([[2, 5, *text]]), pixel_values=pixels, use_cache=False
    ).logits[0, -1]


GIT = Captioner(
    test_images.git,
    lambda model: model,
    lambda model, pixels, **settings: model.generate(
        input_ids=torch.tensor([[2, 5]] * len(pixels)), pixel_values=pixels, **settings
    )[:, 2:],
    _git_logits,
    {
        "blank pixels": (lambda model: {"null_inputs": gr.blank("pixel_values")}, _blank(_git_logits)),
        "dropped": (
            lambda model: {"null_inputs": gr.dropped("pixel_values")},
            lambda model: (
                lambda text, pixels: model(input_ids=torch.tensor([[2, 5, *text]]), use_cache=False).logits[0, -1]
            ),
        ),
    },
)


# -- image tokens inside the prompt -----------------------------------------------------------------------------------

LLAVA_PROMPT, LLAVA_NULL = [2, 5, *[IMAGE_TOKEN] * 4, 9], [2, 5, 9]


def _llava_logits(model: Any) -> Logits:
    def logits(text: tuple[int, ...], pixels: torch.Tensor) -> torch.Tensor:
        ids = torch.tensor([[*LLAVA_PROMPT, *text]])
        row = model(input_ids=ids, pixel_values=pixels, use_cache=False).logits[0, -1].clone()
        row[IMAGE_TOKEN] = -math.inf  # suppressed in these runs: a caption cannot hold another image
        return row

    return logits


LLAVA = Captioner(
    test_images.llava,
    lambda model: model,
    lambda model, pixels, **settings: model.generate(
        input_ids=torch.tensor([LLAVA_PROMPT] * len(pixels)),
        pixel_values=pixels,
        suppress_tokens=[IMAGE_TOKEN],
        **settings,
    )[:, len(LLAVA_PROMPT) :],
    _llava_logits,
    {
        "blank pixels": (lambda model: {"null_inputs": gr.blank("pixel_values")}, _blank(_llava_logits)),
        "dropped tokens": (
            lambda model: {"negative_prompt_ids": LLAVA_NULL},
            lambda model: (
                lambda text, pixels: model(input_ids=torch.tensor([[*LLAVA_NULL, *text]]), use_cache=False).logits[
                    0, -1
                ]
            ),
        ),
    },
)

CAPTIONERS = {"encoder-decoder": ENCODER_DECODER, "blip": BLIP, "git": GIT, "llava": LLAVA}
NULLS = [(name, null) for name, captioner in CAPTIONERS.items() for null in captioner.nulls]


def combined(streams: list[Logits], weights: list[float], pixels: torch.Tensor) -> Callable[..., np.ndarray]:
    def row(text: tuple[int, ...]) -> np.ndarray:
        with torch.no_grad():
            rows = [logits(text, pixels).double().numpy() for logits in streams]
        return reference.affine(rows, weights)

    return row


@pytest.mark.parametrize(("name", "null"), NULLS)
def test_every_null_of_every_captioner(name: str, null: str) -> None:
    captioner, pixels = CAPTIONERS[name], images(6, 2)
    model = captioner.build()
    no_end(model)
    written, said = captioner.nulls[null]
    processor = GuidanceLogitsProcessor(gr.ClassifierFree(SCALE, **written(model)), model=captioner.guided_part(model))
    produced = captioner.run(
        model, pixels, logits_processor=[processor], max_new_tokens=STEPS, do_sample=False
    ).tolist()
    agreement = reference.Agreement()
    for index, tokens in enumerate(produced):
        assert len(tokens) == STEPS
        streams = [captioner.own(model), said(model)]
        guided = combined(streams, [SCALE, 1 - SCALE], pixels[index : index + 1])
        reference.check_greedy(guided, tokens, None, agreement)
    assert agreement.ties == 0


@pytest.mark.parametrize("name", CAPTIONERS)
def test_language_model_guidance_with_beams(name: str) -> None:
    captioner, pixels, language = CAPTIONERS[name], images(7, 2), models.llama(4)
    model = captioner.build()
    no_end(model)
    null, (written, said) = next(iter(captioner.nulls.items()))
    assert null == "blank pixels"
    alpha, beta = 0.7, [1.2, 1.9]
    term = gr.LanguageModelCaption(language, [5, 6], written(model)["null_inputs"], alpha, beta)
    processor = GuidanceLogitsProcessor(term, model=captioner.guided_part(model))
    caption = reference.stream(language, [5, 6])
    produced = captioner.run(
        model, pixels, logits_processor=[processor], max_new_tokens=4, num_beams=3, do_sample=False, length_penalty=0.0
    ).tolist()
    for index, tokens in enumerate(produced):
        own, blank = captioner.own(model), said(model)

        def guided(text: tuple[int, ...], index: int = index, own: Logits = own, blank: Logits = blank) -> np.ndarray:
            image = pixels[index : index + 1]
            with torch.no_grad():
                rows = [logits(text, image).double().numpy() for logits in (own, blank)]
            return reference.affine([*rows, caption(text)], [beta[index], -beta[index], alpha])

        searched = reference.beam_search(guided, 3, 4)
        score = sum(guided(tuple(tokens[:step]))[token] for step, token in enumerate(tokens))
        assert tuple(tokens) == searched[0][1] or score == pytest.approx(searched[0][0], abs=1e-3)
