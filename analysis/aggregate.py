"""Averages over samples, and the spread that a figure shows around them."""

from collections.abc import Sequence

import pandas as pd
from scipy import stats


def with_spread(frame: pd.DataFrame, measure: str, by: Sequence[str], confidence: float) -> pd.DataFrame:
    """Centre and spread of a measure of the rows or the windows table, per label.

    A label with several heads is shown as its median head and the quartiles over heads, for a mean would hide
    that heads differ. A label with one head is shown as the mean over clusters with Student's interval.

    Parameters
    ----------
    frame : lines of one selector and variant.
    measure : column to average.
    by : columns that, with the label, name one point of the figure.
    confidence : of the interval, for example 0.95.

    Returns
    -------
    DataFrame : `label`, the `by` columns, `measure`, `centre`, `low`, `high` (NaN where there is one cluster
        and one head), `spread` (what low and high are), `heads`, `clusters`, mean `k` of windows.
    """
    keys = ["label", *by]
    columns = [measure, *({"k"} & set(frame))]
    clusters = frame.groupby([*keys, "layer", "head", "cluster"], observed=True)[columns].mean()
    heads = clusters.groupby([*keys, "layer", "head"], observed=True).mean().groupby(keys, observed=True)
    table = pd.DataFrame({"heads": heads.size()})
    if "k" in columns:
        table["k"] = heads["k"].mean()
    by_cluster = clusters.groupby(keys, observed=True)[measure]
    table["clusters"] = by_cluster.size() // table["heads"]
    many = table["heads"] > 1
    half = by_cluster.sem() * stats.t.isf((1 - confidence) / 2, (table["clusters"] - 1).where(table["clusters"] > 1))
    table["centre"] = heads[measure].median().where(many, heads[measure].mean())
    table["low"] = heads[measure].quantile(0.25).where(many, table["centre"] - half)
    table["high"] = heads[measure].quantile(0.75).where(many, table["centre"] + half)
    interval = f"{confidence:.0%} interval of the mean"
    table["spread"] = pd.Series(interval, index=table.index).where(~many, "quartiles of heads")
    return table.reset_index().assign(measure=measure)
