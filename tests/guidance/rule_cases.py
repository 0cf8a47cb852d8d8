"""Every guidance term next to the brute-force formula it must equal, on decoder-only models and encoder-decoders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from guidance import models
from guiderail import guidance as gr
from guiderail.logits import nested_weights
from oracles import guidance_reference as reference

Row = reference.Row
Guided = Callable[[tuple[int, ...]], Row]
Other = Callable[[int], torch.nn.Module]
Make = Callable[[torch.nn.Module, list[int]], reference.NextLogits]
NEGATIVE = [5, 9, 13, 4]
SECOND = [6, 6]
QUIET = [7, 3, 11]


@dataclass(frozen=True)
class Case:
    """A term, and the reference: (model, prompt, scale) -> generated tokens -> guided log-probabilities.

    Args:
        build: (scale, other model by seed) -> term; the scale may be one number, or one per prompt if `per_row`.
        scale: the term's own number in these tests. encoder_decoder: whether the rule exists there.
    """

    name: str
    build: Callable[[Any, Other], gr.Term]
    rule: Callable[[torch.nn.Module, list[int], float], Guided]
    scale: float = 1.7
    per_row: bool = True
    encoder_decoder: bool = True

    def term(self, scale: Any = None, other: Other = models.llama) -> gr.Term:
        return self.build(self.scale if scale is None else scale, other)

    def reference(
        self, model: torch.nn.Module, prompt: list[int], index: int = 0, scale: float | None = None
    ) -> Guided:
        return self.rule(model, prompt, self.scale if scale is None else scale)

    def __repr__(self) -> str:
        return self.name


def stream(model: torch.nn.Module, tokens: Sequence[int]) -> reference.NextLogits:
    if model.config.is_encoder_decoder:
        return reference.encoder_decoder_stream(model, tokens, [models.PAD])
    return reference.stream(model, tokens)


def own(model: torch.nn.Module, prompt: list[int]) -> reference.NextLogits:
    return stream(model, prompt)


def last(model: torch.nn.Module, prompt: list[int]) -> reference.NextLogits:
    return stream(model, [models.EOS] if model.config.is_encoder_decoder else prompt[-1:])


def on(tokens: Sequence[int]) -> Make:
    return lambda model, prompt: stream(model, tokens)


def other(seed: int) -> Make:
    def make(model: torch.nn.Module, prompt: list[int]) -> reference.NextLogits:
        family = models.t5 if model.config.is_encoder_decoder else models.llama
        return stream(family(seed), prompt)

    return make


def _affine(*parts: tuple[Make, Callable[[float], float]]):
    """Streams, each with its weight as a function of the scale."""

    def build(model: torch.nn.Module, prompt: list[int], scale: float) -> Guided:
        streams = [make(model, prompt) for make, _ in parts]
        weights = [weight(scale) for _, weight in parts]
        return lambda generated: reference.affine([stream(generated) for stream in streams], weights)

    return build


def _away(make: Make):
    return _affine((own, lambda s: s), (make, lambda s: 1 - s))


def _contrastive(amateur: Make):
    def build(model: torch.nn.Module, prompt: list[int], scale: float) -> Guided:
        strong, weak = own(model, prompt), amateur(model, prompt)
        return lambda generated: reference.contrastive(strong(generated), weak(generated), scale, 0.1)

    return build


def _dola(model: torch.nn.Module, prompt: list[int], scale: float) -> Guided:
    final = own(model, prompt)

    def early(generated: tuple[int, ...], layer: int) -> Row:
        with torch.no_grad():
            output = model.model(torch.tensor([[*prompt, *generated]]), output_hidden_states=True, use_cache=False)
            return model.lm_head(model.model.norm(output.hidden_states[layer][0, -1])).double().numpy()

    return lambda generated: reference.dola(final(generated), [early(generated, 0), early(generated, 1)], 0.1)


def _gedi(length_counts: bool, filtered: bool):
    def build(model: torch.nn.Module, prompt: list[int], scale: float) -> Guided:
        guide = models.llama(2)
        base, good, bad = own(model, prompt), stream(guide, [7, *prompt]), stream(guide, [8, *prompt])

        def guided(generated: tuple[int, ...]) -> Row:
            text = [*prompt, *generated]
            sums = reference.log_likelihood(guide, [7, *text]), reference.log_likelihood(guide, [8, *text])
            rows = base(generated), good(generated), bad(generated)
            length = len(text) + 1 if length_counts else 1
            return reference.gedi(*rows, sums, length, scale, 2.0, (0.1, 0.0), 0.2 if filtered else None, 0.8)

        return guided

    return build


def _projected(model: torch.nn.Module, prompt: list[int], scale: float) -> Guided:
    c, u = own(model, prompt), stream(model, NEGATIVE)
    return lambda generated: reference.projected(c(generated), u(generated), scale, 0.25, 2.0)


def _scheduled(model: torch.nn.Module, prompt: list[int], scale: float) -> Guided:
    c, u = own(model, prompt), last(model, prompt)

    def guided(generated: tuple[int, ...]) -> Row:
        now = scale if 2 <= len(generated) < 5 else 1.0
        return reference.affine([c(generated), u(generated)], [now, 1 - now])

    return guided


def _interval(scale: Any) -> Any:
    if isinstance(scale, float):
        return gr.schedules.interval(scale, 2, 5)
    return [gr.schedules.interval(own, 2, 5) for own in scale]


def _skipped(model: torch.nn.Module, prompt: list[int]) -> reference.NextLogits:
    def weak(generated: tuple[int, ...]) -> Row:
        # written out: the first layer alone, then norm and head
        tokens = torch.tensor([[*prompt, *generated]])
        with torch.no_grad():
            hidden = model.model(tokens, output_hidden_states=True, use_cache=False).hidden_states[1][0, -1]
            return model.lm_head(model.model.norm(hidden)).double().numpy()

    return weak


def _rerun_second_layer(change: Callable[[torch.nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]) -> Make:
    """A two-layer model whose second layer is `change(layer, input, positions)` instead."""

    def make(model: torch.nn.Module, prompt: list[int]) -> reference.NextLogits:
        def weak(generated: tuple[int, ...]) -> Row:
            tokens = torch.tensor([[*prompt, *generated]])
            with torch.no_grad():
                hidden = model.model(tokens, output_hidden_states=True, use_cache=False).hidden_states[1]
                changed = change(model.model.layers[1], hidden, torch.arange(tokens.shape[1])[None])
                return model.lm_head(model.model.norm(changed[0, -1])).double().numpy()

        return weak

    return make


def _own_value_only(layer: torch.nn.Module, hidden: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    attention, normed = layer.self_attn, layer.input_layernorm(hidden)
    values = attention.v_proj(normed).unflatten(-1, (2, 8)).repeat_interleave(2, dim=-2).flatten(-2)
    hidden = hidden + attention.o_proj(values)
    return hidden + layer.mlp(layer.post_attention_layernorm(hidden))


_DROPPED = gr.Dropout((1,), 0.4, seed=5)


def _units_left_out(layer: torch.nn.Module, hidden: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    rotary = models.llama().model.rotary_emb(hidden, positions)
    size = hidden.shape[1]
    causal = torch.full((size, size), torch.finfo(torch.float32).min).triu(1)[None, None]
    after = layer(hidden, attention_mask=causal, position_embeddings=rotary)
    after = after[0] if isinstance(after, tuple) else after
    kept = torch.rand(hidden.shape[-1], generator=torch.Generator().manual_seed(5_000_016)) >= 0.4
    return torch.where(kept, hidden + (after - hidden) / 0.6, hidden)


def _entropy_matched(model: torch.nn.Module, prompt: list[int], scale: float) -> Guided:
    c, u = own(model, prompt), stream(model, NEGATIVE)

    def entropy(log_probs: Row) -> float:
        return float(-(np.exp(log_probs) * log_probs).sum())

    def guided(generated: tuple[int, ...]) -> Row:
        target = entropy(reference.log_softmax(c(generated)))
        sharp = reference.affine([c(generated), u(generated)], [scale, 1 - scale])
        low, high = 1 / 64, 64.0
        for _ in range(60):
            middle = (low * high) ** 0.5
            low, high = (middle, high) if entropy(reference.log_softmax(sharp / middle)) < target else (low, middle)
        return reference.log_softmax(sharp / low)

    return guided


def _attribute(tokens: Sequence[int]) -> float:
    """A made-up log-probability that a text has some attribute: a function of all of its tokens."""
    return -abs(sum((index % 3 + 1) * token for index, token in enumerate(tokens)) % 17) / 4


def _prefix_classifier(model: torch.nn.Module, prompt: list[int], scale: float) -> Guided:
    c = own(model, prompt)
    begin = [models.PAD] if model.config.is_encoder_decoder else prompt

    def guided(generated: tuple[int, ...]) -> Row:
        base = reference.log_softmax(c(generated))
        row = np.full(len(base), -np.inf)
        for token in sorted(range(len(base)), key=lambda v: -base[v])[:9]:
            row[token] = base[token] + scale * _attribute([*begin, *generated, token])
        return reference.log_softmax(row)

    return guided


def _class_probabilities(tokens: Sequence[int]) -> dict[str, float]:
    first, second = 1 + sum(tokens) % 7, 1 + sum(tokens) % 5
    return {"wanted": 3 / (3 + first + second), "a": first / (3 + first + second), "b": second / (3 + first + second)}


def _confusable(model: torch.nn.Module, prompt: list[int], scale: float) -> Guided:
    c, others = own(model, prompt), {"a": stream(model, NEGATIVE), "b": stream(model, SECOND)}
    begin = [models.PAD] if model.config.is_encoder_decoder else prompt

    def guided(generated: tuple[int, ...]) -> Row:
        given = _class_probabilities([*begin, *generated])
        name = "a" if given["a"] >= given["b"] else "b"
        s = (scale - 1) * (1 - given["wanted"])
        return reference.affine([c(generated), others[name](generated)], [1 + s, -s])

    return guided


def _online(model: torch.nn.Module, prompt: list[int], scale: float) -> Guided:
    c, u = own(model, prompt), stream(model, NEGATIVE)
    begin = [models.PAD] if model.config.is_encoder_decoder else prompt

    def guided(generated: tuple[int, ...]) -> Row:
        due = generated[: len(generated) - len(generated) % 3]
        rows = {s: reference.affine([c(due), u(due)], [s, 1 - s]) for s in (0.5, 1.5, 3.0)}
        best = max(rows, key=lambda s: _attribute([*begin, *due, int(rows[s].argmax())]))
        return reference.affine([c(generated), u(generated)], [best, 1 - best])

    return guided


def _feedback(scale: Any, other: Other) -> gr.Term:
    return gr.OnlineFeedback(
        [0.5, 1.5, 3.0], lambda texts: [_attribute(text) for text in texts], 3, negative_prompt_ids=NEGATIVE
    )


def _nested(scale: Any, other: Other) -> gr.Term:
    _, inner, outer = nested_weights(3.0, 1.5)
    return gr.WeightedStreams({gr.Stream(gr.prompt_tokens(NEGATIVE)): inner, gr.Stream(gr.prompt_tokens(QUIET)): outer})


def _filtered_experts(model: torch.nn.Module, prompt: list[int], scale: float) -> Guided:
    streams = own(model, prompt), other(1)(model, prompt), other(2)(model, prompt)

    def guided(generated: tuple[int, ...]) -> Row:
        rows = [make(generated) for make in streams]
        base = np.exp(reference.log_softmax(rows[0]))
        order = np.argsort(-base, kind="stable")
        kept = order[: int((np.cumsum(base[order]) - base[order] < 0.9).sum())]
        row = np.full(len(base), -np.inf)
        row[kept] = reference.affine(rows, [1.0, scale, -scale])[kept]
        return reference.log_softmax(row)

    return guided


def _weights(*pairs: tuple[float, float]) -> Callable[[Any], Any]:
    """Every number of a scale mapped to `slope * s + offset`."""
    ((slope, offset),) = pairs
    return lambda scale: slope * scale + offset if isinstance(scale, float) else [slope * s + offset for s in scale]


CASES = [
    Case("classifier-free", lambda s, o: gr.ClassifierFree(s), _away(last)),
    Case(
        "null only",
        lambda s, o: gr.ClassifierFree(0.0, NEGATIVE),
        _affine((own, lambda s: 0.0), (on(NEGATIVE), lambda s: 1.0)),
        per_row=False,
    ),
    Case("inverted", lambda s, o: gr.ClassifierFree(s, NEGATIVE), _away(on(NEGATIVE)), -0.5),
    Case("off", lambda s, o: gr.ClassifierFree(1.0, NEGATIVE), _affine((own, lambda s: 1.0)), per_row=False),
    Case("plausible", lambda s, o: gr.ClassifierFree(s, NEGATIVE, plausibility=0.1), _contrastive(on(NEGATIVE)), 2.5),
    Case(
        "sum of two",
        lambda s, o: gr.ClassifierFree(1.5, NEGATIVE) + gr.ClassifierFree(s),
        _affine((own, lambda s: s + 0.5), (on(NEGATIVE), lambda s: -0.5), (last, lambda s: 1 - s)),
        2.0,
    ),
    Case(
        "signed prompts",
        lambda s, o: gr.Prompts([(NEGATIVE, _weights((-1.0, 0.0))(s)), (SECOND, 0.3)]),
        _affine((own, lambda s: 0.7 + s), (on(NEGATIVE), lambda s: -s), (on(SECOND), lambda s: 0.3)),
        0.6,
    ),
    Case(
        "nested nulls",
        _nested,
        _affine((own, lambda s: 4.5), (on(NEGATIVE), lambda s: -3.0), (on(QUIET), lambda s: -0.5)),
        per_row=False,
    ),
    Case("contrastive", lambda s, o: gr.Contrastive(o(1), s), _contrastive(other(1)), 1.5),
    Case(
        "contrastive, short context",
        lambda s, o: gr.Contrastive(o(1), s, context=2),
        _contrastive(lambda model, prompt: stream(models.llama(1), prompt[-2:])),
        1.5,
        encoder_decoder=False,
    ),
    Case(
        "experts",
        lambda s, o: gr.DExperts(o(1), o(2), s),
        _affine((own, lambda s: 1.0), (other(1), lambda s: s), (other(2), lambda s: -s)),
        0.8,
    ),
    Case("experts in a nucleus", lambda s, o: gr.DExperts(o(1), o(2), s, base_top_p=0.9), _filtered_experts, 0.8),
    Case(
        "proxy",
        lambda s, o: gr.ProxyTuning(o(1), o(2), s),
        _affine((own, lambda s: 1), (other(1), lambda s: s), (other(2), lambda s: -s)),
        1.0,
    ),
    Case("realignment", lambda s, o: gr.Realignment(o(1), s), _away(other(1)), 2.0),
    Case("autoguidance", lambda s, o: gr.Autoguidance(o(3), s), _away(other(3)), 1.4),
    Case(
        "context-aware",
        lambda s, o: gr.ContextAware(s, NEGATIVE),
        _affine((own, lambda s: 1 + s), (on(NEGATIVE), lambda s: -s)),
        0.5,
    ),
    Case("dola", lambda s, o: gr.DoLa([0, 1]), _dola, per_row=False, encoder_decoder=False),
    Case(
        "gedi",
        lambda s, o: gr.GeDi(o(2), 7, 8, s, logit_scale=2.0, biases=(0.1, 0.0)),
        _gedi(True, True),
        3.0,
        encoder_decoder=False,
    ),
    Case(
        "gedi, sums and no filter",
        lambda s, o: gr.GeDi(o(2), 7, 8, s, logit_scale=2.0, biases=(0.1, 0.0), normalization="sum", filter_mass=None),
        _gedi(False, False),
        0.7,
        encoder_decoder=False,
    ),
    Case("projected", lambda s, o: gr.Projected(s, NEGATIVE, parallel_weight=0.25, norm_limit=2.0), _projected, 3.0),
    Case("interval", lambda s, o: gr.ClassifierFree(_interval(s)), _scheduled, 3.0),
    Case(
        "skipped layer", lambda s, o: gr.Perturbed(gr.SkipLayers((1,)), s), _away(_skipped), 1.8, encoder_decoder=False
    ),
    Case(
        "identity attention",
        lambda s, o: gr.Perturbed(gr.IdentityAttention((1,)), s),
        _away(_rerun_second_layer(_own_value_only)),
        1.8,
        encoder_decoder=False,
    ),
    Case(
        "dropout",
        lambda s, o: gr.Perturbed(_DROPPED, s),
        _away(_rerun_second_layer(_units_left_out)),
        1.8,
        encoder_decoder=False,
    ),
    Case("entropy matched", lambda s, o: gr.EntropyMatched(gr.ClassifierFree(s, NEGATIVE)), _entropy_matched, 3.0),
    Case(
        "prefix classifier",
        lambda s, o: gr.PrefixClassifier(lambda texts: [_attribute(text) for text in texts], s, 9),
        _prefix_classifier,
        2.0,
    ),
    Case(
        "confusable class",
        lambda s, o: gr.ConfusableClass({"a": NEGATIVE, "b": SECOND}, _class_probabilities, "wanted", s),
        _confusable,
        3.0,
    ),
    Case("online feedback", _feedback, _online, per_row=False),
]
BY_NAME = {case.name: case for case in CASES}
