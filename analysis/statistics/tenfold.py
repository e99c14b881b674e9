"""Keys foretold at a context ten times as long as any that was fitted, each with an interval that can fail.

Shapes: resamples (the estimate first) x curves; a curve is a head, a layer's heads together, or all heads together.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.settings import Settings
from analysis.statistics import bootstrap
from analysis.statistics.conformal import conformal, samples_needed
from analysis.statistics.extrapolate import MEAN, SUMS, SUMS_RESAMPLES, from_sums, miss_at_longest, tested_at
from analysis.statistics.fit import Array, Curves, curves_of
from analysis.statistics.laws import LAWS

HEAD, LAYER, TOTAL = "head", "layer", "total"
TWO = ("power", "log")  # half their distance is the error of not knowing the law


@dataclass(frozen=True)
class Forecasts:
    """What is foretold of one label and what was measured, in ln k, for the curves of one scope.

    Attributes
    ----------
    where
        Layer and head of each curve; null where it is of several.
    n
        Mean number of keys that the curve's rows see (curves,).
    needed
        (1 + resamples, curves).
    by
        Of each forecaster, the same; the sums may have fewer resamples.
    unknown
        Half the distance between the power law and the logarithm (curves,).
    """

    where: pd.DataFrame
    n: Array
    needed: Array
    by: Mapping[str, Array]
    unknown: Array
    clusters: int

    def error(self, name: str) -> Array:
        """Return ln k foretold less ln k needed (1 + resamples, curves)."""
        return self.by[name] - self.needed[: len(self.by[name])]

    def scale(self, name: str) -> Array:
        """Return the width that an interval has before it is calibrated (curves,): sampling error and unknown law."""
        drawn = self.error(name)[1:].std(0) * np.sqrt(self.clusters / max(self.clusters - 1, 1))
        return np.asarray(np.hypot(drawn, self.unknown))


def foretell_tenfold(
    rows: pd.DataFrame, eta: float, settings: Settings, share: float, level: float, calibrating: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Fit up to a share of the longest length, foretell the keys needed there, and count what lies in the intervals.

    An interval is ln k foretold +- q s: s joins the error of sampling documents, which all heads share, with half the
    distance between the power law and the logarithm; q is the `level` quantile of |error| / s over the curves of one
    label, the split-conformal bound (arXiv 1604.04173). Intervals of that label itself take q from the other
    half of its curves. All heads together are one curve, which takes the layers' q.

    Parameters
    ----------
    rows : as for `extrapolate`, of designs with lengths up to the share of the longest.
    eta : dropped mass allowed.
    level : share of curves that the intervals are to hold, for example 0.9.
    calibrating : the label that calibrates; the one with most heads if it was not measured.

    Returns
    -------
    DataFrame : one line per (label, scope, layer, head, forecaster) with `n`, `k`, `k_foretold`, `low`, `high` and
        `inside`.
    DataFrame : one line per (label, scope, forecaster): numbers of `curves` and `clusters`, `q`, the label that it was
        `calibrated_by`, and each with an interval that resamples documents and curves apart: `absolute_error`, the
        median of |ln k foretold - ln k|; `total_ratio`, the keys foretold over those needed, summed over curves;
        `inside`, the share of curves whose need lies in the interval.
    """
    every: dict[str, dict[str, Forecasts]] = {}
    for curves in curves_of(rows, replace(settings, etas=(eta,))):
        if scopes := _forecasts(curves, eta, settings, share):
            every[curves.label] = scopes
    lines, summaries = [], []
    if every:
        chosen = calibrating if calibrating in every else max(every, key=lambda label: len(every[label][HEAD].n))
        for label, scopes in every.items():
            for scope, forecasts in scopes.items():
                for name in forecasts.by:
                    if name not in every[chosen][scope].by:  # rows beside a learned sink have no sums to calibrate by
                        continue
                    q = _factors(every[chosen], scope, name, level, own=label == chosen)
                    lines.append(_lines(label, scope, name, forecasts, q))
                    summaries.append(_summary(label, scope, name, forecasts, q, settings) | {"calibrated_by": chosen})
    if not lines:
        return pd.DataFrame(), pd.DataFrame()
    return pd.concat(lines, ignore_index=True), pd.DataFrame(summaries)


def _forecasts(curves: Curves, eta: float, settings: Settings, share: float) -> dict[str, Forecasts]:
    """Foretell heads, layers and all heads of one label; nothing if no head can be put to the test."""
    points = curves.of_heads(settings)
    mask, tested = tested_at(points, share, settings)
    if not tested.size:
        return {}
    drawn = bootstrap.weights(curves.clusters, settings.resamples, settings.seed, curves.label)
    weights = np.vstack([np.ones(curves.clusters), drawn])
    y = curves.log_mean(weights)[:, tested]
    needed = y[..., -1]
    by = {law.name: needed + miss_at_longest(law, y, points.x[tested], mask[tested]) for law in LAWS if law.name in TWO}
    by = {name: by[name] for name in TWO}
    by[MEAN] = (by["power"] + by["log"]) / 2
    if curves.entropy is not None:
        by[SUMS] = from_sums(curves, eta, weights[: 1 + SUMS_RESAMPLES], tested, mask[tested])
    where = curves.head_keys[tested].to_frame(index=False)[["layer", "head"]].astype("Int64")
    n = points.n[tested, -1]
    layers = pd.factorize(where["layer"])[0]
    none = pd.array([pd.NA] * len(where), dtype="Int64")
    return {
        HEAD: _joined(where, n, needed, by, np.arange(len(n)), curves.clusters),
        LAYER: _joined(where.assign(head=none), n, needed, by, layers, curves.clusters),
        TOTAL: _joined(where.assign(layer=none, head=none), n, needed, by, np.zeros_like(layers), curves.clusters),
    }


def _joined(
    where: pd.DataFrame, n: Array, needed: Array, by: Mapping[str, Array], group: NDArray[np.intp], clusters: int
) -> Forecasts:
    """Add up the keys of the heads of each group."""
    member = (group[:, None] == np.arange(group.max() + 1)).astype(np.float64)

    def joined(log_k: Array) -> Array:
        return np.log(np.exp(log_k) @ member)

    forecasts = {name: joined(log_k) for name, log_k in by.items()}
    unknown = np.abs(forecasts["power"][0] - forecasts["log"][0]) / 2
    places = where.iloc[member.argmax(0)].reset_index(drop=True).astype("Int64")
    return Forecasts(places, n @ member / member.sum(0), joined(needed), forecasts, unknown, clusters)


def _factors(scopes: Mapping[str, Forecasts], scope: str, name: str, level: float, own: bool) -> tuple[float, float]:
    """Return q for even and for odd curves; NaN where there are too few curves to promise the level."""
    forecasts = scopes[LAYER if scope == TOTAL else scope]
    with np.errstate(divide="ignore", invalid="ignore"):
        score = np.abs(forecasts.error(name)[0]) / forecasts.scale(name)
    if not own or scope == TOTAL:
        return (_bound(score, level),) * 2
    return _bound(score[1::2], level), _bound(score[::2], level)


def _bound(scores: Array, level: float) -> float:
    return conformal(scores, level) if len(scores) >= samples_needed(level) else float("nan")


def _reach(forecasts: Forecasts, name: str, q: tuple[float, float]) -> Array:
    return np.where(np.arange(len(forecasts.n)) % 2 == 0, *q) * forecasts.scale(name)


def _lines(label: str, scope: str, name: str, forecasts: Forecasts, q: tuple[float, float]) -> pd.DataFrame:
    reach, log_k = _reach(forecasts, name, q), forecasts.by[name][0]
    inside = pd.array(np.abs(forecasts.error(name)[0]) <= reach, dtype="boolean")
    inside[np.isnan(reach)] = pd.NA
    table = pd.DataFrame({"label": label, "scope": scope}, index=forecasts.where.index).join(forecasts.where)
    return table.assign(
        forecaster=name,
        n=forecasts.n,
        k=np.exp(forecasts.needed[0]),
        k_foretold=np.exp(log_k),
        low=np.exp(log_k - reach),
        high=np.exp(log_k + reach),
        inside=inside,
    )


def _summary(
    label: str, scope: str, name: str, forecasts: Forecasts, q: tuple[float, float], settings: Settings
) -> dict[str, object]:
    error, curves = forecasts.error(name), len(forecasts.n)
    needed = forecasts.needed[: len(error)]
    reach = _reach(forecasts, name, q)
    drawn = bootstrap.heads_drawn(curves, settings.resamples, settings.seed, label)[1:]
    numbers: dict[str, object] = {
        "label": label,
        "scope": scope,
        "forecaster": name,
        "curves": curves,
        "clusters": forecasts.clusters,
        "q": float(np.mean(q)),
    }
    held = np.where(np.isnan(reach), np.nan, np.abs(error) <= reach)
    k = np.exp(needed)
    for measure, by_cluster, by_curve, scale in (
        ("absolute_error", np.median(np.abs(error), 1), np.median(np.abs(error[0][drawn]), 1), "positive"),
        (
            "total_ratio",
            (k * np.exp(error)).sum(1) / k.sum(1),
            (k[0] * np.exp(error[0]))[drawn].sum(1) / k[0][drawn].sum(1),
            "positive",
        ),
        ("inside", held.mean(1), held[0][drawn].mean(1), "share"),
    ):
        numbers |= bootstrap.with_interval(
            measure, by_cluster, forecasts.clusters, by_curve, curves, settings.confidence, scale
        )
    return numbers
