"""Top-p windows: the fewest keys that leave a dropped mass of at most eta, row by row."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.errors import UserError
from experiments.measures import RowFacts


@dataclass
class TopP:
    """Windows for every tolerance eta, taken from the exact row whichever selector then picks the keys."""

    etas: list[float]
    rule: str = "top_p"

    def __post_init__(self) -> None:
        if bad := [eta for eta in self.etas if not 0 < eta < 1]:
            raise UserError(f"windows.top_p has eta = {bad[0]}: a dropped mass lies between 0 and 1, both excluded")

    def coordinates(self, length: int) -> list[tuple[float, float]]:
        """Return (eta, 1) per window."""
        return [(eta, 1.0) for eta in self.etas]

    def sizes(self, exact: RowFacts, parameter_W: Tensor, scale_W: Tensor) -> Tensor:
        """Return the smallest k with dropped mass <= eta."""
        return torch.stack([exact.k_min(eta) for eta in parameter_W.tolist()], dim=1)
