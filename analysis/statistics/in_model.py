"""What methods lose inside a model at their cost: the part that the oracle loses too, and the rest.

Shape letters: B samples drawn, S samples, W windows, L lengths.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from analysis.settings import Settings
from analysis.statistics import tasks
from analysis.statistics.bootstrap import interval, weights
from analysis.statistics.censored import slope_of
from analysis.statistics.intervals import student_reach

ORACLE = "oracle"
READ = ["label", "phase", "seed", "longest", "tokens"]  # what was read, and how much of it counts
PLACE = ["label", "phase", "length", "selector"]
WINDOW = ["rule", "parameter", "scale"]
QUALITY = ["lost", "kl", "agreement", "budget", "choice"]
CURVE = ("fixed", "linear")  # windows of given sizes: the oracle's curve is read off these
FEWEST_LENGTHS = 3


def by_sample(losses: pd.DataFrame) -> pd.DataFrame:
    """Average the tokens of each sample, method and window, and take off what dense attention loses on them.

    What a model read by most methods counts for each method, rule and length; a model's texts are also put together.

    Parameters
    ----------
    losses : lines of losses.parquet of several runs; `agreement` and `kl` may be missing.

    Returns
    -------
    DataFrame : per label, phase, length, selector, window and sample: mean `keys`, `lost` (nats over dense), `kl`,
        `agreement`; `budget`, what the oracle loses with as many keys (linear in ln keys between its windows of given
        sizes, NaN beyond them), and `choice`, the rest.
    """
    lines = losses.astype({"label": str, "selector": str, "rule": str, "phase": str, "run": str})
    lines = lines.assign(**{name: np.nan for name in ("agreement", "kl") if name not in lines})
    runs = lines[lines["rule"] == tasks.DENSE].groupby("run")
    read = pd.DataFrame({"longest": runs["length"].max()})
    read["tokens"] = (
        runs.size()
        // lines[lines["rule"] == tasks.DENSE].drop_duplicates(["run", "length", "sample"]).groupby("run").size()
    )
    lines = lines.join(read, on="run")
    parts = [tasks.with_all_texts(part) for _, part in lines.groupby(READ[1:], observed=True)]
    lines = pd.concat(parts, ignore_index=True)
    pair = [*READ, "length", "sample"]
    measured = ["keys", "loss", "agreement", "kl"]
    means = lines.groupby([*pair, "selector", *WINDOW], dropna=False, observed=True)[measured].mean().reset_index()
    dense = means[means["rule"] == tasks.DENSE].set_index(pair)["loss"].rename("dense")
    means = means[means["rule"] != tasks.DENSE].join(dense, on=pair)
    means["lost"] = means["loss"] - means["dense"]
    means = pd.concat([_with_oracle(part) for _, part in means.groupby(pair, observed=True)], ignore_index=True)
    return _of_most_methods(means).drop(columns=["loss", "dense"])


def _with_oracle(one: pd.DataFrame) -> pd.DataFrame:
    """Add what the oracle loses with as many keys, to the windows of one sample and length."""
    curve = one[(one["selector"] == ORACLE) & one["rule"].isin(CURVE)].sort_values("keys")
    budget = np.full(len(one), np.nan)
    if len(curve) > 1:
        x, keys = np.log(curve["keys"].to_numpy()), np.log(np.maximum(one["keys"].to_numpy(), 1e-9))
        inside = (keys >= x[0] - 1e-9) & (keys <= x[-1] + 1e-9)
        budget = np.where(inside, np.interp(keys, x, curve["lost"].to_numpy()), np.nan)
    return one.assign(budget=budget, choice=one["lost"] - budget)


def _of_most_methods(means: pd.DataFrame) -> pd.DataFrame:
    """Keep, per label, phase, length, method and rule, what most methods read, then of most samples and lengths."""
    sizes = means.groupby(READ, observed=True)[["selector", "sample", "length"]].nunique()
    order = sizes.sort_values(["selector", "sample", "length"], ascending=False).reset_index()[READ]
    rank = order.assign(rank=np.arange(len(order)))
    ranked = means.merge(rank, on=READ)
    best = ranked.groupby(["label", "phase", "length", "selector", "rule"])["rank"].transform("min")
    return ranked[ranked["rank"] == best].drop(columns="rank")


def over_samples(lines: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Average samples, with Student's interval of each quality; `share` is that of the context that is kept.

    Returns
    -------
    DataFrame : per label, phase, length, selector and window: `keys`, `share`, `samples`, each of QUALITY with its
        `_low` and `_high`, `longest`, the longest context of the run, by which its pieces of text are cut,
        and `frontier`: no window of any method but the oracle loses less on the same pieces with as few keys.
    """
    groups = lines.groupby([*PLACE, *WINDOW], dropna=False, observed=True)
    table = groups[["keys", *QUALITY]].mean()
    samples = groups.size()
    for name in QUALITY:
        reach = student_reach(groups[name].sem(), groups[name].count(), confidence)
        table[f"{name}_low"], table[f"{name}_high"] = table[name] - reach, table[name] + reach
    shares = ["agreement", "agreement_low", "agreement_high"]
    table[shares] = table[shares].clip(0, 1)  # a mean of ones may exceed 1 in its last bit
    table = table.assign(samples=samples, longest=groups["longest"].first()).reset_index()
    table["share"] = table["keys"] / table["length"].astype(float)
    deployed = (table["selector"] != ORACLE) & (table["keys"] > 0)
    frontier = pd.Series(False, index=table.index)
    for _, part in table[deployed].groupby([*PLACE[:-1], "longest"], observed=True):
        ordered = part.sort_values(["keys", "lost"])
        frontier[ordered.index] = ordered["lost"] < ordered["lost"].cummin().shift(fill_value=np.inf)
    return table.assign(frontier=frontier)


def keys_for(lines: pd.DataFrame, targets: Mapping[str, list[float]], how: Settings) -> pd.DataFrame:
    """Return the fewest keys with which each method keeps a quality at every length, and how they grow.

    A curve of windows of given sizes is averaged over samples, and the keys are those from which on it keeps the
    target, linear in ln keys. The exponent is the slope of ln keys over ln n by least squares. Intervals are
    percentiles over resampled samples, stretched for their number. A resample that needs more keys than were measured
    needs at most all n, and one for which the fewest are enough at least one: ends of intervals go by these.

    Parameters
    ----------
    targets : of `lost` the most nats, of `agreement` the least share.

    Returns
    -------
    DataFrame : per label, phase, selector, `quality` and `target`, a line for each length with `k`, NaN where no window
        is enough, `k_low`, `k_high`, `at_most` where the fewest keys that were measured are enough, and `exponent`,
        `exponent_low`, `exponent_high` over the lengths without either, the same in each of these lines.
    """
    parts = []
    curves = lines[lines["rule"].isin(CURVE)]
    for (label, phase, selector), part in curves.groupby(["label", "phase", "selector"], observed=True):
        samples = sorted(part["sample"].unique())
        drawn = weights(len(samples), how.resamples, how.seed, f"{label}, samples")
        times_BS = np.concatenate([np.ones((1, len(samples))), drawn])
        for quality, values in targets.items():
            tables = [_curve(of_length, quality, samples) for _, of_length in part.groupby("length", observed=True)]
            lengths = np.array(sorted(part["length"].unique()), float)
            if any(np.isnan(y_SW).any() for _, y_SW in tables):
                continue  # not recorded, or not at every window of each sample
            for target in values:
                k_BL = np.stack([_first_within(x, times_BS, y, target, quality) for x, y in tables], axis=1)
                ends_L2 = np.array([x[[0, -1]] for x, _ in tables])  # ln of the fewest and of the most keys measured
                ln_BL = np.log(k_BL)  # so that a stretched interval keeps more than no key
                bound_BL = ln_BL <= ends_L2[:, 0]  # fewer keys than were measured may do
                or_all_BL = np.where(np.isnan(ln_BL), np.log(lengths), ln_BL)[1:]  # all n keys, where more are needed
                low_L, high_L = interval(ln_BL[0], or_all_BL, len(samples), how.confidence)
                low_L, high_L = np.exp(np.minimum(low_L, ln_BL[0])), np.exp(np.minimum(high_L, np.log(lengths)))
                known = np.isfinite(ln_BL[0]) & ~bound_BL[0]
                of_known = ln_BL[:, known], bound_BL[:, known], ends_L2[known], np.log(lengths)[known]
                enough = known.sum() >= FEWEST_LENGTHS
                growth = slope_of(*of_known, len(samples), how.confidence) if enough else (np.nan,) * 3
                place = {"label": label, "phase": phase, "selector": selector, "quality": quality, "target": target}
                grown = dict(zip(("exponent", "exponent_low", "exponent_high"), growth, strict=True))
                columns = {"length": lengths.astype(int), "k": k_BL[0], "k_low": low_L, "k_high": high_L}
                columns["at_most"] = bound_BL[0]
                parts.append(pd.DataFrame(place | columns | grown))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _curve(part: pd.DataFrame, quality: str, samples: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the logarithms of the mean keys of every window [W] in order, and the quality of each sample [S, W]."""
    window = part.groupby(WINDOW, dropna=False, observed=True)
    order = window["keys"].mean().sort_values()
    table = part.pivot_table(quality, "sample", WINDOW, dropna=False) if part[quality].notna().any() else None
    if table is None:
        return np.log(order.to_numpy()), np.full((len(samples), len(order)), np.nan)
    return np.log(order.to_numpy()), table.reindex(index=samples, columns=order.index).to_numpy(float)


def _first_within(x_W: np.ndarray, times_BS: np.ndarray, y_SW: np.ndarray, target: float, quality: str) -> np.ndarray:
    """Return exp(x) from which on each resample's mean keeps the target [B]; NaN where its last window does not."""
    over_BW = times_BS @ y_SW / times_BS.sum(1, keepdims=True) - target
    over_BW = -over_BW if quality == "agreement" else over_BW
    last = over_BW.shape[1] - 1 - np.argmax(over_BW[:, ::-1] > 0, axis=1)  # the last window that does not keep it
    rows, following = np.arange(len(last)), np.minimum(last + 1, len(x_W) - 1)
    before, after = over_BW[rows, last], over_BW[rows, following]
    share = np.where(before > after, before / np.where(before > after, before - after, 1.0), 0.0)
    k_B = np.exp(x_W[last] + share * (x_W[following] - x_W[last]))
    k_B = np.where(last == len(x_W) - 1, np.nan, k_B)
    return np.where((over_BW > 0).any(1), k_B, np.exp(x_W[0]))
