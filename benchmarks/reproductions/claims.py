"""A claim of a paper, the bar its scaled version must pass, and how a seed's figures decide it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Figures = Mapping[str, Any]


def mean_of(values: Sequence[Figures]) -> dict[str, Any]:
    """Nested means over seeds, of what all of them have."""
    out: dict[str, Any] = {}
    for key, first in values[0].items():
        if all(key in other for other in values):
            group = [other[key] for other in values]
            out[key] = mean_of(group) if isinstance(first, Mapping) else sum(group) / len(group)
    return out


def with_figures(text: str, values: Sequence[Figures]) -> str:
    """`text` with `{table/row/column|.2f}` replaced by the mean over seeds, and `{all table/row/column|.2f}` by every
    seed's figure.

    Raises: KeyError for a path that the figures lack.
    """

    def at(figures: Any, path: str) -> float:
        for key in path.split("/"):
            figures = figures[key]
        return float(figures)

    def filled(match: re.Match[str]) -> str:
        every, path, form = match.groups()
        numbers = [at(figures, path) for figures in (values if every else [mean_of(values)])]
        return ", ".join(format(number, form) for number in numbers)

    return re.sub(r"\{(all )?([^{}|]+)\|([^{}]+)\}", filled, text)


@dataclass(frozen=True, slots=True)
class Claim:
    """One row of the table.

    Args:
        name: "C1" ... "X5". paper: folder. statement: what the paper says. bar: what the scaled task must show.
        value: a seed's figures -> the number the bar speaks of. passes: that number -> whether the bar is met; a claim
            is met if every seed meets it.
        setting: the task in one line. reason: why a bar was not met, as far as known, or what to bear in mind
            although it was; its figures stand in it as paths, see `with_figures`.
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
            **({"reason": with_figures(self.reason, [f for _, f in sorted(by_seed.items())])} if self.reason else {}),
            "met_by_seed": [self.passes(number) for number in numbers],
            "command": f"make reproduce PAPER={self.paper} SEED=<seed>",
        }
