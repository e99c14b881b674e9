"""Window rules at equal total cost [claim 4]: what each loses, and how far it stays above the floor [T7].

Cost is the mean number of keys per row over a mix of context lengths and over all heads, each of which keeps at most
the keys that it can see; one rule of that n serves the whole model. A rule of n alone spends the same on every sample,
so its scale follows from the budget exactly. What else it has to choose (the power's C, or one k per length) is chosen
on one half of the samples and judged on the other, both ways. Top-p and the threshold get the parameter that spends the
budget on the judged rows: cost alone decides it, no error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import brentq, isotonic_regression

from analysis.records.load import labels_in_order
from analysis.settings import Settings
from analysis.statistics import bootstrap
from analysis.statistics.cost_curves import READ, Array, CostCurves, RowRule, hermite, read, slopes

Clusters = NDArray[np.intp]  # indices
OF_N = ("fixed", "log", "log_squared", "power", "power_worst", "linear", "free")
OF_ROW = {"top_p": "top_p", "threshold": "floor"}  # rule of the records -> its name here
POWERS_OF_LOG = {"log": 1.0, "log_squared": 2.0}


@dataclass(frozen=True)
class Contest:
    """What is compared; conf/figure/adaptive.yaml says why each value is what it is.

    `budgets` in keys per row; `mixes` maps a name to p, for lengths of density n^-p; `exponents`, the C tried;
    `widest`, the ratio of costs of neighbouring settings up to which a rule that looks at the row is interpolated;
    `most`, the share of the mean context length up to which a budget is asked.
    """

    budgets: tuple[float, ...]
    mixes: Mapping[str, float]
    exponents: tuple[float, ...]
    widest: float
    most: float


@dataclass(frozen=True)
class Window:
    """A rule k(n) as chosen on training samples: `at(cost)` gives k (curves,) of that mean cost, in keys."""

    parameter: float
    scale: float
    at: Callable[[float], Array]


@dataclass
class Column:
    """One rule at one budget and mix: its columns of the table, and its mean dropped mass in every resample."""

    about: dict[str, float]
    replicates: Array  # mean dropped mass, (resamples,)


def contest(windows: pd.DataFrame, how: Contest, settings: Settings) -> pd.DataFrame:
    """Compare all rules of every label at equal cost.

    Parameters
    ----------
    windows : lines of `analysis.load` of one selector and variant, one design per label.
    how : budgets, mixes and what the rules may choose.
    settings : seed, resamples and confidence of the bootstrap.

    Returns
    -------
    DataFrame : one line per (label, mix, budget, rule); NaN where no record lies near. `parameter`, `scale` as in
        the records (C and alpha of the power; means over both halves, `parameter_first`, `parameter_second` the one
        by which either half is judged). Means over rows, heads and the mix of lengths: `dropped_mass`, with
        `worst_dropped_mass` at the worst length; `output_error` of the renormalised row, the mean over heads of the
        root of the mean squared relative error, with `worst_output_error`. `regret` = dropped mass minus the
        floor's, `ratio` the quotient; `versus_fixed`, `versus_log`, dropped mass minus that of the rule named,
        `ratio_fixed`, `ratio_log` the quotients. These and the dropped mass have `_low`, `_high` from a bootstrap
        over whole clusters and heads, the choices held. `cost_for_floor`: multiple of the budget at which the rule
        drops no more than the floor does at the budget. `spent`: keys per row on judged samples with the parameter
        that spends the budget on training samples.
    """
    tables = []
    for label in labels_in_order(windows):
        curves = read(windows.loc[windows["label"] == label, READ])
        if curves is not None and curves.clusters >= 2 and len(curves.lengths) >= 2:
            tables.append(_judge(curves, how, settings, label).assign(label=label))
    if not tables:
        return pd.DataFrame()
    table = pd.concat(tables, ignore_index=True)
    return table[["label", *(column for column in table if column != "label")]]


def mix_weights(lengths: Array, p: float) -> Array:
    """Share of rows at each measured length (lengths,) of density n^-p, each standing for d ln n around it."""
    weights = lengths ** (1 - p) * np.gradient(np.log(lengths))
    return weights / weights.sum()


def scale_for(shape: Array, n: Array, weights: Array, budget: float) -> float:
    """Scale at which k = scale * shape, kept within [1, n], costs exactly the budget.

    Parameters
    ----------
    shape : (curves,), positive.
    n, weights : (curves,), keys and shares of rows.
    budget : mean keys per row, between 1 and the mean n.
    """
    return float(np.interp(budget, *_costs(shape, n, weights)))


def _costs(shape: Array, n: Array, weights: Array) -> tuple[Array, Array]:
    """Costs, rising, and the scales that have them: between two neighbours the one is linear in the other.

    Neighbours are scales at which some curve meets a bound. `shape` (..., curves) gives (..., 2 curves).
    """
    ends = np.concatenate([1 / shape, n / shape], axis=-1)
    order = np.argsort(ends, axis=-1)
    scales = np.take_along_axis(ends, order, -1)
    steps = np.take_along_axis(np.concatenate([weights * shape, -weights * shape], axis=-1), order, -1)
    growing = np.cumsum(steps, axis=-1)[..., :-1] * np.diff(scales, axis=-1)
    costs = weights.sum() + np.concatenate([np.zeros((*shape.shape[:-1], 1)), np.cumsum(growing, axis=-1)], axis=-1)
    return np.maximum.accumulate(costs, axis=-1), scales


def _shaped(parameter: float, shape: Array, curves: CostCurves, weights: Array, budget: float) -> Window:
    costs, scales = _costs(shape, curves.n, weights)

    def at(cost: float) -> Array:
        return np.clip(np.interp(cost, costs, scales) * shape, 1, curves.n)

    return Window(parameter, float(np.interp(budget, costs, scales)), at)


def power_window(
    curves: CostCurves,
    training: Clusters,
    weights: Array,
    budget: float,
    exponents: Sequence[float],
    worst: bool = False,
) -> Window:
    """Choose C of k = alpha n^C on the training clusters, alpha by the budget.

    C is the one of least mean dropped mass, or with `worst` of least dropped mass at the worst length: the mean may be
    best served by giving up the long rows, which an adaptive window is not meant to do.
    """
    shapes = curves.n ** np.array(exponents)[:, None]
    scales = [np.interp(budget, *each) for each in zip(*_costs(shapes, curves.n, weights), strict=True)]
    k = np.clip(np.array(scales)[:, None] * shapes, 1, curves.n)
    dropped = np.stack(
        [grid.weights(k[:, i]) @ grid.mean_dropped(training) for i, grid in enumerate(curves.grid)], axis=-1
    )
    best = int(np.argmin(curves.by_length(dropped).max(-1) if worst else dropped @ weights))
    return _shaped(float(exponents[best]), shapes[best], curves, weights, budget)


def free_window(curves: CostCurves, training: Clusters, weights: Array) -> Window:
    """Choose one k per length, and n there, the best blind rule on the training clusters: equal marginal mass [T7].

    Keys are bought in order of the mass that one more key brings at its place, along the convex hull of each mean
    curve, for a greedy choice is optimal only there.
    """
    gains, sizes, curve = [], [], []
    for i, grid in enumerate(curves.grid):
        size = np.diff(grid.fine[0])
        gain = -np.diff(grid.fine_dropped(training)) / size
        gains.append(isotonic_regression(gain, weights=size, increasing=False).x)
        sizes.append(size)
        curve.append(np.full(len(size), i))
    order = np.argsort(-np.concatenate(gains), kind="stable")
    size, where = np.concatenate(sizes)[order], np.concatenate(curve)[order]
    bought = size * weights[where]
    before = 1 + np.cumsum(bought) - bought

    def at(cost: float) -> Array:
        share = np.clip((cost - before) / bought, 0, 1)
        return np.minimum(1 + np.bincount(where, share * size, minlength=len(weights)), curves.n)

    return Window(np.nan, np.nan, at)


def choose(
    rule: str, curves: CostCurves, training: Clusters, weights: Array, budget: float, exponents: Sequence[float]
) -> Window:
    """Set a rule of n alone by name, one of `OF_N`, to spend the budget; only training clusters are looked at."""
    if rule in ("power", "power_worst"):
        return power_window(curves, training, weights, budget, exponents, worst=rule == "power_worst")
    if rule == "free":
        return free_window(curves, training, weights)
    shape, parameter = np.ones_like(curves.n), np.nan
    if rule == "linear":
        shape = curves.n
    elif rule in POWERS_OF_LOG:
        parameter = POWERS_OF_LOG[rule]
        shape = np.log(curves.n) ** parameter
    window = _shaped(parameter, shape, curves, weights, budget)
    # the records name a fixed and a linear window by their parameter, at scale 1
    return window if rule in POWERS_OF_LOG else Window(window.scale, 1.0, window.at)


def row_rule_loss(k: Array, dropped: Array, budget: float, widest: float, parameters: Array | None = None) -> Array:
    """Mean dropped mass of a rule that looks at the row at exactly the budget, cubic in ln k and ln dropped mass.

    Parameters
    ----------
    k, dropped : (..., settings), mean keys and dropped mass over all rows, cheapest first.
    budget : mean keys per row.
    widest : ratio of neighbouring costs that may be bridged.
    parameters : (settings,), of the threshold rule: one more key per row then brings exactly the threshold [T7],
        so the slope is known and not a difference.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        x, y = np.log(k), np.log(dropped)
        slope = slopes(x, y) if parameters is None else -parameters * k / dropped
    at = np.broadcast_to(np.log(budget), x.shape[:-1])
    return np.exp(hermite(x, y, slope, at, np.log(widest)))


def _judge(curves: CostCurves, how: Contest, settings: Settings, label: str) -> pd.DataFrame:
    first, second = curves.halves()
    folds = ((second, first), (first, second))  # training, judged
    by_cluster = bootstrap.weights(curves.clusters, settings.resamples, settings.seed, label)
    by_head = bootstrap.weights(curves.heads, settings.resamples, settings.seed, f"{label}, heads")
    resample = _Resample(by_cluster / curves.clusters, by_head / curves.heads)
    lines = []
    for mix, p in how.mixes.items():
        weights = mix_weights(curves.lengths, p)
        row_rules = {OF_ROW[rule]: _RowRuleInMix(rule, points, weights) for rule, points in curves.row_rules.items()}
        # a curve of cost takes two settings that differ
        row_rules = {name: rule for name, rule in row_rules.items() if len(rule.parameters) > 1}
        for budget in how.budgets:
            if budget > how.most * (curves.weights(weights) @ curves.n):
                continue
            columns = {}
            for name, row_rule in row_rules.items():
                columns[name] = row_rule.column(budget, how.widest, folds, resample)
            floor = columns["floor"].about["dropped_mass"] if "floor" in columns else np.nan
            for name in OF_N:
                columns[name] = _of_n(name, curves, folds, weights, budget, how, floor, resample)
            if "top_p" in columns:
                columns["top_p"].about["cost_for_floor"] = row_rules["top_p"].cost_of(floor, how.widest) / budget
            if "floor" in columns:
                columns["floor"].about["cost_for_floor"] = 1.0
            for name in (*OF_N, *OF_ROW.values()):
                if name in columns:
                    compared = _compare(columns, name, curves.clusters, settings.confidence)
                    lines.append({"mix": mix, "budget": budget, "rule": name, **columns[name].about, **compared})
    return pd.DataFrame(lines).assign(heads=curves.heads, clusters=curves.clusters)


@dataclass(frozen=True)
class _Resample:
    clusters: Array  # (resamples, clusters), shares
    heads: Array  # (resamples, heads), shares

    def means(self, values: Array) -> Array:
        """Means of (heads, clusters, ...) in every resample, (resamples, ...)."""
        heads, clusters, *rest = values.shape
        by_head = (self.heads @ values.reshape(heads, -1)).reshape(len(self.heads), clusters, -1)
        return np.einsum("bcq,bc->bq", by_head, self.clusters).reshape(-1, *rest)


def _of_n(
    name: str,
    curves: CostCurves,
    folds: Sequence[tuple[Clusters, Clusters]],
    weights: Array,
    budget: float,
    how: Contest,
    floor: float,
    resample: _Resample,
) -> Column:
    of_curves = curves.weights(weights)
    selected = [choose(name, curves, training, of_curves, budget, how.exponents) for training, _ in folds]
    dropped, square = (np.empty((curves.heads, curves.clusters, len(curves.lengths))) for _ in range(2))
    for window, (_, judged) in zip(selected, folds, strict=True):
        k = window.at(budget)
        for i, grid in enumerate(curves.grid):
            read_off = grid.weights(k[i])
            dropped[grid.heads[:, None], judged, grid.length] = grid.dropped[:, judged] @ read_off
            square[grid.heads[:, None], judged, grid.length] = grid.square[:, judged] @ read_off
    fine = [[grid.fine_dropped(judged) for grid in curves.grid] for _, judged in folds]

    def excess(ln_cost: float) -> float:
        lost = 0.0
        for window, mean, (_, judged) in zip(selected, fine, folds, strict=True):
            k = window.at(float(np.exp(ln_cost)))
            of_each = [float(np.interp(k[i], grid.fine[0], mean[i])) for i, grid in enumerate(curves.grid)]
            lost += len(judged) / curves.clusters * float(of_curves @ np.array(of_each))
        return lost - floor

    ends = np.log(np.array([budget / 2, float(of_curves @ curves.n)]))
    reached = excess(ends[0]) > 0 > excess(ends[1])
    cost = np.exp(brentq(excess, *ends, xtol=1e-6)) if reached else np.nan
    parameters = [window.parameter for window in selected]
    about = {
        "parameter": float(np.mean(parameters)),
        "scale": float(np.mean([window.scale for window in selected])),
        "parameter_first": parameters[0],
        "parameter_second": parameters[1],
        **_summary(dropped.mean((0, 1)), square.mean(1), weights),
        "dropped_mass": float(weights @ dropped.mean((0, 1))),
        "cost_for_floor": cost / budget,
        "spent": float(np.mean([window.at(budget) @ of_curves for window in selected])),
    }
    return Column(about, resample.means(dropped @ weights))


def _summary(dropped: Array, square: Array, weights: Array) -> dict[str, float]:
    """Worst length and output errors of mean dropped mass (lengths,) and squared error (heads, lengths)."""
    square = np.maximum(square, 0)
    by_length = np.sqrt(square).mean(0)
    return {
        "worst_dropped_mass": float(dropped.max()),
        "output_error": float(np.sqrt(square @ weights).mean()),
        "worst_output_error": float(by_length.max()),
    }


class _RowRuleInMix:
    """A rule that looks at the row, over one mix of lengths."""

    def __init__(self, rule: str, points: RowRule, weights: Array) -> None:
        self.weights = weights
        every = points.k.mean((0, 1))
        # settings that keep the same keys, or lose nothing, are one
        apart = np.diff(weights @ every, prepend=0) > 1e-9 * (weights @ every)
        apart &= weights @ points.dropped.mean((0, 1)) > 0
        self.parameters = points.parameters[apart]
        self.thresholds = self.parameters if rule == "threshold" else None
        self.k = np.einsum("hclp,l->hcp", points.k[..., apart], weights)
        self.dropped = np.einsum("hclp,l->hcp", points.dropped[..., apart], weights)
        self.by_length = points.dropped[..., apart].mean((0, 1))
        self.square = points.square[..., apart].mean(1)
        self.replicates: tuple[Array, Array] | None = None

    def column(
        self, budget: float, widest: float, folds: Sequence[tuple[Clusters, Clusters]], resample: _Resample
    ) -> Column:
        """Judge the rule at the parameter that costs the budget."""
        if self.replicates is None:
            self.replicates = resample.means(self.k), resample.means(self.dropped)
        x, at = np.log(self.k.mean((0, 1))), np.log(budget)

        def there(values: Array, at_costs: Array = x) -> Array:
            return hermite(at_costs, values, slopes(at_costs, values), at, np.log(widest))

        spent = []
        for training, judged in folds:
            trained, seen = (np.log(self.k[:, half].mean((0, 1))) for half in (training, judged))
            spent.append(len(judged) / self.k.shape[1] * float(np.exp(there(seen, trained))))
        about = {
            "parameter": float(np.exp(there(np.log(self.parameters)))),
            "scale": 1.0,
            **_summary(there(self.by_length), there(self.square), self.weights),
            "dropped_mass": float(
                row_rule_loss(self.k.mean((0, 1)), self.dropped.mean((0, 1)), budget, widest, self.thresholds)
            ),
            "spent": sum(spent),
        }
        return Column(about, row_rule_loss(*self.replicates, budget, widest, self.thresholds))

    def cost_of(self, dropped: float, widest: float) -> float:
        """Keys per row at which the rule drops this mass."""
        x, y = -np.log(self.dropped.mean((0, 1))), np.log(self.k.mean((0, 1)))
        return float(np.exp(hermite(x, y, slopes(x, y), -np.log(dropped), np.log(widest))))


def _compare(columns: dict[str, Column], name: str, clusters: int, confidence: float) -> dict[str, float]:
    """Set one rule against the others, resample by resample."""
    mine, drawn = columns[name].about["dropped_mass"], columns[name].replicates
    compared: dict[str, tuple[float, Array]] = {"dropped_mass": (mine, drawn)}
    if "floor" in columns:
        floor = columns["floor"]
        compared["regret"] = (mine - floor.about["dropped_mass"], drawn - floor.replicates)
        compared["ratio"] = (mine / floor.about["dropped_mass"], drawn / floor.replicates)
    for other in ("fixed", "log"):
        rival = columns[other]
        compared[f"versus_{other}"] = (mine - rival.about["dropped_mass"], drawn - rival.replicates)
        compared[f"ratio_{other}"] = (mine / rival.about["dropped_mass"], drawn / rival.replicates)
    line: dict[str, float] = {}
    for measure, (value, replicates) in compared.items():
        line[measure] = value
        if np.isfinite(value):
            low, high = bootstrap.interval(np.asarray(value), replicates, clusters, confidence)
            line[f"{measure}_low"], line[f"{measure}_high"] = float(low), float(high)
        else:
            line[f"{measure}_low"] = line[f"{measure}_high"] = np.nan
    return line
