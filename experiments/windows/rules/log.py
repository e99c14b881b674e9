"""Logarithmic windows: k = a (ln n)^b."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from torch import Tensor

from experiments.errors import UserError
from experiments.measures import RowFacts


@dataclass
class Log:
    """Windows a (ln n)^b for every power b and factor a."""

    powers: list[float]
    factors: list[float]
    rule: str = "log"

    def __post_init__(self) -> None:
        if bad := [x for x in (*self.powers, *self.factors) if x <= 0]:
            raise UserError(f"windows.log_powers or windows.log_factors has {bad[0]}: give numbers > 0")

    def coordinates(self, length: int) -> list[tuple[float, float]]:
        """Return (b, a) per window."""
        return list(product(self.powers, self.factors))

    def sizes(self, exact: RowFacts, parameter_W: Tensor, scale_W: Tensor) -> Tensor:
        """Return a (ln n)^b."""
        return scale_W * exact.n_R.double().log()[:, None] ** parameter_W
