"""What one grammar row costs vLLM's engine thread: guiderail against vLLM's own xgrammar and guidance backends.

    build/vllm-env/bin/python benchmarks/vllm_rows.py [MODEL DIRECTORY]

Simulated batches: vLLM's `StructuredOutputManager` fills the masks of N requests, which all write the same kind of
answer, at different places of it; every engine sees the same tokens, and each mask must allow the token that comes
next before anything is timed. Times are of `grammar_bitmask`, the call that the engine thread waits for, as
microseconds per row: median and tenth percentile over the steps of an answer, of ROUNDS rounds. vLLM fills in threads
from 129 rows on; guiderail does at any number. First mask: a schema never seen before, compiling and the first row.
Writes benchmarks/results/vllm_rows.json and .md.

Bias: one machine, small schemas, one vocabulary of 49,152 tokens. Engines take turns within each round, so a busy
machine hits all; the tenth percentile is what it costs when nobody else runs.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from percentiles import figure, table
from vllm_server import RESULTS, machine

from guiderail.integrations.vllm import register

SIZES = (1, 16, 128, 512)
ROUNDS = 3
ENGINES = ("guiderail", "xgrammar", "guidance")
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "age": {"type": "integer"},
        "colour": {"enum": ["red", "green", "blue"]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "active": {"type": "boolean"},
    },
    "required": ["name", "age", "colour", "tags", "active"],
    "additionalProperties": False,
}
ANSWER = {"name": "Alice Liddell", "age": 31, "colour": "green", "tags": ["reads", "falls far"], "active": True}


def make_backend(name: str, tokenizer: Any, size: int, config: Any) -> Any:
    if name == "guiderail":
        from guiderail.integrations.vllm.backend import GuiderailBackend as Backend
    elif name == "xgrammar":
        from vllm.v1.structured_output.backend_xgrammar import XgrammarBackend as Backend
    else:
        from vllm.v1.structured_output.backend_guidance import GuidanceBackend as Backend
    return Backend(config, tokenizer=tokenizer, vocab_size=size)


def manager(backend: Any, config: Any) -> Any:
    from vllm.v1.structured_output import StructuredOutputManager

    made = object.__new__(StructuredOutputManager)
    made.backend, made.vllm_config, made.reasoner_cls, made.enable_in_reasoning = backend, config, None, False
    made._grammar_bitmask, made.fill_bitmask_parallel_threshold, made.fill_bitmask_parallel_batch_size = None, 128, 16
    import multiprocessing

    import torch

    made._full_mask = torch.tensor(-1, dtype=torch.int32)
    made.executor_for_fillmask = ThreadPoolExecutor(max_workers=max(1, min(multiprocessing.cpu_count() // 2, 8)))
    return made


def run(name: str, tokenizer: Any, size: int, rows: int, steps: list[int], number: int) -> tuple[list[float], float]:
    """(microseconds per row of each step, milliseconds from a schema never seen to its first mask)"""
    from vllm.v1.structured_output.backend_types import StructuredOutputOptions

    config: Any = SimpleNamespace(
        structured_outputs_config=SimpleNamespace(disable_any_whitespace=False, disable_additional_properties=False),
        model_config=SimpleNamespace(hf_config=SimpleNamespace(model_type="llama"), is_diffusion=False),
        speculative_config=None,
        num_speculative_tokens=0,
        scheduler_config=SimpleNamespace(max_num_seqs=rows),
    )
    backend = make_backend(name, tokenizer, size, config)
    eos = {int(tokenizer.eos_token_id)}
    json_kind = StructuredOutputOptions.JSON
    backend.compile_grammar(json_kind, '{"type": "boolean"}', eos)  # the vocabulary's own tables
    unseen = json.dumps({**SCHEMA, "properties": {**SCHEMA["properties"], f"new_{rows}_{number}": {"type": "number"}}})
    start = time.perf_counter()
    grammar = backend.compile_grammar(json_kind, unseen, eos)
    mask = backend.allocate_token_bitmask(1)
    grammar.fill_bitmask(mask, 0)
    first = (time.perf_counter() - start) * 1e3

    grammars = [backend.compile_grammar(json_kind, json.dumps(SCHEMA), eos) for _ in range(rows)]
    requests = {
        str(i): SimpleNamespace(structured_output_request=SimpleNamespace(grammar=g, reasoning_ended=True))
        for i, g in enumerate(grammars)
    }
    fill = manager(backend, config)
    ids, drafts = list(requests), {}
    places = [0] * rows
    for i, grammar in enumerate(grammars):  # staggered: not all at the same place of the answer
        for token in steps[: i % len(steps)]:
            assert grammar.accept_tokens("r", [token])
        places[i] = i % len(steps)
    times = []
    for _ in range(2 * len(steps)):
        start = time.perf_counter()
        masks = fill.grammar_bitmask(requests, ids, drafts)
        times.append((time.perf_counter() - start) / rows * 1e6)
        for i, grammar in enumerate(grammars):
            token = steps[places[i]]
            assert masks[i, token // 32] >> (token % 32) & 1, f"{name} forbids {token}"
            assert grammar.accept_tokens("r", [token])
            places[i] += 1
            if places[i] == len(steps):
                grammar.reset()
                places[i] = 0
    return times[len(steps) :], first  # the second time through: warm, as a server is


def main() -> None:
    from transformers import AutoTokenizer

    assert register()
    default = Path.home() / ".cache" / "guiderail" / "models" / "SmolLM2-135M-Instruct"
    tokenizer = AutoTokenizer.from_pretrained(sys.argv[1] if len(sys.argv) > 1 else default)
    steps = tokenizer.encode(json.dumps(ANSWER))
    result: dict[str, Any] = {"machine": machine(), "rounds": ROUNDS, "sizes": {}}
    for rows in SIZES:
        times: dict[str, list[float]] = {name: [] for name in ENGINES}
        firsts: dict[str, list[float]] = {name: [] for name in ENGINES}
        for number in range(ROUNDS):
            for name in ENGINES:
                found, first = run(name, tokenizer, len(tokenizer), rows, steps, number)
                times[name] += found
                firsts[name].append(first)
        result["sizes"][str(rows)] = {
            name: {
                "median_us": round(statistics.median(times[name]), 3),
                "p10_us": round(statistics.quantiles(times[name], n=10)[0], 3),
                "first_mask_ms": round(statistics.median(firsts[name]), 2),
            }
            for name in ENGINES
        }
        print(rows, json.dumps(result["sizes"][str(rows)]), flush=True)
    (RESULTS / "vllm_rows.json").write_text(json.dumps(result, indent=1) + "\n")
    (RESULTS / "vllm_rows.md").write_text(report(result))


def report(result: dict[str, Any]) -> str:
    rows = []
    for size, found in result["sizes"].items():
        cells = [
            f"{figure(entry['median_us'])} ({figure(entry['p10_us'])}) µs, {figure(entry['first_mask_ms'])} ms"
            for entry in found.values()
        ]
        ours = found["guiderail"]["median_us"]
        shares = " / ".join(f"{found[name]['median_us'] / ours:.1f}" for name in ENGINES[1:])
        rows.append([size, *cells, shares])
    return "\n".join(
        [
            "# Engine-thread time per grammar row in vLLM",
            "",
            f"Of {result['machine']}. Simulated batches through vLLM's manager, {result['rounds']} rounds, 49,152 "
            "tokens: microseconds per row as median (tenth percentile), and milliseconds from a schema never seen to "
            "its first mask. Last column: xgrammar's and guidance's median over ours.",
            "",
            table(["rows", *ENGINES, "theirs / ours"], rows),
            "",
        ]
    )


if __name__ == "__main__":
    main()
