"""Cost of classifier-free guidance on the CPU: ms per step, several ways of doing the same thing in several settings.

    python -m benchmarks guidance [--model random|smollm2] [--setting NAME ...] [--tokens 32] [--repeats 5] [--output F]

Definition. Prompts with a negative prompt, a fixed number of tokens, scale 1.5. A setting says how `generate` decodes:
greedy, a batch, padding, several samples, beams, a static cache, an encoder-decoder. The ways are plain decoding,
transformers' `guidance_scale`, our processor in the same `generate`, our own loop, and eth-sri's
language-model-arithmetic where it is installed (see docs/guidance.md).

Answers are looked at before anything is timed. Greedy: every token is the best of a reference that evaluates prefixes
afresh (or within 1e-3 of it: float32 passes of different batch sizes round differently). Sampling: the tokens that the
same random numbers draw from the reference's distribution. Beams: a sequence's score is the sum of its tokens'
guided log-probabilities. Ours must be right, or the benchmark stops; another's row says 'wrong', or what it raised.

Time is CPU time of this process on one thread, so that neighbours on the machine count less; the median and the
extremes over repeats are reported, ways interleaved.

What it does not show: a GPU, long prompts. On a CPU a second row in the batch costs nearly a second pass; on a GPU a
memory-bound model reads its weights once for both.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers

from guiderail import guidance as gr
from guiderail.guidance.engine import GuidanceEngine
from guiderail.guidance.streams import Row, RowInputs
from guiderail.integrations.generation import GuidedDecoder
from guiderail.integrations.transformers_guidance import GuidanceLogitsProcessor
from guiderail.logits import Sampling

SCALE = 1.5
PROMPTS = (
    "Write one sentence about a city you would like to visit.",
    "Name three animals that live in the sea, and say what they eat.",
    "Why is the sky blue?",
    "Describe a winter morning in the mountains to a friend.",
)
NEGATIVE = "Write one boring sentence."


@dataclass(frozen=True)
class Setting:
    """How `generate` decodes.

    Args: prompts how many; padded: of different lengths; options of `generate`; cache: our loop's, None where it does
        not do this; encoder_decoder: which model.
    """

    prompts: int = 1
    padded: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    cache: str | None = "dynamic"
    encoder_decoder: bool = False

    @property
    def samples(self) -> bool:
        return bool(self.options.get("do_sample"))

    @property
    def beams(self) -> bool:
        return "num_beams" in self.options


BEAMS = {
    "num_beams": 4, "num_return_sequences": 4, "length_penalty": 0.0, "return_dict_in_generate": True,
    "output_scores": True,
}  # fmt: skip
SETTINGS = {
    "greedy": Setting(),
    "batch of 4": Setting(4),
    "batch of 4, left padding": Setting(4, padded=True),
    "sampling, 4 of one prompt": Setting(1, options={"do_sample": True, "num_return_sequences": 4}),
    "4 beams": Setting(1, options=BEAMS, cache=None),
    "4 beams, batch of 4": Setting(4, padded=True, options=BEAMS, cache=None),
    "static cache": Setting(1, options={"cache_implementation": "static"}, cache="static"),
    "static cache, batch of 4": Setting(4, padded=True, options={"cache_implementation": "static"}, cache="static"),
    "encoder-decoder": Setting(1, encoder_decoder=True),
    "encoder-decoder, 4 beams": Setting(1, options=BEAMS, cache=None, encoder_decoder=True),
}


@dataclass
class Problem:
    """A model, prompts as token ids, what to move away from, and a tokenizer if the model reads text."""

    model: Any
    prompts: list[list[int]]
    negative: list[int]
    tokenizer: Any = None

    def padded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and attention mask, padded at the left; an encoder's source at the right."""
        width = max(map(len, self.prompts))
        left = 0 if self.model.config.is_encoder_decoder else 1
        ids, mask = torch.zeros(2, len(self.prompts), width, dtype=torch.long)
        for index, prompt in enumerate(self.prompts):
            start = left * (width - len(prompt))
            ids[index, start : start + len(prompt)] = torch.tensor(prompt)
            mask[index, start : start + len(prompt)] = 1
        return ids, mask


def load(name: str) -> Callable[[Setting], Problem]:
    """Problems on this model; those for an encoder-decoder are always random."""
    model: Any
    if name == "smollm2":
        sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
        import smollm2

        model, tokenizer = smollm2.load()
        texts = [tokenizer(text)["input_ids"] for text in PROMPTS]
        negative = tokenizer(NEGATIVE)["input_ids"]
    else:
        torch.manual_seed(0)
        model = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                vocab_size=32_000, hidden_size=256, intermediate_size=704, num_hidden_layers=6, num_attention_heads=8,
                num_key_value_heads=4, initializer_range=0.1,
            )
        ).eval()  # fmt: skip
        tokenizer = None
        ids = torch.randint(3, 32_000, (72,), generator=torch.Generator().manual_seed(1)).tolist()
        texts, negative = [ids[:16], ids[16:28], ids[28:48], ids[48:64]], ids[64:]
    torch.manual_seed(0)
    encoder_decoder: Any = transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=32_000, d_model=256, d_kv=32, d_ff=704, num_layers=6, num_heads=8, decoder_start_token_id=0,
            initializer_factor=2.0,
        )
    ).eval()  # fmt: skip

    def problem(setting: Setting) -> Problem:
        if setting.encoder_decoder:
            sources = [[3 + token % 31_000 for token in text[:15]] + [1] for text in texts]
            return Problem(encoder_decoder, sources[: setting.prompts], [5, 9, 13, 4, 1])
        shortest = min(map(len, texts))
        own = texts if setting.padded or setting.prompts == 1 else [text[:shortest] for text in texts]
        return Problem(model, own[: setting.prompts], negative, tokenizer)

    return problem


Run = Callable[[], tuple[list[list[int]], list[float]]]
"""New tokens of every row, and the rows' scores where the setting has beams."""


def ways(problem: Problem, setting: Setting, tokens: int) -> dict[str, Run]:
    """Name -> one run of it."""
    model, negative = problem.model, problem.negative
    ids, mask = problem.padded()
    start = 1 if setting.encoder_decoder else ids.shape[1]
    fixed = {
        "attention_mask": mask, "max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False, "top_k": 0,
        "eos_token_id": None, "pad_token_id": 0, **setting.options,
    }  # fmt: skip
    rows = len(ids) * setting.options.get("num_return_sequences", 1)
    term = gr.ClassifierFree(SCALE, negative)
    processor = GuidanceLogitsProcessor(term, model=model)

    def generated(**arguments: Any) -> Run:
        def run() -> tuple[list[list[int]], list[float]]:
            torch.manual_seed(0)
            output = model.generate(ids, **fixed, **arguments)
            if setting.beams:
                return output.sequences[:, start:].tolist(), output.sequences_scores.tolist()
            return output[:, start:].tolist(), []

        return run

    def looped() -> Run:
        def run() -> tuple[list[list[int]], list[float]]:
            decoder = GuidedDecoder(
                model, term, sampling=Sampling(do_sample=setting.samples), eos_token_ids=[],
                generator=torch.Generator().manual_seed(0), cache=setting.cache,
            )  # fmt: skip
            repeats = setting.options.get("num_return_sequences", 1)
            found = decoder.decode(problem.prompts, tokens, num_return_sequences=repeats)
            return [generation.token_ids for generation in found], []

        return run

    made = {
        "plain": generated(),
        "transformers guidance_scale": generated(
            guidance_scale=SCALE, negative_prompt_ids=torch.tensor([negative] * rows)
        ),
        "guiderail processor": generated(logits_processor=[processor]),
    }
    if setting.cache is not None:
        made["guiderail loop"] = looped()
    installed = importlib.util.find_spec("model_arithmetic") is not None
    if setting == SETTINGS["greedy"] and problem.tokenizer is not None and installed:
        made["language-model-arithmetic"] = _arithmetic(problem, tokens)
    return made


def _arithmetic(problem: Problem, tokens: int) -> Run:
    """The same formula in eth-sri's package. It chooses the greedy token by top_k = 1 and stops only at an end token,
    so its tokenizer is given one that the model does not produce. Its own cache indexes tuples of tensors, which
    transformers no longer returns; `run_eager=True` keeps the model's cache."""
    from loguru import logger
    from model_arithmetic import ModelArithmetic, PromptedLLM, runnable_operators

    logger.disable("model_arithmetic")
    tokenizer = copy.deepcopy(problem.tokenizer)
    tokenizer.bos_token, tokenizer.eos_token = None, tokenizer.convert_ids_to_tokens(2 + tokenizer.vocab_size // 2)
    runnable_operators.load_tokenizer = lambda _: tokenizer

    def stream(name: str, ids: Sequence[int]) -> Any:
        text = problem.tokenizer.decode(ids)
        assert tokenizer(text)["input_ids"] == list(ids)
        return PromptedLLM(
            name, problem.model, model_name="model", run_eager=True, prompt_template=lambda system, given: text
        )

    def run() -> tuple[list[list[int]], list[float]]:
        torch.manual_seed(0)
        streams = stream("prompt", problem.prompts[0]), stream("negative", problem.negative)
        formula = SCALE * streams[0] + (1 - SCALE) * streams[1]
        model = ModelArithmetic(formula, default_model="model", tokenizer=tokenizer, dtype=torch.float32)
        kept: list[list[int]] = []
        model.get_decoded_tokens = lambda batch: kept.__setitem__(slice(None), batch) or [""]  # ids, not text
        model.generate_text([""], max_new_tokens=tokens, top_k=1, do_speculation=False)
        return [list(row) for row in kept], []

    return run


def guided(problem: Problem) -> Callable[[int, Sequence[int]], torch.Tensor]:
    """(prompt, generated tokens) -> guided log-probabilities, each prefix evaluated for itself."""
    engine = GuidanceEngine(gr.ClassifierFree(SCALE, problem.negative), problem.model)
    rows = []
    for index, prompt in enumerate(problem.prompts):
        if problem.model.config.is_encoder_decoder:
            rows.append(((0,), index, RowInputs({}, 0, tuple(prompt))))
        else:
            rows.append((tuple(prompt), index, None))

    def scores(index: int, generated: Sequence[int]) -> torch.Tensor:
        prompt, prompt_index, inputs = rows[index]
        engine.reset()
        return engine.evaluate([Row(prompt, tuple(generated), prompt_index, inputs)])[0]

    return scores


def fault(problem: Problem, setting: Setting, tokens: list[list[int]], scores: list[float]) -> str:
    """What is wrong with an answer; empty if nothing is."""
    reference = guided(problem)
    repeats = len(tokens) // len(problem.prompts)
    generator = torch.Generator().manual_seed(0)
    for index, row in enumerate(tokens):
        if setting.beams:
            own = sum(float(reference(index // repeats, row[:step])[token]) for step, token in enumerate(row))
            if abs(own - scores[index]) > 1e-2:
                return f"sequence {index} has score {scores[index]:.2f}, its tokens {own:.2f}"
        elif not setting.samples:
            for step, token in enumerate(row):
                found = reference(index, row[:step])
                if float(found.max() - found[token]) > 1e-3:
                    return f"row {index} differs at step {step} by {float(found.max() - found[token]):.2e} nats"
    if setting.samples:
        for step in range(len(tokens[0])):
            found = torch.stack([reference(index // repeats, row[:step]) for index, row in enumerate(tokens)])
            drawn = torch.multinomial(found.softmax(-1), 1, generator=generator).squeeze(1).tolist()
            if drawn != [row[step] for row in tokens]:
                return f"other tokens are drawn at step {step}"
    return ""


def measured(problem: Problem, setting: Setting, tokens: int, repeats: int) -> dict[str, Any]:
    """ms per step of every way, and whether its answer is right."""
    runs, report = ways(problem, setting, tokens), {}
    for name, run in dict(runs).items():
        try:
            answer = run()
        except Exception as error:
            if name.startswith("guiderail"):
                raise
            report[name] = {"answer": f"raises {type(error).__name__}"}
            del runs[name]
            continue
        wrong = "" if name == "plain" else fault(problem, setting, *answer)
        if wrong and name.startswith("guiderail"):
            raise AssertionError(f"{name}: {wrong}")
        report[name] = {"answer": f"wrong: {wrong}" if wrong else "right"}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.process_time()
            run()
            seconds[name].append(time.process_time() - start)
    plain = statistics.median(seconds["plain"])
    for name, times in seconds.items():
        report[name] |= {
            "median": round(1000 * statistics.median(times) / tokens, 2),
            "min": round(1000 * min(times) / tokens, 2),
            "max": round(1000 * max(times) / tokens, 2),
            "times_plain": round(statistics.median(times) / plain, 2),
        }
    return report


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["smollm2", "random"], default="random")
    parser.add_argument("--setting", nargs="+", choices=list(SETTINGS), default=list(SETTINGS), metavar="NAME")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, help="settings measured earlier are kept in this file")
    arguments = parser.parse_args(given)
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    problem = load(arguments.model)
    report: dict[str, Any] = {
        "model": arguments.model,
        "machine": platform.processor() or platform.machine(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "ms_per_step": {},
    }
    if arguments.output is not None and arguments.output.exists():
        report["ms_per_step"] = json.loads(arguments.output.read_text(encoding="utf-8"))["ms_per_step"]
    for name in arguments.setting:
        setting = SETTINGS[name]
        found = measured(problem(setting), setting, arguments.tokens, arguments.repeats)
        report["ms_per_step"][name] = {"tokens": arguments.tokens, "repeats": arguments.repeats, "ways": found}
        print(f"{name}:", flush=True)
        for way, row in found.items():
            print(f"  {way}: {json.dumps(row)}", flush=True)
        if arguments.output is not None:
            arguments.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
