"""Side by side with SynCode 0.4.16: build time, mask time, wrong masks, for JSON, Python, Go and SQL.

    python -m benchmarks syncode [--languages json python go sql] [--go-files FOLDER] [--seconds 500]

SynCode has its own environment, which the first run installs (environment.py), and its default mode for generation,
`grammar_mask`. All engines have the tokenizer of SmolLM2 (49,152 tokens) and read the same texts token by token:
JSON documents, short functions of the standard library, Go and SQL texts of generation/texts.py; of each text SynCode
reads 400 tokens. guiderail stands there twice: with its own grammar of the language, and with SynCode's file as it is.
It also reads whole files of the standard library. llguidance and xgrammar are there where they load a grammar.

    build     to the first mask, CPU seconds; cached: from what is kept on the disk, in a new process
    masks     CPU microseconds each; 'first': the texts in turn, nothing known before; 'again': once more
    wrong     at random places of the texts some tokens, half of them from all and half from those that some engine
              allows, each judged by whether any text of the language begins so (judges/prefixes.py), and the end token
              by whether the text is complete. 'No mask': SynCode's parser raised or its mask was empty, and it
              allows everything; its other tokens are counted.

A cell is an engine with a language; its figures are kept in benchmarks/scratch/syncode, so a run that was stopped goes
on; the report is of what is there. SynCode's stores take up to minutes and 2.7 GB of memory each.
"""

from __future__ import annotations

import argparse
import base64
import concurrent.futures
import datetime
import json
import multiprocessing
import random
import shutil
import sysconfig
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..generation import JUDGED_BY
from ..generation.texts import texts as written
from ..judges import MissingJudge
from ..judges.prefixes import PREFIX_JUDGES
from ..masks import HERE, machine
from ..percentiles import summary
from ..process import read_jsonl
from .environment import CACHE, VERSION, SynCode, interpreter
from .rivals import RIVALS, load_again, measure, save, tokenizer

LANGUAGES = ("json", "python", "go", "sql")
SCRATCH = HERE / "scratch" / "syncode"
MODE = "grammar_mask"
MOST = 400
TEXTS = {"json": 40, "python": 15, "go": 30, "sql": 60}
FILES, FILE_TOKENS = 8, 12_000
PLACES, TOKENS = 30, 40


def documents(language: str, seed: int) -> list[str]:
    """The texts that all engines read."""
    if language == "json":
        rows = read_jsonl(str(HERE / "schemas-small.jsonl"))
        found = [json.dumps(test["data"]) for row in rows for test in row["tests"] if test["valid"]]
        found = [text for text in found if text[0] in "{["]
        # And long ones: a list of all of them, in several orders.
        orders = [random.Random(seed + number).sample(found, len(found)) for number in range(4)]
        found += [f"[{', '.join(order)}]" for order in orders]
    elif language == "python":
        found = [text for text in written("python", 0, seed) if len(text) < 700]
    else:
        found = written(language, TEXTS[language], seed)
    return random.Random(seed).sample(found, min(TEXTS[language], len(found)))


def files(language: str, go_files: Path | None, seed: int) -> list[str]:
    """Whole programs, which only guiderail reads."""
    folder = {"python": Path(sysconfig.get_paths()["stdlib"]), "go": go_files}.get(language)
    if folder is None:
        return []
    paths = sorted(p for p in folder.rglob({"python": "*.py", "go": "*.go"}[language]) if p.stat().st_size < 200_000)
    paths = [p for p in paths if not {"site-packages", "test", "lib2to3", "testdata"} & set(p.parts)]
    chosen = random.Random(seed).sample(paths, min(3 * FILES, len(paths)))
    found = [path.read_text(encoding="utf-8", errors="ignore") for path in chosen]
    verdicts = JUDGED_BY[language]()(found)
    return [text for text, ok in zip(found, verdicts, strict=True) if ok][:FILES]


def places(language: str, seed: int) -> list[list[int]]:
    """Beginnings of texts, as token ids."""
    rng, encode = random.Random(seed + 1), tokenizer().encode
    found: list[list[int]] = []
    texts = documents(language, seed)
    while len(found) < PLACES:
        ids = encode(rng.choice(texts), add_special_tokens=False)
        found.append(ids[: rng.randrange(min(len(ids), 150) + 1)])
    return found


def in_new_process(function: Callable[..., Any], *arguments: Any) -> Any:
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def of_rival(name: str, language: str, options: argparse.Namespace) -> dict[str, Any]:
    encode = tokenizer().encode
    ids = [encode(text, add_special_tokens=False) for text in documents(language, options.seed)]
    result = in_new_process(measure, name, language, ids, places(language, options.seed))
    if "refusal" in result:
        return dict(result)
    for key in ("first_us", "again_us"):
        result[key] = [value for text in result[key] for value in text]
    if name.startswith("guiderail"):
        result |= in_new_process(load_again, name, language, in_new_process(save, name, language))
    if name == "guiderail":
        whole = [
            encode(text, add_special_tokens=False)[:FILE_TOKENS]
            for text in files(language, options.go_files, options.seed)
        ]
        if whole:
            read = in_new_process(measure, name, language, whole, [])
            result["files"] = {
                "files": len(whole), "tokens": sum(map(len, whole)), "refused": read["refused"],
                **{key: summary([value for text in read[key] for value in text]) for key in ("first_us", "again_us")},
            }  # fmt: skip
    return dict(result)


def of_syncode(language: str, options: argparse.Namespace) -> dict[str, Any]:
    import real_tokenizers

    tokenizer()  # fills the cache that the worker reads
    folder = real_tokenizers.CACHE / f"smollm2-{real_tokenizers.RECIPE}"
    store = CACHE / f"store-{language}-{MODE}"
    cold = store / "build.json"
    if not cold.exists():
        # The store may take minutes, so what building it took is kept with it.
        shutil.rmtree(store, ignore_errors=True)
        store.mkdir(parents=True)
        engine = SynCode(folder, store)
        cold.write_text(json.dumps(engine.ask(kind="build", grammar=language, mode=MODE)))
        engine.close()
    engine = SynCode(folder, store)
    built = json.loads(cold.read_text())
    again = engine.ask(kind="build", grammar=language, mode=MODE)
    result: dict[str, Any] = {
        "build_s": built["cpu_s"], "peak_mb": built["peak_mb"], "cached_s": again["cpu_s"],
        "first_us": [], "refused": 0, "missing": 0, "tokens": 0,
    }  # fmt: skip
    for text in documents(language, options.seed):
        read = engine.ask(kind="walk", text=text, most=MOST)
        result["first_us"] += read["us"]
        result["refused"] += read["refused"]
        result["missing"] += read["missing"]
        result["tokens"] += read["tokens"]
    encoded = engine.ask(kind="masks", texts=[tokenizer().decode(ids) for ids in places(language, options.seed)])
    result["rows"] = [
        None if row is None else [index for index, bit in enumerate(base64.b64decode(row)) if bit]
        for row in encoded["rows"]
    ]
    engine.close()
    return result


def wrong(language: str, cells: dict[str, dict[str, Any]], seed: int) -> dict[str, Any]:
    """Masks of all engines against the judge of beginnings, at the same places and tokens."""
    reader, rng = tokenizer(), random.Random(seed + 2)
    end = int(reader.eos_token_id)
    pieces = pieces_of(reader)
    spelled = [token for token, data in enumerate(pieces) if data is not None]
    engines = {name: cell["rows"] for name, cell in cells.items() if "rows" in cell}
    begins, complete = PREFIX_JUDGES[language](), JUDGED_BY[language]()
    asked: list[tuple[int, int]] = []
    found = places(language, seed)
    for place in range(len(found)):
        allowed = sorted({t for rows in engines.values() for t in rows[place] or () if pieces[t] is not None})
        asked += [(place, token) for token in rng.sample(spelled, TOKENS // 2)]
        asked += [(place, token) for token in rng.sample(allowed, min(TOKENS // 2, len(allowed)))]
    prefixes = [str(reader.decode(ids)) for ids in found]
    verdicts = begins([prefixes[place] + str(pieces[token]) for place, token in asked])
    ends = complete(prefixes)
    outcome: dict[str, Any] = {
        "legal": sum(v is True for v in verdicts), "illegal": sum(v is False for v in verdicts),
        "not decided": sum(v is None for v in verdicts), "engines": {},
    }  # fmt: skip
    for name, rows in engines.items():
        sets = [None if row is None else set(row) for row in rows]
        refused, kept = [], []
        for (place, token), verdict in zip(asked, verdicts, strict=True):
            row = sets[place]
            if row is not None and verdict is not None and verdict != (token in row):
                (refused if verdict else kept).append([prefixes[place][-60:], pieces[token]])
        wrong_ends = [
            [prefixes[place][-60:], "the end"]
            for place, ok in enumerate(ends)
            if (row := sets[place]) is not None and ok != (end in row)
        ]
        judged = [v for (place, _), v in zip(asked, verdicts, strict=True) if sets[place] is not None]
        outcome["engines"][name] = {
            "no_mask": sum(row is None for row in sets), "legal": sum(v is True for v in judged),
            "illegal": sum(v is False for v in judged), "legal_refused": len(refused), "illegal_kept": len(kept),
            "wrong_ends": len(wrong_ends), "examples": refused[:20] + kept[:20] + wrong_ends[:10],
        }  # fmt: skip
    return outcome


def pieces_of(reader: Any) -> list[str | None]:
    """The text of each token; None for special ones and for those that are no UTF-8 by themselves."""
    import guiderail as gr

    vocabulary = gr.Vocabulary.from_tokenizer(reader)
    special = set(reader.all_special_ids)
    texts: list[str | None] = []
    for token, data in enumerate(vocabulary.token_bytes):
        try:
            texts.append(None if token in special or not data else data.decode("utf-8"))
        except UnicodeDecodeError:
            texts.append(None)
    return texts


def short(values: Sequence[float] | None) -> str:
    if not values:
        return ""
    s = summary(values)
    return f"{s['mean']:,.1f} / {s['p50']:,.1f} / {s['p99']:,.1f}"


def page(report: dict[str, Any]) -> str:
    lines = [
        f"# Side by side with SynCode {VERSION}",
        "",
        "Written by `python -m benchmarks syncode`; what is measured, and how, is in benchmarks/syncode. "
        + ", ".join(f"{key} {value}" for key, value in report["machine"].items())
        + ".",
        "Masks: CPU microseconds, mean / p50 / p99.",
        "",
        "| language | engine | build s | cached s | masks, first | masks, again | tokens refused | without a mask "
        "| measured, UTC |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for language, cells in report["languages"].items():
        for name, cell in cells.items():
            if "refusal" in cell:
                said = cell["refusal"].replace("|", "\\|").replace("\n", " ")
                lines.append(f"| {language} | {name} | refused: {said} | | | | | | {cell['measured']} |")
                continue
            lines.append(
                f"| {language} | {name} | {cell['build_s']:.2f} | "
                + (f"{cell['cached_s']:.2f} | " if "cached_s" in cell else "| ")
                + f"{short(cell['first_us'])} | {short(cell.get('again_us'))} | {cell['refused']} | "
                + f"{cell.get('missing', 0)} | {cell['measured']} |"
            )
    lines += [
        "",
        "A text is read to its end or to the first token refused; SynCode's count is of tokens, over all.",
        "",
    ]
    lines += [
        "SynCode's figures over guiderail's (same texts):",
        "",
        "| language | build | cached | masks, first, mean |",
    ]
    lines += ["|---|---|---|---|"]
    for language, cells in report["languages"].items():
        ours, theirs = cells.get("guiderail"), cells.get("syncode")
        if ours and theirs:
            masks = summary(theirs["first_us"])["mean"] / summary(ours["first_us"])["mean"]
            again = summary(theirs["first_us"])["mean"] / summary(ours["again_us"])["mean"]
            lines.append(
                f"| {language} | {theirs['build_s'] / ours['build_s']:,.0f} × | "
                f"{theirs['cached_s'] / ours['cached_s']:,.0f} × | {masks:,.0f} ×, again {again:,.0f} × |"
            )
    lines += ["", "Whole files, guiderail:", "", "| language | files | tokens | refused | first | again |"]
    lines += ["|---|---|---|---|---|---|"]
    for language, cells in report["languages"].items():
        read = cells.get("guiderail", {}).get("files")
        if read:
            first, again = (
                " / ".join(f"{read[key][name]:,.1f}" for name in ("mean", "p50", "p99"))
                for key in ("first_us", "again_us")
            )
            lines.append(
                f"| {language} | {read['files']} | {read['tokens']:,} | {read['refused']} | {first} | {again} |"
            )
    lines += [
        "",
        "Wrong masks, among the tokens that were judged, against the language itself. SynCode's files describe",
        "other languages (its JSON has no escapes but leading zeros): what guiderail does wrong with them is wrong in",
        "the files. Every wrong answer of an engine stands in the JSON file, up to twenty of a kind.",
        "",
    ]
    lines += ["| language | engine | places without a mask | legal, refused | illegal, kept | end of text wrong |"]
    lines += ["|---|---|---|---|---|---|"]
    for language, outcome in report["wrong"].items():
        for name, row in outcome["engines"].items():
            lines.append(
                f"| {language} | {name} | {row['no_mask']} of {PLACES} | {row['legal_refused']} of {row['legal']} | "
                f"{row['illegal_kept']} of {row['illegal']} | {row['wrong_ends']} |"
            )
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks syncode", description=__doc__)
    parser.add_argument("--languages", nargs="+", choices=LANGUAGES, default=list(LANGUAGES))
    parser.add_argument("--go-files", type=Path, help="a folder of Go programs to read whole, such as Go's src")
    parser.add_argument("--seconds", type=float, default=0, help="begin no cell after so many seconds; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "syncode")
    options = parser.parse_args(argv)
    interpreter()
    begun, left_out = time.monotonic(), 0
    SCRATCH.mkdir(parents=True, exist_ok=True)

    def kept(name: str, make: Callable[..., Any], *arguments: Any) -> Any:
        """What is in scratch under this name, made if it is missing and there is time."""
        path = SCRATCH / f"{name}-{options.seed}.json"
        if not path.exists():
            if options.seconds and time.monotonic() - begun > options.seconds:
                return None
            path.write_text(json.dumps(make(*arguments)))
            print(f"{name}: done after {time.monotonic() - begun:.0f} s", flush=True)
        measured = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC)
        return {**json.loads(path.read_text()), "measured": measured.strftime("%Y-%m-%d %H:%M")}

    report: dict[str, Any] = {"machine": machine(), "seed": options.seed, "languages": {}, "wrong": {}}
    for language in options.languages:
        cells = {}
        for name in (*RIVALS, "syncode"):
            label = f"{name}-{language}".replace(", ", "-").replace(" ", "-").replace("'", "")
            if name == "syncode":
                cell = kept(label, of_syncode, language, options)
            else:
                cell = kept(label, of_rival, name, language, options)
            if cell is None:
                left_out += 1
            else:
                cells[name] = cell
        report["languages"][language] = cells
        if "syncode" in cells and "guiderail" in cells:
            try:
                outcome = kept(f"wrong-{language}", wrong, language, cells, options.seed)
            except MissingJudge as missing:
                print(f"wrong masks of {language} are left out: {missing}", flush=True)
                outcome = None
            if outcome is None:
                left_out += 1
            else:
                report["wrong"][language] = outcome
    page_text = page(report)
    for cells in report["languages"].values():
        for cell in cells.values():
            cell.pop("rows", None)
            for key in ("first_us", "again_us", "accept_us"):
                if key in cell:
                    cell[key] = summary(cell[key])
    options.out.with_suffix(".json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    options.out.with_suffix(".md").write_text(page_text)
    print(page_text)
    print(f"{left_out} cells left out" if left_out else "complete")
