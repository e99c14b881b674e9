"""Threshold windows on the method's own estimate of a row: as many keys as it takes for more probable than eps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from experiments.ranges import check_range
from experiments.windows import Needs

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class OwnThreshold:
    """Windows for every threshold eps: as many first keys of the method's order as have p_j > eps by its own estimate.

    For the oracle it is the threshold itself [T7]. Keys that a method keeps whatever they weigh are kept beside it, and
    eps is a share of the mass of the others.
    """

    epsilons: list[float]
    rule: str = "own_threshold"
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_range("windows.own_threshold", self.epsilons, above=0, below=1, symbol="eps")

    def coordinates(self, length: int) -> list[tuple[float, float]]:
        """Return (eps, 1) per window."""
        return [(eps, 1.0) for eps in self.epsilons]

    def keys_of(self, needs: Needs, parameter: float) -> Tensor:
        """Return the keys above eps."""
        return needs.count_above(parameter)
