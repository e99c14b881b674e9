"""Fixed windows: k = k0 whatever the context length."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from experiments.errors import UserError
from experiments.windows import Window


@dataclass
class Fixed:
    """Windows of `sizes` keys."""

    sizes: list[int]

    def __post_init__(self) -> None:
        if bad := [k for k in self.sizes if k < 1]:
            raise UserError(f"windows.fixed has {bad[0]}: give numbers of keys >= 1")

    def windows(self, length: int) -> list[Window]:
        """Return one window per size."""
        return [
            Window("fixed", k0, 1.0, lambda exact, k0=k0: torch.full_like(exact.logsumexp_R, k0))
            for k0 in self.sizes
        ]
