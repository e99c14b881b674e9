"""The least-squares line, which in ln k against ln n is a power law: its slope is the exponent."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


def mean_where(values: Array, mask: Mask) -> Array:
    """Mean over the last axis of the values that the mask names, to which it broadcasts."""
    if not mask.all():  # what the mask leaves out may be NaN
        values = np.where(mask, values, 0.0)
    return np.einsum("...p,...p->...", values, mask.astype(np.float64)) / mask.sum(-1)


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
    if not mask.all():  # what the mask leaves out may be NaN
        y = np.where(mask, y, 0.0)
    middle = mean_where(np.broadcast_to(x, np.broadcast_shapes(x.shape, mask.shape)), mask)
    weights = np.where(mask, x - middle[..., None], 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = np.einsum("...p,...p->...", y, weights) / (weights**2).sum(-1)
    level = mean_where(y - slope[..., None] * x, mask)
    return np.stack([level, slope], axis=-1)


def slopes(y: Array, x: Array) -> Array:
    """Least-squares slopes in x (..., points) of all points of y (..., points), shape (...)."""
    centred = x - x.mean(-1, keepdims=True)
    return (y * (centred / (centred**2).sum(-1, keepdims=True))).sum(-1)
