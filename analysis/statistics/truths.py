"""Which of two laws is nearer to the data: what AICc would say if every head followed one of them, or the other.

AICc names a winner for every head, and names wrong ones often: k_min is measured on few documents, and neighbouring
laws differ little. So each head's fitted power law is taken for true, and then its fitted a + b ln n; noise that
resampling the documents shows is put onto it, and all laws are fitted again (a parametric bootstrap; of non-nested
models as in Williams 1970, doi 10.2307/2529020).
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.settings import Settings
from analysis.statistics import bootstrap
from analysis.statistics.fit import Array, Curves, curves_of
from analysis.statistics.laws import LAWS, information

TRUTHS = ("power", "log")
WINNERS = tuple(law.name for law in LAWS)


@dataclass(frozen=True)
class Trial:
    """All heads of a label, as measured and as they would be under each truth.

    `heads` are indices of those that all laws can be ranked for; `observed` and `simulated[truth]` hold AICc (laws,
    heads) and (laws, resamples, heads), `residual` and `simulated_residual[truth]` the squared error of that truth's
    own law, (heads,) and (resamples, heads).
    """

    curves: Curves
    heads: NDArray[np.intp]
    observed: Array
    simulated: dict[str, Array]
    residual: dict[str, Array]
    simulated_residual: dict[str, Array]


def trials(rows: pd.DataFrame, settings: Settings) -> Iterator[Trial]:
    """Try both truths on every label and eta that has more than one cluster.

    Parameters
    ----------
    rows : the rows table of `analysis.load`; of each label the longest design is used.
    settings : etas, thresholds, and as many resamples as are to be simulated per truth.
    """
    for curves in curves_of(rows, settings):
        points = curves.of_heads(settings)
        usable = points.usable
        most = 1 + max(len(law.parameters) for law in LAWS)
        heads = np.flatnonzero(usable.sum(-1) > max(settings.min_lengths - 1, most))
        if curves.clusters < 2 or not heads.size:
            continue
        y, x, mask = points.y[heads], points.x[heads], usable[heads]
        noise = np.where(mask, _noise(curves, settings)[:, heads], 0.0)

        observed, errors = _scores(y, x, mask)
        simulated, residual, simulated_residual = {}, {}, {}
        for truth in TRUTHS:
            law = LAWS[WINNERS.index(truth)]
            true = np.where(mask, law.log_k(law.fit(y, x, mask), x), 0.0)
            simulated[truth], again = _scores(true + noise, x, mask)
            residual[truth], simulated_residual[truth] = (part[WINNERS.index(truth)] for part in (errors, again))
        yield Trial(curves, heads, observed, simulated, residual, simulated_residual)


def by_head(every: list[Trial]) -> pd.DataFrame:
    """Judge both laws head by head.

    Returns
    -------
    DataFrame : per (label, variant, eta, layer, head): `lead_power`, AICc of a + b ln n less that of the power law.
        `p_power`, how often a lead as small or smaller comes out where the power law is true, and `p_log`, how often
        one as large or larger where a + b ln n is: a small one is evidence against that law and for the other. And how
        well either law fits, whatever the other does: `misfit_power`, `misfit_log`, how often noise alone leaves a
        residual as large as that of the data; a small one says that no parameters of this law fit.
    """
    tables = []
    for trial in every:
        curves = trial.curves
        lead = _lead(trial.observed)
        table = curves.head_keys[trial.heads].to_frame(index=False)
        table = table.assign(label=curves.label, variant=curves.variant, eta=curves.eta, lead_power=lead)
        table["p_power"] = _share(_lead(trial.simulated["power"]) <= lead)
        table["p_log"] = _share(_lead(trial.simulated["log"]) >= lead)
        for truth in TRUTHS:
            table[f"misfit_{truth}"] = _share(trial.simulated_residual[truth] >= trial.residual[truth])
        tables.append(table)
    if not tables:
        return pd.DataFrame(columns=["label", "variant", "eta", "layer", "head", "lead_power"])
    table = pd.concat(tables, ignore_index=True)
    first = ["label", "variant", "eta", "layer", "head"]
    return table[[*first, *(name for name in table if name not in first)]]


def summary(every: list[Trial], settings: Settings) -> pd.DataFrame:
    """Set the share of heads that each law wins against what it would win under either truth.

    Returns
    -------
    DataFrame : per (label, variant, eta, law): `share` of the heads that the law wins by AICc; `share_if_power`,
        `share_if_log`, its mean over the simulations of either truth, with `_low`, `_high`, between which `confidence`
        of the simulations fall. Alike in all lines of a label: `distance_power`, `distance_log`, the total variation
        between the shares observed and those under that truth, 0 to 1, and `farther_than_power`, `farther_than_log`,
        the share of the simulations of that truth that are nearer to their own mean; `rejects_power`, `rejects_log`,
        the shares of heads with p below 1 - confidence (see `by_head`), `misfits_power`, `misfits_log` likewise;
        `heads`, `clusters`.
    """
    tables = []
    level = 1 - settings.confidence
    for trial, heads in zip(every, (by_head([trial]) for trial in every), strict=True):
        curves = trial.curves
        share = _won(trial.observed[:, None])[:, 0]
        table = pd.DataFrame({"law": WINNERS, "share": share})
        for truth in TRUTHS:
            won = _won(trial.simulated[truth])
            mean = won.mean(1)
            low, high = np.quantile(won, [level / 2, 1 - level / 2], axis=1)
            name = f"share_if_{truth}"
            table[name], table[f"{name}_low"], table[f"{name}_high"] = mean, low, high
            own = np.abs(won - mean[:, None]).sum(0) / 2
            table[f"distance_{truth}"] = distance = np.abs(share - mean).sum() / 2
            table[f"farther_than_{truth}"] = (own < distance).mean()
            table[f"rejects_{truth}"] = (heads[f"p_{truth}"] < level).mean()
            table[f"misfits_{truth}"] = (heads[f"misfit_{truth}"] < level).mean()
        table = table.assign(label=curves.label, variant=curves.variant, eta=curves.eta)
        tables.append(table.assign(heads=len(trial.heads), clusters=curves.clusters))
    if not tables:
        return pd.DataFrame(columns=["label", "variant", "eta", "law", "share"])
    table = pd.concat(tables, ignore_index=True)
    first = ["label", "variant", "eta", "law"]
    return table[[*first, *(name for name in table if name not in first)]]


def local_exponents(rows: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Slope d ln k / d ln n between neighbouring lengths at least a factor of 2 apart, over heads and head by head.

    A power law has the same slope everywhere; that of a + b ln n falls like b / k.

    Returns
    -------
    DataFrame : per (label, variant, eta, n_from, n_to) a line of `scope` `heads` with the median over the heads
        `exponent`, its quartiles `heads_low`, `heads_high`, and `less`, the median over heads of this exponent less
        that between the shortest lengths; and a line of scope `head` per layer and head. With `_low`, `_high`, from
        resamples of clusters and, over heads, of heads apart. Heads that are left out of a fit at some length are in
        none.
    """
    tables = []
    for curves in curves_of(rows, settings):
        points = curves.pooled().of_heads(settings)
        head_keys = curves.pooled().head_keys
        steps = _steps(points.n.mean(0))
        selected = np.flatnonzero(points.usable.all(-1))
        if len(steps) < 2 or not selected.size:
            continue
        replicates = points.sources[0].replicates[:, selected]
        every = np.concatenate([points.y[None, selected], replicates])[..., steps]
        slope = np.diff(every) / np.diff(points.x[selected][:, steps])
        drawn = bootstrap.heads_drawn(selected.size, settings.resamples, settings.seed, curves.label)[1:]
        n = points.n[selected].mean(0)[steps]
        low, high = bootstrap.interval(slope[0], slope[1:], curves.clusters, settings.confidence)
        for i in range(len(steps) - 1):
            where: dict[str, Any] = {"label": curves.label, "variant": curves.variant, "eta": curves.eta}
            where |= {"n_from": n[i], "n_to": n[i + 1], "clusters": curves.clusters}
            line = where | {"scope": "heads", "heads": selected.size}
            for name, values in (("exponent", slope[..., i]), ("less", slope[..., i] - slope[..., 0])):
                by_cluster, heads = np.median(values, axis=1), np.median(values[0][drawn], axis=1)
                line |= bootstrap.with_interval(
                    name, by_cluster, curves.clusters, heads, selected.size, settings.confidence
                )
            line["heads_low"], line["heads_high"] = np.quantile(slope[0, :, i], [0.25, 0.75])
            tables.append(pd.DataFrame([line]))
            own = head_keys[selected].to_frame(index=False).astype("Int64")
            own = own.assign(exponent=slope[0, :, i], exponent_low=low[:, i], exponent_high=high[:, i])
            tables.append(own.assign(**where, scope="head", heads=1))
    first = ["label", "variant", "eta", "scope", "layer", "head", "n_from", "n_to", "exponent"]
    if not tables:
        return pd.DataFrame(columns=first)
    table = pd.concat(tables, ignore_index=True)
    return table[[*first, *(name for name in table if name not in first)]]


def _scores(values: Array, x: Array, mask: NDArray[np.bool_]) -> tuple[Array, Array]:
    """AICc and squared errors of every law fitted to values (..., heads, lengths), both (laws, ..., heads)."""
    fitted = [law.fit(values, x, np.broadcast_to(mask, values.shape)) for law in LAWS]
    errors = [law.squared_error(values, x, mask, parameters) for law, parameters in zip(LAWS, fitted, strict=True)]
    ranked = [information(error, mask.sum(-1), law) for law, error in zip(LAWS, errors, strict=True)]
    return np.stack(ranked), np.stack(errors)


def _noise(curves: Curves, settings: Settings) -> Array:
    """Draw sampling errors of ln k, (resamples, heads, lengths): normal, with the covariance that the clusters show.

    Each cluster is given a normal weight, the same in all heads and lengths, times what it adds to ln k (Gaussian
    multipliers). Whole clusters drawn with replacement would now and then all be drawn once, and show no noise at all.
    """
    stream = np.random.default_rng([settings.seed, zlib.crc32(f"{curves.label}, noise".encode())])
    drawn = stream.normal(size=(settings.resamples, curves.clusters))
    drawn = (drawn - drawn.mean(1, keepdims=True)) * np.sqrt(curves.clusters / (curves.clusters - 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        added = [part / part.sum(-1, keepdims=True) for part in (curves.total, curves.rows)]
    return np.einsum("hlc,bc->bhl", added[0] - added[1], drawn, optimize=True)


def _steps(n: Array) -> list[int]:
    """Choose lengths from the shortest on, each at least twice the one before."""
    chosen = [0]
    for i in range(1, len(n)):
        if n[i] >= 2 * n[chosen[-1]] * (1 - 1e-9):
            chosen.append(i)
    return chosen


def _lead(scores: Array) -> Array:
    """AICc of a + b ln n less that of the power law, of scores (laws, ...)."""
    return scores[WINNERS.index("log")] - scores[WINNERS.index("power")]


def _share(cases: NDArray[np.bool_]) -> Array:
    """Share of simulations (resamples, heads) in which something holds; the data count as one of them."""
    return (1 + cases.sum(0)) / (1 + len(cases))


def _won(scores: Array) -> Array:
    """Share of heads that each law wins, of scores (laws, resamples, heads): (laws, resamples)."""
    return np.stack([(scores.argmin(0) == i).mean(-1) for i in range(len(LAWS))])
