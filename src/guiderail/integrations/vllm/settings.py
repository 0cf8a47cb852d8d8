"""Which settings of vLLM guidance works under, and what to change where it does not.

Every refusal names the flag. What is refused has a reason in vLLM, stated beside it; nothing is refused because it is
untested on some hardware.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

__all__ = ["LOGITS_PROCESSOR", "SCHEDULER", "STAMP", "guide_models", "request_obstacle", "server_obstacle"]

SCHEDULER = "guiderail.integrations.vllm.scheduler.GuidedScheduler"
LOGITS_PROCESSOR = "guiderail.integrations.vllm.logits_processor:GuidanceLogitsProcessor"

STAMP = "_guiderail"
"""Key in `extra_args`: [number of the group, role in it]. Role 0 is the request, the others are its companions."""


def server_obstacle(vllm_config: Any, *, in_engine: bool = False) -> str | None:
    """Why this engine cannot guide, with the flag to set; None if it can.

    Args:
        in_engine: asked by the scheduler itself.
    """
    scheduler = vllm_config.scheduler_config
    names = _names(scheduler.scheduler_cls)
    if not in_engine and not any(name.endswith("GuidedScheduler") for name in names):
        return (
            f"this server was started without guidance; start it with `guiderail serve` or --scheduler-cls {SCHEDULER}"
        )
    processors = [name for given in vllm_config.model_config.logits_processors or () for name in _names(given)]
    if not any(name.endswith("GuidanceLogitsProcessor") for name in processors):
        return f"guidance needs --logits-processors {LOGITS_PROCESSOR}"
    # Runner V2 keeps tokens on the device, where guide models do not see them, and may sample a group's rows on
    # different ranks.
    if vllm_config.use_v2_model_runner and guide_models(vllm_config):
        return "guide models need the V1 model runner: set VLLM_USE_V2_MODEL_RUNNER=0"
    if vllm_config.use_v2_model_runner and vllm_config.parallel_config.enable_batch_sharded_sampling:
        return "guidance needs a batch in one place: remove --enable-batch-sharded-sampling"
    # Streams are kept in step by taking a position back in the scheduler, and asynchronous scheduling has sent the next
    # step before this one is known.
    if scheduler.async_scheduling:
        return "guidance needs --no-async-scheduling"
    # vLLM's V1 runner does not call custom processors under speculative decoding.
    if vllm_config.speculative_config is not None:
        return "guidance and speculative decoding exclude each other: remove --speculative-config"
    if vllm_config.parallel_config.pipeline_parallel_size > 1:
        return "guidance needs --pipeline-parallel-size 1: with more, several steps are in flight"
    if vllm_config.kv_transfer_config is not None:
        return "guidance needs the KV cache in one place: remove --kv-transfer-config"
    if vllm_config.model_config.is_encoder_decoder:
        return "guidance of encoder-decoder models is not available in vLLM; use guiderail with transformers"
    if getattr(vllm_config.model_config, "has_inner_state", False):
        return "guidance takes positions back, which the recurrent state of this model does not allow"
    return None


def guide_models(vllm_config: Any) -> dict[str, str]:
    """The server's guide models: name -> path.

    Raises: ValueError for a configuration that is not `{"guiderail": {"guide_models": {name: path}}}`.
    """
    additional = getattr(vllm_config, "additional_config", None)
    own = additional.get("guiderail", {}) if isinstance(additional, dict) else {}
    found = own.get("guide_models", {}) if isinstance(own, dict) else own
    if not isinstance(found, dict) or not all(isinstance(path, str) for path in found.values()):
        raise ValueError('--additional-config: "guiderail" is {"guide_models": {name: path}}')
    return found


def request_obstacle(
    params: Any, vllm_config: Any, prompts: Sequence[Sequence[int]], models: Collection[str] = ()
) -> str | None:
    """Why this request cannot be guided on this engine; None if it can.

    Args: prompts of its companions; models: names of the guide models that it needs.
    """
    known = guide_models(vllm_config)
    unknown = sorted(set(models) - set(known))
    if unknown:
        served = f"it has {', '.join(sorted(known))}" if known else "it has none"
        return f"no guide model {unknown[0]!r} on this server, {served}: start with --guide-model {unknown[0]}=PATH"
    if params.prompt_logprobs is not None:
        return "guidance and prompt_logprobs exclude each other"
    mode = vllm_config.model_config.logprobs_mode
    if params.logprobs is not None and not str(mode).startswith("processed"):
        return (
            "log-probabilities would be those without guidance: start vLLM with --logprobs-mode processed_logprobs, "
            f"not {mode}"
        )
    needed = len(prompts) + 1
    if needed > vllm_config.scheduler_config.max_num_seqs:
        return f"the request takes {needed} places in the batch: raise --max-num-seqs"
    longest = vllm_config.model_config.max_model_len - 2
    too_long = max(map(len, prompts), default=0)
    if too_long > longest:
        return f"a guidance prompt has {too_long} tokens, and --max-model-len leaves {longest}"
    return None


def _names(given: Any) -> list[str]:
    """A class or its name, as the names that it may be known by."""
    return [given] if isinstance(given, str) else [kind.__name__ for kind in getattr(given, "__mro__", ())]
