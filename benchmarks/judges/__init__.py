"""Judges of programs: parsers that share no code with guiderail, each used for its syntax alone.

A judge takes texts and says of each whether it is a sentence of the language. `MissingJudge` names the package or
program that is not there. What a judge refuses that is not syntax, or accepts beyond it, its docstring says.
"""

from __future__ import annotations

import ast
import csv
import importlib
import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import parse_python

Judge = Callable[[Sequence[str]], list[bool]]
HERE = Path(__file__).parent
PYTHONS = ("python3.12", "python3.13", "python3.14")


class MissingJudge(Exception):
    """The package or program that a judge needs is not installed."""


def package(name: str, distribution: str | None = None) -> Any:
    """A module. Raises: MissingJudge."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingJudge(f"package {distribution or name} is not installed") from error


def program(name: str) -> str:
    """Where a program lies. Raises: MissingJudge."""
    found = shutil.which(name)
    if found is None:
        raise MissingJudge(f"program {name} is not installed")
    return found


def python_program() -> str | None:
    """A Python 3.12 or later that is installed, and runs: some that lie in the path only tell where they could be."""
    for name in PYTHONS:
        found = shutil.which(name)
        if found and subprocess.run([found, "-c", ""], capture_output=True).returncode == 0:
            return found
    return None


def parses(parse: Callable[[str], Any], *errors: type[BaseException]) -> Judge:
    """A judge from a function that raises one of `errors` for what is no sentence."""

    def judge(texts: Sequence[str]) -> list[bool]:
        verdicts = []
        for text in texts:
            try:
                parse(text)
                verdicts.append(True)
            except errors:
                verdicts.append(False)
        return verdicts

    return judge


def python() -> Judge:
    """`ast.parse` of Python 3.12 or later: of the Python that runs, of one that is installed, or of Pyodide's (node,
    and `npm install pyodide@0.27.7` where the command is run). It also refuses what its compiler front end checks
    early, such as a bad assignment target or an argument order; the grammar knows those too. It has a limit on nesting,
    and Pyodide's knows no names of characters (\\N{...} in a program is refused)."""

    if sys.version_info >= (3, 12):
        return parse_python.verdicts
    installed = python_program()
    command = (
        [installed, str(HERE / "parse_python.py")] if installed else [program("node"), str(HERE / "parse_python.mjs")]
    )

    def judge(texts: Sequence[str]) -> list[bool]:
        with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as given:
            json.dump(list(texts), given)
            given.flush()
            done = subprocess.run([*command, given.name], capture_output=True, text=True)
        if done.returncode:
            raise MissingJudge(f"Python 3.12 does not run ({done.stderr.strip()[-200:]})")
        version, verdicts = json.loads(done.stdout)
        if version < [3, 12]:
            raise MissingJudge(f"Python 3.12: {command[0]} has Python {version[0]}.{version[1]}")
        return list(verdicts)

    return judge


def toml() -> Judge:
    """`tomllib`. It also refuses keys defined twice and the like."""
    return parses(tomllib.loads, tomllib.TOMLDecodeError)


def comma_separated() -> Judge:
    """`csv.reader(strict=True)`. It accepts a quote inside a plain field, which RFC 4180 forbids: those are refused
    here by one expression, on what the reader leaves."""

    def parse(text: str) -> None:
        for _ in csv.reader(io.StringIO(text, newline=""), strict=True):
            pass
        plain = re.sub(r'(?:(?<=[,\r\n])|\A)"(?:[^"]|"")*"', "", text)
        if '"' in plain:
            raise csv.Error("a quote in a plain field")

    return parses(parse, csv.Error)


def json5() -> Judge:
    """`pyjson5`. It accepts `\\0` before a digit, which the specification forbids."""
    module = package("pyjson5")
    return parses(module.decode, module.Json5DecoderException, RecursionError)


def graphql() -> Judge:
    """`graphql-core`."""
    module = package("graphql", "graphql-core")
    return parses(module.parse, module.GraphQLSyntaxError, RecursionError)


def go() -> Judge:
    """`gofmt -e`: the parser of Go's own library."""
    command = program("gofmt")

    def judge(texts: Sequence[str]) -> list[bool]:
        with tempfile.TemporaryDirectory() as folder:
            for number, text in enumerate(texts):
                Path(folder, f"{number}.go").write_text(text, encoding="utf-8", newline="")
            done = subprocess.run([command, "-e", "-l", folder], capture_output=True, text=True, errors="replace")
        bad = {int(number) for number in re.findall(r"(\d+)\.go:\d+:\d+: ", done.stderr)}
        return [number not in bad for number in range(len(texts))]

    return judge


def java() -> Judge:
    """`javac`'s parser without attribution and without its check of constructor names; the JDK's that `java` is of."""
    command = program("java")

    def judge(texts: Sequence[str]) -> list[bool]:
        data = b"".join(b"%d\n%s" % (len(raw := text.encode("utf-8")), raw) for text in texts)
        done = subprocess.run([command, str(HERE / "ParseJava.java")], input=data, capture_output=True, check=True)
        return [verdict == b"1" for verdict in done.stdout.split()]

    return judge


def gcc(errors: str | None = None) -> Judge:
    """`gcc -fsyntax-only -std=gnu17`, by its messages that match `errors` (C_SYNTAX: those of its lexer and parser,
    and those about implicit int); what it finds out from names and types otherwise is not counted. It knows which
    names are types, so a cast to a name that is none is 'expected …', too. It takes a structure's last member without
    its semicolon, and says nothing more after an unknown type name."""
    command = [program("gcc"), "-std=gnu17", "-fsyntax-only", "-fpreprocessed", "-x", "c", "-"]
    command[1:1] = ["-Wno-all", "-Werror=implicit-int"]
    not_valid = re.compile(C_SYNTAX if errors is None else errors)

    def judge(texts: Sequence[str]) -> list[bool]:
        verdicts = []
        for text in texts:
            done = subprocess.run(command, input=text.encode("utf-8"), capture_output=True, env={"LC_ALL": "C"})
            found = re.findall(r"error: (.*)", done.stderr.decode("utf-8", "replace"))
            verdicts.append(not any(not_valid.search(error) for error in found))
        return verdicts

    return judge


ANY_ERROR = ""
C_PARSER = (
    r"expected|stray|missing terminating|unterminated|empty character|invalid suffix|invalid digit"
    r"|invalid in .* constant|has no digits|decimal points|without a previous|lvalue required|empty enum|extraneous"
    r"|requires a named argument|no following hex|universal character|at end of input|requires a declaration"
    r"|data definition"
)
C_SYNTAX = C_PARSER + r"|two or more data types|implicit-int"


def would_be_c(text: str, at: int) -> str | None:
    """Why GCC refuses what no context-free grammar can: the words of types in it do not go together, or a name near
    `at` would have to be a type, or would have to be none; the name. None if it is neither."""
    judge = gcc(C_PARSER)
    if judge([text])[0]:
        return "words of types"
    for word in re.finditer(r"[A-Za-z_]\w*", text):
        if word.end() < at - 60 or word.start() > at + 60:
            continue
        if any(judge([f"typedef int {word[0]};\n{text}", f"{text[: word.start()]} no_type {text[word.end() :]}"])):
            return word[0]
    return None


def tree_sitter_c() -> Judge:
    """`tree-sitter-c`: it knows no names, takes much that C has not (any list of specifiers, attributes anywhere)
    and not all of GNU C."""
    bindings, language = package("tree_sitter", "tree-sitter"), package("tree_sitter_c", "tree-sitter-c")
    parser = bindings.Parser(bindings.Language(language.language()))

    def judge(texts: Sequence[str]) -> list[bool]:
        return [not parser.parse(text.encode("utf-8")).root_node.has_error for text in texts]

    return judge


def pycparser() -> Judge:
    """`pycparser`: C99 and most of C11. It knows which names are types."""
    module = package("pycparser")
    from pycparser.c_parser import ParseError  # type: ignore[import-untyped, import-not-found, unused-ignore]

    return parses(lambda text: module.CParser().parse(text), ParseError, AssertionError)


def postgresql() -> Judge:
    """`pglast`: PostgreSQL's own parser."""
    module = package("pglast")
    return parses(module.parser.parse_sql_json, module.parser.ParseError)


def sqlite() -> Judge:
    """SQLite's parser, by the error that compiling a statement gives: 'syntax error', 'incomplete input' and
    'unrecognized token' are syntax, 'no such table' is not."""
    import sqlite3

    def judge(texts: Sequence[str]) -> list[bool]:
        connection = sqlite3.connect(":memory:")
        verdicts = []
        for text in texts:
            ok, statement = True, ""
            for part in [*text.split(";"), ""]:
                statement += part
                if sqlite3.complete_statement(statement + ";") or not part:
                    if statement.strip():
                        try:
                            connection.execute("EXPLAIN " + statement)
                        except sqlite3.Error as error:
                            ok = ok and not re.search(r"syntax error|incomplete input|unrecognized token", str(error))
                    statement = ""
                else:
                    statement += ";"
            verdicts.append(ok)
        return verdicts

    return judge


def sqlglot() -> Judge:
    """`sqlglot` without a dialect. It reads the union of some thirty dialects and takes much that none of them has:
    words it does not know as aliases, `==`, any statement that begins with an unknown command, clauses in another
    order."""
    import logging

    module = package("sqlglot")
    logging.getLogger("sqlglot").setLevel(logging.CRITICAL)
    return parses(module.parse, module.errors.SqlglotError, RecursionError)


def calc() -> Judge:
    """Python's own expression parser, after `^` has become `**`, as far as the tree has nothing but arithmetic."""
    allowed = (ast.Module, ast.Expr, ast.Assign, ast.BinOp, ast.UnaryOp, ast.Call, ast.Name, ast.Constant, ast.operator,
               ast.unaryop, ast.Load, ast.Store)  # fmt: skip

    def parse(text: str) -> None:
        for line in re.split(r"[\n;]", text):
            tree = ast.parse(line.strip().replace("^", "**"))
            if not all(isinstance(node, allowed) for node in ast.walk(tree)):
                raise SyntaxError("more than arithmetic")

    return parses(parse, SyntaxError)


JUDGES: dict[str, Callable[[], Judge]] = {
    "python": python,
    "toml": toml,
    "csv": comma_separated,
    "json5": json5,
    "graphql": graphql,
    "go": go,
    "java": java,
    "c": gcc,
    "sql": postgresql,
}

# Asked about disagreements with the first.
OTHER_JUDGES: dict[str, dict[str, Callable[[], Judge]]] = {
    "c": {"tree-sitter": tree_sitter_c, "pycparser": pycparser},
    "sql": {"sqlite": sqlite, "sqlglot": sqlglot},
}


if __name__ == "__main__":  # python -m benchmarks.judges LANGUAGE FILE…
    judged = JUDGES[sys.argv[1]]()([Path(name).read_text(encoding="utf-8") for name in sys.argv[2:]])
    for name, verdict in zip(sys.argv[2:], judged, strict=True):
        print(verdict, name)
