"""Windows that a method sizes by its own estimate, against fixed windows of as many keys on average."""

import numpy as np
import pandas as pd

from analysis.settings import Settings
from analysis.statistics.intervals import student_reach

FIXED = "fixed"
PLACE = ["label", "length", "selector"]


def beside_fixed(windows: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Compare the total variation of each window with that of fixed windows at equal mean keys, by the same method.

    Both are arithmetic means over the rows and heads of a cluster. The curve of fixed windows is read off between its
    windows, linear in ln k and ln TV; a mean beyond them has no value.

    Parameters
    ----------
    windows : lines of `analysis.load`, of fixed windows and others.

    Returns
    -------
    DataFrame : per label, length, selector, rule and parameter: mean `k` and `tv`, `fixed_tv` at that k, their `ratio`
        (geometric mean over clusters) with `ratio_low`, `ratio_high` (Student, in the logarithm), and `clusters`.
    """
    lines = windows.astype({"label": str, "selector": str, "rule": str, "cluster": str})
    means = lines.groupby([*PLACE, "cluster", "rule", "parameter"])[["k", "tv"]].mean().astype(np.float64).reset_index()
    parts = []
    for _, part in means.groupby([*PLACE, "cluster"], sort=False):
        others = part[part["rule"] != FIXED]
        # a window of all keys has no logarithm
        curve = part[(part["rule"] == FIXED) & (part["tv"] > 0)].sort_values("k")
        x, y = np.log(curve["k"].to_numpy()), np.log(curve["tv"].to_numpy())
        at = np.interp(np.log(others["k"]), x, y, left=np.nan, right=np.nan) if len(curve) > 1 else np.nan
        parts.append(others.assign(fixed_tv=np.exp(at)))
    every = pd.concat(parts, ignore_index=True)
    every["log_ratio"] = np.log(every["tv"] / every["fixed_tv"])
    groups = every.groupby([*PLACE, "rule", "parameter"], sort=False)
    table = groups[["k", "tv", "fixed_tv"]].mean()
    table["clusters"] = groups.size()
    every_one = groups["log_ratio"].count() == table["clusters"]  # in some the fixed windows do not reach as many keys
    centre, reach = (
        groups["log_ratio"].mean(),
        student_reach(groups["log_ratio"].sem(), table["clusters"], settings.confidence),
    )
    table = table.assign(ratio=np.exp(centre), ratio_low=np.exp(centre - reach), ratio_high=np.exp(centre + reach))
    compared = ["fixed_tv", "ratio", "ratio_low", "ratio_high"]
    return table.assign(**{name: table[name].where(every_one) for name in compared}).reset_index()
