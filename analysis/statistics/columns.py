"""How much of the rows' mass one set of columns holds, by the rows that it was chosen on.

Shapes: samples (clusters) x heads x ways x numbers of columns.

Shape letters: S samples drawn, C clusters, H heads, W ways to choose and numbers of columns.
"""

import numpy as np
import pandas as pd

from analysis.settings import Settings
from analysis.statistics import bootstrap

WAYS = ("same_rows", "earlier_rows", "other_text", "each_row")
INDEX = ["cluster", "layer", "head"]


def recall(lines: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Average the recall over heads and samples, and give its spread over heads.

    Parameters
    ----------
    lines : of columns.parquet, one design of one label. Samples without columns of another text, the first, are left
        out where others have them, so that all ways are judged by the same rows.

    Returns
    -------
    DataFrame : per (length, chosen, k): `recall`, the mean, with `recall_low`, `recall_high`, samples and heads
        resampled apart; `recall_25`, `recall_50`, `recall_75` over heads; `lost`, the mean recall of the same rows'
        columns less this one, with interval; numbers of `heads` and `clusters`.
    """
    result = []
    label = str(lines["label"].iloc[0])
    judged = _judged(lines)
    for length, k in sorted(set(zip(judged["length"].tolist(), judged["k"].tolist(), strict=True))):
        part = judged[(judged["length"] == length) & (judged["k"] == k)]
        wide = part.pivot_table("recall", INDEX, "chosen", observed=True).reindex(columns=WAYS)
        clusters, heads = (wide.index.droplevel(away).nunique() for away in (INDEX[1:], INDEX[:1]))
        values_CHW = wide.to_numpy(np.float64).reshape(clusters, heads, len(WAYS))
        drawn = bootstrap.weights(clusters, settings.resamples, settings.seed, label)
        weight_SC = np.vstack([np.ones(clusters), drawn]) / clusters
        of_heads_HW = values_CHW.mean(0)
        chosen_SH = bootstrap.heads_drawn(heads, settings.resamples, settings.seed, label)[1:]
        by_cluster_SW, by_head_SW = weight_SC @ values_CHW.mean(1), of_heads_HW[chosen_SH].mean(1)
        quartiles = np.quantile(of_heads_HW, [0.25, 0.5, 0.75], axis=0)
        for i, way in enumerate(WAYS):
            if np.isnan(values_CHW[..., i]).all():
                continue
            line: dict[str, object] = {"length": length, "chosen": way, "k": k}
            both = by_cluster_SW, by_head_SW
            numbers = {"recall": [of[:, i] for of in both], "lost": [of[:, 0] - of[:, i] for of in both]}
            for (name, (of_clusters, of_heads)), scale in zip(numbers.items(), ("share", "real"), strict=True):
                about = (settings.confidence, scale)
                line |= bootstrap.with_interval(name, of_clusters, clusters, of_heads, heads, *about)
            line |= dict(zip(("recall_25", "recall_50", "recall_75"), map(float, quartiles[:, i]), strict=True))
            result.append(line | {"heads": heads, "clusters": clusters})
    return pd.DataFrame(result)


def by_head(lines: pd.DataFrame, share: float) -> pd.DataFrame:
    """Return the recall of each head by each way, at the longest length, of the columns that are a share of it.

    Returns
    -------
    DataFrame : per (layer, head): `length`, `k` and a column per way; empty where no such number was measured.
    """
    length = int(lines["length"].max())
    at = _judged(lines[(lines["length"] == length) & (lines["k"] == round(share * length))])
    if at.empty:
        return pd.DataFrame()
    wide = at.pivot_table("recall", ["layer", "head"], "chosen", observed=True).reindex(columns=WAYS)
    return wide.rename_axis(columns=None).reset_index().assign(length=length, k=round(share * length))


def _judged(lines: pd.DataFrame) -> pd.DataFrame:
    lines = lines.astype({"cluster": str, "chosen": str})
    other = lines.loc[lines["chosen"] == "other_text", "cluster"].unique()
    return lines[lines["cluster"].isin(other)] if len(other) else lines
