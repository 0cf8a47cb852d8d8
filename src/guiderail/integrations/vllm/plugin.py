"""`register`: makes guiderail known to the vLLM that is running in this process.

vLLM 0.32 has no registry for structured-output backends, so a few of its functions are wrapped. Each wrapper acts
where this package is concerned (the backend `guiderail` is configured, a request has guidance) and calls vLLM's
function otherwise:

    StructuredOutputsConfig.backend               accepts 'guiderail'
    SamplingParams._validate_structured_outputs   front end: the grammar is read, so that its error is the HTTP answer
    AsyncLLM.add_request                          front end: the same, in a thread first, so that the event loop goes on
    AsyncLLM.generate                             front end: what guiderail gives up is answered with its reason
    CompletionRequest.to_beam_search_params, the same of ChatCompletionRequest, BeamSearchOnlineMixin.beam_search
                                                  front end: beam search, which drops both, is refused with them
    InputProcessor._validate_params               front end: guidance arguments are checked, with the server's settings
    StructuredOutputManager.grammar_init, _create_grammar, grammar_bitmask     EngineCore: compile and fill
    StructuredOutputManager.accept_tokens         EngineCore: texts that their limit has changed are counted, and the
                                                  reason of a request that is given up is handed on
    Scheduler.update_from_output                  EngineCore: the reason of a request that never began is handed on
    LogitsProcessor.forward                       worker: streams of a group are mixed before the model's head
    Sampler.sample                                worker: companions get the token of the request that they guide
    get_prometheus_registry                       metrics are at the endpoint of several API servers as well
    Sampler.__call__ of model runner V2           worker: the same, and mixing; where that runner is used (runner_v2.py)

Registering never stops vLLM from starting: on any other version, or where an interface differs from what was recorded
(contract.py), a warning says so and nothing is changed. The backend's name is then unknown to vLLM, which refuses it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, get_args

from guiderail.errors import GuiderailError

__all__ = ["register"]

SUPPORTED = ("0.32", "0.33")
NAME = "guiderail"

_registered = False


def register() -> bool:
    """Register, once per process. Returns: whether guiderail is registered; if not, a warning has said why."""
    global _registered
    if _registered:
        return True
    try:
        _check_version()
        _patch()
    except Exception as error:  # vLLM must start, whatever has changed in it
        logging.getLogger("vllm.guiderail").warning(
            "guiderail is not registered: %s. Structured outputs and guidance by guiderail are not available.", error
        )
        return False
    _registered = True
    return True


def _check_version() -> None:
    import vllm

    version = str(vllm.__version__)
    if not version.startswith(tuple(f"{prefix}." for prefix in SUPPORTED)):
        raise RuntimeError(f"vLLM is {version}; this guiderail knows {' and '.join(SUPPORTED)}")
    from guiderail.integrations.vllm.contract import differences

    found = differences()
    if found:
        raise RuntimeError(f"vLLM {version} differs from what is known: {'; '.join(found)}")


def _patch() -> None:
    from guiderail.integrations.vllm import metrics

    metrics.share_directory()
    _accept_name()
    _patch_front_end()
    _patch_structured_outputs()
    _patch_sampler()
    _patch_head()
    _publish_metrics()


def _accept_name() -> None:
    from pydantic.dataclasses import rebuild_dataclass
    from vllm.config import structured_outputs as home

    kind = Literal[(*get_args(home.StructuredOutputsBackend), NAME)]  # type: ignore[valid-type]
    home.StructuredOutputsBackend = kind
    config = home.StructuredOutputsConfig
    config.__annotations__["backend"] = kind
    config.__dataclass_fields__["backend"].type = kind
    config.__pydantic_fields__["backend"].annotation = kind
    rebuild_dataclass(config, force=True)


# --- front end -------------------------------------------------------------------------------------------------------


def _patch_front_end() -> None:
    from vllm.sampling_params import SamplingParams
    from vllm.v1.engine.input_processor import InputProcessor

    validate = SamplingParams._validate_structured_outputs

    @functools.wraps(validate)
    def _validate_structured_outputs(
        self: Any, model_config: Any, structured_outputs_config: Any, tokenizer: Any
    ) -> None:
        structured = self.structured_outputs
        if structured is None or structured_outputs_config is None or structured_outputs_config.backend != NAME:
            validate(self, model_config, structured_outputs_config, tokenizer)
            return
        _validate_constraint(self, model_config, structured_outputs_config, tokenizer)

    SamplingParams._validate_structured_outputs = _validate_structured_outputs

    validate_params = InputProcessor._validate_params

    @functools.wraps(validate_params)
    def _validate_params(self: Any, params: Any, supported_tasks: Any) -> Any:
        result = validate_params(self, params, supported_tasks)
        if getattr(params, "extra_args", None):
            _validate_guidance(params, self.vllm_config, self.tokenizer)
        return result

    InputProcessor._validate_params = _validate_params

    from vllm.v1.engine.async_llm import AsyncLLM

    add_request = AsyncLLM.add_request

    @functools.wraps(add_request)
    async def _add_request(self: Any, request_id: Any, prompt: Any, params: Any, *args: Any, **options: Any) -> Any:
        if getattr(params, "structured_outputs", None) is not None:
            await _compile_ahead(self, params)
        return await add_request(self, request_id, prompt, params, *args, **options)

    AsyncLLM.add_request = _add_request

    generate = AsyncLLM.generate

    @functools.wraps(generate)
    async def _generate(self: Any, *args: Any, **options: Any) -> Any:
        async with contextlib.aclosing(generate(self, *args, **options)) as outputs:
            async for output in outputs:
                _raise_failure(output)
                yield output

    AsyncLLM.generate = _generate
    _patch_beam_search()


def _raise_failure(output: Any) -> None:
    """Raises: VLLMValidationError, which is HTTP 400, if guiderail ended one of the answers as an error."""
    from vllm.exceptions import VLLMValidationError

    from guiderail.integrations.vllm.backend import FAILURE

    for answer in output.outputs:
        if answer.finish_reason == "error" and str(answer.stop_reason).startswith(FAILURE):
            raise VLLMValidationError(answer.stop_reason)


def _patch_beam_search() -> None:
    """The server's beam search asks the engine for one token after another, with parameters of its own."""
    from vllm.entrypoints.generate.beam_search.online import BeamSearchOnlineMixin
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest
    from vllm.exceptions import VLLMValidationError

    from guiderail.integrations.vllm.guidance_request import GuidanceRequest

    def remembering(convert: Any) -> Any:
        @functools.wraps(convert)
        def _to_beam_search_params(self: Any, *args: Any, **options: Any) -> Any:
            try:
                guided = GuidanceRequest.from_extra_args(self.vllm_xargs) is not None
            except ValueError as error:
                raise VLLMValidationError(f"guiderail: {error}") from None
            if guided:
                raise VLLMValidationError("guiderail: guidance and use_beam_search exclude each other in vLLM")
            params = convert(self, *args, **options)
            params.structured_outputs = self.extract_structured_outputs()
            return params

        return _to_beam_search_params

    for request in (CompletionRequest, ChatCompletionRequest):
        request.to_beam_search_params = remembering(request.to_beam_search_params)

    search = BeamSearchOnlineMixin.beam_search

    @functools.wraps(search)
    def _beam_search(self: Any, prompt: Any, request_id: Any, params: Any, *args: Any, **options: Any) -> Any:
        backend = self.engine_client.vllm_config.structured_outputs_config.backend
        if backend == NAME and params.structured_outputs is not None:
            raise VLLMValidationError("guiderail: structured outputs and use_beam_search exclude each other in vLLM")
        return search(self, prompt, request_id, params, *args, **options)

    BeamSearchOnlineMixin.beam_search = _beam_search


# What reading a constraint may raise: our errors, and vLLM's about a request that names two constraints or none.
_REFUSED = (GuiderailError, TypeError, ValueError, RecursionError)
# Front-end threads that read grammars. One would do for the usual ones; a slow grammar shall not hold up the others.
_READERS = ThreadPoolExecutor(max_workers=4, thread_name_prefix="guiderail")


async def _compile_ahead(engine: Any, params: Any) -> None:
    """Do in a thread what validation does on the event loop, which then finds everything known, errors included."""
    config = engine.vllm_config
    if config.structured_outputs_config.backend != NAME:
        return
    tokenizer = engine.input_processor.tokenizer
    if tokenizer is None:
        return
    work = functools.partial(_read_constraint, params, config.model_config, config.structured_outputs_config, tokenizer)
    with contextlib.suppress(*_REFUSED):  # validation will raise it again, where vLLM expects it
        await asyncio.get_running_loop().run_in_executor(_READERS, work)


def _validate_constraint(params: Any, model_config: Any, structured_outputs_config: Any, tokenizer: Any) -> None:
    from vllm.exceptions import VLLMValidationError

    from guiderail.integrations.vllm.metrics import METRICS

    structured = params.structured_outputs
    if model_config.is_diffusion:
        raise VLLMValidationError("guiderail: a diffusion language model does not write from left to right")
    if tokenizer is None:
        raise VLLMValidationError("guiderail: structured outputs need a tokenizer; remove skip_tokenizer_init")
    if structured._backend not in (None, NAME):
        raise VLLMValidationError(
            f"guiderail: the request names the backend {structured._backend!r}, but this engine runs 'guiderail'"
        )
    if structured.json_object is False:
        raise VLLMValidationError("guiderail: json_object is true or absent")
    if params.allowed_token_ids is not None:
        raise VLLMValidationError(
            "guiderail: allowed_token_ids and structured outputs exclude each other: no token might be left"
        )
    structured.__post_init__()
    try:
        _read_constraint(params, model_config, structured_outputs_config, tokenizer)
    except _REFUSED as error:
        METRICS.add("requests_refused_total")
        raise VLLMValidationError(f"guiderail: {type(error).__name__}: {error}") from None
    structured._backend = NAME


def _read_constraint(params: Any, model_config: Any, structured_outputs_config: Any, tokenizer: Any) -> None:
    """Raises: one of `_REFUSED` for a constraint that cannot be enforced, or not within `max_tokens`."""
    from vllm.v1.structured_output.request import get_structured_output_key

    from guiderail.integrations.vllm.backend import _KINDS, closes_in_time, request_grammar

    kind, text = get_structured_output_key(params.structured_outputs)
    compiler = _front_end_compiler(tokenizer, model_config.get_vocab_size())
    compiled, _ = compiler.compile(request_grammar(_KINDS[kind], text, params.structured_outputs))
    if closes_in_time(structured_outputs_config):
        compiled.matcher(params.max_tokens)


_compilers: dict[int, tuple[Any, Any]] = {}
_compilers_lock = threading.Lock()


def _front_end_compiler(tokenizer: Any, vocab_size: int) -> Any:
    from guiderail.integrations.request_grammars import RequestCompiler

    with _compilers_lock:
        known = _compilers.get(id(tokenizer))
        if known is None:  # the tokenizer is kept with its compiler, so its identity is not reused
            known = _compilers[id(tokenizer)] = (tokenizer, RequestCompiler(tokenizer, vocab_size))
    return known[1]


def _validate_guidance(params: Any, vllm_config: Any, tokenizer: Any) -> None:
    from vllm.exceptions import VLLMValidationError

    from guiderail.integrations.vllm.guidance_request import GuidanceRequest
    from guiderail.integrations.vllm.settings import STAMP, request_obstacle, server_obstacle

    try:
        if STAMP in params.extra_args:  # the scheduler's mark on the members of a group
            raise ValueError(f"unknown argument {STAMP!r}")
        request = GuidanceRequest.from_extra_args(params.extra_args)
        if request is None:
            return
        vocab_size = vllm_config.model_config.get_vocab_size()
        _check_lengths(request.texts, vllm_config.model_config.max_model_len, tokenizer)
        encode = tokenizer.encode if tokenizer else None
        prompts = request.prompt_ids([0], encode, vocab_size)
        request.class_codes(encode, vocab_size)
        obstacle = server_obstacle(vllm_config) or request_obstacle(params, vllm_config, prompts, request.model_names)
    except ValueError as error:
        raise VLLMValidationError(f"guiderail: {error}") from None
    if obstacle:
        raise VLLMValidationError(f"guiderail: {obstacle}")


def _check_lengths(texts: list[str], max_model_len: int, tokenizer: Any) -> None:
    """Texts that cannot fit, known before megabytes of them are tokenised. Raises: ValueError."""
    per_token = getattr(tokenizer, "max_chars_per_token", None)
    for text in texts:
        if per_token is not None and len(text) > max_model_len * per_token:
            raise ValueError(f"a guidance prompt has {len(text)} characters, more than {max_model_len} tokens can hold")


# --- EngineCore ------------------------------------------------------------------------------------------------------


def _patch_structured_outputs() -> None:
    from vllm.v1.structured_output import StructuredOutputManager as Manager

    grammar_init, create, bitmask = Manager.grammar_init, Manager._create_grammar, Manager.grammar_bitmask
    accept = Manager.accept_tokens

    @functools.wraps(grammar_init)
    def _grammar_init(self: Any, request: Any) -> None:
        if self.backend is None and request.structured_output_request is not None:
            structured = request.sampling_params.structured_outputs
            if structured._backend == NAME:
                from guiderail.integrations.vllm.backend import GuiderailBackend

                self.backend = GuiderailBackend(
                    self.vllm_config,
                    tokenizer=self.tokenizer,
                    vocab_size=self.vllm_config.model_config.get_vocab_size(),
                )
        grammar_init(self, request)

    @functools.wraps(create)
    def _create_grammar(self: Any, request: Any) -> Any:
        from guiderail.integrations.vllm.backend import GuiderailBackend, logger

        if not isinstance(self.backend, GuiderailBackend):
            return create(self, request)
        try:
            return self.backend.compile_request(request)
        except GuiderailError as error:
            logger.error("guiderail: request %s: %s: %s", request.request_id, type(error).__name__, error)
            raise

    @functools.wraps(bitmask)
    def _grammar_bitmask(self: Any, requests: Any, ids: Any, drafts: Any) -> Any:
        from guiderail.integrations.vllm.backend import GuiderailBackend

        if not ids or drafts or not isinstance(self.backend, GuiderailBackend):
            return bitmask(self, requests, ids, drafts)  # drafts: rows depend on one another
        return _fill_step(self, requests, ids)

    @functools.wraps(accept)
    def _accept_tokens(self: Any, request: Any, new_token_ids: Any) -> Any:
        from guiderail.integrations.vllm.backend import GuiderailGrammar

        accepted = accept(self, request, new_token_ids)
        if request.use_structured_output:
            grammar = request.structured_output_request.grammar
            if isinstance(grammar, GuiderailGrammar):
                if accepted:
                    grammar.count_closing()
                else:
                    request.stop_reason = grammar.failure
        return accepted

    _patch_scheduler()
    Manager.grammar_init = _grammar_init
    Manager.accept_tokens = _accept_tokens
    Manager._create_grammar = _create_grammar
    Manager.grammar_bitmask = _grammar_bitmask


def _patch_scheduler() -> None:
    from vllm.v1.core.sched.scheduler import Scheduler

    from guiderail.integrations.vllm.backend import FAILURE

    update = Scheduler.update_from_output

    @functools.wraps(update)
    def _update_from_output(self: Any, *args: Any, **options: Any) -> Any:
        if not self.grammar_compile_error_reqs:
            return update(self, *args, **options)
        reasons = {}
        for request_id in self.grammar_compile_error_reqs:
            request = self.requests.get(request_id)
            structured = request.structured_output_request if request is not None else None
            error = structured.grammar if structured is not None else None
            if isinstance(error, GuiderailError):
                reasons[request_id] = f"{FAILURE}{type(error).__name__}: {error}"
            elif request is not None:
                reasons[request_id] = request.stop_reason  # set by our scheduler, or None
        outputs = update(self, *args, **options)
        for output in outputs.values():
            for item in output.outputs:
                if item.request_id in reasons:
                    item.stop_reason = reasons[item.request_id]
        return outputs

    Scheduler.update_from_output = _update_from_output


def _fill_step(manager: Any, requests: Any, ids: Any) -> Any:
    """One row per request, in the order of `ids`: int32 (len(ids), words), a view that the next step overwrites."""
    from guiderail.integrations.vllm.backend import fill_rows, require_token

    if manager._grammar_bitmask is None:
        config = manager.vllm_config
        manager._grammar_bitmask = manager.backend.allocate_token_bitmask(
            config.scheduler_config.max_num_seqs * (1 + config.num_speculative_tokens)
        )
    masks = manager._grammar_bitmask.numpy()[: len(ids)]
    reasons = manager.reasoner_cls is not None
    grammars, rows, restricted = [], [], []
    for row, request_id in enumerate(ids):
        request = requests[request_id]
        grammar = request.structured_output_request.grammar
        if grammar.is_terminated() or (reasons and manager._get_constraint_bounds(request, ()).constraint_start != 0):
            masks[row] = -1
        else:
            grammars.append(grammar)
            rows.append(row)
            if grammar.restricted:
                restricted.append((request, row))
    if rows:
        fill_rows(masks, grammars, rows)
    for request, row in restricted:
        require_token(masks, request, row)
    return masks


# --- worker ----------------------------------------------------------------------------------------------------------


def _patch_sampler() -> None:
    from vllm.v1.sample.sampler import Sampler

    sample = Sampler.sample

    @functools.wraps(sample)
    def _sample(self: Any, logits: Any, sampling_metadata: Any, *args: Any, **options: Any) -> Any:
        from guiderail.integrations.vllm.companion_sampling import sample_without
        from guiderail.integrations.vllm.logits_processor import GuidanceLogitsProcessor

        processors = sampling_metadata.logitsprocs.non_argmax_invariant
        guides = [processor for processor in processors if isinstance(processor, GuidanceLogitsProcessor)]
        if not guides:
            return sample(self, logits, sampling_metadata, *args, **options)
        companions: set[int] = set()
        for guide in guides:
            guide.before_sampling(sampling_metadata.generators)
            companions |= guide.companion_rows
        inner = self.topk_topp_sampler
        mode = inner.logprobs_mode
        if sampling_metadata.max_num_logprobs is None and not sampling_metadata.logprob_token_ids:
            inner.logprobs_mode = "raw_logprobs"  # in a processed mode vLLM computes them whether anybody asks or not
        try:
            sampled, logprobs = sample_without(
                companions, functools.partial(sample, self, *args, **options), logits, sampling_metadata
            )
        finally:
            inner.logprobs_mode = mode
        for guide in guides:
            guide.after_sampling(sampled)
        return sampled, logprobs

    Sampler.sample = _sample


def _patch_head() -> None:
    from vllm.model_executor.layers.logits_processor import LogitsProcessor

    from guiderail.integrations.vllm.mixed_head import expected_head

    forward = LogitsProcessor.forward

    @functools.wraps(forward)
    def _forward(self: Any, lm_head: Any, hidden_states: Any, *args: Any, **options: Any) -> Any:
        head = expected_head(self)
        if head is None:
            return forward(self, lm_head, hidden_states, *args, **options)
        return head.logits(lambda states: forward(self, lm_head, states, *args, **options), hidden_states)

    LogitsProcessor.forward = _forward


def _publish_metrics() -> None:
    """At prometheus_client's own registry, and at those that vLLM makes where a machine has several API servers."""
    from prometheus_client import REGISTRY
    from vllm.v1.metrics import prometheus

    from guiderail.integrations.vllm.metrics import METRICS

    REGISTRY.register(METRICS)
    get = prometheus.get_prometheus_registry

    @functools.wraps(get)
    def _get_prometheus_registry() -> Any:
        registry = get()
        if registry is not REGISTRY:
            registry.register(METRICS)
        return registry

    prometheus.get_prometheus_registry = _get_prometheus_registry
    endpoint = sys.modules.get("vllm.entrypoints.serve.instrumentator.metrics")
    if endpoint is not None:  # it has taken the function by its name already
        endpoint.get_prometheus_registry = _get_prometheus_registry  # type: ignore[attr-defined]
