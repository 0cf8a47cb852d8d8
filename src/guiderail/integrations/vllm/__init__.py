"""vLLM: structured outputs and guidance for its engine and OpenAI server.

Nothing here imports vLLM before it is asked to. vLLM calls `register` through the entry point `vllm.general_plugins`
in each of its processes; `LLM(structured_outputs_config={"backend": "guiderail"})` validates before plugins are
loaded, so call `register()` first there.

    backend.py           the structured-output backend `guiderail`
    guidance_request.py  what a request says about guidance (knows nothing of vLLM)
    scheduler.py         hidden companion requests, in lockstep with the request that they guide
    logits_processor.py  mixes the rows of a request and its companions
    mixed_head.py        mixes them before the model's head, where that is the same
    companion_sampling.py  companions are not sampled
    guide_models.py      smaller models that guide, inside the logits processor
    plugin.py            `register`: what is patched where, and when it refuses
    contract.py          the interfaces of vLLM that all this relies on, as recorded
    metrics.py           counters from every process to the Prometheus endpoint
    serve.py             `guiderail serve`
"""

from guiderail.integrations.vllm.plugin import register

__all__ = ["register"]
