"""Mixes the rows of a request and of its hidden companions, in vLLM's sampler.

The scheduler has stamped every member of a group with (group, role) in its `extra_args`: a processor is not told
request ids. In each step, the row of role 0 gets

    g  =  c + sum_i w_i (l_i - c)        over log-probabilities; the grammar's bans in c stay bans

and after sampling the companions get its token. Rows of a group are combined when they are at the same output
position; where one is not, the scheduler takes the position back, and what is computed here is discarded.

vLLM applies the grammar's mask before processors are called. Masking c shifts its log-probabilities by a constant,
which the affine rule and the renormalisation after it cancel, so mask-then-mix is mix-then-mask. Plausibility is then
taken among legal tokens, as everywhere in guiderail. Penalties come after guidance here, temperature and top-k, top-p
after those.

One class for both runner interfaces of vLLM 0.32: it loads by name under either. Under V2 it declines guided requests,
with the setting that helps (settings.py has the reason), and leaves all others alone.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from vllm.v1.sample.logits_processor.interface import LogitsProcessor, MoveDirectionality
from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsProcessor as LogitsProcessorV2

from guiderail.integrations.vllm.guidance_request import GuidanceRequest
from guiderail.logits.combination import affine_combination
from guiderail.logits.plausibility import plausible_tokens, restrict

__all__ = ["STAMP", "GuidanceLogitsProcessor", "noise_seed"]

STAMP = "_guiderail"
"""Key in `extra_args`: [number of the group, role in it]. Role 0 is the request, the others are its companions."""


class _Row:
    __slots__ = ("group", "output", "request", "role", "seed")

    def __init__(self, group: int, role: int, request: GuidanceRequest | None, output: list[int], seed: int | None):
        self.group = group
        self.role = role
        self.request = request
        self.output = output  # vLLM's own list: it grows, and shrinks when a position is taken back
        self.seed = seed


class _SeededNoise(torch.Generator):
    """A generator whose offset means nothing, because it is seeded anew for each token.

    vLLM moves the offset of generators whose draw it discards, which generators on the CPU do not have.
    """

    def get_offset(self) -> int:
        return 0

    def set_offset(self, offset: int) -> torch.Generator:
        return self


def noise_seed(seed: int, position: int) -> int:
    """Seed of the noise for one output token: a mix of both numbers (splitmix64's finaliser), below 2^63."""
    value = (seed * 0x9E3779B97F4A7C15 + position * 0xD1B54A32D192ED03 + 0x632BE59BD9B4E019) & (2**64 - 1)
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    return (value ^ (value >> 31)) >> 1


class GuidanceLogitsProcessor(LogitsProcessor, LogitsProcessorV2):
    """See the head of this file.

    Args:
        vllm_config, interface: what either runner gives; nothing is kept of it.
    """

    def __init__(self, vllm_config: Any, *interface: Any) -> None:
        self._rows: dict[int, _Row] = {}
        # (row of the request, rows of its companions in the order of their roles), for this step
        self._groups: list[tuple[int, list[int]]] = []

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Raises: ValueError for malformed guidance arguments. The plugin looks at the server's settings as well."""
        GuidanceRequest.from_extra_args(sampling_params.extra_args)

    def is_argmax_invariant(self) -> bool:
        return False

    # --- runner V1 -------------------------------------------------------------------------------------

    def update_state(self, batch_update: Any) -> None:
        """Follow the rows: removed, added, moved, in this order."""
        if batch_update is None:
            return
        rows = self._rows
        for index in batch_update.removed:
            rows.pop(index, None)
        for index, params, _, output in batch_update.added:
            stamp = (params.extra_args or {}).get(STAMP)
            if stamp is None:
                rows.pop(index, None)
                continue
            group, role = stamp
            request = GuidanceRequest.from_extra_args(params.extra_args) if role == 0 else None
            rows[index] = _Row(group, role, request, output, params.seed)
        for source, target, direction in batch_update.moved:
            moved, displaced = rows.pop(source, None), rows.pop(target, None)
            if moved is not None:
                rows[target] = moved
            if displaced is not None and direction == MoveDirectionality.SWAP:
                rows[source] = displaced

    def before_sampling(self, generators: dict[int, torch.Generator]) -> None:
        """Noise of a seeded request depends on its seed and the output position alone, whatever was discarded."""
        for index, row in self._rows.items():
            generator = generators.get(index)
            if generator is None or row.seed is None:
                continue
            if not isinstance(generator, _SeededNoise):
                generator = generators[index] = _SeededNoise(device=generator.device)
            generator.manual_seed(noise_seed(row.seed, len(row.output)))

    def after_sampling(self, sampled: torch.Tensor) -> None:
        """Companions get the token of the request that they guide. Args: sampled, integer (rows,), changed in place."""
        pairs = [(own, companion) for own, companions in self._groups for companion in companions]
        if pairs:
            sources, targets = zip(*pairs, strict=True)
            sampled[list(targets)] = sampled[list(sources)]

    # --- both runners ----------------------------------------------------------------------------------

    def apply(self, logits: torch.Tensor, ctx: Any = None) -> torch.Tensor:
        """Guide. Args: logits, float32 (rows, vocab), changed in place; ctx, given by runner V2 only."""
        if ctx is not None:
            return logits
        self._groups = self._complete_groups()
        for streams, weights, plausibility, owners in self._batches():
            own = logits[owners]
            guided = affine_combination([own, *(logits[rows] for rows in streams)], weights)
            if plausibility > 0:
                guided = restrict(guided, plausible_tokens(own, plausibility))
            logits[owners] = guided
        return logits

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """Runner V2: nothing to do. Guided requests were refused in the front end."""
        return False

    def _complete_groups(self) -> list[tuple[int, list[int]]]:
        members: dict[int, list[tuple[int, int]]] = {}
        for index, row in self._rows.items():
            members.setdefault(row.group, []).append((row.role, index))
        found = []
        for group in members.values():
            group.sort()
            role, own = group[0]
            request = self._rows[own].request
            if role != 0 or request is None or len(group) != len(request.prompts) + 1:
                continue
            companions = [index for _, index in group[1:]]
            position = len(self._rows[own].output)
            if all(len(self._rows[index].output) == position for index in companions):
                found.append((own, companions))
        return found

    def _batches(self) -> list[tuple[list[list[int]], list[torch.Tensor], float, list[int]]]:
        """Groups of the same shape together: companions' rows by role, weights by role, plausibility, own rows."""
        shapes: dict[tuple[int, float], list[tuple[int, list[int], list[float]]]] = {}
        for own, companions in self._groups:
            row = self._rows[own]
            assert row.request is not None
            weights = row.request.weights_at(len(row.output))
            if any(weights) or row.request.plausibility:
                key = (len(companions), row.request.plausibility)
                shapes.setdefault(key, []).append((own, companions, weights))
        batches = []
        for (count, plausibility), entries in shapes.items():
            streams = [[companions[role] for _, companions, _ in entries] for role in range(count)]
            columns = [[1.0 - math.fsum(weights) for _, _, weights in entries]]
            columns += [[weights[role] for _, _, weights in entries] for role in range(count)]
            batches.append((streams, [torch.tensor(c) for c in columns], plausibility, [own for own, _, _ in entries]))
        return batches
