"""Linear windows: k = beta n, a fixed share of the context."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from experiments.errors import UserError
from experiments.measures import RowFacts


@dataclass
class Linear:
    """Windows beta n for every fraction beta."""

    fractions: list[float]
    rule: str = "linear"

    def __post_init__(self) -> None:
        if bad := [beta for beta in self.fractions if not 0 < beta <= 1]:
            raise UserError(f"windows.fractions has beta = {bad[0]}: a share of the keys lies in (0, 1]")

    def coordinates(self, length: int) -> list[tuple[float, float]]:
        """Return (beta, 1) per window."""
        return [(beta, 1.0) for beta in self.fractions]

    def sizes(self, exact: RowFacts, parameter_W: Tensor, scale_W: Tensor) -> Tensor:
        """Return beta n."""
        return parameter_W * exact.n_R.double()[:, None]
