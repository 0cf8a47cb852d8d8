"""Does guidance in vLLM give the tokens of transformers? `python -m vllm_engine.equality [LOAD …]` in tests/.

Writes benchmarks/results/vllm_equality.json and .md, where a load that is not run keeps its last figures.

For each load of engine.py, in float32, with all requests of a kind in flight at once:

    free      20 prompt pairs × scales 0, 1, 1.5, 3, greedy, against transformers' own guidance
    grammar   the same by a regular expression, complete within the limit
    seeded    each pair three times (n = 3) at temperature 1 with a seed: against the same requests one at a time

References are computed once and kept beside the model.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

from vllm_engine.engine import CACHE, LOADS, PAIRS, SCALES, make_engine, reference

RESULTS = Path(__file__).parent.parent.parent / "benchmarks" / "results"
TOKENS, BOUND_TOKENS, SEEDED_TOKENS = 32, 16, 16
SENTENCE = r" [A-Za-z]{1,12}( [A-Za-z]{1,12}){2,8}\."
KINDS = ("free", "grammar", "seeded")


def references(kind: str) -> list[list[int]]:
    """Greedy tokens by transformers for all pairs and scales."""
    tokens, name = (TOKENS, f"{TOKENS}") if kind == "free" else (BOUND_TOKENS, f"sentence-{BOUND_TOKENS}")
    path = CACHE / f"vllm-guidance-reference-{name}.json"
    found = json.loads(path.read_text()) if path.exists() else []
    constraint = sentence() if kind == "grammar" else None
    asked = [(prompt, negative, scale) for prompt, negative in PAIRS for scale in SCALES]
    for arguments in asked[len(found) :]:  # kept one by one: it takes minutes
        found.append(reference(*arguments, tokens, constraint))
        path.write_text(json.dumps(found))
    return found


def sentence() -> Any:
    from transformers import AutoTokenizer

    import guiderail
    from vllm_engine.engine import MODEL

    vocabulary = guiderail.Vocabulary.from_tokenizer(AutoTokenizer.from_pretrained(MODEL), vocab_size=49152)
    return guiderail.compile(guiderail.Grammar.from_regex(SENTENCE), vocabulary)


def run(llm: Any, kind: str, alone: bool = False) -> list[list[int]]:
    """Tokens of all answers of a kind. Args: alone, one request after another."""
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    def parameters(number: int, negative: str, scale: float) -> Any:
        guidance = {"guidance_scale": scale, "negative_prompt": negative}
        if kind == "seeded":
            return SamplingParams(temperature=1.0, n=3, seed=number, max_tokens=SEEDED_TOKENS, extra_args=guidance)
        bound = StructuredOutputsParams(regex=SENTENCE) if kind == "grammar" else None
        tokens = TOKENS if bound is None else BOUND_TOKENS
        return SamplingParams(temperature=0, max_tokens=tokens, structured_outputs=bound, extra_args=guidance)

    scales = (1.5,) if kind == "seeded" else SCALES
    given = [
        (prompt, parameters(number, negative, scale))
        for number, (prompt, negative) in enumerate(PAIRS)
        for scale in scales
    ]
    batches = [[request] for request in given] if alone else [given]
    outputs = [
        output
        for batch in batches
        for output in llm.generate([prompt for prompt, _ in batch], [asked for _, asked in batch], use_tqdm=False)
    ]
    return [list(answer.token_ids) for output in outputs for answer in output.outputs]


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


def measure(llm: Any, kind: str, expected: list[list[int]], preempted: list[str]) -> dict[str, Any]:
    from guiderail.integrations.vllm.metrics import METRICS

    before, preempted_before = METRICS.totals()["guidance_steps_discarded_total"], len(preempted)
    start = time.perf_counter()
    found = run(llm, kind)
    entry = {
        "equal": sum(a == b for a, b in zip(found, expected, strict=True)),
        "answers": len(expected),
        "taken_back": int(METRICS.totals()["guidance_steps_discarded_total"] - before),
        "preemptions": len(preempted) - preempted_before,
        "seconds": round(time.perf_counter() - start, 1),
        "different": [[number, a, b] for number, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b],
    }
    print("RESULT", kind, entry, flush=True)
    return entry


def report(results: dict[str, Any]) -> str:
    lines = [
        "# Guidance in vLLM against transformers, token for token",
        "",
        f"Of {results['machine']}. SmolLM2-135M-Instruct, float32; {len(PAIRS)} prompt pairs × scales "
        f"{', '.join(f'{scale:g}' for scale in SCALES)}, greedy, {TOKENS} tokens free and at most {BOUND_TOKENS} by a "
        f"grammar; seeded: {len(PAIRS)} pairs × n = 3 at temperature 1 against the same requests one at a time.",
        "",
        "| load | answers | equal | positions taken back | preemptions |",
        "|---|---|---|---|---|",
    ]
    for load, kinds in results["loads"].items():
        for kind, entry in kinds.items():
            equal = f"{entry['equal']} of {entry['answers']}"
            lines.append(f"| {load} | {kind} | {equal} | {entry['taken_back']} | {entry['preemptions']} |")
    return "\n".join([*lines, ""])


def main() -> int:
    import vllm

    path = RESULTS / "vllm_equality.json"
    results = json.loads(path.read_text()) if path.exists() else {"loads": {}}
    moment = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    results["machine"] = f"{moment}; {platform.machine()}; vLLM {vllm.__version__}, Python {platform.python_version()}"
    status = 0
    expected = {kind: references(kind) for kind in ("free", "grammar")}
    for load in sys.argv[1:] or list(LOADS):
        llm = make_engine(**LOADS[load])
        if "seeded" not in expected:
            expected["seeded"] = seeded_alone(llm)
        preempted = count_preemptions(llm)
        print("LOAD", load, flush=True)
        results["loads"][load] = {kind: measure(llm, kind, expected[kind], preempted) for kind in KINDS}
        status |= any(entry["equal"] < entry["answers"] for entry in results["loads"][load].values())
        path.write_text(json.dumps(results, indent=1) + "\n")
        path.with_suffix(".md").write_text(report(results))
        del llm
    return status


def seeded_alone(llm: Any) -> list[list[int]]:
    path = CACHE / f"vllm-guidance-seeded-{SEEDED_TOKENS}.json"
    if not path.exists():
        path.write_text(json.dumps(run(llm, "seeded", alone=True)))
    return json.loads(path.read_text())


if __name__ == "__main__":
    sys.exit(main())
