"""What each method errs at equal cost: means over heads, the median head, and which method serves each head best."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.records.load import HEADS_AT_MOST
from analysis.settings import Settings
from analysis.statistics import bootstrap
from analysis.statistics.fit import Array

ERRORS = {"tv": "tv", "output_error": "output_error_renormalised"}  # by the names of the tables
ABOUT = ("keys_read", "flops", "negative_mass", "normaliser_error", "failed")
POINT = ["label", "selector", "length", "parameter"]
ORACLE, SINKS = "oracle", "sinks"
FLAT, LOCAL, SHARP = "flat", "local", "sharp"


def compare(windows: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Average every method's errors at each length and window of a fixed number of keys.

    Parameters
    ----------
    windows : lines of `analysis.load`, of windows of the rule `fixed`.

    Returns
    -------
    DataFrame : per label, selector, length and `parameter` (the budget in keys): `tv` and `output_error`, arithmetic
        means over heads, and `tv_median`, `output_error_median` of the median head, each with an interval from samples
        and heads resampled apart; means of `keys_read`, `flops`, `negative_mass`, `normaliser_error` and `failed`;
        `null`, the share of lines without a value; `heads`, `clusters`. Where no line has a value the errors are NaN.
    """
    return pd.DataFrame(_lines(windows, settings))


def _lines(windows: pd.DataFrame, settings: Settings) -> Iterator[dict[str, object]]:
    windows = windows.astype({"label": str, "selector": str})
    for label, length in windows[["label", "length"]].drop_duplicates().itertuples(index=False):
        of_length = windows[(windows["label"] == label) & (windows["length"] == length)]
        heads = of_length["layer"] * HEADS_AT_MOST + of_length["head"]
        of_length = of_length.assign(one_head=heads, cluster=of_length["cluster"].astype(str))
        every, clusters = np.sort(heads.unique()), np.sort(of_length["cluster"].unique())
        resampled = bootstrap.weights(len(clusters), settings.resamples, settings.seed, label)
        drawn = np.vstack([np.ones(len(clusters)), resampled])
        chosen = bootstrap.heads_drawn(len(every), settings.resamples, settings.seed, label)[1:]
        for selector, parameter in of_length[["selector", "parameter"]].drop_duplicates().itertuples(index=False):
            lines = of_length[(of_length["selector"] == selector) & (of_length["parameter"] == parameter)]
            result: dict[str, object] = {"label": label, "selector": selector, "length": length, "parameter": parameter}
            for name, column in ERRORS.items():
                table = lines.pivot_table(column, "cluster", "one_head", aggfunc="mean", dropna=False, observed=True)
                values = table.reindex(index=clusters, columns=every).to_numpy(np.float64)
                result |= _with_intervals(name, values, drawn, chosen, settings.confidence)
            result |= {name: float(lines[name].mean()) for name in ABOUT}
            result["null"] = float(lines["tv"].isna().mean())
            yield result | {"heads": len(every), "clusters": len(clusters)}


def mean_over_heads(lines: pd.DataFrame, name: str, settings: Settings, scale: str) -> dict[str, float]:
    """Return the arithmetic mean over heads of a column, with an interval from samples and heads resampled apart.

    Parameters
    ----------
    lines : one per head and cluster, of one label, as of `analysis.load`.
    scale : of the interval, one of `bootstrap.SCALES`.
    """
    wide = lines.assign(one_head=lines["layer"] * HEADS_AT_MOST + lines["head"], cluster=lines["cluster"].astype(str))
    values = wide.pivot_table(name, "cluster", "one_head", observed=True).to_numpy(np.float64)
    clusters, heads = values.shape
    label = str(lines["label"].iloc[0])
    drawn = np.vstack([np.ones(clusters), bootstrap.weights(clusters, settings.resamples, settings.seed, label)])
    of_clusters = (drawn @ values).mean(1) / drawn.sum(1)
    chosen = bootstrap.heads_drawn(heads, settings.resamples, settings.seed, label)[1:]
    of_heads = values.mean(0)[chosen].mean(1) if heads > 1 else None
    of_clusters = np.clip(of_clusters, 0, 1) if scale == "share" else of_clusters
    numbers = bootstrap.with_interval(name, of_clusters, clusters, of_heads, heads, settings.confidence, scale)
    return numbers | {"heads": heads, "clusters": clusters}


def _with_intervals(
    name: str, values: Array, drawn: Array, chosen: NDArray[np.intp], confidence: float
) -> dict[str, float]:
    """Return the mean over heads and the median head of errors [clusters, heads], NaN where there is none."""
    there = ~np.isnan(values)
    filled = np.where(there, values, 0.0)
    with np.errstate(invalid="ignore"):
        of_heads = (drawn @ filled) / (drawn @ there.astype(np.float64))  # in every resample of clusters
    defined = there.any(0)
    if not defined.any():
        nothing = [f"{name}{kind}{end}" for kind in ("", "_median") for end in ("", "_low", "_high")]
        return dict.fromkeys(nothing, np.nan)
    heads = int(defined.sum())
    by_head = of_heads[0][chosen]
    numbers: dict[str, float] = {}
    for suffix, statistic in (("", np.nanmean), ("_median", np.nanmedian)):
        of_clusters = statistic(of_heads[:, defined], axis=1)
        of_drawn = statistic(by_head, axis=1) if heads > 1 else None
        scale = "positive" if bool((of_clusters > 0).all()) else "real"
        numbers |= bootstrap.with_interval(
            f"{name}{suffix}", of_clusters, len(drawn[0]), of_drawn, heads, confidence, scale
        )
    return numbers


def best_of_heads(windows: pd.DataFrame, families: dict[str, str], budget: float, flat: float) -> pd.DataFrame:
    """Find the method of the least output error for each head at the longest length, among those of equal cost.

    Parameters
    ----------
    families : the family of each method; the oracle, which is a floor, is never chosen.
    budget : keys that a method may read, its state and its search included: of each, the largest window that reads no
        more counts.
    flat : total variation that the oracle leaves at this budget on a flat head, and `sinks` on one that is not local.

    Returns
    -------
    DataFrame : per label and head: `length`, its `head_kind` (flat: no choice of `budget` keys leaves less than `flat`;
        local: the first and the most recent keys leave less; sharp: other keys are needed), the best `method`, its
        `family` and `output_error`, that of the best choice of keys as `of_choice`, and `agreement`, the share of
        samples in which the same family is best.
    """
    error, columns = "output_error_renormalised", ["label", "layer", "head", "length", "head_kind", "method", "family"]
    shown = windows[windows["length"] == windows.groupby("label", observed=True)["length"].transform("max")]
    shown = shown.astype({"label": str, "selector": str})
    shown = shown[shown["selector"].isin(list(families)) & shown[error].notna()]
    lines = []
    for place, of_head in shown.groupby(["label", "layer", "head"], sort=True):
        at_budget = of_head[of_head["parameter"] == budget].groupby("selector")["tv"].mean()
        if not {ORACLE, SINKS} <= set(at_budget.index):
            continue
        fits = of_head[(of_head["keys_read"] <= budget * 1.001) & (of_head["selector"] != ORACLE)]
        fits = fits[fits["parameter"] == fits.groupby("selector")["parameter"].transform("max")]
        wide = fits.pivot_table(error, "cluster", "selector", observed=True)
        errors = wide.mean()
        best = str(errors.idxmin())
        of_choice = errors[[families[str(name)] == families[SINKS] for name in errors.index]].min()
        flat_head, local = float(at_budget[ORACLE]) > flat, float(at_budget[SINKS]) < flat
        about = [
            *place,
            of_head["length"].iloc[0],
            FLAT if flat_head else LOCAL if local else SHARP,
            best,
            families[best],
        ]
        numbers = {"output_error": float(errors.min()), "of_choice": float(of_choice)}
        agreement = float((wide.idxmin(axis=1).map(families) == families[best]).mean())
        lines.append(dict(zip(columns, about, strict=True)) | numbers | {"agreement": agreement})
    return pd.DataFrame(lines, columns=[*columns, "output_error", "of_choice", "agreement"])


def by_kind(windows: pd.DataFrame, heads: pd.DataFrame, budget: float) -> pd.DataFrame:
    """Return per label, kind of head and method the median head's errors at the longest length and a budget.

    Returns
    -------
    DataFrame : `heads` of the kind, median `tv` and `output_error` over them, and `best`, the share of them that the
        method serves best.
    """
    places = heads[["label", "layer", "head", "head_kind", "method", "length"]]
    lines = windows[windows["parameter"] == budget].astype({"label": str, "selector": str})
    lines = lines.merge(places, on=["label", "layer", "head", "length"])
    means = lines.groupby(["label", "head_kind", "selector", "layer", "head"], as_index=False).agg(
        tv=("tv", "mean"), output_error=("output_error_renormalised", "mean"), method=("method", "first")
    )
    means["best"] = (means["method"] == means["selector"]).astype(float)
    groups = means.groupby(["label", "head_kind", "selector"])
    table = groups[["tv", "output_error"]].median().join(groups["best"].mean()).join(groups.size().rename("heads"))
    return table.reset_index()
