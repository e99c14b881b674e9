"""The oracle keeps the k most probable keys: the least dropped mass that any k keys can have."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from experiments.rows import Rows


@dataclass
class Oracle:
    """Keep the most probable keys; ties go to the lower key index."""

    name: str = "oracle"

    def ranking(self, rows: Rows) -> None:
        """Return None: the exact order is the oracle's."""
        return None

    def keys_read(self, n: Tensor, k: Tensor, head_dim: int) -> Tensor:
        """Return all keys, and the values of those kept."""
        return (n + k) / 2
