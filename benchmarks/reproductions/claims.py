"""A claim of a paper, the bar its scaled version must pass, and how a seed's figures decide it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Figures = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Claim:
    """One row of the table.

    Args:
        name: "C1" ... "X5". paper: folder. statement: what the paper says. bar: what the scaled task must show.
        value: a seed's figures -> the number the bar speaks of. passes: that number -> whether the bar is met; a claim
            is met if every seed meets it.
        setting: the task in one line. reason: why a bar was not met, as far as known, or what to bear in mind
            although it was.
    """

    name: str
    paper: str
    statement: str
    bar: str
    setting: str
    value: Callable[[Figures], float]
    passes: Callable[[float], bool]
    reason: str = ""

    def row(self, by_seed: Mapping[int, Figures]) -> dict[str, Any]:
        """The entry of results.json: mean over seeds, extremes, verdict."""
        values = {seed: float(self.value(figures)) for seed, figures in sorted(by_seed.items())}
        numbers = list(values.values())
        return {
            "claim": self.name,
            "paper": self.paper,
            "statement": self.statement,
            "setting": self.setting,
            "bar": self.bar,
            "value": sum(numbers) / len(numbers),
            "spread": [min(numbers), max(numbers)],
            "seeds": list(values),
            "met": all(self.passes(number) for number in numbers),
            **({"reason": self.reason} if self.reason else {}),
            "met_by_seed": [self.passes(number) for number in numbers],
            "command": f"make reproduce PAPER={self.paper} SEED=<seed>",
        }
