"""Threshold windows on the method's own estimate of a row: all keys that it takes for more probable than eps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from experiments.ranges import check_range
from experiments.windows import Needs

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class OwnThreshold:
    """Windows for every threshold eps: the first keys of a method's order, up to the last of p_j > eps by its estimate.

    For the oracle it is the threshold itself [T7]. Where a method keeps keys of which its estimate says nothing, eps is
    a share of the mass of the others.
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
        """Return the first keys that hold all above eps."""
        return needs.count_above(parameter)
