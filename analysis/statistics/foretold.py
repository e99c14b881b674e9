"""Keys foretold from sums of the rows [G8], counts of gaps or the logits' deviation [G2], against the keys needed.

Shapes: heads x lengths x clusters for sums, resamples x heads x lengths for means, the estimate first.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.settings import Settings
from analysis.statistics import bootstrap, closed_forms
from analysis.statistics.cells import Cells
from analysis.statistics.gap_counts import keys_from_gap_counts
from analysis.statistics.growth import distinct
from analysis.statistics.heads import rank_correlation
from analysis.statistics.line import fit_line
from analysis.statistics.matched_gamma import RATIOS, match, sum_for
from experiments.tables.rows import EPSILONS, k_min

Array = NDArray[np.float64]

RULE, GAPS, NORMAL = "rule", "gap_counts", "logit_std"
METHODS = (RULE, *RATIOS, GAPS, NORMAL)


@dataclass(frozen=True)
class Foretold:
    """Keys of the heads of one label at one tolerance, summed over rows: needed, and by each method.

    Shapes: `needed`, each of `by` and `rows` (heads, lengths, clusters); `n` (heads, lengths), the mean number of
    visible keys; `seen` (heads, lengths), the most; `at_one` (heads,), the share of rows that need a single key.
    """

    label: str
    kind: str
    eta: float
    head_keys: pd.MultiIndex
    lengths: NDArray[np.int64]
    needed: Array
    by: dict[str, Array]
    rows: Array
    n: Array
    seen: Array
    at_one: Array

    def used(self, settings: Settings) -> NDArray[np.bool_]:
        """Choose the heads to compare: most of their rows need several keys, and n grows if it does for any."""
        several = self.at_one < settings.at_one
        grows = several & (distinct(self.seen).sum(-1) >= settings.min_lengths)
        return grows if grows.any() else several


def foretell(rows: pd.DataFrame, etas: tuple[float, ...], most_rows: int) -> Iterator[Foretold]:
    """Foretell the keys of at most `most_rows` rows of every head, length and sample of each label.

    Parameters
    ----------
    rows : rows of `analysis.load`, one variant and design per label; labels without the sums are left out.
    """
    for label, frame in rows.groupby("label", observed=True, sort=False):
        if frame["log_p_variance"].isna().any():  # measured before rows had it
            continue
        cells = Cells.of(frame)
        order = pd.Series(cells.index).groupby(cells.index).cumcount().to_numpy()
        step = -(-int(order.max() + 1) // most_rows)
        chosen = (order + 1) % step == 0  # the last of each step: the last row of a length is among them
        frame, cells = frame[chosen], Cells(cells.head_keys, cells.lengths, cells.index[chosen], cells.shape)
        column = {name: frame[name].to_numpy(np.float64) for name in ("n", "entropy", "p_max", "logit_std", *RATIOS)}
        n, counts = column["n"], cells.sums()
        counts_above = {epsilon: frame[f"count_{epsilon:g}"].to_numpy(np.float64) for epsilon in EPSILONS}
        laws = {name: match(n, column["entropy"], column["p_max"], **{name: column[name]}) for name in RATIOS}
        for eta in etas:
            k = frame[k_min(eta)].to_numpy(np.float64)
            keys = {name: law.keys(eta) for name, law in laws.items()}
            keys |= {RULE: keys[sum_for(eta)]}
            keys |= {GAPS: keys_from_gap_counts(eta, n, column["p_max"], counts_above)}
            keys |= {NORMAL: np.clip(closed_forms.smallest_window(eta, n, column["logit_std"]), 1, n)}
            yield Foretold(
                label=str(label),
                kind=str(frame["kind"].iloc[0]),
                eta=eta,
                head_keys=cells.head_keys,
                lengths=cells.lengths,
                needed=cells.sums(k),
                by={name: cells.sums(keys[name]) for name in METHODS},
                rows=counts,
                n=cells.sums(n).sum(-1) / counts.sum(-1),
                seen=cells.most(n),
                at_one=cells.sums((k == 1).astype(np.float64)).sum((1, 2)) / counts.sum((1, 2)),
            )


def by_head(every: list[Foretold], settings: Settings) -> pd.DataFrame:
    """List of each head, tolerance and method the mean keys at its longest length and the exponent C of their growth.

    Returns
    -------
    DataFrame : `n`, `k` needed and `k_foretold` there, `C` and `C_foretold`, NaN at fewer than the least number of
        lengths; `used`, see `Foretold.used`.
    """
    tables = []
    for item in every:
        whole = np.ones((1, item.needed.shape[-1]))
        needed, C = _means_and_slopes(item, item.needed, whole, settings)
        for method in METHODS:
            foretold, C_foretold = _means_and_slopes(item, item.by[method], whole, settings)
            tables.append(
                item.head_keys.to_frame(index=False).assign(
                    label=item.label,
                    eta=item.eta,
                    method=method,
                    n=item.n[:, -1],
                    k=needed[0, :, -1],
                    k_foretold=foretold[0, :, -1],
                    C=C[0],
                    C_foretold=C_foretold[0],
                    used=item.used(settings),
                )
            )
    table = pd.concat(tables, ignore_index=True)
    first = ["label", "eta", "method", "layer", "head"]
    return table[[*first, *(name for name in table if name not in first)]]


def summary(every: list[Foretold], settings: Settings) -> pd.DataFrame:
    """Compare the methods over the heads of each label, with intervals that resample samples and heads apart.

    Returns
    -------
    DataFrame : one line per (label, eta, method): `heads` used, `clusters`, and each with `_low`, `_high`:
        `log_ratio`, the median over heads and lengths of |ln(keys foretold / needed)|; `total_ratio`, the keys of all
        heads and lengths foretold over those needed; `C_error`, the median over heads of |C foretold - C|, and
        `C_rank`, their rank correlation, NaN with fewer than three heads.
    """
    lines = []
    for item in every:
        used = item.used(settings)
        line: dict[str, object] = {"label": item.label, "kind": item.kind, "eta": item.eta}
        line |= {"heads": int(used.sum()), "clusters": item.needed.shape[-1]}
        for method in METHODS:
            numbers = _numbers(item, method, used, settings) if used.any() else {}
            lines.append(line | {"method": method} | numbers)
    return pd.DataFrame(lines)


def judge_rule(every: list[Foretold], settings: Settings) -> pd.DataFrame:
    """Let half of the heads and samples choose the sum for a tolerance, and judge it on the other half, and vice versa.

    Returns
    -------
    DataFrame : one line per (label, eta, half): the sum `chosen` by the other half, its `log_ratio` here; `rule`, the
        sum that [G8] names, and `rule_log_ratio`; `best_log_ratio`, of the sum that is best here.
    """
    lines = []
    for item in every:
        heads, clusters = np.flatnonzero(item.used(settings)), item.needed.shape[-1]
        if len(heads) < 2 or clusters < 2:
            continue
        errors = []
        for half in (0, 1):
            chosen = np.ix_(heads[half::2], np.arange(item.needed.shape[1]), np.arange(half, clusters, 2))
            needed = item.needed[chosen].sum(-1)
            with np.errstate(divide="ignore", invalid="ignore"):
                ratios = {name: np.abs(np.log(item.by[name][chosen].sum(-1) / needed)) for name in RATIOS}
            errors.append({name: float(_median(ratio)) for name, ratio in ratios.items()})
        for half, (here, other) in enumerate((errors, errors[::-1])):
            picked, rule = min(other, key=other.__getitem__), sum_for(item.eta)
            lines.append(
                {
                    "label": item.label,
                    "eta": item.eta,
                    "half": half,
                    "chosen": picked,
                    "log_ratio": here[picked],
                    "rule": rule,
                    "rule_log_ratio": here[rule],
                    "best_log_ratio": min(here.values()),
                }
            )
    columns = ["label", "eta", "half", "chosen", "log_ratio", "rule", "rule_log_ratio", "best_log_ratio"]
    return pd.DataFrame(lines, columns=columns)


def _median(values: Array, axis: tuple[int, ...] | None = None) -> Array:
    """Return medians of the values that there are; NaN where there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a slice that is all NaN
        return np.asarray(np.nanmedian(values, axis=axis))


SCALES = {"log_ratio": "positive", "total_ratio": "positive", "C_error": "positive", "C_rank": "correlation"}


def _numbers(item: Foretold, method: str, used: NDArray[np.bool_], settings: Settings) -> dict[str, float]:
    clusters, heads = item.needed.shape[-1], int(used.sum())
    drawn = bootstrap.weights(clusters, settings.resamples, settings.seed, item.label)
    weights = np.vstack([np.ones(clusters), drawn])
    resampled = bootstrap.heads_drawn(heads, settings.resamples, settings.seed, item.label)[1:]
    needed, foretold = (
        [values[:, used] for values in _means_and_slopes(item, sums, weights, settings)]
        for sums in (item.needed, item.by[method])
    )
    by_cluster = _compare(needed, foretold)
    by_head = _compare([values[0][resampled] for values in needed], [values[0][resampled] for values in foretold])
    numbers: dict[str, float] = {}
    for name, scale in SCALES.items():
        numbers |= bootstrap.with_interval(
            name, by_cluster[name], clusters, by_head[name], heads, settings.confidence, scale
        )
    return numbers


def _compare(needed: Sequence[Array], foretold: Sequence[Array]) -> dict[str, Array]:
    """Compare means (resamples, heads, lengths) and exponents (resamples, heads); each number (resamples,)."""
    heads = needed[1].shape[1]
    return {
        "log_ratio": _median(np.abs(np.log(foretold[0] / needed[0])), axis=(1, 2)),
        "total_ratio": np.nansum(foretold[0], axis=(1, 2)) / np.nansum(needed[0], axis=(1, 2)),
        "C_error": np.median(np.abs(foretold[1] - needed[1]), axis=1),
        "C_rank": rank_correlation(foretold[1], needed[1]) if heads > 2 else np.full(len(needed[1]), np.nan),
    }


def _means_and_slopes(item: Foretold, sums: Array, weights: Array, settings: Settings) -> tuple[Array, Array]:
    """Return mean keys (resamples, heads, lengths) and their exponents (resamples, heads), clusters weighted."""
    with np.errstate(invalid="ignore"):
        means = np.einsum("hlc,bc->bhl", sums, weights) / np.einsum("hlc,bc->bhl", item.rows, weights)
    x, mask = np.log(item.n), distinct(item.seen)
    enough = mask.sum(-1) >= settings.min_lengths
    slopes = np.full(means.shape[:2], np.nan)
    if enough.any():
        values = np.log(means[:, enough])
        slopes[:, enough] = fit_line(values, x[enough], np.broadcast_to(mask[enough], values.shape))[..., 1]
    return means, slopes
