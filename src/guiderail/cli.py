"""The command line: `guiderail validate | explain | lint | generate | serve`.

guiderail validate --json-schema schema.json answer.json      # exit 0 accepted, 1 rejected, 2 grammar or schema refused
guiderail explain --regex '[a-z]+@[a-z]+\\.org' --text 'me@'
guiderail explain --builtin python --file program.py          # where it stops being Python, and what was expected
guiderail lint schema.json --target xgrammar                  # exit 0 nothing lost, 1 lost, 2 refused
guiderail generate --model path-or-name --json-schema schema.json --prompt 'Alice is 31.'
guiderail serve path-or-name --port 8000                      # vLLM's OpenAI server; further arguments are vLLM's
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from guiderail import __version__
from guiderail.errors import GuiderailError
from guiderail.explanation import explain
from guiderail.grammar_linter import lint_grammar
from guiderail.grammars.grammar import Grammar
from guiderail.linter import ENGINES, LintReport, lint

ACCEPTED, REJECTED, REFUSED = 0, 1, 2

_NOTATIONS: dict[str, tuple[str, Callable[[str], Grammar]]] = {
    "json-schema": ("a file with a JSON Schema, or its text", lambda text: Grammar.from_json_schema(text)),
    "regex": ("a regular expression", Grammar.from_regex),
    "gbnf": ("a file with a GBNF grammar, or its text", Grammar.from_gbnf),
    "lark": ("a file with a Lark grammar, or its text", Grammar.from_lark),
    "choices": ("a file with one choice per line", lambda text: Grammar.from_choices(text.splitlines())),
    "builtin": ("the name of a built-in grammar: json, python, …", Grammar.builtin),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns: the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (GuiderailError, OSError, UnicodeDecodeError) as error:
        print(f"guiderail: {type(error).__name__}: {error}", file=sys.stderr)
        return REFUSED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="guiderail", description="Exact grammar constraints for language models.")
    parser.add_argument("--version", action="version", version=f"guiderail {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")

    validate = commands.add_parser("validate", help="is a text in the language? exit 0: yes, 1: no, 2: bad grammar")
    _add_grammar(validate)
    validate.add_argument("texts", nargs="*", metavar="FILE", help="texts to check; none or '-': standard input")
    validate.add_argument("--strip", action="store_true", help="ignore one newline at the end of each text")
    validate.add_argument("--prefix", action="store_true", help="ask whether the text can be completed instead")
    validate.set_defaults(run=_validate)

    explain_parser = commands.add_parser(
        "explain", help="what becomes of each rule; where a text stops fitting, and why"
    )
    _add_grammar(explain_parser)
    place = explain_parser.add_mutually_exclusive_group()
    place.add_argument("--text", help="explain this text")
    place.add_argument("--file", help="explain the text of this file; '-': standard input")
    explain_parser.set_defaults(run=_explain)

    lint_parser = commands.add_parser("lint", help="what of a JSON Schema is lost where; what is odd about a grammar")
    lint_parser.add_argument(
        "schema", metavar="SCHEMA", help="a file with a JSON Schema, its text, or '-': standard input; or a file *.lark"
    )
    lint_parser.add_argument(
        "--target", action="append", choices=ENGINES, help="exit 1 if this engine loses something too"
    )
    lint_parser.add_argument("--json", action="store_true", help="the whole report as JSON")
    lint_parser.set_defaults(run=_lint)

    generate = commands.add_parser("generate", help="generate constrained or guided text with transformers")
    _add_grammar(generate, required=False)
    generate.add_argument("--model", required=True, help="a directory or name that transformers can load")
    generate.add_argument("--prompt", help="the prompt; absent: standard input")
    generate.add_argument("--no-chat", action="store_true", help="do not apply the tokenizer's chat template")
    generate.add_argument("--max-new-tokens", type=int, default=256, metavar="N")
    generate.add_argument("--temperature", type=float, default=0.0, help="0 (the default): take the likeliest token")
    generate.add_argument("--seed", type=int, default=0)
    generate.add_argument("--device", default="cpu")
    generate.add_argument(
        "--guidance", type=_scale, metavar="SCALE", help="classifier-free guidance; 1 is off, 1.3 to 3 usual"
    )
    generate.add_argument(
        "--negative-prompt", metavar="TEXT", help="what guidance moves away from; absent: the prompt's last token alone"
    )
    generate.add_argument(
        "--plausibility", type=_share, metavar="P", help="guide among tokens P times as likely as the best legal one"
    )
    generate.set_defaults(run=_generate)

    serve = commands.add_parser("serve", help="vLLM's OpenAI server with our structured outputs and guidance")
    serve.add_argument("model", help="a directory or name that vLLM can load")
    serve.add_argument("arguments", nargs=argparse.REMAINDER, help="--no-guidance, and any argument of vLLM's server")
    serve.set_defaults(run=_serve)
    return parser


def _scale(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError
    return value


def _add_grammar(parser: argparse.ArgumentParser, required: bool = True) -> None:
    group = parser.add_mutually_exclusive_group(required=required)
    for name, (help_text, _) in _NOTATIONS.items():
        group.add_argument(f"--{name}", metavar=name.upper().replace("-", "_"), help=help_text)


def _grammar(options: argparse.Namespace) -> Grammar:
    for name, (_, read) in _NOTATIONS.items():
        value = getattr(options, name.replace("-", "_"))
        if value is None:
            continue
        if name == "lark" and _is_file(value):
            return Grammar.from_lark(Path(value))  # a path, so that its imports are found beside it
        if name in ("json-schema", "gbnf", "choices") and _is_file(value):
            value = Path(value).read_text(encoding="utf-8")
        return read(value)
    raise AssertionError("argparse requires one of them")


def _is_file(value: str) -> bool:
    try:
        return Path(value).is_file()
    except (OSError, ValueError):  # too long for a name, or holds a NUL: a text
        return False


# --- validate --------------------------------------------------------------------------------------------------------


def _validate(options: argparse.Namespace) -> int:
    grammar = _grammar(options)
    status = ACCEPTED
    for name in options.texts or ["-"]:
        text = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        if options.strip:
            text = text.removesuffix(b"\n").removesuffix(b"\r")
        accepted = grammar.accepts_prefix(text) if options.prefix else grammar.accepts(text)
        if not accepted:
            status = REJECTED
        shown = "standard input" if name == "-" else name
        print(f"{shown}: {'accepted' if accepted else 'rejected' + _where(grammar, text)}")
    return status


def _where(grammar: Grammar, text: bytes) -> str:
    fitting = grammar.longest_prefix(text)
    if fitting == len(text):
        return ": the text is not complete"
    line = text[:fitting].count(b"\n") + 1
    column = len(text[text.rfind(b"\n", 0, fitting) + 1 : fitting].decode("utf-8", "replace")) + 1
    return f" at byte {fitting} (line {line}, column {column})"


# --- explain ---------------------------------------------------------------------------------------------------------


def _explain(options: argparse.Namespace) -> int:
    grammar = _grammar(options)
    width = max((len(row.place) for row in grammar.report), default=0)
    for row in grammar.report:
        print(f"{row.place or '(root)':{max(width, 6)}}  {row.status}{f': {row.reason}' if row.reason else ''}")
    if options.text is None and options.file is None:
        return ACCEPTED
    if options.file is not None:
        text = sys.stdin.buffer.read() if options.file == "-" else Path(options.file).read_bytes()
    else:
        text = options.text.encode("utf-8", "surrogateescape")
    found = explain(grammar, text)
    print(f"\nfits:      {_shortened(text[: found.fits], from_end=True)!r}")
    if found.fits < len(text):
        print(f"stops at:  {_shortened(text[found.fits :], from_end=False)!r}")
    print(found)
    return ACCEPTED if found.complete else REJECTED


def _shortened(text: bytes, from_end: bool) -> str:
    """A text, or the end of it that the reader is looking at."""
    shown = text.decode("utf-8", "replace")
    if len(shown) <= 200:
        return shown
    return "…" + shown[-200:] if from_end else shown[:200] + "…"


# --- lint ------------------------------------------------------------------------------------------------------------


def _lint(options: argparse.Namespace) -> int:
    if options.schema.endswith(".lark"):
        return _lint_grammar(options)
    text = sys.stdin.read() if options.schema == "-" else options.schema
    if options.schema != "-" and _is_file(text):
        text = Path(text).read_text(encoding="utf-8")
    found = lint(text)
    if options.json:
        print(json.dumps(found.to_json(), indent=1))
    else:
        _print_lint(found)
    if found.refused:
        return REFUSED
    return REJECTED if any(found.lost(engine) for engine in {"guiderail", *(options.target or ())}) else ACCEPTED


def _lint_grammar(options: argparse.Namespace) -> int:
    findings = lint_grammar(Path(options.schema))
    if options.json:
        print(json.dumps([finding._asdict() for finding in findings], indent=1))
    else:
        for finding in findings:
            print(f"{finding.kind}: {finding.name}: {finding.message}")
    return REJECTED if findings else ACCEPTED


def _print_lint(found: LintReport) -> None:
    if found.error is not None:
        print(f"guiderail: {type(found.error).__name__}: {found.error}")
    for row in found.rows:
        print(f"{row.pointer}: " + "; ".join(f"{engine} {status}" for engine, status in row.verdicts.items()))
        for engine, reason in row.evidence.items():
            print(f"    {engine}: {reason}")
    for pointer in found.unsatisfiable:
        because = found.why.get(pointer)
        print(f"unsatisfiable: {pointer or '(root)'}" + (f": {because}" if because else ""))
    if found.unchecked:
        print(f"{found.unchecked} parts were not tried for satisfiability: the schema is too large")
    for pointer, reason in found.costs:
        print(f"cost: {pointer}: {reason}")
    versions = ", ".join(f"{name} {version}" for name, version in found.measured["versions"].items())
    print(f"measured on {found.measured['date']}: {versions}; openai: from its documentation, not measured")


# --- generate --------------------------------------------------------------------------------------------------------


def _generate(options: argparse.Namespace) -> int:
    if options.guidance is None and (options.negative_prompt is not None or options.plausibility is not None):
        print("guiderail: --negative-prompt and --plausibility need --guidance SCALE", file=sys.stderr)
        return REFUSED
    notated = any(getattr(options, name.replace("-", "_")) is not None for name in _NOTATIONS)
    if not notated and options.guidance is None:
        print("guiderail: generate needs a grammar, --guidance SCALE, or both", file=sys.stderr)
        return REFUSED
    grammar = _grammar(options) if notated else None
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, TextStreamer

        from guiderail.integrations.transformers import GrammarLogitsProcessor
    except ImportError as error:
        print(f"guiderail: generate needs transformers and torch ({error}): pip install 'guiderail[transformers]'")
        return REFUSED
    from guiderail.compiled import compile
    from guiderail.vocabulary import Vocabulary

    torch.manual_seed(options.seed)
    tokenizer: Any = AutoTokenizer.from_pretrained(options.model)
    model: Any = AutoModelForCausalLM.from_pretrained(options.model).to(options.device).eval()
    vocabulary = Vocabulary.from_tokenizer(
        tokenizer, vocab_size=model.config.vocab_size, eos_token_ids=model.generation_config.eos_token_id
    )
    compiled = None if grammar is None else compile(grammar, vocabulary)
    prompt = sys.stdin.read() if options.prompt is None else options.prompt

    def encoded(text: str) -> Any:
        if tokenizer.chat_template and not options.no_chat:
            messages = [{"role": "user", "content": text}]
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return tokenizer(text, return_tensors="pt", add_special_tokens=options.no_chat).to(options.device)

    inputs = encoded(prompt)
    processors: list[Any] = [] if compiled is None else [GrammarLogitsProcessor(compiled)]
    if options.guidance is not None:
        from guiderail.guidance import ClassifierFree
        from guiderail.integrations.transformers import GuidanceLogitsProcessor

        negative = None if options.negative_prompt is None else encoded(options.negative_prompt)["input_ids"]
        if negative is not None and not negative.numel():
            print("guiderail: the negative prompt has no tokens", file=sys.stderr)
            return REFUSED
        term = ClassifierFree(options.guidance, negative, plausibility=options.plausibility)
        processors.insert(0, GuidanceLogitsProcessor(term, model=model, constraint=compiled))
    sampling = (
        {"do_sample": True, "temperature": options.temperature} if options.temperature > 0 else {"do_sample": False}
    )
    output = model.generate(
        **inputs,
        **sampling,
        max_new_tokens=options.max_new_tokens,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else vocabulary.eos_token_ids[0],
        logits_processor=processors,
        streamer=TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True),
    )
    produced = output[0, inputs["input_ids"].shape[1] :].tolist()
    text = b"".join(vocabulary.token_bytes[token] for token in produced if token not in vocabulary.eos_token_ids)
    if grammar is not None and not grammar.accepts(text):
        print(f"guiderail: stopped at {options.max_new_tokens} tokens; the text is not complete", file=sys.stderr)
        return REJECTED
    return ACCEPTED


# --- serve -----------------------------------------------------------------------------------------------------------


def _serve(options: argparse.Namespace) -> int:
    from guiderail.integrations.vllm.serve import serve

    return serve(options.model, options.arguments)


if __name__ == "__main__":
    sys.exit(main())
