"""Guidance as one kernel: log-softmax of every stream, combination, plausibility, mask, temperature, log-softmax again.

`guided_log_probs` picks the implementation: native vector code on the CPU, Triton on a GPU;
`reference.guided_log_probs` is the same in plain torch and defines the result.
"""

from __future__ import annotations

from guiderail.logits.kernels.dispatch import guided_log_probs

__all__ = ["guided_log_probs"]
