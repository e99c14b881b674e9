"""The oracle keeps the k most probable keys: the least dropped mass that any k keys can have."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from experiments.measures.exact import ExactRows
from experiments.rows import Rows
from experiments.selectors import Ranking


@dataclass
class Oracle:
    """Keep the most probable keys; ties go to the lower key index."""

    name: str = "oracle"

    def ranking(self, rows: Rows) -> Ranking:
        """Return the exact order of each block."""
        return _exact_order


def _exact_order(block: Rows, exact: ExactRows) -> Tensor:
    return exact.order_RN
