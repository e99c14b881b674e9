"""Thresholds in 1 / n: what one factor a keeps and drops as the context grows, and how far it is from the floor [T7].

Means are over rows, heads that see as many keys, and samples. Within one context length a / n is one probability for
all rows, and so the floor itself; over several lengths, or relative to each row's largest probability, it is not.

Shape letters: S estimates (of all samples and heads, of each resample of samples, of each of heads), C clusters,
H heads, L lengths, P settings of a rule, F fine steps between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.settings import Settings
from analysis.statistics import bootstrap
from analysis.statistics.cost_curves import READ, ROW_RULES, CostCurves, hermite, read, slopes
from analysis.statistics.growth import of_alike
from analysis.statistics.line import fit_line

Array = NDArray[np.float64]

FLOOR, TOP_P, FIXED = "threshold", "top_p", "fixed"  # one probability for all rows is the floor [T7]
FINE = 8  # steps between two settings
IN_ONE_OVER_N = ("relative_threshold", "peak_threshold")


@dataclass(frozen=True)
class Curve:
    """One rule at one length, or over all of them: parameters [P], cheapest first; keys and dropped mass [S, P].

    Between the settings measured, keys and dropped mass are cubic in logarithms against the parameter.
    """

    parameter_P: Array
    k_SP: Array
    dropped_SP: Array

    @classmethod
    def of(cls, parameter_P: Array, k_SP: Array, dropped_SP: Array) -> Curve:
        """Leave out settings that drop nothing."""
        some = dropped_SP[0] > 0
        return cls(parameter_P[some], k_SP[:, some], dropped_SP[:, some])

    def setting(self, parameter: float) -> tuple[Array, Array]:
        """Return keys and dropped mass [S] of one parameter; NaN where it was not measured or drops nothing."""
        there = np.flatnonzero(self.parameter_P == parameter)
        if not len(there):
            return (np.full(len(self.k_SP), np.nan),) * 2
        return self.k_SP[:, there[0]], self.dropped_SP[:, there[0]]

    def keys(self, dropped: float | Array) -> Array:
        """Return the keys [S] that drop a mass; NaN beyond the settings measured."""
        return self._read("dropped", "k", dropped)

    def dropped(self, k: float | Array) -> Array:
        """Return the mass [S] that as many keys drop."""
        return self._read("k", "dropped", k)

    def parameter_dropping(self, dropped: float) -> Array:
        """Return the parameter [S] that drops a mass."""
        return self._read("dropped", "parameter", dropped)

    def parameter_keeping(self, k: float) -> Array:
        """Return the parameter [S] that keeps as many keys."""
        return self._read("k", "parameter", k)

    def _read(self, known: str, asked: str, value: float | Array) -> Array:
        """Read one logarithm at a value of another, linear between the steps of `_fine`."""
        if len(self.parameter_P) < 3:
            return np.full(len(self.k_SP), np.nan)
        sign = -1 if known == "dropped" else 1  # what is known is to rise
        x_SF, y_SF = np.maximum.accumulate(sign * self._fine[known], axis=1), self._fine[asked]
        with np.errstate(invalid="ignore", divide="ignore"):  # of a resample that drops nothing
            at_S1 = np.broadcast_to(sign * np.log(value), len(x_SF))[:, None]
            i_S1 = np.clip((x_SF <= at_S1).sum(1, keepdims=True) - 1, 0, x_SF.shape[1] - 2)
            x0, x1, y0, y1 = (np.take_along_axis(of, i_S1 + j, 1) for of in (x_SF, y_SF) for j in (0, 1))
            t = (at_S1 - x0) / (x1 - x0)
            return np.asarray(np.exp(np.where((t >= 0) & (t <= 1), y0 + t * (y1 - y0), np.nan)))[:, 0]

    @cached_property
    def _fine(self) -> dict[str, Array]:
        """Logarithms [S, F] at the settings and `FINE` steps between each two, and of the parameter [S, F]."""
        x_P = np.log(self.parameter_P)
        x_P = x_P if x_P[-1] > x_P[0] else -x_P
        at_F = np.interp(np.arange(FINE * (len(x_P) - 1) + 1) / FINE, np.arange(len(x_P)), x_P)
        unit_PP = np.eye(len(x_P))  # reading off is linear in the values at the settings
        read_FP = hermite(x_P, unit_PP, slopes(x_P, unit_PP), np.broadcast_to(at_F[:, None], (len(at_F), len(x_P))))
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = {"k": np.log(self.k_SP) @ read_FP.T, "dropped": np.log(self.dropped_SP) @ read_FP.T}
        log_parameter_F = read_FP @ np.log(self.parameter_P)
        return logs | {"parameter": np.broadcast_to(log_parameter_F, logs["k"].shape)}


@dataclass(frozen=True)
class Contest:
    """All rules of one label: a curve per length, and the one over all lengths alike.

    `lengths` nominal, `n_L` keys that rows see; `samples` and `heads` are what estimates were resampled from.
    """

    lengths: Array
    n_L: Array
    by_length: dict[str, list[Curve]]
    over_all: dict[str, Curve]
    samples: int
    heads: int

    @classmethod
    def of(cls, windows: pd.DataFrame, label: str, settings: Settings) -> Contest | None:
        """Read one label; None where it has no thresholds in 1 / n, no dense grid, or a single sample.

        None too where heads that grow alike see unequal numbers of keys, so that no n is that of all.
        """
        curves = read(of_alike(windows)[0][READ], (*ROW_RULES, *IN_ONE_OVER_N))
        if curves is None or curves.clusters < 2 or len(curves.grid) != len(curves.lengths):
            return None
        if not {FLOOR, *IN_ONE_OVER_N} <= set(curves.row_rules):
            return None
        whole_SC, whole_SH = (np.full((settings.resamples, units), 1.0) for units in (curves.clusters, curves.heads))
        drawn_SC = bootstrap.weights(curves.clusters, settings.resamples, settings.seed, label)
        drawn_SH = bootstrap.weights(curves.heads, settings.resamples, settings.seed, f"{label}, heads")
        weight_SC = np.vstack([whole_SC[:1], drawn_SC, whole_SC]) / curves.clusters
        weight_SH = np.vstack([whole_SH[:1], whole_SH, drawn_SH]) / curves.heads

        def mean(values_HC: Array) -> Array:
            return np.asarray(np.einsum("sh,sc,hc...->s...", weight_SH, weight_SC, values_HC, optimize=True))

        by_length = {FIXED: _fixed(curves, mean)}
        over_all = {FIXED: _fixed_over_all(curves.n, by_length[FIXED])}
        for rule, points in curves.row_rules.items():
            k_SLP, dropped_SLP = mean(points.k), mean(points.dropped)
            each = zip(k_SLP.swapaxes(0, 1), dropped_SLP.swapaxes(0, 1), strict=True)
            by_length[rule] = [Curve.of(points.parameters, k_SP, dropped_SP) for k_SP, dropped_SP in each]
            over_all[rule] = Curve.of(points.parameters, k_SLP.mean(1), dropped_SLP.mean(1))
        return cls(curves.lengths, curves.n, by_length, over_all, curves.clusters, curves.heads)

    def places(self) -> Iterator[tuple[dict[str, float], dict[str, Curve]]]:
        """Return `length` and `n` of each length with its curves by rule, then NaN with those over all lengths."""
        for i, (length, n) in enumerate(zip(self.lengths, self.n_L, strict=True)):
            yield {"length": length, "n": n}, {rule: curves[i] for rule, curves in self.by_length.items()}
        yield {"length": np.nan, "n": np.nan}, self.over_all

    def named(self, name: str, value_S: Array, settings: Settings, scale: str = "positive") -> dict[str, float]:
        """Name a number with its interval."""
        by_sample, by_head = value_S[: settings.resamples + 1], value_S[settings.resamples + 1 :]
        about = (self.samples, by_head, self.heads, settings.confidence, scale)
        return bootstrap.with_interval(name, by_sample, *about)

    def exponent(self, y_LS: Sequence[Array], settings: Settings) -> dict[str, float]:
        """Return the exponent of what grows as a power of n, with its interval; NaN where a length has no number."""
        with np.errstate(invalid="ignore", divide="ignore"):
            slope_S = fit_line(np.log(np.stack(y_LS, 1)), np.log(self.n_L), np.ones(len(self.n_L), bool))[..., 1]
        return self.named("exponent", slope_S, settings, "real")


def _fixed(curves: CostCurves, mean: Callable[[Array], Array]) -> list[Curve]:
    result = []
    for grid in curves.grid:
        dropped_SP = mean(grid.dropped)
        result.append(Curve.of(grid.knots, np.broadcast_to(grid.knots, dropped_SP.shape), dropped_SP))
    return result


def _fixed_over_all(n_L: Array, curves: Sequence[Curve]) -> Curve:
    """Return the curve of one k at all lengths; of a context with fewer keys it keeps and drops what all of them do."""
    parameter_P = curves[-1].parameter_P
    k_SP = np.stack([np.minimum(parameter_P, n) for n in n_L]).mean(0)
    lost = [np.stack([np.nan_to_num(curve.setting(k)[1]) for k in parameter_P], 1) for curve in curves]
    return Curve.of(parameter_P, np.broadcast_to(k_SP, lost[0].shape), np.mean(lost, axis=0))


def at_each_factor(contest: Contest, settings: Settings) -> pd.DataFrame:
    """List what each threshold keeps and drops at each length, and over all lengths.

    Returns
    -------
    DataFrame : per (length, rule, parameter), the length empty for all of them alike: `n`; mean `k` and
        `dropped_mass`; `ratio`, the keys over those of the floor [T7] that drop as much; each with `_low`, `_high`; and
        what the fixed window and top-p drop at as many keys, `fixed_dropped_mass` and `top_p_dropped_mass`.
    """
    lines = []
    for place, curves in contest.places():
        for rule in (*IN_ONE_OVER_N, FLOOR):
            for parameter in curves[rule].parameter_P:
                k_S, dropped_S = curves[rule].setting(parameter)
                line = place | {"rule": rule, "parameter": float(parameter)}
                line |= contest.named("k", k_S, settings) | contest.named("dropped_mass", dropped_S, settings)
                line |= contest.named("ratio", k_S / curves[FLOOR].keys(dropped_S), settings)
                for other in (FIXED, TOP_P):
                    dropped = curves[other].dropped(k_S)[0] if other in curves else np.nan
                    line[f"{other}_dropped_mass"] = float(dropped)
                lines.append(line)
    return pd.DataFrame(lines)


def held(contest: Contest, dropped_masses: Sequence[float], settings: Settings) -> pd.DataFrame:
    """List what each rule costs where all are to drop the same mass.

    Returns
    -------
    DataFrame : per (held, length, rule), the length empty for all of them alike: `n`, the `parameter` that drops the
        mass `held`, mean `k`, and `ratio`, its keys over the floor's [T7], with `ratio_low`, `ratio_high`.
    """
    lines = []
    for place, curves in contest.places():
        for dropped in dropped_masses:
            floor_S = curves[FLOOR].keys(dropped)
            for rule, curve in curves.items():
                k_S = curve.keys(dropped)
                line = place | {"held": dropped, "rule": rule, "k": float(k_S[0])}
                line |= {"parameter": float(curve.parameter_dropping(dropped)[0])}
                lines.append(line | contest.named("ratio", k_S / floor_S, settings))
    return pd.DataFrame(lines)


def laws(
    contest: Contest, dropped_masses: Sequence[float], shares: Sequence[float], settings: Settings
) -> pd.DataFrame:
    """Fit powers of n: of what one factor a keeps and drops, and of the threshold that holds a share or a dropped mass.

    Returns
    -------
    DataFrame : per (rule, held, at, of) the `exponent` of `of` against n where `held` is `at`, with `_low`, `_high`:
        `held` is `parameter` (a, or a probability), `share` (keys kept over n) or `dropped_mass`; `of` is `keys`,
        `dropped_mass`, or `threshold`, the probability (a / n, of the row's largest in `peak_threshold`).
    """
    lines = []

    def add(rule: str, name: str, at: float, of: str, y_LS: Sequence[Array]) -> None:
        lines.append({"rule": rule, "held": name, "at": at, "of": of, **contest.exponent(y_LS, settings)})

    for rule in (*IN_ONE_OVER_N, FLOOR):
        curves = contest.by_length[rule]
        for parameter in contest.over_all[rule].parameter_P:
            k_LS, dropped_LS = zip(*(curve.setting(parameter) for curve in curves), strict=True)
            add(rule, "parameter", float(parameter), "keys", k_LS)
            add(rule, "parameter", float(parameter), "dropped_mass", dropped_LS)
        unit_L = contest.n_L if rule in IN_ONE_OVER_N else np.ones_like(contest.n_L)  # of a threshold
        for share in shares:
            each = zip(curves, contest.n_L, unit_L, strict=True)
            threshold_LS = [curve.parameter_keeping(share * n) / unit for curve, n, unit in each]
            add(rule, "share", share, "threshold", threshold_LS)
        for dropped in dropped_masses:
            each_unit = zip(curves, unit_L, strict=True)
            threshold_LS = [curve.parameter_dropping(dropped) / unit for curve, unit in each_unit]
            add(rule, "dropped_mass", dropped, "threshold", threshold_LS)
            add(rule, "dropped_mass", dropped, "keys", [curve.keys(dropped) for curve in curves])
    return pd.DataFrame(lines)
