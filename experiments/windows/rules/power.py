"""Power windows, the paper's adaptive window (arXiv 2404.02690): k = alpha n^C."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, ClassVar

from experiments.ranges import check_range

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Power:
    """Windows alpha n^C for every exponent C and scale alpha."""

    exponents: list[float]
    scales: list[float]
    rule: str = "power"
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_range("windows.exponents", self.exponents, above=0, below=1, symbol="C")
        check_range("windows.scales", self.scales, above=0, symbol="alpha")

    def coordinates(self, length: int) -> list[tuple[float, float]]:
        """Return (C, alpha) per window."""
        return list(product(self.exponents, self.scales))

    def sizes(self, n_R: Tensor, parameter_W: Tensor, scale_W: Tensor) -> Tensor:
        """Return alpha n^C."""
        return scale_W * n_R.double()[:, None] ** parameter_W
