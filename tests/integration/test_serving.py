"""Integrations with serving engines, as far as they need no engine: constraints, arguments, settings, contracts."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import guiderail as gr
from guiderail import cli
from guiderail.errors import GrammarError, SchemaError
from guiderail.integrations.llama_cpp import GrammarLogitsProcessor, vocabulary_of
from guiderail.integrations.request_grammars import RequestCompiler, RequestGrammar
from guiderail.integrations.vllm import contract, metrics, plugin
from guiderail.integrations.vllm.guidance_request import GuidanceRequest
from guiderail.integrations.vllm.serve import arguments_for_vllm
from guiderail.integrations.vllm.settings import (
    LOGITS_PROCESSOR,
    SCHEDULER,
    guide_models,
    request_obstacle,
    server_obstacle,
)

BYTES = gr.Vocabulary.from_bytes([*(bytes([b]) for b in range(256)), b"", b""], eos_token_ids=[256])


# --- constraints -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "text", "good", "bad"),
    [
        ("json", '{"type": "integer"}', "12", "1.5"),
        ("json_object", "", "{}", "[]"),
        ("regex", "a|b", "a", "c"),
        ("choice", '["x", "y"]', "y", "z"),
        ("grammar", "json", "[1]", "[1"),
        ("grammar", 'root ::= "a" b\nb ::= "c"', "ac", "a"),
        ("grammar", 'start: "a" B\nB: "c"', "ac", "a"),
        ("grammar", '// root ::= is a comment here\nstart: "::="', "::=", "a"),
    ],
)
def test_constraints_are_read(kind, text, good, bad):
    grammar = RequestGrammar(kind, text).read()
    assert grammar.accepts(good)
    assert not grammar.accepts(bad)


def test_options_of_a_schema_reach_the_grammar():
    schema = '{"properties": {"a": {"type": "integer"}}, "required": ["a"], "type": "object"}'
    assert RequestGrammar("json", schema).read().accepts('{"a": 1, "b": 2}')
    assert not RequestGrammar("json", schema, "compact").read().accepts('{"a": 1}')
    assert not RequestGrammar("json", schema, strict=True).read().accepts('{"a": 1, "b": 2}')


def test_refusals_name_the_place():
    with pytest.raises(SchemaError, match="/properties/a/type"):
        RequestGrammar("json", '{"properties": {"a": {"type": "strin"}}}').read()
    with pytest.raises(GrammarError, match="no built-in grammar"):
        RequestGrammar("grammar", "cobol").read()
    with pytest.raises(GrammarError, match="array of strings"):
        RequestGrammar("choice", '"x"').read()


@pytest.fixture
def compiler(monkeypatch):
    monkeypatch.setattr(gr.Vocabulary, "from_tokenizer", classmethod(lambda cls, tokenizer, **options: BYTES))
    return RequestCompiler(None, 258)


def test_stop_tokens_end_complete_texts_and_nothing_else(compiler):
    compiled, known = compiler.compile(RequestGrammar("regex", "ab?"), {ord("!"), 256})
    assert not known
    assert compiler.compile(RequestGrammar("regex", "ab?"), {256, ord("!")}) == (compiled, True)
    matcher = compiled.matcher()
    assert not matcher.accept_token(ord("!"))
    assert matcher.accept_token(ord("a"))
    bitmask = gr.allocate_token_bitmask(1, compiled.vocabulary)
    matcher.fill_next_token_bitmask(bitmask)
    allowed = [t for t in range(258) if bitmask[0, t // 32] >> (t % 32) & 1]
    assert allowed == [ord("!"), ord("b"), 256]
    assert matcher.accept_token(ord("!"))
    assert matcher.is_terminated


def test_refusals_are_remembered(compiler, monkeypatch):
    request = RequestGrammar("json", '{"properties": {"a": {"type": "strin"}}}')
    with pytest.raises(SchemaError, match="/properties/a/type") as first:
        compiler.compile(request)
    monkeypatch.setattr(RequestGrammar, "read", lambda self: pytest.fail("read again"))
    with pytest.raises(SchemaError, match="/properties/a/type") as second:
        compiler.compile(request)
    assert first.value is second.value


def test_kept_grammars_are_bounded(compiler):
    for number in range(200):
        compiler.compile(RequestGrammar("regex", f"a{{{number}}}"), {128 + number % 128})
    assert len(compiler._grammars) == 64
    assert len(compiler._vocabularies) == 4


# --- guidance arguments ----------------------------------------------------------------------------------------------


def test_no_guidance_is_none():
    assert GuidanceRequest.from_extra_args(None) is None
    assert GuidanceRequest.from_extra_args({"kv_transfer_params": {}}) is None
    assert GuidanceRequest.from_extra_args({"guidance_scale": 1, "negative_prompt": "x"}) is None


def test_streams_and_weights():
    request = GuidanceRequest.from_extra_args(
        {
            "guidance_scale": 3.0,
            "negative_prompt_ids": [5, 6.0],
            "guidance_prompts": ["a", "b"],
            "guidance_weights": [0.5, 0],
        }
    )
    assert request.prompts == ((5, 6), "a")
    assert request.weights == (-2.0, 0.5)
    assert request.prompt_ids([1, 2], lambda text: [9], 10) == [[5, 6], [9]]
    assert GuidanceRequest.from_extra_args({"guidance_scale": 2}).prompt_ids([1, 2], list, 10) == [[2]]


def test_schedules_follow_the_output_position():
    request = GuidanceRequest.from_extra_args({"guidance_scale": 2.0, "guidance_interval": [1, 4], "guidance_ramp": 3})
    assert [request.weights_at(t) for t in range(5)] == [[0.0], [-0.5], [-1.0], [-1.0], [0.0]]
    assert GuidanceRequest.from_extra_args({"guidance_scale": 2.0, "guidance_interval": [0, -1]}).stop is None


def test_guide_models_and_classes():
    arguments = {
        "guidance_models": ["expert", "idle", "antiexpert"],
        "guidance_model_weights": [2, 0, -2],
        "guidance_class_model": "classes",
        "guidance_desired": "good",
        "guidance_undesired": [7],
        "guidance_interval": [1, 3],
    }
    request = GuidanceRequest.from_extra_args(arguments)
    assert request.prompts == ()
    assert request.model_names == {"expert", "antiexpert", "classes"}
    assert [request.weights_at(t) for t in range(4)] == [[0.0, -0.0], [2.0, -2.0], [2.0, -2.0], [0.0, -0.0]]
    assert [request.omega_at(t) for t in range(4)] == [0.0, 30.0, 30.0, 0.0]
    assert request.class_codes(lambda text: [5], 10) == ([5], [7])
    assert (request.classes.filter_mass, request.classes.filter_threshold) == (0.2, 0.8)
    with pytest.raises(ValueError, match="2 tokens and guidance_undesired 1"):
        request.class_codes(lambda text: [5, 6], 10)
    assert GuidanceRequest.from_extra_args({**arguments, "guidance_omega": 0}).model_names == {"expert", "antiexpert"}
    off = {"guidance_models": ["a"], "guidance_model_weights": [0]}
    assert GuidanceRequest.from_extra_args(off) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"guidance_models": ["a"]}, "as many numbers"),
        ({"guidance_models": ["a", "a"], "guidance_model_weights": [1, 1]}, "twice"),
        ({"guidance_models": ["a"], "guidance_model_weights": ["1"]}, "not a finite number"),
        ({"guidance_omega": 3}, "guidance_omega needs guidance_class_model"),
        ({"guidance_class_model": "a", "guidance_desired": "b"}, "needs guidance_undesired"),
        ({"guidance_class_model": "a", "guidance_desired": "b", "guidance_undesired": [0.5]}, "token ids"),
        (
            {
                "guidance_class_model": "a",
                "guidance_desired": "b",
                "guidance_undesired": "c",
                "guidance_class_filter": [0.2, 2],
            },
            "no probabilities",
        ),
        ({"guidance_scal": 2}, "unknown guidance argument 'guidance_scal'"),
        ({"guidance_scale": "2"}, "not a finite number"),
        ({"guidance_scale": float("nan")}, "not a finite number"),
        ({"guidance_scale": True}, "not a finite number"),
        ({"negative_prompt": "x"}, "needs guidance_scale"),
        ({"guidance_scale": 2, "negative_prompt": 7}, "is a text"),
        ({"guidance_scale": 2, "negative_prompt": "x", "negative_prompt_ids": [1]}, "not both"),
        ({"guidance_scale": 2, "negative_prompt_ids": []}, "not empty"),
        ({"guidance_scale": 2, "negative_media": "grey"}, "one of blank, none"),
        ({"guidance_scale": 2, "negative_media": ["blank"]}, "one of blank, none"),
        ({"guidance_scale": 2, "negative_media": "none", "negative_prompt": "x"}, "not both"),
        ({"negative_media": "none"}, "negative_media needs guidance_scale"),
        ({"guidance_scale": 2, "negative_medium": "none"}, "unknown guidance argument 'negative_medium'"),
        ({"guidance_scale": 2, "negative_prompt_ids": [1.5]}, "token ids"),
        ({"guidance_prompts": ["a"], "guidance_weights": []}, "as many numbers"),
        ({"guidance_prompts": ["a"] * 9, "guidance_weights": [1] * 9}, "at most 8"),
        ({"guidance_scale": 2, "guidance_interval": [3, 1]}, "no interval"),
        ({"guidance_scale": 2, "guidance_interval": [0.5, 2]}, "no output positions"),
        ({"guidance_scale": 1e7}, "guidance_scale: .*exceeds 1000000"),
        ({"guidance_scale": -1e300}, "exceeds"),
        ({"guidance_prompts": ["a"], "guidance_weights": [2e6]}, "guidance_weights: .*exceeds"),
        ({"guidance_models": ["a"], "guidance_model_weights": [-2e6]}, "guidance_model_weights: .*exceeds"),
        ({"guidance_scale": 2, "guidance_ramp": -1}, "number of steps"),
        ({"guidance_scale": 2, "plausibility": 2}, "between 0 and 1"),
    ],
)
def test_malformed_guidance_is_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        GuidanceRequest.from_extra_args(arguments)


def test_prompts_that_cannot_be_tokenised_are_refused():
    empty = GuidanceRequest.from_extra_args({"guidance_scale": 2, "negative_prompt": ""})
    with pytest.raises(ValueError, match=r"no tokens.*leave negative_prompt out"):
        empty.prompt_ids([1], lambda text: [], 10)
    torn = GuidanceRequest.from_extra_args({"guidance_scale": 2, "negative_prompt": "a\ud800"})
    with pytest.raises(ValueError, match="surrogate"):
        torn.prompt_ids([1], lambda text: [1], 10)
    assert torn.texts == ["a\ud800"]


def test_tokens_that_the_model_lacks_are_refused():
    request = GuidanceRequest.from_extra_args({"guidance_scale": 2, "negative_prompt_ids": [10]})
    with pytest.raises(ValueError, match="10 is not a token"):
        request.prompt_ids([1], list, 10)


# --- settings --------------------------------------------------------------------------------------------------------


def settings(**changes):
    values = {
        "scheduler_cls": SCHEDULER,
        "logits_processors": [LOGITS_PROCESSOR],
        "use_v2_model_runner": False,
        "sharded": False,
        "additional_config": None,
        "async_scheduling": False,
        "speculative_config": None,
        "pipeline_parallel_size": 1,
        "kv_transfer_config": None,
        "is_encoder_decoder": False,
        **changes,
    }
    return SimpleNamespace(
        scheduler_config=SimpleNamespace(
            scheduler_cls=values["scheduler_cls"], async_scheduling=values["async_scheduling"], max_num_seqs=4
        ),
        model_config=SimpleNamespace(
            logits_processors=values["logits_processors"],
            is_encoder_decoder=values["is_encoder_decoder"],
            logprobs_mode="raw_logprobs",
            max_model_len=32,
        ),
        parallel_config=SimpleNamespace(
            pipeline_parallel_size=values["pipeline_parallel_size"], enable_batch_sharded_sampling=values["sharded"]
        ),
        additional_config=values["additional_config"],
        use_v2_model_runner=values["use_v2_model_runner"],
        speculative_config=values["speculative_config"],
        kv_transfer_config=values["kv_transfer_config"],
    )


def test_settings_that_guide():
    assert server_obstacle(settings()) is None
    assert server_obstacle(settings(use_v2_model_runner=True)) is None
    assert server_obstacle(settings(additional_config={"guiderail": {"guide_models": {"small": "a"}}})) is None


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        ({"scheduler_cls": None}, "--scheduler-cls"),
        ({"logits_processors": None}, "--logits-processors"),
        (
            {"use_v2_model_runner": True, "additional_config": {"guiderail": {"guide_models": {"small": "a"}}}},
            "VLLM_USE_V2_MODEL_RUNNER=0",
        ),
        ({"use_v2_model_runner": True, "sharded": True}, "--enable-batch-sharded-sampling"),
        ({"async_scheduling": True}, "--no-async-scheduling"),
        ({"speculative_config": object()}, "--speculative-config"),
        ({"pipeline_parallel_size": 2}, "--pipeline-parallel-size"),
        ({"kv_transfer_config": object()}, "--kv-transfer-config"),
        ({"is_encoder_decoder": True}, "encoder-decoder"),
    ],
)
def test_settings_that_cannot_be_right_name_the_flag(change, flag):
    assert flag in server_obstacle(settings(**change))


def test_requests_that_cannot_be_right_name_the_reason():
    plain = SimpleNamespace(prompt_logprobs=None, logprobs=None)
    assert request_obstacle(plain, settings(), [[1]]) is None
    assert "prompt_logprobs" in request_obstacle(SimpleNamespace(prompt_logprobs=1, logprobs=None), settings(), [[1]])
    assert "--logprobs-mode" in request_obstacle(SimpleNamespace(prompt_logprobs=None, logprobs=1), settings(), [[1]])
    assert "--max-num-seqs" in request_obstacle(plain, settings(), [[1]] * 4)
    assert "--max-model-len" in request_obstacle(plain, settings(), [[1] * 31])
    assert "--guide-model small=PATH" in request_obstacle(plain, settings(), [], {"small"})


def test_serve_adds_what_guidance_needs_unless_it_is_given(monkeypatch):
    monkeypatch.delenv("VLLM_USE_V2_MODEL_RUNNER", raising=False)
    arguments, environment = arguments_for_vllm("m", ["--port", "1"])
    assert arguments[:4] == ["--model", "m", "--port", "1"]
    assert json.loads(arguments[arguments.index("--structured-outputs-config") + 1]) == {"backend": "guiderail"}
    assert arguments[arguments.index("--scheduler-cls") + 1] == SCHEDULER
    assert "--no-async-scheduling" in arguments
    assert arguments[arguments.index("--tool-strict-level") + 1] == "parameter"
    assert environment["VLLM_USE_V2_MODEL_RUNNER"] == "0"
    arguments, environment = arguments_for_vllm("m", ["--no-guidance", "--structured-outputs-config={}"])
    assert arguments == ["--model", "m", "--structured-outputs-config={}", "--tool-strict-level", "parameter"]
    assert "VLLM_USE_V2_MODEL_RUNNER" not in environment


def test_serve_names_guide_models():
    arguments, _ = arguments_for_vllm("m", ["--guide-model", "small=/a=b", "--guide-model=classes=c", "--port", "1"])
    assert arguments[:4] == ["--model", "m", "--port", "1"]
    config = json.loads(arguments[arguments.index("--additional-config") + 1])
    assert config == {"guiderail": {"guide_models": {"small": "/a=b", "classes": "c"}}}
    assert guide_models(SimpleNamespace(additional_config=config)) == {"small": "/a=b", "classes": "c"}
    assert guide_models(SimpleNamespace(additional_config={"other": 1})) == {}
    for wrong in (["--guide-model"], ["--guide-model", "a"], ["--guide-model=a=b", "--guide-model=a=c"]):
        with pytest.raises(ValueError, match="NAME=PATH"):
            arguments_for_vllm("m", wrong)
    with pytest.raises(ValueError, match="--additional-config: put"):
        arguments_for_vllm("m", ["--guide-model=a=b", "--additional-config={}"])
    with pytest.raises(ValueError, match="--no-guidance exclude"):
        arguments_for_vllm("m", ["--guide-model=a=b", "--no-guidance"])
    with pytest.raises(ValueError, match="guide_models"):
        guide_models(SimpleNamespace(additional_config={"guiderail": {"guide_models": ["a"]}}))


def test_serve_refuses_what_excludes_guidance(capsys):
    assert cli.main(["serve", "m", "--speculative-config", "{}"]) == 2
    assert "remove --speculative-config" in capsys.readouterr().err


def test_serve_leaves_the_runner_that_is_set(monkeypatch):
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "1")
    assert arguments_for_vllm("m", [])[1] == {"VLLM_USE_V2_MODEL_RUNNER": "1"}


# --- the plugin ------------------------------------------------------------------------------------------------------


def test_registering_in_an_unknown_vllm_warns_and_changes_nothing(monkeypatch, caplog):
    monkeypatch.setattr(plugin, "_registered", False)
    monkeypatch.setitem(sys.modules, "vllm", types.SimpleNamespace(__version__="9.9.0"))
    assert plugin.register() is False
    assert "vLLM is 9.9.0" in caplog.text


def test_an_interface_that_moved_is_named(monkeypatch):
    module = types.ModuleType("moved_interface")
    exec("class A:\n def f(self, a, b): ...\n def g(self, a, *, c=1): ...", module.__dict__)
    monkeypatch.setitem(sys.modules, "moved_interface", module)
    recorded = {
        "moved_interface:A.f": ("self", "a"),
        "moved_interface:A.g": ("self", "a"),
        "moved_interface:A.h": ("self",),
        "no_such_module_here:A": (),
    }
    monkeypatch.setattr(contract, "INTERFACES", recorded)
    found = contract.differences()
    assert [line.split("(")[0].split(": ")[0] for line in found] == [
        "moved_interface:A.f",
        "moved_interface:A.h",
        "no_such_module_here:A",
    ]


def test_counters_of_processes_are_summed(monkeypatch, tmp_path):
    monkeypatch.setenv(metrics.DIRECTORY, str(tmp_path))
    counters = metrics.Metrics()
    counters.add("fill_rows_total", 3)
    other = np.zeros(len(metrics.COUNTERS))
    other[list(metrics.COUNTERS).index("fill_rows_total")] = 4
    other.tofile(tmp_path / "other.counters")
    (tmp_path / "older.counters").write_bytes(b"12345678")
    assert counters.totals()["fill_rows_total"] == 7
    with pytest.raises(KeyError):
        counters.add("no_such_counter")


# --- SGLang, against its interface classes ---------------------------------------------------------------------------


def recorded_sglang(monkeypatch):
    """Stand-ins with the members that SGLang 0.5.23's classes have, and its registry."""
    registry = {}
    base = types.ModuleType("sglang.srt.constrained.base_grammar_backend")

    class BaseGrammarObject:
        def __init__(self):
            self.grammar_stats = None
            self.current_token = None

    class InvalidGrammarObject(BaseGrammarObject):
        def __init__(self, error_message="Unknown grammar error"):
            super().__init__()
            self.error_message = error_message

    base.BaseGrammarObject = BaseGrammarObject
    base.InvalidGrammarObject = InvalidGrammarObject
    base.BaseGrammarBackend = type("BaseGrammarBackend", (), {})
    base.GrammarStats = type("GrammarStats", (), {})
    base.register_grammar_backend = registry.__setitem__
    return base, registry


def installed_sglang(monkeypatch):
    """SGLang's own file of interface classes; what that imports of its server is left empty."""
    found = importlib.util.find_spec("sglang")
    if found is None or found.origin is None:
        pytest.skip("SGLang is not installed; `make vllm-test` has an environment with its files")
    for name, members in {
        "parser.reasoning_parser": ["ReasoningParser"],
        "runtime_context": ["get_context", "get_exec", "get_resources", "get_serving"],
        "server_args": ["ServerArgs"],
    }.items():
        module = types.ModuleType(f"sglang.srt.{name}")
        module.__dict__.update(dict.fromkeys(members, object))
        monkeypatch.setitem(sys.modules, module.__name__, module)
    path = Path(found.origin).parent / "srt" / "constrained" / "base_grammar_backend.py"
    spec = importlib.util.spec_from_file_location("sglang.srt.constrained.base_grammar_backend", path)
    base = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, base.__name__, base)
    spec.loader.exec_module(base)
    return base, base.GRAMMAR_BACKEND_REGISTRY


@pytest.fixture(params=[recorded_sglang, installed_sglang])
def sglang_backend(request, monkeypatch):
    base, registry = request.param(monkeypatch)
    for name in ("sglang", "sglang.srt", "sglang.srt.constrained"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, base.__name__, base)
    monkeypatch.delitem(sys.modules, "guiderail.integrations.sglang", raising=False)
    monkeypatch.setattr(gr.Vocabulary, "from_tokenizer", classmethod(lambda cls, tokenizer, **options: BYTES))
    import guiderail.integrations.sglang as integration

    integration.register()
    with pytest.raises(ValueError, match="--reasoning-parser"):
        registry["guiderail"](types.SimpleNamespace(reasoning_parser="qwen3"), None, 258, {256})
    yield registry["guiderail"](None, None, 258, {256})
    sys.modules.pop("guiderail.integrations.sglang", None)


def test_sglang_requests(sglang_backend):
    grammar = sglang_backend.dispatch_json('{"type": "boolean"}')
    first, second = grammar.copy(), grammar.copy()
    mask = first.allocate_vocab_mask(258, 3, "cpu")
    for token in b"fals":
        second.accept_token(token)
    Entry = types.SimpleNamespace
    first.fill_vocab_mask_batched([Entry(row=2, grammar=first), Entry(row=0, grammar=second)], mask)
    logits = torch.zeros(3, 258)
    first.apply_vocab_mask(logits, mask)
    assert (logits[2] == 0).nonzero().flatten().tolist() == sorted(b" \t\n\rtf")
    assert (logits[0] == 0).nonzero().flatten().tolist() == [ord("e")]
    assert bool((logits[1] == 0).all())
    second.accept_token(ord("e"))
    second.accept_token(256)
    assert second.is_terminated()
    second.rollback(2)
    with pytest.raises(ValueError, match="not allowed"):
        second.accept_token(ord("x"))


def test_sglang_refusals_carry_the_message(sglang_backend):
    refused = sglang_backend.dispatch_json('{"type": "strin"}')
    assert "SchemaError" in refused.error_message
    assert "/type" in refused.error_message
    assert "GrammarError" in sglang_backend.dispatch_regex("(").error_message
    assert sglang_backend.dispatch_ebnf('root ::= "a"').copy().is_terminated() is False
    assert sglang_backend.dispatch_json("$$ANY$$").try_jump_forward(None) is None


# --- llama-cpp-python ------------------------------------------------------------------------------------------------


class Llama:
    """The members of a llama_cpp.Llama that the vocabulary is read from."""

    def n_vocab(self):
        return 258

    def token_eos(self):
        return 256

    def detokenize(self, tokens):
        return b"".join(bytes([token]) if token < 256 else b"" for token in tokens)


def test_llama_cpp_loop():
    vocabulary = vocabulary_of(Llama())
    processor = GrammarLogitsProcessor(gr.compile(gr.Grammar.from_regex("yes|no"), vocabulary))
    for _ in range(2):  # a second completion begins anew
        ids = [1, 2]
        while ids[-1] != 256:
            scores = processor(np.array(ids, dtype=np.intc), np.arange(258, dtype=np.single))
            ids.append(int(scores.argmax()))
        assert bytes(ids[2:-1]) == b"yes"
    processor(np.array([1], dtype=np.intc), np.zeros(258, dtype=np.single))
    with pytest.raises(gr.DeadEndError, match="was not allowed"):
        processor(np.array([1, 7], dtype=np.intc), np.zeros(258, dtype=np.single))
