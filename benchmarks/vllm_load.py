"""A load on a server that speaks OpenAI's protocol: `vllm_load.py URL [--schemas 100 --tools 50 --grammars 30]`.

Schemas, tool calls and grammars (SQL, Python, JSON) in one mixture, at 1, 8 and 16 requests at a time; one in twenty is
aborted while it runs, one in ten carries a hostile or malformed constraint, one in ten is a control: greedy, without a
constraint, and equal to what the same prompt gave on the idle server. Every answer is judged by something that shares
no code with guiderail (jsonschema, ast, Lark), also those that ended because `max_tokens` was reached: guiderail
completes these. Prints one line per stage; the exit status is 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import collections
import json
import random
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import jsonschema
import lark
from openai import APIStatusError, AsyncOpenAI

STAGES = (1, 8, 16)  # requests at a time

TOOLS: list[Any] = [
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
GRAMMARS = [
    ("sql", SQL, "Write a SQL query for all users older than 30: "),
    ("python", "python", "A Python function that adds two numbers:\n\n"),
    ("json", "json", "A JSON array of two numbers: "),
]

HOSTILE: list[dict[str, Any]] = [
    {"json": {"type": "objekt"}},
    {"json": {"$ref": "#/nowhere"}},
    {"json": {"type": "integer", "minimum": 5, "maximum": 3}},
    {"json": {"type": "string", "pattern": "(a+)+$(?=b"}},
    {"json": {"$ref": "http://example.org/schema"}},
    {"json": {"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"}},
    {"json": json.dumps({"type": "string", "minLength": 10**9})},
    {"json": '{"a": ' * 5000},
    {"regex": "(((((a{1,1000}){1,1000}){1,1000}){1,1000})"},
    {"regex": "(a{1000}){1000}{1000}b"},
    {"regex": "(a)\\1"},
    {"grammar": "start: missing"},
    {"grammar": 'root ::= root "a"  b'},
    {"grammar": "\n".join(f"r{i} ::= r{i + 1} r{i + 1}" for i in range(40)) + '\nr40 ::= "a"\nroot ::= r0'},
    {"grammar": "no_such_builtin"},
    {"choice": []},
]
CONTROLS = ["The capital of France is", "Water boils at", "Once upon a time there was", "To sort a list in Python,"]


def schema(seed: int) -> dict[str, Any]:
    """A schema of objects, arrays, strings, numbers, choices, a reference or an alternative. Equal seeds, equal
    schemas; no two seeds give the same."""
    chance = random.Random(seed)
    properties: dict[str, Any] = {f"key_{seed}": {"type": "boolean"}}
    for _ in range(chance.randint(1, 4)):
        name = chance.choice(["name", "age", "colour", "tags", "size", "score", "city", "active", "level", "code"])
        properties[name] = chance.choice(
            [
                {"type": "string", "maxLength": chance.randint(5, 15)},
                {"type": "string", "format": "date"},
                {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"},
                {"type": "integer", "minimum": chance.randint(-5, 5), "maximum": chance.randint(6, 120)},
                {"type": "number", "exclusiveMinimum": 0},
                {"enum": ["red", "green", "blue", chance.randint(0, 99)]},
                {"type": "array", "items": {"type": "integer", "maximum": 9, "minimum": 0}, "maxItems": 3},
                {"$ref": "#/$defs/node"},
                {"anyOf": [{"type": "null"}, {"type": "string", "maxLength": 8}]},
            ]
        )
    required = [name for name in properties if chance.random() < 0.8]
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}, "additionalProperties": False}
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
        "$defs": {"node": node},
    }


class Tally:
    """What became of the requests, and what was wrong with them."""

    def __init__(self) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []
        self.seconds: dict[str, list[float]] = collections.defaultdict(list)

    def judge(self, what: str, right: bool, detail: str) -> None:
        self.counts[f"{what} {'right' if right else 'WRONG'}"] += 1
        if not right:
            self.wrong.append(f"{what}: {detail[:400]}")

    def add(self, other: Tally) -> None:
        self.counts.update(other.counts)
        self.wrong += other.wrong
        for what, seconds in other.seconds.items():
            self.seconds[what] += seconds


Answer = TypeVar("Answer")
Ask = Callable[["Load", int, Tally], Awaitable[None]]


class Load:
    """Requests to one server.

    Args: url without /v1; model as the server names it, None: the first that it serves.
    """

    def __init__(self, url: str, model: str | None = None) -> None:
        self.url = url
        self.client = AsyncOpenAI(base_url=f"{url}/v1", api_key="none", timeout=600, max_retries=0)
        if model is None:
            model = json.load(urllib.request.urlopen(f"{url}/v1/models"))["data"][0]["id"]
        self.model: str = model
        self.control_answers: dict[str, str] = {}

    async def chat(self, prompt: str, **options: Any) -> Any:
        messages: Any = [{"role": "user", "content": prompt}]
        answer = await self.client.chat.completions.create(
            model=self.model, messages=messages, temperature=0.8, **options
        )
        return answer.choices[0]

    async def complete(self, prompt: str, **options: Any) -> Any:
        answer = await self.client.completions.create(model=self.model, prompt=prompt, **options)
        return answer.choices[0]

    async def prepare(self) -> None:
        """Ask the controls while nothing else runs."""
        for prompt in CONTROLS:
            self.control_answers[prompt] = (await self.complete(prompt, max_tokens=24, temperature=0)).text

    def run(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """All of some work in an event loop of its own, to which the client belongs: it is closed with it."""

        async def closing() -> Answer:
            async with self.client:
                return await work

        return asyncio.run(closing())

    def healthy(self) -> bool:
        with urllib.request.urlopen(f"{self.url}/health") as answer:
            return bool(answer.status == 200)

    def metrics(self) -> dict[str, float]:
        """guiderail's counters."""
        with urllib.request.urlopen(f"{self.url}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        found = [line.split() for line in lines if line.startswith("guiderail:")]
        return {name.removeprefix("guiderail:"): float(value) for name, value in found}


async def ask_schema(load: Load, seed: int, tally: Tally) -> None:
    wanted = schema(seed)
    form = {"type": "json_schema", "json_schema": {"name": "thing", "schema": wanted}}
    choice = await load.chat(f"Describe thing {seed} as JSON.", response_format=form, max_tokens=120)
    tally.counts[f"schema finished by {choice.finish_reason}"] += 1
    text = choice.message.content or ""
    tally.judge("schema", fits(text, wanted), f"{choice.finish_reason} {text!r} {wanted}")


def fits(text: str, wanted: Any) -> bool:
    try:
        jsonschema.validate(json.loads(text), wanted, format_checker=jsonschema.FormatChecker())
    except (ValueError, jsonschema.ValidationError):
        return False
    return True


async def ask_tool(load: Load, seed: int, tally: Tally) -> None:
    named = {"type": "function", "function": {"name": "add"}}
    how: Any = [named, "required", "auto"][seed % 3]
    choice = await load.chat(
        f"What is {seed} plus 4? And the weather in Rome?", tools=TOOLS, tool_choice=how, max_tokens=160
    )
    tally.counts[f"tool finished by {choice.finish_reason}"] += 1
    calls = choice.message.tool_calls or []
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in TOOLS}
    right = all(call.function.name in schemas for call in calls) and (bool(calls) or how == "auto")
    right = right and all(fits(call.function.arguments, schemas[call.function.name]) for call in calls)
    if isinstance(how, dict):
        right = right and all(call.function.name == "add" for call in calls)
    if how == "auto" and calls:
        tally.counts["tool called by itself"] += 1
    tally.judge("tool", right, f"{how} {choice.finish_reason} {choice.message}")


async def ask_grammar(load: Load, seed: int, tally: Tally) -> None:
    name, grammar, prompt = GRAMMARS[seed % len(GRAMMARS)]
    form = {"structured_outputs": {"grammar": grammar}}
    choice = await load.complete(prompt, max_tokens=80, temperature=0.8, extra_body=form)
    tally.counts[f"{name} finished by {choice.finish_reason}"] += 1
    try:
        if name == "sql":
            lark.Lark(SQL, parser="earley").parse(choice.text)
        elif name == "python":
            ast.parse(choice.text)
        else:
            json.loads(choice.text)
        tally.judge(name, True, "")
    except (ValueError, SyntaxError, lark.exceptions.LarkError) as error:
        tally.judge(name, False, f"{choice.finish_reason} {choice.text!r} {error}")


async def ask_control(load: Load, seed: int, tally: Tally) -> None:
    prompt = CONTROLS[seed % len(CONTROLS)]
    text = (await load.complete(prompt, max_tokens=24, temperature=0)).text
    tally.judge("control", text == load.control_answers[prompt], f"{prompt!r} {text!r}")


async def ask_hostile(load: Load, seed: int, tally: Tally) -> None:
    constraint = HOSTILE[seed % len(HOSTILE)]
    try:
        choice = await load.complete("x", max_tokens=8, extra_body={"structured_outputs": constraint})
        tally.judge("hostile", False, f"{str(constraint)[:200]}: answered {choice}")
    except APIStatusError as error:
        said = error.status_code == 400 and "guiderail" in error.message
        tally.judge("hostile refused", said, f"{str(constraint)[:200]}: {error.status_code} {error.message}")


async def abort(load: Load, seed: int, tally: Tally) -> None:
    task = asyncio.ensure_future(ask_schema(load, seed, Tally()))
    await asyncio.sleep(0.05 + 0.4 * random.Random(seed).random())
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        tally.counts["aborted"] += 1


def jobs(schemas: int, tools: int, grammars: int, seed: int) -> list[tuple[Ask, int]]:
    """So many of each, and for all of them 5 % that are aborted, 10 % hostile ones and 10 % controls, shuffled."""
    total = schemas + tools + grammars
    parts: list[tuple[Ask, int]] = [(ask_schema, schemas), (ask_tool, tools), (ask_grammar, grammars)]
    parts += [(abort, -(-total // 20)), (ask_hostile, -(-total // 10)), (ask_control, -(-total // 10))]
    work = [(kind, seed * 100_000 + number) for kind, count in parts for number in range(count)]
    random.Random(seed).shuffle(work)
    return work


async def stage(load: Load, work: list[tuple[Ask, int]], at_once: int) -> tuple[Tally, float]:
    """Run all, so many at a time. Returns: what became of them, and the seconds it took."""
    tally = Tally()
    places = asyncio.Semaphore(at_once)

    async def run(kind: Ask, seed: int) -> None:
        async with places:
            start = time.perf_counter()
            try:
                await kind(load, seed, tally)
            except Exception as error:
                tally.judge(kind.__name__, False, f"{type(error).__name__}: {error}")
            tally.seconds[kind.__name__].append(time.perf_counter() - start)

    start = time.perf_counter()
    await asyncio.gather(*(run(kind, seed) for kind, seed in work))
    return tally, time.perf_counter() - start


async def mixed(
    load: Load, schemas: int, tools: int, grammars: int, stages: Sequence[int] = STAGES
) -> list[dict[str, Any]]:
    """The whole load: a third of it at 1, at 8 and at 16 at a time, or some of these. Returns one entry per stage."""
    await load.prepare()
    entries = []
    for number, at_once in enumerate(STAGES):
        if at_once not in stages:
            continue
        shares = [count // 3 + (number < count % 3) for count in (schemas, tools, grammars)]
        tally, seconds = await stage(load, jobs(*shares, seed=at_once), at_once)
        entry = {
            "at_once": at_once,
            "seconds": round(seconds, 1),
            "counts": dict(sorted(tally.counts.items())),
            "slowest_s": {what: round(max(times), 2) for what, times in sorted(tally.seconds.items())},
            "wrong": tally.wrong,
        }
        print(json.dumps({key: value for key, value in entry.items() if key != "wrong"}), flush=True)
        for line in tally.wrong:
            print("WRONG", line, flush=True)
        entries.append(entry)
    return entries


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--schemas", type=int, default=100)
    parser.add_argument("--tools", type=int, default=50)
    parser.add_argument("--grammars", type=int, default=30)
    options = parser.parse_args()
    load = Load(options.url)
    entries = load.run(mixed(load, options.schemas, options.tools, options.grammars))
    wrong = sum(len(entry["wrong"]) for entry in entries)
    print(f"RESULT {wrong} wrong, healthy {load.healthy()}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
