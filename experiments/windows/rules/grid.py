"""A dense geometric grid of k, for curves of error against k."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from experiments.errors import UserError
from experiments.windows import Window


@dataclass
class Grid:
    """Windows of round(2^(i / per_octave)) keys, i = 0, 1, ..., up to the context length."""

    per_octave: int  # 0 switches the grid off

    def __post_init__(self) -> None:
        if self.per_octave < 0:
            raise UserError(f"windows.grid_per_octave={self.per_octave}: give a number of windows >= 0")

    def windows(self, length: int) -> list[Window]:
        """Return one window per distinct k <= length; the same k at every length, so that curves can be compared."""
        if self.per_octave == 0:
            return []
        steps = range(self.per_octave * length.bit_length() + 1)
        sizes = sorted({round(2 ** (i / self.per_octave)) for i in steps})
        return [
            Window("grid", k, 1.0, lambda exact, k=k: torch.full_like(exact.logsumexp_R, k))
            for k in sizes
            if k <= length
        ]
