"""A load on the real server over loopback, through the openai client: `server_load.py URL [REQUESTS]`.

Schema requests, tool calls and grammar requests (SQL, Python, JSON), mixed, at 1, 8 and 16 at a time; one in twenty is
aborted while it runs, one in ten carries a hostile or malformed constraint. Every answer that finished is judged by
something that shares no code with guiderail (jsonschema, ast, Lark). Prints one line per stage and a RESULT; the exit
status is 1 if anything was wrong.
"""

from __future__ import annotations

import ast
import asyncio
import collections
import json
import random
import re
import sys
import time
from typing import Any

import jsonschema
import lark
from openai import APIStatusError, AsyncOpenAI

MODEL = "smollm2"

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Current weather in a city",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "maxLength": 20},
                    "unit": {"enum": ["celsius", "fahrenheit"]},
                },
                "required": ["city", "unit"],
                "additionalProperties": False,
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Add two numbers",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
                "required": ["a", "b"],
                "additionalProperties": False,
            },
        },
    },
]

SQL = r"""
start: "SELECT " columns " FROM " NAME [" WHERE " condition] ";"
columns: "*" | NAME ("," " " NAME)~0..3
condition: NAME (" = " | " < " | " > ") value
value: NUMBER | "'" WORD "'"
NAME: /[a-z_]{1,12}/
NUMBER: /[0-9]{1,5}/
WORD: /[A-Za-z]{1,12}/
"""
PYTHON = r"""
start: statement~1..2
statement: NAME " = " expression "\n"
expression: atom (OPERATOR atom)~0..3
OPERATOR: / [+*-] /
atom: NAME | NUMBER | "(" expression ")" | "len(" NAME ")"
NAME: /[xyz][a-z]{0,3}/
NUMBER: /0|[1-9][0-9]{0,3}/
"""

HOSTILE: list[dict[str, Any]] = [
    {"json": {"type": "objekt"}},
    {"json": {"$ref": "#/nowhere"}},
    {"json": {"type": "integer", "minimum": 5, "maximum": 3}},
    {"json": {"type": "string", "pattern": "(a+)+$(?=b"}},
    {"json": {"$ref": "http://example.org/schema"}},
    {"regex": "(((((a{1,1000}){1,1000}){1,1000}){1,1000})"},
    {"regex": "(a)\\1"},
    {"grammar": "start: missing"},
    {"grammar": 'root ::= root "a"  b'},
    {"grammar": "no_such_builtin"},
    {"choice": []},
]


def schema(seed: int) -> dict[str, Any]:
    """A small schema: objects of bounded strings, integers, enumerations and arrays. Equal seeds, equal schemas."""
    chance = random.Random(seed)
    properties: dict[str, Any] = {}
    for _ in range(chance.randint(1, 4)):
        name = chance.choice(["name", "age", "colour", "tags", "size", "score", "city", "active", "level", "code"])
        name += chance.choice(["", "_2"])
        properties[name] = chance.choice(
            [
                {"type": "string", "maxLength": chance.randint(5, 15)},
                {"type": "integer", "minimum": chance.randint(-5, 5), "maximum": chance.randint(6, 120)},
                {"enum": ["red", "green", "blue", chance.randint(0, 99)]},
                {"type": "boolean"},
                {"type": "array", "items": {"type": "integer", "maximum": 9, "minimum": 0}, "maxItems": 3},
                {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"},
            ]
        )
    required = [name for name in properties if chance.random() < 0.8]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


class Tally:
    def __init__(self) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []

    def judge(self, what: str, right: bool, text: str) -> None:
        self.counts[f"{what} {'valid' if right else 'INVALID'}"] += 1
        if not right:
            self.wrong.append(f"{what}: {text!r}")


async def ask_schema(client: AsyncOpenAI, seed: int, tally: Tally) -> None:
    wanted = schema(seed)
    answer = await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": f"Describe thing number {seed} as JSON."}],
        response_format={"type": "json_schema", "json_schema": {"name": "thing", "schema": wanted}},
        max_tokens=160,
        temperature=0.8,
        seed=None,
    )
    choice = answer.choices[0]
    if choice.finish_reason != "stop":
        tally.counts[f"schema {choice.finish_reason}"] += 1
        return
    try:
        jsonschema.validate(json.loads(choice.message.content or ""), wanted)
        tally.judge("schema", True, "")
    except (ValueError, jsonschema.ValidationError):
        tally.judge("schema", False, choice.message.content or "")


async def ask_tool(client: AsyncOpenAI, seed: int, tally: Tally) -> None:
    named: Any = {"type": "function", "function": {"name": "add"}} if seed % 2 else "required"
    answer = await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": f"What is {seed} plus 4? And the weather in Rome?"}],
        tools=TOOLS,  # type: ignore[arg-type]
        tool_choice=named,
        max_tokens=160,
        temperature=0.8,
    )
    choice = answer.choices[0]
    if choice.finish_reason == "length":
        tally.counts["tool length"] += 1
        return
    calls = choice.message.tool_calls or []
    right = bool(calls)
    for call in calls:
        parameters = {t["function"]["name"]: t["function"]["parameters"] for t in TOOLS}.get(call.function.name)
        try:
            jsonschema.validate(json.loads(call.function.arguments), parameters)
        except (ValueError, TypeError, jsonschema.ValidationError):
            right = False
    tally.judge("tool", right, str(choice.message))


async def ask_grammar(client: AsyncOpenAI, seed: int, tally: Tally) -> None:
    name, grammar, prompt = [
        ("sql", SQL, "Write a SQL query for all users older than 30: "),
        ("python", PYTHON, "Assign the sum of two numbers to x: "),
        ("builtin json", "json", "A JSON array of two numbers: "),
    ][seed % 3]
    answer = await client.completions.create(
        model=MODEL,
        prompt=prompt,
        max_tokens=100,
        temperature=0.8,
        extra_body={"structured_outputs": {"grammar": grammar}},
    )
    choice = answer.choices[0]
    if choice.finish_reason != "stop":
        tally.counts[f"{name} {choice.finish_reason}"] += 1
        return
    try:
        if name == "sql":
            lark.Lark(SQL, parser="earley").parse(choice.text)
        elif name == "python":
            ast.parse(choice.text)
        else:
            json.loads(choice.text)
        tally.judge(name, True, "")
    except (ValueError, SyntaxError, lark.exceptions.LarkError):
        tally.judge(name, False, choice.text)


async def ask_hostile(client: AsyncOpenAI, seed: int, tally: Tally) -> None:
    constraint = HOSTILE[seed % len(HOSTILE)]
    try:
        answer = await client.completions.create(
            model=MODEL, prompt="x", max_tokens=8, extra_body={"structured_outputs": constraint}
        )
        tally.judge("hostile", answer.choices[0].finish_reason == "error", f"{constraint}: answered")
    except APIStatusError as error:
        tally.judge("hostile refused", error.status_code == 400, f"{constraint}: {error.status_code} {error.message}")


async def abort(client: AsyncOpenAI, seed: int, tally: Tally) -> None:
    task = asyncio.create_task(ask_schema(client, seed, Tally()))
    await asyncio.sleep(0.05 + 0.4 * random.Random(seed).random())
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        tally.counts["aborted"] += 1


def jobs(count: int, seed: int) -> list[Any]:
    """Kinds in the proportion 100 schemas : 50 tool calls : 30 grammars, every 20th aborted, every 10th hostile."""
    mixture = [ask_schema] * 10 + [ask_tool] * 5 + [ask_grammar] * 3
    chance = random.Random(seed)
    kinds = [mixture[i % len(mixture)] for i in range(count)]
    kinds += [abort] * (count // 20) + [ask_hostile] * (count // 10)
    chance.shuffle(kinds)
    return [(kind, seed * 10_000 + i) for i, kind in enumerate(kinds)]


async def stage(client: AsyncOpenAI, work: list[Any], at_once: int, tally: Tally) -> float:
    start = time.perf_counter()
    places = asyncio.Semaphore(at_once)

    async def run(kind: Any, seed: int) -> None:
        async with places:
            try:
                await kind(client, seed, tally)
            except Exception as error:
                tally.judge(kind.__name__, False, f"{type(error).__name__}: {error}")

    await asyncio.gather(*(run(kind, seed) for kind, seed in work))
    return time.perf_counter() - start


async def main(url: str, count: int) -> int:
    client = AsyncOpenAI(base_url=f"{url}/v1", api_key="none", timeout=600, max_retries=0)
    total = Tally()
    shares = {1: count // 9, 8: count * 3 // 9, 16: count - count // 9 - count * 3 // 9}
    for at_once, share in shares.items():
        tally = Tally()
        seconds = await stage(client, jobs(share, at_once), at_once, tally)
        print(f"{at_once} at a time: {seconds:.1f} s, {dict(sorted(tally.counts.items()))}", flush=True)
        total.counts.update(tally.counts)
        total.wrong += tally.wrong
    import urllib.request

    health = urllib.request.urlopen(f"{url}/health").status
    metrics = urllib.request.urlopen(f"{url}/metrics").read().decode()
    for line in re.findall(r"^guiderail.*$", metrics, re.MULTILINE):
        print("  ", line)
    for line in total.wrong:
        print("WRONG", line)
    print(
        f"RESULT {sum(total.counts.values())} requests, {len(total.wrong)} wrong, health {health}: {dict(total.counts)}"
    )
    return 1 if total.wrong or health != 200 else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 180)))
