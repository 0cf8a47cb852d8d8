"""Guidance scales that change over the sequence. A schedule is a function of the step, built once and stateless.

`schedule(step) -> scale`, where `step` counts generated tokens from 0 (or scales, or codebooks, where the docstring
says so). All scales are 1-neutral. Schedules are pure, so they are right under beams, rollback and speculation: the
step comes from the tokens, not from a counter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

Schedule: TypeAlias = Callable[[int], float]


def constant(scale: float) -> Schedule:
    """The same scale at every step."""
    return lambda step: scale


def interval(scale: float, start: int = 0, stop: int | None = None) -> Schedule:
    """`scale` for start <= step < stop, 1 (off) elsewhere. Guidance interval, Kynkaanniemi et al. 2024,
    arXiv:2404.07724.

    LlamaGen's `cfg_interval = k` guides the prefill token (step 0) and decode steps 1 ... k + 1: `interval(scale, 0,
    k + 2)`; its
    -1 means always: `interval(scale)`.
    """
    return lambda step: scale if step >= start and (stop is None or step < stop) else 1.0


def linear_ramp(final_scale: float, steps: int) -> Schedule:
    """From 1 at step 0 to `final_scale` at step `steps - 1`, linear, constant afterwards.

    With `steps` = number of scales this is VAR's ramp (Tian et al. 2024, arXiv:2404.02905): at scale i the weight is
    cfg * i / (K - 1) in its 0-neutral convention, so `final_scale = 1 + cfg`. One step alone is already the last.
    """
    if steps < 1:
        raise ValueError(f"a ramp needs at least one step, got {steps}")
    last = max(steps - 1, 1)
    return lambda step: 1 + (final_scale - 1) * (min(step / last, 1.0) if steps > 1 else 1.0)


def power_cosine(final_scale: float, steps: int, power: float = 1.0) -> Schedule:
    """`1 + (scale - 1)(1 - cos(pi (t / N)^power)) / 2`: weak early, strong late; 1 at step 0, `final_scale` at step
    N."""
    if steps < 1 or power <= 0:
        raise ValueError("power_cosine needs steps >= 1 and power > 0")
    return lambda step: 1 + (final_scale - 1) * (1 - math.cos(math.pi * min(step / steps, 1.0) ** power)) / 2


def per_position(scales: Sequence[float], after: float = 1.0) -> Schedule:
    """One scale per step; `after` once the list ends."""
    table = tuple(scales)
    return lambda step: table[step] if step < len(table) else after


def per_codebook(scales: Sequence[float]) -> Schedule:
    """Scales that repeat over codebooks when tokens interleave them: step t belongs to codebook t modulo their
    number."""
    table = tuple(scales)
    if not table:
        raise ValueError("per_codebook needs at least one scale")
    return lambda step: table[step % len(table)]


def per_region(strength: Schedule, region_of: Callable[[int], str], region_factor: Mapping[str, float]) -> Schedule:
    """`1 + (strength(t) - 1) * factor(region of t)`: per patch, per codec band, per segment. Unknown regions are
    off."""
    return lambda step: 1 + (strength(step) - 1) * region_factor.get(region_of(step), 0.0)


def length_compensated(weight: float, reference_length: int, exponent: float = 1.0) -> Schedule:
    """A GeDi weight that grows as its length normalisation fades: `weight * ((t + 1) / reference_length) ** exponent`.

    exponent 0 = the paper's constant, 1 undoes the fade entirely. For weights that are 0-neutral.
    """
    if reference_length < 1 or not 0 <= exponent <= 1:
        raise ValueError("length_compensated needs reference_length >= 1 and 0 <= exponent <= 1")
    return lambda step: weight * ((step + 1) / reference_length) ** exponent
