"""Threshold windows: all keys with p_j > eps; at equal cost the floor under every rule [T7]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from experiments.lazy import torch
from experiments.ranges import check_range
from experiments.windows import RowFacts

if TYPE_CHECKING:
    from torch import Tensor


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

    def thresholds(self) -> list[float]:
        """Return every eps."""
        return self.epsilons

    def sizes(self, exact: RowFacts, parameter_W: Tensor, scale_W: Tensor) -> Tensor:
        """Return the number of entries above eps."""
        return torch.stack([exact.count_above(eps) for eps in parameter_W.tolist()], dim=1)
