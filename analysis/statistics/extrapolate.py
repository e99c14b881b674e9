"""The test that a law could fail: fitted at short contexts, it predicts the keys needed at the longest one."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.settings import Settings
from analysis.statistics import bootstrap
from analysis.statistics.fit import Array, Curves, Points, curves_of
from analysis.statistics.laws import LAWS, Law

BY = ["label", "kind", "variant", "scope", "layer", "head", "eta", "share"]


def extrapolate(rows: pd.DataFrame, settings: Settings, shares: Sequence[float]) -> pd.DataFrame:
    """Fit every law to the mean k_min at lengths up to a share of the longest, and predict the longest.

    Lengths are those of a head's own n. A head that sees no more keys at the longest length has nothing to foretell.

    Parameters
    ----------
    rows : the rows table of `analysis.load`; of each label the longest design is used.
    settings : etas, thresholds, bootstrap.
    shares : of the n at the longest length, N, for example 1/4: lengths of n up to N/4 are fitted.

    Returns
    -------
    DataFrame : one line per (label, variant, eta, share, law) and, by `scope`, `head` or `pooled` (the mean of ln k
        over the heads that `fit_pooled` takes; layer and head are null). `error` = ln k predicted - ln k measured at
        the longest, with an interval that holds the sampling error of both; `best`, the least |error| among the laws
        of its head; `lengths` fitted; a `reason` where there is no prediction.
    """
    tables = []
    for curves in curves_of(rows, settings):
        head_keys = curves.head_keys.to_frame(index=False)
        nowhere = pd.DataFrame({"layer": [pd.NA], "head": [pd.NA]})
        of_heads, typical = curves.of_heads(settings), curves.pooled().typical(settings)
        for share in shares:
            for scope, key, points in (("head", head_keys, of_heads), ("pooled", nowhere, typical)):
                table = _errors(points, curves, share, settings)
                where = key.astype("Int64").iloc[table.pop("curve")].reset_index(drop=True)
                tables.append(pd.concat([where, table], axis=1).assign(scope=scope, share=share))
    table = pd.concat(tables, ignore_index=True)
    return table[[*BY, *(column for column in table if column not in BY)]]


def summary(rows: pd.DataFrame, eta: float, settings: Settings, shares: Sequence[float]) -> pd.DataFrame:
    """Compare the laws over all heads of a label, every number with an interval that resamples samples and heads.

    Parameters
    ----------
    rows, settings, shares : as for `extrapolate`.
    eta : dropped mass allowed.

    Returns
    -------
    DataFrame : one line per (label, share, law) of scope `heads`: `absolute_error`, the median over heads of
        |ln k predicted - ln k measured|, and `best`, the share of heads whose nearest law it is; and one per (label,
        share) of scope `against log`: `difference`, the power law's median |error| less that of a + b ln n.
    """
    lines = []
    for curves in curves_of(rows, replace(settings, etas=(eta,))):
        drawn = bootstrap.weights(curves.clusters, settings.resamples, settings.seed, curves.label)
        y, points = curves.log_mean(np.vstack([np.ones(curves.clusters), drawn])), curves.of_heads(settings)
        for share in shares:
            mask, tested = _tested(points, share, settings)
            if not tested.size:
                continue
            heads = bootstrap.heads_drawn(tested.size, settings.resamples, settings.seed, curves.label)
            sizes = np.stack([np.abs(_miss(law, y[:, tested], points.x[tested], mask[tested])) for law in LAWS])
            sizes = np.take_along_axis(sizes, heads[None], axis=2)
            medians, nearest = np.median(sizes, axis=2), sizes.argmin(0)
            key = {"label": curves.label, "share": share, "heads": tested.size, "clusters": curves.clusters}
            for i, law in enumerate(LAWS):
                numbers = {"absolute_error": medians[i], "best": (nearest == i).mean(1)}
                lines.append(key | {"scope": "heads", "law": law.name} | _intervals(numbers, curves, settings))
            index = {law.name: i for i, law in enumerate(LAWS)}
            against = {"difference": medians[index["power"]] - medians[index["log"]]}
            lines.append(key | {"scope": "against log", "law": "power"} | _intervals(against, curves, settings))
    return pd.DataFrame(lines) if lines else pd.DataFrame(columns=["label", "share", "scope", "law"])


def _intervals(values: dict[str, Array], curves: Curves, settings: Settings) -> dict[str, float]:
    """Name estimate, low and high of values (1 + resamples,), the estimate first."""
    numbers: dict[str, float] = {}
    for name, each in values.items():
        low, high = bootstrap.interval(each[0], each[1:], curves.clusters, settings.confidence)
        numbers |= {name: float(each[0]), f"{name}_low": float(low), f"{name}_high": float(high)}
    return numbers


def _tested(points: Points, share: float, settings: Settings) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """Return which lengths each curve is fitted at (curves, lengths), and the curves that can be put to the test."""
    mask = (points.n <= share * points.n[:, -1:]) & points.usable
    return mask, np.flatnonzero((mask.sum(-1) >= settings.min_lengths) & ~points.censored[:, -1])


def _miss(law: Law, values: Array, x: Array, mask: NDArray[np.bool_]) -> Array:
    """Error in ln k of a law fitted to values (..., curves, lengths) where the mask says so, at the last length."""
    predicted = law.log_k(law.fit(values, x, mask), x[..., -1:])[..., 0]
    # no window keeps less than one key or more than all
    return np.clip(predicted, 0.0, x[..., -1]) - values[..., -1]


def _errors(points: Points, curves: Curves, share: float, settings: Settings) -> pd.DataFrame:
    """Predict the last of the points, and of the replicates of their sources of error."""
    mask, tested = _tested(points, share, settings)
    few = f"fewer than {settings.min_lengths} uncensored lengths up to {share:g} of the longest"
    reasons = points.lacking(mask, settings.min_lengths, few)
    tables = []
    for law in LAWS:
        table = pd.DataFrame({"curve": np.arange(len(mask)), "law": law.name, "lengths": mask.sum(-1)})
        table["n_longest"], table["k_longest"] = points.n[:, -1], np.exp(points.y[:, -1])
        table[["error", "error_low", "error_high"]] = np.nan
        if tested.size:

            def again(replicates: Array, law: Law = law) -> Array:
                return _miss(law, replicates[:, tested], points.x[tested], mask[tested])

            error = _miss(law, points.y[tested], points.x[tested], mask[tested])
            low, high = bootstrap.combined_interval(error, points.sources, again, settings.confidence)
            table.loc[tested, ["error", "error_low", "error_high"]] = np.stack([error, low, high], axis=-1)
        table["reason"] = reasons
        table.loc[(table["reason"] == "") & points.censored[:, -1], "reason"] = "the longest length is censored"
        tables.append(table)
    result = pd.concat(tables, ignore_index=True)
    result["clusters"] = curves.clusters
    size = result["error"].abs()
    result["best"] = size.notna() & (size == size.groupby(result["curve"]).transform("min"))
    return result.assign(label=curves.label, kind=curves.kind, variant=curves.variant, eta=curves.eta)
