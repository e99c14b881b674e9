"""How fast an error falls with context length: its decay rate, the slope d ln error / d ln n, with an interval."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.settings import Settings
from analysis.statistics import bootstrap
from analysis.statistics.cells import Cells
from analysis.statistics.fit import Array
from analysis.statistics.growth import of_alike

WINDOW = ["rule", "parameter", "scale"]
COLUMNS = [
    *("label", *WINDOW, "measure", "rate", "rate_low", "rate_high"),
    *("heads_low", "heads_high", "falling", "lengths", "heads", "left_out", "clusters"),
]


def decay_rates(windows: pd.DataFrame, measures: Sequence[str], settings: Settings) -> pd.DataFrame:
    """Fit ln error = c + rate ln n by least squares to every window, per label the median over its heads.

    n is the most keys that a head's rows see. Lengths at which the window holds the whole row, or some head's error is
    zero, are left out, and so are heads that see no more keys where the others do. Intervals resample whole clusters
    and, where there are several, heads.

    Parameters
    ----------
    windows : lines of `analysis.load` of one selector and variant, one design per label.
    measures : columns to fit.
    settings : seed, resamples, confidence and the least number of lengths.

    Returns
    -------
    DataFrame : one line per (label, rule, parameter, scale, measure): `rate` (dimensionless, negative where
        the error falls) with `rate_low`, `rate_high`, the quartiles over heads `heads_low`, `heads_high`,
        `falling`, the share of heads of negative rate, and the numbers of `lengths`, `heads`, heads `left_out`, and
        `clusters`.
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
        x = np.log(cells.most(frame["n"].to_numpy(np.float64)))
        weighted_count = count @ by_cluster.T
        for measure in measures:
            total = cells.sums(frame[measure].to_numpy(np.float64))
            # a head is resampled with all its lengths, so a length counts only where every head has an error
            usable = ((total > 0) | (count == 0)).all((0, 2)) & (count.sum(-1) > 0).all(0)
            if usable.sum() < settings.min_lengths:
                continue
            total, at = total[:, usable], x[:, usable]
            by_head = _slopes(total.sum(-1, keepdims=True), count[:, usable].sum(-1, keepdims=True), at)[0]
            drawn = _slopes(total @ by_cluster.T, weighted_count[:, usable], at)
            drawn = np.take_along_axis(drawn, heads, axis=1)
            rate = np.median(by_head)
            low, high = bootstrap.interval(rate, _medians(drawn), clusters, settings.confidence)
            quartiles = np.quantile(by_head, [0.25, 0.75])
            lines.append(
                {
                    **dict(zip(["label", *WINDOW], keys, strict=True)),
                    "measure": measure,
                    "rate": rate,
                    "rate_low": float(low),
                    "rate_high": float(high),
                    "heads_low": quartiles[0],
                    "heads_high": quartiles[1],
                    "falling": (by_head < 0).mean(),
                    "lengths": int(usable.sum()),
                    "heads": head_count,
                    "left_out": left_out[label],
                    "clusters": clusters,
                }
            )
    return pd.DataFrame(lines, columns=COLUMNS)


def _medians(drawn: Array) -> Array:
    """Median over the heads (resamples, heads) that have a slope: only where some lack one it takes long."""
    medians = np.median(drawn, axis=1)
    if (broken := np.isnan(medians)).any():
        medians[broken] = np.nanmedian(drawn[broken], axis=1)
    return medians


def _slopes(total: Array, count: Array, x: Array) -> Array:
    """Slopes in x (heads, lengths) of ln(total / count), each (heads, lengths, resamples), as (resamples, heads)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.log(total / count)
    centred = x - x.mean(-1, keepdims=True)
    return np.einsum("hlr,hl->rh", mean, centred / (centred**2).sum(-1, keepdims=True))
