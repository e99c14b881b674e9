"""Errors at exactly n^C or a (ln n)^b keys, read off the dense grid: whole keys distort small windows.

n^0.1 is two to four keys, and rounded up it grows like n^0.15 to n^0.23 over the lengths that can be measured: a slope
against n would then be that of another window.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.float64]
CELL = ["layer", "head", "sample", "cluster"]


def at_exact(windows: pd.DataFrame, measures: Sequence[str]) -> pd.DataFrame:
    """Replace what windows n^C and a (ln n)^b lose by what exactly so many keys would.

    Between two windows of the grid ln error is linear in ln k, as it is under a power law; where one of them loses
    nothing, the error itself is linear in ln k. n is the most keys that a row of the head sees at the length.

    Parameters
    ----------
    windows : lines of `analysis.load` of one selector and variant, those of the rule `grid` among them.
    measures : columns that are errors.

    Returns
    -------
    DataFrame : the other lines, with real `k`. Fixed windows, and what lies beyond the grid, stay as recorded.
    """
    parts = [
        _of_length(frame, measures) for _, frame in windows.groupby(["label", "length"], observed=True, sort=False)
    ]
    return pd.concat(parts) if parts else windows


def _of_length(windows: pd.DataFrame, measures: Sequence[str]) -> pd.DataFrame:
    on_grid = (windows["rule"] == "grid").to_numpy()
    grid, others = windows[on_grid], windows[~on_grid]
    knots, knot = np.unique(grid["parameter"].to_numpy(np.float64), return_inverse=True)
    moved = others["rule"].isin(["power", "log"]).to_numpy()
    if len(knots) < 2 or not moved.any():
        return others
    cell = windows.groupby(CELL, observed=True, sort=False).ngroup().to_numpy()
    k = _real_keys(others[moved])
    left = np.clip(np.searchsorted(knots, k, side="right") - 1, 0, len(knots) - 2)
    x = np.log(knots)
    share = (np.log(k) - x[left]) / (x[left + 1] - x[left])
    own = cell[~on_grid][moved]
    every = others[[*measures, "k"]].to_numpy(np.float64)
    values = every[moved]
    for i, measure in enumerate(measures):
        errors = np.full((cell.max() + 1, len(knots)), np.nan)
        errors[cell[on_grid], knot] = grid[measure].to_numpy(np.float64)
        read = _between(errors[own, left], errors[own, left + 1], share)
        values[:, i] = np.where(np.isfinite(read), read, values[:, i])
    inside = (share >= 0) & (share <= 1)
    values[:, -1] = k
    every[moved] = np.where(inside[:, None], values, every[moved])
    return others.assign(**dict(zip([*measures, "k"], every.T, strict=True)))


def _real_keys(windows: pd.DataFrame) -> Array:
    """Return n^C and a (ln n)^b of each line before it is rounded, within [1, n]."""
    n, parameter, scale = (windows[name].to_numpy(np.float64) for name in ("n", "parameter", "scale"))
    power = (windows["rule"] == "power").to_numpy()
    return np.clip(scale * np.where(power, n, np.log(n)) ** parameter, 1, n)


def _between(left: Array, right: Array, share: Array) -> Array:
    """Read between two errors at a share of the way, in their logarithms where both have one."""
    with np.errstate(divide="ignore", invalid="ignore"):
        geometric = np.exp((1 - share) * np.log(left) + share * np.log(right))
    return np.where((left > 0) & (right > 0), geometric, (1 - share) * left + share * right)
