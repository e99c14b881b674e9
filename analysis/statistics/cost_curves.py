"""What windows cost and lose: the records of one source as arrays, read off at any cost by cubic interpolation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from analysis.statistics.cells import heads_of, numbered

Array = NDArray[np.float64]
TINY = 1e-12  # by which rounding may carry a point beyond the last knot, in shares of a step
FINE = 8  # steps between two windows of the grid when many windows are read off
MEASURES = ("k", "dropped_mass", "output_error_renormalised")
ROW_RULES = ("top_p", "threshold")
READ = ["layer", "head", "sample", "cluster", "length", "rule", "parameter", "n", *MEASURES]


@dataclass(frozen=True)
class GridCurve:
    """Error against window at one context length of the heads that see as many keys, measured on a dense grid of k.

    `length` and `heads` are indices of the context length and of the heads; `knots` (grid,) in keys, the last one the
    whole row; `dropped` (heads, clusters, grid) mean dropped mass; `square` (heads, clusters, grid) squared relative
    output error of the renormalised row.
    """

    length: int
    heads: NDArray[np.intp]
    knots: Array
    dropped: Array
    square: Array

    def weights(self, k: ArrayLike) -> Array:
        """Weights (..., grid) that read any curve on these knots at real windows k (...), cubic in ln k.

        Interpolation is linear in the curve, so a mean of curves is read off like each of them.
        """
        x, at = np.log(self.knots), np.log(np.asarray(k, np.float64))
        left = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(x) - 2)
        right, step = left + 1, x[left + 1] - x[left]
        t = (at - x[left]) / step
        rise, first, last = t**2 * (3 - 2 * t), t * (1 - t) ** 2 * step, t**2 * (1 - t) * step
        weights = first[..., None] * self._slopes[left] - last[..., None] * self._slopes[right]
        knot = np.arange(len(x))
        weights += (1 - rise)[..., None] * (knot == left[..., None]) + rise[..., None] * (knot == right[..., None])
        inside = (t >= -TINY) & (t <= 1 + TINY)
        return np.where(inside[..., None], weights, np.nan)

    @cached_property
    def _slopes(self) -> Array:
        """Slope at each knot of the curves that are 1 at one knot and 0 at the others (knots, curves)."""
        return slopes(np.log(self.knots), np.eye(len(self.knots))).T

    def mean_dropped(self, clusters: NDArray[np.intp]) -> Array:
        """Mean dropped mass over heads and some clusters at each knot (grid,), which every rule asks again."""
        key = clusters.tobytes()
        if key not in self._means:
            self._means[key] = self.dropped[:, clusters].mean((0, 1))
        return self._means[key]

    @cached_property
    def _means(self) -> dict[bytes, Array]:
        return {}

    def fine_dropped(self, clusters: NDArray[np.intp]) -> Array:
        """Mean dropped mass over heads and some clusters at the windows of `fine` (steps,)."""
        key = clusters.tobytes()
        if key not in self._fine_means:
            self._fine_means[key] = self.fine[1] @ self.mean_dropped(clusters)
        return self._fine_means[key]

    @cached_property
    def _fine_means(self) -> dict[bytes, Array]:
        return {}

    @cached_property
    def fine(self) -> tuple[Array, Array]:
        """Windows (steps,) in keys that are `FINE` times as dense as the knots, and their weights (steps, grid)."""
        ln = np.log(self.knots)
        steps = np.interp(np.arange(FINE * (len(ln) - 1) + 1) / FINE, np.arange(len(ln)), ln)
        k = np.append(np.exp(steps[:-1]), self.knots[-1])
        return k, self.weights(k)


@dataclass(frozen=True)
class RowRule:
    """A rule that looks at the row, at every parameter measured, cheapest first.

    `parameters` (settings,); `k` (heads, clusters, lengths, settings) mean keys per row; `dropped` and `square` alike,
    as in `GridCurve`.
    """

    parameters: Array
    k: Array
    dropped: Array
    square: Array


@dataclass(frozen=True)
class CostCurves:
    """All windows of one source; `clusters` counts what a bootstrap may resample, in order of their sample.

    `grid` holds one curve per context length of `lengths` (lengths,) and number of keys that heads see there, which is
    one where all layers see the whole context; `row_rules` those of `top_p` and `threshold` that were measured.
    """

    lengths: Array
    grid: list[GridCurve]
    row_rules: dict[str, RowRule]
    heads: int
    clusters: int

    @property
    def n(self) -> Array:
        """Keys that the heads of each curve see (curves,)."""
        return np.array([curve.knots[-1] for curve in self.grid])

    def weights(self, mix: Array) -> Array:
        """Share of rows that each curve stands for (curves,), of the shares of the lengths (lengths,)."""
        return np.array([mix[curve.length] * (len(curve.heads) / self.heads) for curve in self.grid])

    def by_length(self, values: Array) -> Array:
        """Mean over heads at each length, (..., curves) -> (..., lengths)."""
        means = np.zeros((*values.shape[:-1], len(self.lengths)))
        for i, curve in enumerate(self.grid):
            means[..., curve.length] += len(curve.heads) / self.heads * values[..., i]
        return means

    def halves(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Split the clusters into earlier and later samples: neighbouring stretches of a text stay together."""
        order = np.arange(self.clusters)
        return order[: self.clusters // 2], order[self.clusters // 2 :]


def read(windows: pd.DataFrame, row_rules_read: Sequence[str] = ROW_RULES) -> CostCurves | None:
    """Arrange the oracle's windows of one label.

    Parameters
    ----------
    windows : lines of `analysis.load` of one label, one selector and one variant; no column but `READ` is read.
    row_rules_read : rules that look at the row; those with fewer than three settings are left out.

    Returns
    -------
    CostCurves : of the clusters in which every head was measured at every length; None where no grid of at least
        three windows was measured, or a head sees a single key.
    """
    grid = windows[windows["rule"] == "grid"]
    if grid.empty:
        return None
    _, head_keys = heads_of(grid)
    names = grid[["sample", "cluster"]].drop_duplicates().astype({"cluster": str}).sort_values(["sample", "cluster"])
    clusters = pd.Index(names["cluster"].unique())
    lengths = np.unique(grid["length"])

    def cells(frame: pd.DataFrame, parameters: Array) -> Array:
        """Arrange the measures as (measures, heads, clusters, settings), NaN where there is no line."""
        shape = (len(head_keys), len(clusters), len(parameters))
        of_heads, there = heads_of(frame)
        head = head_keys.get_indexer(there)[of_heads]
        of_clusters, found = numbered(frame["cluster"])
        cluster = clusters.get_indexer(found.astype(str))[of_clusters]
        cell = np.ravel_multi_index((head, cluster, np.searchsorted(parameters, frame["parameter"])), shape)
        size = int(np.prod(shape))
        # relative errors of repeated rows are pooled as squares, like those of different rows
        values = [frame[name].to_numpy(np.float64) ** (2 if "error" in name else 1) for name in MEASURES]
        with np.errstate(invalid="ignore"):
            count = np.bincount(cell, minlength=size)
            return np.stack([np.bincount(cell, v, minlength=size) / count for v in values]).reshape(3, *shape)

    by_length = []
    for length in lengths:
        frame = _of_most_clusters(grid[grid["length"] == length])
        knots = np.unique(frame["parameter"].to_numpy(np.float64))
        if len(knots) < 3:
            return None
        by_length.append((knots, cells(frame, knots)))
    row_rules = {}
    for rule in row_rules_read:
        frame = _of_most_clusters(windows[windows["rule"] == rule])
        parameters = np.unique(frame["parameter"].to_numpy(np.float64))
        measured = [cells(frame[frame["length"] == length], parameters) for length in lengths]
        if len(parameters) > 2:
            row_rules[rule] = parameters[::-1], np.stack(measured, axis=3)[..., ::-1]
    seen = grid.pivot_table("n", ["layer", "head"], "length", "max").loc[head_keys].to_numpy(np.float64)
    if seen.min() < 2:
        return None
    kinds, kind = np.unique(seen, axis=0, return_inverse=True)
    whole = np.all([np.isfinite(values).all((0, 1, 3)) for _, values in by_length], axis=0)
    whole &= np.all([np.isfinite(values).all((0, 1, 3, 4)) for _, values in row_rules.values()], axis=0)
    return CostCurves(
        lengths.astype(np.float64),
        [
            _to_the_whole_row(i, heads, knots, values[1:, heads][:, :, whole], n)
            for i, (knots, values) in enumerate(by_length)
            for heads, n in ((np.flatnonzero(kind == j), kinds[j, i]) for j in range(len(kinds)))
        ],
        {rule: RowRule(parameters, *values[:, :, whole]) for rule, (parameters, values) in row_rules.items()},
        len(head_keys),
        int(whole.sum()),
    )


def _of_most_clusters(frame: pd.DataFrame) -> pd.DataFrame:
    """Keep the settings of some cluster that say most: as many as possible, that as many clusters as possible have.

    Another run of the same design may have measured further settings, or fewer, of some of its samples.
    """
    if frame.empty:
        return frame
    each = frame[["length", "cluster", "parameter"]].drop_duplicates()
    place = [each["length"], each["cluster"].astype(str)]
    there = pd.crosstab(place, each["parameter"]).to_numpy() > 0  # (clusters, settings)
    every = np.unique(there, axis=0)
    said = [int(settings.sum()) * int(there[:, settings].all(1).sum()) for settings in every]
    chosen = np.sort(frame["parameter"].unique())[every[int(np.argmax(said))]]
    return frame[frame["parameter"].isin(chosen)]


def _to_the_whole_row(length: int, heads: NDArray[np.intp], knots: Array, values: Array, n: float) -> GridCurve:
    """Close a curve where the window holds every key that can be seen and nothing is lost."""
    inside = knots < n
    closed = np.concatenate([values[..., inside], np.zeros((*values.shape[:-1], 1))], axis=-1)
    return GridCurve(length, heads, np.append(knots[inside], n), *closed)


def slopes(x: Array, y: Array) -> Array:
    """Slopes dy/dx at the knots of x by three-point differences, over the last axis of both."""
    step = np.diff(x)
    with np.errstate(invalid="ignore", divide="ignore"):
        chord = np.diff(y) / step
        inner = (step[..., 1:] * chord[..., :-1] + step[..., :-1] * chord[..., 1:]) / (step[..., 1:] + step[..., :-1])
    return np.concatenate([chord[..., :1], inner, chord[..., -1:]], axis=-1)


def hermite(x: Array, y: Array, slope: Array, at: ArrayLike, widest: float = np.inf) -> Array:
    """Read y(x) at a point by the cubic that has the given slopes at both neighbouring knots.

    Parameters
    ----------
    x, y, slope : shape (..., knots), x not falling; they broadcast.
    at : shape (...).
    widest : greatest distance of neighbouring knots that may be bridged, in units of x.

    Returns
    -------
    array : shape (...); NaN outside the knots and where they lie too far apart.
    """
    at = np.asarray(at, np.float64)
    i = np.clip((x <= at[..., None]).sum(-1) - 1, 0, x.shape[-1] - 2)
    shape = np.broadcast_shapes(i.shape, x.shape[:-1], y.shape[:-1])
    i = np.broadcast_to(i, shape)[..., None]

    def ends(values: Array) -> tuple[Array, Array]:
        full = np.broadcast_to(values, (*shape, values.shape[-1]))
        return np.take_along_axis(full, i, -1)[..., 0], np.take_along_axis(full, i + 1, -1)[..., 0]

    (x0, x1), (y0, y1), (m0, m1) = ends(x), ends(y), ends(slope)
    step = x1 - x0
    with np.errstate(invalid="ignore", divide="ignore"):
        t = (at - x0) / step
        value = y0 + t**2 * (3 - 2 * t) * (y1 - y0) + t * (1 - t) * step * ((1 - t) * m0 - t * m1)
    return np.where((t >= -TINY) & (t <= 1 + TINY) & (step <= widest), value, np.nan)
