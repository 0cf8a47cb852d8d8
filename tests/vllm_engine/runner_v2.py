"""Guided requests under model runner V2 on the CPU: `python -m vllm_engine.runner_v2 [MODEL]` prints their tokens.

V2's kernels are written in Triton, which has no CPU backend here. Triton's interpreter runs them instead: slow, and the
same code. vLLM asks Triton whether there is a backend, so one is named before vLLM is imported; nothing calls it.
Triton 3.9's interpreter refuses masks of stores that it has computed as integers, as in vLLM's kernel that applies
grammars' masks: they are made truth values.
"""

from __future__ import annotations

import json
import os
import sys
from types import SimpleNamespace
from typing import Any

from vllm_engine.engine import MODEL, PAIRS, make_engine
from vllm_engine.equality import SENTENCE, count_preemptions

TOKENS, BOUND_TOKENS, SEEDED_TOKENS = 28, 16, 8
CHOSEN = PAIRS[:3]
SCALES = (1.5, 3.0)
# Chunks, and a cache that holds a part of the streams: positions are taken back, requests are preempted.
CROWDED = {"max_num_batched_tokens": 24, "num_gpu_blocks_override": 7, "block_size": 32}
LOADS: dict[str, dict[str, Any]] = {"default": {}, "crowded": CROWDED}


def prepare() -> None:
    os.environ.update(TRITON_INTERPRET="1", VLLM_USE_V2_MODEL_RUNNER="1", VLLM_ENABLE_V1_MULTIPROCESSING="0")
    from triton.backends import Backend, backends
    from triton.runtime.interpreter import InterpreterBuilder

    backends["cpu"] = Backend(None, SimpleNamespace(is_active=lambda: True))
    store = InterpreterBuilder.create_masked_store

    def create_masked_store(self: Any, ptrs: Any, value: Any, mask: Any, cache_policy: Any) -> Any:
        mask.data = mask.data.astype(bool)
        return store(self, ptrs, value, mask, cache_policy)

    InterpreterBuilder.create_masked_store = create_masked_store


def answers(llm: Any) -> dict[str, list[list[int]]]:
    """Tokens: greedy for each pair and scale, by a grammar, seeded (n = 3)."""
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    def guided(negative: str, scale: float, **options: Any) -> Any:
        guidance = {"guidance_scale": scale, "negative_prompt": negative, **options.pop("guidance", {})}
        return SamplingParams(**{"temperature": 0, "max_tokens": TOKENS, "extra_args": guidance, **options})

    asked: dict[str, list[tuple[str, Any]]] = {"free": [], "grammar": [], "seeded": []}
    for number, (prompt, negative) in enumerate(CHOSEN):
        asked["free"] += [(prompt, guided(negative, scale)) for scale in SCALES]
        bound = {"structured_outputs": StructuredOutputsParams(regex=SENTENCE), "max_tokens": BOUND_TOKENS}
        asked["grammar"].append((prompt, guided(negative, 1.5, **bound)))
        random = {"temperature": 1.0, "n": 3, "seed": number, "max_tokens": SEEDED_TOKENS}
        asked["seeded"].append((prompt, guided(negative, 1.5, **random)))
    outputs = llm.generate(
        [prompt for kind in asked.values() for prompt, _ in kind],
        [parameters for kind in asked.values() for _, parameters in kind],
        use_tqdm=False,
    )
    found: dict[str, list[list[int]]] = {}
    for kind, requests in asked.items():
        own, outputs = outputs[: len(requests)], outputs[len(requests) :]
        found[kind] = [list(answer.token_ids) for output in own for answer in output.outputs]
    return found


def main() -> int:
    prepare()
    model = sys.argv[1] if len(sys.argv) > 1 else MODEL
    found: dict[str, Any] = {}
    for load, settings in LOADS.items():
        llm = make_engine(model, **settings)
        from guiderail.integrations.vllm.metrics import METRICS

        assert llm.llm_engine.vllm_config.use_v2_model_runner
        before, preempted = METRICS.totals()["guidance_steps_discarded_total"], count_preemptions(llm)
        found[load] = {"answers": answers(llm)}
        found[load]["taken_back"] = METRICS.totals()["guidance_steps_discarded_total"] - before
        found[load]["preemptions"] = len(preempted)
        del llm
    print("RESULT", json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
