"""Forward passes saved on JSON extraction under guidance, counted: jump-forward, lookup drafts, both.

    python -m benchmarks.guidance.forwards [--extractions 24] [--output results.json]

Definition. The texts of `benchmarks.guidance.extraction`, one at a time, scale 1.5, greedy and sampled. Counted are
forward passes of the model, every one of them for both streams (a second count: rows times passes, what a loop without
batching would run). `exact` ways have exactly the guided, masked distribution; under greedy decoding their outputs are
compared with those of the plain loop, and a difference is an error unless the two best scores are within 1e-3 there.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

import guiderail
from benchmarks.guidance.extraction import MOST_TOKENS, QUESTION, SCHEMA, chat_ids, texts
from guiderail import guidance
from guiderail.guidance.streams import Row
from guiderail.integrations.generation import GuidedDecoder
from guiderail.logits.sampling import Sampling

WAYS: dict[str, dict[str, Any]] = {
    "every token": {"jump_forward": "off"},
    "jump where one token is legal": {"jump_forward": "single"},
    "4 drafted by the conditional stream": {"jump_forward": "single", "speculate": 4},
    "8 looked up": {"jump_forward": "single", "speculate": 8, "draft": "lookup"},
    "canonical jump (not exact)": {"jump_forward": "canonical"},
}


def first_difference(a: list[int], b: list[int]) -> int | None:
    return next((i for i, pair in enumerate(zip(a, b, strict=False)) if pair[0] != pair[1]), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--extractions", type=int, default=24)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
    import smollm2

    model, tokenizer = smollm2.load()
    vocabulary = guiderail.Vocabulary.from_tokenizer(tokenizer)
    compiled = guiderail.compile(guiderail.Grammar.from_json_schema(SCHEMA, whitespace="compact"), vocabulary)
    term = guidance.ClassifierFree(1.5, chat_ids(tokenizer, QUESTION), plausibility=0.05)
    prompts = [chat_ids(tokenizer, f"{case['text']}\n{QUESTION}") for case in texts(arguments.extractions)]
    report: dict[str, Any] = {"model": "SmolLM2-135M-Instruct", "extractions": arguments.extractions}
    for name, sampling in {"greedy": Sampling(), "sampled": Sampling(do_sample=True)}.items():
        plain: list[list[int]] = []
        rows = report[name] = {}
        for way, settings in WAYS.items():
            decoder = GuidedDecoder(model, term, compiled, sampling, **settings)
            start, outputs, ties = time.process_time(), [], 0
            for prompt in prompts:
                outputs.append(decoder.decode([prompt], MOST_TOKENS)[0].token_ids)
            seconds = time.process_time() - start
            counts = decoder.engine.runner().counts
            rows[way] = {
                "tokens": sum(map(len, outputs)),
                "passes": counts.passes,
                "evaluations": counts.rows,
                "fewer_passes": None,
                "drafted": decoder.counts.drafted,
                "accepted": decoder.counts.accepted,
                "cpu_s": round(seconds, 1),
            }
            plain = plain or outputs
            if name == "greedy" and "not exact" not in way:
                for prompt, expected, output in zip(prompts, plain, outputs, strict=True):
                    place = first_difference(expected, output)
                    if place is None:
                        continue
                    row = decoder.engine.evaluate([Row(tuple(prompt), tuple(expected[:place]), 0)])[0]
                    gap = abs(float(row[expected[place]] - row[output[place]]))
                    if gap > 1e-3:
                        raise SystemExit(f"{way}: differs by {gap:.1e} nats")
                    ties += 1
                rows[way]["near_ties"] = ties
            # Per token, because sampled outputs differ in length.
            base, own = rows["every token"], rows[way]
            rows[way]["fewer_passes"] = round(1 - own["passes"] / own["tokens"] * base["tokens"] / base["passes"], 3)
            print(f"{name}, {way}: {rows[way]}", flush=True)
            if arguments.output is not None:  # a long run that is stopped leaves what it has counted
                arguments.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
