"""A dense geometric grid of k, for curves of error against k."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from experiments.ranges import check_range

if TYPE_CHECKING:
    from torch import Tensor

# As many as the longest context may have within all windows that can be counted.
MOST_PER_OCTAVE = 2048


@dataclass
class Grid:
    """Windows of round(2^(i / per_octave)) keys, i = 0, 1, ..., up to the context length; 0 per octave for none."""

    per_octave: int
    rule: str = "grid"
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_range("windows.grid_per_octave", self.per_octave, least=0, most=MOST_PER_OCTAVE)

    def coordinates(self, length: int) -> list[tuple[float, float]]:
        """Return (k, 1) per distinct k <= length; the same k at every length, so that curves can be compared."""
        steps = range(self.per_octave * length.bit_length())
        sizes = {round(2 ** (i / self.per_octave)) for i in steps}
        return [(k, 1.0) for k in sorted(sizes) if k <= length]

    def sizes(self, n_R: Tensor, parameter_W: Tensor, scale_W: Tensor) -> Tensor:
        """Return k for every row."""
        return parameter_W.expand(n_R.numel(), -1)
