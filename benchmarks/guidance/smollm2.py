"""Guidance on a real model, token for token against recomputing every stream: 20 prompts, negative prompts, beams.

    python -m benchmarks.guidance.smollm2 [--prompts 20] [--output benchmarks/guidance/results/smollm2.json]

Definition. SmolLM2-135M-Instruct, float32, scale 1.5. `batch`: the processor on left-padded batches of five, greedy.
`sampled`: the same with sampling; the token must be the one that the same random numbers draw from the reference's
distribution. `loop`: our own loop, greedy. `beams`: two beams, score within 1e-2 nats (sums over four tokens) and the
tokens of the reference's search. `transformers`: its own guidance_scale, one unpadded prompt at a time, where it is
right. The reference recomputes both streams from the first token for every token. A step counts as equal too where the
reference's best two are within 1e-4, and is counted. The exit status is 1 unless everything agrees.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from guiderail import guidance
from guiderail.integrations.generation import GuidedDecoder
from guiderail.integrations.transformers_guidance import GuidanceLogitsProcessor

SCALE, STEPS, BEAM_STEPS, BATCH = 1.5, 8, 4, 5
SUBJECTS = (
    "the sea",
    "a dog",
    "Paris",
    "winter",
    "a red car",
    "music",
    "my aunt",
    "the moon",
    "bread",
    "a long journey",
)
FORMS = ("Once upon a time, {} was", "Here is what most people do not know about {}:")
NEGATIVES = ("In an encyclopedia:", "A dull sentence about {}:")


def cases(tokenizer: Any, count: int) -> list[tuple[list[int], list[int]]]:
    """Prompt and negative prompt as token ids."""
    made = []
    for index in range(count):
        subject, kind = SUBJECTS[index % len(SUBJECTS)], index // len(SUBJECTS) % 2
        made.append([tokenizer(text.format(subject))["input_ids"] for text in (FORMS[kind], NEGATIVES[kind])])
    return [(prompt, negative) for prompt, negative in made]


def padded(rows: list[list[int]], pad: int) -> dict[str, torch.Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "smollm2.json")
    arguments = parser.parse_args(given)
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    root = Path(__file__).parents[2]
    sys.path[:0] = [str(root / "examples"), str(root / "tests")]
    import smollm2

    from oracles import guidance_reference as reference

    model, tokenizer = smollm2.load()
    pairs = cases(tokenizer, arguments.prompts)

    def guided(prompt: list[int], negative: list[int]) -> Any:
        streams = [reference.stream(model, prompt), reference.stream(model, negative)]
        return functools.cache(lambda text: reference.affine([stream(text) for stream in streams], [SCALE, 1 - SCALE]))

    truth = [guided(*pair) for pair in pairs]
    report: dict[str, dict[str, int]] = {}

    def record(way: str, compared: int, ties: int, differ: int) -> None:
        row = report.setdefault(way, {"compared": 0, "ties": 0, "differ": 0})
        for name, value in (("compared", compared), ("ties", ties), ("differ", differ)):
            row[name] += value
        arguments.output.write_text(json.dumps(whole(report), indent=2) + "\n")

    def greedy(way: str, index: int, tokens: list[int]) -> None:
        agreement, differ = reference.Agreement(), 0
        try:
            reference.check_greedy(truth[index], tokens, None, agreement)
        except AssertionError as error:
            print(f"{way}, prompt {index}: {error}", flush=True)
            differ = 1
        record(way, agreement.steps, agreement.ties, differ)

    for start in range(0, len(pairs), BATCH):
        part = pairs[start : start + BATCH]
        inputs = padded([prompt for prompt, _ in part], tokenizer.pad_token_id)
        width = inputs["input_ids"].shape[1]
        term = guidance.ClassifierFree(SCALE, [negative for _, negative in part])
        processor = GuidanceLogitsProcessor(term, model=model)
        fixed = {"logits_processor": [processor], "eos_token_id": None, "pad_token_id": tokenizer.pad_token_id}
        output = model.generate(**inputs, **fixed, max_new_tokens=STEPS, do_sample=False)[:, width:].tolist()
        for offset, tokens in enumerate(output):
            greedy("batch", start + offset, tokens)
        decoder = GuidedDecoder(model, term, eos_token_ids=[])
        for offset, generation in enumerate(decoder.decode([prompt for prompt, _ in part], STEPS)):
            greedy("loop", start + offset, generation.token_ids)
        torch.manual_seed(start)
        drawn = model.generate(**inputs, **fixed, max_new_tokens=STEPS, do_sample=True, top_k=0, temperature=0.7)
        torch.manual_seed(start)
        texts: list[tuple[int, ...]] = [() for _ in part]
        for step in range(STEPS):
            scores = np.stack([truth[start + offset](text) for offset, text in enumerate(texts)])
            probabilities = (torch.tensor(scores, dtype=torch.float32) / 0.7).softmax(-1)
            tokens = torch.multinomial(probabilities, 1).squeeze(1).tolist()
            produced = drawn[:, width + step].tolist()
            record("sampled", len(part), 0, sum(a != b for a, b in zip(tokens, produced, strict=True)))
            texts = [(*text, token) for text, token in zip(texts, produced, strict=True)]
        beams = model.generate(
            **inputs, **fixed, max_new_tokens=BEAM_STEPS, num_beams=2, do_sample=False, length_penalty=0.0,
            return_dict_in_generate=True, output_scores=True,
        )  # fmt: skip
        for offset, score in enumerate(beams.sequences_scores.tolist()):
            searched = reference.beam_search(truth[start + offset], 2, BEAM_STEPS)
            same = tuple(beams.sequences[offset, width:].tolist()) == searched[0][1]
            tie = not same and abs(searched[0][0] - searched[1][0]) < 1e-4
            record("beams", 1, int(tie), int(abs(score - searched[0][0]) > 1e-2 or not (same or tie)))
    for index, (prompt, negative) in enumerate(pairs):
        theirs = model.generate(
            **padded([prompt], tokenizer.pad_token_id),
            guidance_scale=SCALE,
            negative_prompt_ids=torch.tensor([negative]),
            max_new_tokens=STEPS,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=tokenizer.pad_token_id,
        )
        greedy("transformers", index, theirs[0, len(prompt) :].tolist())
    print(json.dumps(whole(report)))
    if any(row["differ"] for row in report.values()):
        raise SystemExit(1)


def whole(report: dict[str, dict[str, int]]) -> dict[str, Any]:
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    return {"model": "SmolLM2-135M-Instruct, float32", "scale": SCALE, "versions": versions, "ways": report}


if __name__ == "__main__":
    main()
