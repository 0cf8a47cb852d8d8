"""Guidance in vLLM: every stream but the request's own is a hidden companion request, kept in step with it.

A guided request becomes a group. For each negative or additional prompt the scheduler makes a companion: an ordinary
request with that prompt, whose output nobody sees. Companions use vLLM's own prefill, chunking, prefix cache and KV
blocks; nothing in the model runner changes. The logits processor mixes the group's rows and gives all of them one
token.

*In step* means: all members are at the same output position. Budgets, chunked prefill, preemption and grammars that
compile may let one member sample while another does not. Then the sampled token is dropped and the position taken back
(`_hold_back`), as vLLM itself does for rejected drafts; the next step computes it again. The grammar has not advanced.
So every token that leaves the engine was mixed from all streams at one position, whatever the load. The cost is the
step that was discarded.

Two things could stop a group for ever, and are prevented:

- members that together never fit into the KV cache: refused when the request arrives (`_room`);
- members of different groups that hold the blocks or places which the others wait for (`_unstick`): the first group in
the
  order of service gets them.

Under model runner V2 the position of a row is taken back on the device as well (runner_v2.py). Both sides decide by the
same counts; where they should ever differ, the request ends as an error.
"""

from __future__ import annotations

import copy
import secrets
import time
from typing import Any

from vllm.logger import init_logger
from vllm.sampling_params import SamplingParams
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request, RequestStatus

from guiderail.integrations.vllm.backend import FAILURE
from guiderail.integrations.vllm.guidance_request import GuidanceRequest, NullMedia
from guiderail.integrations.vllm.metrics import METRICS
from guiderail.integrations.vllm.null_media import null_stream
from guiderail.integrations.vllm.settings import STAMP, server_obstacle

__all__ = ["GuidedScheduler"]

logger = init_logger(__name__)

# Clients choose a part of their requests' ids: this one cannot be guessed.
_SUFFIX = f"#guiderail-{secrets.token_hex(8)}-"
_CODES = ("guidance_desired", "guidance_undesired")
# Steps in a row in which a group sampled in part while a member waits for room, before others make room for it.
_PATIENCE = 2
_WAITING = (RequestStatus.WAITING, RequestStatus.PREEMPTED)


class _Group:
    """A request (`own`) and its companions."""

    __slots__ = ("companions", "held", "launched", "own", "stop")

    def __init__(self, own: Request, companions: list[Request], stop: int | None) -> None:
        self.own = own
        self.companions = companions
        self.stop = stop  # first output position that nothing guides any more
        self.launched = False
        self.held = 0  # steps in a row that were taken back

    @property
    def members(self) -> list[Request]:
        return [self.own, *self.companions]

    @property
    def order(self) -> tuple[int, float]:
        return self.own.priority, self.own.arrival_time

    @property
    def is_split(self) -> bool:
        statuses = [member.status for member in self.members]
        return RequestStatus.RUNNING in statuses and any(status in _WAITING for status in statuses)


class GuidedScheduler(Scheduler):
    """vLLM's scheduler with guidance; `--scheduler-cls guiderail.integrations.vllm.scheduler.GuidedScheduler`.

    Raises: ValueError at start-up for settings under which guidance cannot be right, with the flag to set.
    """

    def __init__(self, vllm_config: Any, *args: Any, **options: Any) -> None:
        obstacle = server_obstacle(vllm_config, in_engine=True)
        if obstacle:
            raise ValueError(f"guiderail: {obstacle}")
        super().__init__(vllm_config, *args, **options)
        self._groups: dict[str, _Group] = {}  # by the id of the request
        self._member_of: dict[str, _Group] = {}  # by the id of any member
        self._made = 0

    # --- requests come and go ----------------------------------------------------------------------------------------

    def add_request(self, request: Request) -> None:
        params = request.sampling_params
        extra_args = params.extra_args if params is not None else None
        if request.request_id in self.requests or not extra_args:
            super().add_request(request)
            return
        try:
            if STAMP in extra_args:
                raise ValueError(f"unknown argument {STAMP!r}")
            guidance = GuidanceRequest.from_extra_args(extra_args)
            group = self._make_group(request, guidance) if guidance is not None else None
        except ValueError as error:
            logger.error("guiderail: request %s: %s", request.request_id, error)
            super().add_request(request)
            self._give_up(request, str(error))
            return
        super().add_request(request)
        if group is not None:
            METRICS.add("guided_requests_total")
            self._groups[request.request_id] = group
            for member in group.members:
                self._member_of[member.request_id] = group
            self._launch(group)

    def _give_up(self, request: Request, reason: str) -> None:
        """End a request as an error at the end of the next step; its client is told why."""
        request.stop_reason = f"{FAILURE}{reason}"
        self.grammar_compile_error_reqs.add(request.request_id)

    def finish_requests(self, request_ids: Any, finished_status: RequestStatus) -> list[Request]:
        if request_ids is None:
            asked = list(self.requests)
        else:
            asked = [request_ids] if isinstance(request_ids, str) else list(request_ids)
        groups = {id(g): g for g in (self._groups.get(request_id) for request_id in asked) if g is not None}
        companions = [member.request_id for group in groups.values() for member in group.companions]
        finished = super().finish_requests([*asked, *companions], finished_status)
        for group in groups.values():
            self._forget(group)
        return [request for request in finished if _SUFFIX not in request.request_id]

    def _make_group(self, request: Request, guidance: GuidanceRequest) -> _Group:
        if request.prompt_token_ids is None:
            raise ValueError("guidance needs a prompt of tokens, not of embeddings")
        if request.resumable:
            raise ValueError("guidance and streaming input exclude each other")
        tokenizer = getattr(self.structured_output_manager, "tokenizer", None)
        vocab_size = self.vllm_config.model_config.get_vocab_size()
        encode = tokenizer.encode if tokenizer else None
        prompts = guidance.prompt_ids(request.prompt_token_ids, encode, vocab_size)
        media: list[list[Any]] = [[] for _ in prompts]
        for role, kind in enumerate(guidance.prompts):
            if isinstance(kind, NullMedia):
                prompts[role], media[role] = null_stream(kind, request.prompt_token_ids, request.mm_features)
        codes = guidance.class_codes(encode, vocab_size)
        lengths = [request.num_prompt_tokens, *map(len, prompts)]
        if len(lengths) > self.max_num_active_reqs:
            raise ValueError(f"the request takes {len(lengths)} places in the batch: raise --max-num-seqs")
        most = min(request.max_tokens, self.max_model_len - 1 - max(lengths), self._room(lengths))
        if most < request.max_tokens:
            if most < 1 or request.structured_output_request is not None:
                raise ValueError(
                    f"{len(lengths)} streams of up to {max(lengths)} prompt tokens leave room for {max(most, 0)} of "
                    f"{request.max_tokens} output tokens: ask for less, or raise --max-model-len or the KV cache"
                )
            request.max_tokens = most  # as vLLM does where the model's length is the limit: the answer ends by length
        self._made += 1
        request.sampling_params = _stamped(request.sampling_params, self._made, 0)
        if codes is not None:  # the worker has no tokenizer
            request.sampling_params.extra_args |= dict(zip(_CODES, codes, strict=True))
        companions = [
            self._make_companion(request, prompt, features, role)
            for role, (prompt, features) in enumerate(zip(prompts, media, strict=True), start=1)
        ]
        return _Group(request, companions, guidance.stop)

    def _make_companion(self, request: Request, prompt: list[int], features: list[Any], role: int) -> Request:
        # The request's temperature: a batch that is all random or all greedy remains so.
        temperature = request.sampling_params.temperature
        params = SamplingParams(
            temperature=temperature, max_tokens=request.max_tokens + 1, ignore_eos=True, detokenize=False
        )
        return Request(
            request_id=f"{request.request_id}{_SUFFIX}{role}",
            prompt_token_ids=prompt,
            mm_features=features,
            sampling_params=_stamped(params, self._made, role),
            pooling_params=None,
            client_index=request.client_index,
            arrival_time=request.arrival_time,
            lora_request=request.lora_request,
            cache_salt=request.cache_salt,
            priority=request.priority,
            block_hasher=request._block_hasher,
        )

    def _room(self, lengths: list[int]) -> int:
        """How many output tokens each of these prompts may get, such that all fit into the KV cache at once."""
        blocks = int(self.cache_config.num_gpu_blocks) - 1  # one is vLLM's own
        low, high = 0, self.max_model_len
        while low < high:
            middle = (low + high + 1) // 2
            needed = sum(-(-(length + middle + 1) // self.block_size) for length in lengths)
            low, high = (middle, high) if needed <= blocks else (low, middle - 1)
        return low

    def _launch(self, group: _Group) -> None:
        """Queue the companions beside the request, once it waits for nothing but room."""
        own = group.own
        if own.status == RequestStatus.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR:
            grammar = own.structured_output_request.grammar
            if grammar is None or isinstance(grammar, Exception):
                return
        group.launched = True
        for companion in group.companions:
            super().add_request(companion)
        insert, index = getattr(self.waiting, "insert", None), getattr(self.waiting, "index", None)
        if insert is not None and index is not None:  # first come, first served; a priority queue orders by itself
            self.waiting.remove_requests(group.companions)
            place = index(own) + 1 if own in self.waiting else 0
            for companion in reversed(group.companions):
                insert(place, companion)

    def _forget(self, group: _Group) -> None:
        self._groups.pop(group.own.request_id, None)
        for member in group.members:
            self._member_of.pop(member.request_id, None)

    # --- steps -------------------------------------------------------------------------------------------------------

    def schedule(self, *args: Any, **options: Any) -> Any:
        if self._groups:
            for group in self._groups.values():
                if not group.launched:
                    self._launch(group)
            self._unstick()
        return super().schedule(*args, **options)

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> Any:
        if not self._groups:
            return super().update_from_output(scheduler_output, model_runner_output)
        self._hold_back(scheduler_output, model_runner_output)
        outputs = super().update_from_output(scheduler_output, model_runner_output)
        self._follow_finished()
        for output in outputs.values():
            if output.outputs:
                output.outputs = [item for item in output.outputs if _SUFFIX not in item.request_id]
            if output.finished_requests:
                output.finished_requests = {i for i in output.finished_requests if _SUFFIX not in i}
        return outputs

    def _hold_back(self, scheduler_output: Any, model_runner_output: Any) -> None:
        """Take the position back wherever only a part of a group has sampled."""
        sampled = model_runner_output.sampled_token_ids
        rows = model_runner_output.req_id_to_index
        touched = {id(g): g for g in map(self._member_of.get, scheduler_output.num_scheduled_tokens) if g is not None}
        for group in touched.values():
            scheduled = [m for m in group.members if m.request_id in scheduler_output.num_scheduled_tokens]
            tokens = {m.request_id: sampled[rows[m.request_id]] if sampled else [] for m in scheduled}
            if self.use_v2_model_runner:  # it has emptied what it took back (runner_v2.py)
                ready = [member for member in scheduled if member.num_computed_tokens >= member.num_tokens]
            else:
                ready = [member for member in scheduled if tokens[member.request_id]]
            if not ready:
                continue
            complete = len(ready) == len(group.members) and group.launched
            found = {tuple(tokens[member.request_id]) for member in ready}
            # One token for all of a complete group; of another, V2 has taken back whatever it sampled.
            right = len(found) == 1 and () not in found if complete else found == {()} or not self.use_v2_model_runner
            if not right:
                logger.error("guiderail: request %s: the sampler took its streams apart", group.own.request_id)
                self._give_up(group.own, "the sampler did not keep the request's streams together")
            if complete:
                group.held = 0
                continue
            group.held += 1
            METRICS.add("guidance_steps_discarded_total")
            for member in ready:
                sampled[rows[member.request_id]] = []
                member.num_computed_tokens -= 1

    def _follow_finished(self) -> None:
        """Companions end with their request, or with the interval in which they guide it.

        The other way round is an error that ends the request: it is alone.
        """
        for group in list(self._groups.values()):
            over = group.stop is not None and group.own.num_output_tokens >= group.stop
            if group.own.is_finished() or (over and group.companions):
                alive = [member.request_id for member in group.companions if member.request_id in self.requests]
                super().finish_requests(alive, RequestStatus.FINISHED_ABORTED)
                for companion in group.companions:
                    self._member_of.pop(companion.request_id, None)
                group.companions = []
            if group.own.is_finished():
                self._forget(group)
            elif any(member.is_finished() for member in group.companions):
                logger.error("guiderail: request %s lost a companion", group.own.request_id)
                self._give_up(group.own, "one of the request's streams ended before it")

    def _unstick(self) -> None:
        """Give the first of the groups that wait for each other what it waits for."""
        split = [group for group in self._groups.values() if group.launched and group.is_split]
        if not any(group.held >= _PATIENCE for group in split):
            return
        first, *others = sorted(split, key=lambda group: group.order)
        now = time.monotonic()
        for group in others:
            for member in group.members:
                if member.status == RequestStatus.RUNNING:
                    self.running.remove(member)
                    self._preempt_request(member, now)
        waiting = [member for member in first.members if member.status in _WAITING]
        self.waiting.remove_requests(waiting)
        for member in reversed(waiting):
            self.waiting.prepend_request(member)


def _stamped(params: SamplingParams, group: int, role: int) -> SamplingParams:
    """A copy for this request alone: requests of one call may share their parameters."""
    stamped = copy.copy(params)
    stamped.extra_args = {**(params.extra_args or {}), STAMP: [group, role]}
    return stamped
