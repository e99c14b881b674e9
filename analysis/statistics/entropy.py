"""How the entropy of rows grows with the context, beside how the keys that they need do.

Shapes: resamples (the estimate first) x heads.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from analysis.settings import Settings
from analysis.statistics import bootstrap
from analysis.statistics.fit import Array, curves_of
from analysis.statistics.heads import rank_correlation
from analysis.statistics.line import Mask, fit_line


def growth(rows: pd.DataFrame, eta: float, settings: Settings) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Fit H = alpha ln n + beta and k = a n^C of every head that sees more keys as the context grows.

    H is the mean entropy of a head's rows in nats, k the mean of the fewest keys that leave a dropped mass of `eta`. A
    law by which the support grows as n^alpha says that C = alpha.

    Returns
    -------
    DataFrame : one line per (label, layer, head): `alpha` and `C`, and at the longest length `n`, `entropy` and `k`.
    DataFrame : one line per label, numbers of `heads` and `clusters`, and each with `_low` and `_high`, documents and
        heads resampled apart: `alpha_mean`, `alpha_median` over heads; `C_median`; `C_typical`, the exponent of the
        geometric mean over heads, which is the mean of C; `C_mean`, that of the mean keys; `beyond`,
        C_mean - alpha_mean; `gap`, the median over heads of |C - alpha|; `rank`, the rank correlation of C and alpha.
    """
    tables, lines = [], []
    for curves in curves_of(rows, replace(settings, etas=(eta,))):
        pool = curves.pooled()
        points = pool.of_heads(settings)
        usable = points.usable
        heads = np.flatnonzero(usable.sum(-1) >= settings.min_lengths)
        if pool.entropy is None or not heads.size:
            continue
        drawn = bootstrap.weights(pool.clusters, settings.resamples, settings.seed, pool.label)
        weights = np.vstack([np.ones(pool.clusters), drawn])
        x, mask = points.x[heads], usable[heads]
        entropy, log_k = pool.mean(pool.entropy, weights)[:, heads], pool.log_mean(weights)[:, heads]

        alpha, C = (fit_line(y, x, np.broadcast_to(mask, y.shape))[..., 1] for y in (entropy, log_k))
        place = pool.head_keys[heads].to_frame(index=False)[["layer", "head"]]
        last = {"n": points.n[heads, -1], "entropy": entropy[0, :, -1], "k": np.exp(log_k[0, :, -1])}
        tables.append(place.assign(label=pool.label, alpha=alpha[0], C=C[0], **last))

        points_of_mean = pool.mean_window(settings).usable[0]

        def mean_window(log_k: Array, x: Array = x, used: Mask = points_of_mean) -> Array:
            return np.asarray(fit_line(np.log(np.exp(log_k).mean(1)), x.mean(0), used)[..., 1])

        chosen = bootstrap.heads_drawn(heads.size, settings.resamples, settings.seed, pool.label)[1:]
        by_cluster = _numbers(alpha, C, mean_window(log_k))
        by_head = _numbers(alpha[0][chosen], C[0][chosen], mean_window(log_k[0][chosen]))
        line: dict[str, object] = {"label": pool.label, "heads": heads.size, "clusters": pool.clusters}
        for name, scale in SCALES.items():
            line |= bootstrap.with_interval(
                name, by_cluster[name], pool.clusters, by_head[name], heads.size, settings.confidence, scale
            )
        lines.append(line)
    return (pd.concat(tables, ignore_index=True), pd.DataFrame(lines)) if tables else (pd.DataFrame(), pd.DataFrame())


SCALES = {
    "alpha_mean": "real",
    "alpha_median": "real",
    "C_median": "real",
    "C_typical": "real",
    "C_mean": "real",
    "beyond": "real",
    "gap": "positive",
    "rank": "correlation",
}


def _numbers(alpha: Array, C: Array, C_mean: Array) -> dict[str, Array]:
    return {
        "alpha_mean": alpha.mean(1),
        "alpha_median": np.median(alpha, 1),
        "C_median": np.median(C, 1),
        "C_typical": C.mean(1),
        "C_mean": C_mean,
        "beyond": C_mean - alpha.mean(1),
        "gap": np.median(np.abs(C - alpha), 1),
        "rank": rank_correlation(C, alpha) if alpha.shape[1] > 2 else np.full(len(alpha), np.nan),
    }
