"""Threshold windows: all keys with p_j > eps; at equal cost the floor under every rule [T7]."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.errors import UserError
from experiments.windows import Window


@dataclass
class Threshold:
    """Windows for every threshold eps, taken from the exact row whichever selector then picks the keys."""

    epsilons: list[float]

    def __post_init__(self) -> None:
        if bad := [eps for eps in self.epsilons if not 0 < eps < 1]:
            raise UserError(f"windows.thresholds has eps = {bad[0]}: a probability lies between 0 and 1, both excluded")

    def windows(self, length: int) -> list[Window]:
        """Return one window per threshold."""
        return [
            Window("threshold", eps, 1.0, lambda exact, eps=eps: exact.count_above(eps)) for eps in self.epsilons
        ]
