"""How a number of keys is shared out among the layers or heads of a model.

Shape letters: U units (layers, or KV heads), P measured points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

Array = NDArray[np.float64]
PYRAMID = 20.0  # keys of the widest layer over those of the narrowest, at most (arXiv 2406.02069, beta)


@dataclass(frozen=True)
class Curve:
    """What a unit loses over the keys that it keeps: the lower convex hull of measured points (P,).

    `keys` rise from its floor to all that it sees; `loss` falls, and a key gains at most what the one before did.
    """

    keys: Array
    loss: Array

    @classmethod
    def of(cls, keys: Sequence[float], loss: Sequence[float], most: float) -> Curve:
        """Return the hull of measured points and of the dense unit, which keeps `most` keys and loses nothing.

        Points that lose more than the convex hull of the others lie above it. Where noise lets a point gain over dense
        attention, the curve is flat beyond the least loss. Windows that are rounded up to the same keys are one point.
        """
        of_keys: dict[float, list[float]] = {}
        for k, lost in zip(keys, loss, strict=True):
            of_keys.setdefault(float(k), []).append(float(lost))
        points = [(k, float(np.mean(of_keys[k]))) for k in sorted(of_keys) if k < most]
        hull: list[tuple[float, float]] = []
        for point in [*points, (float(most), 0.0)]:
            while len(hull) > 1 and _slope(hull[-2], hull[-1]) >= _slope(hull[-2], point):
                hull.pop()
            hull.append(point)
        k_P, loss_P = np.array(hull).T
        return cls(k_P, np.minimum.accumulate(loss_P))

    def at(self, keys: float) -> float:
        """Return the loss at a number of keys, linear between the points and flat beyond them."""
        return float(np.interp(keys, self.keys, self.loss))


def _slope(one: tuple[float, float], other: tuple[float, float]) -> float:
    return (other[1] - one[1]) / (other[0] - one[0])


def bounds(curves: Sequence[Curve], weights: Sequence[float]) -> tuple[float, float]:
    """Return the smallest and the largest mean number of keys that can be shared out."""
    least, most = ([curve.keys[end] for curve in curves] for end in (0, -1))
    return float(np.average(least, weights=weights)), float(np.average(most, weights=weights))


def by_gain(curves: Sequence[Curve], weights: Sequence[float], mean: float) -> Array:
    """Share keys out so that the losses of all units, taken to add up, are least; returns the keys of each (U,).

    Every unit starts at its floor. The stretch of a curve that gains most per key goes first: curves are convex, so
    that no stretch of a unit goes before the one below it, and greedy is optimal (a fractional knapsack, Dantzig 1957).

    Parameters
    ----------
    curves : of each unit.
    weights : heads of each unit, for all of which a key is paid.
    mean : keys that a head is to keep on average.

    Raises
    ------
    ValueError : if the mean is not within `bounds`.
    """
    least, most = bounds(curves, weights)
    if not least <= mean <= most:
        raise ValueError(f"a mean of {mean:g} keys is not within {least:g} and {most:g}")
    weight_U = np.asarray(weights, float)
    keys_U = np.array([curve.keys[0] for curve in curves])
    left = float((mean - least) * weight_U.sum())
    stretches = [
        (gained / weight_U[unit], unit, added)
        for unit, curve in enumerate(curves)
        for gained, added in zip(np.diff(curve.loss) / np.diff(curve.keys), np.diff(curve.keys), strict=True)
    ]
    for _, unit, added in sorted(stretches, key=lambda stretch: stretch[0]):  # of equal gains, the first unit's first
        taken = min(added, left / weight_U[unit])
        keys_U[unit] += taken
        left -= taken * weight_U[unit]
    return keys_U


def in_proportion(shape_U: Array, least_U: Array, most_U: Array, weights: Sequence[float], mean: float) -> Array:
    """Return keys in proportion to a shape, each within its bounds, that have a mean (U,).

    Raises
    ------
    ValueError : if the bounds do not allow the mean.
    """
    low, high = (float(np.average(ends, weights=weights)) for ends in (least_U, most_U))
    if not low <= mean <= high:
        raise ValueError(f"a mean of {mean:g} keys is not within {low:g} and {high:g}")

    def keys(log_factor: float) -> Array:
        return np.clip(np.exp(log_factor) * shape_U, least_U, most_U)

    def excess(log_factor: float) -> float:
        return float(np.average(keys(log_factor), weights=weights) - mean)

    ends = -60.0, 60.0
    if excess(ends[0]) >= 0:
        return least_U.astype(float)
    return keys(ends[1]) if excess(ends[1]) <= 0 else keys(brentq(excess, *ends, xtol=1e-12))


def pyramid(layers: int, mean: float, least: float) -> Array:
    """Return keys that fall evenly from the first layer to the last (layers,), as PyramidKV's (arXiv 2406.02069).

    The last has 2 / (1 + `PYRAMID`) of the mean, but no fewer than `least`, and the first as many more as that is less.
    """
    narrowest = min(max(2 * mean / (1 + PYRAMID), least), mean)
    return np.linspace(2 * mean - narrowest, narrowest, layers)
