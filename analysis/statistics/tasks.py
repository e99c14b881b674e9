"""What windows do to a task: paired differences to dense attention, against cost, with intervals over samples.

A family is one shape of window at all its sizes: fixed, log, power with one C, linear, top-p, threshold, each
head's C, each head's fixed k, keys shared out in one way. Windows of several budget files that are named alike have the
file's name behind their rule (`analysis.records.budgets`), and so have their families.
"""

from collections.abc import Iterator, Mapping
from itertools import product

import numpy as np
import pandas as pd

from analysis.statistics.intervals import student_reach

DENSE = "dense"
ONE_PERCENT = float(np.log(1.01))  # nats per token: a hundredth of dense perplexity
NAMES = {
    "top_p": "top-p",
    "threshold": "threshold [T7]",
    "budget": "each head's C",
    "head_fixed": "each head's k",
    "budget_gains": "keys by gains",
    "budget_uniform": "keys alike",
    "budget_pyramid": "keys in a pyramid",
    "budget_zigzag": "keys as ZigZagKV",
    "budget_shared": "keys shared out",
    "sharpened": "sharper softmax",
    "own_top_p": "own top-p",
    "own_threshold": "own threshold",
    "ada": "shared in a layer",
}
SHARPENED = "sharpened"
HEADS_FIXED = NAMES["head_fixed"]


def fullest_design(table: pd.DataFrame) -> pd.DataFrame:
    """Keep, for each label and phase, the design and seed with most samples, then lengths, then windows."""
    one = ["label", "phase", "design", "seed"]
    sizes = (
        table.assign(window=table.groupby(["rule", "parameter", "scale"], dropna=False, observed=True).ngroup())
        .astype({"design": str, "run": str})
        .groupby(one, observed=True)
        .agg(
            samples=("sample", "nunique"),
            lengths=("length", "nunique"),
            windows=("window", "nunique"),
            run=("run", "max"),
        )
        .reset_index()
        .sort_values(["samples", "lengths", "windows", "run"], ascending=False)
    )
    best = sizes.drop_duplicates(["label", "phase"])[one]
    kept = pd.MultiIndex.from_frame(table[one].astype({"design": str})).isin(pd.MultiIndex.from_frame(best))
    return table[kept]


def with_all_texts(table: pd.DataFrame) -> pd.DataFrame:
    """Add the samples of all texts of a model together, under a label of their own, where it read several.

    Of the windows and lengths that all of its texts have; a sample of one text is none of another.
    """
    parts = [table]
    for _, lines in table.groupby(["model_hash", "phase"], observed=True):
        names = sorted(lines["label"].astype(str).unique())
        if len(names) < 2:
            continue
        place = ["rule", "parameter", "scale", "length"]
        texts = lines.drop_duplicates([*place, "label"]).groupby(place, dropna=False, observed=True)["label"].nunique()
        common = texts.index[texts == len(names)]
        kept = lines[pd.MultiIndex.from_frame(lines[place]).isin(common)]
        own = kept["label"].astype(str).map({name: i for i, name in enumerate(names)}).astype(int)
        sample = kept["sample"] * len(names) + own
        label = f"{names[0].split(', ')[0]}, {len(names)} texts"  # a label names its text behind a comma
        parts.append(kept.assign(label=label, sample=sample))
    return pd.concat(parts, ignore_index=True) if len(parts) > 1 else table


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
    pair = ["label", "phase", *by, "sample"]
    lines = table.astype({"rule": str, "label": str})
    grouped = lines.groupby([*pair, "rule", "parameter", "scale"], dropna=False, observed=True)
    means = grouped[["keys", measure]].mean().reset_index()
    dense = means[means["rule"] == DENSE].set_index(pair)[measure].rename("dense")
    means = means[means["rule"] != DENSE].join(dense, on=pair)
    means["difference"] = means[measure] - means["dense"]
    return means.assign(family=families(means)).drop(columns=measure)


def families(table: pd.DataFrame) -> pd.Series:
    """Return the family of each line's window."""
    power = table["rule"] == "power"
    named = table["rule"].astype(str).map(_family)
    return named.where(~power, "power, C = " + table["parameter"].map("{:.2g}".format))


def _family(rule: str) -> str:
    """Return the family of a rule, behind which the name of a budget file may stand in brackets."""
    name, bracket, file = rule.partition(" (")
    return NAMES.get(name, name) + bracket + file


def over_samples(lines: pd.DataFrame, by: list[str], confidence: float) -> pd.DataFrame:
    """Return the mean difference and its Student interval over samples, per group of `by`."""
    means = (
        lines.groupby(by, observed=True, sort=False, dropna=False)["difference"]
        .agg(["mean", "std", "count"])
        .reset_index()
    )
    keys = lines.groupby(by, observed=True, sort=False, dropna=False)["keys"].mean().reset_index(drop=True)
    reach = student_reach(means["std"] / np.sqrt(means["count"]), means["count"], confidence)
    table = means[by].assign(keys=keys, difference=means["mean"], samples=means["count"])
    return table.assign(low=means["mean"] - reach, high=means["mean"] + reach)


def mixed(lines: pd.DataFrame, mixes: Mapping[str, float]) -> pd.DataFrame:
    """Average keys and differences over the context lengths of each mix: weights proportional to n^(1 - p).

    Lengths stand at equal steps of ln n, so that a density n^-p of lengths gives each the weight n^(1 - p).
    """
    tables = []
    for name, p in mixes.items():
        weight = lines["length"].astype(float) ** (1 - p)
        parts = lines.assign(weight=weight, keys=lines["keys"] * weight, difference=lines["difference"] * weight)
        # a window's size is the same at all lengths, but for rules whose factor has no name of its own
        window = ["label", "phase", "sample", "family", "rule", "parameter", "scale"]
        sums = parts.groupby(window, observed=True, sort=False, dropna=False)[["keys", "difference", "weight"]].sum()
        sums = sums.div(sums["weight"], axis=0).drop(columns="weight").reset_index()
        tables.append(sums.assign(mix=name))
    return pd.concat(tables, ignore_index=True)


def at_cost(lines: pd.DataFrame, keys: float) -> pd.DataFrame:
    """Read each family's difference off at an equal number of keys, linear in ln keys; NaN beyond what was measured."""
    read = []
    for group, curve in lines.groupby(["label", "phase", "mix", "sample", "family"], observed=True, sort=False):
        measured = curve.sort_values("keys")
        x = np.log(measured["keys"].to_numpy())
        inside = len(x) > 1 and x[0] <= np.log(keys) <= x[-1]
        value = float(np.interp(np.log(keys), x, measured["difference"])) if inside else np.nan
        read.append((*group, keys, value))
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
    own = [name for name in lines["family"].unique() if name.startswith(HEADS_FIXED)]
    references = {"fixed": None, **{name: NAMES["budget"] + name.removeprefix(HEADS_FIXED) for name in own}}
    tables = []
    for keys, (reference, only) in product(budgets, references.items()):
        against = _against(lines, keys, reference, confidence)
        tables.append(against if only is None else against[against["family"] == only])
    table = pd.concat([part for part in tables if len(part)] or tables[:1], ignore_index=True)
    rules = {name: rule for rule, name in NAMES.items()}
    rule = table["family"].map(lambda name: rules.get(name.split(" (")[0], name.split(",")[0]))
    reference = table["reference"].str.split(" (", regex=False).str[0]  # of the file that the family's own is of
    names = {"low": "difference_low", "high": "difference_high"}
    return table.rename(columns=names).assign(rule=rule, reference=reference)


def _against(lines: pd.DataFrame, keys: float, reference: str, confidence: float) -> pd.DataFrame:
    """Compare every family with one of them at an equal number of keys."""
    pair = ["label", "phase", "mix", "sample"]
    read = at_cost(lines, keys).dropna()
    base = read[read["family"] == reference].set_index(pair)["difference"]
    others = read[read["family"] != reference].join(base.rename("base"), on=pair).dropna()
    others = others.assign(difference=others["difference"] - others["base"], budget=keys)
    table = over_samples(others, ["label", "phase", "mix", "budget", "family"], confidence)
    return table.drop(columns="keys").rename(columns={"budget": "keys"}).assign(reference=reference)


def cost_within(curves: pd.DataFrame, most: float = ONE_PERCENT) -> pd.DataFrame:
    """Return the keys at which each family's mean difference first stays at or below `most`.

    Parameters
    ----------
    curves : lines of `over_samples` by window and mix.

    Returns
    -------
    DataFrame : per label, phase, mix and family `keys_one_percent`, NaN if the difference never stays there; `at_most`
        where it does so at the fewest keys measured. `keys_one_percent_low` and `_high`, where the lower and the upper
        end of the difference's interval do: infinite if that end never does, NaN where there is no interval.
    """
    result = []
    for group, curve in curves.groupby(["label", "phase", "mix", "family"], observed=True, sort=False):
        measured = curve.sort_values("keys")
        x = np.log(measured["keys"].to_numpy())
        keys, low, high = (_first_within(x, measured[name].to_numpy(), most) for name in ("difference", "low", "high"))
        at_most = keys == np.exp(x[0])
        result.append((*group, keys if np.isfinite(keys) else np.nan, low, high, at_most))
    names = ["keys_one_percent", "keys_one_percent_low", "keys_one_percent_high", "at_most"]
    return pd.DataFrame(result, columns=["label", "phase", "mix", "family", *names])


def _first_within(x: np.ndarray, y: np.ndarray, most: float) -> float:
    """Return exp(x) from which y stays at or below `most`, linear in between; infinite if it does not at the end."""
    if np.isnan(y).any():
        return np.nan
    above = np.flatnonzero(y > most)
    if not above.size:
        return float(np.exp(x[0]))
    if above[-1] == len(y) - 1:
        return np.inf
    i = above[-1]
    return float(np.exp(np.interp(most, [y[i + 1], y[i]], [x[i + 1], x[i]])))


def by_method(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Part lines by the method that chose the keys, each with the dense lines and the controls of the same runs."""
    method, dense = table["selector"].astype(str), table["rule"].isin([DENSE, SHARPENED])
    for name in method[~dense].unique():
        runs = table.loc[~dense & (method == name), "run"].unique()
        yield name, table[(dense & table["run"].isin(runs)) | (~dense & (method == name))]


def sources(lines: pd.DataFrame) -> pd.DataFrame:
    """Say what stands behind the lines of a task, the label of most lines first.

    Returns
    -------
    DataFrame : per label and phase: numbers of `lines`, `samples`, `lengths`, and where recorded `depths`, dense
        `answers`, mean `tokens` of an answer and `repeats` of a timed step.
    """
    groups = lines.astype({"label": str, "phase": str}).groupby(["label", "phase"])
    table = pd.DataFrame({"lines": groups.size(), "samples": groups["sample"].nunique()})
    table["lengths"] = groups["length"].agg(lambda part: " ".join(map(str, sorted(set(part)))))
    if "depth" in lines:
        dense = lines[lines["rule"].astype(str) == DENSE]
        table["depths"], table["tokens"] = groups["depth"].nunique(), groups["tokens"].mean()
        table["answers"] = dense.groupby([dense["label"].astype(str), dense["phase"].astype(str)]).size()
    if "repeats" in lines:
        table["repeats"] = groups["repeats"].first()
    table = table.reset_index()
    order = table.assign(total=-table.groupby("label")["lines"].transform("sum"))
    return order.sort_values(["total", "label", "phase"], ignore_index=True).drop(columns="total")
