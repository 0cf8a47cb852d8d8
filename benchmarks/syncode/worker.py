"""SynCode in its own environment: jobs as JSON lines on stdin, answers as JSON lines on stdout.

Run by file with the interpreter of that environment (environment.py), so nothing of this repository is imported here.

    python -I worker.py TOKENIZER_FOLDER

    {"kind": "build", "grammar": "json", "mode": "grammar_mask"}   times the constrainer: parser and mask store, from
                                                                  $SYNCODE_CACHE if it has them
    {"kind": "walk", "text": …, "most": 400}      a mask before every token of a text, as in generation
    {"kind": "masks", "texts": […]}               the masks after some texts

What is timed of a mask: decoding the ids, the parse and the look-up, as `GrammarConstrainer.mask_scores` calls them.
What it does then to the scores is left out. CPU time of this process, one thread. A mask counts as missing when the
parser raised or the mask is empty: SynCode then leaves every token allowed.
"""

import base64
import json
import os
import resource
import sys
import time

import torch
from transformers import PreTrainedTokenizerFast

protocol = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)
torch.set_num_threads(1)

from syncode.grammar_mask.grammar_constrainer import GrammarConstrainer  # noqa: E402
from syncode.mask_store.byte_tokenizer import ByteTokenizer  # noqa: E402
from syncode.parsers.grammars import Grammar  # noqa: E402


class Worker:
    def __init__(self, folder):
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        self.bytes = ByteTokenizer(self.tokenizer)
        self.constrainer = None

    def build(self, job):
        wall, cpu = time.perf_counter(), time.process_time()
        self.constrainer = GrammarConstrainer(
            Grammar(job["grammar"]),
            self.tokenizer,
            self.bytes,
            use_cache=True,
            parse_output_only=True,
            mode=job["mode"],
        )
        return {
            "cpu_s": time.process_time() - cpu,
            "wall_s": time.perf_counter() - wall,
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }

    def mask(self, ids):
        """bool (vocabulary,), or None where SynCode would leave the scores as they are."""
        constrainer = self.constrainer
        ((text, rest),) = constrainer._get_partial_outputs(ids)
        parsed, skip = constrainer._parse_partial_output(0, text, rest, accepted_generation=True)
        if skip:
            return None
        mask = constrainer.dfa_mask_store.get_accept_mask(parsed)
        return mask if bool(mask.any()) else None

    def encode(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False)

    def start(self):
        # The first id stands for the prompt, which is not parsed.
        self.constrainer.reset()
        self.constrainer.start_from = 1

    def walk(self, job):
        self.start()
        ids = [0, *self.encode(job["text"])[: job["most"]]]
        spent, refused, missing = [], 0, 0
        for end in range(1, len(ids)):
            so_far = torch.tensor([ids[:end]])
            start = time.process_time_ns()
            mask = self.mask(so_far)
            took = (time.process_time_ns() - start) / 1000
            if mask is None:
                missing += 1
                continue
            spent.append(took)
            refused += not bool(mask[ids[end]])
        return {"us": spent, "refused": refused, "missing": missing, "tokens": len(ids) - 1}

    def masks(self, job):
        rows = []
        for text in job["texts"]:
            self.start()
            mask = self.mask(torch.tensor([[0, *self.encode(text)]]))
            rows.append(None if mask is None else base64.b64encode(bytes(mask.to(torch.uint8).tolist())).decode())
        return {"rows": rows}

    def answer(self, job):
        try:
            return {"status": "ok", **{"build": self.build, "walk": self.walk, "masks": self.masks}[job["kind"]](job)}
        except Exception as error:  # the report shows what it raised
            return {"status": "raised", "reason": f"{type(error).__name__}: {error}"[:400]}


worker = Worker(sys.argv[1])
print(json.dumps({"torch": torch.__version__, "vocabulary": len(worker.tokenizer)}), file=protocol)
for line in sys.stdin:
    print(json.dumps(worker.answer(json.loads(line))), file=protocol)
