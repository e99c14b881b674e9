"""Resampling of whole clusters (documents, draws) and of heads, and the intervals it yields."""

import zlib

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]


def weights(units: int, resamples: int, seed: int, name: str) -> Array:
    """Draw how often each unit stands in each bootstrap resample, shape (resamples, units).

    The stream depends on the seed and on a name alone, so that a further label changes no other number.
    """
    stream = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return stream.multinomial(units, np.full(units, 1 / units), size=resamples).astype(np.float64)


def interval(estimate: Array, replicates: Array, clusters: int, confidence: float) -> tuple[Array, Array]:
    """Percentile interval, stretched about the estimate for a small number of clusters.

    With c clusters the plain percentile interval is too short twice over: the bootstrap deviation lacks the
    factor sqrt(c / (c - 1)), and normal quantiles stand where Student's with c - 1 degrees belong. Both are
    put back as one factor, that of the expanded percentile interval (Hesterberg 2015, arXiv 1411.5279).

    Parameters
    ----------
    estimate : shape (...).
    replicates : shape (resamples, ...); NaN replicates are left out.
    clusters : number c of independent clusters resampled.
    confidence : for example 0.95.

    Returns
    -------
    low, high : shape (...); NaN with a single cluster, which says nothing of its own spread.
    """
    if clusters < 2:
        return np.full_like(estimate, np.nan), np.full_like(estimate, np.nan)
    tail = (1 - confidence) / 2
    stretch = np.sqrt(clusters / (clusters - 1)) * stats.t.isf(tail, clusters - 1) / stats.norm.isf(tail)
    low, high = np.nanquantile(replicates, [tail, 1 - tail], axis=0)
    return estimate + stretch * (low - estimate), estimate + stretch * (high - estimate)
