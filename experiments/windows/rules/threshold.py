"""Threshold windows: all keys with p_j > eps; at equal cost the floor under every rule [T7]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from experiments.ranges import check_range


@dataclass
class Threshold:
    """Windows for every threshold eps, taken from the exact row whichever selector then picks the keys."""

    epsilons: list[float]
    rule: str = "threshold"
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_range("windows.thresholds", self.epsilons, above=0, below=1, symbol="eps")

    def coordinates(self, length: int) -> list[tuple[float, float]]:
        """Return (eps, 1) per window."""
        return [(eps, 1.0) for eps in self.epsilons]

    def threshold(self, parameter: float) -> float:
        """Return eps."""
        return parameter
