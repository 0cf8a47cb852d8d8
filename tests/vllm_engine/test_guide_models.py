"""Guide models inside the real engine, against a loop over transformers that recomputes every text from its beginning.

The reference shares no code with the package: formulas are written out here, on logits of whole texts.
"""

from __future__ import annotations

import math
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed; `make vllm-test` has an environment with it")

import torch
from vllm import SamplingParams
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import StructuredOutputsParams

from vllm_engine.engine import MODEL, PAIRS, make_engine

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

TOKENS = 12
PROMPTS = [prompt for prompt, _ in PAIRS[:5]]


def small_model(path: Any, seed: int, vocab_size: int = 49152, longest: int = 128) -> str:
    """A random model with the vocabulary of the served one, whose opinions are strong enough to matter."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=vocab_size, max_position_embeddings=longest, initializer_range=0.2, **shape)
    LlamaForCausalLM(config).save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guides")
    return {name: small_model(folder / name, seed) for seed, name in enumerate(("amateur", "expert", "classes"))}


@pytest.fixture(scope="module")
def llm(paths):
    if not MODEL.is_dir():
        pytest.skip(f"no model in {MODEL}: run `make demo` once")
    # Few blocks and small chunks, as in test_engine.py: positions are taken back, requests are preempted.
    return make_engine(
        num_gpu_blocks_override=9,
        block_size=32,
        max_num_batched_tokens=48,
        max_num_seqs=8,
        additional_config={"guiderail": {"guide_models": paths}},
    )


class Reference:
    """Next-token log-probabilities of any text by any of the models, in float32 without a cache."""

    def __init__(self, paths: dict[str, str]) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(MODEL)
        load = AutoModelForCausalLM.from_pretrained
        self.models = {name: load(path, dtype=torch.float32).eval() for name, path in {**paths, "": MODEL}.items()}

    @torch.no_grad()
    def everywhere(self, name: str, ids: list[int]) -> torch.Tensor:
        return self.models[name](torch.tensor([ids])).logits[0].log_softmax(-1)

    def last(self, name: str, ids: list[int]) -> torch.Tensor:
        return self.everywhere(name, ids)[-1]

    def greedy(self, prompt: str, rule: Any) -> list[int]:
        ids = self.tokenizer(prompt).input_ids
        start = len(ids)
        while len(ids) < start + TOKENS:
            ids = [*ids, int(rule(ids).argmax())]
            if ids[-1] == self.tokenizer.eos_token_id:
                break
        return ids[start:]


@pytest.fixture(scope="module")
def reference(paths):
    return Reference(paths)


def ask(llm: Any, arguments: dict[str, Any], **options: Any) -> list[list[int]]:
    parameters = SamplingParams(**{"temperature": 0, "max_tokens": TOKENS, "extra_args": arguments, **options})
    outputs = llm.generate(PROMPTS, [parameters] * len(PROMPTS), use_tqdm=False)
    return [list(output.outputs[0].token_ids) for output in outputs]


def test_contrastive_decoding_with_a_smaller_model(llm, reference):
    def rule(ids: list[int]) -> torch.Tensor:
        own = reference.last("", ids)
        scores = own + 0.5 * (own - reference.last("amateur", ids))
        return torch.where(own >= own.max() + math.log(0.1), scores, -torch.inf)

    arguments = {"guidance_models": ["amateur"], "guidance_model_weights": [-0.5], "plausibility": 0.1}
    found = ask(llm, arguments)
    assert found == [reference.greedy(prompt, rule) for prompt in PROMPTS]
    assert found != ask(llm, {})


def test_expert_and_antiexpert_with_a_negative_prompt(llm, reference):
    negative = PAIRS[0][1]
    starts = {prompt: len(reference.tokenizer(prompt).input_ids) for prompt in PROMPTS}

    def rule_for(prompt: str) -> Any:
        def rule(ids: list[int]) -> torch.Tensor:
            own = reference.last("", ids)
            null = reference.last("", [*reference.tokenizer(negative).input_ids, *ids[starts[prompt] :]])
            difference = reference.last("expert", ids) - reference.last("amateur", ids)
            return own + 0.5 * (own - null) + 0.3 * difference

        return rule

    arguments = {"guidance_models": ["expert", "amateur"], "guidance_model_weights": [0.3, -0.3]}
    found = ask(llm, {**arguments, "guidance_scale": 1.5, "negative_prompt": negative})
    assert found == [reference.greedy(prompt, rule_for(prompt)) for prompt in PROMPTS]


def test_several_prompts_with_a_schedule(llm, reference):
    """Two negative prompts and a positive one, growing over four tokens and off again after the eighth."""
    others = [PAIRS[0][1], PAIRS[3][1], "Answer in capital letters: THE"]
    weights = [-0.4, -0.3, 0.5]
    starts = {prompt: len(reference.tokenizer(prompt).input_ids) for prompt in PROMPTS}

    def rule_for(prompt: str) -> Any:
        def rule(ids: list[int]) -> torch.Tensor:
            position = len(ids) - starts[prompt]
            strength = min(position / 3, 1.0) if 0 <= position < 8 else 0.0
            scores = own = reference.last("", ids)
            for other, weight in zip(others, weights, strict=True):
                stream = reference.last("", [*reference.tokenizer(other).input_ids, *ids[starts[prompt] :]])
                scores = scores + strength * weight * (stream - own)
            return scores

        return rule

    arguments = {
        "guidance_scale": 1.4,
        "negative_prompt": others[0],
        "guidance_prompts": others[1:],
        "guidance_weights": weights[1:],
        "guidance_ramp": 4,
        "guidance_interval": [0, 8],
    }
    found = ask(llm, arguments)
    assert found == [reference.greedy(prompt, rule_for(prompt)) for prompt in PROMPTS]


@pytest.mark.parametrize("bounds", [[], [0.2, 0.8]])
def test_gedi_with_a_class_conditional_model(llm, reference, bounds):
    desired, undesired = reference.tokenizer(" positive").input_ids, reference.tokenizer(" negative").input_ids
    assert len(desired) == len(undesired) == 1
    omega = 20.0

    def class_logits(code: list[int], ids: list[int]) -> torch.Tensor:
        text = [*code, *ids]
        scores = reference.everywhere("classes", text)
        so_far = sum(float(scores[i, token]) for i, token in enumerate(text[1:]))
        return (so_far + scores[-1]) / len(text)

    def rule(ids: list[int]) -> torch.Tensor:
        posterior = torch.log_softmax(torch.stack([class_logits(desired, ids), class_logits(undesired, ids)]), dim=0)[0]
        scores = (reference.last("", ids) + omega * posterior).log_softmax(-1)
        if bounds:
            order = posterior.argsort(descending=True)
            reached = scores[order].exp().cumsum(0) - scores[order].exp() < bounds[0]
            reached[0] = True
            keep = posterior >= math.log(bounds[1])
            keep[order[reached]] = True
            scores = torch.where(keep, scores, -torch.inf)
        return scores

    arguments = {
        "guidance_class_model": "classes",
        "guidance_desired": " positive",
        "guidance_undesired": undesired,
        "guidance_omega": omega,
        "guidance_class_filter": bounds,
    }
    found = ask(llm, arguments)
    assert found == [reference.greedy(prompt, rule) for prompt in PROMPTS]
    assert found != ask(llm, {})


def test_a_guide_model_under_a_grammar(llm):
    arguments = {"guidance_models": ["expert"], "guidance_model_weights": [0.5]}
    found = ask(llm, arguments, structured_outputs=StructuredOutputsParams(regex="[A-Z]{4,8}"), temperature=0.9, seed=3)
    for text in map(llm.get_tokenizer().decode, ([t for t in row if t > 2] for row in found)):
        assert text.isalpha()
        assert text.isupper()
        assert 4 <= len(text) <= 8


def test_states_of_ended_requests_are_forgotten(llm):
    from vllm.v1.sample.logits_processor import LogitsProcessors

    ask(llm, {"guidance_models": ["amateur"], "guidance_model_weights": [-0.5]})
    llm.generate(["x", "y"], SamplingParams(max_tokens=2), use_tqdm=False)  # a step in which those rows are gone
    runner = llm.llm_engine.model_executor.driver_worker.worker.model_runner
    processors: LogitsProcessors = runner.input_batch.logitsprocs
    guide = next(p for p in processors.non_argmax_invariant if type(p).__name__ == "GuidanceLogitsProcessor")
    states = guide._guides._runners["amateur"]
    assert not states._parked
    assert not states._batches


def test_a_guide_model_that_is_not_there_is_refused(llm):
    with pytest.raises(VLLMValidationError, match=r"no guide model 'nobody'.*amateur, classes, expert.*--guide-model"):
        ask(llm, {"guidance_models": ["nobody"], "guidance_model_weights": [1]})


@pytest.mark.parametrize(
    ("options", "message"),
    [({"vocab_size": 1000}, "guide model odd has 1000 tokens"), ({"longest": 64}, "--max-model-len 64")],
)
def test_models_that_cannot_guide_are_refused_at_the_start(llm, tmp_path, options, message):
    from guiderail.integrations.vllm.guide_models import GuideModels

    config = llm.llm_engine.vllm_config
    changed = type("Config", (), {"model_config": config.model_config, "additional_config": None})
    changed.additional_config = {"guiderail": {"guide_models": {"odd": small_model(tmp_path / "odd", 0, **options)}}}
    with pytest.raises(ValueError, match=message):
        GuideModels(changed, torch.device("cpu"))
