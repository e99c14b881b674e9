"""How many keys a row keeps. One file per rule; each rule's class is its own Hydra schema.

A rule has `windows(length) -> list[Window]`: the windows that it contributes for rows of that nominal length.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from experiments.measures.exact import ExactRows


@dataclass(frozen=True)
class Window:
    """One window: its coordinates in windows.parquet, and the keys that it asks for.

    `size` maps the exact rows to a real number of keys per row [R], float64; a rule of n alone reads only `n_R`.
    """

    rule: str
    parameter: float
    scale: float
    size: Callable[[ExactRows], Tensor]

    def keys(self, exact: ExactRows) -> Tensor:
        """Return the keys kept per row [R] int64: ceil(x (1 - 1e-9)) held within [1, n] (theory.md section 1)."""
        k_R = torch.ceil(self.size(exact).double() * (1 - 1e-9)).long()
        return k_R.clamp(min=1).minimum(exact.n_R)


class Rule(Protocol):
    """What the window set asks of a rule."""

    def windows(self, length: int) -> list[Window]:
        """Return this rule's windows for rows of nominal context length `length`."""
        ...
