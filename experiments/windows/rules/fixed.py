"""Fixed windows: k = k0 whatever the context length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from experiments.ranges import check_range

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Fixed:
    """Windows of as many keys as the list says."""

    keys: list[int]
    rule: str = "fixed"
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_range("windows.fixed", self.keys, least=1)

    def coordinates(self, length: int) -> list[tuple[float, float]]:
        """Return (k0, 1) per window."""
        return [(k0, 1.0) for k0 in self.keys]

    def sizes(self, n_R: Tensor, parameter_W: Tensor, scale_W: Tensor) -> Tensor:
        """Return k0 for every row."""
        return parameter_W.expand(n_R.numel(), -1)
