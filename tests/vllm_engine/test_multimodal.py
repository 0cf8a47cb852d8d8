"""Guidance of requests with images inside the real engine, against a loop over transformers that keeps no cache.

A BLIP-2 of random weights, whose image decides what it writes, with SmolLM2's tokenizer. The reference shares no code
with the package: it is the formula on logits of whole texts, with pixels of zeros or a prompt without image tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed; `make vllm-test` has an environment with it")

import torch
from PIL import Image
from vllm import SamplingParams
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import StructuredOutputsParams

from vllm_engine.engine import MODEL, make_engine

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

TOKENS = 12
PROMPT = "Question: what is in this picture? Answer:"
SIDE, QUERIES = 28, 6


def blip2(folder: Path) -> Path:
    from transformers import (
        AutoTokenizer,
        Blip2Config,
        Blip2ForConditionalGeneration,
        Blip2Processor,
        Blip2QFormerConfig,
        Blip2VisionConfig,
        BlipImageProcessor,
        LlamaConfig,
    )

    processor = Blip2Processor(
        BlipImageProcessor(size={"height": SIDE, "width": SIDE}), AutoTokenizer.from_pretrained(MODEL), QUERIES
    )
    tokenizer = processor.tokenizer
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=256,
        initializer_range=0.3,
        architectures=["LlamaForCausalLM"],
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **shape,
    )
    torch.manual_seed(0)
    model = Blip2ForConditionalGeneration(
        Blip2Config(
            vision_config=Blip2VisionConfig(image_size=SIDE, patch_size=14, initializer_range=0.2, **shape),
            qformer_config=Blip2QFormerConfig(vocab_size=8, initializer_range=0.2, **shape),
            text_config=text,
            num_query_tokens=QUERIES,
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        )
    )
    with torch.no_grad():
        model.query_tokens.normal_()
        model.language_projection.weight.normal_(std=0.3)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    if not MODEL.is_dir():
        pytest.skip(f"no model in {MODEL}: run `make demo` once")
    return blip2(tmp_path_factory.mktemp("blip2"))


@pytest.fixture(scope="module", params=[{}, {"max_num_batched_tokens": 24, "num_gpu_blocks_override": 9}], ids=str)
def llm(request, folder):
    settings = {"max_model_len": 96, "block_size": 32, **request.param}
    return make_engine(model=str(folder), **settings)


@pytest.fixture(scope="module")
def hf(folder):
    from transformers import AutoProcessor, Blip2ForConditionalGeneration

    return AutoProcessor.from_pretrained(folder), Blip2ForConditionalGeneration.from_pretrained(folder).eval()


def picture(number: int) -> Any:
    pixels = torch.randint(0, 256, (SIDE, SIDE, 3), generator=torch.Generator().manual_seed(number), dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


PICTURES = [picture(number) for number in range(4)]


def asked(number: int, **arguments: Any) -> tuple[dict[str, Any], SamplingParams]:
    constraint = arguments.pop("structured_outputs", None)
    parameters = SamplingParams(
        temperature=0, max_tokens=TOKENS, ignore_eos=True, extra_args=arguments, structured_outputs=constraint
    )
    return {"prompt": PROMPT, "multi_modal_data": {"image": PICTURES[number]}}, parameters


@torch.no_grad()
def reference(hf: Any, number: int, scale: float, null: str) -> list[int]:
    processor, model = hf
    inputs = processor(images=PICTURES[number], text=PROMPT, return_tensors="pt")
    ids, pixels = inputs.input_ids, inputs.pixel_values
    image = model.config.image_token_index
    assert (ids == image).sum() == QUERIES
    written: list[int] = []
    for _ in range(TOKENS):
        tail = torch.tensor([written], dtype=torch.long)
        own = model(input_ids=torch.cat([ids, tail], 1), pixel_values=pixels).logits[0, -1].log_softmax(-1)
        if null == "blank":
            other = model(input_ids=torch.cat([ids, tail], 1), pixel_values=torch.zeros_like(pixels))
        else:
            other = model.language_model(input_ids=torch.cat([ids[ids != image][None], tail], 1))
        negative = other.logits[0, -1].log_softmax(-1)
        written.append(int((negative + scale * (own - negative)).argmax()))
    return written


def written(outputs: list[Any]) -> list[list[int]]:
    return [list(output.outputs[0].token_ids) for output in outputs]


def test_null_images_give_the_tokens_of_transformers(llm, hf):
    cases = [(n, scale, null) for n in range(len(PICTURES)) for scale in (1.5, 3.0) for null in ("blank", "none")]
    requests = [asked(n, guidance_scale=scale, negative_media=null) for n, scale, null in cases]
    found = written(llm.generate(*map(list, zip(*requests, strict=True)), use_tqdm=False))
    assert found == [reference(hf, *case) for case in cases]


def test_images_and_nulls_matter(llm):
    """Or the test above would say nothing."""
    plain = [asked(n) for n in range(len(PICTURES))]
    blank = [asked(n, guidance_scale=3.0, negative_media="blank") for n in range(len(PICTURES))]
    none = [asked(n, guidance_scale=3.0, negative_media="none") for n in range(len(PICTURES))]
    found = written(llm.generate(*map(list, zip(*plain, *blank, *none, strict=True)), use_tqdm=False))
    assert len({tuple(text) for text in found}) > 2 * len(PICTURES)


def test_a_grammar_holds_beside_a_null_image(llm):
    constraint = StructuredOutputsParams(regex="(cat|dog){3}")
    prompt, parameters = asked(0, guidance_scale=2.0, negative_media="blank", structured_outputs=constraint)
    parameters.ignore_eos = False
    text = llm.generate([prompt], [parameters], use_tqdm=False)[0].outputs[0].text
    assert text.replace("cat", "").replace("dog", "") == ""
    assert len(text) == 9


@pytest.mark.parametrize("negative", [{"negative_prompt": "<image> x <image>"}, {"negative_prompt": "USER: x"}])
def test_a_negative_prompt_has_no_image_whatever_it_says(llm, negative):
    outputs = llm.generate(*map(list, zip(asked(0, guidance_scale=2.0, **negative), asked(1), strict=True)))
    assert [len(text) for text in written(outputs)] == [TOKENS, TOKENS]


def test_requests_without_media_are_told_so(llm):
    _, parameters = asked(0, guidance_scale=2.0, negative_media="none")
    output = llm.generate(["no picture"], [parameters], use_tqdm=False)[0].outputs[0]
    assert (output.finish_reason, "no images" in output.stop_reason) == ("error", True)
    _, parameters = asked(0, guidance_scale=2.0, negative_media="grey")
    with pytest.raises(VLLMValidationError, match="negative_media is one of blank, none"):
        llm.generate(["no picture"], [parameters], use_tqdm=False)
