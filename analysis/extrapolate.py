"""The test that a law could fail: fitted at short contexts, it predicts the keys needed at the longest one."""

from collections.abc import Callable, Sequence

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


def _errors(
    y: Array,
    sources: Sequence[bootstrap.Source],
    curves: Curves,
    censored: NDArray[np.bool_],
    share: float,
    settings: Settings,
) -> pd.DataFrame:
    """Predict the last of y (curves, lengths) and of the replicates (resamples, curves, lengths) of its sources."""
    short = curves.lengths <= share * curves.lengths[-1]
    mask = short & ~censored
    points = mask.sum(-1)
    known = np.flatnonzero((points >= settings.min_lengths) & ~censored[:, -1])
    tables = []
    for law in LAWS:
        table = pd.DataFrame({"curve": np.arange(len(y)), "law": law.name, "lengths": points})
        table["n_longest"], table["k_longest"] = np.exp(curves.x[-1]), np.exp(y[:, -1])
        table[["error", "error_low", "error_high"]] = np.nan
        if known.size:

            def miss(values: Array, law: Law = law) -> Array:
                used = np.broadcast_to(mask[known], values.shape)
                predicted = law.log_k(law.fit(values, curves.x, used), curves.x)[..., -1]
                # no window keeps less than one key or more than all
                return np.clip(predicted, 0.0, curves.x[-1]) - values[..., -1]

            def again(replicates: Array, miss: Callable[[Array], Array] = miss) -> Array:
                return miss(replicates[:, known])

            error = miss(y[known])
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
