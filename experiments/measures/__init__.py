"""Everything that is measured about a row, for all windows at once: pure functions of the exact row and the answer.

`measure.py` measures what methods answer, and `output.py` is what they put out in a model. `compute.py` chooses between
`experiments.reference` and `experiments.kernels`, which give the same numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from experiments.windows import RowFacts

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 1  # raise it when a measure gives other numbers: every record is then measured anew


class RankedRows(RowFacts, Protocol):
    """A block of exact rows, whichever path ranked it."""

    def statistics(self) -> dict[str, Tensor]:
        """Return the window-free columns of rows.parquet, each [R]."""
        ...

    def measure_top_k(self, value_NV: Tensor, k_RW: Tensor) -> dict[str, Tensor]:
        """Measure the rows that keep their k most probable keys, for every window at once."""
        ...
