"""Fits of the mean window k_min against context length: per head, pooled over heads, and which law wins."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.records.load import fullest_design, labels_in_order
from analysis.settings import Settings
from analysis.statistics import bootstrap
from analysis.statistics.cells import Cells
from analysis.statistics.growth import alike, distinct, no_growth, stands_still
from analysis.statistics.laws import LAWS, Law, information

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Points:
    """What laws are fitted to: ln of the mean k_min of some curves, each a head or the typical head of several.

    Shapes (curves, lengths): `y`; `n`, the mean number of visible keys, and `x`, its ln; `seen`, the most keys that a
    row sees; `censored`, where k_min says too little. `one_key` (curves,), where most rows of every length need one
    key, which is a constant. Replicates of each of `sources` (resamples, curves, lengths).
    """

    y: Array
    n: Array
    seen: Array
    censored: NDArray[np.bool_]
    one_key: NDArray[np.bool_]
    sources: list[bootstrap.Source]

    @property
    def x(self) -> Array:
        """Ln n."""
        return np.log(self.n)

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Where there is a point to fit: not censored, and at a number of keys that no shorter length has."""
        return ~self.censored & distinct(self.seen, ~self.censored)

    def lacking(self, usable: NDArray[np.bool_], least: int, few: str) -> list[str]:
        """Say why a curve has fewer than `least` usable lengths, "" where it has enough; `few` if n does grow."""
        still = stands_still(self.seen, least)
        one = "most rows of every length need one key: a constant"
        return [
            "" if points >= least else no_growth(seen) if stands else one if single else few
            for points, stands, single, seen in zip(usable.sum(-1), still, self.one_key, self.seen, strict=True)
        ]


@dataclass(frozen=True)
class Curves:
    """Sums of k_min of all heads of one label and variant at one eta, kept apart by cluster.

    Shapes: `total`, `deviation` (sums of the logits' deviation), `visible` (sums of the number of visible keys) and
    `rows` (heads, lengths, clusters); `at_one`, `at_n` (heads, lengths), numbers of rows whose k_min is 1 or n; `seen`
    (heads, lengths), the most keys that a row sees; `lengths` (lengths,), nominal. `entropy`, `p_max` and
    `log_p_variance` (heads, lengths, clusters), sums of these, None where the rows are without them.
    """

    label: str
    kind: str
    variant: str
    eta: float
    head_keys: pd.MultiIndex
    lengths: Array
    total: Array
    deviation: Array
    visible: Array
    rows: Array
    at_one: Array
    at_n: Array
    seen: Array
    entropy: Array | None = None
    p_max: Array | None = None
    log_p_variance: Array | None = None

    @property
    def clusters(self) -> int:
        """Number of independent clusters."""
        return self.total.shape[-1]

    @property
    def n(self) -> Array:
        """Mean number of keys that each head's own rows see, (heads, lengths)."""
        with np.errstate(invalid="ignore"):
            return self.visible.sum(-1) / self.rows.sum(-1)

    def pooled(self) -> "Curves":
        """Return the heads that may be averaged: those that see more keys at most lengths, and at the same ones."""
        selected = alike(self.seen)
        return self if selected.all() else self.only(selected)

    def only(self, selected: NDArray[np.bool_]) -> "Curves":
        """Return some of the heads."""
        there = (name for name in PER_HEAD if getattr(self, name) is not None)
        parts = {name: getattr(self, name)[selected] for name in there}
        return replace(self, head_keys=self.head_keys[selected], **parts)

    def of_heads(self, settings: Settings) -> Points:
        """Ln of each head's mean k_min, with replicates from its clusters."""
        weights = bootstrap.weights(self.clusters, settings.resamples, settings.seed, self.label)
        y = self.log_mean(np.ones((1, self.clusters)))[0]
        sources = [bootstrap.Source(self.log_mean(weights), self.clusters)]
        one_key = self._one_key(self.at_one, self.rows.sum(-1), settings)
        return Points(y, self.n, self.seen, censored_heads(self, settings), one_key, sources)

    def typical(self, settings: Settings) -> Points:
        """Return the typical head: the geometric mean over heads of the mean k_min; see `_over_heads`."""
        return self._over_heads(settings, lambda y: y.mean(1, keepdims=True), lambda y, drawn: (drawn @ y)[:, None, :])

    def mean_window(self, settings: Settings) -> Points:
        """Return the mean window, what a budget pays: the arithmetic mean over heads of the mean k_min."""

        def resampled(y: Array, drawn: Array) -> Array:
            return np.log(drawn @ np.exp(y))[:, None, :]

        return self._over_heads(settings, lambda y: np.log(np.exp(y).mean(1, keepdims=True)), resampled)

    def _over_heads(
        self, settings: Settings, mean: Callable[[Array], Array], resampled: Callable[[Array, Array], Array]
    ) -> Points:
        """Return one mean curve over heads, with replicates of each source of error.

        Clusters and heads are resampled apart. A head's own answers to its clusters spread both; how much is found by
        giving each head a resample of clusters of its own, once what all heads share in a resample is taken out.

        Parameters
        ----------
        mean : maps ln k (resamples, heads, lengths) to (resamples, 1, lengths).
        resampled : maps ln k (heads, lengths), with the weights of heads (resamples, heads), to the same.
        """
        each = self.of_heads(settings)
        y, by_cluster = each.y, each.sources[0].replicates
        heads, clusters = len(self.head_keys), self.clusters
        sources = [bootstrap.Source(mean(by_cluster), clusters)]
        if heads > 1:  # a single head is no sample of heads but all there is
            drawn = bootstrap.weights(heads, settings.resamples, settings.seed, f"{self.label}, heads") / heads
            resample, head = np.ogrid[: len(by_cluster), :heads]
            own = (by_cluster - y - (mean(by_cluster) - mean(y[None])))[(resample + head) % len(by_cluster), head]
            own *= np.sqrt(clusters / max(clusters - 1, 1))  # the bootstrap deviation lacks it
            sources.append(bootstrap.Source(resampled(y, drawn), heads, held_elsewhere=mean(y + own)))
        n, seen = self.visible.sum((0, 2)) / self.rows.sum((0, 2)), self.seen.max(0)
        one_key = self._one_key(self.at_one.sum(0, keepdims=True), self.rows.sum((0, 2))[None], settings)
        return Points(mean(y[None])[0], n[None], seen[None], censored_pool(self, settings), one_key, sources)

    def _one_key(self, at_one: Array, rows: Array, settings: Settings) -> NDArray[np.bool_]:
        """Tell of which curves (curves, lengths) most rows of every length need one key, (curves,)."""
        enough = len(self.lengths) >= settings.min_lengths
        return np.asarray(_ends(at_one, rows, settings.at_one).all(-1)) & enough

    def mean(self, values: Array, weights: Array) -> Array:
        """Mean over rows of summed values, clusters weighted: (resamples, clusters) -> (resamples, heads, lengths)."""
        total = np.einsum("hlc,bc->bhl", values, weights, optimize=True)
        rows = np.einsum("hlc,bc->bhl", self.rows, weights, optimize=True)
        with np.errstate(invalid="ignore"):
            return total / rows

    def log_mean(self, weights: Array) -> Array:
        """Ln of the mean k_min, clusters weighted: (resamples, clusters) -> (resamples, heads, lengths)."""
        return np.log(self.mean(self.total, weights))


SUMS = ("entropy", "p_max", "log_p_variance")
PER_HEAD = ("total", "deviation", "visible", "rows", "at_one", "at_n", "seen", *SUMS)


def fit_heads(rows: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Fit every law to the mean k_min of every head.

    The law is one of the head's own mean n. Intervals resample whole clusters. A length at which too many rows sit at
    k_min = 1 or n is left out, and so is one at which the head sees as many keys as at a shorter one.

    Parameters
    ----------
    rows : the rows table of `analysis.load`; of each label the longest design is used.
    settings : etas, thresholds, bootstrap.

    Returns
    -------
    DataFrame : one line per (label, variant, layer, head, eta, law):
        parameters with intervals, root mean squared error in ln k, AICc and its distance to the best law, the
        `winner` (null where not every law could be ranked) and its `lead` over the second, lengths fitted
        and `censored` ones left out, k_min at the longest length, a `reason` where there is no fit or rank.
    """
    tables = []
    for curves in curves_of(rows, settings):
        fitted = fit_points(curves.of_heads(settings), curves, settings)
        tables.append(curves.head_keys.to_frame(index=False).merge(fitted, left_index=True, right_on="curve"))
    return _tidy(tables, ["label", "kind", "variant", "layer", "head", "eta", "law"])


def fit_pooled(rows: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Fit every law to the typical head of a label: the mean over its heads of ln(mean k_min).

    Heads that do not see more keys where the others do are left out: they have no law to be averaged. Intervals
    resample clusters and heads, as `bootstrap.combined_interval` says. The share of censored rows is taken over all
    heads that stay, so that the same ones stand at every length.

    Parameters
    ----------
    rows, settings : as for `fit_heads`.

    Returns
    -------
    DataFrame : one line per (label, variant, eta, law) with the numbers of `heads` pooled and `left_out`:
        parameters with intervals, root mean squared error in ln k, AICc and its distance to the best law, the
        `winner` (null where not every law could be ranked) and its `lead` over the second, lengths fitted
        and `censored` ones left out, k_min at the longest length, a `reason` where there is no fit or rank.
    """
    tables = []
    for curves in curves_of(rows, settings):
        pool = curves.pooled()
        heads = len(pool.head_keys)
        fitted = fit_points(pool.typical(settings), curves, settings)
        tables.append(fitted.assign(heads=heads, left_out=len(curves.head_keys) - heads))
    return _tidy(tables, ["label", "kind", "variant", "heads", "left_out", "eta", "law"])


def share_of_laws(heads: pd.DataFrame, clear_lead: float) -> pd.DataFrame:
    """Share of heads that each law wins by AICc, per label, variant and eta.

    Parameters
    ----------
    heads : the table of `fit_heads`.
    clear_lead : AICc by which a law must lead the second to have won `clearly`.

    Returns
    -------
    DataFrame : `won` heads, of them `clearly`, `share` of the `ranked` ones (NaN if none), `unranked` heads.
    """
    by = ["label", "kind", "variant", "eta"]
    winners = heads.assign(won=heads["lead"].notna(), clearly=heads["lead"] >= clear_lead)
    groups = winners.groupby([*by, "law"], sort=False)
    table = groups.agg(won=("won", "sum"), clearly=("clearly", "sum"), heads=("won", "size")).reset_index()
    table["ranked"] = table.groupby(by, sort=False)["won"].transform("sum")
    table["unranked"] = table.pop("heads") - table["ranked"]
    table["share"] = (table["won"] / table["ranked"]).where(table["ranked"] > 0)
    return table


def curves_of(rows: pd.DataFrame, settings: Settings) -> Iterator[Curves]:
    """Sum the rows of every label, variant and eta into curves; of each label the longest design is used."""
    for variant, same in rows.groupby("variant", observed=True):
        selected = fullest_design(same)
        for label in labels_in_order(selected):
            frame = selected[selected["label"] == label]
            cells = Cells.of(frame)
            n = frame["n"].to_numpy(np.float64)
            counts, deviation = cells.sums(), cells.sums(frame["logit_std"].to_numpy(np.float64))
            visible, seen = cells.sums(n), cells.most(n)
            sums: dict[str, Array] = {}
            if set(SUMS) <= set(frame) and frame["log_p_variance"].notna().all():
                sums = {name: cells.sums(frame[name].to_numpy(np.float64)) for name in SUMS}
            for eta in settings.etas:
                k = frame[f"k_min_{eta:g}"].to_numpy(np.float64)
                yield Curves(
                    label=label,
                    kind=str(frame["kind"].iloc[0]),
                    variant=str(variant),
                    eta=eta,
                    head_keys=cells.head_keys,
                    lengths=cells.lengths.astype(np.float64),
                    total=cells.sums(k),
                    deviation=deviation,
                    visible=visible,
                    rows=counts,
                    at_one=cells.sums((k == 1).astype(np.float64)).sum(-1),
                    at_n=cells.sums((k == n).astype(np.float64)).sum(-1),
                    seen=seen,
                    **sums,
                )


def censored_heads(curves: Curves, settings: Settings) -> NDArray[np.bool_]:
    """Tell where too many of a head's rows sit at k_min = 1 or n, shape (heads, lengths)."""
    return _censored(curves.at_one, curves.at_n, curves.rows.sum(-1), settings)


def censored_pool(curves: Curves, settings: Settings) -> NDArray[np.bool_]:
    """Tell where too many rows of all heads sit at k_min = 1 or n, shape (1, lengths)."""
    count = curves.rows.sum((0, -1), keepdims=True)[..., 0]
    return _censored(curves.at_one.sum(0)[None], curves.at_n.sum(0)[None], count, settings)


def _censored(at_one: Array, at_n: Array, rows: Array, settings: Settings) -> NDArray[np.bool_]:
    # a head without rows at a length is left out there too
    return _ends(at_one, rows, settings.at_one) | _ends(at_n, rows, settings.at_n) | (rows == 0)


def _ends(at_end: Array, rows: Array, most: float) -> NDArray[np.bool_]:
    """Tell where more than a share of the rows sit at one end."""
    return at_end > most * rows


def fit_points(points: Points, curves: Curves, settings: Settings) -> pd.DataFrame:
    """Fit all laws to the points, and to the replicates of their sources of error."""
    usable = points.usable
    count = usable.sum(-1)
    fitted = np.flatnonzero(count >= settings.min_lengths)
    y, x, mask, m = points.y[fitted], points.x[fitted], usable[fitted], count[fitted]
    tables = [_unfitted(points, usable, law, settings) for law in LAWS]
    if fitted.size:
        scores = []
        for law, table in zip(LAWS, tables, strict=True):
            parameters = law.fit(y, x, mask)

            def refit(replicates: Array, law: Law = law) -> Array:
                return law.fit(_of(replicates, fitted), x, mask)

            low, high = bootstrap.combined_interval(parameters, points.sources, refit, settings.confidence)
            for i, name in enumerate(law.parameters):
                for suffix, values in (("", parameters), ("_low", low), ("_high", high)):
                    column = np.exp(values[:, i]) if name in law.logarithmic else values[:, i]
                    table.loc[fitted, name + suffix] = column
            error = law.squared_error(y, x, mask, parameters)
            table.loc[fitted, "rms_ln_k"] = np.sqrt(error / m)
            score = information(error, m, law)
            table.loc[fitted, "aicc"] = score
            table.loc[fitted[np.isnan(score)], "reason"] = "too few lengths to rank this law by AICc"
            scores.append(score)
        # a race that some laws could not enter names no winner
        ranked = np.stack(scores)
        complete = ~np.isnan(ranked).any(0)
        for table, score in zip(tables, ranked, strict=True):
            table.loc[fitted, "delta"] = np.where(complete, score - ranked.min(0), np.nan)
        best = np.argmin(ranked[:, complete], axis=0)
        first_two = np.sort(ranked[:, complete], axis=0)[:2]
        lead = first_two[1] - first_two[0]
        for i, table in enumerate(tables):
            table.loc[fitted[complete], "winner"] = best == i
            table.loc[fitted[complete], "lead"] = np.where(best == i, lead, np.nan)
    _needing_one_key(tables, points, (count < settings.min_lengths) & points.one_key, settings)
    result = pd.concat(tables, ignore_index=True)
    result["k_longest"] = np.tile(np.exp(points.y[:, -1]), len(LAWS))
    result["n_longest"] = np.tile(points.n[:, -1], len(LAWS))
    result["clusters"] = curves.clusters
    return result.assign(label=curves.label, kind=curves.kind, variant=curves.variant, eta=curves.eta)


def _needing_one_key(tables: list[pd.DataFrame], points: Points, where: NDArray[np.bool_], settings: Settings) -> None:
    """Note the curves that most rows of every length need one key for: a constant, whose lead is infinite."""
    curves = np.flatnonzero(where & ~stands_still(points.seen, settings.min_lengths))
    if not curves.size:
        return

    def level(replicates: Array) -> Array:
        return _of(replicates, curves).mean(-1)

    y = points.y[curves]
    low, high = bootstrap.combined_interval(y.mean(-1), points.sources, level, settings.confidence)
    for law, table in zip(LAWS, tables, strict=True):
        constant = law.name == "constant"
        table.loc[curves, "winner"] = constant
        if constant:
            table.loc[curves, ["a", "a_low", "a_high"]] = np.exp(np.stack([y.mean(-1), low, high], axis=-1))
            table.loc[curves, "rms_ln_k"] = y.std(-1)
            table.loc[curves, ["delta", "lead"]] = 0.0, np.inf


def _of(replicates: Array, curves: NDArray[np.intp]) -> Array:
    """Choose curves of (resamples, curves, lengths); all of them are not copied."""
    return replicates if len(curves) == replicates.shape[1] else replicates[:, curves]


def _unfitted(points: Points, usable: NDArray[np.bool_], law: Law, settings: Settings) -> pd.DataFrame:
    names = [name + suffix for name in ("a", "b", "C") for suffix in ("", "_low", "_high")]
    few = f"fewer than {settings.min_lengths} lengths that are not censored"
    return pd.DataFrame(
        {
            "curve": np.arange(len(usable)),
            "law": law.name,
            "lengths": usable.sum(-1),
            "censored": points.censored.sum(-1),
            **dict.fromkeys([*names, "rms_ln_k", "aicc", "delta", "lead"], np.nan),
            "winner": pd.array([pd.NA] * len(usable), dtype="boolean"),
            "reason": points.lacking(usable, settings.min_lengths, few),
        }
    )


def _tidy(tables: list[pd.DataFrame], keys: list[str]) -> pd.DataFrame:
    table = pd.concat(tables, ignore_index=True)
    rest = [column for column in table.columns if column not in {*keys, "curve"}]
    return table[[*keys, *rest]]
