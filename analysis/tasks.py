"""What windows do to a task: paired differences to dense attention, against cost, with intervals over samples.

A family is one shape of window at all its sizes: fixed, log, power with one C, linear, top-p, threshold, each
head's C, each head's fixed k.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

DENSE = "dense"
ONE_PERCENT = float(np.log(1.01))  # nats per token: a hundredth of dense perplexity
NAMES = {
    "top_p": "top-p",
    "threshold": "threshold [T7]",
    "budget": "each head's C",
    "head_fixed": "each head's k",
    "sharpened": "sharper softmax",
}
SHARPENED = "sharpened"
HEADS_FIXED = NAMES["head_fixed"]


def fullest_runs(table: pd.DataFrame) -> pd.DataFrame:
    """Keep, for each label and phase, the one run with most samples, then lengths, then windows."""
    sizes = (
        table.assign(window=_windows(table))
        .groupby(["label", "phase", "run"], observed=True)
        .agg(samples=("sample", "nunique"), lengths=("length", "nunique"), windows=("window", "nunique"))
        .reset_index()
        .sort_values(["samples", "lengths", "windows", "run"], ascending=False)
    )
    return table[table["run"].isin(sizes.drop_duplicates(["label", "phase"])["run"])]


def differences(table: pd.DataFrame, measure: str, by: list[str]) -> pd.DataFrame:
    """Return, per sample and window, the mean of a measure less that of dense attention on the same lines.

    Parameters
    ----------
    table : lines of losses or answers, dense ones among them.
    measure : a column.
    by : columns that part the lines besides, such as the length.

    Returns
    -------
    DataFrame : label, phase, `by`, sample, family, rule, parameter, scale, `keys` (mean), `difference`.
    """
    place = ["label", "phase", *by, "sample"]
    lines = table.astype({"rule": str, "label": str})
    grouped = lines.groupby([*place, "rule", "parameter", "scale"], dropna=False, observed=True)
    means = grouped[["keys", measure]].mean().reset_index()
    dense = means[means["rule"] == DENSE].set_index(place)[measure].rename("dense")
    means = means[means["rule"] != DENSE].join(dense, on=place)
    means["difference"] = means[measure] - means["dense"]
    return means.assign(family=families(means)).drop(columns=measure)


def families(table: pd.DataFrame) -> pd.Series:
    """Return the family of each line's window."""
    power = table["rule"] == "power"
    named = table["rule"].map(lambda rule: NAMES.get(rule, rule))
    return named.where(~power, "power, C = " + table["parameter"].map("{:.2g}".format))


def over_samples(lines: pd.DataFrame, by: list[str], confidence: float) -> pd.DataFrame:
    """Return the mean difference and its Student interval over samples, per group of `by`."""
    told = lines.groupby(by, observed=True, sort=False)["difference"].agg(["mean", "std", "count"]).reset_index()
    keys = lines.groupby(by, observed=True, sort=False)["keys"].mean().reset_index(drop=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        reach = stats.t.isf((1 - confidence) / 2, told["count"] - 1) * told["std"] / np.sqrt(told["count"])
    place = told[by].assign(keys=keys, difference=told["mean"], samples=told["count"])
    return place.assign(low=told["mean"] - reach, high=told["mean"] + reach)


def mixed(lines: pd.DataFrame, mixes: Mapping[str, float]) -> pd.DataFrame:
    """Average keys and differences over the context lengths of each mix: weights proportional to n^(1 - p).

    Lengths stand at equal steps of ln n, so that a density n^-p of lengths gives each the weight n^(1 - p).
    """
    tables = []
    for name, p in mixes.items():
        weight = lines["length"].astype(float) ** (1 - p)
        parts = lines.assign(weight=weight, keys=lines["keys"] * weight, difference=lines["difference"] * weight)
        # a window's size is the same at all lengths, but for rules whose factor has no name of its own
        place = ["label", "phase", "sample", "family", "rule", "parameter", "scale"]
        sums = parts.groupby(place, observed=True, sort=False)[["keys", "difference", "weight"]].sum()
        sums = sums.div(sums["weight"], axis=0).drop(columns="weight").reset_index()
        tables.append(sums.assign(mix=name))
    return pd.concat(tables, ignore_index=True)


def at_cost(lines: pd.DataFrame, keys: float) -> pd.DataFrame:
    """Read each family's difference off at an equal number of keys, linear in ln keys; NaN beyond what was measured."""
    read = []
    for place, curve in lines.groupby(["label", "phase", "mix", "sample", "family"], observed=True, sort=False):
        known = curve.sort_values("keys")
        x = np.log(known["keys"].to_numpy())
        inside = len(x) > 1 and x[0] <= np.log(keys) <= x[-1]
        value = float(np.interp(np.log(keys), x, known["difference"])) if inside else np.nan
        read.append((*place, keys, value))
    return pd.DataFrame(read, columns=["label", "phase", "mix", "sample", "family", "keys", "difference"])


def contest(lines: pd.DataFrame, budgets: list[float], confidence: float) -> pd.DataFrame:
    """Compare families at equal cost, paired by sample; below 0 the family is better than its `reference`.

    Every family is compared with fixed windows, and each head's own law also with a fixed window of each head's own,
    which tells what growth with n buys from what unequal heads do.

    Returns
    -------
    DataFrame : per label, phase, mix, budget (`keys`), family and `reference`: `difference` with its interval
        `difference_low`, `difference_high`, the number of `samples`, and the family's `rule`.
    """
    tables = [_against(lines, keys, reference, confidence) for keys in budgets for reference in ("fixed", HEADS_FIXED)]
    told = pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)
    told = told[(told["reference"] != HEADS_FIXED) | (told["family"] == NAMES["budget"])]
    rules = {name: rule for rule, name in NAMES.items()}
    rule = told["family"].map(lambda name: rules.get(name, name.split(",")[0]))
    return told.rename(columns={"low": "difference_low", "high": "difference_high"}).assign(rule=rule)


def _against(lines: pd.DataFrame, keys: float, reference: str, confidence: float) -> pd.DataFrame:
    """Compare every family with one of them at an equal number of keys."""
    place = ["label", "phase", "mix", "sample"]
    read = at_cost(lines, keys).dropna()
    base = read[read["family"] == reference].set_index(place)["difference"]
    others = read[read["family"] != reference].join(base.rename("base"), on=place).dropna()
    others = others.assign(difference=others["difference"] - others["base"], budget=keys)
    told = over_samples(others, ["label", "phase", "mix", "budget", "family"], confidence)
    return told.drop(columns="keys").rename(columns={"budget": "keys"}).assign(reference=reference)


def cost_within(curves: pd.DataFrame, most: float = ONE_PERCENT) -> pd.DataFrame:
    """Return the keys at which each family's mean difference first stays at or below `most`; NaN if it never does."""
    found = []
    for place, curve in curves.groupby(["label", "phase", "mix", "family"], observed=True, sort=False):
        known = curve.sort_values("keys")
        x, y = np.log(known["keys"].to_numpy()), known["difference"].to_numpy()
        above = np.flatnonzero(y > most)
        if not above.size:
            keys, bound = float(np.exp(x[0])), True
        elif above[-1] == len(y) - 1:
            keys, bound = np.nan, False
        else:
            i = above[-1]
            keys, bound = float(np.exp(np.interp(most, [y[i + 1], y[i]], [x[i + 1], x[i]]))), False
        found.append((*place, keys, bound))
    return pd.DataFrame(found, columns=["label", "phase", "mix", "family", "keys_one_percent", "at_most"])


def _windows(table: pd.DataFrame) -> pd.Series:
    return table["rule"].astype(str) + table["parameter"].map("{:g}".format) + table["scale"].map("{:g}".format)
