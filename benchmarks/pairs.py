"""Two things timed in turn, their ratio round by round, and as a control the ratio of one of them to itself."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

MOST_SPREAD = 0.1  # of the control; with more, the machine is too busy to tell ratios apart
TRIES = 3
LIKE_ITSELF = 0.75  # the share of rounds that the spread of the control covers


@dataclass(frozen=True)
class Pairs:
    """Seconds of both sides, round by round, and of the second side once more, right after."""

    first: list[float]
    second: list[float]
    again: list[float]

    @property
    def ratio(self) -> float:
        """Median over rounds of first / second."""
        return statistics.median(self.ratios)

    @property
    def ratios(self) -> list[float]:
        """The ratio of each round."""
        return [a / b for a, b in zip(self.first, self.second, strict=True)]

    @property
    def control(self) -> float:
        """The spread of the control: in three of four rounds the second side is this close to itself."""
        away = sorted(abs(b / a - 1) for a, b in zip(self.second, self.again, strict=True))
        return away[math.ceil(LIKE_ITSELF * len(away)) - 1]

    @property
    def noisy(self) -> bool:
        """Whether the machine was too busy for the ratio to be trusted."""
        return self.control > MOST_SPREAD

    def results(self, name: str) -> dict[str, float]:
        """Return the ratio under its name, with its control and whether it is noisy (0 or 1)."""
        return {name: self.ratio, f"{name}_control": self.control, f"{name}_noisy": float(self.noisy)}

    def describe(self) -> str:
        """Return the medians and the spread on one line."""
        low, high = min(self.ratios), max(self.ratios)
        return (
            f"{statistics.median(self.first):.4g} s against {statistics.median(self.second):.4g} s, "
            f"ratio {self.ratio:.3g} [{low:.3g}, {high:.3g}] over {len(self.first)} rounds, "
            f"control within {self.control:.1%}{', noisy' if self.noisy else ''}"
        )


def ratio_of(pairs: Pairs) -> float:
    """Return the ratio, to tell the worst of several by."""
    return pairs.ratio


def time_pairs(first: Callable[[], object], second: Callable[[], object], rounds: int) -> Pairs:
    """Time both functions in turn after one warm-up of each; up to three times, until the control is quiet.

    Where it never is, the quietest try counts.
    """
    first()
    second()
    tries: list[Pairs] = []
    while len(tries) < TRIES and not (tries and not tries[-1].noisy):
        sides = (first, [list[float]()]), (second, [list[float](), list[float]()])
        for _ in range(rounds):
            for function, columns in sides:
                for times in columns:
                    start = time.perf_counter()
                    function()
                    times.append(time.perf_counter() - start)
        tries.append(Pairs(sides[0][1][0], *sides[1][1]))
    return min(tries, key=lambda pairs: pairs.control)
