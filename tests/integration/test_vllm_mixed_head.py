"""Groups mixed before the head, and sampled without their companions, as far as that needs no vLLM."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from guiderail.integrations.vllm.companion_sampling import sample_without
from guiderail.integrations.vllm.mixed_head import Head, expected_head

WIDTH, VOCAB = 8, 50
LAYER = SimpleNamespace(soft_cap=None, logits_as_input=False)


class Affine:
    """A head that remembers how many rows it was asked for."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.randn(VOCAB, WIDTH, generator=generator)
        self.bias = torch.randn(VOCAB, generator=generator)
        self.rows: list[int] = []

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        self.rows.append(len(states))
        return states.to(self.weight.dtype) @ self.weight.T + self.bias


def hidden(rows: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(1)).to(dtype)


def head_of(unneeded: list[int], mixtures: list[Any], rows: int) -> Head:
    head = Head(lambda: (unneeded, mixtures))
    head.expect(rows)
    assert expected_head(LAYER) is head
    return head


@pytest.mark.parametrize("scale", [0.0, 1.5, 3.0, -2.0, 1000.0])
def test_mixing_states_is_mixing_log_probabilities(scale):
    compute, states = Affine(), hidden(5)
    # Rows 1 and 4 guide row 2 with different weights, row 3 is a companion of row 0, and row 1 would be a plain one.
    mixtures = [(2, [1, 4], [1.0 - scale, 0.25]), (0, [3], [1.0 - scale])]
    found = head_of([3, 4], mixtures, 5).logits(compute, states)
    assert found.dtype == torch.float32
    assert compute.rows == [3]
    exact = compute(states).double().log_softmax(-1)
    expected = exact[2] + (1.0 - scale) * (exact[1] - exact[2]) + 0.25 * (exact[4] - exact[2])
    for row, mixed in ((2, expected), (0, exact[0] + (1.0 - scale) * (exact[3] - exact[0]))):
        close = torch.log_softmax(found[row].double(), -1), torch.log_softmax(mixed, -1)
        torch.testing.assert_close(*close, rtol=1e-5, atol=1e-5 * max(1.0, abs(scale)))
    torch.testing.assert_close(found[1], compute(states)[1])
    assert not found[3:].any()


def test_rows_that_nothing_is_asked_about_are_what_they_were():
    compute, states = Affine(), hidden(4)
    states[3] = torch.inf  # a companion that went wrong spoils its own group and nothing else
    found = head_of([3], [(1, [3], [-1.0])], 4).logits(compute, states)
    torch.testing.assert_close(found[[0, 2]], compute(states[[0, 2]]))
    assert not torch.isfinite(found[1]).any()


def test_calls_that_are_not_the_step_are_left_alone():
    compute = Affine()
    head = head_of([1], [(0, [1], [-1.0])], 2)
    assert expected_head(LAYER) is None  # once only
    assert torch.equal(head.logits(compute, hidden(3)), compute(hidden(3)))  # another number of rows
    for layer in (
        SimpleNamespace(soft_cap=30.0, logits_as_input=False),
        SimpleNamespace(soft_cap=None, logits_as_input=True),
    ):
        head.expect(2)
        assert expected_head(layer) is None
    head.expect(0)
    assert expected_head(LAYER) is None


def test_float16_states_are_not_mixed():
    compute = Affine()
    head = head_of([1], [(0, [1], [-1.0])], 2)
    found = head.logits(compute, hidden(2, torch.float16))
    assert compute.rows == [2]
    assert torch.equal(found, compute(hidden(2, torch.float16)))


@dataclasses.dataclass
class Metadata:
    temperature: torch.Tensor | None
    top_p: torch.Tensor | None
    top_k: torch.Tensor | None
    generators: dict[int, Any]
    max_num_logprobs: int | None = None
    logprob_token_ids: Any = None
    logitsprocs: Any = dataclasses.field(
        default_factory=lambda: SimpleNamespace(argmax_invariant=[SimpleNamespace(min_p_count=0)])
    )


def sampler(seen: list[Any]):
    def sample(logits: torch.Tensor, metadata: Metadata):
        seen.append((logits, metadata))
        return logits.argmax(-1), None

    return sample


def test_companions_are_not_sampled():
    logits = torch.eye(4, 6)
    # Top-p as vLLM has it: a buffer of the largest batch.
    metadata = Metadata(torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.arange(8.0), None, {2: "two", 1: "one"})
    seen: list[Any] = []
    sampled, log_probs = sample_without({1, 3}, sampler(seen), logits, metadata)
    assert sampled.tolist() == [0, 0, 2, 0]
    assert log_probs is None
    ((rows, given),) = seen
    assert torch.equal(rows, logits[[0, 2]])
    assert torch.equal(given.temperature, torch.tensor([0.1, 0.3]))
    assert given.top_p.tolist() == [0.0, 2.0]
    assert given.top_k is None
    assert given.generators == {1: "two"}


@pytest.mark.parametrize(
    "change",
    [
        {"max_num_logprobs": 0},
        {"logprob_token_ids": {0: [1]}},
        {"logitsprocs": SimpleNamespace(argmax_invariant=[SimpleNamespace(min_p_count=1)])},
        {"logitsprocs": SimpleNamespace(argmax_invariant=[object()])},
    ],
)
def test_all_rows_are_sampled_where_rows_cannot_be_left_out(change):
    metadata = dataclasses.replace(Metadata(None, None, None, {}), **change)
    seen: list[Any] = []
    sampled, _ = sample_without({1}, sampler(seen), torch.eye(3), metadata)
    assert sampled.tolist() == [0, 1, 2]
    assert seen[0][1] is metadata
