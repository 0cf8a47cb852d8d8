"""The shipped grammars over real programs: nothing valid refused, nothing invalid accepted, and what it costs.

    python -m benchmarks languages go --files $(go env GOROOT)/src --mutants 5000 --tokenizers llama3 smollm2

    files     every file that the judge takes must be accepted; files that it does not take are counted and left out
    mutants   files with one edit each (mutations.py): our verdict against the judge's (judges/)
    walks     random texts of the files' words, chosen among what the mask allows: the judge must take them
    tokens    some of the accepted files again, token by token: every token of the file must be in the mask before it

Disagreements are listed in the results with the place where the grammar stopped, with the other judges of the language
that take the text, and, for valid texts refused, with what the grammar's header says about them
(judges/not_covered.toml). Times are CPU time of this process.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import sysconfig
import time
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import guiderail as gr

from .judges import ANY_ERROR, JUDGES, OTHER_JUDGES, Judge, gcc, would_be_c
from .masks import HERE, machine
from .mutations import mutant, pieces
from .percentiles import percentile

SUFFIXES = {
    "python": [".py"],
    "go": [".go"],
    "java": [".java"],
    "c": [".c", ".h", ".i"],
    "toml": [".toml"],
    "csv": [".csv"],
    "json5": [".json5", ".json"],
    "graphql": [".graphql", ".gql"],
    "sql": [".sql"],
}
EXCERPT = 60
NOT_COVERED = Path(__file__).parent / "judges" / "not_covered.toml"
UNEXPLAINED = "not explained"


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.languages", description=__doc__.split("\n")[0])
    parser.add_argument("language", choices=sorted(JUDGES))
    parser.add_argument("--grammar", help="name of the built-in grammar, if it is not the language's")
    parser.add_argument("--files", nargs="+", required=True, help="files, and folders that are searched for them")
    parser.add_argument("--split", help="a regular expression between the programs that one file holds")
    parser.add_argument("--skip", default="testdata", help="a regular expression for paths to leave out")
    parser.add_argument("--most", type=int, default=0, help="at most so many files, chosen at random")
    parser.add_argument("--mutants", type=int, default=2000)
    parser.add_argument("--mutant-bytes", type=int, default=20_000, help="files longer than this are not mutated")
    parser.add_argument("--walks", type=int, default=0, help="random texts, written under the mask and judged")
    parser.add_argument("--tokenizers", nargs="*", default=[], help="names of tests/real_tokenizers.py")
    parser.add_argument("--tokens", type=int, default=10, help="files that are read token by token")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default=str(HERE / "results" / "languages"))
    return parser.parse_args(argv)


def corpus(options: argparse.Namespace) -> list[tuple[str, str]]:
    """(name, text), in a fixed order."""
    suffixes = SUFFIXES[options.language]
    found: list[tuple[str, str]] = []
    for name in options.files:
        root = Path(name)
        paths = sorted(p for p in root.rglob("*") if p.suffix in suffixes and p.is_file()) if root.is_dir() else [root]
        for path in paths:
            label = str(path.relative_to(root)) if root.is_dir() else path.name
            if re.search(options.skip, label):
                continue
            # Bytes that are no UTF-8 are no text for any judge here.
            data = preprocessed(path, root) if options.language == "c" else path.read_bytes()
            text = data.decode("utf-8", "ignore")
            parts = programs_of(text, options)
            found += [(f"{label}#{number}" if len(parts) > 1 else label, part) for number, part in enumerate(parts)]
    found = [(name, text) for name, text in found if text]
    if options.most and len(found) > options.most:
        found = random.Random(options.seed).sample(found, options.most)
    return found


def preprocessed(path: Path, root: Path) -> bytes:
    """A C file as the preprocessor leaves it, empty if that fails (a header is missing); `.i` as it is."""
    if path.suffix == ".i":
        return path.read_bytes()
    folders = [parent for parent in path.parents if parent == root or root in parent.parents]
    include = [sysconfig.get_paths()["include"], *folders, *(folder / "include" for folder in folders)]
    command = ["gcc", "-std=gnu17", "-E", "-w", *(f"-I{folder}" for folder in include), str(path)]
    done = subprocess.run(command, capture_output=True)
    return b"" if done.returncode else done.stdout


def programs_of(text: str, options: argparse.Namespace) -> list[str]:
    """The programs that a file holds. Of a file of SQL: its statements, a line each where no line ends in a semicolon;
    lines that begin with `#` are notes of test fixtures."""
    split = options.split
    if options.language == "sql" and not split:
        text = re.sub(r"(?m)^#.*\n", "", text)
        split = r";[ \t]*(?:\n|\Z)" if re.search(r"(?m);[ \t]*$", text) else r"\n"
    return [part for part in re.split(split, text) if part.strip()] if split else [text]


def reason(language: str, row: dict[str, Any]) -> str:
    """What the header of the grammar leaves out, as far as the place where it stopped shows it."""
    known = tomllib.loads(NOT_COVERED.read_text(encoding="utf-8")).get(language, [])
    text = row["before"] + "⟦" + row["after"]
    return next((entry["reason"] for entry in known if re.search(entry["pattern"], text)), UNEXPLAINED)


def summary(rows: list[dict[str, Any]]) -> dict[str, int]:
    return dict(Counter(row["reason"] for row in rows).most_common())


def stopped(grammar: gr.Grammar, text: str) -> dict[str, Any]:
    data = text.encode("utf-8")
    at = grammar.longest_prefix(data)
    before, after = data[max(0, at - EXCERPT) : at], data[at : at + EXCERPT]
    return {"at": at, "before": before.decode("utf-8", "replace"), "after": after.decode("utf-8", "replace")}


def first_difference(old: str, new: str) -> int:
    return next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))


def changed(old: str, new: str) -> dict[str, Any]:
    """Where two texts differ: the mutant's excerpt around the edit."""
    at = first_difference(old, new)
    return {"was": old[max(0, at - EXCERPT) : at + EXCERPT], "is": new[max(0, at - EXCERPT) : at + EXCERPT]}


def check_files(
    grammar: gr.Grammar,
    programs: list[tuple[str, str]],
    left_out: list[tuple[str, str]],
    others: dict[str, Judge],
    options: argparse.Namespace,
    results: dict[str, Any],
) -> None:
    refused = []
    total, spent = 0, 0.0
    for name, text in programs:
        data = text.encode("utf-8")
        start = time.process_time()
        ok = grammar.accepts(data)
        spent += time.process_time() - start
        total += len(data)
        if not ok:
            refused.append({"file": name, **stopped(grammar, text)})
    texts = [dict(programs)[row["file"]] for row in refused]
    mark(refused, texts, others, options.language)
    accepted = [(name, text) for name, text in left_out if grammar.accepts(text.encode("utf-8"))]
    results["files"] = {
        "valid": len(programs),
        "bytes": total,
        "refused": len(refused),
        "refused_by_reason": summary(refused),
        "left_out": len(left_out),
        "left_out_accepted": len(accepted),
        "valid_for": {name: sum(judge([text for _, text in programs])) for name, judge in others.items()},
        "ns_per_byte": 1e9 * spent / max(1, total),
    }
    results["refused_files"] = refused[:200]
    results["left_out_accepted"] = [{"file": name, "text": text[: 4 * EXCERPT]} for name, text in accepted[:50]]


def mark(rows: list[dict[str, Any]], texts: list[str], others: dict[str, Judge], language: str) -> None:
    """Notes in each row which other judges take its text, and why the grammar refuses it."""
    verdicts = {name: judge(texts) for name, judge in others.items()}
    for number, row in enumerate(rows):
        row["valid_for"] = [name for name in others if verdicts[name][number]]
        if "at" in row:
            row["reason"] = reason(language, row)


def check_mutants(
    grammar: gr.Grammar,
    judge: Judge,
    programs: list[tuple[str, str]],
    others: dict[str, Judge],
    options: argparse.Namespace,
    results: dict[str, Any],
) -> None:
    if options.language == "c":  # most edits would fall on line markers and blank lines
        bare = [(name, re.sub(r"(?m)^(?:#.*)?\n", "", text)) for name, text in programs]
        bare = [(name, text) for name, text in bare if len(text) <= options.mutant_bytes]
        compiled = gcc(ANY_ERROR)([text for _, text in bare])
        programs = [program for program, verdict in zip(bare, compiled, strict=True) if verdict]
    short = [
        (name, text, pieces(text, options.language)) for name, text in programs if len(text) <= options.mutant_bytes
    ]
    short = [entry for entry in short if len(entry[2]) > 1]
    rng = random.Random(options.seed)
    made = []
    for number in range(options.mutants if short else 0):
        name, text, parts = rng.choice(short)
        made.append((name, text, mutant(parts, options.seed * 1_000_003 + number)))
    verdicts = judge([text for _, _, text in made])
    valid = sum(verdicts)
    refused, accepted = [], []
    refused_texts, accepted_texts = [], []
    for (name, old, new), verdict in zip(made, verdicts, strict=True):
        ours = grammar.accepts(new)
        if verdict and not ours:
            refused.append({"file": name, **changed(old, new), **stopped(grammar, new)})
            refused_texts.append(new)
        elif ours and not verdict:
            row = {"file": name, **changed(old, new)}
            if options.language == "c":
                row["valid_but_for_the_name"] = would_be_c(new, first_difference(old, new))
            accepted.append(row)
            accepted_texts.append(new)
    mark(refused, refused_texts, others, options.language)
    mark(accepted, accepted_texts, others, options.language)
    results["mutants"] = {
        "mutants": len(made), "valid": valid, "invalid": len(made) - valid,
        "valid_refused": len(refused), "valid_refused_by_reason": summary(refused),
        "invalid_accepted": len(accepted),
        "invalid_accepted_but_for_a_name": sum(bool(row.get("valid_but_for_the_name")) for row in accepted),
        "invalid_accepted_valid_for_another": sum(bool(row["valid_for"]) for row in accepted),
    }  # fmt: skip
    refused.sort(key=lambda row: row["reason"] != UNEXPLAINED)
    results["valid_refused"], results["invalid_accepted"] = refused[:200], accepted[:200]


def check_walks(
    grammar: gr.Grammar,
    judge: Judge,
    programs: list[tuple[str, str]],
    options: argparse.Namespace,
    results: dict[str, Any],
) -> None:
    """Texts of random words of the programs, each chosen among those that the mask allows; complete ones are judged."""
    words = Counter(piece for _, text in programs for piece in pieces(text, options.language) if len(piece) < 20)
    tokens = [word.encode("utf-8") for word, _ in words.most_common(600)]
    vocabulary = gr.Vocabulary.from_bytes(
        [*tokens, *(bytes([b]) for b in range(256)), b""], eos_token_ids=len(tokens) + 256
    )
    matcher = gr.compile(grammar, vocabulary).matcher()
    mask = gr.allocate_token_bitmask(1, vocabulary)
    rng = random.Random(options.seed)
    texts: dict[str, None] = {}
    for _ in range(20 * options.walks):
        if len(texts) >= options.walks:
            break
        matcher.reset()
        text = b""
        for _ in range(60):
            matcher.fill_next_token_bitmask(mask)
            allowed = [i for i in range(len(tokens)) if int(mask[0, i // 32]) >> (i % 32) & 1]
            if not allowed:
                break
            chosen = rng.choice(allowed)
            matcher.accept_token(chosen)
            text += tokens[chosen]
            if matcher.is_accepting:
                texts[text.decode("utf-8")] = None
    written = list(texts)[: options.walks]
    invalid = [text for text, verdict in zip(written, judge(written), strict=True) if not verdict]
    results["walks"] = {"texts": len(written), "invalid": len(invalid)}
    results["invalid_walks"] = invalid[:20]


def check_tokens(
    grammar: gr.Grammar, programs: list[tuple[str, str]], name: str, options: argparse.Namespace
) -> dict[str, Any]:
    sys.path.insert(0, str(HERE.parent / "tests"))
    import real_tokenizers

    tokenizer = real_tokenizers.load(name)
    vocabulary = gr.Vocabulary.from_tokenizer(tokenizer)
    start = time.process_time()
    compiled = gr.compile(grammar, vocabulary)
    matcher = compiled.matcher()
    mask = gr.allocate_token_bitmask(1, vocabulary)
    matcher.fill_next_token_bitmask(mask)
    build = time.process_time() - start
    chosen = random.Random(options.seed).sample(programs, min(options.tokens, len(programs)))
    times, early, late, refused, count = [], [], [], [], 0
    warm: list[float] = []
    labels: list[str] = []
    for label, text in [*chosen, *chosen]:  # the second time everything has been met
        labels.append(label)
        matcher.reset()
        ids = tokenizer.encode(text, add_special_tokens=False)
        for at, token in enumerate(ids):
            first = vocabulary.first_token_bytes if at == 0 else None
            if not (first or vocabulary.token_bytes)[token]:
                continue  # SentencePiece's first "▁" before white space stands for no text, and no mask has it
            start = time.thread_time()
            matcher.fill_next_token_bitmask(mask)
            took = time.thread_time() - start
            allowed = bool(int(mask[0, token // 32]) >> (token % 32) & 1)
            start = time.thread_time()
            accepted = matcher.accept_token(token)
            took += time.thread_time() - start
            if len(labels) > len(chosen):
                warm.append(took)
                continue
            times.append(took)
            if at < 1000:
                early.append(took)
            elif at >= 4000:
                late.append(took)
            if not allowed or not accepted:
                refused.append({"file": label, "token": at, "text": tokenizer.decode(ids[max(0, at - 8) : at + 1])})
                break
        else:
            if not matcher.is_accepting:
                refused.append({"file": label, "token": len(ids), "text": "end of text"})
        count += len(ids) if len(labels) <= len(chosen) else 0
    micro = [1e6 * t for t in times]
    return {
        "tokenizer": name,
        "files": len(chosen),
        "tokens": count,
        "refused": len(refused),
        "build_s": build,
        "mask_and_accept_us": {
            "mean": sum(micro) / max(1, len(micro)),
            "p50": percentile(micro, 50),
            "p99": percentile(micro, 99),
            "max": max(micro),
        },
        "warm_us": {"mean": 1e6 * sum(warm) / max(1, len(warm)), "p99": percentile([1e6 * t for t in warm], 99)},
        "mean_us_first_1000": 1e6 * sum(early) / max(1, len(early)),
        "mean_us_after_4000": 1e6 * sum(late) / max(1, len(late)),
        "refused_tokens": refused[:20],
    }


def report(out: Path) -> str:
    """The results of all languages in a folder, as tables."""
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob("*.json"))]
    runs = [run for run in runs if "refused_by_reason" in run["files"]]
    lines = [
        "# The shipped grammars over real programs",
        "",
        "Written by `python -m benchmarks languages`, whose opening text says what is counted. *Unexplained* leaves",
        "out what the grammar's header does (each reason stands in the language's file) and, for C, names that would",
        "have to be a type, or none. Times are CPU time on a machine that did other work as well (see its load); cold:",
        "the first time through the files, warm: the second.",
        "",
        "| language | files | MB | valid refused (unexplained) | edits: valid / invalid | valid refused (unexplained) "
        "| invalid accepted (unexplained) | random texts (invalid) | date, commit, load |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        files, mutants, machine_ = run["files"], run["mutants"], run["machine"]
        walks = f"{run['walks']['texts']} ({run['walks']['invalid']})" if "walks" in run else "–"
        named = mutants.get("invalid_accepted_but_for_a_name", 0)
        lines.append(
            f"| {run['language']} | {files['valid']} | {files['bytes'] / 1e6:.1f} "
            f"| {files['refused']} ({files['refused_by_reason'].get(UNEXPLAINED, 0)}) "
            f"| {mutants['valid']} / {mutants['invalid']} "
            f"| {mutants['valid_refused']} ({mutants['valid_refused_by_reason'].get(UNEXPLAINED, 0)}) "
            f"| {mutants['invalid_accepted']} ({mutants['invalid_accepted'] - named}) "
            f"| {walks} "
            f"| {machine_['date']}, {machine_['commit']}, {machine_['load_1min']:.0f} |"
        )
    lines += [
        "",
        "| language | tokenizer | files | tokens | refused | cold µs: mean | p50 | p99 | warm µs: mean | p99 "
        "| cold mean, first 1,000 tokens | after 4,000 |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        for row in run["tokens"]:
            cold, warm = row["mask_and_accept_us"], row["warm_us"]
            late = row["mean_us_after_4000"]
            lines.append(
                f"| {run['language']} | {row['tokenizer']} | {row['files']} | {row['tokens']} | {row['refused']} "
                f"| {cold['mean']:.1f} | {cold['p50']:.1f} | {cold['p99']:.0f} "
                f"| {warm['mean']:.1f} | {warm['p99']:.1f} "
                f"| {row['mean_us_first_1000']:.1f} | {f'{late:.1f}' if late else '–'} |"
            )
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> None:
    options = arguments(argv)
    start = time.process_time()
    grammar = gr.Grammar.builtin(options.grammar or options.language)
    grammar.accepts(b"")
    results: dict[str, Any] = {
        "language": options.language,
        "grammar_s": time.process_time() - start,
        "machine": machine(),
    }
    judge = JUDGES[options.language]()
    others = {name: make() for name, make in OTHER_JUDGES.get(options.language, {}).items()}
    results["judges"] = [JUDGES[options.language].__name__, *others]
    found = corpus(options)
    verdicts = judge([text for _, text in found])
    programs = [program for program, verdict in zip(found, verdicts, strict=True) if verdict]
    left_out = [program for program, verdict in zip(found, verdicts, strict=True) if not verdict]
    check_files(grammar, programs, left_out, others, options, results)
    print(json.dumps({"language": options.language, **results["files"]}), flush=True)
    for row in [row for row in results["refused_files"] if row["reason"] == UNEXPLAINED][:20]:
        print("  refused:", row, flush=True)
    for row in results["left_out_accepted"][:10]:
        print("  left out, accepted:", row, flush=True)
    check_mutants(grammar, judge, programs, others, options, results)
    print(json.dumps(results["mutants"]), flush=True)
    for kind in ("valid_refused", "invalid_accepted"):
        for row in results[kind][:15]:
            print(f"  {kind}:", row, flush=True)
    if options.walks:
        check_walks(grammar, judge, programs, options, results)
        print(json.dumps(results["walks"]), results["invalid_walks"][:10], flush=True)
    refused = {row["file"] for row in results["refused_files"]}
    accepted = [program for program in programs if program[0] not in refused]
    results["tokens"] = [check_tokens(grammar, accepted, name, options) for name in options.tokenizers]
    for row in results["tokens"]:
        print(json.dumps(row), flush=True)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{options.grammar or options.language}.json").write_text(
        json.dumps(results, indent=1, ensure_ascii=False) + "\n"
    )
    (out.parent / f"{out.name}.md").write_text(report(out), encoding="utf-8")
