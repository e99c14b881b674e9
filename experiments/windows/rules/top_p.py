"""Top-p windows: the fewest keys that leave a dropped mass of at most eta, row by row."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.errors import UserError
from experiments.windows import Window


@dataclass
class TopP:
    """Windows for every tolerance eta, taken from the exact row whichever selector then picks the keys."""

    etas: list[float]

    def __post_init__(self) -> None:
        if bad := [eta for eta in self.etas if not 0 < eta < 1]:
            raise UserError(f"windows.top_p has eta = {bad[0]}: a dropped mass lies between 0 and 1, both excluded")

    def windows(self, length: int) -> list[Window]:
        """Return one window per tolerance."""
        return [Window("top_p", eta, 1.0, lambda exact, eta=eta: exact.k_min(eta)) for eta in self.etas]
