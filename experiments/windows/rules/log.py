"""Logarithmic windows: k = a (ln n)^b."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, ClassVar

from experiments.ranges import check_range

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Log:
    """Windows a (ln n)^b for every power b and factor a."""

    powers: list[float]
    factors: list[float]
    rule: str = "log"
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_range("windows.log_powers", self.powers, above=0, symbol="b")
        check_range("windows.log_factors", self.factors, above=0, symbol="a")

    def coordinates(self, length: int) -> list[tuple[float, float]]:
        """Return (b, a) per window."""
        return list(product(self.powers, self.factors))

    def sizes(self, n_R: Tensor, parameter_W: Tensor, scale_W: Tensor) -> Tensor:
        """Return a (ln n)^b."""
        return scale_W * n_R.double().log()[:, None] ** parameter_W
