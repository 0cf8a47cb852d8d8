"""The real engine, in this process, on SmolLM2: what `make vllm-test` runs. Skipped where vLLM is missing."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed; `make vllm-test` has an environment with it")

from vllm import SamplingParams
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import StructuredOutputsParams

import guiderail as gr
from guiderail.integrations.request_grammars import RequestGrammar
from guiderail.integrations.vllm import contract
from guiderail.integrations.vllm.backend import GuiderailBackend, GuiderailGrammar
from guiderail.integrations.vllm.metrics import METRICS
from vllm_engine.engine import MODEL, PAIRS, SCALES, make_engine, reference

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

TOKENS = 16
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "maximum": 150, "minimum": 0},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def llm():
    if not MODEL.is_dir():
        pytest.skip(f"no model in {MODEL}: run `make demo` once")
    # Few blocks and small chunks: streams of a group get out of step, requests are preempted.
    return make_engine(num_gpu_blocks_override=17, block_size=32, max_num_batched_tokens=64, max_num_seqs=16)


def guided(scale: float, negative: str, **options: Any) -> SamplingParams:
    arguments = {"guidance_scale": scale, "negative_prompt": negative}
    return SamplingParams(**{"temperature": 0, "max_tokens": TOKENS, "extra_args": arguments, **options})


def tokens(outputs: Any) -> list[list[int]]:
    return [list(completion.token_ids) for output in outputs for completion in output.outputs]


def test_interfaces_are_as_recorded():
    assert contract.differences() == []


def test_metrics_are_at_the_endpoint_of_several_api_servers(llm, monkeypatch, tmp_path):
    from prometheus_client import generate_latest
    from vllm.v1.metrics import prometheus

    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    llm.generate(["x"], SamplingParams(max_tokens=2, structured_outputs=StructuredOutputsParams(regex="[ab]{1,4}")))
    lines = generate_latest(prometheus.get_prometheus_registry()).decode().splitlines()
    counted = dict(line.split() for line in lines if line.startswith("guiderail:"))
    assert float(counted["guiderail:fill_rows_total"]) > 0


def test_guidance_equals_transformers_while_the_cache_starves(llm):
    pairs = PAIRS[:5]
    outputs = llm.generate(
        [prompt for prompt, _ in pairs for _ in SCALES],
        [guided(scale, negative) for _, negative in pairs for scale in SCALES],
        use_tqdm=False,
    )
    assert tokens(outputs) == [reference(p, n, scale, TOKENS) for p, n in pairs for scale in SCALES]


def test_guidance_with_a_grammar_equals_transformers(llm):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    pattern = r"[A-Z][a-z ]{10,60}\."
    vocabulary = gr.Vocabulary.from_tokenizer(tokenizer, vocab_size=49152)
    compiled = gr.compile(gr.Grammar.from_regex(pattern), vocabulary)
    pairs = PAIRS[:4]
    found = llm.generate(
        [p for p, _ in pairs],
        [guided(3.0, n, structured_outputs=StructuredOutputsParams(regex=pattern)) for _, n in pairs],
        use_tqdm=False,
    )
    assert tokens(found) == [reference(p, n, 3.0, TOKENS, compiled) for p, n in pairs]


def test_seeds_and_n_are_reproducible_whatever_the_load(llm):
    prompt, negative = PAIRS[4]
    wanted = guided(2.0, negative, temperature=1.0, seed=7, n=3)
    alone = tokens(llm.generate([prompt], [wanted], use_tqdm=False))
    assert len({tuple(row) for row in alone}) == 3
    others = [guided(3.0, n, temperature=1.0) for _, n in PAIRS[5:15]]
    crowd = llm.generate([*(p for p, _ in PAIRS[5:15]), prompt], [*others, wanted], use_tqdm=False)
    assert tokens(crowd[-1:]) == alone


def test_several_prompts_and_schedules_run(llm):
    arguments = {
        "guidance_prompts": ["Poetry is", "The news today:"],
        "guidance_weights": [0.5, -0.5],
        "guidance_scale": 1.5,
        "guidance_interval": [0, 8],
        "plausibility": 0.1,
    }
    parameters = SamplingParams(temperature=0, max_tokens=TOKENS, extra_args=arguments, logprobs=2)
    off = SamplingParams(temperature=0, max_tokens=TOKENS)
    weightless = {**arguments, "guidance_interval": [50, 60], "plausibility": 0}
    idle = SamplingParams(temperature=0, max_tokens=TOKENS, extra_args=weightless)
    found = tokens(llm.generate([PAIRS[0][0]] * 3, [parameters, off, idle], use_tqdm=False))
    assert found[0] != found[1]
    assert found[1] == found[2]


def test_one_row_of_the_head_serves_a_group(llm, monkeypatch):
    """Companions pass neither head nor sampler, unless somebody needs what they say."""
    from vllm.model_executor.layers.logits_processor import LogitsProcessor

    rows: list[int] = []
    apply_head = LogitsProcessor._apply_head

    def counted(self, lm_head, hidden_states, *args):
        rows.append(len(hidden_states))
        return apply_head(self, lm_head, hidden_states, *args)

    monkeypatch.setattr(LogitsProcessor, "_apply_head", counted)
    pairs = PAIRS[:3]
    plain = SamplingParams(temperature=0, max_tokens=TOKENS)
    parameters = [*(guided(1.5, negative) for _, negative in pairs), plain]
    found = llm.generate([*(prompt for prompt, _ in pairs), "x"], parameters, use_tqdm=False)
    assert tokens(found)[:3] == [reference(prompt, negative, 1.5, TOKENS) for prompt, negative in pairs]
    assert max(rows) == 4
    rows.clear()
    penalised = [guided(1.5, negative, repetition_penalty=1.3) for _, negative in pairs]
    llm.generate([prompt for prompt, _ in pairs], penalised, use_tqdm=False)
    assert max(rows) == 6


def test_companions_end_with_the_interval(llm):
    prompt, negative = PAIRS[0]
    arguments = {"guidance_scale": 3.0, "negative_prompt": negative, "guidance_interval": [0, 4]}
    scheduler = llm.llm_engine.engine_core.engine_core.scheduler
    sizes: list[int] = []
    schedule = scheduler.schedule

    def counted(*args, **options):
        output = schedule(*args, **options)
        sizes.append(len(output.num_scheduled_tokens))
        return output

    scheduler.schedule = counted
    try:
        parameters = SamplingParams(temperature=0, max_tokens=TOKENS, ignore_eos=True, extra_args=arguments)
        found = tokens(llm.generate([prompt], [parameters], use_tqdm=False))[0]
    finally:
        del scheduler.schedule
    start = reference(prompt, negative, 3.0, TOKENS)[:4]
    assert found[:4] == start
    assert found[4:] == reference(prompt + llm.get_tokenizer().decode(start), "", 1.0, TOKENS - 4)
    assert [size for size in sizes if size] == [2] * 4 + [1] * (TOKENS - 4)


def test_marks_of_the_scheduler_cannot_be_forged(llm):
    with pytest.raises(VLLMValidationError, match="unknown argument '_guiderail'"):
        llm.generate(["x"], SamplingParams(max_tokens=1, extra_args={"_guiderail": [1, 1]}), use_tqdm=False)


def test_stop_strings_end_companions_too(llm):
    output = llm.generate([PAIRS[0][0]], [guided(1.5, PAIRS[0][1], stop=[" "], max_tokens=30)], use_tqdm=False)
    assert output[0].outputs[0].finish_reason == "stop"
    scheduler = llm.llm_engine.engine_core.engine_core.scheduler
    llm.generate(["x"], [SamplingParams(max_tokens=2)], use_tqdm=False)
    assert not scheduler.requests
    assert not scheduler._groups
    assert scheduler.kv_cache_manager.usage == 0


def test_structured_outputs_of_every_kind(llm):
    import jsonschema

    kinds = [
        {"json": SCHEMA},
        {"regex": r"(yes|no) \d{3}"},
        {"choice": ["red", "green"]},
        {"grammar": 'root ::= "hello " ("a" | "b")'},
        {"grammar": 'start: "x" /[0-9]{3}/'},
    ]
    parameters = [
        SamplingParams(temperature=0.9, max_tokens=60, structured_outputs=StructuredOutputsParams(**kind))
        for kind in kinds
    ]
    texts = [o.outputs[0].text for o in llm.generate(["Answer: "] * len(kinds), parameters, use_tqdm=False)]
    jsonschema.validate(json.loads(texts[0]), SCHEMA)
    import re

    assert re.fullmatch(r"(yes|no) \d{3}", texts[1])
    assert texts[2] in ("red", "green")
    assert texts[3] in ("hello a", "hello b")
    assert re.fullmatch(r"x[0-9]{3}", texts[4])


@pytest.mark.parametrize("choice", ["auto", "required"])
def test_tool_calls_as_vllm_writes_their_tags(llm, choice):
    import jsonschema
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionToolsParam
    from vllm.tool_parsers.structural_tag_registry import get_model_structural_tag

    function = {"name": "register", "parameters": SCHEMA, "strict": True}
    tools = [ChatCompletionToolsParam(type="function", function=function)]
    tag = get_model_structural_tag("hermes", tools, choice, reasoning=False)
    if choice == "auto":
        tag.format.at_least_one = True  # this small model would never call a tool by itself
    tag.format.stop_after_first = True
    structured = StructuredOutputsParams(structural_tag=json.dumps(tag.model_dump()))
    parameters = SamplingParams(temperature=0.9, max_tokens=80, seed=3, structured_outputs=structured)
    text = llm.generate(["Register Ann, aged 30: "], [parameters], use_tqdm=False)[0].outputs[0].text
    assert text.startswith("<tool_call>")
    assert text.endswith("</tool_call>")
    call = json.loads(text.removeprefix("<tool_call>").removesuffix("</tool_call>"))
    assert call["name"] == "register"
    jsonschema.validate(call["arguments"], SCHEMA)


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_texts_are_complete_at_max_tokens(llm, temperature):
    import jsonschema

    before = METRICS.totals()["closed_early_total"]
    lists = {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "string"}, "minItems": 2}}}
    schema = {**lists, "required": ["a"], "additionalProperties": False}
    structured = StructuredOutputsParams(json=schema)
    limits = [12, 13, 14, 15, 16, 20, 24, 30]
    # Without seeds: under chunked prefill they end vLLM's CPU build (docs/vllm.md, "Trap").
    parameters = [
        SamplingParams(temperature=temperature, max_tokens=n, min_tokens=0, structured_outputs=structured)
        for n in limits
    ]
    outputs = [o.outputs[0] for o in llm.generate([PAIRS[4][0]] * len(limits), parameters, use_tqdm=False)]
    for output, limit in zip(outputs, limits, strict=True):
        assert len(output.token_ids) <= limit
        jsonschema.validate(json.loads(output.text), schema)
    counted = METRICS.totals()["closed_early_total"] - before
    assert 0 < counted <= len(limits)


def test_an_answer_with_room_is_not_counted_as_closed(llm):
    before = METRICS.totals()["closed_early_total"]
    structured = StructuredOutputsParams(choice=["red", "green"])
    parameters = SamplingParams(temperature=0, max_tokens=40, structured_outputs=structured)
    assert llm.generate(["Colour: "], [parameters], use_tqdm=False)[0].outputs[0].text in ("red", "green")
    assert METRICS.totals()["closed_early_total"] == before


def test_drafts_that_are_taken_back_leave_limit_and_counter(llm):
    tokenizer = llm.get_tokenizer()
    backend = GuiderailBackend(llm.llm_engine.vllm_config, tokenizer, 49152)
    compiled, _ = backend.compiler.compile(RequestGrammar("regex", "[a-z]{1,40}!"))
    grammar = GuiderailGrammar(compiled.matcher(4))
    before = METRICS.totals()["closed_early_total"]
    first, word, end = (tokenizer.encode(text)[0] for text in ("a", "b", "!"))
    assert grammar.accept_tokens("r", [first])
    for _ in range(3):
        assert grammar.validate_tokens([word, word, word]) == [word, word]
        assert grammar.accept_tokens("r", [word, word])
        grammar.rollback(2)
    assert METRICS.totals()["closed_early_total"] == before
    assert grammar.accept_tokens("r", [word, word, end, tokenizer.eos_token_id])
    grammar.count_closing()
    grammar.count_closing()
    assert METRICS.totals()["closed_early_total"] == before + 1


def test_free_text_without_a_call_is_as_without_a_grammar(llm):
    tag = {"type": "tag", "begin": "<f>", "content": {"type": "json_schema", "json_schema": SCHEMA}, "end": "</f>"}
    form = {"type": "triggered_tags", "triggers": ["<f>"], "tags": [tag]}
    structured = StructuredOutputsParams(structural_tag=json.dumps({"type": "structural_tag", "format": form}))
    free = SamplingParams(temperature=0, max_tokens=TOKENS)
    auto = SamplingParams(temperature=0, max_tokens=TOKENS, structured_outputs=structured)
    found = tokens(llm.generate([PAIRS[0][0]] * 2, [free, auto], use_tqdm=False))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"structured_outputs": {"regex": "[a-z]{200}"}}, "max_tokens.*4 are allowed"),
        ({"structured_outputs": {"structural_tag": '{"format": {"type": "any_tokens"}}'}}, "/format: .*any_tokens"),
        ({"structured_outputs": {"json": {"properties": {"a": {"type": "strin"}}}}}, "/properties/a/type"),
        ({"structured_outputs": {"regex": "(a"}}, "offset 0"),
        ({"structured_outputs": {"grammar": "start: x"}}, "line 1"),
        ({"extra_args": {"guidance_scale": "3"}}, "guidance_scale"),
        ({"extra_args": {"guidance_scale": 3, "negative_prompt_ids": [10**6]}}, "not a token"),
        ({"extra_args": {"guidance_scale": 3}, "prompt_logprobs": 1}, "prompt_logprobs"),
    ],
)
def test_refusals_reach_the_caller_and_nobody_else(llm, parameters, message):
    if "structured_outputs" in parameters:
        parameters = {"structured_outputs": StructuredOutputsParams(**parameters["structured_outputs"])}
    with pytest.raises(VLLMValidationError, match=message):
        llm.generate(["x"], [SamplingParams(max_tokens=4, **parameters)], use_tqdm=False)
    assert llm.generate(["x"], [SamplingParams(max_tokens=2)], use_tqdm=False)[0].outputs[0].token_ids


def test_what_can_never_fit_is_refused_and_others_go_on(llm):
    too_long = guided(2.0, "a " * 110, max_tokens=100, structured_outputs=StructuredOutputsParams(regex="a*"))
    outputs = llm.generate(["b " * 20, PAIRS[0][0]], [too_long, guided(1.5, PAIRS[0][1])], use_tqdm=False)
    assert outputs[0].outputs[0].finish_reason == "error"
    assert "leave room for" in outputs[0].outputs[0].stop_reason
    assert tokens(outputs[1:]) == [reference(*PAIRS[0], 1.5, TOKENS)]


def test_rows_are_filled_in_one_crossing_and_counted(llm):
    parameters = SamplingParams(max_tokens=8, structured_outputs=StructuredOutputsParams(regex="[a-z]{30}"))
    llm.generate(["x"], [parameters], use_tqdm=False)  # compiled now: requests that wait for it begin one by one
    before = METRICS.totals()
    llm.generate(["x"] * 8, [parameters] * 8, use_tqdm=False)
    after = METRICS.totals()
    rows = after["fill_rows_total"] - before["fill_rows_total"]
    calls = after["fill_seconds_count"] - before["fill_seconds_count"]
    assert rows == 8 * 8
    assert calls < rows / 2
