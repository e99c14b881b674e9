"""Student's interval of a mean over independent clusters, and the centre and spread that a figure shows of a label."""

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import special

Deviation = TypeVar("Deviation", float, pd.Series)


def student(freedom: ArrayLike, confidence: float) -> Any:
    """Two-sided quantile of Student's distribution, by which a deviation becomes half an interval."""
    return -special.stdtrit(freedom, (1 - confidence) / 2)


def student_reach(error_of_mean: Deviation, count: pd.Series | int, confidence: float) -> Deviation:
    """Half the width of Student's interval of a mean over `count` values; NaN for a single one.

    Parameters
    ----------
    error_of_mean : standard error of the mean, the deviation over sqrt(count).
    count : independent values averaged.
    confidence : for example 0.95.
    """
    freedom = np.where(np.asarray(count) > 1, np.asarray(count) - 1.0, np.nan)
    return error_of_mean * student(freedom, confidence)


def with_interval(name: str, values: np.ndarray, confidence: float) -> dict[str, float]:
    """Return the mean of independent values as `name`, and Student's interval of it as `name`_low and `name`_high."""
    error = float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else np.nan
    mean, reach = float(values.mean()), student_reach(error, len(values), confidence)
    return {name: mean, f"{name}_low": mean - reach, f"{name}_high": mean + reach}


def with_spread(frame: pd.DataFrame, measures: Sequence[str], by: Sequence[str], confidence: float) -> pd.DataFrame:
    """Centre and spread of measures of the rows or the windows table, per label.

    A label with several heads is shown as its median head and the quartiles over heads, for a mean would hide
    that heads differ. A label with one head is shown as the mean over clusters with Student's interval.

    Parameters
    ----------
    frame : lines of one selector and variant.
    measures : columns to average.
    by : columns that, with the label, name one point of the figure.
    confidence : of the interval, for example 0.95.

    Returns
    -------
    DataFrame : `label`, the `by` columns, `measure`, `centre`, `low`, `high` (NaN where there is one cluster
        and one head), `spread` (what low and high are), `heads`, `clusters`, mean `k` of windows.
    """
    keys = ["label", *by]
    columns = list(dict.fromkeys([*measures, *({"k"} & set(frame))]))
    place = [*keys, "layer", "head", "cluster"]
    # what is stored as float32 is averaged as float64
    lines = frame[[*place, *columns]].astype(dict.fromkeys(columns, np.float64))
    clusters = lines.groupby(place, observed=True)[columns].mean()
    heads = clusters.groupby([*keys, "layer", "head"], observed=True).mean().groupby(keys, observed=True)
    by_cluster = clusters.groupby(keys, observed=True)
    middle, low, high, mean = heads.median(), heads.quantile(0.25), heads.quantile(0.75), heads.mean()
    about = pd.DataFrame({"heads": heads.size()})
    if "k" in columns:
        about["k"] = mean["k"]
    about["clusters"] = by_cluster.size() // about["heads"]
    many = about["heads"] > 1
    interval = f"{confidence:.0%} interval of the mean"
    spread = pd.Series(interval, index=about.index).where(~many, "quartiles of heads")
    tables = []
    for measure in measures:
        half = student_reach(by_cluster[measure].sem(), about["clusters"], confidence)
        table = about.assign(centre=middle[measure].where(many, mean[measure]))
        table["low"] = low[measure].where(many, table["centre"] - half)
        table["high"] = high[measure].where(many, table["centre"] + half)
        tables.append(table.assign(spread=spread).reset_index().assign(measure=measure))
    return pd.concat(tables, ignore_index=True)
