"""Lark grammars under Lark's own lexers: do we accept exactly the texts that the library accepts?

    pip download --no-deps --no-binary lark lark==1.3.1 -d CACHE
    python -m benchmarks equivalence CACHE

The grammars are the examples in Lark's source distribution (MIT licence; nothing of it is kept here), the two that its
package carries, and ours. Each is read under the three lexers and asked for

    corpus      string constants of the example's own file, and texts written for this (CORPUS)
    mutants     those with one edit each (mutations.py)
    sentences   random derivations of Lark's compiled rules, with random lexemes, with and without space in between
    walks       random texts that our own masks allow, byte by byte

and `lark.Lark` with the parser and lexer of that name is asked the same. Every disagreement must stand in
`results/equivalence/known.toml` with its reason, and so must every grammar that Lark reads and we do not; the command
ends with an error otherwise.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import signal
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import lark
from lark.indenter import Indenter, PythonIndenter

import guiderail as gr
from guiderail.errors import GuiderailError

from .masks import HERE, machine
from .mutations import mutant, pieces

PARSERS = {
    "lark-basic": {"parser": "earley", "lexer": "basic"},
    "lark-contextual": {"parser": "lalr", "lexer": "contextual"},
    "lark-dynamic": {"parser": "earley", "lexer": "dynamic"},
}
LONGEST = 400  # characters; Earley parsers need seconds beyond


class TreeIndenter(Indenter):
    """That of Lark's example `indented_tree.py`."""

    NL_type = "_NL"
    OPEN_PAREN_types: list[str] = []  # noqa: RUF012
    CLOSE_PAREN_types: list[str] = []  # noqa: RUF012
    INDENT_type = "_INDENT"
    DEDENT_type = "_DEDENT"
    tab_len = 8


@dataclass
class Example:
    """A grammar: `source` is its text, or a path, and `postlex` a class."""

    name: str
    source: str | Path
    start: str = "start"
    postlex: Any = None
    corpus: list[str] = field(default_factory=list)

    def ours(self, lexer: str) -> gr.Grammar:
        return gr.Grammar.from_lark(self.source, start=self.start, lexer=lexer, postlex=self.postlex)

    def theirs(self, lexer: str) -> lark.Lark:
        text = self.source if isinstance(self.source, str) else self.source.read_text(encoding="utf-8")
        options: dict[str, Any] = {"start": self.start, "regex": "\\p{" in text, **PARSERS[lexer]}
        if self.postlex is not None:
            options["postlex"] = self.postlex()
        if isinstance(self.source, Path):
            return lark.Lark.open(str(self.source), **options)
        return lark.Lark(self.source, **options)


# Files of the distribution: name → start rule, class of blocks.
FILES = {
    "examples/grammars/verilog.lark": ("start", None),
    "examples/composition/storage.lark": ("start", None),
    "examples/composition/csv.lark": ("start", None),
    "examples/composition/json.lark": ("start", None),
    "examples/standalone/json.lark": ("start", None),
    "examples/relative-imports/multiples.lark": ("start", None),
    "examples/tests/no_newline_at_end.lark": ("start", None),
    "examples/tests/negative_priority.lark": ("start", None),
    "examples/advanced/python2.lark": ("file_input", PythonIndenter),
    "lark/grammars/lark.lark": ("start", None),
    "lark/grammars/python.lark": ("file_input", PythonIndenter),
}
# Examples whose grammar is a string in a Python file.
PROGRAMS = {
    "examples/json_parser.py": ("start", None),
    "examples/calc.py": ("start", None),
    "examples/turtle_dsl.py": ("start", None),
    "examples/indented_tree.py": ("start", TreeIndenter),
    "examples/fruitflies.py": ("sentence", None),
    "examples/advanced/conf_earley.py": ("start", None),
    "examples/advanced/conf_lalr.py": ("start", None),
    "examples/advanced/create_ast.py": ("start", None),
    "examples/advanced/prioritizer.py": ("start", None),
    "examples/advanced/templates.py": ("start", None),
    "examples/advanced/dynamic_complete.py": ("start", None),
}
OURS = (
    "calc",
    "csv",
    "first_order_logic",
    "go",
    "graphql",
    "java",
    "json5",
    "toml",
    "sql",
    "c",
)  # python has lexer modes

CORPUS = {
    "verilog": ["module m (a, b); input a; output b; assign b = ~a; endmodule", "module m; endmodule", "module m("],
    "csv": ["# a b\n1 2\n3 4\n", "# a\n1\n", "#a b\n\n", "a,b\n1,2\n"],
    "json": ['{"a": [1, -2.5e3, "x\\ny", true, false]}', "[]", "{}", "[1,]", '"a" "b"', "[[[]]]", '{"a":1}'],
    "lark": ['start: "a" B?\nB: /x+/i\n%ignore " "\n', "a: b | c -> d\n", 'A.2: "x".."y"\n', "?a{b}: b\n", "a b\n"],
    "python": [
        "x = 1\n",
        "def f(a, b=2, *c, **d):\n    return a + b\n",
        "class A(B):\n    x: int = [1,\n  2]\n    def f(self): pass\n",
        "if x:\n  y\nelif z:\n  w\nelse:\n  v\n",
        "for i in range(3):\n    print(i)\nwhile not x or y:\n    break\n",
        "try:\n  a\nexcept E as e:\n  b\nfinally:\n  c\n",
        "match = 1\nprint(match)\n",
        "x = [i for i in y if z]\nl = lambda a: a\n",
        "@d\ndef f():\n\treturn 'a' \"b\" '''c\n'''\n",
        "if x:\ny\n",
        "x = = 1\n",
        "with a as b:\n  import c.d, e\n  from . import f\n",
        "a[1:2, ::3] = b if c else d ** -e\n",
        "1if 2else 3\n",
        "# comment\n\n   \nx\n",
    ],
    "calc": ["1+2*3", "a = (1 - 2) / -3", "--1", "1 +", "2(3)", "x = y = 1"],
    "turtle_dsl": ["c red yellow fill { repeat 36 { f200 l170 } }", "f 100", "repeat 2 { c #112233 }", "fill { }", "f"],
    "indented_tree": ["a\n    b\n    c\n        d\n        e\n    f\n", "\na\n  b\n", "a\n  b\n c\n", "a\n"],
    "fruitflies": ["fruit flies like bananas", "fruit flies like a banana", "flies like", "fruit", "fruitfliesbananas"],
    "conf": ["[section_1]\na=hello\nb=world\n", "[s]\n", "[s]\nk=\n[t]\nx = y\n", "a=b\n", "[a=b]\n"],
    "create_ast": ["a = 1;\nif a { b = 2; }", "print(1);", "a = ;", "if x { }"],
    "templates": ["[1, 2, 3, 4]", "{1, 2, 3, 4}", "[]", "[1,]", "{1}"],
    "storage": ["1 # a b\n1 2\n", '{"a": 1}\n', "# a b\n1 2\n"],
    "multiples": ["b0", "b01", "a0", "b", "12"],
    "dynamic_complete": ["a,b", "'a'", "1"],
    "first_order_logic": ["all x. (P(x) -> Q(x))", "{P(a)}", "exists y. P(y)", "P(", "a = b", "∀x P(x)"],
    "go": ["package main\n\nfunc main() {\n\tx := 1\n}\n", "package p\nvar x, y = 1, \"a\"\n", "package p\nfunc f("],
    "graphql": ["{ a(b: 1) { c } }", "query Q($x: Int!) { a }", "type T { f: [Int!]! }", "{ }", "query { x }"],
    "java": ["class A { int x = 1; }", "class A { void f() { x = y; } }", "interface I<T> { L<L<T>> f(); }", "class {"],
    "json5": ["{a: 1, 'b': [0x1F, +.5,],}", "// c\n[NaN]", "{", "[1,,2]"],
    "toml": ['a = 1\n[b]\nc = "x"\n', "[[t]]\nd = 1979-05-27T07:32:00Z\n", "a.b = [1, 2,]\n", "a = \n"],
    "sql": ["SELECT a, b FROM t WHERE x = 1", "INSERT INTO t VALUES (1, 'a')", "SELECT", "select * from a join b on c"],
    "c": ["int main(void) { return 0; }", "int x = 1;", "struct s { int a; };", "int f("],
}  # fmt: skip


def distribution(place: Path) -> Path:
    """The unpacked source distribution, from a folder that holds its archive, the archive, or the folder itself."""
    if (place / "examples").is_dir():
        return place
    archives = [place] if place.is_file() else sorted(place.glob("lark-*.tar.gz"))
    unpacked = sorted(place.glob("lark-*/examples")) if place.is_dir() else []
    if unpacked:
        return unpacked[0].parent
    if not archives:
        raise SystemExit(f"{place} holds no source distribution of lark")
    target = Path(tempfile.mkdtemp(prefix="guiderail-lark-"))
    with tarfile.open(archives[0]) as archive:
        archive.extractall(target, filter="data")
    return next(target.glob("lark-*"))


def grammar_in(path: Path) -> tuple[str, list[str]]:
    """The grammar that a program gives to `Lark(…)`, and its other string constants."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    named: dict[str, str] = {}
    strings = []
    grammar = None
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            strings.append(node.value)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            named |= {target.id: node.value.value for target in node.targets if isinstance(target, ast.Name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (getattr(node.func, "id", "") or getattr(node.func, "attr", "")) == "Lark":
            first = node.args[0]
            grammar = first.value if isinstance(first, ast.Constant) else named[first.id]  # type: ignore[attr-defined]
            break
    if not isinstance(grammar, str):
        raise SystemExit(f"{path} gives no grammar to Lark")
    return grammar, [text for text in strings if text != grammar and len(text) <= LONGEST]


def examples(root: Path | None) -> Iterator[Example]:
    """Lark's examples where `root` is its distribution, and ours."""
    if root is not None:
        for name, (start, postlex) in FILES.items():
            yield Example(name, root / name, start, postlex, corpus_of(name))
        for name, (start, postlex) in PROGRAMS.items():
            text, strings = grammar_in(root / name)
            yield Example(name, text, start, postlex, corpus_of(name) + strings)
    library = resources.files("guiderail.grammars") / "library"
    for name in OURS:
        path = Path(str(library / f"{name}.lark"))
        if path.is_file():
            yield Example(f"ours/{name}", path, "start", None, corpus_of(name))


def corpus_of(name: str) -> list[str]:
    stem = Path(name).stem
    return [text for key, texts in CORPUS.items() if key == stem or (len(key) > 3 and key in stem) for text in texts]


# --- texts ------------------------------------------------------------------------------------------------------------


class Derivations:
    """Random sentences of Lark's compiled rules."""

    def __init__(self, parser: lark.Lark, rng: random.Random) -> None:
        self.rng = rng
        self.rules: dict[str, list[list[Any]]] = {}
        for rule in parser.rules:
            self.rules.setdefault(rule.origin.name, []).append(list(rule.expansion))
        self.expressions = {t.name: t.pattern.to_regexp() for t in parser.terminals}
        self.lexemes: dict[str, list[str]] = {}
        self.depth: dict[str, int] = {}
        for level in range(1, 200):
            for name, expansions in self.rules.items():
                if name not in self.depth and any(
                    all(s.is_term or self.depth.get(s.name, level) < level for s in expansion)
                    for expansion in expansions
                ):
                    self.depth[name] = level
        for name, expansions in self.rules.items():  # what derives nothing is not for sentences
            self.rules[name] = [e for e in expansions if all(s.is_term or s.name in self.depth for s in e)]

    def lexeme(self, terminal: str) -> str:
        if terminal not in self.expressions:
            return ""  # made by blocks
        if terminal not in self.lexemes:
            self.lexemes[terminal] = walks(gr.Grammar.from_regex(self.expressions[terminal]), self.rng, 5, 12)
        return self.rng.choice(self.lexemes[terminal] or [""])

    def sentence(self, start: str, most: int) -> str:
        if start not in self.depth:
            return ""
        out: list[str] = []
        pending = [(start, 0)]
        while pending:
            name, used = pending.pop()
            options = self.rules[name]
            if len(out) + len(pending) > most or used > 60:  # the nearest way out
                least = min(self.height(option) for option in options)
                options = [option for option in options if self.height(option) == least]
            for symbol in reversed(self.rng.choice(options)):
                pending.append((symbol.name, -1) if symbol.is_term else (symbol.name, used + 1))
            while pending and pending[-1][1] == -1:
                out.append(self.lexeme(pending.pop()[0]))
        gap = self.rng.choice(["", " ", " ", "\n"])
        return gap.join(out)

    def height(self, expansion: list[Any]) -> int:
        return max((self.depth.get(s.name, 1000) for s in expansion if not s.is_term), default=0)


def walks(grammar: gr.Grammar, rng: random.Random, count: int, length: int) -> list[str]:
    """Texts that `grammar` accepts, made by following its masks; ASCII where it allows any."""
    vocabulary = gr.Vocabulary.from_bytes([*(bytes([b]) for b in range(256)), b""], eos_token_ids=[256])
    compiled = gr.compile(grammar, vocabulary)
    mask = gr.allocate_token_bitmask(1, 257)
    found = []
    for _ in range(count):
        matcher = compiled.matcher()
        text, complete = b"", b"" if matcher.is_accepting else None
        for _ in range(rng.randrange(1, length + 1)):
            matcher.fill_next_token_bitmask(mask)
            allowed = [b for b in range(256) if int(mask[0, b // 32]) >> (b % 32) & 1]
            allowed = [b for b in allowed if 32 <= b < 127 or b == 10] or allowed
            if not allowed:
                break
            words = [b for b in allowed if chr(b).isalnum() or b == 32]
            byte = rng.choice(words if words and rng.random() < 0.5 else allowed)
            matcher.accept_token(byte)
            text += bytes([byte])
            if matcher.is_accepting:
                complete = text
        if complete is not None:
            found.append(complete.decode("utf-8", "strict"))
    return found


def nudged(text: str, rng: random.Random) -> str:
    """`text` with one character more, less, or another one."""
    at = rng.randrange(len(text) + 1)
    other = rng.choice(text + " \n\t") if rng.random() < 0.7 else chr(rng.randrange(33, 127))
    return text[:at] + rng.choice([other, "", other]) + text[at + rng.randrange(2) :]


def texts_of(
    example: Example, parser: lark.Lark, grammar: gr.Grammar | None, count: int, seed: int
) -> dict[str, list[str]]:
    """By kind; see the module's first lines."""
    rng = random.Random(seed)
    texts = {"corpus": example.corpus, "mutants": [], "sentences": [], "walks": []}
    long_enough = [parts for parts in (pieces(text, "") for text in example.corpus) if len(parts) > 1]
    texts["mutants"] = [
        mutant(rng.choice(long_enough), rng.randrange(1 << 30)) for _ in range(count * bool(long_enough))
    ]
    derivations = Derivations(parser, rng)
    for _ in range(count):
        texts["sentences"].append(derivations.sentence(example.start, rng.randrange(1, 25)))
    texts["walks"] = [] if grammar is None else walks(grammar, rng, count // 2, 60)
    some = [parts for parts in (pieces(text, "") for text in texts["sentences"]) if len(parts) > 1]
    texts["mutants"] += [mutant(rng.choice(some), rng.randrange(1 << 30)) for _ in range(count * bool(some))]
    every = [text for found in texts.values() for text in found]
    texts["mutants"] += [nudged(rng.choice(every), rng) for _ in range(count)]
    return {kind: [t for t in dict.fromkeys(found) if len(t) <= LONGEST] for kind, found in texts.items()}


# --- verdicts ---------------------------------------------------------------------------------------------------------


class _TooSlowError(Exception):
    pass


@contextmanager
def within(seconds: int) -> Iterator[None]:
    def stop(_signal: int, _frame: Any) -> None:
        raise _TooSlowError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def verdict(parser: lark.Lark, text: str) -> bool | str:
    """Does the library accept? In words where it does neither."""
    try:
        with within(10):
            parser.parse(text)
    except (lark.exceptions.UnexpectedInput, lark.indenter.DedentError):
        return False
    except _TooSlowError:
        return "slow"
    except Exception as error:  # whatever its own code stumbles over
        return f"{type(error).__name__}: {error}".splitlines()[0][:80]
    return True


def compare(example: Example, lexer: str, count: int, seed: int) -> dict[str, Any]:
    """One grammar under one lexer."""
    try:
        with within(60):
            parser = example.theirs(lexer)
    except (lark.exceptions.LarkError, _TooSlowError) as error:
        return {"lark": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
    try:
        with within(120):
            grammar = example.ours(lexer)
    except (GuiderailError, _TooSlowError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        if "language is empty" not in reason:
            return {"refused": reason}
        grammar = None
    counts = dict.fromkeys(("texts", "accepted", "lark failed", "slow"), 0)
    by_kind = {}
    disagreements = []
    for kind, texts in texts_of(example, parser, grammar, count, seed).items():
        by_kind[kind] = len(texts)
        for text in texts:
            theirs = verdict(parser, text)
            if theirs == "slow":
                counts["slow"] += 1
                continue
            ours = grammar is not None and grammar.accepts(text)
            counts["texts"] += 1
            counts["accepted"] += ours
            counts["lark failed"] += isinstance(theirs, str)
            if ours != (theirs is True):
                disagreements.append({"text": text, "ours": ours, "lark": theirs})
    return {**counts, "kinds": by_kind, "disagreements": disagreements}


def run(chosen: list[Example], lexers: list[str], count: int, seed: int) -> list[dict[str, Any]]:
    rows = []
    for example in chosen:
        for lexer in lexers:
            row = {"grammar": example.name, "lexer": lexer, **compare(example, lexer, count, seed)}
            rows.append(row)
            told = row.get("lark") or row.get("refused") or f"{row['texts']} texts, {row['accepted']} accepted"
            print(f"{example.name:42} {lexer:16} {told}", file=sys.stderr, flush=True)
            for d in row.get("disagreements", ())[:3]:
                print(f"    lark {d['lark']}, ours {d['ours']}: {d['text']!r}", file=sys.stderr, flush=True)
    return rows


def unknown(rows: list[dict[str, Any]], known: dict[str, Any]) -> list[str]:
    """What stands in no list."""
    found = []
    for row in rows:
        entry = known.get(row["grammar"], {}).get(row["lexer"], {})
        if "refused" in row and "refused" not in entry:
            found.append(f"{row['grammar']} {row['lexer']}: refused: {row['refused']}")
        listed = {d["text"] for d in entry.get("disagreements", ())}
        found += [
            f"{row['grammar']} {row['lexer']}: {d['text']!r}: lark {d['lark']}, ours {d['ours']}"
            for d in row.get("disagreements", ())
            if d["text"] not in listed
        ]
    return found


def report(rows: list[dict[str, Any]], known: dict[str, Any]) -> str:
    lines = [
        "# Lark's own lexers: our verdicts against the library's",
        "",
        "Made by `python -m benchmarks equivalence`. 'Lark failed': it raised something that is no verdict.",
        "",
        "| grammar | lexer | texts | accepted | Lark failed | too slow for Lark | disagreements |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        name = f"| {row['grammar']} | {row['lexer']} |"
        if "lark" in row:
            lines.append(f"{name} Lark refuses the grammar | | | | |")
        elif "refused" in row:
            reason = known.get(row["grammar"], {}).get(row["lexer"], {}).get("refused", "not listed")
            lines.append(f"{name} refused: {reason} | | | | |")
        else:
            numbers = [row["texts"], row["accepted"], row["lark failed"], row["slow"], len(row["disagreements"])]
            lines.append(f"{name} {' | '.join(map(str, numbers))} |")
    compared = [row for row in rows if "texts" in row]
    refused = [row for row in rows if "refused" in row]
    lines += [
        "",
        f"{len({row['grammar'] for row in compared})} grammars, {len(compared)} pairs of grammar and lexer, "
        f"{sum(row['texts'] for row in compared)} texts: "
        f"**{sum(len(row['disagreements']) for row in compared)} disagreements**. "
        f"Lark reads {len(refused)} pairs that we refuse.",
    ]
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.equivalence", description=__doc__.split("\n")[0])
    parser.add_argument("lark", nargs="?", help="Lark's source distribution: an archive, or a folder with it")
    parser.add_argument("--grammars", nargs="*", default=[], help="only those whose name contains one of these")
    parser.add_argument("--lexers", nargs="*", default=list(PARSERS), choices=list(PARSERS))
    parser.add_argument("--count", type=int, default=60, help="sentences, mutants of each sort, per grammar and lexer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default=str(HERE / "results" / "equivalence"))
    options = parser.parse_args(argv)
    if options.lark is None:
        print("without Lark's source distribution only our own grammars are compared", file=sys.stderr)
    root = None if options.lark is None else distribution(Path(options.lark))
    chosen = [e for e in examples(root) if not options.grammars or any(name in e.name for name in options.grammars)]
    out = Path(options.out)
    listed = out / "known.toml"
    known = tomllib.loads(listed.read_text(encoding="utf-8")) if listed.is_file() else {}
    rows = run(chosen, options.lexers, options.count, options.seed)
    if not options.grammars and root is not None:
        out.mkdir(parents=True, exist_ok=True)
        everything = {
            "machine": machine(),
            "lark": lark.__version__,
            "options": vars(options) | {"lark": None, "out": None},
        }
        (out / "lark.json").write_text(
            json.dumps(everything | {"rows": rows}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        (out / "lark.md").write_text(report(rows, known), encoding="utf-8")
    missing = unknown(rows, known)
    for line in missing:
        print(line)
    if missing:
        raise SystemExit(f"{len(missing)} disagreements or refusals that results/equivalence/known.toml does not list")


if __name__ == "__main__":
    main()
