"""How fast an error falls with context length: its decay rate, the slope d ln error / d ln n, with an interval.

A line through a hump says neither that it rises nor that it falls: the slope at the longest lengths stands beside it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.settings import Settings
from analysis.statistics import bootstrap
from analysis.statistics.cells import Cells
from analysis.statistics.fit import Array
from analysis.statistics.growth import of_alike
from analysis.statistics.line import Mask

WINDOW = ["rule", "parameter", "scale"]
ESTIMATES = ("rate", "late", "bend", "last")
WITHIN = 4.0  # the longest lengths: those that see at least a quarter of the most keys
COUNTS = ["heads_low", "heads_high", "falling", "lengths", "heads", "left_out", "clusters"]


def decay_rates(
    windows: pd.DataFrame, measures: Sequence[str], settings: Settings, estimates: Sequence[str] = ("rate",)
) -> pd.DataFrame:
    """Fit ln error = c + rate ln n by least squares to every window, per label the median over its heads.

    n is the most keys that a head's rows see. Lengths at which the window holds the whole row, or some head's error is
    zero, are left out, and so are heads that see no more keys where the others do. Intervals resample whole clusters
    and, where there are several, heads, each apart.

    Parameters
    ----------
    windows : lines of `analysis.load` of one selector and variant, one design per label.
    measures : columns to fit.
    settings : seed, resamples, confidence and the least number of lengths.
    estimates : of `ESTIMATES`, `rate` first.

    Returns
    -------
    DataFrame : one line per (label, rule, parameter, scale, measure) with the estimates asked for, each with `_low`,
        `_high`: `rate` (dimensionless, negative where the error falls), `late`, the slope over the lengths within a
        factor `WITHIN` of the longest, `bend`, how much it exceeds the slope over the lengths before them (NaN where
        there are not two of either), and `last`, the error at the longest length. The quartiles of `rate` over heads
        `heads_low`, `heads_high`; `falling`, the share of heads of negative rate, and `falling_late`, of negative late
        slope, where it was asked for; and the numbers of `lengths`, `heads`, heads `left_out`, and `clusters`.
    """
    alike = {str(label): of_alike(frame) for label, frame in windows.groupby("label", observed=True)}
    left_out = {label: count for label, (_, count) in alike.items()}
    windows = pd.concat([frame for frame, _ in alike.values()] or [windows])
    windows = windows[windows["k"] < windows["n"]]
    lines = []
    for keys, frame in windows.groupby(["label", *WINDOW], observed=True, sort=True):
        cells = Cells.of(frame)
        count, (head_count, _, clusters) = cells.sums(), cells.shape
        label = str(keys[0])
        by_cluster = bootstrap.weights(clusters, settings.resamples, settings.seed, label)
        heads = bootstrap.heads_drawn(head_count, settings.resamples, settings.seed, label)[1:]
        n = cells.most(frame["n"].to_numpy(np.float64))  # 0 where a head has no line
        weighted_count = count @ by_cluster.T
        for measure in measures:
            total = cells.sums(frame[measure].to_numpy(np.float64))
            # a head is resampled with all its lengths, so a length counts only where every head has an error
            usable = ((total > 0) | (count == 0)).all((0, 2)) & (count.sum(-1) > 0).all(0)
            if usable.sum() < settings.min_lengths:
                continue
            total = total[:, usable]
            readings = _readings(np.log(n[:, usable]))[[ESTIMATES.index(name) for name in estimates]]
            whole = total.sum(-1, keepdims=True), count[:, usable].sum(-1, keepdims=True)
            by_head = _estimates(*whole, readings)[:, 0]
            drawn = _estimates(total @ by_cluster.T, weighted_count[:, usable], readings)
            line: dict[str, Any] = dict(zip(["label", *WINDOW], keys, strict=True)) | {"measure": measure}
            for name, own, replicates in zip(estimates, by_head, drawn, strict=True):
                columns = [name, f"{name}_low", f"{name}_high"]
                middle = np.median(own)
                if np.isnan(middle):  # too few of the longest lengths, or of those before them
                    line |= dict.fromkeys(columns, np.nan)
                    continue
                sources = [bootstrap.Source(_medians(replicates), clusters)]
                if head_count > 1:  # a single head is no sample of heads but all there is
                    sources.append(bootstrap.Source(_medians(own[heads]), head_count))
                ends = bootstrap.combined_interval(np.asarray(middle), sources, lambda same: same, settings.confidence)
                line |= dict(zip(columns, map(float, (middle, *ends)), strict=True))
            # an error is positive
            line |= {name: np.exp(line[name]) for name in line if name.startswith("last")}
            quartiles = np.quantile(by_head[0], [0.25, 0.75])
            line |= {"heads_low": quartiles[0], "heads_high": quartiles[1], "falling": (by_head[0] < 0).mean()}
            if "late" in estimates:
                late = by_head[list(estimates).index("late")]
                line["falling_late"] = (late < 0).mean() if np.isfinite(late).all() else np.nan
            line |= {"lengths": int(usable.sum()), "heads": head_count}
            lines.append(line | {"left_out": left_out[label], "clusters": clusters})
    asked = [f"{name}{end}" for name in estimates for end in ("", "_low", "_high")]
    asked += ["falling_late"] if "late" in estimates else []
    return pd.DataFrame(lines, columns=["label", *WINDOW, "measure", *asked, *COUNTS])


def _readings(x: Array) -> Array:
    """Weights by which ln error over lengths (heads, lengths) becomes each of `ESTIMATES`: (4, heads, lengths)."""
    longest = x.mean(0) >= x.mean(0)[-1] - np.log(WITHIN) - 1e-9
    # the longest lengths and those before them share a length: both lines go through it
    before = ~longest | (np.arange(len(longest)) == longest.argmax())
    rate, late, early = (_slope_weights(x, lengths) for lengths in (np.ones_like(longest), longest, before))
    last = np.zeros_like(x)
    last[:, -1] = 1
    return np.stack([rate, late, late - early, last])


def _slope_weights(x: Array, lengths: Mask) -> Array:
    """Weights of ln error over some lengths that give the least-squares slope in x; NaN for a single length."""
    weights = np.full_like(x, np.nan)
    if lengths.sum() > 1:
        centred = np.where(lengths, x - x[:, lengths].mean(-1, keepdims=True), 0.0)
        weights = centred / (centred**2).sum(-1, keepdims=True)
    return weights


def _estimates(total: Array, count: Array, readings: Array) -> Array:
    """Apply readings (r, heads, lengths) to ln(total / count), (heads, lengths, resamples): (r, resamples, heads)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.log(total / count)
    return np.matmul(mean.transpose(0, 2, 1), readings.transpose(1, 2, 0)).transpose(2, 1, 0)


def _medians(drawn: Array) -> Array:
    """Median over the heads (resamples, heads) that have a slope: only where some lack one it takes long."""
    medians = np.median(drawn, axis=1)
    if (broken := np.isnan(medians)).any():
        medians[broken] = np.nanmedian(drawn[broken], axis=1)
    return medians
