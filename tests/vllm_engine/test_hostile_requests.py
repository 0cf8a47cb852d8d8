"""Hostile requests to the real server: each ends in a typed refusal or a right answer, and disturbs nobody.

The model has random weights and SmolLM2's tokenizer. Refusals that are vLLM's own are here as well: what counts is that
no request gets past both.
"""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed; `make vllm-test` has an environment with it")

import jsonschema

from vllm_engine.engine import MODEL
from vllm_engine.server import Server, serving, small_model

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["a"],
    "additionalProperties": False,
}
GUIDED = {"vllm_xargs": {"guidance_scale": 1.5, "negative_prompt": "x y"}}
FORM = {"structured_outputs": {"json": SCHEMA}}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if not MODEL.is_dir():
        pytest.skip(f"no model in {MODEL}: run `make demo` once")
    folder = tmp_path_factory.mktemp("server")
    options = ["--max-model-len", "512", "--max-num-seqs", "16", "--enable-auto-tool-choice"]
    with serving(small_model(folder / "model"), folder / "log", [*options, "--tool-call-parser", "hermes"]) as running:
        yield running


def control(server: Server) -> str:
    status, answer = server.complete(max_tokens=8, temperature=0)
    assert status == 200
    return str(answer["choices"][0]["text"])


@pytest.fixture(scope="module")
def undisturbed(server):
    return control(server)


@pytest.fixture(autouse=True)
def _nobody_is_disturbed(server, undisturbed):
    yield
    assert control(server) == undisturbed


def refused(found: tuple[int, Any], pattern: str) -> None:
    status, answer = found
    assert status == 400, answer
    assert re.search(pattern, answer["error"]["message"]), answer


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        ('{"guidance_scale": NaN}', "guidance_scale: nan is not a finite number"),
        ('{"guidance_scale": -1e999}', "guidance_scale: -inf is not a finite number"),
        (f'{{"guidance_scale": {"9" * 400}}}', "extra_args integers"),
        ('{"guidance_scale": 1e300}', "guidance_scale: 1e.300 exceeds 1000000"),
        ('{"guidance_scale": "3"}', "guidance_scale: '3' is not a finite number"),
        ('{"guidance_scale": [3]}', "guidance_scale: .3. is not a finite number"),
        ('{"guidance_scale": {"a": 1}}', "body.vllm_xargs.guidance_scale"),
        ('{"guidance_scale": null}', "body.vllm_xargs.guidance_scale"),
        ('{"guidance_scale": 2, "negative_prompt": ""}', "has no tokens"),
        ('{"guidance_scale": 2, "negative_prompt": 5}', "negative_prompt is a text"),
        ('{"guidance_scale": 2, "negative_prompt": "a\\ud800"}', "surrogate"),
        ('{"guidance_scale": 2, "negative_prompt_ids": [-1]}', "-1 is not a token"),
        ('{"guidance_scale": 2, "negative_prompt_ids": [49152]}', "49152 is not a token"),
        ('{"guidance_scale": 2, "negative_prompt_ids": [1.5]}', "negative_prompt_ids is an array of token ids"),
        ('{"guidance_scale": 2, "negative_prompt_ids": []}', "negative_prompt_ids is an array of token ids"),
        ('{"guidance_scale": 2, "guidance_interval": [5, 1]}', "guidance_interval: .5, 1. is no interval"),
        ('{"guidance_scale": 2, "guidance_ramp": -3}', "guidance_ramp is a number of steps"),
        ('{"guidance_prompts": "a", "guidance_weights": 1}', "guidance_prompts is an array"),
        ('{"plausibility": 7}', "plausibility lies between 0 and 1"),
        ('{"guidance_models": ["q"], "guidance_model_weights": [1]}', "no guide model 'q'"),
        ('{"guidance_scal": 2}', "unknown guidance argument 'guidance_scal'"),
        ('{"_guiderail": [1, 1]}', "unknown argument '_guiderail'"),
        ("[1]", "body.vllm_xargs"),
    ],
)
def test_arguments_of_guidance(server, arguments, pattern):
    body = f'{{"model": "small", "prompt": "x", "max_tokens": 4, "vllm_xargs": {arguments}}}'
    refused(server.ask("/v1/completions", body), pattern)


@pytest.mark.parametrize(
    ("fields", "pattern"),
    [
        ({"negative_prompt": "word " * 10_000}, "50000 characters, more than 512 tokens can hold"),
        ({"negative_prompt": "the " * 600}, "has 60[01] tokens, and --max-model-len leaves 510"),
        ({"negative_prompt_ids": [5] * 10_000}, "10000 tokens, and --max-model-len leaves 510"),
        ({"guidance_prompts": ["a"] * 9, "guidance_weights": [1] * 9}, "at most 8"),
    ],
)
def test_prompts_that_do_not_fit(server, fields, pattern):
    refused(server.complete(max_tokens=4, vllm_xargs={"guidance_scale": 2, **fields}), pattern)


@pytest.mark.parametrize(
    ("fields", "pattern"),
    [
        ({"prompt_logprobs": 2}, "prompt_logprobs"),
        ({"echo": True, "logprobs": 1}, "prompt_logprobs"),
        ({"use_beam_search": True, "n": 2}, "guidance and use_beam_search exclude each other"),
        ({"n": 100_000}, "n must be at most"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**9}, "max_tokens"),
        ({"seed": 2**64}, "body.seed"),
        ({"prompt": [10**6]}, "out of vocabulary"),
        ({"prompt": "a " * 6000}, "maximum context length"),
    ],
)
def test_what_excludes_guidance(server, fields, pattern):
    refused(server.complete(**{"max_tokens": 4, **GUIDED, **fields}), pattern)


@pytest.mark.parametrize(
    ("constraint", "pattern"),
    [
        ({"json": '{"properties": {"a": {"type": "strin"}}}'}, r"unknown type \(at /properties/a/type\)"),
        ({"json": "{bad"}, "at byte 1"),
        ({"json": "[]"}, "an object or a boolean"),
        ({"json": 5}, "body.structured_outputs.json"),
        ({"json": {"$ref": "#/x"}}, r"\(at /\$ref\)"),
        ({"json": '{"a":' * 5000}, "limit 'json_depth'"),
        ({"json": {"type": "string", "pattern": "("}}, r"\(at /pattern\)"),
        ({"json": SCHEMA, "whitespace_pattern": "("}, "offset 0"),
        ({"json": SCHEMA, "regex": "a"}, "only use one kind"),
        ({"regex": "("}, "offset 0"),
        ({"regex": 5}, "body.structured_outputs.regex"),
        ({"choice": []}, "no choices"),
        ({"choice": [1]}, "body.structured_outputs.choice"),
        ({"grammar": ""}, "no rule 'start'"),
        ({"grammar": "start: x"}, "line 1, column 8"),
        ({"grammar": "root ::= ("}, "line 1, column 11"),
        ({"grammar": "cobol"}, "no built-in grammar 'cobol'"),
        ({"json_object": False}, "json_object"),
        ({"structural_tag": "{"}, "structural_tag"),
        ({"structural_tag": '{"format": {"type": "nope"}}'}, "structural_tag"),
        ({"structural_tag": '{"type":"structural_tag","format":' * 3000}, "nested too deeply"),
        ({"structural_tag": '{"type":"structural_tag","format":{"type":"any_tokens"}}'}, "any_tokens|structural_tag"),
        ({}, "must use one kind"),
        ({"jsn": {}}, "must use one kind"),
    ],
)
def test_malformed_constraints(server, constraint, pattern):
    refused(server.complete(max_tokens=4, structured_outputs=constraint), pattern)


@pytest.mark.parametrize(
    ("fields", "pattern"),
    [
        ({"use_beam_search": True, "n": 2}, "structured outputs and use_beam_search"),
        ({"allowed_token_ids": [5]}, "allowed_token_ids and structured outputs"),
        ({"max_tokens": 2}, "no way to complete|max_tokens.*allowed"),
    ],
)
def test_what_excludes_a_constraint(server, fields, pattern):
    refused(server.complete(**{"max_tokens": 30, **FORM, **fields}), pattern)


@pytest.mark.parametrize(
    ("fields", "pattern"),
    [
        ({"response_format": {"type": "json_schema"}}, "json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "q"}}}}, "/type"),
        ({"response_format": {"type": "structural_tag", "format": {"type": "tag"}}}, "structural_tag"),
        ({"response_format": {"type": "json_object"}, "use_beam_search": True}, "use_beam_search"),
        ({**GUIDED, "use_beam_search": True}, "use_beam_search"),
    ],
)
def test_chats(server, fields, pattern):
    refused(server.chat(max_tokens=30, **fields), pattern)


def test_a_tool_with_a_malformed_schema(server):
    function = {"name": "f", "parameters": {"type": "q"}}
    tools = [{"type": "function", "function": function}]
    refused(server.chat(max_tokens=30, tools=tools, tool_choice="required"), "unknown type")


def texts(found: tuple[int, Any]) -> list[str]:
    status, answer = found
    assert status == 200, answer
    return [choice["text"] for choice in answer["choices"]]


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 8},
        {"n": 8, **GUIDED},
        {"best_of": 4, "n": 2, **GUIDED},
        {"logprobs": 3, **GUIDED},
        {"prompt_logprobs": 2},
        {"min_tokens": 3, "temperature": 0},
        {"bad_words": ["zebra"]},
        {"logit_bias": {"5": 100, "6": -100}, **GUIDED},
        {"stop_token_ids": [5, 6, 7]},
        {"repetition_penalty": 2.0, "presence_penalty": -2, "top_k": 1, "min_p": 0.9, **GUIDED},
        {"vllm_xargs": {"guidance_scale": 1e6}},
        {"vllm_xargs": {"guidance_scale": -1e6, "guidance_ramp": 1e308}},
        {"vllm_xargs": {"guidance_prompts": ["a"] * 8, "guidance_weights": [0.1] * 8}},
        {"seed": -(2**63), **GUIDED},
    ],
)
def test_odd_but_legal_requests_are_answered_rightly(server, fields):
    for text in texts(server.complete(max_tokens=30, **FORM, **fields)):
        jsonschema.validate(json.loads(text), SCHEMA)


LETTER = {"structured_outputs": {"choice": ["a"]}}


@pytest.mark.parametrize(
    "fields",
    [
        {"bad_words": ["a", '"', "{"], **FORM},
        {"bad_words": ["a", '"', "{"], "n": 2, **FORM},
        {"bad_words": ["a", '"', "{"], **FORM, **GUIDED},
        {"bad_words": ["a"], "temperature": 0, **LETTER},
        {"min_tokens": 8, **LETTER},
        {"min_tokens": 8, **LETTER, **GUIDED},
    ],
)
def test_requests_whose_own_bans_leave_no_token_are_told_so(server, fields):
    """What is left to sample is known only while the text is written."""
    failed = server.gauge("guiderail:requests_failed_total")
    status, answer = server.complete(max_tokens=30, **fields)
    assert status == 400, answer
    assert "guiderail: DeadEndError" in answer["error"]["message"]
    assert server.gauge("guiderail:requests_failed_total") >= failed + 1


def test_a_stream_ends_with_the_reason_too(server):
    status, text = server.complete(max_tokens=30, stream=True, bad_words=["a"], **LETTER)
    events = [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: {")]
    assert status == 200
    assert events[-1]["error"]["code"] == 400
    assert "guiderail: DeadEndError" in events[-1]["error"]["message"]


def test_stop_strings_inside_a_grammar_stop_there(server):
    form = {"structured_outputs": {"regex": "[xy]{3}-[xy]{3}"}}
    for fields in ({}, GUIDED):
        (text,) = texts(server.complete(max_tokens=30, stop=["-"], **form, **fields))
        assert re.fullmatch("[xy]{3}", text)


def test_echo_and_logprobs_of_guided_requests(server):
    status, answer = server.complete(max_tokens=4, echo=True, temperature=0, **GUIDED)
    assert status == 200
    assert answer["choices"][0]["text"].startswith("The")
    status, answer = server.complete(max_tokens=4, logprobs=1, temperature=0, **GUIDED)
    (choice,) = answer["choices"]
    best = [max(position.values()) for position in choice["logprobs"]["top_logprobs"]]
    assert choice["logprobs"]["token_logprobs"] == best  # greedy after guidance: the likeliest of what is returned


def test_one_id_twice_and_ids_that_look_like_ours(server, undisturbed):
    def ask(number: int) -> str:
        headers = {"X-Request-Id": "same#guiderail-1" if number % 2 else "same"}
        guided = GUIDED if number % 3 == 0 else {}
        status, answer = server.complete(headers, max_tokens=8, temperature=0, **guided)
        assert status == 200
        return undisturbed if guided else str(answer["choices"][0]["text"])

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(24))) == {undisturbed}


def test_a_storm_of_aborts_leaves_nothing_behind(server, undisturbed):
    kinds = [GUIDED, FORM, {**GUIDED, **FORM}, {**GUIDED, "n": 8}, {"structured_outputs": {"regex": "a{300}"}}]

    def abort(number: int) -> None:
        server.abort((number % 7) * 0.03, max_tokens=400, ignore_eos=True, **kinds[number % len(kinds)])

    with ThreadPoolExecutor(12) as pool:
        storm = [pool.submit(abort, number) for number in range(90)]
        for _ in range(5):
            assert control(server) == undisturbed
        for one in storm:
            one.result()
    for _ in range(40):
        control(server)
        left = [server.gauge(f"vllm:{name}") for name in ("num_requests_running", "num_requests_waiting")]
        if left == [0, 0]:
            break
    assert left == [0, 0]
    assert server.gauge("vllm:kv_cache_usage_perc") == 0
