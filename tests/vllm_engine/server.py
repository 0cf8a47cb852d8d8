"""A real server of its own process on loopback, and requests to it as any client could write them."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vllm_engine.engine import MODEL

START_SECONDS = 300


def small_model(folder: Path, longest: int = 512, heads: int = 1) -> Path:
    """A model of random weights with SmolLM2's tokenizer: what a server survives does not depend on the model."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": heads}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=longest, **shape, **ends)
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class Server:
    """One server; `ask` sends one request and waits for its answer."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(
        self, path: str, body: Any = None, headers: dict[str, str] | None = None, seconds: float = 120
    ) -> tuple[int, Any]:
        """(status, JSON of the answer or its text). A body that is a text is sent as it is; none: GET."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        try:
            given = body if isinstance(body, (str, type(None))) else json.dumps(body)
            sent = {"Content-Type": "application/json", **(headers or {})}
            connection.request("GET" if body is None else "POST", path, given, sent)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text

    def complete(self, headers: dict[str, str] | None = None, **fields: Any) -> tuple[int, Any]:
        return self.ask("/v1/completions", {"model": "small", "prompt": "The", **fields}, headers)

    def chat(self, **fields: Any) -> tuple[int, Any]:
        messages = [{"role": "user", "content": "Hello"}]
        return self.ask("/v1/chat/completions", {"model": "small", "messages": messages, **fields})

    def abort(self, seconds: float, **fields: Any) -> None:
        """Send a request and hang up after so many seconds."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        body = json.dumps({"model": "small", "prompt": "The", **fields})
        connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        time.sleep(seconds)
        assert connection.sock is not None
        connection.sock.shutdown(socket.SHUT_RDWR)
        connection.close()

    def gauge(self, name: str) -> float:
        """The sum of a metric over its labels."""
        _, text = self.ask("/metrics")
        lines = [line for line in text.splitlines() if line.startswith((f"{name}{{", f"{name} "))]
        assert lines, name
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


@contextlib.contextmanager
def serving(model: Path, log: Path, options: Sequence[str] = ()) -> Iterator[Server]:
    """`guiderail serve` until the block ends. Raises: RuntimeError with the end of its log, if it does not start."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "guiderail.cli", "serve", str(model), "--served-model-name", "small"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager"]
    command += ["--gpu-memory-utilization", "0.3", *options]
    # Without binding: vLLM binds each process to a memory node of its own, and machines have one.
    defaults = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
    environment = {**defaults, "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", **os.environ}
    # What tests with an engine of their own set, and where vLLM then kept its metrics: a server counts from 0.
    for name in ("VLLM_ENABLE_V1_MULTIPROCESSING", "PROMETHEUS_MULTIPROC_DIR"):
        environment.pop(name, None)
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            server = Server(port)
            _wait(process, server, log)
            yield server
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _wait(process: subprocess.Popen[bytes], server: Server, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError, http.client.HTTPException):
            if server.ask("/health", seconds=5)[0] == 200:
                return
        time.sleep(1)
    raise RuntimeError(f"no server: {log.read_text()[-20000:]}")
