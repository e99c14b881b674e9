"""Logarithmic windows: k = a (ln n)^b."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from experiments.errors import UserError
from experiments.windows import Window


@dataclass
class Log:
    """Windows a (ln n)^b for every power b and factor a."""

    powers: list[float]
    factors: list[float]

    def __post_init__(self) -> None:
        if bad := [x for x in (*self.powers, *self.factors) if x <= 0]:
            raise UserError(f"windows.log_powers or windows.log_factors has {bad[0]}: give numbers > 0")

    def windows(self, length: int) -> list[Window]:
        """Return one window per power and factor; `parameter` is b, `scale` is a."""
        return [
            Window("log", b, a, lambda exact, a=a, b=b: a * exact.n_R.double().log() ** b)
            for b, a in product(self.powers, self.factors)
        ]
