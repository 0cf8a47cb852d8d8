"""`guiderail serve MODEL …`: vLLM's OpenAI server with guiderail switched on, and the settings checked first.

Every argument that is not ours goes to vLLM as it is. Ours:

    --no-guidance             structured outputs alone, with vLLM's defaults otherwise
    --guide-model NAME=PATH   a smaller model that requests may be guided by; as often as there are models

What is added, unless it is given:

    --structured-outputs-config backend=guiderail
    --tool-strict-level parameter              arguments of tool calls are constrained whether or not a tool says strict
    and for guidance (left out with --no-guidance):
    --scheduler-cls, --logits-processors       ours
    --no-async-scheduling                      streams are kept in step by taking a position back (scheduler.py)
    VLLM_USE_V2_MODEL_RUNNER=0                 1, if it is set, stays: runner V2 guides too, without guide models
    --logprobs-mode processed_logprobs         log-probabilities with guidance and grammar, not without

Tool calls. vLLM writes their constraint as a structural tag. Left to itself (--tool-strict-level auto) it constrains
the arguments only of tools that say `"strict": true`: any JSON fits the others. What is not enforced of a tag, XML
styles of arguments for instance, is HTTP 400; with VLLM_ENFORCE_STRICT_TOOL_CALLING=0 vLLM does without structural
tags.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

from guiderail.integrations.vllm.plugin import register
from guiderail.integrations.vllm.settings import LOGITS_PROCESSOR, SCHEDULER

__all__ = ["arguments_for_vllm", "serve"]

_NO_GUIDANCE = "--no-guidance"
_GUIDE_MODEL = "--guide-model"
# vLLM arguments under which guidance cannot be right -> what to do
_AGAINST_GUIDANCE = {
    "--speculative-config": "speculative decoding",
    "--async-scheduling": "asynchronous scheduling",
    "--kv-transfer-config": "KV transfer",
}


def arguments_for_vllm(model: str, given: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """vLLM's arguments and the environment variables to set.

    Raises: ValueError for arguments that exclude guidance, with what to change.
    """
    guided = _NO_GUIDANCE not in given
    models, rest = _guide_models([argument for argument in given if argument != _NO_GUIDANCE])
    arguments = ["--model", model, *rest]
    _default(arguments, "--structured-outputs-config", '{"backend": "guiderail"}')
    _default(arguments, "--tool-strict-level", "parameter")
    if not guided:
        if models:
            raise ValueError(f"{_GUIDE_MODEL} and {_NO_GUIDANCE} exclude each other")
        return arguments, {}
    if models:
        if _has(arguments, "--additional-config"):
            own = f'"guiderail": {{"guide_models": {json.dumps(models)}}}'
            raise ValueError(f"{_GUIDE_MODEL} and --additional-config: put {own} into the latter")
        arguments += ["--additional-config", json.dumps({"guiderail": {"guide_models": models}})]
    for flag, what in _AGAINST_GUIDANCE.items():
        if _has(arguments, flag):
            raise ValueError(f"{what} and guidance exclude each other: remove {flag}, or serve with {_NO_GUIDANCE}")
    _default(arguments, "--scheduler-cls", SCHEDULER)
    _default(arguments, "--logits-processors", LOGITS_PROCESSOR)
    _default(arguments, "--logprobs-mode", "processed_logprobs")
    if not _has(arguments, "--no-async-scheduling"):
        arguments.append("--no-async-scheduling")
    return arguments, {"VLLM_USE_V2_MODEL_RUNNER": os.environ.get("VLLM_USE_V2_MODEL_RUNNER") or "0"}


def serve(model: str, given: Sequence[str]) -> int:
    """Serve until a signal ends it. Returns: the exit status; 2 where vLLM is missing or arguments do not fit."""
    try:
        arguments, environment = arguments_for_vllm(model, given)
    except ValueError as error:
        print(f"guiderail: {error}", file=sys.stderr)
        return 2
    for name, value in environment.items():
        print(f"guiderail: {name}={value}", file=sys.stderr)
    os.environ.update(environment)
    try:
        from vllm.entrypoints.launchers.api_server.entry import main
    except ImportError as error:
        print(f"guiderail: serve needs vLLM ({error}): pip install 'guiderail[vllm]'", file=sys.stderr)
        return 2
    if not register():  # it has said why
        return 2
    sys.argv = ["guiderail serve", *arguments]
    main()
    return 0


def _guide_models(given: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The guide models among the arguments, and the other arguments."""
    models: dict[str, str] = {}
    rest: list[str] = []
    left = iter(given)
    for argument in left:
        flag, equals, value = argument.partition("=")
        if flag != _GUIDE_MODEL:
            rest.append(argument)
            continue
        name, separator, path = (value if equals else next(left, "")).partition("=")
        if not separator or not name or not path or name in models:
            raise ValueError(f"{_GUIDE_MODEL} takes NAME=PATH, each name once")
        models[name] = path
    return models, rest


def _has(arguments: Sequence[str], flag: str) -> bool:
    return any(argument == flag or argument.startswith(f"{flag}=") for argument in arguments)


def _default(arguments: list[str], flag: str, value: str) -> None:
    if not _has(arguments, flag):
        arguments += [flag, value]
