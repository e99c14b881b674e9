"""The least-squares line, which in ln k against ln n is a power law: its slope is the exponent."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


def mean_where(values: Array, mask: Mask) -> Array:
    """Mean over the last axis of the values that the mask names."""
    return np.where(mask, values, 0.0).sum(-1) / mask.sum(-1)


def fit_line(y: Array, x: Array, mask: Mask) -> Array:
    """Fit y = level + slope x by least squares over the last axis.

    Parameters
    ----------
    y : shape (..., points).
    x : points, broadcasts to y.
    mask : the points to use, broadcasts to y.

    Returns
    -------
    array : (..., 2), level and slope; NaN where all x used are equal.
    """
    centred = x - mean_where(np.broadcast_to(x, mask.shape), mask)[..., None]
    weights = np.where(mask, centred, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = (weights * y).sum(-1) / (weights * centred).sum(-1)
    level = mean_where(y - slope[..., None] * x, mask)
    return np.stack([level, slope], axis=-1)


def slopes(y: Array, x: Array) -> Array:
    """Least-squares slopes in x (..., points) of all points of y (..., points), shape (...)."""
    centred = x - x.mean(-1, keepdims=True)
    return (y * (centred / (centred**2).sum(-1, keepdims=True))).sum(-1)
