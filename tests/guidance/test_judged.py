"""Terms with a judge, and nulls that must have been trained, against the formulas written out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from guidance import models
from guidance.constraints import record
from guidance.rule_cases import NEGATIVE
from guiderail import guidance as gr
from guiderail.integrations.generation import GuidedDecoder
from guiderail.integrations.transformers_guidance import GuidanceLogitsProcessor
from oracles import guidance_reference as reference

STEPS = 6


def decode(term, rows, constraint=None, **settings):
    decoder = GuidedDecoder(models.llama(), term, constraint, eos_token_ids=[], **settings)
    return decoder, [generation.token_ids for generation in decoder.decode(rows, STEPS)]


def log_attribute(text: tuple[int, ...]) -> float:
    """A made-up attribute: texts whose ids sum to a multiple of three have it, mostly."""
    return math.log(0.9 if sum(text) % 3 == 0 else 0.05)


@pytest.mark.parametrize("speculate", [0, 3])
def test_fudge_asks_about_the_best_candidates_only(speculate: int) -> None:
    rows, asked = models.prompts(70, (5, 3)), []

    def classify(texts):
        asked.append(len(texts))
        return [log_attribute(text) for text in texts]

    _, outputs = decode(gr.PrefixClassifier(classify, [2.0, 0.0], candidates=4), rows, speculate=speculate)
    assert set(asked) == {4}
    for prompt, tokens, weight in zip(rows, outputs, (2.0, 0.0), strict=True):
        stream = reference.stream(models.llama(), prompt)

        def guided(generated, stream=stream, prompt=prompt, weight=weight):
            base = reference.log_softmax(stream(generated))
            if weight == 0:
                return base
            row = np.full(len(base), -math.inf)
            for token in np.argsort(-base)[:4]:
                row[token] = base[token] + weight * log_attribute((*prompt, *generated, int(token)))
            return row

        reference.check_greedy(guided, tokens, None, reference.Agreement())


def test_fudge_takes_its_candidates_among_legal_tokens() -> None:
    constraint = record(models.VOCAB, models.EOS)
    term = gr.PrefixClassifier(lambda texts: [log_attribute(text) for text in texts], 3.0, candidates=2)
    decoder = GuidedDecoder(models.llama(), term, constraint)
    assert all(generation.finish_reason == "end" for generation in decoder.decode(models.prompts(71, (4, 6)), 12))
    wrong = GuidedDecoder(models.llama(), gr.PrefixClassifier(lambda texts: [math.nan] * len(texts)), eos_token_ids=[])
    with pytest.raises(ValueError, match="a number for each"):
        wrong.decode([[3]], 2)


@pytest.mark.parametrize("through", ["loop", "processor"])
def test_the_confusable_class_is_what_guidance_moves_away_from(through: str) -> None:
    others, asked = {"news": [5, 9], "poem": [7, 3, 4]}, []

    def probabilities(text):
        return {"mail": (sum(text) % 5) / 5, "news": 0.4 if text[-1] % 2 else 0.1, "poem": 0.2}

    def classify(text):
        asked.append(text)
        return probabilities(text)

    term, rows = gr.ConfusableClass(others, classify, "mail", 3.0), models.prompts(72, (5, 4))
    if through == "loop":
        _, outputs = decode(term, rows)
        assert len(asked) == len(set(asked))
    else:
        processor = GuidanceLogitsProcessor(term, model=models.llama())
        inputs = models.left_padded(rows)
        outputs = (
            models.llama()
            .generate(**inputs, logits_processor=[processor], max_new_tokens=STEPS, do_sample=False)[:, 5:]
            .tolist()
        )
    for prompt, tokens in zip(rows, outputs, strict=True):

        def guided(generated, prompt=prompt):
            given = probabilities((*prompt, *generated))
            name = max(others, key=lambda other: given[other])
            strength = 2.0 * (1 - given["mail"])
            streams = [reference.stream(models.llama(), prefix)(generated) for prefix in (prompt, others[name])]
            return reference.affine(streams, [1 + strength, -strength])

        reference.check_greedy(guided, tokens, None, reference.Agreement())
    with pytest.raises(ValueError, match="every class"):
        decode(gr.ConfusableClass(others, lambda text: {"mail": 1.0}, "mail"), rows)


@pytest.mark.parametrize("speculate", [0, 2])
def test_online_feedback_keeps_the_scale_its_scorer_liked_best(speculate: int) -> None:
    scales, rows = (0.0, 1.0, 4.0), models.prompts(73, (5, 4))

    def score(texts):
        return [float((sum(text) * 7919) % 101) for text in texts]

    _, outputs = decode(gr.OnlineFeedback(scales, score, 3, negative_prompt_ids=NEGATIVE), rows, speculate=speculate)
    used = set()
    for prompt, tokens in zip(rows, outputs, strict=True):
        streams = [reference.stream(models.llama(), prefix) for prefix in (prompt, NEGATIVE)]

        def at(generated, scale, streams=streams):
            return reference.affine([stream(generated) for stream in streams], [scale, 1 - scale])

        chosen = 1.0
        for step, token in enumerate(tokens):
            before = tuple(tokens[:step])
            if step % 3 == 0:
                rated = [score([(*prompt, *before, int(at(before, scale).argmax()))])[0] for scale in scales]
                chosen = scales[int(np.argmax(rated))]
                used.add(chosen)
            row = at(before, chosen)
            assert row.max() - row[token] < 1e-4
    assert len(used) > 1


def test_schedules_per_request() -> None:
    rows, schedules = models.prompts(74, (5, 3)), [gr.schedules.interval(3.0, 1, 3), lambda step: 0.5]
    _, outputs = decode(gr.ClassifierFree(schedules, NEGATIVE), rows)
    for prompt, tokens, schedule in zip(rows, outputs, schedules, strict=True):
        streams = [reference.stream(models.llama(), prefix) for prefix in (prompt, NEGATIVE)]

        def guided(generated, streams=streams, schedule=schedule):
            scale = schedule(len(generated))
            return reference.affine([stream(generated) for stream in streams], [scale, 1 - scale])

        reference.check_greedy(guided, tokens, None, reference.Agreement())


def test_nulls_that_were_not_trained_are_refused() -> None:
    model, blank = models.llama(), gr.blank("pixel_values")
    both = gr.ClassifierFree(2.0, null_inputs=blank, drops={"image", "text"})
    for use in (GuidedDecoder, lambda model, term, **named: GuidanceLogitsProcessor(term, model=model, **named)):
        with pytest.raises(ValueError, match=r"image \+ text"):
            use(model, both, trained_nulls=[{"image"}, {"text"}])
        with pytest.raises(ValueError, match="drops"):
            use(model, gr.ClassifierFree(2.0, null_inputs=blank), trained_nulls=[{"image"}])
        use(model, both, trained_nulls=[{"text", "image"}])
        use(model, gr.ClassifierFree(2.0, NEGATIVE) + gr.Perturbed(gr.SkipLayers((0,))), trained_nulls=[])
        use(model, both)
