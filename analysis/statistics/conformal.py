"""What a new draw stays within, whatever its distribution: split-conformal bounds (arXiv 1604.04173)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def samples_needed(share: float) -> int:
    """Return the fewest scores m of which one bounds a new one with probability `share`: m >= share (m + 1)."""
    least = math.floor(share / (1 - share))
    return next(m for m in range(max(least - 1, 1), least + 3) if _rank(m, share) <= m)


def conformal(scores: NDArray[np.float64], share: float) -> float:
    """Return the ceil((m + 1) share)-th smallest of m scores (m,).

    A further score that is exchangeable with them is at most that with probability `share` or more.

    Raises
    ------
    ValueError : if there are fewer than `samples_needed`.
    """
    rank = _rank(len(scores), share)
    if rank > len(scores):
        raise ValueError(f"{len(scores)} scores: a share of {share:g} takes {samples_needed(share)}")
    return float(np.sort(scores)[rank - 1])


def _rank(samples: int, share: float) -> int:
    return math.ceil((samples + 1) * share * (1 - 1e-12))  # 10 x .9 is 9, not 9 and a rounding error
