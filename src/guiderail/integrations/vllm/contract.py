"""The interfaces of vLLM that this package relies on, as recorded from vLLM 0.32.0.

`register` compares them with the vLLM that is running, before it changes anything: where vLLM has moved on, guiderail
refuses to register and says which interface differs, and vLLM starts as if guiderail were not installed.
"""

from __future__ import annotations

import importlib
import inspect

# object -> names of its parameters that must exist, in order; further ones with defaults may follow
INTERFACES: dict[str, tuple[str, ...]] = {
    "vllm.sampling_params:SamplingParams._validate_structured_outputs": (
        "self",
        "model_config",
        "structured_outputs_config",
        "tokenizer",
    ),
    "vllm.v1.engine.input_processor:InputProcessor._validate_params": ("self", "params", "supported_tasks"),
    "vllm.v1.engine.async_llm:AsyncLLM.add_request": ("self", "request_id", "prompt", "params"),
    "vllm.v1.engine.async_llm:AsyncLLM.generate": ("self", "prompt", "sampling_params", "request_id"),
    "vllm.entrypoints.openai.completion.protocol:CompletionRequest.to_beam_search_params": ("self", "max_tokens"),
    "vllm.entrypoints.openai.completion.protocol:CompletionRequest.extract_structured_outputs": ("self",),
    "vllm.entrypoints.openai.chat_completion.protocol:ChatCompletionRequest.to_beam_search_params": (
        "self",
        "max_tokens",
        "default_sampling_params",
    ),
    "vllm.entrypoints.openai.chat_completion.protocol:ChatCompletionRequest.extract_structured_outputs": ("self",),
    "vllm.entrypoints.generate.beam_search.online:BeamSearchOnlineMixin.beam_search": (
        "self",
        "prompt",
        "request_id",
        "params",
    ),
    "vllm.v1.structured_output:StructuredOutputManager.grammar_init": ("self", "request"),
    "vllm.v1.structured_output:StructuredOutputManager._create_grammar": ("self", "request"),
    "vllm.v1.structured_output:StructuredOutputManager.grammar_bitmask": (
        "self",
        "requests",
        "structured_output_request_ids",
        "scheduled_spec_decode_tokens",
    ),
    "vllm.v1.structured_output:StructuredOutputManager.accept_tokens": ("self", "request", "new_token_ids"),
    "vllm.v1.structured_output:StructuredOutputManager._get_constraint_bounds": (
        "self",
        "request",
        "spec_tokens",
        "spec_tokens_committed",
    ),
    "vllm.v1.structured_output.backend_types:StructuredOutputGrammar.accept_tokens": ("self", "request_id", "tokens"),
    "vllm.v1.structured_output.backend_types:StructuredOutputGrammar.validate_tokens": ("self", "tokens"),
    "vllm.v1.structured_output.backend_types:StructuredOutputGrammar.rollback": ("self", "num_tokens"),
    "vllm.v1.structured_output.backend_types:StructuredOutputGrammar.fill_bitmask": ("self", "bitmask", "batch_index"),
    "vllm.v1.structured_output.backend_types:StructuredOutputGrammar.is_terminated": ("self",),
    "vllm.v1.structured_output.backend_types:StructuredOutputGrammar.reset": ("self",),
    "vllm.v1.structured_output.backend_types:StructuredOutputBackend.compile_grammar": (
        "self",
        "request_type",
        "grammar_spec",
        "stop_token_ids",
    ),
    "vllm.v1.structured_output.backend_types:StructuredOutputBackend.allocate_token_bitmask": (
        "self",
        "max_num_seqs",
    ),
    "vllm.v1.structured_output.backend_types:StructuredOutputBackend.destroy": ("self",),
    "vllm.v1.core.sched.scheduler:Scheduler.add_request": ("self", "request"),
    "vllm.v1.core.sched.scheduler:Scheduler.schedule": ("self",),
    "vllm.v1.core.sched.scheduler:Scheduler.finish_requests": ("self", "request_ids", "finished_status"),
    "vllm.v1.core.sched.scheduler:Scheduler.update_from_output": (
        "self",
        "scheduler_output",
        "model_runner_output",
    ),
    "vllm.v1.core.sched.scheduler:Scheduler._preempt_request": ("self", "request", "timestamp"),
    "vllm.v1.metrics.prometheus:get_prometheus_registry": (),
    "vllm.v1.sample.sampler:Sampler.sample": ("self", "logits", "sampling_metadata"),
    "vllm.model_executor.layers.logits_processor:LogitsProcessor.forward": ("self", "lm_head", "hidden_states"),
    "vllm.v1.sample.logits_processor.interface:LogitsProcessor.apply": ("self", "logits"),
    "vllm.v1.sample.logits_processor.interface:LogitsProcessor.update_state": ("self", "batch_update"),
}


def differences() -> list[str]:
    """One line for each interface that is not as recorded."""
    found = []
    for place, expected in INTERFACES.items():
        module, _, path = place.partition(":")
        try:
            target: object = importlib.import_module(module)
            for name in path.split("."):
                target = getattr(target, name)
            actual = list(inspect.signature(target).parameters.values())  # type: ignore[arg-type]
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            found.append(f"{place}: {error}")
            continue
        names = tuple(parameter.name for parameter in actual)
        further = actual[len(expected) :]
        optional = all(
            parameter.default is not parameter.empty
            or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            for parameter in further
        )
        if names[: len(expected)] != expected or not optional:
            found.append(f"{place}({', '.join(names)}), expected {', '.join(expected)}")
    return found
