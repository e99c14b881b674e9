"""Power windows, the paper's adaptive window (arXiv 2404.02690): k = alpha n^C."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from experiments.errors import UserError
from experiments.windows import Window


@dataclass
class Power:
    """Windows alpha n^C for every exponent C and scale alpha."""

    exponents: list[float]
    scales: list[float]

    def __post_init__(self) -> None:
        if bad := [c for c in self.exponents if not 0 < c < 1]:
            raise UserError(f"windows.exponents has C = {bad[0]}: an exponent lies between 0 and 1, both excluded")
        if bad := [alpha for alpha in self.scales if alpha <= 0]:
            raise UserError(f"windows.scales has alpha = {bad[0]}: give numbers > 0")

    def windows(self, length: int) -> list[Window]:
        """Return one window per exponent and scale."""
        return [
            Window("power", c, alpha, lambda exact, c=c, alpha=alpha: alpha * exact.n_R.double() ** c)
            for c, alpha in product(self.exponents, self.scales)
        ]
