"""Mixes the rows of a request and of its hidden companions, in vLLM's sampler.

The scheduler has stamped every member of a group with (group, role) in its `extra_args`: a processor is not told
request ids. In each step, the row of role 0 gets

    g  =  c + sum_i w_i (l_i - c)        over log-probabilities; the grammar's bans in c stay bans

where the streams l_i are rows of companions and scores of guide models (guide_models.py); GeDi's posterior is added,
and after sampling the companions get its token. Rows of a group are combined when they are at the same output
position; where one is not, the scheduler takes the position back, and what is computed here is discarded.

vLLM applies the grammar's mask before processors are called. Masking c shifts its log-probabilities by a constant,
which the affine rule and the renormalisation after it cancel, so mask-then-mix is mix-then-mask. Plausibility is then
taken among legal tokens, as everywhere in guiderail. Penalties come after guidance here, temperature and top-k, top-p
after those.

Most groups need no logits of their companions: they are mixed before the model's head (mixed_head.py), which leaves g
without its constant per row. Left for here is what that constant or the order would change: plausibility, guide models,
GeDi, `repetition_penalty` (which multiplies) and `logit_bias` (which is added to c, and weighted with it).

One class for both runner interfaces of vLLM 0.32: it loads by name under either. Runner V2 tells a processor neither
which rows sample nor how to take one back, so there the sampler asks (runner_v2.py), before bias and penalties.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from vllm.v1.sample.logits_processor.interface import LogitsProcessor, MoveDirectionality
from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsProcessor as LogitsProcessorV2

from guiderail.guidance.runner import Evaluation, Request
from guiderail.integrations.vllm.guidance_request import GuidanceRequest
from guiderail.integrations.vllm.guide_models import GuideModels
from guiderail.integrations.vllm.mixed_head import Head, Mixture
from guiderail.integrations.vllm.settings import STAMP, guide_models
from guiderail.logits.gedi import gedi_class_posterior, gedi_guidance
from guiderail.logits.kernels.dispatch import guided_log_probs
from guiderail.logits.plausibility import plausible_tokens, restrict

__all__ = ["GuidanceLogitsProcessor", "noise_seed"]

_CODES = ("desired", "undesired")


class _Row:
    __slots__ = ("group", "output", "prompt", "request", "role", "seed", "shift_free")

    def __init__(
        self,
        group: int,
        role: int,
        request: GuidanceRequest | None,
        prompt: tuple[int, ...],
        output: Sequence[int],
        seed: int | None,
        shift_free: bool,
    ) -> None:
        self.group = group
        self.prompt = prompt
        self.role = role
        self.request = request
        # Under V1 vLLM's own list: it grows, and shrinks when a position is taken back. V2 keeps tokens on the device:
        # a range of as many.
        self.output = output
        self.seed = seed
        self.shift_free = shift_free  # a constant added to all its scores changes nothing


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
        vllm_config, interface: what either runner gives: V1 the device and whether memory is pinned, V2 the state of
            its requests.
    Raises: ValueError for a guide model that does not fit the served one; RuntimeError where V2's sampler differs from
        what was recorded.
    """

    def __init__(self, vllm_config: Any, *interface: Any) -> None:
        self._rows: dict[int, _Row] = {}
        self._guides: GuideModels | None = None
        self._slots: dict[int, _Row] = {}  # V2: by the request's place in the runner
        if vllm_config.use_v2_model_runner:
            from guiderail.integrations.vllm.runner_v2 import wrap_sampler

            wrap_sampler()
            self._prompt_lengths = interface[0].prompt_len
        elif guide_models(vllm_config):
            self._guides = GuideModels(vllm_config, interface[0])
        # (row of the request, rows of its companions in the order of their roles), for this step
        self._groups: list[tuple[int, list[int]]] = []
        # What this step asks for, less what has been mixed before the head; None until somebody asks.
        self._plans: list[_Plan] | None = None
        self._head = Head(self._before_head)
        self._batch_size = 0

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Raises: ValueError for malformed guidance arguments. The plugin looks at the server's settings as well."""
        GuidanceRequest.from_extra_args(sampling_params.extra_args)

    def is_argmax_invariant(self) -> bool:
        return False

    # --- runner V1 -------------------------------------------------------------------------------------

    def update_state(self, batch_update: Any) -> None:
        """Follow the rows: removed, added, moved, in this order."""
        if batch_update is not None:
            self._follow(batch_update)
        self._plans = None
        self._head.expect(self._batch_size if self._rows else 0)

    def _follow(self, batch_update: Any) -> None:
        rows = self._rows
        self._batch_size = batch_update.batch_size
        before = {row.group for row in rows.values()}
        for index in batch_update.removed:
            rows.pop(index, None)
        for index, params, prompt, output in batch_update.added:
            row = _row_of(params, tuple(prompt or ()), output)
            if row is None:
                rows.pop(index, None)
            else:
                rows[index] = row
        for source, target, direction in batch_update.moved:
            moved, displaced = rows.pop(source, None), rows.pop(target, None)
            if moved is not None:
                rows[target] = moved
            if displaced is not None and direction == MoveDirectionality.SWAP:
                rows[source] = displaced
        if self._guides is not None:
            gone = before - {row.group for row in rows.values()}
            if gone:
                self._guides.forget({(group, key) for group in gone for key in (*self._guides.names, *_CODES)})

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

    @property
    def companion_rows(self) -> set[int]:
        """Rows of companions in this step; what is sampled there is not used."""
        return {index for index, row in self._rows.items() if row.role != 0}

    def _before_head(self) -> tuple[list[int], list[Mixture]]:
        """Rows that need no logits, and the groups that are mixed before the head: see `Head`."""
        plans = self._make_plans()
        mixed = [plan for plan in plans if plan.fits_head]
        self._plans = [plan for plan in plans if not plan.fits_head]
        needed = {companion for plan in self._plans if any(plan.weights) for companion in plan.companions}
        unneeded = sorted(self.companion_rows - needed)
        return unneeded, [(plan.own, plan.companions, plan.weights) for plan in mixed]

    def _make_plans(self) -> list[_Plan]:
        self._groups = self._complete_groups()
        found = (self._plan(own, companions) for own, companions in self._groups)
        self._plans = [plan for plan in found if plan is not None]
        return self._plans

    # --- runner V2 -------------------------------------------------------------------------------------

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """A request gets a place. Returns: False, for nothing is left to do when processors are applied."""
        row = _row_of(sampling_params, (), ())
        if row is None:
            self._slots.pop(req_idx, None)
        else:
            self._slots[req_idx] = row
        return False

    def begin_step(self, slots: Sequence[int], lengths: Sequence[int], samples: Sequence[bool]) -> bool:
        """The rows of this step, in their order. Returns: whether any of them is guided.

        Args:
            slots: place of each row's request; lengths: tokens that its next one follows; samples: whether it gets one
                (False while its prompt is read in chunks).
        """
        self._rows = {}
        for index, (slot, length, sampled) in enumerate(zip(slots, lengths, samples, strict=True)):
            row = self._slots.get(slot)
            if row is not None and sampled:
                written = range(length - int(self._prompt_lengths.np[slot]))
                self._rows[index] = _Row(row.group, row.role, row.request, (), written, None, row.shift_free)
        self._plans = None
        return bool(self._rows)

    @property
    def lonely_rows(self) -> list[int]:
        """Rows whose group is not complete in this step: their position is to be taken back."""
        together = {index for own, companions in self._groups for index in (own, *companions)}
        return [index for index in self._rows if index not in together]

    # --- both runners ----------------------------------------------------------------------------------

    def apply(self, logits: torch.Tensor, ctx: Any = None) -> torch.Tensor:
        """Guide. Args: logits, float32 (rows, vocab), changed in place; ctx, given by runner V2's chain of processors.

        By then V2's sampler has had it done.
        """
        if ctx is not None:
            return logits
        if self._plans is None:
            self._make_plans()
        plans, self._plans = self._plans or [], None
        evaluated = self._evaluate(plans)
        shapes: dict[Any, list[_Plan]] = {}
        for plan in plans:
            shapes.setdefault(plan.shape, []).append(plan)
        for alike in shapes.values():
            self._guide(logits, alike, evaluated)
        return logits

    def _complete_groups(self) -> list[tuple[int, list[int]]]:
        members: dict[int, list[tuple[int, int]]] = {}
        for index, row in self._rows.items():
            members.setdefault(row.group, []).append((row.role, index))
        found = []
        for group in members.values():
            group.sort()
            role, own = group[0]
            request = self._rows[own].request
            if role != 0 or request is None:
                continue
            companions = [index for _, index in group[1:]]
            position = len(self._rows[own].output)
            over = request.stop is not None and position >= request.stop and not companions  # they have ended
            if len(companions) != len(request.prompts) and not over:
                continue
            if all(len(self._rows[index].output) == position for index in companions):
                found.append((own, companions))
        return found

    def _plan(self, own: int, companions: list[int]) -> _Plan | None:
        """What this step asks for a group; None where nothing guides at this position."""
        row = self._rows[own]
        assert row.request is not None
        position = len(row.output)
        weights, omega = row.request.weights_at(position), row.request.omega_at(position)
        if not any(weights) and not omega and not row.request.plausibility:
            return None
        return _Plan(own, companions, row, row.request, weights, omega)

    def _evaluate(self, plans: list[_Plan]) -> dict[tuple[int, Any], Evaluation]:
        """What guide models say: (own row, number of the model or of the class code) -> answer."""
        asked: list[tuple[str, Request]] = []
        keys: list[tuple[int, Any]] = []
        for plan in plans:
            row = plan.row
            models = plan.request.models if any(plan.weights) else ()
            for number, name in enumerate(models):
                tokens = (*row.prompt, *row.output)
                asked.append((name, Request(tokens, len(row.prompt), owner=(row.group, name))))
                keys.append((plan.own, number))
            if not plan.omega:
                continue
            classes = plan.request.classes
            assert classes is not None
            for name, code in (("desired", classes.desired), ("undesired", classes.undesired)):
                assert not isinstance(code, str)  # the scheduler has given us its tokens
                tokens = (*code, *row.prompt, *row.output)
                owner = row.group, name
                asked.append((classes.model, Request(tokens, len(code), with_likelihood=True, owner=owner)))
                keys.append((plan.own, name))
        if not asked:
            return {}
        assert self._guides is not None
        return dict(zip(keys, self._guides.evaluate(asked), strict=True))

    def _guide(self, logits: torch.Tensor, plans: list[_Plan], evaluated: dict[tuple[int, Any], Evaluation]) -> None:
        """Guide groups of the same shape together, in place."""
        first = plans[0]
        owners = [plan.own for plan in plans]
        own = logits[owners]
        streams = [logits[[plan.companions[role] for plan in plans]] for role in range(len(first.companions))]
        if any(first.weights):
            streams += [_column(plans, evaluated, number) for number in range(len(first.request.models))]
        plausibility = first.request.plausibility
        if first.omega:
            guided = _towards_class(_combined(own, streams, plans, None), plans, evaluated)
            if plausibility > 0:
                guided = restrict(guided, plausible_tokens(own, plausibility))
        else:
            guided = _combined(own, streams, plans, plausibility or None)
        logits[owners] = guided


def _row_of(params: Any, prompt: tuple[int, ...], output: Sequence[int]) -> _Row | None:
    """The row of a request with these parameters; None if it is of no group."""
    stamp = (params.extra_args or {}).get(STAMP)
    if stamp is None:
        return None
    group, role = stamp
    request = GuidanceRequest.from_extra_args(params.extra_args) if role == 0 else None
    shift_free = params.repetition_penalty == 1.0 and not params.logit_bias
    return _Row(group, role, request, prompt, output, params.seed, shift_free)


@dataclasses.dataclass(frozen=True, slots=True)
class _Plan:
    """One group in one step: rows of the batch, and the weights at this position (companions, then models)."""

    own: int
    companions: list[int]
    row: _Row
    request: GuidanceRequest
    weights: list[float]
    omega: float

    @property
    def fits_head(self) -> bool:
        """Whether the group may be mixed before the model's head."""
        request = self.request
        alone = not request.models and not self.omega and not request.plausibility
        return alone and bool(self.companions) and self.row.shift_free

    @property
    def shape(self) -> Any:
        """Equal for plans that are computed together."""
        classes = self.request.classes if self.omega else None
        bounds = (classes.filter_mass, classes.filter_threshold) if classes is not None else None
        return len(self.companions), len(self.request.models), any(self.weights), bounds, self.request.plausibility


def _combined(
    own: torch.Tensor, streams: list[torch.Tensor], plans: list[_Plan], plausibility: float | None
) -> torch.Tensor:
    if not streams and plausibility is None:
        return own
    weights = [[1.0 - math.fsum(used), *used] for used in (plan.weights[: len(streams)] for plan in plans)]
    return guided_log_probs([own, *streams], torch.tensor(weights, device=own.device), plausibility=plausibility)


def _column(plans: list[_Plan], evaluated: dict[tuple[int, Any], Evaluation], key: Any) -> torch.Tensor:
    return torch.stack([evaluated[plan.own, key].logits for plan in plans])


def _towards_class(
    scores: torch.Tensor, plans: list[_Plan], evaluated: dict[tuple[int, Any], Evaluation]
) -> torch.Tensor:
    """GeDi: the class posterior added, then its filter. Lengths count every token after the code's first."""
    desired_sum, undesired_sum = (
        torch.tensor([evaluated[plan.own, key].log_likelihood for plan in plans]) for key in _CODES
    )
    classes = plans[0].request.classes
    assert classes is not None
    lengths = [
        float(len(plan.request.classes.desired) + len(plan.row.prompt) + len(plan.row.output))
        for plan in plans
        if plan.request.classes is not None
    ]
    desired, undesired = (_column(plans, evaluated, key) for key in _CODES)
    posterior = gedi_class_posterior(desired, undesired, desired_sum, undesired_sum, torch.tensor(lengths))
    omegas = torch.tensor([plan.omega for plan in plans])
    return gedi_guidance(
        scores, posterior, omegas, filter_mass=classes.filter_mass, filter_threshold=classes.filter_threshold
    )
