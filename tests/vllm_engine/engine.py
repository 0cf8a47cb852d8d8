"""Runs of the real engine that several tests share: prompts, references by transformers, and how an engine is started.

Meant for the environment that `make vllm-test` builds; nothing here is imported where vLLM is missing.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "guiderail"
MODEL = Path(os.environ.get("GUIDERAIL_TEST_MODEL", CACHE / "models" / "SmolLM2-135M-Instruct"))

# Settings under which streams of a group get out of step, each in its own way.
LOADS: dict[str, dict[str, Any]] = {
    "default": {},
    "chunked prefill": {"max_num_batched_tokens": 40},
    "starved KV cache": {"num_gpu_blocks_override": 13, "block_size": 32},
    "no prefix caching": {"enable_prefix_caching": False},
}

PAIRS = [
    ("The best way to boil an egg is", "Cooking is dangerous and"),
    ("My favourite animal is the", "I do not like animals, but"),
    ("The capital of France is", "The capital of Germany is"),
    ("To sort a list in Python,", "To sort a list in Java,"),
    ("Once upon a time there was a king who", "Yesterday the news reported that"),
    ("Photosynthesis is the process by which", "I have no idea what"),
    ("Dear Sir or Madam,", "Hey dude,"),
    ("The weather today is", "The weather yesterday was terrible:"),
    ("In 1969, humans first", "In 2020, scientists"),
    ("A good password should", "A bad password might"),
    ("The recipe needs flour, sugar and", "The toolbox holds a hammer, nails and"),
    ("She opened the door and saw", "He closed the window because"),
    ("Water boils at", "Iron melts at a temperature that"),
    ("The theory of relativity says that", "Poetry is about"),
    ("My phone does not work, so I", "Everything is fine, so I"),
    ("The three primary colours are", "The four seasons are"),
    ("If it rains tomorrow, we will", "If the sun shines,"),
    ("A triangle has three", "A square has four"),
    ("Shakespeare wrote", "Bach composed music"),
    ("The train to London leaves at", "Planes are late because of"),
]
SCALES = (0.0, 1.0, 1.5, 3.0)


def make_engine(model: str | Path = MODEL, **settings: Any) -> Any:
    """vLLM in this process, with guiderail's backend, scheduler and processor, in float32."""
    from guiderail.integrations.vllm import register
    from guiderail.integrations.vllm.settings import LOGITS_PROCESSOR, SCHEDULER

    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    assert register()
    from vllm import LLM

    options = {
        "dtype": "float32",
        "enforce_eager": True,
        "max_model_len": 128,
        "max_num_seqs": 16,
        "scheduler_cls": SCHEDULER,
        "logits_processors": [LOGITS_PROCESSOR],
        "async_scheduling": False,
        "structured_outputs_config": {"backend": "guiderail"},
        "logprobs_mode": "processed_logprobs",
        # The cache's size is VLLM_CPU_KVCACHE_SPACE; this only says how much memory must be free at the start.
        "gpu_memory_utilization": 0.3,
    }
    return LLM(str(model), **{**options, **settings})


def reference(prompt: str, negative: str, scale: float, max_tokens: int, constraint: Any = None) -> list[int]:
    """Greedy tokens by transformers: its own classifier-free guidance, its own loop."""
    import torch

    tokenizer, model = _transformers()
    inputs = tokenizer(prompt, return_tensors="pt")
    options: dict[str, Any] = {}
    if scale != 1.0:
        options = {"guidance_scale": scale, "negative_prompt_ids": tokenizer(negative, return_tensors="pt").input_ids}
    if constraint is not None:
        from guiderail.integrations.transformers import GrammarLogitsProcessor

        options["logits_processor"] = [GrammarLogitsProcessor(constraint, max_tokens=max_tokens)]
    with torch.no_grad():
        output = model.generate(
            **inputs, **options, do_sample=False, max_new_tokens=max_tokens, pad_token_id=tokenizer.eos_token_id
        )
    return output[0, inputs.input_ids.shape[1] :].tolist()


_loaded: list[Any] = []


def _transformers() -> Any:
    if not _loaded:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        _loaded.append(AutoTokenizer.from_pretrained(MODEL))
        _loaded.append(AutoModelForCausalLM.from_pretrained(MODEL, dtype="float32").eval())
    return _loaded
