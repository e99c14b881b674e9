"""Keys needed by the typical head and in the mean window, by which laws they grow, and which layers drive the mean.

The typical head is the geometric mean over heads of each head's mean k_min, the mean window the arithmetic one, which
a budget pays. They part where few heads need many keys.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.settings import Settings
from analysis.statistics import bootstrap
from analysis.statistics.fit import Array, Curves, Points, curves_of, fit_points
from analysis.statistics.laws import LAWS, Law
from analysis.statistics.line import fit_line

TYPICAL, MEAN = "typical head", "mean window"
ALL = "all heads"
GRID = 40  # context lengths at which a law is drawn


@dataclass(frozen=True)
class Mean:
    """One mean of the heads of a label: which, over what `scope` of heads, and its points.

    `share` is that of these heads in the keys that all heads of the mean need at the longest length.
    """

    curves: Curves
    name: str
    scope: str
    heads: int
    points: Points
    share: float = 1.0


def means_of(rows: pd.DataFrame, eta: float, settings: Settings) -> Iterator[Mean]:
    """Yield both means of each label; of a model also the mean window without the layer that needs most, and by layer.

    Heads whose keys do not grow where the others' do are in no mean, as in `fit_pooled`.
    """
    for curves in curves_of(rows, replace(settings, etas=(eta,))):
        pool = curves.pooled()
        heads, layers = len(pool.head_keys), pool.head_keys.get_level_values("layer").to_numpy()
        yield Mean(curves, TYPICAL, ALL, heads, pool.typical(settings))
        yield Mean(curves, MEAN, ALL, heads, pool.mean_window(settings))
        if len(set(layers)) < 2:
            continue
        shares = shares_of_layers(pool)
        largest = max(shares, key=shares.__getitem__)
        scopes = {f"without layer {largest}": layers != largest} | {
            f"layer {layer}": layers == layer for layer in shares
        }
        for scope, selected in scopes.items():
            some = pool.only(selected)
            share = sum(shares[layer] for layer in set(layers[selected].tolist()))
            if scope.startswith("without"):
                yield Mean(curves, TYPICAL, scope, len(some.head_keys), some.typical(settings), share)
            yield Mean(curves, MEAN, scope, len(some.head_keys), some.mean_window(settings), share)


def shares_of_layers(pool: Curves) -> dict[int, float]:
    """Return each layer's share of all keys needed at the longest length."""
    k = np.exp(pool.log_mean(np.ones((1, pool.clusters)))[0, :, -1])
    layers = pool.head_keys.get_level_values("layer").to_numpy()
    return {int(layer): float(k[layers == layer].sum() / k.sum()) for layer in sorted(set(layers.tolist()))}


def data(every: list[Mean], settings: Settings) -> pd.DataFrame:
    """List the points of every mean over all heads: `n`, `k` with its interval, per nominal length."""
    tables = []
    for item in every:
        if item.scope != ALL:
            continue
        points = item.points
        low, high = bootstrap.combined_interval(points.y, points.sources, lambda same: same, settings.confidence)
        columns: dict[str, Any] = {"length": item.curves.lengths, "n": points.n[0], "censored": points.censored[0]}
        columns |= {name: np.exp(y[0]) for name, y in (("k", points.y), ("k_low", low), ("k_high", high))}
        tables.append(pd.DataFrame(_place(item) | columns))
    return pd.concat(tables, ignore_index=True)


def laws(every: list[Mean], settings: Settings) -> pd.DataFrame:
    """Fit every law to every mean.

    Returns
    -------
    DataFrame : one line per (label, mean, scope, law): the columns of `fit_pooled`, and `share`, that of the scope's
        heads in all keys needed at the longest length.
    """
    tables = []
    for item in every:
        fitted = fit_points(item.points, item.curves, settings).drop(columns="curve")
        tables.append(fitted.assign(mean=item.name, scope=item.scope, heads=item.heads, share=item.share))
    first = ["label", "kind", "variant", "eta", "mean", "scope", "heads", "share", "law"]
    table = pd.concat(tables, ignore_index=True)
    return table[[*first, *(name for name in table if name not in first)]]


def foreseen(every: list[Mean], settings: Settings, beyond: float) -> pd.DataFrame:
    """Draw every law of the means over all heads from the shortest n to `beyond` times the longest.

    Returns
    -------
    DataFrame : `n`, `k` and its interval, `inside` where lengths were measured; held within [1, n]. Beside the laws of
        `LAWS`, without interval or bounds and at both ends alone: `root`, the square root of n through the middle of
        the points, and `entropy`, e^H with H = alpha ln n + beta, fitted to the mean entropy over heads and rows.
    """
    tables = []
    for item in every:
        points, mask = item.points, item.points.usable
        if item.scope != ALL or mask.sum() < settings.min_lengths:
            continue
        x = np.log(np.geomspace(points.n.min(), beyond * points.n.max(), GRID))[None]
        for law in LAWS:
            at = partial(drawn, law, points.x, mask, x)
            k = at(points.y)
            low, high = bootstrap.combined_interval(k, points.sources, at, settings.confidence)
            n = np.exp(x[0])
            columns: dict[str, Any] = {
                "law": law.name,
                "n": n,
                "k": np.exp(k[0]),
                "inside": n <= points.n.max() * 1.001,
            }
            columns |= {"k_low": np.exp(low[0]).clip(1), "k_high": np.minimum(np.exp(high[0]), n)}
            tables.append(pd.DataFrame(_place(item) | columns))
        ends = x[0, [0, -1]]  # all that a straight line in logarithms takes
        for name, log_k in _others(item, mask[0], ends).items():
            columns = {"law": name, "n": np.exp(ends), "k": np.exp(log_k), "inside": [True, False]}
            tables.append(pd.DataFrame(_place(item) | columns))
    names = ["label", "kind", "eta", "mean", "law", "n", "k", "inside", "k_low", "k_high"]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=names)


def _others(item: Mean, mask: NDArray[np.bool_], x: Array) -> dict[str, Array]:
    """Return ln k at ln n = x by laws that others have published."""
    points, pool = item.points, item.curves.pooled()
    at, y = points.x[0, mask], points.y[0, mask]
    result = {"root": (y - at / 2).mean() + x / 2}
    if pool.entropy is not None:
        entropy = pool.mean(pool.entropy, np.ones((1, pool.clusters)))[0].mean(0)
        level, alpha = fit_line(entropy[mask], at, np.ones(len(at), bool))
        result["entropy"] = level + alpha * x
    return result


def drawn(law: Law, x: Array, mask: NDArray[np.bool_], at: Array, y: Array) -> Array:
    """Return ln k of a law fitted to y (..., curves, lengths), at other ln n; held within [1, n]."""
    return np.clip(law.log_k(law.fit(y, x, np.broadcast_to(mask, y.shape)), at), 0.0, at)


def _place(item: Mean) -> dict[str, Any]:
    return {"label": item.curves.label, "kind": item.curves.kind, "eta": item.curves.eta, "mean": item.name}
