"""Which k keys a sparse row keeps. One file per selector; the class is its own Hydra schema.

A selector has `name: str` and `ranking(rows) -> Ranking`. `ranking` is called once per head with all of its rows and
keys, the place to prepare anything that a head needs; the `Ranking` it returns is then called once per block of rows
and says in which order that block's keys are kept. Such a nested order serves every k in one pass. None instead of a
ranking means that the most probable keys are kept, which needs no sorting.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from experiments.measures.exact import ExactRows
from experiments.rows import Rows

Ranking = Callable[[Rows, ExactRows], Tensor]
"""Maps a block of rows and its exact rows to the order [R, N] in which keys are kept, invisible keys last."""


class Selector(Protocol):
    """What the runner asks of a selector."""

    name: str

    def ranking(self, rows: Rows) -> Ranking | None:
        """Prepare one head and return the ranking of its keys, block by block."""
        ...
