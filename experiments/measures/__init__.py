"""Everything that is measured about a row, for all windows at once.

`exact.py` and `sparse.py` are the reference: plain torch, any device, any order of keys. `quick.py` with `kernels.py`
gives the same numbers on a CPU without sorting, where the most probable keys are kept. `block.py` chooses.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class RowFacts(Protocol):
    """What is known of a block of exact rows, whichever path found it."""

    @property
    def n_R(self) -> Tensor:
        """Keys each row can see [R] int64."""
        ...

    def k_min(self, eta: float) -> Tensor:
        """Return the smallest k >= 1 whose k most probable keys leave a dropped mass <= eta, per row [R] int64."""
        ...

    def count_above(self, epsilon: float) -> Tensor:
        """Return #{j: p_j > epsilon} per row [R] int64."""
        ...
