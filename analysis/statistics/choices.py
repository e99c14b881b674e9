"""What a choice of keys costs beside the oracle's: budget and choice apart, keys needed, and how they grow."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.settings import Settings
from analysis.statistics import bootstrap
from analysis.statistics.censored import slope_of
from analysis.statistics.decay import decay_rates
from analysis.statistics.fit import Array
from analysis.statistics.growth import no_growth, of_alike
from analysis.statistics.intervals import student_reach

ORACLE = "oracle"
WINDOW = ["rule", "parameter", "scale"]
POINT = ["label", "selector", "length", *WINDOW]


def by_cluster(windows: pd.DataFrame, measures: Sequence[str]) -> pd.DataFrame:
    """Return the mean over heads of some measures, per label, selector, length, window and cluster, with k."""
    columns, place = ["k", *measures], [*POINT, "cluster"]
    lines = windows[[*place, *columns]].astype(dict.fromkeys(columns, np.float64))
    grouped = lines.groupby(place, observed=True, sort=False)[columns].mean()
    return grouped.reset_index().astype({"label": str, "selector": str, "rule": str})


def split(windows: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Part each method's total variation into what its budget of k keys costs and what its choice of them does.

    The total variation is the dropped mass of a choice of keys [T1]. A sample that is weighed, and an estimated row,
    may lie below the oracle: its choice is then negative.

    Parameters
    ----------
    windows : lines of `analysis.load` in which the oracle has every window too.
    confidence : of the intervals over clusters, paired.

    Returns
    -------
    DataFrame : per label, selector, length and window: `k`, `keys_read`, `tv` = `budget` (the oracle's) +
        `choice` with `choice_low`, `choice_high`; `output_error` and the `oracle_output_error`; `clusters`.
    """
    names = ["tv", "output_error_renormalised", "keys_read"]
    means = by_cluster(windows, names).rename(columns={"output_error_renormalised": "output_error"})
    keys = [name for name in (*POINT, "cluster") if name != "selector"]
    best = means[means["selector"] == ORACLE].set_index(keys)[["tv", "output_error"]]
    best = best.rename(columns={"tv": "budget", "output_error": "oracle_output_error"})
    paired = means.join(best, on=keys)
    paired["choice"] = paired["tv"] - paired["budget"]
    groups = paired.groupby(POINT, sort=False)
    columns = ["k", "keys_read", "tv", "budget", "choice", "output_error", "oracle_output_error"]
    table = groups[columns].mean()
    table["clusters"] = groups.size()
    half = student_reach(groups["choice"].sem(), table["clusters"], confidence)
    return table.assign(choice_low=table["choice"] - half, choice_high=table["choice"] + half).reset_index()


def with_times(table: pd.DataFrame, steps: pd.DataFrame) -> pd.DataFrame:
    """Add what a decode step of the model took where the same selector was timed at the same length and k.

    Parameters
    ----------
    table : of `split`.
    steps : lines of decoding.parquet, joined with their runs; may be empty.

    Returns
    -------
    DataFrame : `table` with `select_ms`, `attend_ms`, their sum `ms`, and `dense_ms` (all layers, one token), and
        `index_ms` (once per context); NaN where nothing was timed.
    """
    parts = ["select", "attend", "dense", "index"]
    seconds, ms = [f"{part}_seconds" for part in parts], [f"{part}_ms" for part in parts]
    keys = ["label", "selector", "length", "k"]
    if not set(seconds) <= set(steps):  # none, or timed before selectors were
        return table.assign(**dict.fromkeys([*ms, "ms"], np.nan))
    steps = steps[(steps["rule"] == "fixed") & steps["index_seconds"].notna()].astype(
        {"label": str, "selector": str, "k": table["k"].dtype}
    )
    means = 1e3 * steps.groupby(keys)[seconds].mean().set_axis(ms, axis=1)
    joined = table.merge(means.reset_index(), on=keys, how="left")
    return joined.assign(ms=joined["select_ms"] + joined["attend_ms"])


def growth(windows: pd.DataFrame, eta: float, settings: Settings) -> pd.DataFrame:
    """Fit k = alpha n^C to the keys at which each method's mean total variation is `eta`.

    Every head keeps the same k; the curve of total variation against k is read off between the windows of the dense
    grid, linear in ln k. n is the most keys that a head's rows see; heads that see no more where the others do are left
    out. Intervals resample clusters.

    Returns
    -------
    DataFrame : per label and selector: `keys` at the longest `length`, the exponent `C` with `C_low`, `C_high`, the
        numbers of `lengths`, heads `left_out` and `clusters`; NaN where eta is not reached at every length, and where n
        does not grow, which is the `reason`.
    """
    grid = windows[(windows["rule"] == "grid") & windows["tv"].notna()]
    lines = []
    for (label, selector), every in grid.groupby(["label", "selector"], observed=True, sort=False):
        alike, left_out = of_alike(every)
        seen = alike.groupby("length")["n"].max()
        frame, lengths = by_cluster(alike, ["tv"]), seen.index.to_numpy()
        few = len(lengths) < min(settings.min_lengths, every["length"].nunique())
        clusters = np.sort(frame["cluster"].astype(str).unique())
        drawn = np.vstack(
            [np.ones(len(clusters)), bootstrap.weights(len(clusters), settings.resamples, settings.seed, str(label))]
        )
        needed = np.column_stack([_needed(frame[frame["length"] == n], drawn, eta) for n in lengths])
        exponent = low = high = np.nan
        if len(lengths) >= settings.min_lengths and np.isfinite(needed[0]).all():
            ends = np.log(frame.groupby("length")["k"].agg(["min", "max"]).loc[lengths].to_numpy(np.float64))
            x = np.log(seen.to_numpy(np.float64))
            at_most = needed <= ends[:, 0]
            at_most[:, at_most[0]] = False  # where the fewest keys are enough for all samples, so they are taken to be
            exponent, low, high = slope_of(needed, at_most, ends, x, len(clusters), settings.confidence)
        lines.append(
            {
                "label": label,
                "selector": selector,
                "eta": eta,
                "length": int(lengths[-1]),
                "keys": float(np.exp(needed[0, -1])),
                "C": exponent,
                "C_low": low,
                "C_high": high,
                "lengths": len(lengths),
                "left_out": left_out,
                "clusters": len(clusters),
                "reason": no_growth(every.groupby("length")["n"].max().to_numpy(np.float64)) if few else "",
            }
        )
    return pd.DataFrame(lines)


def _needed(frame: pd.DataFrame, drawn: Array, eta: float) -> Array:
    """Return ln k at which the resampled mean total variation falls to eta, NaN if it does not (resamples,)."""
    wide = frame.pivot_table("tv", "k", "cluster", observed=True).sort_index()
    mass = wide.to_numpy() @ drawn.T / drawn.sum(1)
    x = np.log(wide.index.to_numpy(dtype=float))
    needed = np.full(len(drawn), np.nan)
    for i, curve in enumerate(mass.T):
        below = np.flatnonzero(curve <= eta)
        if below.size:
            j = below[0]
            needed[i] = (
                x[j] if j == 0 or np.isnan(curve[j - 1]) else np.interp(eta, [curve[j], curve[j - 1]], [x[j], x[j - 1]])
            )
    return needed


def rates(windows: pd.DataFrame, measures: Sequence[str], settings: Settings) -> pd.DataFrame:
    """Return the decay rates of every selector's windows n^C, those with a factor of 1; see `decay.decay_rates`."""
    powers = windows[(windows["rule"] == "power") & (windows["scale"] == 1)]
    tables = [
        decay_rates(frame, measures, settings).assign(selector=str(name))
        for name, frame in powers.groupby("selector", observed=True, sort=False)
    ]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
