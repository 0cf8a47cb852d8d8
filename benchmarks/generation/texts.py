"""What the tiny model reads: functions of the standard library, and random Go, JSON and SQL texts made here."""

from __future__ import annotations

import ast
import random
import sysconfig
from collections.abc import Callable
from pathlib import Path

from benchmarks.reproductions.syncode import document

MODULES = ("textwrap", "shlex", "glob", "csv", "queue", "string", "bisect", "heapq", "copy", "cmd", "fractions",
           "statistics", "random", "calendar", "difflib", "functools", "contextlib", "dataclasses")  # fmt: skip
NAMES = ["a", "b", "n", "i", "count", "value", "items", "name", "total", "price", "city", "x1"]


def python_texts() -> list[str]:
    """Functions of the standard library as they stand there, the short ones."""
    folder, found = Path(sysconfig.get_paths()["stdlib"]), []
    for name in MODULES:
        source = (folder / f"{name}.py").read_text(encoding="utf-8")
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef):
                text = ast.get_source_segment(source, node)
                if text is not None and len(text) < 900:
                    found.append(text + "\n")
    return found


def go_expression(rng: random.Random, depth: int = 0) -> str:
    if depth > 2 or rng.random() < 0.4:
        return rng.choice([*NAMES, "0", "1", "42", '"text"', "nil", "true", "3.5", "'c'"])
    inner = [go_expression(rng, depth + 1) for _ in range(2)]
    return rng.choice([
        f"{inner[0]} {rng.choice(['+', '-', '*', '==', '<', '&&', '%'])} {inner[1]}", f"len({inner[0]})",
        f"{rng.choice(NAMES)}({inner[0]}, {inner[1]})", f"{rng.choice(NAMES)}[{inner[0]}]", f"({inner[0]})",
        f"[]int{{{inner[0]}, {inner[1]}}}", f"{rng.choice(NAMES)}.{rng.choice(NAMES)}",
    ])  # fmt: skip


def go_statement(rng: random.Random, indent: str) -> str:
    name, value = rng.choice(NAMES), go_expression(rng)
    kind = rng.randrange(8 if len(indent) < 3 else 4)
    if kind < 2:
        return f"{indent}{name} {rng.choice([':=', '=', '+='])} {value}\n"
    if kind == 2:
        return f"{indent}return {value}\n"
    if kind == 3:
        return f"{indent}{name}({value}) // {rng.choice(NAMES)}\n"
    body = "".join(go_statement(rng, indent + "\t") for _ in range(rng.randint(1, 2)))
    head = [f"if {name} < {len(indent)}", f"for {name} := range items", f"for i := 0; i < {name}; i++"]
    if kind == 7:
        return f"{indent}switch {name} {{\n{indent}case {go_expression(rng, 2)}:\n{body}{indent}}}\n"
    return f"{indent}{head[kind - 4]} {{\n{body}{indent}}}\n"


def go_text(rng: random.Random) -> str:
    body = "".join(go_statement(rng, "\t") for _ in range(rng.randint(1, 4)))
    result = rng.choice(["", " int", " string", " (int, error)"])
    return f"package tasks\n\nfunc {rng.choice(NAMES).title()}({rng.choice(NAMES)} int){result} {{\n{body}}}\n"


def sql_condition(rng: random.Random) -> str:
    left, right = rng.choice(NAMES), rng.choice(["1", "'Berlin'", "b.id", "2.5", "NULL"])
    return rng.choice([f"{left} = {right}", f"{left} > {right}", f"{left} IS NOT NULL", f"{left} LIKE '%tea%'",
                       f"{left} IN (1, 2, 3)", f"{left} BETWEEN 1 AND 9", f"NOT {left} = {right}"])  # fmt: skip


def sql_text(rng: random.Random) -> str:
    tables = ["customers", "orders", "products", "items"]
    columns = ", ".join(
        rng.choice([rng.choice(NAMES), f"count({rng.choice(NAMES)})", f"sum(b.{rng.choice(NAMES)}) AS total", "a.*"])
        for _ in range(rng.randint(1, 3))
    )
    text = f"SELECT {rng.choice(['', '', 'DISTINCT '])}{columns} FROM {rng.choice(tables)} AS a"
    if rng.random() < 0.4:
        text += f" {rng.choice(['', 'LEFT ', 'INNER '])}JOIN {rng.choice(tables)} AS b ON a.id = b.{rng.choice(NAMES)}"
    if rng.random() < 0.6:
        text += f" WHERE {sql_condition(rng)}"
        if rng.random() < 0.4:
            text += f" {rng.choice(['AND', 'OR'])} {sql_condition(rng)}"
    if rng.random() < 0.3:
        text += f" GROUP BY {rng.choice(NAMES)} HAVING count(*) > {rng.randint(1, 9)}"
    if rng.random() < 0.4:
        text += f" ORDER BY {rng.choice(NAMES)} {rng.choice(['', 'DESC'])}".rstrip()
    if rng.random() < 0.3:
        text += f" LIMIT {rng.randint(1, 50)}"
    return text + rng.choice(["", ";"])


def texts(language: str, count: int, seed: int) -> list[str]:
    rng = random.Random(f"{seed} {language}")
    if language == "python":
        return python_texts()
    make: Callable[[random.Random], str] = {"go": go_text, "json": document, "sql": sql_text}[language]
    return [make(rng) for _ in range(count)]
