"""The process that holds one engine: reads jobs as JSON lines on stdin, answers as JSON lines on stdout.

The parent watches the CPU time of a job and kills a worker that goes over the limit (process.py); native code never
returns to Python, so nothing gentler works. Whatever an engine prints goes to stderr, never into the protocol.

Clock: `time.process_time_ns` (CPU time of this process, all threads), one reading on either side of a call. An empty
pair of readings costs about half a microsecond; it is measured, reported as `clock_floor_us` and *not* subtracted.

What is cold. Each instance gets a freshly compiled grammar and is walked once, mask then accept, token by token:
`cold`. Only the vocabulary's own caches exist, filled by a warm-up over other schemas. Nothing of this schema has been
seen by this process, unless the job asks for `again`, the same once more with another fresh compile (an engine that
keeps caches by content across grammars is faster then; both are reported).
What is warm: the same session restarted and walked again. `warm` is one call per token as above, `warm_block` the mean
of eight calls in a row at each token, which the clock's floor hardly touches.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import time
from typing import Any

from . import llama3_vocabulary
from .engines import ENGINES, Engine, Refused, Session

BLOCK = 8
now = time.process_time_ns


def clock_floor_us() -> float:
    readings = []
    for _ in range(2000):
        start = now()
        readings.append(now() - start)
    return sorted(readings)[1000] / 1000


def resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


class Worker:
    def __init__(self, engine_name: str, vocabulary_name: str = "llama3") -> None:
        self.vocabulary = llama3_vocabulary.VOCABULARIES[vocabulary_name]()
        self.vocabulary.encode("warm the reference tokenizer up")
        before = now()
        self.engine: Engine = ENGINES[engine_name](self.vocabulary)
        self.setup_s = (now() - before) / 1e9

    def hello(self) -> dict[str, Any]:
        return {
            "engine": self.engine.name,
            "version": self.engine.version,
            "setup_s": self.setup_s,
            "clock_floor_us": clock_floor_us(),
            "resident_mb": resident_bytes() / 2**20,
        }

    def compile(self, job: dict[str, Any]) -> Any:
        if job.get("grammar") == "builtin-json":
            return self.engine.compile_builtin_json()
        if "lark" in job:
            compile_lark = getattr(self.engine, "compile_lark", None)
            if compile_lark is None:
                raise Refused("no Lark front end in this adapter")
            return compile_lark(job["lark"])
        return self.engine.compile_json_schema(job["schema"])

    # Jobs -----------------------------------------------------------------------------------------------------------

    def verify(self, job: dict[str, Any]) -> dict[str, Any]:
        """Which texts does the engine accept, by masks and by accept_token, which must agree?"""
        compiled = self.compile(job)
        answers = []
        for text in job["texts"]:
            session = self.engine.session(compiled)
            answer: dict[str, Any] = {"accepted": True, "refused_at": None, "mask_disagrees_at": None}
            for position, token_id in enumerate(self.vocabulary.encode(text)):
                session.fill()
                allowed, taken = session.allows(token_id), bool(session.accept(token_id))
                if allowed != taken:
                    answer["mask_disagrees_at"] = position
                if not taken:
                    answer.update(accepted=False, refused_at=position)
                    break
            else:
                answer["accepted"] = bool(session.is_accepting())
            answers.append(answer)
        return {"answers": answers}

    def time(self, job: dict[str, Any]) -> dict[str, Any]:
        """Compile, first mask, cold and warm masks and accepts for each text; all texts are known to be accepted."""
        runs = []
        compiled = None
        for repetition in range(2 if job.get("again") else 1):
            for text in job["texts"] or [None]:
                run: dict[str, Any] = {"repetition": repetition}
                gc.collect()
                gc.disable()
                session = None
                if compiled is None or not self.engine.compiles_eagerly:
                    compiled = None
                    start = now()
                    compiled = self.compile(job)
                    compiled_at = now()
                    session = self.engine.session(compiled)
                    ready_at = now()
                    session.fill()
                    first_at = now()
                    run["compile_us"] = (compiled_at - start) / 1000
                    run["first_mask_us"] = (first_at - start) / 1000
                    first_fill_us = (first_at - ready_at) / 1000
                else:
                    session = self.engine.session(compiled)
                    start = now()
                    session.fill()
                    first_fill_us = (now() - start) / 1000
                if text is not None:
                    token_ids = self.vocabulary.encode(text)
                    run["tokens"] = len(token_ids)
                    run["cold_us"], run["accept_us"], run["first_visit"] = self._walk(session, token_ids, first_fill_us)
                    session.restart()
                    run["warm_us"], run["warm_accept_us"], _ = self._walk(session, token_ids, None)
                    session.restart()
                    run["warm_block_us"] = self._walk_in_blocks(session, token_ids)
                run["counters"] = self.engine.counters(compiled)
                gc.enable()
                runs.append(run)
        return {"runs": runs}

    @staticmethod
    def _walk(
        session: Session, token_ids: list[int], first_fill_us: float | None
    ) -> tuple[list[float], list[float], list[bool]]:
        """Mask and accept at each token, and the mask after the last. `first_fill_us`: that mask was timed already.

        Also says which masks the engine had not kept before, if it tells (all False otherwise).
        """
        fill, accept, rows_known = session.fill, session.accept, session.rows_known
        masks, accepts, first_visit = [], [], []
        known = 0
        for position in range(len(token_ids) + 1):
            if position or first_fill_us is None:
                start = now()
                fill()
                masks.append((now() - start) / 1000)
            else:
                masks.append(first_fill_us)
            if rows_known is not None:
                before, known = known, rows_known()
                first_visit.append(known > before)
            else:
                first_visit.append(False)
            if position == len(token_ids):
                break
            token_id = token_ids[position]
            allowed = session.allows(token_id)
            start = now()
            taken = accept(token_id)
            accepts.append((now() - start) / 1000)
            if not (taken and allowed):
                raise RuntimeError(f"token {token_id} was accepted when verified and is not now")
        return masks, accepts, first_visit

    @staticmethod
    def _walk_in_blocks(session: Session, token_ids: list[int]) -> list[float]:
        fill, accept = session.fill, session.accept
        masks = []
        for token_id in token_ids:
            start = now()
            for _ in range(BLOCK):
                fill()
            masks.append((now() - start) / 1000 / BLOCK)
            accept(token_id)
        return masks

    def memory(self, job: dict[str, Any]) -> dict[str, Any]:
        """Resident bytes per compiled grammar (with its masks met) and per matcher, from many of each kept alive."""
        keep: list[Any] = []
        schemas, texts = job["schemas"], job["texts"]
        gc.collect()
        before = resident_bytes()
        counters: list[dict[str, int]] = []
        for schema, text in zip(schemas, texts, strict=True):
            compiled = self.engine.compile_json_schema(schema)
            session = self.engine.session(compiled)
            for token_id in self.vocabulary.encode(text):
                session.fill()
                session.accept(token_id)
            session = None
            keep.append(compiled)
            counters.append(self.engine.counters(compiled))
        grammars = resident_bytes()
        sessions = [self.engine.session(keep[0]) for _ in range(job["matchers"])]
        matchers = resident_bytes()
        mask_bytes = sum(session.mask.nbytes for session in sessions)
        return {
            "bytes_per_grammar": (grammars - before) / max(1, len(keep)),
            "bytes_per_matcher": max(0, matchers - grammars - mask_bytes) / max(1, len(sessions)),
            "counters": counters,
        }

    def answer(self, job: dict[str, Any]) -> dict[str, Any]:
        handler = {"verify": self.verify, "time": self.time, "memory": self.memory}[job["kind"]]
        try:
            return {"status": "ok", **handler(job)}
        except Refused as refusal:
            return {"status": "refused", "reason": str(refusal)[:400]}
        except Exception as error:  # the worker must outlive whatever an engine raises; the report shows it
            return {"status": "raised", "reason": f"{type(error).__name__}: {error}"[:400]}


def main() -> None:
    protocol = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    worker = Worker(*sys.argv[1:])
    print(json.dumps(worker.hello()), file=protocol)
    for line in sys.stdin:
        job = json.loads(line)
        print(json.dumps(worker.answer(job)), file=protocol)


if __name__ == "__main__":
    main()
