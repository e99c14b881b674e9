"""The least cost at which the error is held at every length [claim 4]: fixed, a ln n and alpha n^C.

A user who promises quality at every context length asks not for the least mean error at a mean cost, but for the least
mean cost at which the worst length's error is at most tau. A rule of n then keeps, at every length, at least the keys
that this length needs, and one of its lengths just so many: its scale follows from its shape. C is chosen on one half
of the samples, on which the windows are set too; the other half judges them, both ways.

The worst of several noisy lengths is worse than the truth, and most so for a window that serves all lengths alike: the
power comes out too dear, by 16% with four samples whose keys needed vary by a fifth from length to length, by 2 to 4%
where they vary by a twentieth. A saving that is found is there; how large it is, is a bound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.settings import Settings
from analysis.statistics import bootstrap
from analysis.statistics.cost_curves import READ, read
from analysis.statistics.equal_cost import mix_weights
from analysis.statistics.growth import of_alike
from analysis.statistics.tasks import DENSE

Array = NDArray[np.float64]
ALIKE = ("fixed", "log", "power", "linear")  # rules that keep as many keys in all heads
SEES = 0.9  # share of a context's keys that rows see on average where no layer has a sliding window
COLUMNS = [
    *("label", "mix", "tau", "rule", "cost", "worst", "cost_held", "parameter", "parameter_first", "parameter_second"),
    *(f"ratio_{family}{end}" for family in ("fixed", "log") for end in ("", "_low", "_high")),
    *("short", "lengths", "clusters"),
]
ROUNDING = 1e-9  # relative


@dataclass(frozen=True)
class ErrorCurves:
    """Error against keys kept, at every context length of one source.

    `n` (lengths,) in keys, rising; `knots`, per length, windows (knots,) in keys, rising; `errors`, per length, the
    error of each sample (clusters, knots), a mean over rows and heads.
    """

    n: Array
    knots: Sequence[Array]
    errors: Sequence[Array]

    @property
    def clusters(self) -> int:
        """Number of samples that a bootstrap may resample, in order."""
        return len(self.errors[0])

    @classmethod
    def of_rows(cls, windows: pd.DataFrame) -> ErrorCurves | None:
        """Read dropped mass off the dense grid of one label, over heads that see as many keys; None below two lengths.

        Parameters
        ----------
        windows : lines of `analysis.load` of one selector and variant.
        """
        alike, _ = of_alike(windows[windows["rule"] == "grid"])
        curves = read(alike[READ])
        if curves is None or len(curves.lengths) < 2 or len(curves.grid) != len(curves.lengths):
            return None
        return cls(curves.n, [each.knots for each in curves.grid], [each.dropped.mean(0) for each in curves.grid])

    @classmethod
    def of_task(cls, table: pd.DataFrame, differences: pd.DataFrame) -> ErrorCurves | None:
        """Arrange what a model loses within windows that are alike for all heads, of one label and phase.

        The oracle's keys are the same whichever rule asks for so many of them, so that all windows of a length lie on
        one curve against keys kept.

        Parameters
        ----------
        table : lines of losses or answers, dense ones among them.
        differences : of `tasks.differences` per length, of the same lines.

        Returns
        -------
        ErrorCurves : of the samples that have every window; None where there are not two lengths of two windows, or
            heads see unequal numbers of keys.
        """
        seen = table[table["rule"] == DENSE].groupby("length")["keys"].mean()
        alike = differences[differences["rule"].isin(ALIKE)]
        wide = alike.pivot_table("difference", ["rule", "parameter", "scale"], ["length", "sample"])
        whole = wide.T.dropna().index.to_frame(index=False) if len(wide) else pd.DataFrame(columns=["length", "sample"])
        lengths = np.sort(seen.index.to_numpy())
        in_all = whole.groupby("sample")["length"].nunique() == len(lengths)
        samples = in_all.index[in_all]
        if len(lengths) < 2 or not len(samples) or (seen.to_numpy() < SEES * seen.index.to_numpy()).any():
            return None
        knots, errors = [], []
        for length in lengths:
            of_length = alike[(alike["length"] == length) & alike["sample"].isin(samples)]
            mean = of_length.groupby(["rule", "parameter", "scale"])["keys"].mean().rename("mean").reset_index()
            by_keys = of_length.merge(mean, on=["rule", "parameter", "scale"])
            curve = by_keys.pivot_table("difference", "sample", "mean").sort_index(axis=1)
            if curve.shape[1] < 2:
                return None
            knots.append(curve.columns.to_numpy(np.float64))
            errors.append(curve.to_numpy(np.float64))
        return cls(seen.loc[lengths].to_numpy(np.float64), knots, errors)

    def means(self, shares: Array) -> list[Array]:
        """Return, per length, mean errors (resamples, knots) over samples that weigh `shares` (resamples, clusters)."""
        return [shares @ error for error in self.errors]

    def needed(self, means: Sequence[Array], tau: float) -> Array:
        """Return the least keys from which the mean error stays at most tau, linear in ln keys.

        Parameters
        ----------
        means : per length, (resamples, knots).
        tau : error allowed.

        Returns
        -------
        array : (resamples, lengths); NaN where the widest window loses more. Where even the narrowest one loses no
            more, that one: its keys are an upper bound, which saves growing windows too little and never too much.
        """
        return np.stack([_last_crossing(x, error, tau) for x, error in zip(self.knots, means, strict=True)], axis=-1)

    def worst(self, shares: Array, k: Array) -> float:
        """Return the worst length's mean error under windows k (lengths,), over samples that weigh `shares`."""
        if np.isnan(k).any():
            return np.nan
        return max(
            float(np.interp(np.log(at), np.log(knots), mean))
            for at, knots, mean in zip(k, self.knots, self.means(shares), strict=True)
        )


def _last_crossing(knots: Array, error: Array, tau: float) -> Array:
    """Return the keys from which error (resamples, knots) stays at most tau."""
    above = error > tau * (1 + ROUNDING)
    ever = above.any(-1)
    last = np.where(ever, error.shape[-1] - 1 - above[:, ::-1].argmax(-1), 0)
    inside = np.minimum(last, error.shape[-1] - 2)
    lines, x = np.arange(len(error)), np.log(knots)
    high, low = error[lines, inside], error[lines, inside + 1]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):  # beyond the last knot, where none is taken
        keys = np.exp(x[inside] + (high - tau) / (high - low) * (x[inside + 1] - x[inside]))
    return np.where(ever, np.where(last == inside, keys, np.nan), knots[0])


def shapes(n: Array, exponents: Sequence[float]) -> dict[str, Array]:
    """Return each family's shapes (parameters, lengths): k is a scale times one of them."""
    return {
        "fixed": np.ones((1, len(n))),
        "log": np.log(n)[None],
        "power": n ** np.asarray(exponents)[:, None],
    }


def cheapest(needed: Array, shape: Array, n: Array, weights: Array) -> tuple[NDArray[np.intp], Array]:
    """Choose each resample's cheapest of several shapes whose windows keep the keys needed at every length.

    Parameters
    ----------
    needed : (resamples, lengths), in keys.
    shape : (parameters, lengths), the simplest first: one that saves no more than rounding is not chosen.
    n : (lengths,), keys that rows see.
    weights : (lengths, mixes), shares of rows.

    Returns
    -------
    best, scale : (resamples, mixes), the index of the shape and its scale.
    """
    scale = (needed[:, None] / shape).max(-1)
    cost = np.clip(scale[..., None] * shape, 1, n) @ weights
    least = cost.min(1, keepdims=True)
    best = (cost <= least * (1 + ROUNDING)).argmax(1)
    return best, np.take_along_axis(scale, best, 1)


def held(
    curves: ErrorCurves,
    taus: Sequence[float],
    mixes: Mapping[str, float],
    exponents: Sequence[float],
    settings: Settings,
    label: str,
) -> pd.DataFrame:
    """Compare the families at an error held at every length.

    Parameters
    ----------
    curves : of one source.
    taus : errors allowed at the worst length.
    mixes : name to p, for lengths of density n^-p, over which the cost is averaged.
    exponents : the C tried, the first of them 0: a fixed window is a power.
    settings : seed, resamples and confidence; the choices are made anew in every resample of the samples.
    label : of the source; it names the stream of the bootstrap too.

    Returns
    -------
    DataFrame : per `mix`, `tau` and family (`rule`): `cost`, mean keys per row of the windows set on one half of the
        samples, and `worst`, the worst length's error of these windows on the other half, both means over the two
        ways. `cost_held`: cost at which the shape chosen on either half holds tau on all samples, so that families
        are compared at equal error; `ratio_fixed` and `ratio_log`, these costs over those of the other family, with
        `_low`, `_high`. `parameter`: C, the mean of both ways, which are `parameter_first` and `parameter_second`. NaN
        where the windows measured do not reach tau at every length; `short` then says so.
    """
    clusters = curves.clusters
    order = np.arange(clusters)
    halves = order[: clusters // 2], order[clusters // 2 :]
    shares = [_shares(half, clusters, settings, f"{label}, held error {i}") for i, half in enumerate(halves)]
    tried = np.asarray(exponents)
    lines = []
    weights = np.column_stack([mix_weights(curves.n, p) for p in mixes.values()])
    every = (shares[0] * len(halves[0]) + shares[1] * len(halves[1])) / clusters
    means, all_means = [curves.means(half) for half in shares], curves.means(every)
    for tau in taus:
        needed, all_needed = [curves.needed(half, tau) for half in means], curves.needed(all_means, tau)
        reached = bool(np.isfinite([half[0] for half in needed]).all())
        ways = {
            family: [
                _judged(curves, needed[training], all_needed, shares[judged], shape, weights)
                for training, judged in ((1, 0), (0, 1))
            ]
            for family, shape in shapes(curves.n, exponents).items()
        }
        for i, mix in enumerate(mixes):
            held_at = {family: np.mean([way.held[:, i] for way in both], axis=0) for family, both in ways.items()}
            for family, both in ways.items():
                first, second = (tried[way.best[0, i]] if family == "power" else np.nan for way in both)
                line: dict[str, object] = {"mix": mix, "tau": tau, "rule": family}
                line |= {name: np.mean([getattr(way, name)[i] for way in both]) for name in ("cost", "worst")}
                line |= {"cost_held": held_at[family][0], "parameter": (first + second) / 2}
                line |= {"parameter_first": first, "parameter_second": second}
                for other in ("fixed", "log"):
                    ratio = np.log(held_at[family] / held_at[other])
                    line |= _interval(f"ratio_{other}", ratio, clusters, settings.confidence)
                lines.append(line | {"short": not reached, "lengths": len(curves.n), "clusters": clusters})
    return pd.DataFrame(lines).assign(label=label)[COLUMNS]


def held_in_task(
    table: pd.DataFrame,
    differences: pd.DataFrame,
    taus: Sequence[float],
    mixes: Mapping[str, float],
    exponents: Sequence[float],
    settings: Settings,
) -> pd.DataFrame:
    """Compare the families in what a model loses, for every label and phase; see `ErrorCurves.of_task` and `held`."""
    parts = []
    for (label, phase), lines in differences.groupby(["label", "phase"], observed=True, sort=False):
        own = table[(table["label"].astype(str) == label) & (table["phase"].astype(str) == phase)]
        curves = ErrorCurves.of_task(own, lines)
        if curves is not None and curves.clusters > 1:
            parts.append(held(curves, taus, mixes, exponents, settings, str(label)).assign(phase=str(phase)))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*COLUMNS, "phase"])


@dataclass(frozen=True)
class Way:
    """One family set on one half of the samples and judged on the other.

    `best` (resamples, mixes) index of the shape; `held` (resamples, mixes) cost at which it holds tau on all samples;
    `cost`, `worst` (mixes,) of the windows as set: mean keys per row, and the worst length's error when judged.
    """

    best: NDArray[np.intp]
    held: Array
    cost: Array
    worst: Array


def _judged(curves: ErrorCurves, training: Array, every: Array, shares: Array, shape: Array, weights: Array) -> Way:
    """Choose shape and scale by the keys needed in training, and judge by those needed in all, and by unseen errors."""
    best, scale = cheapest(training, shape, curves.n, weights)
    own = (every[:, None] / shape[best]).max(-1)
    held = np.einsum("rml,lm->rm", np.clip(own[..., None] * shape[best], 1, curves.n), weights)
    windows = np.clip(scale[0][:, None] * shape[best[0]], 1, curves.n)
    worst = [curves.worst(shares[0], k) for k in windows]
    return Way(best, held, np.einsum("ml,lm->m", windows, weights), np.array(worst))


def _shares(half: NDArray[np.intp], clusters: int, settings: Settings, name: str) -> Array:
    """Weights of the samples of one half (1 + resamples, clusters): all alike, then as they are resampled."""
    drawn = bootstrap.weights(len(half), settings.resamples, settings.seed, name)
    shares = np.zeros((1 + settings.resamples, clusters))
    shares[:, half] = np.vstack([np.ones(len(half)), drawn]) / len(half)
    return shares


def _interval(name: str, ratio: Array, clusters: int, confidence: float) -> dict[str, float]:
    """Return a ratio and its interval from ln ratio (1 + resamples,), where the estimate comes first.

    Resamples err from the estimate as it does from the truth: the interval reaches as far down as they reach up.
    """
    if np.isnan(ratio[0]):
        return dict.fromkeys([name, f"{name}_low", f"{name}_high"], np.nan)
    low, high = bootstrap.interval(np.asarray(ratio[0]), ratio[1:], clusters, confidence)
    ends = np.exp([ratio[0], min(low, 2 * ratio[0] - high), high])
    return dict(zip([name, f"{name}_low", f"{name}_high"], ends.tolist(), strict=True))
