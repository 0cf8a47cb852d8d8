"""Guidance, slowly: every rule in float64 with plain numpy, every stream recomputed from scratch for every token.

Never imported by `src/`, and shares no code with it. One sequence at a time, no cache, no padding, no batch: what is
left is the formula.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

Row = npt.NDArray[np.float64]
NextLogits = Callable[[tuple[int, ...]], Row]
"""Generated tokens so far -> the stream's next-token logits."""


def log_softmax(logits: Row) -> Row:
    logits = np.asarray(logits, dtype=np.float64)
    top = logits.max()
    if top == -math.inf:
        return logits
    return logits - (top + math.log(np.exp(logits - top).sum()))


def filled(log_probs: Row) -> Row:
    finite = log_probs[np.isfinite(log_probs)]
    return np.where(np.isfinite(log_probs), log_probs, finite.min() if finite.size else 0.0)


def affine(streams: Sequence[Row], weights: Sequence[float]) -> Row:
    log_probs = [log_softmax(stream) for stream in streams]
    total = sum(weight * filled(row) for weight, row in zip(weights, log_probs, strict=True))
    return log_softmax(np.where(np.isfinite(log_probs[0]), total, -math.inf))


def plausible(trusted: Row, alpha: float, legal: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.bool_]:
    probabilities = np.exp(log_softmax(trusted))
    legal = np.ones(len(trusted), dtype=bool) if legal is None else legal
    best = max((probabilities[v] for v in range(len(trusted)) if legal[v]), default=0.0)
    if best == 0:
        return legal
    return np.array(
        [
            legal[v] and probabilities[v] > 0 and probabilities[v] >= alpha * best * (1 - 1e-12)
            for v in range(len(trusted))
        ]
    )


def contrastive(
    expert: Row, amateur: Row, scale: float, alpha: float, legal: npt.NDArray[np.bool_] | None = None
) -> Row:
    guided = affine([expert, amateur], [scale, 1 - scale])
    return log_softmax(np.where(plausible(expert, alpha, legal), guided, -math.inf))


def dola(final: Row, early: Sequence[Row], alpha: float, legal: npt.NDArray[np.bool_] | None = None) -> Row:
    def jensen_shannon(a: Row, b: Row) -> float:
        p, q = np.exp(log_softmax(a)), np.exp(log_softmax(b))
        m = (p + q) / 2
        return 0.5 * float((p * np.log(p / m)).sum() + (q * np.log(q / m)).sum())

    chosen = max(early, key=lambda layer: jensen_shannon(final, layer))
    difference = log_softmax(final) - log_softmax(chosen)
    return log_softmax(np.where(plausible(final, alpha, legal), difference, -math.inf))


def gedi(
    base: Row,
    desired: Row,
    undesired: Row,
    sums: tuple[float, float],
    length: float,
    omega: float,
    alpha: float,
    biases: tuple[float, float],
    rho: float | None,
    tau: float,
) -> Row:
    logits = [
        alpha * (total + log_softmax(row)) / length + bias
        for total, row, bias in zip(sums, (desired, undesired), biases, strict=True)
    ]
    log_posterior = logits[0] - np.logaddexp(logits[0], logits[1])
    guided = log_softmax(log_softmax(base) + omega * log_posterior)
    if rho is None:
        return guided
    mass, keep = 0.0, set(np.nonzero(log_posterior >= math.log(tau))[0].tolist())
    for token in sorted(range(len(base)), key=lambda v: -log_posterior[v]):
        keep.add(token)
        mass += math.exp(guided[token])
        if mass >= rho:
            break
    return log_softmax(np.array([guided[v] - (0 if v in keep else 10_000) for v in range(len(base))]))


def projected(conditional: Row, null: Row, scale: float, eta: float, limit: float | None) -> Row:
    c, u = log_softmax(conditional), log_softmax(null)
    p = np.exp(c)
    axis = c - (p * c).sum()
    d = (c - u) - (p * (c - u)).sum()
    if limit is not None:
        norm = math.sqrt((p * d * d).sum())
        d = d * min(1.0, limit / norm)
    parallel = (p * d * axis).sum() / (p * axis * axis).sum() * axis
    return log_softmax(c + (scale - 1) * (d - parallel + eta * parallel))


# ---------------------------------------------------------------------------------------------------------------------
# whole decoding runs


def stream(model: torch.nn.Module, prefix: Sequence[int], **inputs: object) -> NextLogits:
    """A decoder-only stream: prefix, then the generated tokens, one full forward pass without any cache."""

    def next_logits(generated: tuple[int, ...]) -> Row:
        tokens = torch.tensor([[*prefix, *generated]])
        with torch.no_grad():
            logits = model(input_ids=tokens, use_cache=False, **inputs).logits[0, -1]
        return logits.double().numpy()

    return next_logits


def encoder_decoder_stream(model: torch.nn.Module, source: Sequence[int], start: Sequence[int]) -> NextLogits:
    """An encoder-decoder stream: this source, these decoder start tokens, no cache."""

    def next_logits(generated: tuple[int, ...]) -> Row:
        with torch.no_grad():
            logits = model(
                input_ids=torch.tensor([list(source)]),
                decoder_input_ids=torch.tensor([[*start, *generated]]),
                use_cache=False,
            ).logits[0, -1]
        return logits.double().numpy()

    return next_logits


def log_likelihood(model: torch.nn.Module, tokens: Sequence[int]) -> float:
    """Sum of log p(token | tokens before it), the first token not counted."""
    if len(tokens) < 2:
        return 0.0
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([list(tokens)]), use_cache=False).logits[0].double().numpy()
    return float(sum(log_softmax(logits[i - 1])[tokens[i]] for i in range(1, len(tokens))))


@dataclass
class Agreement:
    """How a decoded sequence compares with the reference: equal up to `ties` steps at which the top two were this
    close."""

    steps: int = 0
    ties: int = 0


def check_greedy(
    guided: Callable[[tuple[int, ...]], Row], produced: Sequence[int], eos: int | None, agreement: Agreement
) -> None:
    """Walk along a produced sequence; at every step the token must be the reference's best, or within 1e-4 of it.

    Raises: AssertionError naming the first step that differs.
    """
    for step, token in enumerate(produced):
        scores = guided(tuple(produced[:step]))
        best = int(scores.argmax())
        agreement.steps += 1
        if best != token:
            gap = scores[best] - scores[token]
            assert gap < 1e-4, f"step {step}: produced {token}, reference {best}, {gap:.2e} nats better"
            agreement.ties += 1
        if token == eos:
            break


def beam_search(
    guided: Callable[[tuple[int, ...]], Row], beams: int, steps: int, eos: int | None = None
) -> list[tuple[float, tuple[int, ...]]]:
    """Beam search without length penalty over a fixed number of steps and no end token: (score, tokens), best first."""
    assert eos is None, "fixed-length search only"
    running: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    for _ in range(steps):
        grown = []
        for score, tokens in running:
            row = guided(tokens)
            grown.extend((score + row[v], (*tokens, v)) for v in range(len(row)) if row[v] > -math.inf)
        running = sorted(grown, reverse=True)[:beams]
    return running
