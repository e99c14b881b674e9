"""Resampling of whole clusters (documents, draws) and of heads, and the intervals it yields."""

import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

from analysis.statistics.intervals import student

Array = NDArray[np.float64]
KEPT = 8  # draws that are kept, for every window of a label asks for the same


@dataclass(frozen=True)
class Source:
    """One source of sampling error: the data as they would be had it alone fallen out otherwise.

    Attributes
    ----------
    replicates
        Data, shape (resamples, ...).
    units
        Number of independent units resampled.
    held_elsewhere
        Replicates of that part of the error which another source holds already, to be counted once; None if none.
    """

    replicates: Array
    units: int
    held_elsewhere: Array | None = None


@lru_cache(maxsize=KEPT)
def weights(units: int, resamples: int, seed: int, name: str) -> Array:
    """Draw how often each unit stands in each bootstrap resample, shape (resamples, units), not to be written to.

    The stream depends on the seed and on a name alone, so that a further label changes no other number.
    """
    stream = np.random.default_rng([seed, zlib.crc32(name.encode())])
    drawn = stream.multinomial(units, np.full(units, 1 / units), size=resamples).astype(np.float64)
    drawn.flags.writeable = False
    return drawn


def heads_drawn(heads: int, resamples: int, seed: int, label: str) -> NDArray[np.intp]:
    """Choose the heads of a label in the estimate, all, and in each resample: indices (1 + resamples, heads)."""
    drawn = weights(heads, resamples, seed, f"{label}, heads").astype(int)
    times = np.concatenate([np.ones((1, heads), int), drawn])
    return np.repeat(np.tile(np.arange(heads), len(times)), times.ravel()).reshape(times.shape)


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
    stretch = _stretch(clusters, confidence)
    low, high = _quantiles(replicates, [tail, 1 - tail])
    return estimate + stretch * (low - estimate), estimate + stretch * (high - estimate)


@cache
def _stretch(clusters: int, confidence: float) -> float:
    """Return the factor by which a percentile interval is stretched, which scipy takes long to find."""
    normal = -special.ndtri((1 - confidence) / 2)
    return float(np.sqrt(clusters / (clusters - 1)) * student(clusters - 1, confidence) / normal)


def _quantiles(replicates: Array, shares: Sequence[float]) -> Array:
    """Quantiles over the resamples, (shares, ...), NaN replicates left out: only those that have one take long."""
    quantiles = np.asarray(np.quantile(replicates, shares, axis=0))
    if (broken := np.isnan(quantiles[0])).any():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # where all are missing, so is the quantile
            quantiles[:, broken] = np.nanquantile(replicates[:, broken], shares, axis=0)
    return quantiles


def combined_interval(
    estimate: Array, sources: Sequence[Source], statistic: Callable[[Array], Array], confidence: float
) -> tuple[Array, Array]:
    """Interval of a statistic whose data err from several crossed sources, such as documents and heads.

    Resampling clusters and heads at once does not do: the clusters' Student factor would stretch the heads' share of
    the error too, and what is a head's own in one cluster would count three times (the pigeonhole bootstrap, Owen
    2007, arXiv 0712.1111). So each source is resampled alone and gets an interval with its own factor; the distances
    from the estimate then add in quadrature, each side for itself (Zou and Donner 2008, doi 10.1002/sim.3095), less
    what a source shares with another, but never below nothing.

    Parameters
    ----------
    estimate : shape (...).
    sources : at least one.
    statistic : maps replicates of the data to those of the estimate, (resamples, ...).
    confidence : for example 0.95.

    Returns
    -------
    low, high : shape (...); NaN if a source has a single unit.
    """

    def squared_reach(replicates: Array, units: int) -> Array:
        low, high = interval(estimate, statistic(replicates), units, confidence)
        return np.maximum([estimate - low, high - estimate], 0.0) ** 2

    total = np.zeros((2, *estimate.shape))
    for source in sources:
        reach = squared_reach(source.replicates, source.units)
        if source.held_elsewhere is not None:
            reach = np.maximum(reach - squared_reach(source.held_elsewhere, source.units), 0.0)
        total += reach
    below, above = np.sqrt(total)
    return estimate - below, estimate + above


# A quantity with bounds has its interval on a scale that has none: no error is below 0, no correlation above 1.
SCALES: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "real": (lambda value: value, lambda value: value),
    "positive": (np.log, np.exp),
    "correlation": (np.arctanh, np.tanh),
    "share": (lambda value: np.arcsin(np.sqrt(value)), lambda value: np.sin(np.clip(value, 0, np.pi / 2)) ** 2),
}


def with_interval(
    name: str,
    by_cluster: Array,
    clusters: int,
    by_head: Array | None,
    heads: int,
    confidence: float,
    scale: str = "real",
) -> dict[str, float]:
    """Name a number over heads, with its interval from clusters and heads resampled apart.

    Parameters
    ----------
    name : of the number; its bounds become NAME_low and NAME_high.
    by_cluster : (1 + resamples,), the estimate first, then that of each resample of clusters, all heads in it.
    by_head : (resamples,), that of each resample of heads, all clusters in it; None with a single head, which is no
        sample of heads but all there is.
    scale : one of SCALES, on which the interval is taken.

    Returns
    -------
    dict : `name`, low and high; NaN bounds with a single cluster, or where the scale has no number for the estimate.
    """
    onto, back = SCALES[scale]
    with np.errstate(divide="ignore", invalid="ignore"):
        estimate = onto(by_cluster[:1])[0]
        sources = [Source(onto(by_cluster[1:]), clusters)]
        if by_head is not None and heads > 1:
            sources.append(Source(onto(by_head), heads))
        low, high = combined_interval(np.asarray(estimate), sources, lambda same: same, confidence)
        return {name: float(by_cluster[0]), f"{name}_low": float(back(low)), f"{name}_high": float(back(high))}
