"""Relative threshold windows: all keys with p_j > a / n, n the keys that the row sees (after arXiv 2512.12087)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from experiments.ranges import check_range


@dataclass
class RelativeThreshold:
    """Windows for every factor a, taken from the exact row whichever selector then picks the keys."""

    factors: list[float]
    rule: str = "relative_threshold"
    version: ClassVar[int] = 1
    of_peak: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_range(f"windows.{self.rule}", self.factors, above=0, symbol="a")

    def coordinates(self, length: int) -> list[tuple[float, float]]:
        """Return (a, 1) per window."""
        return [(a, 1.0) for a in self.factors]

    def factor(self, parameter: float) -> float:
        """Return a."""
        return parameter
