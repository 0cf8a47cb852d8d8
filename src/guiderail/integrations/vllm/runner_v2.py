"""Guidance under model runner V2, vLLM's default on a GPU.

V2 keeps tokens and counts of computed positions on the device and moves them on by what its sampler says: so many
tokens sampled, so many rejected. That is how it drops drafts, and how a position is taken back here: a row whose group
is not complete in this step says 0 sampled, 1 rejected. The device then stays where it was, the scheduler is handed no
token and takes the same position back in its own count (scheduler.py). Whether a row samples, and at which position, is
known on the host without waiting for the device: without drafts and asynchronous scheduling vLLM's upper bounds of
lengths are the lengths.

Groups are mixed when the sampler begins: after the grammar's mask, before `logit_bias` (under V1: after it), penalties
and bad words. Noise is keyed by seed and position in V2 itself.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

__all__ = ["wrap_sampler"]

# What is used of V2, as recorded from vLLM 0.32.0: class -> names among its parameters
_BATCH = ("num_reqs", "idx_mapping_np", "num_draft_tokens", "prefill_len_np", "seq_lens_cpu_upper_bound")
_OUTPUT = ("sampled_token_ids", "num_sampled", "num_rejected")

_wrapped = False


def wrap_sampler() -> None:
    """Let V2's sampler guide; once per process. Raises: RuntimeError where it is not as recorded."""
    global _wrapped
    if _wrapped:
        return
    from vllm.v1.worker.gpu.input_batch import InputBatch
    from vllm.v1.worker.gpu.sample.output import SamplerOutput
    from vllm.v1.worker.gpu.sample.sampler import Sampler

    for kind, needed in ((InputBatch, _BATCH), (SamplerOutput, _OUTPUT), (Sampler.__call__, ("logits", "input_batch"))):
        missing = set(needed) - set(inspect.signature(kind).parameters)
        if missing:
            raise RuntimeError(f"guiderail: vLLM's {kind.__qualname__} has no {', '.join(sorted(missing))}")
    call = Sampler.__call__

    @functools.wraps(call)
    def _call(self: Any, logits: Any, input_batch: Any) -> Any:
        return sample_guided(functools.partial(call, self), self.logits_processors, logits, input_batch)

    Sampler.__call__ = _call
    _wrapped = True


def sample_guided(sample: Any, processors: Any, logits: Any, batch: Any) -> Any:
    """What `sample(logits, batch)` gives, with guidance.

    Args: processors, of the sampler; logits, (rows, vocab), masked by grammars; batch, vLLM's InputBatch.
    """
    from guiderail.integrations.vllm.logits_processor import GuidanceLogitsProcessor

    guide = next((processor for processor in processors if isinstance(processor, GuidanceLogitsProcessor)), None)
    if guide is None:
        return sample(logits, batch)
    lengths = batch.seq_lens_cpu_upper_bound.numpy()[: batch.num_reqs]
    samples = lengths >= batch.prefill_len_np
    if not guide.begin_step(batch.idx_mapping_np.tolist(), lengths.tolist(), samples.tolist()):
        return sample(logits, batch)
    assert not batch.num_draft_tokens
    output = sample(guide.apply(logits.float()), batch)
    guide.after_sampling(output.sampled_token_ids)
    lonely = guide.lonely_rows
    if lonely:
        output.num_sampled[lonely] = 0
        output.num_rejected[lonely] = 1
    return output
