"""Small transformers for the worlds, and a decoder of several streams that recomputes short sequences.

The worlds' sequences have some thirty tokens: reading them anew at every step costs less than keeping caches in step,
and leaves nothing to get wrong. The rules are the library's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from guiderail.training.loop import fit

torch.set_num_threads(1)


def language_model(vocab: int, width: int, layers: int, seed: int, dropout: float = 0.0) -> Any:
    """An untrained Llama of this shape."""
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=vocab,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=max(2, width // 32),
        num_key_value_heads=max(2, width // 32),
        max_position_embeddings=256,
        attention_dropout=dropout,
        tie_word_embeddings=False,
    )
    return transformers.LlamaForCausalLM(config)


def trained(
    model: Any, loss: Callable[[int], Tensor], name: str, scratch: Path, *, steps: int, rate: float = 2e-3
) -> Any:
    """Fit with progress and a checkpoint under `scratch`."""

    def report(step: int, value: float) -> None:
        if (step + 1) % 100 == 0 or step + 1 == steps:
            print(f"  {name}: step {step + 1}/{steps}, loss {value:.3f}", flush=True)

    fit(
        model, loss, steps=steps, learning_rate=rate, warmup=min(50, steps // 5), weight_decay=0.01,
        checkpoint=scratch / f"{name}.pt", report=report,
    )  # fmt: skip
    return model.eval()


def kept(scratch: Path, name: str, measure: Callable[[], Any]) -> Any:
    """A part of the figures, measured once: a run that was stopped reads it from `scratch` when it continues."""
    path = scratch / "figures" / f"{name}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(measure()))
        fresh.rename(path)
        print(f"  measured: {name}", flush=True)
    return json.loads(path.read_text())


def next_token_loss(model: Any, ids: Tensor, counted: Tensor) -> Tensor:
    """Mean cross-entropy of the tokens where `counted` (batch, length) is True; the first token is never predicted."""
    logits = model(input_ids=ids[:, :-1]).logits
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    chosen = counted[:, 1:]
    return (losses * chosen).sum() / chosen.sum()


@torch.no_grad()
def decode(
    streams: Sequence[tuple[Any, Tensor]],
    guide: Callable[[list[Tensor], Tensor], Tensor],
    *,
    length: int,
    end: int,
    generator: torch.Generator | None = None,
    step: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """Decode all rows together.

    Args:
        streams: (model, prompts int64 (rows, prompt length)) each; all read the same generated tokens.
        guide: (logits of every stream (rows, vocab), generated so far (rows, t)) -> guided scores.
        length: most new tokens; rows are padded with `end` after their first one.
        generator: draws from the guided distribution; None = greedy.
        step: called with the chosen tokens (rows,), for rules that keep sums or matchers.
    Returns: int64 (rows, length).
    """
    rows = streams[0][1].shape[0]
    out = torch.zeros(rows, 0, dtype=torch.long)
    done = torch.zeros(rows, dtype=torch.bool)
    for _ in range(length):
        logits = [model(input_ids=torch.cat([prompts, out], 1)).logits[:, -1].float() for model, prompts in streams]
        scores = guide(logits, out)
        if generator is None:
            chosen = scores.argmax(-1)
        else:
            chosen = torch.multinomial(torch.softmax(scores, -1), 1, generator=generator).squeeze(1)
        chosen = torch.where(done, end, chosen)
        if step is not None:
            step(chosen)
        out = torch.cat([out, chosen[:, None]], 1)
        done |= chosen == end
        if bool(done.all()):
            break
    return torch.nn.functional.pad(out, (0, length - out.shape[1]), value=end)
