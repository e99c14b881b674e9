"""Fits of the mean window k_min against context length: per head, pooled over heads, and which law wins."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis import bootstrap
from analysis.cells import Cells
from analysis.laws import LAWS, Law, information
from analysis.load import fullest_design, labels_in_order

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Settings:
    """How to fit; conf/analysis.yaml says why each value is what it is."""

    etas: tuple[float, ...]
    seed: int
    resamples: int
    confidence: float
    min_lengths: int
    at_one: float
    at_n: float


@dataclass(frozen=True)
class Curves:
    """Sums of k_min of all heads of one label and variant at one eta, kept apart by cluster.

    Shapes: `total`, `deviation` (sums of the logits' deviation) and `rows` (heads, lengths, clusters); `at_one`, `at_n`
    (heads, lengths), numbers of rows whose k_min is 1 or n; `lengths` (lengths,), nominal; `x` (lengths,), ln of the
    mean number of visible keys.
    """

    label: str
    kind: str
    variant: str
    eta: float
    places: pd.MultiIndex
    lengths: Array
    x: Array
    total: Array
    deviation: Array
    rows: Array
    at_one: Array
    at_n: Array

    @property
    def clusters(self) -> int:
        """Number of independent clusters."""
        return self.total.shape[-1]

    def log_means(self, settings: Settings) -> tuple[Array, list[bootstrap.Source]]:
        """Ln of each head's mean k_min (heads, lengths), replicates (resamples, heads, lengths) from its clusters."""
        weights = bootstrap.weights(self.clusters, settings.resamples, settings.seed, self.label)
        return self.log_mean(np.ones((1, self.clusters)))[0], [bootstrap.Source(self.log_mean(weights), self.clusters)]

    def typical(self, y: Array, by_cluster: Array, settings: Settings) -> tuple[Array, list[bootstrap.Source]]:
        """Mean over heads of `log_means`, (1, lengths) and replicates (resamples, 1, lengths) of each source of error.

        Clusters and heads are resampled apart. A head's own answers to its clusters spread both; how much is found by
        giving each head a resample of clusters of its own, once what all heads share in a resample is taken out.
        """
        heads, clusters = len(self.places), self.clusters
        sources = [bootstrap.Source(by_cluster.mean(1, keepdims=True), clusters)]
        if heads > 1:  # a single head is no sample of heads but all there is
            drawn = bootstrap.weights(heads, settings.resamples, settings.seed, f"{self.label}, heads") / heads
            resample, head = np.ogrid[: len(by_cluster), :heads]
            own = (by_cluster - by_cluster.mean(1, keepdims=True))[(resample + head) % len(by_cluster), head]
            own *= np.sqrt(clusters / max(clusters - 1, 1))  # the bootstrap deviation lacks it
            noise = (y + own).mean(1, keepdims=True)
            sources.append(bootstrap.Source((drawn @ y)[:, None, :], heads, held_elsewhere=noise))
        return y.mean(0)[None], sources

    def mean(self, values: Array, weights: Array) -> Array:
        """Mean over rows of summed values, clusters weighted: (resamples, clusters) -> (resamples, heads, lengths)."""
        total = np.einsum("hlc,bc->bhl", values, weights, optimize=True)
        rows = np.einsum("hlc,bc->bhl", self.rows, weights, optimize=True)
        with np.errstate(invalid="ignore"):
            return total / rows

    def log_mean(self, weights: Array) -> Array:
        """Ln of the mean k_min, clusters weighted: (resamples, clusters) -> (resamples, heads, lengths)."""
        return np.log(self.mean(self.total, weights))


def fit_heads(rows: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Fit every law to the mean k_min of every head.

    Intervals resample whole clusters. A length at which too many rows sit at k_min = 1 or n is left out.

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
        fitted = _fit(*curves.log_means(settings), curves, censored_heads(curves, settings), settings)
        tables.append(curves.places.to_frame(index=False).merge(fitted, left_index=True, right_on="curve"))
    return _tidy(tables, ["label", "kind", "variant", "layer", "head", "eta", "law"])


def fit_pooled(rows: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Fit every law to the typical head of a label: the mean over its heads of ln(mean k_min).

    Intervals resample clusters and heads, as `bootstrap.combined_interval` says. The share of censored rows is taken
    over all heads, so that the same heads stand at every length.

    Parameters
    ----------
    rows, settings : as for `fit_heads`.

    Returns
    -------
    DataFrame : one line per (label, variant, eta, law) with a column `heads`:
        parameters with intervals, root mean squared error in ln k, AICc and its distance to the best law, the
        `winner` (null where not every law could be ranked) and its `lead` over the second, lengths fitted
        and `censored` ones left out, k_min at the longest length, a `reason` where there is no fit or rank.
    """
    tables = []
    for curves in curves_of(rows, settings):
        y, by_cluster = curves.log_means(settings)
        pool = curves.typical(y, by_cluster[0].replicates, settings)
        fitted = _fit(*pool, curves, censored_pool(curves, settings), settings)
        tables.append(fitted.assign(heads=len(curves.places)))
    return _tidy(tables, ["label", "kind", "variant", "heads", "eta", "law"])


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
        chosen = fullest_design(same)
        for label in labels_in_order(chosen):
            frame = chosen[chosen["label"] == label]
            cells = Cells.of(frame)
            n = frame["n"].to_numpy(np.float64)
            counts, deviation = cells.sums(), cells.sums(frame["logit_std"].to_numpy(np.float64))
            x = np.log(cells.sums(n).sum((0, 2)) / counts.sum((0, 2)))
            for eta in settings.etas:
                k = frame[f"k_min_{eta:g}"].to_numpy(np.float64)
                yield Curves(
                    label=label,
                    kind=str(frame["kind"].iloc[0]),
                    variant=str(variant),
                    eta=eta,
                    places=cells.places,
                    lengths=cells.lengths.astype(np.float64),
                    x=x,
                    total=cells.sums(k),
                    deviation=deviation,
                    rows=counts,
                    at_one=cells.sums((k == 1).astype(np.float64)).sum(-1),
                    at_n=cells.sums((k == n).astype(np.float64)).sum(-1),
                )


def censored_heads(curves: Curves, settings: Settings) -> NDArray[np.bool_]:
    """Tell where too many of a head's rows sit at k_min = 1 or n, shape (heads, lengths)."""
    return _censored(curves.at_one, curves.at_n, curves.rows.sum(-1), settings)


def censored_pool(curves: Curves, settings: Settings) -> NDArray[np.bool_]:
    """Tell where too many rows of all heads sit at k_min = 1 or n, shape (1, lengths)."""
    count = curves.rows.sum((0, -1), keepdims=True)[..., 0]
    return _censored(curves.at_one.sum(0)[None], curves.at_n.sum(0)[None], count, settings)


def _censored(at_one: Array, at_n: Array, rows: Array, settings: Settings) -> NDArray[np.bool_]:
    # a head without rows at a length (0 / 0) is left out there too
    with np.errstate(invalid="ignore"):
        return ~((at_one / rows <= settings.at_one) & (at_n / rows <= settings.at_n))


def _fit(
    y: Array, sources: Sequence[bootstrap.Source], curves: Curves, censored: NDArray[np.bool_], settings: Settings
) -> pd.DataFrame:
    """Fit all laws to y (curves, lengths) and to replicates (resamples, curves, lengths) of its sources of error."""
    points = (~censored).sum(-1)
    fitted = np.flatnonzero(points >= settings.min_lengths)
    mask, m = ~censored[fitted], points[fitted]
    tables = [_unfitted(censored, points, law, settings) for law in LAWS]
    if fitted.size:
        scores = []
        for law, table in zip(LAWS, tables, strict=True):
            parameters = law.fit(y[fitted], curves.x, mask)

            def refit(replicates: Array, law: Law = law) -> Array:
                drawn = replicates[:, fitted]
                return law.fit(drawn, curves.x, np.broadcast_to(mask, drawn.shape))

            low, high = bootstrap.combined_interval(parameters, sources, refit, settings.confidence)
            for i, name in enumerate(law.parameters):
                for suffix, values in (("", parameters), ("_low", low), ("_high", high)):
                    column = np.exp(values[:, i]) if name in law.logarithmic else values[:, i]
                    table.loc[fitted, name + suffix] = column
            error = law.squared_error(y[fitted], curves.x, mask, parameters)
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
    result = pd.concat(tables, ignore_index=True)
    result["k_longest"] = np.tile(np.exp(y[:, -1]), len(LAWS))
    result["n_longest"] = np.exp(curves.x[-1])
    result["clusters"] = curves.clusters
    return result.assign(label=curves.label, kind=curves.kind, variant=curves.variant, eta=curves.eta)


def _unfitted(censored: NDArray[np.bool_], points: NDArray, law: Law, settings: Settings) -> pd.DataFrame:
    names = [name + suffix for name in ("a", "b", "C") for suffix in ("", "_low", "_high")]
    table = pd.DataFrame({"curve": np.arange(len(points)), "law": law.name})
    table["lengths"] = points
    table["censored"] = censored.sum(-1)
    table[[*names, "rms_ln_k", "aicc", "delta", "lead"]] = np.nan
    table["winner"] = pd.Series(pd.NA, index=table.index, dtype="boolean")
    few = f"fewer than {settings.min_lengths} lengths that are not censored"
    table["reason"] = np.where(points < settings.min_lengths, few, "")
    return table


def _tidy(tables: list[pd.DataFrame], keys: list[str]) -> pd.DataFrame:
    table = pd.concat(tables, ignore_index=True)
    rest = [column for column in table.columns if column not in {*keys, "curve"}]
    return table[[*keys, *rest]]
