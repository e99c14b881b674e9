"""Top-p windows: the fewest keys that leave a dropped mass of at most eta, row by row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from experiments.lazy import torch
from experiments.ranges import check_range
from experiments.windows import RowFacts

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class TopP:
    """Windows for every tolerance eta, taken from the exact row whichever selector then picks the keys."""

    etas: list[float]
    rule: str = "top_p"
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_range("windows.top_p", self.etas, above=0, below=1, symbol="eta")

    def coordinates(self, length: int) -> list[tuple[float, float]]:
        """Return (eta, 1) per window."""
        return [(eta, 1.0) for eta in self.etas]

    def tolerances(self) -> list[float]:
        """Return every eta."""
        return self.etas

    def sizes(self, exact: RowFacts, parameter_W: Tensor, scale_W: Tensor) -> Tensor:
        """Return the smallest k with dropped mass <= eta."""
        return torch.stack([exact.k_min(eta) for eta in parameter_W.tolist()], dim=1)
