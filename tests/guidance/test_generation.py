"""Our own loop: equal to the reference token for token, exact under speculation, and cheaper where it claims to be."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from guidance import models
from guidance.constraints import AutomatonConstraint, TokenNames, record
from guidance.rule_cases import BY_NAME, CASES, NEGATIVE, Case
from guiderail import guidance as gr
from guiderail.errors import DeadEndError, LimitError
from guiderail.guidance.streams import Row
from guiderail.integrations.generation import GuidedDecoder, generate, guided_decoding
from guiderail.integrations.transformers_guidance import GuidanceLogitsProcessor
from guiderail.logits import Sampling
from oracles import guidance_reference as reference

STEPS = 7


def masked(guided, constraint):
    """Reference: the guided row with what the constraint forbids at -inf."""

    def row(generated: tuple[int, ...]) -> np.ndarray:
        matcher = constraint.matcher()
        assert all(matcher.accept_token(token) for token in generated)
        scores = guided(generated).copy()
        legal = matcher.legal()
        scores[[token for token in range(len(scores)) if token not in legal]] = -math.inf
        return scores

    return row


@pytest.mark.parametrize(
    ("case", "speculate", "draft"),
    [(case, 0, "conditional") for case in CASES]
    + [(case, 3, draft) for case in CASES[::3] for draft in ("conditional", "lookup")],
    ids=str,
)
def test_greedy_rows_of_different_lengths(case: Case, speculate: int, draft: str) -> None:
    model, rows = models.llama(), models.prompts(41, (6, 2, 4))
    decoder = GuidedDecoder(model, case.term(), eos_token_ids=[], speculate=speculate, draft=draft)
    agreement = reference.Agreement()
    for index, generation in enumerate(decoder.decode(rows, STEPS)):
        assert len(generation.token_ids) == STEPS
        reference.check_greedy(case.reference(model, rows[index], index), generation.token_ids, None, agreement)
    assert agreement.ties <= agreement.steps // 10


@pytest.mark.parametrize("jump", ["single", "canonical", "off"])
@pytest.mark.parametrize(("speculate", "draft"), [(0, "conditional"), (2, "conditional"), (2, "lookup")])
@pytest.mark.parametrize("name", ["classifier-free", "null only", "inverted", "gedi", "sum of two"])
def test_greedy_under_a_constraint(name: str, speculate: int, draft: str, jump: str) -> None:
    model, rows, case = models.llama(), models.prompts(42, (5, 3)), BY_NAME[name]
    constraint = record(models.VOCAB, models.EOS)
    decoder = GuidedDecoder(model, case.term(), constraint, jump_forward=jump, speculate=speculate, draft=draft)
    for index, generation in enumerate(decoder.decode(rows, 12)):
        guided = masked(case.reference(model, rows[index], index), constraint)
        assert generation.finish_reason == "end"
        reference.check_greedy(guided, [*generation.token_ids, models.EOS], models.EOS, reference.Agreement())
    assert (decoder.counts.forced == 0) == (jump == "off")


def test_a_model_is_not_asked_where_one_token_is_legal() -> None:
    model, rows, constraint = models.llama(), models.prompts(43, (5,)), record(models.VOCAB, models.EOS)
    passes = {}
    for jump in ("off", "single"):
        decoder = GuidedDecoder(model, gr.ClassifierFree(2.0, NEGATIVE), constraint, jump_forward=jump)
        (generation,) = decoder.decode(rows, 12)
        passes[jump] = decoder.engine.runner().counts.passes
        tokens = generation.token_ids
    # brackets, the first comma and the end are forced: what remains are the values and the choice after the second
    decided = sum(token >= 20 for token in tokens) + 1
    assert passes["single"] == decided
    assert passes["off"] == len(tokens) + 1
    assert generation.forced == len(tokens) - decided


def test_the_constraint_closes_in_time() -> None:
    model, rows, constraint = models.llama(), models.prompts(44, (5,)), record(models.VOCAB, models.EOS)
    decoder = GuidedDecoder(model, (), constraint, close_in_time=True)
    (generation,) = decoder.decode(rows, 6)
    assert (generation.finish_reason, len(generation.token_ids)) == ("end", 6)
    with pytest.raises(LimitError):
        decoder.decode(rows, 5)
    (cut,) = GuidedDecoder(model, (), constraint).decode(rows, 5)
    assert (cut.finish_reason, len(cut.token_ids)) == ("length", 5)


def test_own_loop_and_processor_agree_on_constrained_guidance() -> None:
    model, rows, constraint = models.llama(), models.prompts(45, (5, 3)), record(models.VOCAB, models.EOS)
    term = gr.ClassifierFree(1.8, NEGATIVE, plausibility=0.3)
    ours = [generation.token_ids for generation in GuidedDecoder(model, term, constraint).decode(rows, 12)]
    processor = GuidanceLogitsProcessor(term, model=model, constraint=constraint)
    output = model.generate(
        **models.left_padded(rows),
        logits_processor=[processor],
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=models.EOS,
    )[:, 5:]
    theirs = [row[: row.index(models.EOS)] for row in output.tolist()]
    assert ours == theirs
    beams = model.generate(
        **models.left_padded(rows),
        logits_processor=[processor],
        max_new_tokens=12,
        num_beams=3,
        do_sample=False,
        eos_token_id=models.EOS,
    )[:, 5:]
    for row in beams.tolist():
        matcher = constraint.matcher()
        assert all(matcher.accept_token(token) for token in row[: row.index(models.EOS) + 1])
        assert matcher.is_terminated


def test_one_constraint_per_prompt() -> None:
    model, rows = models.llama(), models.prompts(46, (5, 3))
    only = [
        AutomatonConstraint({0: {token: 1}}, frozenset({1}), models.EOS, TokenNames(models.VOCAB)) for token in (7, 9)
    ]
    generations = GuidedDecoder(model, gr.ClassifierFree(2.0), only).decode(rows, 4, num_return_sequences=2)
    assert [generation.token_ids for generation in generations] == [[7], [7], [9], [9]]
    processor = GuidanceLogitsProcessor(gr.ClassifierFree(2.0), model=model, constraint=only)
    output = model.generate(
        **models.left_padded(rows),
        logits_processor=[processor],
        max_new_tokens=2,
        eos_token_id=models.EOS,
        do_sample=False,
    )
    assert output[:, 5:].tolist() == [[7, models.EOS], [9, models.EOS]]
    three = GuidanceLogitsProcessor(gr.ClassifierFree([1.5, 2.0, 2.5]), model=model, constraint=only)
    with pytest.raises(ValueError, match="different lengths"):
        model.generate(**models.left_padded(rows), logits_processor=[three], max_new_tokens=2, do_sample=False)


def far_from_likely(prompt: list[int]) -> tuple[AutomatonConstraint, np.ndarray, list[int]]:
    """One token out of the dozen least likely, then the end; with the scores they have."""
    scores = reference.log_softmax(reference.stream(models.llama(), prompt)(()))
    worst = np.argsort(scores)[:12].tolist()
    edges = {0: dict.fromkeys(worst, 1)}
    return AutomatonConstraint(edges, frozenset({1}), models.EOS, TokenNames(models.VOCAB)), scores, worst


def test_plausibility_is_taken_among_legal_tokens() -> None:
    """Taken over everything it would keep nothing legal, and the filter would be lost where it is needed most."""
    model, rows = models.llama(), models.prompts(47, (5,))
    constraint, scores, worst = far_from_likely(rows[0])
    chosen = {}
    for plausibility in (None, 1.0):
        term = gr.ClassifierFree(6.0, NEGATIVE, plausibility=plausibility)
        (generation,) = GuidedDecoder(model, term, constraint).decode(rows, 3)
        (chosen[plausibility],) = generation.token_ids
    assert chosen[1.0] == max(worst, key=lambda token: scores[token])
    assert chosen[None] != chosen[1.0]


def test_filters_never_empty_what_is_legal() -> None:
    """A nucleus of the base alone and a plausible set may have no legal token in common, or none at all."""
    model, rows = models.llama(), models.prompts(47, (5,))
    constraint, _, worst = far_from_likely(rows[0])
    term = gr.DExperts(models.llama(1), models.llama(2), 0.5, base_top_p=0.0) + gr.DoLa([0, 1], plausibility=1.0)
    for sampling in (Sampling(), Sampling(do_sample=True, top_k=1)):
        (generation,) = GuidedDecoder(model, term, constraint, sampling).decode(rows, 3)
        assert generation.token_ids[0] in worst


def test_a_dead_end_is_an_error_and_not_a_random_token() -> None:
    constraint = AutomatonConstraint({0: {5: 1}, 1: {}}, frozenset(), models.EOS, TokenNames(models.VOCAB))
    decoder = GuidedDecoder(models.llama(), gr.ClassifierFree(2.0), constraint)
    constraint.shortest = lambda state, seen=frozenset(): 0  # an engine that promises what it cannot keep
    with pytest.raises(DeadEndError):
        decoder.decode([[3, 4]], 4)


@pytest.mark.parametrize("draft", ["conditional", "lookup"])
@pytest.mark.parametrize("constrained", [False, True])
def test_speculative_sampling_has_exactly_the_guided_distribution(constrained: bool, draft: str) -> None:
    """Draws of two tokens against the enumerated distribution: as far from it as a true sample is."""
    model, row, case = models.llama(), models.prompts(48, (4,))[0], BY_NAME["inverted"]
    if draft == "lookup":
        row = [6, 9, 6, 9]  # what followed 9 was 6, then 9
    legal = list(range(5, 17)) if constrained else list(range(models.VOCAB))
    constraint = None
    if constrained:
        edges = {0: dict.fromkeys(legal, 1), 1: dict.fromkeys(legal, 2), 2: {}}
        constraint = AutomatonConstraint(edges, frozenset({2}), models.EOS, TokenNames(models.VOCAB))
    temperature = 2.0  # flat enough for many outcomes to matter

    def exact(guided) -> np.ndarray:
        def row_of(generated: tuple[int, ...]) -> np.ndarray:
            scores = np.full(models.VOCAB, -math.inf)
            scores[legal] = guided(generated)[legal] / temperature
            return np.exp(reference.log_softmax(scores))

        return np.stack([row_of(())[a] * row_of((a,)) for a in range(models.VOCAB)]).ravel()

    target = exact(case.reference(model, row, 0))
    draws = 1_500
    decoder = GuidedDecoder(
        model,
        case.term(),
        constraint,
        Sampling(do_sample=True, temperature=temperature),
        eos_token_ids=[],
        speculate=2,
        draft=draft,
        generator=torch.Generator().manual_seed(1),
    )
    counts = np.zeros(models.VOCAB**2)
    for generation in decoder.decode([row], 2, num_return_sequences=draws):
        a, b = generation.token_ids
        counts[a * models.VOCAB + b] += 1
    assert 0 < decoder.counts.accepted < decoder.counts.drafted
    # For rare outcomes a binomial is not normal, so the yardstick is simulated too.
    rng = np.random.default_rng(0)
    simulated = [0.5 * np.abs(rng.multinomial(draws, target) / draws - target).sum() for _ in range(200)]
    distance = 0.5 * np.abs(counts / draws - target).sum()
    assert distance < max(simulated)
    proposal = exact(lambda generated: reference.log_softmax(reference.stream(model, row)(generated)))
    assert 0.5 * np.abs(proposal - target).sum() > 2 * max(simulated)  # drafts taken as they come would fail


@pytest.mark.parametrize(("name", "draft"), [("experts", "conditional"), ("gedi", "lookup")])
def test_speculation_is_exact_over_several_rounds_with_penalties_and_truncation(name: str, draft: str) -> None:
    """Four tokens out of three, all 81 outcomes: the last tokens depend on drafts kept and rejected before them."""
    model, row, case = models.llama(), [6, 7, 6, 7, 5], BY_NAME[name]
    legal, length, draws = [5, 6, 7], 4, 1_000
    edges = {place: dict.fromkeys(legal, place + 1) for place in range(length)} | {length: {}}
    constraint = AutomatonConstraint(edges, frozenset({length}), models.EOS, TokenNames(models.VOCAB))
    sampling = Sampling(do_sample=True, temperature=3.0, top_k=30, top_p=0.97, repetition_penalty=1.1)
    guided = case.reference(model, row, 0)

    def probabilities(generated: tuple[int, ...]) -> np.ndarray:
        scores = guided(generated).copy()
        scores[sorted({*row, *generated})] *= 1.1
        scores[[token for token in range(len(scores)) if token not in legal]] = -math.inf
        shown = np.exp(reference.log_softmax(scores / 3.0))
        order = np.argsort(-shown, kind="stable")
        kept = order[: int((np.cumsum(shown[order]) - shown[order] < 0.97).sum())]
        result = np.zeros(len(shown))
        result[kept] = shown[kept] / shown[kept].sum()
        return result

    target: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(length):
        rows = {text: probabilities(text) for text in target}
        target = {(*text, v): p * rows[text][v] for text, p in target.items() for v in legal}
    decoder = GuidedDecoder(
        model, case.term(), constraint, sampling, speculate=2, draft=draft, generator=torch.Generator().manual_seed(2)
    )
    counts = dict.fromkeys(target, 0)
    for generation in decoder.decode([row], length, num_return_sequences=draws):
        counts[tuple(generation.token_ids)] += 1
    assert 0 < decoder.counts.accepted < decoder.counts.drafted
    wanted, got = np.array(list(target.values())), np.array(list(counts.values())) / draws
    rng = np.random.default_rng(0)
    simulated = [0.5 * np.abs(rng.multinomial(draws, wanted) / draws - wanted).sum() for _ in range(200)]
    assert 0.5 * np.abs(got - wanted).sum() < max(simulated)


def test_what_is_forced_or_has_occurred_is_read_in_one_pass() -> None:
    """Guesses cost no pass: the brackets of the record, and a text that repeats itself."""
    model, rows, constraint = models.llama(), models.prompts(42, (5,)), record(models.VOCAB, models.EOS)
    passes = {}
    for speculate in (0, 4):
        decoder = GuidedDecoder(
            model, gr.ClassifierFree(1.5), constraint, jump_forward="off", speculate=speculate, draft="lookup"
        )
        (generation,) = decoder.decode(rows, 12)
        passes[speculate] = decoder.engine.runner().counts.passes, generation.token_ids
    assert passes[0][1] == passes[4][1]
    assert passes[4][0] <= 0.6 * passes[0][0]
    assert 0 < decoder.counts.accepted <= decoder.counts.drafted


def test_speculation_reads_a_draft_in_one_pass_of_the_other_models() -> None:
    model, rows = models.llama(), models.prompts(49, (5,))
    term = gr.DExperts(models.llama(1), models.llama(2), 0.05)
    decoder = GuidedDecoder(model, term, eos_token_ids=[], speculate=3)
    decoder.decode(rows, 12)
    plain = GuidedDecoder(model, term, eos_token_ids=[])
    plain.decode(rows, 12)
    expert, expert_plain = (d.engine.runner(models.llama(1)).counts for d in (decoder, plain))
    assert expert_plain.passes == 12
    assert expert.passes == decoder.counts.steps < 12
    assert expert.tokens <= 5 + 12 + decoder.counts.drafted - decoder.counts.accepted + decoder.counts.steps
    assert decoder.counts.accepted > 0


def test_a_null_stream_that_waits_for_a_draft_keeps_its_states() -> None:
    model, rows = models.llama(), models.prompts(50, (5, 4))
    decoder = GuidedDecoder(model, gr.ClassifierFree(1.1, NEGATIVE), eos_token_ids=[], speculate=3)
    decoder.decode(rows, 12)
    assert decoder.engine.runner().counts.prefills <= 2


@pytest.mark.parametrize("order", [False, True])
def test_truncation_order_and_seeded_sampling(order: bool) -> None:
    model, rows, case = models.llama(), models.prompts(51, (4,)), BY_NAME["classifier-free"]
    sampling = Sampling(True, 0.7, top_k=9, top_p=0.8, truncate_before_temperature=order)
    decoders = [GuidedDecoder(model, case.term(), sampling=sampling, eos_token_ids=[]) for _ in range(2)]
    first, second = (decoder.decode(rows, STEPS)[0].token_ids for decoder in decoders)
    assert first == second
    guided = case.reference(model, rows[0], 0)
    for step, token in enumerate(first):
        row = guided(tuple(first[:step]))
        ordered = np.argsort(-row)[:9]
        shown = row if order else row / 0.7
        probabilities = np.exp(reference.log_softmax(shown[ordered]))
        kept = ordered[: int((np.cumsum(probabilities) - probabilities < 0.8).sum())]
        assert token in kept


def test_repetition_penalty_comes_after_guidance_and_before_the_mask() -> None:
    scores = torch.log_softmax(torch.tensor([[2.0, 1.9, 0.0, 0.0]]), -1)
    legal = torch.tensor([[True, True, False, True]])
    probabilities = Sampling(do_sample=True, repetition_penalty=3.0).probabilities(scores, [[0, 0, 2]], legal)
    expected = scores.clone()
    expected[0, [0, 2]] *= 3.0
    expected[0, 2] = -math.inf
    torch.testing.assert_close(probabilities, expected.softmax(-1))
    assert Sampling(repetition_penalty=3.0).probabilities(scores, [[0]], legal).argmax() == 1


def test_streaming_reports_every_token_once_and_in_order() -> None:
    model, rows, constraint = models.llama(), models.prompts(52, (5, 3)), record(models.VOCAB, models.EOS)
    for speculate in (0, 3):
        seen: dict[int, list[int]] = {0: [], 1: []}
        decoder = GuidedDecoder(model, gr.ClassifierFree(1.5, NEGATIVE), constraint, speculate=speculate)
        generations = decoder.decode(rows, 12, on_tokens=lambda index, tokens, seen=seen: seen[index].extend(tokens))
        assert seen == {index: generation.token_ids for index, generation in enumerate(generations)}


@pytest.mark.parametrize("family", ["gpt2", "mistral"])
def test_other_position_schemes_with_ragged_rows(family: str) -> None:
    model, rows, case = getattr(models, family)(), models.prompts(53, (7, 2, 3)), BY_NAME["sum of two"]
    constraint = record(models.VOCAB, models.EOS)
    for speculate in (0, 2):
        decoder = GuidedDecoder(model, case.term(), constraint, speculate=speculate)
        for index, generation in enumerate(decoder.decode(rows, 12)):
            guided = masked(case.reference(model, rows[index], index), constraint)
            reference.check_greedy(guided, [*generation.token_ids, models.EOS], models.EOS, reference.Agreement())


@pytest.mark.parametrize("case", CASES[::2], ids=repr)
@pytest.mark.parametrize("speculate", [0, 2])
def test_static_cache(case: Case, speculate: int) -> None:
    """Rows that end early, drafts that are rejected and skipped streams, all in slots that never move."""
    model, rows = models.llama(), models.prompts(58, (6, 2, 4))
    constraint = record(models.VOCAB, models.EOS)
    decoder = GuidedDecoder(model, case.term(), constraint, speculate=speculate, cache="static")
    for index, generation in enumerate(decoder.decode(rows, 12)):
        assert generation.finish_reason == "end"
        (plain,) = GuidedDecoder(model, case.term(), constraint).decode([rows[index]], 12)
        assert generation.token_ids == plain.token_ids
    if not speculate:
        unconstrained = GuidedDecoder(model, case.term(), eos_token_ids=[], cache="static")
        for index, generation in enumerate(unconstrained.decode(rows, STEPS)):
            guided = case.reference(model, rows[index], index)
            reference.check_greedy(guided, generation.token_ids, None, reference.Agreement())


def test_a_static_cache_that_is_full_is_filled_again() -> None:
    model, rows, case = models.llama(), models.prompts(59, (5, 3)), BY_NAME["sum of two"]
    decoder = GuidedDecoder(model, case.term(), eos_token_ids=[], cache="static")
    for index, generation in enumerate(decoder.decode(rows, 150)):
        guided = case.reference(model, rows[index], index)
        reference.check_greedy(guided, generation.token_ids[:STEPS], None, reference.Agreement())
    runner = decoder.engine.runner()
    assert runner.counts.prefills == 1
    runner.reserve(0)
    decoder.engine.reset()
    longer = Row(tuple(rows[0]), tuple([7] * 5), 0)
    for extra in range(130):
        longer = Row(longer.prompt, (*longer.generated, 7 + extra % 3), 0)
        scores = decoder.engine.evaluate([longer])
    torch.testing.assert_close(
        scores[0].double().numpy(), case.reference(model, rows[0], 0)(longer.generated), atol=2e-3, rtol=1e-3
    )
    assert runner.counts.prefills > 2


@pytest.mark.slow
def test_compiled_decoding_passes() -> None:
    """Traced by torch.compile as on a GPU, then run as they are (backend "eager" needs no C++ compiler)."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model, rows, case = models.llama(), models.prompts(60, (5, 3)), BY_NAME["sum of two"]
    decoder = GuidedDecoder(model, case.term(), eos_token_ids=[], cache="static", compile_options={"backend": "eager"})
    for index, generation in enumerate(decoder.decode(rows, STEPS)):
        guided = case.reference(model, rows[index], index)
        reference.check_greedy(guided, generation.token_ids, None, reference.Agreement())
    counters = torch._dynamo.utils.counters
    assert counters["stats"]["unique_graphs"] > 0
    assert counters["stats"]["unique_graphs"] <= 3


def test_what_cannot_be_static_is_refused() -> None:
    with pytest.raises(ValueError, match="fixed size"):
        GuidedDecoder(models.mistral(), gr.ClassifierFree(2.0), cache="static").decode([[3, 4]], 2)
    with pytest.raises(ValueError, match="only 'static' can be compiled"):
        GuidedDecoder(models.llama(), compile_options={})


@pytest.mark.parametrize("speculate", [0, 2])
def test_encoder_decoder(speculate: int) -> None:
    model, sources = models.t5(), [[*row, models.EOS] for row in models.prompts(54, (5, 3))]
    decoder = GuidedDecoder(model, gr.ClassifierFree(1.4, NEGATIVE), eos_token_ids=[], speculate=speculate)
    for source, generation in zip(sources, decoder.decode(sources, STEPS), strict=True):
        c = reference.encoder_decoder_stream(model, source, [models.PAD])
        u = reference.encoder_decoder_stream(model, NEGATIVE, [models.PAD])
        reference.check_greedy(
            lambda generated, c=c, u=u: reference.affine([c(generated), u(generated)], [1.4, -0.4]),
            generation.token_ids,
            None,
            reference.Agreement(),
        )


class Letters:
    """A tokenizer for tests: one token per capital letter."""

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": [3 + (ord(letter) - 65) % 26 for letter in text]}

    def decode(self, tokens: list[int], skip_special_tokens: bool = False) -> str:
        return "".join(chr(65 + token - 3) for token in tokens if token >= 3)

    def apply_chat_template(self, chat, add_generation_prompt: bool, tokenize: bool) -> str:
        return "".join(message["content"] for message in chat)


def test_generate_takes_texts_chats_and_ids() -> None:
    model, tokenizer, term = models.llama(), Letters(), gr.ClassifierFree(1.5, negative_prompt="NO")
    text = generate(model, tokenizer, "HELLO", guidance=term, max_new_tokens=4)
    assert isinstance(text, str)
    ids = tokenizer("HELLO")["input_ids"]
    assert generate(model, tokenizer, ids, guidance=[term], max_new_tokens=4) == text
    assert generate(model, tokenizer, torch.tensor(ids), guidance=[term], max_new_tokens=4) == text
    assert generate(model, tokenizer, [{"role": "user", "content": "HELLO"}], guidance=term, max_new_tokens=4) == text
    both = generate(model, tokenizer, ["HELLO", "YOU"], guidance=term, max_new_tokens=4)
    assert both[0] == text
    assert both == generate(model, tokenizer, torch.tensor([ids, ids]), guidance=term, max_new_tokens=4)[:1] + both[1:]
    sampled = generate(model, tokenizer, "HELLO", do_sample=True, seed=3, num_return_sequences=3, max_new_tokens=4)
    assert len(sampled) == 3
    again = generate(model, tokenizer, "HELLO", do_sample=True, seed=3, num_return_sequences=3, max_new_tokens=4)
    assert sampled == again
    details = generate(
        model,
        tokenizer,
        "HELLO",
        constraint=record(models.VOCAB, models.EOS),
        max_new_tokens=9,
        return_generations=True,
    )
    assert details[0].text == TokenNames(models.VOCAB).decode(details[0].token_ids).decode()
    with pytest.raises(ValueError, match="no prompt"):
        generate(model, tokenizer, [])


def test_as_a_decoding_method_of_transformers() -> None:
    model, rows, constraint = models.llama(), models.prompts(55, (5, 3)), record(models.VOCAB, models.EOS)
    settings = {"custom_generate": guided_decoding, "max_new_tokens": 12}
    term = gr.ClassifierFree([1.5, 3.0], NEGATIVE)
    seen: dict[int, list[int]] = {0: [], 1: []}
    output = model.generate(
        **models.left_padded(rows), **settings, do_sample=False, guidance=[term], constraint=constraint, speculate=2,
        cache="static", on_tokens=lambda index, tokens: seen[index].extend(tokens),
    )  # fmt: skip
    ours = [generation.token_ids for generation in GuidedDecoder(model, term, constraint).decode(rows, 12)]
    for index, row in enumerate(output[:, 5:].tolist()):
        assert row == ours[index] + [models.EOS] + [models.PAD] * (len(row) - len(ours[index]) - 1)
        assert seen[index] == ours[index]
    torch.manual_seed(0)
    first = model.generate(
        **models.left_padded(rows), **settings, do_sample=True, num_return_sequences=2, guidance=term
    )
    torch.manual_seed(0)
    again = model.generate(
        **models.left_padded(rows), **settings, do_sample=True, num_return_sequences=2, guidance=term
    )
    assert first.shape == (4, 17)
    assert first.tolist() == again.tolist()
    processor = GuidanceLogitsProcessor(term, model=model)
    with pytest.raises(ValueError, match="GuidanceLogitsProcessor"):
        model.generate(**models.left_padded(rows), **settings, do_sample=False, logits_processor=[processor])


def test_equal_to_plain_generate_without_guidance() -> None:
    model, rows = models.llama(), models.prompts(56, (5, 3))
    plain = model.generate(**models.left_padded(rows), max_new_tokens=STEPS, do_sample=False)
    ours = model.generate(
        **models.left_padded(rows), max_new_tokens=STEPS, do_sample=False, custom_generate=guided_decoding
    )
    assert ours.tolist() == plain.tolist()


def test_early_layers_come_from_the_conditional_pass() -> None:
    model, rows = models.llama(), models.prompts(57, (5,))
    decoder = GuidedDecoder(model, gr.DoLa([0, 1]), eos_token_ids=[])
    decoder.decode(rows, STEPS)
    counts = decoder.engine.runner().counts
    assert (counts.passes, counts.rows) == (STEPS, STEPS)
