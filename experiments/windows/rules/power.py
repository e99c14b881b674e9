"""Power windows, the paper's adaptive window (arXiv 2404.02690): k = alpha n^C."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from torch import Tensor

from experiments.errors import UserError
from experiments.measures import RowFacts


@dataclass
class Power:
    """Windows alpha n^C for every exponent C and scale alpha."""

    exponents: list[float]
    scales: list[float]
    rule: str = "power"

    def __post_init__(self) -> None:
        if bad := [c for c in self.exponents if not 0 < c < 1]:
            raise UserError(f"windows.exponents has C = {bad[0]}: an exponent lies between 0 and 1, both excluded")
        if bad := [alpha for alpha in self.scales if alpha <= 0]:
            raise UserError(f"windows.scales has alpha = {bad[0]}: give numbers > 0")

    def coordinates(self, length: int) -> list[tuple[float, float]]:
        """Return (C, alpha) per window."""
        return list(product(self.exponents, self.scales))

    def sizes(self, exact: RowFacts, parameter_W: Tensor, scale_W: Tensor) -> Tensor:
        """Return alpha n^C."""
        return scale_W * exact.n_R.double()[:, None] ** parameter_W
