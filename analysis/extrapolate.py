"""The test that a law could fail: fitted at short contexts, it predicts the keys needed at the longest one."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis import bootstrap
from analysis.fit import Array, Curves, Settings, censored_heads, censored_pool, curves_of
from analysis.laws import LAWS, Law

BY = ["label", "kind", "variant", "scope", "layer", "head", "eta", "share"]


def extrapolate(rows: pd.DataFrame, settings: Settings, shares: Sequence[float]) -> pd.DataFrame:
    """Fit every law to the mean k_min at lengths up to a share of the longest, and predict the longest.

    Parameters
    ----------
    rows : the rows table of `analysis.load`; of each label the longest design is used.
    settings : etas, thresholds, bootstrap.
    shares : of the longest length N, for example 1/4: lengths up to N/4 are fitted.

    Returns
    -------
    DataFrame : one line per (label, variant, eta, share, law) and, by `scope`, `head` or `pooled` (the mean over
        heads of ln k; layer and head are null). `error` = ln k predicted - ln k measured at the longest, with an
        interval that holds the sampling error of both; `best`, the least |error| among the laws of its head;
        `lengths` fitted; a `reason` where there is no prediction.
    """
    tables = []
    for curves in curves_of(rows, settings):
        y, by_cluster = curves.log_means(settings)
        places = curves.places.to_frame(index=False)
        nowhere = pd.DataFrame({"layer": [pd.NA], "head": [pd.NA]})
        pool = curves.typical(y, by_cluster[0].replicates, settings)
        for share in shares:
            for scope, place, values, censored in (
                ("head", places, (y, by_cluster), censored_heads(curves, settings)),
                ("pooled", nowhere, pool, censored_pool(curves, settings)),
            ):
                table = _errors(*values, curves, censored, share, settings)
                where = place.astype("Int64").iloc[table.pop("curve")].reset_index(drop=True)
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
        y = curves.log_mean(np.vstack([np.ones(curves.clusters), drawn]))
        for share in shares:
            mask, known = _tested(curves, censored_heads(curves, settings), share, settings)
            if not known.size:
                continue
            heads = bootstrap.heads_drawn(known.size, settings.resamples, settings.seed, curves.label)
            sizes = np.stack([np.abs(_miss(law, y[:, known], curves.x, mask[known])) for law in LAWS])
            sizes = np.take_along_axis(sizes, heads[None], axis=2)
            medians, nearest = np.median(sizes, axis=2), sizes.argmin(0)
            place = {"label": curves.label, "share": share, "heads": known.size, "clusters": curves.clusters}
            for i, law in enumerate(LAWS):
                told = {"absolute_error": medians[i], "best": (nearest == i).mean(1)}
                lines.append(place | {"scope": "heads", "law": law.name} | _intervals(told, curves, settings))
            index = {law.name: i for i, law in enumerate(LAWS)}
            against = {"difference": medians[index["power"]] - medians[index["log"]]}
            lines.append(place | {"scope": "against log", "law": "power"} | _intervals(against, curves, settings))
    return pd.DataFrame(lines) if lines else pd.DataFrame(columns=["label", "share", "scope", "law"])


def _intervals(values: dict[str, Array], curves: Curves, settings: Settings) -> dict[str, float]:
    """Name estimate, low and high of values (1 + resamples,), the estimate first."""
    told: dict[str, float] = {}
    for name, each in values.items():
        low, high = bootstrap.interval(each[0], each[1:], curves.clusters, settings.confidence)
        told |= {name: float(each[0]), f"{name}_low": float(low), f"{name}_high": float(high)}
    return told


def _tested(
    curves: Curves, censored: NDArray[np.bool_], share: float, settings: Settings
) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """Return which lengths each curve is fitted at (curves, lengths), and the curves that can be put to the test."""
    mask = (curves.lengths <= share * curves.lengths[-1]) & ~censored
    return mask, np.flatnonzero((mask.sum(-1) >= settings.min_lengths) & ~censored[:, -1])


def _miss(law: Law, values: Array, x: Array, mask: NDArray[np.bool_]) -> Array:
    """Error in ln k of a law fitted to values (..., curves, lengths) where the mask says so, at the last length."""
    predicted = law.log_k(law.fit(values, x, np.broadcast_to(mask, values.shape)), x)[..., -1]
    # no window keeps less than one key or more than all
    return np.clip(predicted, 0.0, x[-1]) - values[..., -1]


def _errors(
    y: Array,
    sources: Sequence[bootstrap.Source],
    curves: Curves,
    censored: NDArray[np.bool_],
    share: float,
    settings: Settings,
) -> pd.DataFrame:
    """Predict the last of y (curves, lengths) and of the replicates (resamples, curves, lengths) of its sources."""
    mask, known = _tested(curves, censored, share, settings)
    points = mask.sum(-1)
    tables = []
    for law in LAWS:
        table = pd.DataFrame({"curve": np.arange(len(y)), "law": law.name, "lengths": points})
        table["n_longest"], table["k_longest"] = np.exp(curves.x[-1]), np.exp(y[:, -1])
        table[["error", "error_low", "error_high"]] = np.nan
        if known.size:

            def again(replicates: Array, law: Law = law) -> Array:
                return _miss(law, replicates[:, known], curves.x, mask[known])

            error = _miss(law, y[known], curves.x, mask[known])
            low, high = bootstrap.combined_interval(error, sources, again, settings.confidence)
            table.loc[known, ["error", "error_low", "error_high"]] = np.stack([error, low, high], axis=-1)
        few = f"fewer than {settings.min_lengths} uncensored lengths up to {share:g} of the longest"
        table["reason"] = np.where(points < settings.min_lengths, few, "")
        table.loc[(table["reason"] == "") & censored[:, -1], "reason"] = "the longest length is censored"
        tables.append(table)
    result = pd.concat(tables, ignore_index=True)
    result["clusters"] = curves.clusters
    size = result["error"].abs()
    result["best"] = size.notna() & (size == size.groupby(result["curve"]).transform("min"))
    return result.assign(label=curves.label, kind=curves.kind, variant=curves.variant, eta=curves.eta)
