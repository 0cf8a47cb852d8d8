"""A training loop that can be stopped: checkpoints, resume, progress, gradient clipping, optional Accelerate.

For large models use transformers' `Trainer` with the losses and the collator of this package; this loop is for what it
does not cover (a reference model, offsets, several parts trained together) and for small models.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def fit(
    module: nn.Module,
    loss_of_step: Callable[[int], Tensor],
    *,
    steps: int,
    learning_rate: float,
    warmup: int = 0,
    weight_decay: float = 0.0,
    clip: float = 1.0,
    checkpoint: Path | None = None,
    save_every: int = 200,
    accelerator: Any = None,
    report: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Train with AdamW, linear warm-up and cosine decay to a tenth.

    Args:
        module: everything that is trained.
        loss_of_step: step index -> scalar loss. Make batches a function of the index (seed a generator with it): then a
            resumed run sees the same data as an uninterrupted one.
        checkpoint: file to resume from if it exists and to write to every `save_every` steps and at the end; a finished
            checkpoint makes the call return at once. None = keep nothing.
        accelerator: an `accelerate.Accelerator` for bf16 or several devices; then `loss_of_step` must call the module
            it prepared. None = plain torch.
        report: called with (step, loss).
    Returns: the losses, those before a resume included.
    Raises: FloatingPointError naming the step if a loss is not finite; ValueError if a checkpoint is of another length.
    """
    optimizer = torch.optim.AdamW(
        [p for p in module.parameters() if p.requires_grad],
        lr=learning_rate,
        betas=(0.9, 0.95),
        weight_decay=weight_decay,
    )

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.55 + 0.45 * math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    if accelerator is not None:
        optimizer = accelerator.prepare(optimizer)
    losses: list[float] = []
    if checkpoint is not None and checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        if state["steps"] != steps:
            raise ValueError(f"{checkpoint} belongs to a run of {state['steps']} steps, not {steps}")
        module.load_state_dict(state["module"])
        losses = list(state["losses"])
        if len(losses) < steps:
            optimizer.load_state_dict(state["optimizer"])
            schedule.load_state_dict(state["schedule"])
    for step in range(len(losses), steps):
        module.train()
        loss = loss_of_step(step)
        if not bool(torch.isfinite(loss)):
            raise FloatingPointError(f"the loss is {loss.item()} at step {step}")
        optimizer.zero_grad(set_to_none=True)
        if accelerator is None:
            loss.backward()  # type: ignore[no-untyped-call]
        else:
            accelerator.backward(loss)
        nn.utils.clip_grad_norm_(module.parameters(), clip)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if report is not None:
            report(step, losses[-1])
        writes = accelerator is None or accelerator.is_main_process
        if checkpoint is not None and writes and ((step + 1) % save_every == 0 or step + 1 == steps):
            _save(checkpoint, module, optimizer, schedule, losses, steps)
    module.eval()
    return losses


def _save(path: Path, module: nn.Module, optimizer: Any, schedule: Any, losses: list[float], steps: int) -> None:
    """Written beside and moved into place: an interrupted write leaves the old checkpoint."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    parts = {"module": module, "optimizer": optimizer, "schedule": schedule}
    torch.save({**{name: part.state_dict() for name, part in parts.items()}, "losses": losses, "steps": steps}, fresh)
    os.replace(fresh, path)
