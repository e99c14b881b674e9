"""Top-p windows on the method's own estimate of a row (Twilight, arXiv 2502.02770)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from experiments.ranges import check_range
from experiments.windows import Needs

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class OwnTopP:
    """Windows for every tolerance eta: the first keys of the method's order that leave at most eta by its own estimate.

    The estimate is known without the exact row, so that this is what top-p costs and loses where nothing else
    is at hand; for the oracle it is top-p itself. Keys that a method keeps whatever they weigh are kept beside it.
    """

    etas: list[float]
    rule: str = "own_top_p"
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_range("windows.own_top_p", self.etas, above=0, below=1, symbol="eta")

    def coordinates(self, length: int) -> list[tuple[float, float]]:
        """Return (eta, 1) per window."""
        return [(eta, 1.0) for eta in self.etas]

    def keys_of(self, needs: Needs, parameter: float) -> Tensor:
        """Return the keys that leave eta."""
        return needs.k_min(parameter)
