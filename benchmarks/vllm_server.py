"""The real server under load: `build/vllm-env/bin/python benchmarks/vllm_server.py [PART …] [--model DIRECTORY]`.

Starts `guiderail serve` on loopback, asks it through the openai client, and writes benchmarks/results/vllm_server.json
and .md; a part that is not run keeps its last figures. Parts:

    load      vllm_load.py's mixture: everything valid, nothing disturbed, the server alive; --at-once takes some of its
              stages, and the others keep their last figures too
    memory    2,000 different schemas; resident memory of all its processes, every 250. Answered by a model of the same
              vocabulary with random weights, made here: what memory grows by does not depend on the model
    speed     tokens per second at 16 sequences: free, by schema, guided, guided by schema; taking turns, the median of
              the rounds; by the clock, and per processor second of all the server's processes, which other load on the
              machine disturbs less
    half      the same in bfloat16, as the server chooses for models that are published so
    first     time to the first token for a schema never seen, against a free request, taking turns
    backends  speed by schema and `first` for vLLM's own backends xgrammar and guidance, each on a server of its own

Bias: a CPU build and a model of 135M parameters, in which a forward pass of 16 rows takes 100 ms and more: what the
engine thread does besides hardly shows, and a second stream costs as much as the first. On a GPU it is the other way
round. The client runs on the same cores.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import vllm_load
from percentiles import figure, summary, table

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from vllm_engine.server import small_model

RESULTS = Path(__file__).parent / "results"
DEFAULT_MODEL = Path.home() / ".cache" / "guiderail" / "models" / "SmolLM2-135M-Instruct"
PARTS = ("load", "memory", "speed", "half", "first", "backends")
SCHEMAS, EVERY = 2_000, 250
SEQUENCES, TOKENS, ROUNDS = 16, 64, 5
UNSEEN = 24
NEGATIVE = {"guidance_scale": 1.5, "negative_prompt": "Something else entirely:"}
# Any answer to it has more than TOKENS tokens before it may end.
LONG = {"type": "array", "items": {"type": "string", "minLength": 4, "maxLength": 30}, "minItems": 30}


class Server:
    """A server process and its children.

    Args: backend 'guiderail': `guiderail serve`; otherwise vLLM's own server with that structured-output backend.
    """

    def __init__(self, model: Path, port: int, backend: str, log: Path, dtype: str = "float32") -> None:
        self.url = f"http://127.0.0.1:{port}"
        options = ["--served-model-name", "small", "--port", str(port), "--host", "127.0.0.1", "--dtype", dtype]
        options += ["--max-model-len", "512", "--max-num-seqs", "32", "--enforce-eager"]
        options += ["--gpu-memory-utilization", "0.3"]  # of memory, free at the start; the cache has 1 GiB
        if backend == "guiderail":
            command = ["guiderail.cli", "serve", str(model), "--enable-auto-tool-choice"]
            command += ["--tool-call-parser", "hermes"]
        else:
            chosen = json.dumps({"backend": backend})
            command = ["vllm.entrypoints.openai.api_server", "--model", str(model)]
            command += ["--structured-outputs-config", chosen]
        defaults = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
        self._log = log.open("w")
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command, *options],
            env={**defaults, **os.environ},
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def wait(self, seconds: float = 400) -> float:
        """Until it answers. Returns: the seconds that took. Raises: RuntimeError if it ends or takes longer."""
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            if self._process.poll() is not None:
                raise RuntimeError(f"the server ended with {self._process.returncode}; see {self._log.name}")
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                if answer.status == 200:
                    return time.perf_counter() - start
            time.sleep(1)
        raise RuntimeError(f"no answer after {seconds:.0f} s; see {self._log.name}")

    def _processes(self) -> Iterator[Path]:
        """/proc of each of the server's processes."""
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and os.getsid(int(entry.name)) == self._process.pid:
                    yield entry

    def processor_seconds(self) -> float:
        """What all its processes have used so far."""
        ticks = 0
        for entry in self._processes():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def resident(self) -> dict[str, float]:
        """MiB that each process holds for itself and its share of what is shared, by the process's name."""
        found: dict[str, float] = {}
        for entry in self._processes():
            with contextlib.suppress(OSError):
                lines = (entry / "smaps_rollup").read_text().splitlines()
                size = sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
                name = (entry / "comm").read_text().strip()
                found[name] = round(found.get(name, 0.0) + size / 1024, 1)
        return found

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._log.close()


@contextlib.contextmanager
def serving(
    options: argparse.Namespace, backend: str, model: Path | None = None, dtype: str = "float32"
) -> Iterator[Server]:
    log = options.logs / f"server-{backend}.log"
    server = Server(model or options.model, options.port, backend, log, dtype)
    try:
        print(f"{backend}: ready after {server.wait():.0f} s", flush=True)
        yield server
    finally:
        server.stop()


# --- parts ------------------------------------------------------------------------------------------------------------


async def memory(server: Server, load: vllm_load.Load) -> dict[str, Any]:
    """Resident memory while SCHEMAS schemas, no two alike, are answered, a full batch at a time."""
    tally = vllm_load.Tally()

    async def short(load: vllm_load.Load, seed: int, tally: vllm_load.Tally) -> None:
        wanted = vllm_load.schema(seed)
        wanted["required"] = wanted["required"][:1]
        text = (
            await load.complete(
                "{", max_tokens=32, temperature=0.8, extra_body={"structured_outputs": {"json": wanted}}
            )
        ).text
        tally.judge("schema", vllm_load.fits(text, wanted), f"{text!r} {wanted}")

    steps = []
    for first in range(0, SCHEMAS, EVERY):
        found, seconds = await vllm_load.stage(load, [(short, 1000 + first + i) for i in range(EVERY)], 2 * SEQUENCES)
        tally.add(found)
        steps.append({"schemas": first + EVERY, "seconds": round(seconds, 1), "resident_mib": server.resident()})
        print(json.dumps(steps[-1]), flush=True)
    for line in tally.wrong:
        print("WRONG", line, flush=True)
    return {"steps": steps, "counts": dict(tally.counts), "wrong": tally.wrong, "healthy": load.healthy()}


async def tokens_per_second(server: Server, load: vllm_load.Load, **options: Any) -> tuple[float, float]:
    """SEQUENCES requests of TOKENS tokens at once: tokens per second, and per processor second of the server."""
    prompts = [f"{prompt} ({number})" for number in range(4) for prompt in vllm_load.CONTROLS][:SEQUENCES]
    start, used = time.perf_counter(), server.processor_seconds()
    answers = await asyncio.gather(
        *(
            load.client.completions.create(
                model=load.model, prompt=prompt, max_tokens=TOKENS, temperature=0.8, **options
            )
            for prompt in prompts
        )
    )
    seconds, used = time.perf_counter() - start, server.processor_seconds() - used
    tokens = sum(answer.usage.completion_tokens for answer in answers if answer.usage)
    return tokens / seconds, tokens / used


async def speed(server: Server, load: vllm_load.Load, kinds: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Tokens per second of each kind of request in ROUNDS rounds, after one that is not counted."""
    rounds: list[dict[str, tuple[float, float]]] = []
    for number in range(ROUNDS + 1):
        rates = {kind: await tokens_per_second(server, load, extra_body=body) for kind, body in kinds.items()}
        print({kind: [round(rate, 1) for rate in pair] for kind, pair in rates.items()}, flush=True)
        if number:
            rounds.append(rates)

    def of(kind: str, clock: int) -> list[float]:
        return [round(rates[kind][clock] / rates["free"][clock], 3) for rates in rounds]

    return {
        kind: {
            "rounds": [round(rates[kind][0], 1) for rates in rounds],
            "median": statistics.median(round(rates[kind][0], 1) for rates in rounds),
            "of_free": of(kind, 0),
            "per_processor_second": [round(rates[kind][1], 1) for rates in rounds],
            "of_free_per_processor_second": of(kind, 1),
        }
        for kind in kinds
    }


def kinds_of_request(guided: bool) -> dict[str, dict[str, Any]]:
    free: dict[str, Any] = {"ignore_eos": True}
    form = {"structured_outputs": {"json": LONG}}
    kinds = {"free": free, "schema": form}
    if guided:
        kinds["guided"] = {**free, "vllm_xargs": NEGATIVE}
        kinds["guided by schema"] = {**form, "vllm_xargs": NEGATIVE}
    return kinds


async def first(load: vllm_load.Load, seed: int) -> dict[str, Any]:
    """Milliseconds to the first token: a schema never seen, and a request without one, in turn."""

    async def ask(**options: Any) -> float:
        start = time.perf_counter()
        stream = await load.client.completions.create(
            model=load.model, prompt="One thing: ", max_tokens=48, stream=True, **options
        )
        seconds = 0.0
        async for part in stream:
            if not seconds and part.choices and part.choices[0].text:
                seconds = time.perf_counter() - start
        return seconds * 1e3

    free, unseen = [], []
    for number in range(UNSEEN):
        free.append(await ask())
        unseen.append(await ask(extra_body={"structured_outputs": {"json": vllm_load.schema(seed + number)}}))
    entry = {"free_ms": summary(free), "unseen_ms": summary(unseen)}
    print(json.dumps(entry), flush=True)
    return entry


# --- the report -------------------------------------------------------------------------------------------------------


def report(found: dict[str, Any]) -> str:
    """The Markdown of all parts that there are figures of."""
    lines = ["# The real server: vLLM's CPU build, SmolLM2-135M, openai client", ""]
    for part in PARTS:
        if part in found:
            lines += [f"Of {found[part]['machine']}.", "", *_SECTIONS[part](found[part]), ""]
    return "\n".join(lines)


def _load_section(entry: dict[str, Any]) -> list[str]:
    rows = []
    for stage in entry["stages"]:
        counts = ", ".join(f"{what} {count}" for what, count in stage["counts"].items())
        slowest = max(stage["slowest_s"].values())
        when = stage.get("machine", entry["machine"]).partition(";")[0]
        rows.append(
            [str(stage["at_once"]), when, str(stage["seconds"]), counts, str(len(stage["wrong"])), str(slowest)]
        )
    return [
        "## Load",
        "",
        table(["at a time", "when", "seconds", "answers", "wrong", "slowest request, s"], rows),
        "",
        f"Alive afterwards: {'yes' if entry['healthy'] else 'NO'}. Counters: "
        + ", ".join(f"{name} {value:g}" for name, value in entry["counters"].items())
        + " (of the last run).",
    ]


def _memory_section(entry: dict[str, Any]) -> list[str]:
    names = sorted({name for step in entry["steps"] for name in step["resident_mib"]})
    rows = [
        [f"{step['schemas']:,}", *(f"{step['resident_mib'].get(name, 0):,.0f}" for name in names)]
        for step in entry["steps"]
    ]
    counts = ", ".join(f"{what} {count}" for what, count in entry["counts"].items())
    return ["## Memory over different schemas", "", table(["schemas", *(f"{n}, MiB" for n in names)], rows), "", counts]


def _speed_rows(entry: dict[str, Any], backend: str) -> list[list[str]]:
    def ratios(values: list[float] | None) -> str:
        if values is None:  # measured before there was this clock
            return "-"
        return f"{statistics.median(values):.2f} ({' '.join(f'{value:.2f}' for value in values)})"

    return [
        [
            backend,
            kind,
            figure(rate["median"]),
            ratios(rate["of_free"]),
            ratios(rate.get("of_free_per_processor_second")),
        ]
        for kind, rate in entry.items()
    ]


def _first_row(entry: dict[str, Any], backend: str) -> list[str]:
    free, unseen = entry["free_ms"], entry["unseen_ms"]
    return [backend, *(figure(stats[key]) for stats in (free, unseen) for key in ("p50", "p90", "max"))]


_SPEED_HEADER = [
    "backend",
    "requests",
    "tokens/s, median",
    "of free: median (rounds)",
    "of free per processor second: median (rounds)",
]
_FIRST_HEADER = ["backend", "free p50", "p90", "max", "schema never seen p50", "p90", "max"]


def _speed_section(entry: dict[str, Any], dtype: str = "float32") -> list[str]:
    head = f"## Tokens per second, {SEQUENCES} sequences of {TOKENS} tokens, {dtype}"
    return [head, "", table(_SPEED_HEADER, _speed_rows(entry["kinds"], "guiderail"))]


def _first_section(entry: dict[str, Any]) -> list[str]:
    head = f"## Milliseconds to the first token, one request at a time, {UNSEEN} schemas"
    return [head, "", table(_FIRST_HEADER, [_first_row(entry["times"], "guiderail")])]


def _backends_section(entry: dict[str, Any]) -> list[str]:
    speeds = [row for name, found in entry["backends"].items() for row in _speed_rows(found["speed"], name)]
    firsts = [_first_row(found["first"], name) for name, found in entry["backends"].items()]
    return ["## The same with vLLM's own backends", "", table(_SPEED_HEADER, speeds), "", table(_FIRST_HEADER, firsts)]


_SECTIONS = {
    "load": _load_section,
    "memory": _memory_section,
    "speed": _speed_section,
    "half": functools.partial(_speed_section, dtype="bfloat16"),
    "first": _first_section,
    "backends": _backends_section,
}


def machine() -> str:
    import vllm

    moment = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return (
        f"{moment}; {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before; "
        f"vLLM {vllm.__version__}, Python {platform.python_version()}"
    )


def measure(part: str, server: Server, load: vllm_load.Load, options: argparse.Namespace) -> dict[str, Any]:
    """One part on a running server."""
    if part in ("speed", "half"):
        return {"kinds": load.run(speed(server, load, kinds_of_request(guided=True)))}
    if part == "first":
        return {"times": load.run(first(load, random.randrange(10**8, 10**9)))}
    if part == "memory":
        return load.run(memory(server, load))
    stages = load.run(vllm_load.mixed(load, options.schemas, options.tools, options.grammars, options.at_once))
    for stage in stages:
        stage["machine"] = machine()
    kept = {stage["at_once"]: stage for stage in [*options.stages_before, *stages]}
    return {
        "stages": [kept[at_once] for at_once in vllm_load.STAGES if at_once in kept],
        "healthy": load.healthy(),
        "counters": load.metrics(),
    }


def run(parts: list[str], options: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """The parts one after another, each as soon as it is done."""
    own = [part for part in PARTS if part in parts and part not in ("backends", "half", "memory")]
    if "memory" in parts:
        about = machine()
        with serving(options, "guiderail", small_model(options.logs / "small-model")) as server:
            yield (
                "memory",
                {"machine": about, **measure("memory", server, vllm_load.Load(server.url, "small"), options)},
            )
    if own:
        with serving(options, "guiderail") as server:
            for part in own:
                about = machine()
                # A client belongs to one event loop, so each part has its own.
                yield part, {"machine": about, **measure(part, server, vllm_load.Load(server.url, "small"), options)}
    if "half" in parts:
        about = machine()
        with serving(options, "guiderail", dtype="bfloat16") as server:
            yield "half", {"machine": about, **measure("half", server, vllm_load.Load(server.url, "small"), options)}
    if "backends" in parts:
        entry: dict[str, Any] = {"machine": machine(), "backends": {}}
        for backend in ("guiderail", "xgrammar", "guidance"):
            with serving(options, backend) as server:
                load = vllm_load.Load(server.url, "small")
                rates = load.run(speed(server, load, kinds_of_request(guided=False)))
                load = vllm_load.Load(server.url, "small")
                times = load.run(first(load, random.randrange(10**8, 10**9)))
                entry["backends"][backend] = {"speed": rates, "first": times}
        yield "backends", entry


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; none: all")
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL)
    parser.add_argument("--port", type=int, default=8011)
    parser.add_argument("--logs", type=Path, default=Path("build"), help="where servers write their logs")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--schemas", type=int, default=100)
    parser.add_argument("--tools", type=int, default=50)
    parser.add_argument("--grammars", type=int, default=30)
    parser.add_argument("--at-once", type=int, nargs="+", choices=vllm_load.STAGES, default=vllm_load.STAGES)
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"no part {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server is stopped as well
    options.logs.mkdir(parents=True, exist_ok=True)
    path = options.out / "vllm_server.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    options.stages_before = found.get("load", {}).get("stages", [])
    for part, entry in run(options.parts or list(PARTS), options):
        found[part] = entry
        path.write_text(json.dumps(found, indent=1) + "\n")
        path.with_suffix(".md").write_text(report(found))
    wrong = sum(len(stage["wrong"]) for stage in found.get("load", {}).get("stages", ()))
    wrong += len(found.get("memory", {}).get("wrong", ()))
    print(f"RESULT {wrong} wrong; {path}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
