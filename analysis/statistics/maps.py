"""What each head's rows are: how their entropy grows, the mass of key 0, and the keys needed at the longest context.

Shapes: resamples (the estimate first) x heads.

Shape letters: B samples drawn, C clusters.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.settings import Settings
from analysis.statistics import bootstrap
from analysis.statistics.cells import Cells
from analysis.statistics.growth import distinct
from analysis.statistics.line import fit_line
from experiments.tables.rows import k_min

Array = NDArray[np.float64]


def of_label(
    frame: pd.DataFrame, eta: float, above: list[float], settings: Settings
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Average the rows of one label over samples, head by head.

    Parameters
    ----------
    frame : rows of one label, variant and design.
    eta : dropped mass allowed.
    above : masses of key 0 above which a head counts as one with a sink.

    Returns
    -------
    DataFrame : per (layer, head), at the longest length: `n`, `sink_mass`, `k` for a dropped mass of `eta` and its
        share `share` of n; `alpha` of the entropy H = alpha ln n + beta over all lengths, NaN where n does not grow.
    dict : `n`, numbers of `heads` and `clusters`, `sink_mass`, the mean over heads, and `above_X`, the share of heads
        whose mean mass of key 0 is above X hundredths; with `_low`, `_high`, samples and heads resampled apart.
    """
    cells = Cells.of(frame)
    rows = cells.sums()

    def mean(column: str, weight_BC: Array) -> Array:
        values = cells.sums(frame[column].to_numpy(np.float64))
        with np.errstate(invalid="ignore"):
            return np.asarray(np.einsum("hlc,bc->bhl", values, weight_BC) / np.einsum("hlc,bc->bhl", rows, weight_BC))

    heads, _, clusters = cells.shape
    one = np.ones((1, clusters))
    n = mean("n", one)[0]
    grows = distinct(cells.most(frame["n"].to_numpy(np.float64)))
    lawful = grows.sum(-1) >= settings.min_lengths
    alpha = np.full(heads, np.nan)
    entropy = mean("entropy", one)[0]
    alpha[lawful] = fit_line(entropy[lawful], np.log(n[lawful]), grows[lawful])[..., 1]
    k = mean(k_min(eta), one)[0, :, -1]
    drawn = bootstrap.weights(clusters, settings.resamples, settings.seed, str(frame["label"].iloc[0]))
    sink = mean("sink_mass", np.vstack([one, drawn]))[:, :, -1]
    table = cells.head_keys.to_frame(index=False)
    table = table.assign(n=n[:, -1], alpha=alpha, sink_mass=sink[0], k=k, share=k / n[:, -1])
    chosen = bootstrap.heads_drawn(heads, settings.resamples, settings.seed, str(frame["label"].iloc[0]))[1:]
    about: dict[str, float] = {"n": float(n[:, -1].max()), "heads": heads, "clusters": clusters}
    numbers = {"sink_mass": sink} | {f"above_{100 * mass:.0f}": (sink > mass).astype(np.float64) for mass in above}
    for name, values in numbers.items():
        by_cluster, by_head = values.mean(1), values[0][chosen].mean(1)
        about |= bootstrap.with_interval(name, by_cluster, clusters, by_head, heads, settings.confidence, "share")
    return table, about
