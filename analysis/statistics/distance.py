"""Attention against distance: curves over ranges of distances, and the exponent of their decay.

Shape letters: C clusters, H heads, B ranges of distances, S estimates (the first of all clusters, then resampled),
X estimates, or those of heads.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.records.load import HEADS_AT_MOST
from analysis.settings import Settings
from analysis.statistics import bootstrap

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Curves:
    """The curves of one label and length.

    Attributes
    ----------
    label, length
        Where they come from.
    place_H2
        Layer and head of each curve.
    range_B2
        Least and greatest distance of each range, of which every row has every distance.
    value_CHB
        Mean probability of a key; NaN where a head sees none.
    """

    label: str
    length: int
    place_H2: NDArray[np.int64]
    range_B2: NDArray[np.int64]
    value_CHB: Array

    @property
    def middle_B(self) -> Array:
        """The geometric middle of each range."""
        return np.sqrt(self.range_B2.astype(float).prod(1))

    @property
    def whole_H(self) -> NDArray[np.bool_]:
        """Which heads see every range: a sliding window hides the far ones, and a mean over other heads would jump."""
        return np.asarray(~np.isnan(self.value_CHB).any((0, 2)))

    def within(self, ends: Sequence[float]) -> NDArray[np.bool_]:
        """Return which ranges [B] lie between two distances."""
        return (self.range_B2[:, 0] >= ends[0]) & (self.range_B2[:, 1] <= ends[1])

    def holding(self, distance: int) -> NDArray[np.intp]:
        """Return the index of the range that holds a distance; none if there is no such range."""
        return np.flatnonzero((self.range_B2[:, 0] <= distance) & (distance <= self.range_B2[:, 1]))


def curves_of(lines: pd.DataFrame) -> list[Curves]:
    """Return the curves of each label and length, the longest last.

    Parameters
    ----------
    lines : of distance.parquet, one design per label; a range that a row lacks a distance of is left out, for its mean
        is one of fewer rows, and of the first key, where a sink would be.
    """
    whole = lines["pairs"] == lines["rows"] * (lines["last"] - lines["distance"] + 1)
    lines = lines[whole].astype({"label": str, "cluster": str})
    result = []
    for label, length in sorted(set(zip(lines["label"], lines["length"].tolist(), strict=True))):
        part = lines[(lines["label"] == label) & (lines["length"] == length)]
        part = part.assign(place=part["layer"] * HEADS_AT_MOST + part["head"])
        wide = part.pivot_table("probability", ["cluster", "place"], "distance")
        clusters, places = (np.sort(part[name].unique()) for name in ("cluster", "place"))
        wide = wide.reindex(pd.MultiIndex.from_product([clusters, places]))
        last = part.groupby("distance")["last"].first().reindex(wide.columns)
        values = wide.to_numpy(np.float64).reshape(len(clusters), len(places), -1)
        place_H2 = np.stack([places // HEADS_AT_MOST, places % HEADS_AT_MOST], 1)
        range_B2 = np.stack([wide.columns.to_numpy(np.int64), last.to_numpy(np.int64)], 1)
        result.append(Curves(label, length, place_H2, range_B2, values))
    return result


def decay(middle_B: Array, value_XB: Array) -> Array:
    """Return the exponent a [...] of value [..., B] ~ distance^-a: least squares of logarithms over the ranges.

    NaN where a value is 0 or missing, or where there are fewer than three.
    """
    if len(middle_B) < 3:
        return np.full(value_XB.shape[:-1], np.nan)
    x_B = np.log(middle_B) - np.log(middle_B).mean()
    with np.errstate(divide="ignore", invalid="ignore"):
        log_XB = np.log(value_XB)
        return np.asarray(np.where(np.isfinite(log_XB).all(-1), -(log_XB @ x_B) / (x_B @ x_B), np.nan))


def resampled(curves: Curves, settings: Settings) -> Array:
    """Return the curve of every head [S, H, B]: the mean over clusters, then that of each resample."""
    clusters = len(curves.value_CHB)
    drawn = bootstrap.weights(clusters, settings.resamples, settings.seed, curves.label)
    weight_SC = np.vstack([np.ones(clusters), drawn]) / clusters
    return np.einsum("sc,chb->shb", weight_SC, curves.value_CHB, optimize=True)


def with_interval(name: str, value_S: Array, clusters: int, settings: Settings, scale: str) -> dict[str, float]:
    """Name an estimate with its interval from samples, on one of `bootstrap.SCALES`."""
    return bootstrap.with_interval(name, value_S, clusters, None, 1, settings.confidence, scale)
