"""GuidanceLogitsProcessor inside `model.generate`, token for token against the reference that recomputes everything."""

from __future__ import annotations

import copy
import gc
import math
import weakref

import numpy as np
import pytest
import torch

from guidance import models
from guidance.rule_cases import BY_NAME, CASES, NEGATIVE, Case
from guiderail import guidance as gr
from guiderail.integrations import shared_pass
from guiderail.integrations.transformers_guidance import GuidanceLogitsProcessor
from oracles import guidance_reference as reference

STEPS = 7


def generate(model, term, inputs, **settings) -> torch.Tensor:
    processor = GuidanceLogitsProcessor(term, model=model)
    output = model.generate(
        **inputs, logits_processor=[processor], max_new_tokens=STEPS, min_new_tokens=STEPS, **settings
    )
    return output[:, inputs["input_ids"].shape[1] :] if not model.config.is_encoder_decoder else output[:, 1:]


def assert_greedy(case: Case, model, rows: list[list[int]], produced: torch.Tensor) -> None:
    agreement = reference.Agreement()
    repeats = len(produced) // len(rows)
    for index, tokens in enumerate(produced.tolist()):
        prompt = rows[index // repeats]
        reference.check_greedy(case.reference(model, prompt, index // repeats), tokens, None, agreement)
    assert agreement.ties <= agreement.steps // 10


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_greedy_batch_with_left_padding(case: Case) -> None:
    model, rows = models.llama(), models.prompts(1, (6, 3, 4))
    assert_greedy(case, model, rows, generate(model, case.term(), models.left_padded(rows), do_sample=False))


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_seeded_sampling_equals_sampling_from_the_reference(case: Case) -> None:
    """The same random numbers must pick the same tokens: draw from the reference with a cloned generator."""
    model, rows = models.llama(), models.prompts(2, (4, 5))
    torch.manual_seed(99)
    produced = generate(model, case.term(), models.left_padded(rows), do_sample=True, top_k=0)
    torch.manual_seed(99)
    generated: list[tuple[int, ...]] = [(), ()]
    guided = [case.reference(model, row, index) for index, row in enumerate(rows)]
    for _ in range(STEPS):
        scores = torch.tensor(np.stack([guided[i](generated[i]) for i in range(2)]), dtype=torch.float32)
        drawn = torch.multinomial(scores.softmax(-1), 1).squeeze(1).tolist()
        generated = [(*tokens, token) for tokens, token in zip(generated, drawn, strict=True)]
    assert [tuple(row) for row in produced.tolist()] == generated


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("negative", [2, 9], ids=["shorter negative", "longer negative"])
def test_the_models_own_scores_stay_what_they_are_beside_streams(beams: int, negative: int) -> None:
    """One prompt, nothing padded: `generate` may run without a mask; the gap beside longer streams must stay hidden."""
    model, (row, other) = models.llama(), models.prompts(12, (4, negative))
    processor = GuidanceLogitsProcessor(gr.ClassifierFree(2.0, other), model=model)
    output = model.generate(
        torch.tensor([row]),
        attention_mask=torch.ones(1, len(row), dtype=torch.long),
        logits_processor=[processor],
        max_new_tokens=STEPS,
        num_beams=beams,
        do_sample=False,
        eos_token_id=None,
        return_dict_in_generate=True,
        output_logits=True,
    )
    assert processor.engine.runner().counts.shared == STEPS - 1
    with torch.no_grad():
        alone = model(output.sequences[:1]).logits[0]
    beam = output.beam_indices[0].tolist() if beams > 1 else [0] * STEPS
    for step in range(STEPS):
        torch.testing.assert_close(output.logits[step][beam[step]], alone[len(row) + step - 1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", CASES[::2], ids=repr)
def test_beams(case: Case) -> None:
    model, rows = models.llama(), models.prompts(3, (5, 2))
    processor = GuidanceLogitsProcessor(case.term(), model=model)
    output = model.generate(
        **models.left_padded(rows),
        logits_processor=[processor],
        max_new_tokens=5,
        num_beams=3,
        num_return_sequences=2,
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
        length_penalty=0.0,
    )
    produced = output.sequences[:, 5:].tolist()
    for index, row in enumerate(rows):
        searched = reference.beam_search(case.reference(model, row, index), 3, 5)
        if case.name == "off":  # hands raw log-softmax through
            assert output.sequences_scores.isfinite().all()
        for rank in range(2):
            want_score, want = searched[rank]
            got_score = float(output.sequences_scores[2 * index + rank])
            if tuple(produced[2 * index + rank]) != want:
                assert got_score == pytest.approx(want_score, abs=1e-3)
            assert got_score == pytest.approx(want_score, abs=1e-3)


def test_several_sequences_per_prompt_and_per_prompt_scales_and_negatives() -> None:
    model, rows = models.llama(), models.prompts(4, (4, 6))
    scales, negatives = [0.5, 2.5], [[5, 9], [7, 3, 4]]
    padded = models.left_padded(negatives)
    term = gr.ClassifierFree(torch.tensor(scales), padded["input_ids"], padded["attention_mask"])
    torch.manual_seed(5)
    produced = generate(model, term, models.left_padded(rows), do_sample=True, top_k=0, num_return_sequences=2)
    torch.manual_seed(5)
    generated: list[tuple[int, ...]] = [()] * 4
    for _ in range(STEPS):
        scores = []
        for i, tokens in enumerate(generated):
            c = reference.stream(model, rows[i // 2])(tokens)
            u = reference.stream(model, negatives[i // 2])(tokens)
            scores.append(reference.affine([c, u], [scales[i // 2], 1 - scales[i // 2]]))
        drawn = torch.multinomial(torch.tensor(np.stack(scores)).float().softmax(-1), 1).squeeze(1).tolist()
        generated = [(*tokens, token) for tokens, token in zip(generated, drawn, strict=True)]
    assert [tuple(row) for row in produced.tolist()] == generated


@pytest.mark.parametrize("name", ["classifier-free", "gedi", "dola", "experts", "interval", "skipped layer"])
@pytest.mark.parametrize("drafts", ["assistant", "prompt lookup"])
def test_assisted_decoding(name: str, drafts: str) -> None:
    case, model, rows = BY_NAME[name], models.llama(), [[4, 5, 6, 7, 4, 5, 6]]
    settings = {"assistant_model": models.llama(3)} if drafts == "assistant" else {"prompt_lookup_num_tokens": 3}
    produced = generate(model, case.term(), models.left_padded(rows), do_sample=False, **settings)
    assert_greedy(case, model, rows, produced)


def test_assisted_sampling_with_the_model_as_its_own_assistant() -> None:
    case, model, rows = BY_NAME["classifier-free"], models.llama(), models.prompts(6, (5,))
    assistant = models.llama(3)
    torch.manual_seed(0)
    produced = generate(
        model, case.term(), models.left_padded(rows), do_sample=True, top_k=0, assistant_model=assistant
    )
    guided = case.reference(model, rows[0], 0)
    for step in range(STEPS):
        row = guided(tuple(produced[0, :step].tolist()))
        assert row[produced[0, step]] > -20


@pytest.mark.slow
def test_assisted_sampling_has_the_guided_distribution() -> None:
    """Two tokens out of four, against the enumerated distribution; the assistant's drafts are far from it."""
    case, model, row = BY_NAME["inverted"], models.llama(), models.prompts(6, (5,))[0]
    allowed, draws = [5, 6, 7, 8], 400
    guided = case.reference(model, row)

    def probabilities(generated: tuple[int, ...]) -> np.ndarray:
        return np.exp(reference.log_softmax(guided(generated)[allowed] / 3.0))

    target = np.stack([probabilities(())[i] * probabilities((token,)) for i, token in enumerate(allowed)]).ravel()
    processor = GuidanceLogitsProcessor(case.term(), model=model)
    counts = np.zeros(16)
    torch.manual_seed(0)
    for _ in range(draws):
        a, b = model.generate(
            **models.left_padded([row]), logits_processor=[processor], assistant_model=models.llama(3), do_sample=True,
            temperature=3.0, top_k=0, max_new_tokens=2, min_new_tokens=2,
            suppress_tokens=[token for token in range(models.VOCAB) if token not in allowed],
        )[0, 5:].tolist()  # fmt: skip
        counts[4 * allowed.index(a) + allowed.index(b)] += 1
    rng = np.random.default_rng(0)
    simulated = [0.5 * np.abs(rng.multinomial(draws, target) / draws - target).sum() for _ in range(200)]
    assert 0.5 * np.abs(counts / draws - target).sum() < max(simulated)
    drafts = np.exp(reference.log_softmax(reference.stream(models.llama(3), row)(())[allowed] / 3.0))
    assert 0.5 * np.abs(drafts - probabilities(())).sum() > 2 * max(simulated)


@pytest.mark.parametrize("name", ["classifier-free", "sum of two", "gedi", "context-aware"])
def test_static_cache(name: str) -> None:
    case, model, rows = BY_NAME[name], models.llama(), models.prompts(7, (6, 3))
    produced = generate(model, case.term(), models.left_padded(rows), do_sample=False, cache_implementation="static")
    assert_greedy(case, model, rows, produced)


@pytest.mark.parametrize("family", ["gpt2", "mistral"])
@pytest.mark.parametrize("name", ["classifier-free", "sum of two", "signed prompts", "inverted"])
def test_other_position_schemes(family: str, name: str) -> None:
    case, model, rows = BY_NAME[name], getattr(models, family)(), models.prompts(8, (7, 3))
    produced = generate(model, case.term(), models.left_padded(rows), do_sample=False)
    assert_greedy(case, model, rows, produced)


def t5_reference(model, source: list[int], null: list[int], scale: float):
    c = reference.encoder_decoder_stream(model, source, [models.PAD])
    u = reference.encoder_decoder_stream(model, null, [models.PAD])
    return lambda generated: reference.affine([c(generated), u(generated)], [scale, 1 - scale])


@pytest.mark.parametrize("null", ["end token", "negative prompt"])
def test_encoder_decoder(null: str) -> None:
    model, sources = models.t5(), [[*row, models.EOS] for row in models.prompts(9, (5, 3))]
    term = gr.ClassifierFree(2.0) if null == "end token" else gr.ClassifierFree(2.0, [*NEGATIVE, models.EOS])
    produced = generate(model, term, models.right_padded(sources), do_sample=False)
    agreement = reference.Agreement()
    for source, tokens in zip(sources, produced.tolist(), strict=True):
        null_source = [models.EOS] if null == "end token" else [*NEGATIVE, models.EOS]
        reference.check_greedy(t5_reference(model, source, null_source, 2.0), tokens, None, agreement)


def test_encoder_decoder_beams() -> None:
    model, sources = models.t5(), [[*row, models.EOS] for row in models.prompts(10, (5, 3))]
    output = model.generate(
        **models.right_padded(sources),
        logits_processor=[GuidanceLogitsProcessor(gr.ClassifierFree(1.5, NEGATIVE), model=model)],
        max_new_tokens=4,
        num_beams=3,
        do_sample=False,
        length_penalty=0.0,
        return_dict_in_generate=True,
        output_scores=True,
    )
    for index, source in enumerate(sources):
        score, _ = reference.beam_search(t5_reference(model, source, NEGATIVE, 1.5), 3, 4)[0]
        assert float(output.sequences_scores[index]) == pytest.approx(score, abs=1e-3)


def test_an_expert_reads_the_source_of_an_encoder_decoder() -> None:
    model, weak, sources = models.t5(), models.t5(1), [[*row, models.EOS] for row in models.prompts(11, (5, 3))]
    produced = generate(model, gr.Realignment(weak, 1.6), models.right_padded(sources), do_sample=False)
    agreement = reference.Agreement()
    for source, tokens in zip(sources, produced.tolist(), strict=True):
        c = reference.encoder_decoder_stream(model, source, [models.PAD])
        u = reference.encoder_decoder_stream(weak, source, [models.PAD])
        reference.check_greedy(
            lambda generated, c=c, u=u: reference.affine([c(generated), u(generated)], [1.6, -0.6]),
            tokens,
            None,
            agreement,
        )


@pytest.mark.parametrize("scale", [0.0, 0.7, 1.3, 4.0])
@pytest.mark.parametrize("sampling", [False, True])
def test_equal_to_transformers_where_it_is_right(scale: float, sampling: bool) -> None:
    """Its own guidance is right for one unpadded prompt and for unpadded batches without beams."""
    model, rows = models.llama(), models.prompts(12, (5, 5))
    inputs = models.left_padded(rows)
    negative = torch.tensor([NEGATIVE, NEGATIVE])
    torch.manual_seed(3)
    theirs = model.generate(
        **inputs, guidance_scale=scale, negative_prompt_ids=negative, max_new_tokens=STEPS, do_sample=sampling, top_k=0
    )[:, 5:]
    torch.manual_seed(3)
    ours = generate(model, gr.ClassifierFree(scale, NEGATIVE), inputs, do_sample=sampling, top_k=0)
    assert theirs.tolist() == ours.tolist()


def test_right_where_transformers_pads_its_negative_prompt_wrong() -> None:
    """A left-padded negative prompt gets no position ids there; here the padding does not change a single score."""
    model, rows = models.gpt2(), models.prompts(13, (5,))
    inputs = models.left_padded(rows)
    ragged = torch.tensor([[models.PAD] * 3 + NEGATIVE])
    mask = torch.tensor([[0] * 3 + [1] * 4])
    ours = generate(model, gr.ClassifierFree(2.0, ragged, mask), inputs, do_sample=False)
    plain = generate(model, gr.ClassifierFree(2.0, NEGATIVE), inputs, do_sample=False)
    assert ours.tolist() == plain.tolist()


def test_one_processor_serves_many_calls() -> None:
    model = models.llama()
    term = gr.ClassifierFree(2.0) + gr.ContextAware(0.5, NEGATIVE)
    shared = GuidanceLogitsProcessor(term, model=model)
    for seed, lengths in ((20, (4, 6)), (21, (3,)), (22, (5, 5, 2)), (20, (4, 6))):
        inputs = models.left_padded(models.prompts(seed, lengths))
        reused = model.generate(**inputs, logits_processor=[shared], max_new_tokens=STEPS, do_sample=False)
        fresh = model.generate(
            **inputs,
            logits_processor=[GuidanceLogitsProcessor(term, model=model)],
            max_new_tokens=STEPS,
            do_sample=False,
        )
        assert reused.tolist() == fresh.tolist()


def test_a_prompt_that_continues_the_last_output_is_a_new_prompt() -> None:
    """The null stream is the last prompt token, so where the prompt ends matters; chats feed answers back."""
    model = models.llama()
    processor = GuidanceLogitsProcessor(gr.ClassifierFree(2.0), model=model)
    prompt = torch.tensor(models.prompts(23, (4,)))
    for _ in range(3):
        output = model.generate(prompt, logits_processor=[processor], max_new_tokens=3, do_sample=False)
        case = BY_NAME["classifier-free"]
        guided = case.reference(model, prompt[0].tolist(), 0)
        scale_two = _scaled(model, prompt[0].tolist(), 2.0)
        assert guided is not None
        reference.check_greedy(scale_two, output[0, prompt.shape[1] :].tolist(), None, reference.Agreement())
        prompt = output


def _scaled(model, prompt: list[int], scale: float):
    c, u = reference.stream(model, prompt), reference.stream(model, prompt[-1:])
    return lambda generated: reference.affine([c(generated), u(generated)], [scale, 1 - scale])


def test_weights_that_change_between_calls_are_not_remembered() -> None:
    torch.manual_seed(0)
    model = type(models.llama())(models.llama().config).eval()
    processor = GuidanceLogitsProcessor(gr.ClassifierFree(2.0, NEGATIVE), model=model)
    inputs = models.left_padded(models.prompts(24, (5,)))
    model.generate(**inputs, logits_processor=[processor], max_new_tokens=4, do_sample=False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    reused = model.generate(**inputs, logits_processor=[processor], max_new_tokens=4, do_sample=False)
    fresh = GuidanceLogitsProcessor(gr.ClassifierFree(2.0, NEGATIVE), model=model)
    assert (
        reused.tolist()
        == model.generate(**inputs, logits_processor=[fresh], max_new_tokens=4, do_sample=False).tolist()
    )


def test_without_a_cache() -> None:
    case, model, rows = BY_NAME["classifier-free"], models.llama(), models.prompts(25, (4, 6))
    produced = generate(model, case.term(), models.left_padded(rows), do_sample=False, use_cache=False)
    assert_greedy(case, model, rows, produced)


def test_streams_of_one_model_share_a_pass_and_off_costs_nothing() -> None:
    model, inputs = models.llama(), models.left_padded(models.prompts(26, (4, 4)))
    term = gr.ClassifierFree(2.0, NEGATIVE) + gr.Prompts([([6], -0.5)]) + gr.Perturbed(gr.SkipLayers((0,)))
    processor = GuidanceLogitsProcessor(term, model=model)
    model.generate(**inputs, logits_processor=[processor], max_new_tokens=STEPS, do_sample=False)
    counts = processor.engine.runner().counts
    # A term with a perturbed stream runs a pass of its own for each token; the others are rows of generate's passes.
    assert (counts.passes, counts.prefills, counts.shared) == (STEPS, 1, 0)
    # After the prefill one token per row: 2 sequences x 3 streams; equal prefixes at the start are evaluated once.
    assert counts.tokens <= (4 + 1 + 4) * 2 + 6 * (STEPS - 1)
    off = GuidanceLogitsProcessor(gr.ClassifierFree(1.0, NEGATIVE), model=model)
    plain = model.generate(**inputs, max_new_tokens=STEPS, do_sample=False)
    assert (
        model.generate(**inputs, logits_processor=[off], max_new_tokens=STEPS, do_sample=False).tolist()
        == plain.tolist()
    )
    assert not off.engine.runners or off.engine.runner().counts.passes == 0
    scores = torch.randn(2, models.VOCAB)
    assert torch.equal(off(inputs["input_ids"], scores), scores)


def test_streams_are_computed_in_the_passes_that_generate_runs_anyway() -> None:
    model, inputs = models.llama(), models.left_padded(models.prompts(26, (6, 2)))
    fixed = {"max_new_tokens": STEPS, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    passes = []
    handle = model.register_forward_hook(lambda module, args, output: passes.append(output.logits.shape[0]))
    try:
        processor = GuidanceLogitsProcessor(gr.ClassifierFree(2.0, NEGATIVE) + gr.Prompts([([6], -0.5)]), model=model)
        guided = model.generate(**inputs, logits_processor=[processor], **fixed)
    finally:
        handle.remove()
    counts = processor.engine.runner().counts
    assert (counts.passes, counts.shared) == (1, STEPS - 1)
    # generate's prefill, ours (the two rows share both prompts), then two rows of its own and two of each stream
    assert passes == [2, 2] + [6] * (STEPS - 1)
    # What generate sees of its own rows is what it would have computed itself.
    forced = model.generate(
        **inputs,
        logits_processor=[
            lambda ids, scores: torch.full_like(scores, -1e9).scatter(1, guided.sequences[:, ids.shape[1]][:, None], 0)
        ],
        **fixed,
    )
    assert forced.sequences.tolist() == guided.sequences.tolist()
    torch.testing.assert_close(torch.stack(guided.logits), torch.stack(forced.logits), atol=1e-4, rtol=1e-4)
    assert guided.past_key_values.get_seq_length() == forced.past_key_values.get_seq_length()
    for ours, theirs in zip(guided.past_key_values.layers, forced.past_key_values.layers, strict=True):
        assert ours.keys.shape == theirs.keys.shape
        torch.testing.assert_close(ours.values[0], theirs.values[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("settings", [{"output_hidden_states": True}, {"use_cache": False}], ids=str)
def test_passes_that_are_more_than_a_decoding_step_are_left_alone(settings: dict[str, object]) -> None:
    model, rows, case = models.llama(), models.prompts(26, (6, 2)), BY_NAME["classifier-free"]
    processor = GuidanceLogitsProcessor(case.term(), model=model)
    output = model.generate(
        **models.left_padded(rows), logits_processor=[processor], max_new_tokens=STEPS, do_sample=False,
        return_dict_in_generate=True, **settings,
    )  # fmt: skip
    assert processor.engine.runner().counts.shared == 0
    assert_greedy(case, model, rows, output.sequences[:, 6:])
    assert all(layer.shape[0] == 2 for step in output.hidden_states or () for layer in step)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(
    "negative", [NEGATIVE, [5, 9, 13, 4, 8, 6, 7, 9, 11, 12]], ids=["short", "longer than the prompts"]
)
@pytest.mark.parametrize(
    "settings",
    [
        {"cache_implementation": "static"},
        {"num_beams": 4, "num_return_sequences": 2},
        {"cache_implementation": "static", "num_beams": 4, "num_return_sequences": 2},
    ],
    ids=["static cache", "beams", "beams, static cache"],
)
def test_beams_and_static_caches_share_their_passes_too(
    settings: dict[str, object], negative: list[int], attention: str
) -> None:
    model, rows = copy.deepcopy(models.llama()), models.prompts(3, (5, 3))
    model.set_attn_implementation(attention)
    inputs, fixed = models.left_padded(rows), {"max_new_tokens": STEPS, "do_sample": False, **settings}
    processor = GuidanceLogitsProcessor(gr.ClassifierFree(2.0, negative), model=model)
    guided = model.generate(**inputs, logits_processor=[processor], **fixed)
    counts = processor.engine.runner().counts
    assert (counts.passes, counts.shared) == (1, STEPS - 1)
    # Another model of the same weights is no guest: its streams have passes of their own.
    apart = GuidanceLogitsProcessor(
        gr.WeightedStreams({gr.Stream(gr.prompt_tokens(negative), copy.deepcopy(model)): -1.0}), model=model
    )
    assert model.generate(**inputs, logits_processor=[apart], **fixed).tolist() == guided.tolist()
    assert all(runner.counts.shared == 0 for runner in apart.engine.runners)


def test_a_wrong_guess_about_the_next_rows_costs_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that cannot be told apart in the cache: the streams' rows are computed once in vain."""
    monkeypatch.setattr(shared_pass, "_marks", lambda cache: torch.zeros(4, 1))
    model, rows = models.llama(), models.prompts(3, (5,))
    processor = GuidanceLogitsProcessor(gr.ClassifierFree(2.0, NEGATIVE), model=model)
    found = model.generate(
        **models.left_padded(rows), logits_processor=[processor], max_new_tokens=STEPS, num_beams=4, do_sample=False
    )
    counts = processor.engine.runner().counts
    assert counts.passes > 1
    assert counts.passes + counts.shared == STEPS + 1
    monkeypatch.undo()
    again = model.generate(
        **models.left_padded(rows), logits_processor=[processor], max_new_tokens=STEPS, num_beams=4, do_sample=False
    )
    assert again.tolist() == found.tolist()


def test_nothing_is_kept_when_a_call_is_over() -> None:
    model, inputs = models.llama(), models.left_padded(models.prompts(26, (6, 2)))
    processor = GuidanceLogitsProcessor(gr.ClassifierFree(2.0, NEGATIVE), model=model)
    states: list[weakref.ref[torch.Tensor]] = []

    def watched(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        states.extend(
            weakref.ref(layer.keys)
            for batch in processor.engine.runner()._batches.values()
            for layer in batch.cache.layers
        )
        return scores

    model.generate(**inputs, logits_processor=[processor, watched], max_new_tokens=STEPS, do_sample=False)
    gc.collect()
    assert len(states) == 2 * STEPS
    assert not any(reference() is not None for reference in states)


def test_a_skipped_stream_catches_up_by_one_prefill() -> None:
    model, inputs = models.llama(), models.left_padded(models.prompts(27, (5,)))
    term = gr.ClassifierFree(lambda step: 3.0 if step in (0, 6) else 1.0, NEGATIVE)
    processor = GuidanceLogitsProcessor(term, model=model)
    model.generate(**inputs, logits_processor=[processor], max_new_tokens=STEPS, do_sample=False)
    counts = processor.engine.runner().counts
    assert (counts.passes, counts.tokens) == (2, len(NEGATIVE) + 6)


def test_adaptive_stop_saves_passes_and_its_state_follows_the_tokens() -> None:
    model, inputs = models.llama(), models.left_padded(models.prompts(28, (5,)))
    term = gr.ClassifierFree(1.5, NEGATIVE, stop=gr.AdaptiveStop(threshold=0.7, patience=2, probe_every=4))
    processor = GuidanceLogitsProcessor(term, model=model)
    output = model.generate(**inputs, logits_processor=[processor], max_new_tokens=12, do_sample=False)
    # Jensen-Shannon divergence never exceeds log 2 < 0.7: quiet at 0 and 1, then only probes at 5 and 9. At 1 the null
    # stream is one token behind and is computed in the model's own pass.
    assert (processor.engine.runner().counts.passes, processor.engine.runner().counts.shared) == (3, 1)
    model.generate(**inputs, logits_processor=[processor], max_new_tokens=12, num_beams=2, do_sample=False)
    again = model.generate(**inputs, logits_processor=[processor], max_new_tokens=12, do_sample=False)
    assert again.tolist() == output.tolist()


def test_bans_of_earlier_processors_survive() -> None:
    model, inputs = models.llama(), models.left_padded(models.prompts(29, (5, 3)))
    for scale in (-2.0, 0.0, 3.0):
        output = model.generate(
            **inputs,
            logits_processor=[GuidanceLogitsProcessor(gr.ClassifierFree(scale, NEGATIVE), model=model)],
            max_new_tokens=STEPS,
            do_sample=True,
            suppress_tokens=list(range(3, 30)),
        )[:, 5:]
        assert not set(range(3, 30)) & set(output.flatten().tolist())


def test_half_precision_models() -> None:
    model = models.llama(5)
    half = type(model)(model.config).to(torch.bfloat16).eval()
    inputs = models.left_padded(models.prompts(30, (5, 3)))
    processor = GuidanceLogitsProcessor(gr.ClassifierFree(3.0, NEGATIVE), model=half)
    guided = half.generate(
        **inputs, logits_processor=[processor], max_new_tokens=3, do_sample=False, output_scores=True,
        return_dict_in_generate=True,
    )  # fmt: skip
    assert all(scores.dtype == torch.float32 for scores in guided.scores)
    torch.testing.assert_close(guided.scores[0].logsumexp(-1), torch.zeros(2), atol=1e-4, rtol=0)


def test_refusals() -> None:
    model = models.llama()
    with pytest.raises(ValueError, match="tokenizer"):
        GuidanceLogitsProcessor(gr.ClassifierFree(negative_prompt="no"), model=model)
    with pytest.raises(ValueError, match="finite"):
        generate(model, gr.ClassifierFree(math.nan, NEGATIVE), models.left_padded([[3, 4]]), do_sample=False)
    with pytest.raises(ValueError, match="shared out"):
        generate(model, gr.ClassifierFree([1.5, 2.0]), models.left_padded([[3], [4], [5]]), do_sample=False)
    with pytest.raises(ValueError, match="different lengths"):
        generate(model, gr.ClassifierFree([1.5, 2.0], [[3], [4], [5]]), models.left_padded([[3], [4]]), do_sample=False)
    term = gr.ClassifierFree(2.0, null_inputs=gr.blank("pixel_values"))
    with pytest.raises(ValueError, match="inputs besides"):
        generate(model, term, models.left_padded([[3]]), do_sample=False)
    with pytest.raises(ValueError, match="not padding"):
        gr.ClassifierFree(2.0, [[3]], [[0]])


def test_text_prompts_need_only_a_tokenizer() -> None:
    class Letters:
        def __call__(self, text: str) -> dict[str, list[int]]:
            return {"input_ids": [3 + ord(letter) % 30 for letter in text]}

    model, inputs = models.llama(), models.left_padded(models.prompts(31, (5,)))
    term = gr.ClassifierFree(2.0, negative_prompt="bad")
    processor = GuidanceLogitsProcessor(term, model=model, tokenizer=Letters())
    by_text = model.generate(**inputs, logits_processor=[processor], max_new_tokens=4, do_sample=False)
    by_ids = generate(model, gr.ClassifierFree(2.0, Letters()("bad")["input_ids"]), inputs, do_sample=False)
    assert by_text[:, 5:].tolist() == by_ids[:, :4].tolist()


def test_a_model_does_not_keep_its_processors() -> None:
    model = models.llama()
    before = len(model._forward_pre_hooks)
    processor = GuidanceLogitsProcessor(gr.ClassifierFree(2.0), model=model)
    watched = weakref.ref(processor)
    assert len(model._forward_pre_hooks) == before + 1
    del processor
    gc.collect()
    assert watched() is None
    assert len(model._forward_pre_hooks) == before


def test_two_processors_on_one_model_do_not_confuse_each_other() -> None:
    model, rows = models.llama(), models.prompts(32, (6, 3))
    chain = [
        GuidanceLogitsProcessor(gr.ClassifierFree(2.0, NEGATIVE), model=model),
        GuidanceLogitsProcessor(gr.Realignment(models.llama(1), 1.5) + gr.ClassifierFree(1.2, [9, 9]), model=model),
    ]
    output = model.generate(
        **models.left_padded(rows), logits_processor=chain, max_new_tokens=STEPS, do_sample=False
    )[:, 6:]  # fmt: skip
    for prompt, tokens in zip(rows, output.tolist(), strict=True):
        c, n = reference.stream(model, prompt), reference.stream(model, NEGATIVE)
        weak, other = reference.stream(models.llama(1), prompt), reference.stream(model, [9, 9])

        def guided(generated, c=c, n=n, weak=weak, other=other) -> np.ndarray:
            first = reference.affine([c(generated), n(generated)], [2.0, -1.0])
            return reference.affine([first, weak(generated), other(generated)], [1.7, -0.5, -0.2])

        reference.check_greedy(guided, tokens, None, reference.Agreement())
