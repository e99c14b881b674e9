"""Linear windows: k = beta n, a fixed share of the context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from experiments.ranges import check_range

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Linear:
    """Windows beta n for every fraction beta."""

    fractions: list[float]
    rule: str = "linear"
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_range("windows.fractions", self.fractions, above=0, most=1, symbol="beta")

    def coordinates(self, length: int) -> list[tuple[float, float]]:
        """Return (beta, 1) per window."""
        return [(beta, 1.0) for beta in self.fractions]

    def sizes(self, n_R: Tensor, parameter_W: Tensor, scale_W: Tensor) -> Tensor:
        """Return beta n."""
        return parameter_W * n_R.double()[:, None]
