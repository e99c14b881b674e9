"""Exponents head by head: against what the head's own logit scale predicts [G6], and against its control variants."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.settings import Settings
from analysis.statistics import bootstrap, closed_forms
from analysis.statistics.fit import Array, Curves, curves_of
from analysis.statistics.laws import LAWS

POWER = next(law for law in LAWS if law.name == "power")


@dataclass(frozen=True)
class Exponents:
    """Exponents of the heads of one label and variant: the estimate first, then its resamples of whole clusters.

    Shapes: `measured`, `predicted`, `sigma`, `slope` (1 + resamples, heads), NaN where too few lengths are uncensored
    or the head sees no more keys at longer ones.
    `sigma` is the logit deviation at the middle of the fitted ln n, and `slope` is d sigma / d ln n.
    """

    curves: Curves
    measured: Array
    predicted: Array
    sigma: Array
    slope: Array
    middle: Array


def exponents(rows: pd.DataFrame, eta: float, settings: Settings) -> list[Exponents]:
    """Fit k_min = a n^C and sigma = b + c ln n to every head, and predict C from sigma alone [G6].

    Parameters
    ----------
    rows : the rows table of `analysis.load`; of each label and variant the fullest design is used.
    eta : dropped mass allowed.
    settings : thresholds and bootstrap.
    """
    every = []
    for curves in curves_of(rows, replace(settings, etas=(eta,))):
        drawn = bootstrap.weights(curves.clusters, settings.resamples, settings.seed, curves.label)
        weights = np.vstack([np.ones(curves.clusters), drawn])
        points = curves.of_heads(settings)
        x, mask = points.x, points.usable
        enough = mask.sum(-1) >= settings.min_lengths

        middle = np.where(mask, x, 0.0).sum(-1) / np.maximum(mask.sum(-1), 1)
        scale = _lines(curves.mean(curves.deviation, weights), x, mask, enough)
        sigma, slope = scale[..., 0] + scale[..., 1] * middle, scale[..., 1]
        predicted = closed_forms.local_exponent(eta, sigma, slope)
        measured = _lines(curves.log_mean(weights), x, mask, enough)[..., 1]
        every.append(Exponents(curves, measured, predicted, sigma, slope, middle))
    return every


def _lines(values: Array, x: Array, mask: NDArray[np.bool_], enough: NDArray[np.bool_]) -> Array:
    """Fit lines in x (heads, lengths) to values (resamples, heads, lengths): level, slope; NaN with too few lengths."""
    fitted = np.full((*values.shape[:2], 2), np.nan)
    fitted[:, enough] = POWER.fit(values[:, enough], x[enough], mask[enough])
    return fitted


def by_head(every: list[Exponents]) -> pd.DataFrame:
    """List every head: `C` measured, `C_predicted`, `sigma`, `sigma_slope`, `s` = sigma / sqrt(ln n), `k_longest`."""
    tables = []
    for item in every:
        curves = item.curves
        table = curves.head_keys.to_frame(index=False).assign(
            label=curves.label,
            variant=curves.variant,
            C=item.measured[0],
            C_predicted=item.predicted[0],
            sigma=item.sigma[0],
            sigma_slope=item.slope[0],
            s=item.sigma[0] / np.sqrt(item.middle),
            n_middle=np.exp(item.middle),
            k_longest=np.exp(curves.log_mean(np.ones((1, curves.clusters)))[0, :, -1]),
            n_longest=curves.n[:, -1],
        )
        tables.append(table)
    table = pd.concat(tables, ignore_index=True)
    first = ["label", "variant", "layer", "head"]
    return table[[*first, *(column for column in table if column not in first)]]


def summary(every: list[Exponents], settings: Settings) -> pd.DataFrame:
    """Summarise the heads of each label and variant; intervals resample clusters and heads apart.

    Returns
    -------
    DataFrame : one line per (label, variant): numbers of `heads` fitted and `clusters`, and with `_low`, `_high` each
        `C` (median over heads), `C_predicted` (median), `rank_correlation` (Spearman) of predicted and measured,
        `error` (median of predicted - measured), `absolute_error` (median); and against the plain variant of the same
        heads `shift` (median of C - C plain) and `rank_with_plain` (Spearman), null for plain itself.
    """
    plain = {item.curves.label: item for item in every if item.curves.variant == "plain"}
    lines = []
    for item in every:
        curves = item.curves
        other = plain.get(curves.label)
        compared = other is not None and other is not item and other.curves.head_keys.equals(curves.head_keys)
        reference = other.measured if compared and other is not None else np.full_like(item.measured, np.nan)
        fitted = ~np.isnan(item.measured[0]) & (~np.isnan(reference[0]) if compared else True)
        line: dict[str, object] = {"label": curves.label, "variant": curves.variant, "heads": int(fitted.sum())}
        line["clusters"] = curves.clusters
        parts = [part[:, fitted] for part in (item.measured, item.predicted, reference)]
        if fitted.sum() >= 2:
            drawn = bootstrap.heads_drawn(int(fitted.sum()), settings.resamples, settings.seed, curves.label)[1:]
            by_cluster, by_head = _compare(*parts), _compare(*(part[0][drawn] for part in parts))
            for name in by_cluster if compared else PLAIN_NUMBERS:
                line |= bootstrap.with_interval(
                    name,
                    by_cluster[name],
                    curves.clusters,
                    by_head[name],
                    int(fitted.sum()),
                    settings.confidence,
                    SCALES.get(name, "real"),
                )
        lines.append(line)
    return pd.DataFrame(lines)


PLAIN_NUMBERS = ("C", "C_predicted", "rank_correlation", "error", "absolute_error")
SCALES = {"rank_correlation": "correlation", "rank_with_plain": "correlation", "absolute_error": "positive"}


def _compare(measured: Array, predicted: Array, plain: Array) -> dict[str, Array]:
    """Compare exponents over heads, (resamples, heads) each; every number (resamples,)."""
    error = predicted - measured
    return {
        "C": np.median(measured, axis=1),
        "C_predicted": np.median(predicted, axis=1),
        "rank_correlation": rank_correlation(predicted, measured),
        "error": np.median(error, axis=1),
        "absolute_error": np.median(np.abs(error), axis=1),
        "shift": np.median(measured - plain, axis=1),
        "rank_with_plain": rank_correlation(plain, measured),
    }


def rank_correlation(a: Array, b: Array) -> Array:
    """Spearman's rank correlation over heads, (resamples, heads) -> (resamples,)."""
    ranks = [_ranks(values) for values in (a, b)]
    x, y = (rank - rank.mean(1, keepdims=True) for rank in ranks)
    with np.errstate(invalid="ignore"):
        return (x * y).sum(1) / np.sqrt((x**2).sum(1) * (y**2).sum(1))


def _ranks(values: Array) -> Array:
    """Ranks within each line of (lines, values), the mean rank for equal values; NaN in a line that has a NaN."""
    order = np.argsort(values, axis=1)
    ascending = np.take_along_axis(values, order, axis=1)
    place = np.arange(values.shape[1])
    changes = ascending[:, 1:] != ascending[:, :-1]
    edge = np.ones((len(values), 1), bool)
    first = np.maximum.accumulate(np.where(np.hstack([edge, changes]), place, 0), axis=1)
    last = np.minimum.accumulate(np.where(np.hstack([changes, edge]), place, place[-1])[:, ::-1], axis=1)[:, ::-1]
    ranks = np.empty(values.shape)
    np.put_along_axis(ranks, order, (first + last) / 2 + 1, axis=1)
    ranks[np.isnan(values).any(1)] = np.nan
    return ranks
