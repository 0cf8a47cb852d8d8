"""Does guidance in vLLM give the tokens of transformers? `python -m vllm_engine.equality [LOAD …]` in tests/ prints a
table.

20 prompt pairs × scales 0, 1, 1.5, 3, greedy, float32, for each load of engine.py; all requests are in flight at once.
The reference is computed once and kept beside the model.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from vllm_engine.engine import CACHE, LOADS, PAIRS, SCALES, make_engine, reference

TOKENS = 32


def references() -> list[list[int]]:
    path = CACHE / f"vllm-guidance-reference-{TOKENS}.json"
    if not path.exists():
        found = [reference(prompt, negative, scale, TOKENS) for prompt, negative in PAIRS for scale in SCALES]
        path.write_text(json.dumps(found))
    return json.loads(path.read_text())


def run(llm: Any) -> list[list[int]]:
    from vllm import SamplingParams

    parameters = [
        SamplingParams(
            temperature=0, max_tokens=TOKENS, extra_args={"guidance_scale": scale, "negative_prompt": negative}
        )
        for _, negative in PAIRS
        for scale in SCALES
    ]
    prompts = [prompt for prompt, _ in PAIRS for _ in SCALES]
    outputs = llm.generate(prompts, parameters, use_tqdm=False)
    return [list(output.outputs[0].token_ids) for output in outputs]


def count_preemptions(llm: Any) -> list[str]:
    """A list to which the engine adds the id of every request that it preempts from now on."""
    found: list[str] = []
    scheduler = llm.llm_engine.engine_core.engine_core.scheduler
    original = scheduler._preempt_request

    def preempt(request: Any, *args: Any, **options: Any) -> None:
        found.append(request.request_id)
        original(request, *args, **options)

    scheduler._preempt_request = preempt
    return found


def main() -> int:
    from guiderail.integrations.vllm.metrics import METRICS

    expected = references()
    status = 0
    for load in sys.argv[1:] or ["default"]:
        llm = make_engine(**LOADS[load])
        preempted = count_preemptions(llm)
        before = METRICS.totals()["guidance_steps_discarded_total"]
        start = time.perf_counter()
        found = run(llm)
        seconds = time.perf_counter() - start
        discarded = METRICS.totals()["guidance_steps_discarded_total"] - before
        equal = [a == b for a, b in zip(found, expected, strict=True)]
        by_scale = {scale: sum(equal[i :: len(SCALES)]) for i, scale in enumerate(SCALES)}
        status |= not all(equal)
        print(
            f"RESULT {load}: {sum(equal)}/{len(expected)} equal, by scale {by_scale}; {discarded:.0f} discarded, "
            f"{len(preempted)} preemptions, {seconds:.1f} s",
            flush=True,
        )
        for i, (a, b) in enumerate(zip(found, expected, strict=True)):
            if a != b:
                print("   ", PAIRS[i // len(SCALES)], SCALES[i % len(SCALES)], a, b)
    return status


if __name__ == "__main__":
    sys.exit(main())
