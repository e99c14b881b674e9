"""The test that a law could fail: fitted at short contexts, it predicts the keys needed at the longest one."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.settings import Settings
from analysis.statistics import bootstrap, fit
from analysis.statistics.fit import Array, Curves, Points, curves_of
from analysis.statistics.laws import LAWS, Law
from analysis.statistics.line import fit_line
from analysis.statistics.matched_gamma import keys_from_sums

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


MEAN, SUMS = "power and log", "sums"  # forecasters besides the laws
SUMS_RESAMPLES = 200  # of clusters, for the forecaster that matches a law to every head of every resample


def summary(rows: pd.DataFrame, eta: float, settings: Settings, shares: Sequence[float]) -> pd.DataFrame:
    """Compare forecasters over all heads of a label; intervals resample samples and heads apart.

    Forecasters are the laws; `power and log`, the mean in ln k of these two; and `sums`: entropy, variance of
    ln p and largest probability, each a line in ln n, at the longest length, from which [G8] reads the keys off.

    Parameters
    ----------
    rows, settings, shares : as for `extrapolate`; rows may have the sums, see `fit.SUMS`.
    eta : dropped mass allowed.

    Returns
    -------
    DataFrame : one line per (label, share, law) of scope `heads`: `absolute_error`, the median over heads of
        |ln k predicted - ln k measured|; `total_ratio`, the keys of all heads predicted over those measured; `best`,
        the share of heads whose nearest law it is (of the laws alone). And one per (label, share) of scope
        `against log`: `difference`, the median over heads of the power law's |error| less that of a + b ln n for the
        same head.
    """
    lines = []
    for curves in curves_of(rows, replace(settings, etas=(eta,))):
        drawn = bootstrap.weights(curves.clusters, settings.resamples, settings.seed, curves.label)
        weights = np.vstack([np.ones(curves.clusters), drawn])
        y, points = curves.log_mean(weights), curves.of_heads(settings)
        for share in shares:
            mask, tested = tested_at(points, share, settings)
            if not tested.size:
                continue
            needed = y[:, tested, -1]
            misses = {law.name: miss_at_longest(law, y[:, tested], points.x[tested], mask[tested]) for law in LAWS}
            misses[MEAN] = (misses["power"] + misses["log"]) / 2
            if curves.entropy is not None:
                at = slice(0, 1 + SUMS_RESAMPLES)
                misses[SUMS] = from_sums(curves, eta, weights[at], tested, mask[tested]) - needed[at]
            heads = bootstrap.heads_drawn(tested.size, settings.resamples, settings.seed, curves.label)[1:]
            key = {"label": curves.label, "share": share, "heads": tested.size, "clusters": curves.clusters}
            by_cluster = _compare(misses, needed)
            by_head = _compare({name: miss[0][heads] for name, miss in misses.items()}, needed[0][heads])
            for scope, law, name in by_cluster:
                place = (scope, law, name)
                numbers = bootstrap.with_interval(
                    name,
                    by_cluster[place],
                    curves.clusters,
                    by_head[place],
                    tested.size,
                    settings.confidence,
                    SCALES[name],
                )
                lines.append(key | {"scope": scope, "law": law} | numbers)
    if not lines:
        return pd.DataFrame(columns=["label", "share", "scope", "law"])
    table = pd.DataFrame(lines)
    names = ["label", "share", "heads", "clusters", "scope", "law"]
    return table.groupby(names, sort=False, dropna=False).first().reset_index()  # the numbers of a line, side by side


SCALES = {"absolute_error": "positive", "total_ratio": "positive", "best": "share", "difference": "real"}


def _compare(misses: dict[str, Array], needed: Array) -> dict[tuple[str, str, str], Array]:
    """Compare forecasters by their errors in ln k, and ln k needed, (resamples, heads); every number (resamples,)."""
    sizes = {name: np.abs(miss) for name, miss in misses.items()}
    numbers = {}
    nearest = np.stack([sizes[law.name] for law in LAWS]).argmin(0)
    for name, miss in misses.items():
        k = np.exp(needed[: len(miss)])
        numbers["heads", name, "absolute_error"] = np.median(sizes[name], axis=1)
        numbers["heads", name, "total_ratio"] = (k * np.exp(miss)).sum(1) / k.sum(1)
    for i, law in enumerate(LAWS):
        numbers["heads", law.name, "best"] = (nearest == i).mean(1)
    numbers["against log", "power", "difference"] = np.median(sizes["power"] - sizes["log"], axis=1)
    return numbers


def from_sums(curves: Curves, eta: float, weights: Array, tested: NDArray[np.intp], mask: NDArray[np.bool_]) -> Array:
    """Return ln k at the longest length by [G8], of sums that are lines in ln n, (resamples, tested heads)."""
    x, ahead = np.log(curves.n[tested]), {}
    for name in fit.SUMS:
        values = curves.mean(getattr(curves, name), weights)[:, tested]
        lines = fit_line(values, x, np.broadcast_to(mask, values.shape))
        ahead[name] = lines[..., 0] + lines[..., 1] * x[:, -1]
    longest = np.broadcast_to(curves.n[tested, -1], ahead["entropy"].shape)
    entropy = np.clip(ahead["entropy"], 0.0, np.log(longest))
    variance, p_max = np.maximum(ahead["log_p_variance"], 0.0), np.clip(ahead["p_max"], 0.0, 1.0)
    return np.log(keys_from_sums(eta, longest, entropy, p_max, log_p_variance=variance))


def tested_at(points: Points, share: float, settings: Settings) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """Return which lengths each curve is fitted at (curves, lengths), and the curves that can be put to the test."""
    mask = (points.n <= share * points.n[:, -1:]) & points.usable
    return mask, np.flatnonzero((mask.sum(-1) >= settings.min_lengths) & ~points.censored[:, -1])


def miss_at_longest(law: Law, values: Array, x: Array, mask: NDArray[np.bool_]) -> Array:
    """Error in ln k of a law fitted to values (..., curves, lengths) where the mask says so, at the last length."""
    predicted = law.log_k(law.fit(values, x, mask), x[..., -1:])[..., 0]
    # no window keeps less than one key or more than all
    return np.clip(predicted, 0.0, x[..., -1]) - values[..., -1]


def _errors(points: Points, curves: Curves, share: float, settings: Settings) -> pd.DataFrame:
    """Predict the last of the points, and of the replicates of their sources of error."""
    mask, tested = tested_at(points, share, settings)
    few = f"fewer than {settings.min_lengths} uncensored lengths up to {share:g} of the longest"
    reasons = points.lacking(mask, settings.min_lengths, few)
    tables = []
    for law in LAWS:
        table = pd.DataFrame({"curve": np.arange(len(mask)), "law": law.name, "lengths": mask.sum(-1)})
        table["n_longest"], table["k_longest"] = points.n[:, -1], np.exp(points.y[:, -1])
        table[["error", "error_low", "error_high"]] = np.nan
        if tested.size:

            def again(replicates: Array, law: Law = law) -> Array:
                return miss_at_longest(law, replicates[:, tested], points.x[tested], mask[tested])

            error = miss_at_longest(law, points.y[tested], points.x[tested], mask[tested])
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
