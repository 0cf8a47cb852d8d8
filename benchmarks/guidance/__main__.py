"""Cost of classifier-free guidance on the CPU: ms per token and forward passes, several ways of doing the same thing.

    python -m benchmarks.guidance [--model smollm2|random] [--tokens 32] [--repeats 3] [--output results.json]

Definition. One prompt with a negative prompt, greedy, a fixed number of tokens, scale 1.5. Every way that guides must
produce the same tokens (a step is excused where the two best scores of the reference are within 1e-3: float32 passes
of different batch sizes round differently); this is checked before anything is timed. Time is CPU time of this
process on one thread, so that neighbours on the machine count less; the median and the extremes over repeats are
reported, ways interleaved.

What it does not show: a GPU, long prompts, batches. On a CPU a second row in the batch costs nearly a second pass; on
a GPU a memory-bound model reads its weights once for both.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from guiderail import guidance as gr
from guiderail.guidance.engine import GuidanceEngine
from guiderail.guidance.streams import Row
from guiderail.integrations.generation import GuidedDecoder
from guiderail.integrations.transformers_guidance import GuidanceLogitsProcessor

SCALE = 1.5
PROMPT = "Write one sentence about a city you would like to visit."
NEGATIVE = "Write one boring sentence."


def load(name: str) -> tuple[Any, list[int], list[int]]:
    """Model, prompt ids and negative prompt ids."""
    if name == "smollm2":
        sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
        import smollm2

        model, tokenizer = smollm2.load()
        return model, tokenizer(PROMPT)["input_ids"], tokenizer(NEGATIVE)["input_ids"]
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=32_000, hidden_size=256, intermediate_size=704, num_hidden_layers=6, num_attention_heads=8,
        num_key_value_heads=4, initializer_range=0.1,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 32_000, (24,), generator=generator).tolist()
    return transformers.LlamaForCausalLM(config).eval(), ids[:16], ids[16:]


def ways(
    model: Any, prompt: list[int], negative: list[int], tokens: int, batch: int
) -> dict[str, Callable[[], list[int]]]:
    """Name -> a run that returns the new tokens of the first row."""
    ids = torch.tensor([prompt] * batch)
    mask = torch.ones_like(ids)
    fixed = {
        "attention_mask": mask, "max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False,
        "eos_token_id": None, "pad_token_id": 0,
    }  # fmt: skip
    term = gr.ClassifierFree(SCALE, negative)
    processor = GuidanceLogitsProcessor(term, model=model)
    decoder = GuidedDecoder(model, term, eos_token_ids=[])
    speculative = GuidedDecoder(model, term, eos_token_ids=[], speculate=4)

    def new(output: torch.Tensor) -> list[int]:
        return output[0, len(prompt) :].tolist()

    return {
        "plain": lambda: new(model.generate(ids, **fixed)),
        "transformers guidance_scale": lambda: new(
            model.generate(ids, guidance_scale=SCALE, negative_prompt_ids=torch.tensor([negative] * batch), **fixed)
        ),
        "guiderail processor": lambda: new(model.generate(ids, logits_processor=[processor], **fixed)),
        "guiderail loop": lambda: decoder.decode([prompt] * batch, tokens)[0].token_ids,
        "guiderail loop, 4 drafted": lambda: speculative.decode([prompt] * batch, tokens)[0].token_ids,
    }


def verify(results: dict[str, list[int]], model: Any, prompt: list[int], negative: list[int]) -> int:
    """Raise unless all guided ways agree up to near ties of the float32 reference. Returns the number of ties."""
    engine = GuidanceEngine(gr.ClassifierFree(SCALE, negative), model)
    ties = 0
    for name, produced in results.items():
        if name == "plain":
            continue
        for step, token in enumerate(produced):
            row = engine.evaluate([Row(tuple(prompt), tuple(produced[:step]), 0)])[0]
            gap = float(row.max() - row[token])
            if gap > 1e-3:
                raise AssertionError(f"{name} differs at step {step} by {gap:.2e} nats")
            ties += gap > 0
    return ties


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["smollm2", "random"], default="random")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch", type=int, default=1, help="the same prompt this many times")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args(given)
    torch.set_num_threads(1)
    model, prompt, negative = load(arguments.model)
    runs = ways(model, prompt, negative, arguments.tokens, arguments.batch)
    ties = verify({name: run() for name, run in runs.items()}, model, prompt, negative)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(arguments.repeats):
        for name, run in runs.items():
            start = time.process_time()
            run()
            seconds[name].append(time.process_time() - start)
    plain = statistics.median(seconds["plain"])
    report = {
        "model": arguments.model,
        "batch": arguments.batch,
        "tokens": arguments.tokens,
        "ties": ties,
        "machine": platform.processor() or platform.machine(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "ms_per_token": {
            name: {
                "median": round(1000 * statistics.median(times) / arguments.tokens, 2),
                "min": round(1000 * min(times) / arguments.tokens, 2),
                "max": round(1000 * max(times) / arguments.tokens, 2),
                "times_plain": round(statistics.median(times) / plain, 2),
            }
            for name, times in seconds.items()
        },
    }
    text = json.dumps(report, indent=2)
    print(text)
    if arguments.output is not None:
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
