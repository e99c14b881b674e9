"""Linear windows: k = beta n, a fixed share of the context."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.errors import UserError
from experiments.windows import Window


@dataclass
class Linear:
    """Windows beta n for every fraction beta."""

    fractions: list[float]

    def __post_init__(self) -> None:
        if bad := [beta for beta in self.fractions if not 0 < beta <= 1]:
            raise UserError(f"windows.fractions has beta = {bad[0]}: a share of the keys lies in (0, 1]")

    def windows(self, length: int) -> list[Window]:
        """Return one window per fraction."""
        return [
            Window("linear", beta, 1.0, lambda exact, beta=beta: beta * exact.n_R.double())
            for beta in self.fractions
        ]
