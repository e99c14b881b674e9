"""Two things timed in turn, A B A B ..., and the ratio pair by pair."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Pairs:
    """Seconds of both sides, pair by pair."""

    first: list[float]
    second: list[float]

    @property
    def ratio(self) -> float:
        """Median over pairs of first / second."""
        return statistics.median(self.ratios)

    @property
    def ratios(self) -> list[float]:
        """The ratio of each pair."""
        return [a / b for a, b in zip(self.first, self.second, strict=True)]

    def describe(self) -> str:
        """Return the medians and the spread on one line."""
        low, high = min(self.ratios), max(self.ratios)
        return (
            f"{statistics.median(self.first):.4g} s against {statistics.median(self.second):.4g} s, "
            f"ratio {self.ratio:.3g} [{low:.3g}, {high:.3g}] over {len(self.first)} pairs"
        )


def time_pairs(first: Callable[[], object], second: Callable[[], object], pairs: int) -> Pairs:
    """Time both functions in turn after one warm-up of each."""
    first()
    second()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(pairs):
        for side, function in zip(times, (first, second), strict=True):
            start = time.perf_counter()
            function()
            side.append(time.perf_counter() - start)
    return Pairs(*times)
