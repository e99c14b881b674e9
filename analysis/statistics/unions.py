"""What a cache must hold: keys that consecutive rows, and query heads of one KV head, need together."""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd

from analysis.settings import Settings
from analysis.statistics.cells import Cells
from analysis.statistics.fit import Curves
from analysis.statistics.means import ALL, MEAN, Mean
from experiments.tables.unions import EVERY_HEAD

HEAD, GROUP = "query head", "KV head"
SIZES = {"k": "one row", "union": "union of the rows' keys", "fixed": "one fixed set for the rows"}


def means_of(lines: pd.DataFrame, etas: Sequence[float], settings: Settings) -> Iterator[tuple[dict[str, Any], Mean]]:
    """Yield the mean over heads or KV heads of each size, at each tolerance, by label, scope and length of the run.

    Parameters
    ----------
    lines : lines of unions.parquet with their runs, one design per label.

    Yields
    ------
    tuple : `scope`, `rows` (of the run) and `size` by name, and the mean.
    """
    lines = lines.assign(scope=np.where(lines["head"] == EVERY_HEAD, GROUP, HEAD))
    lines["head"] = lines["head"].where(lines["scope"] == HEAD, lines["kv_head"])
    lines = lines[lines["eta"].isin(list(etas))]
    for keys, frame in lines.groupby(["label", "eta", "scope", "rows"], observed=True, sort=False):
        label, eta, scope, rows = cast(tuple[str, float, str, int], keys)
        cells = Cells.of(frame)
        n, counts = frame["n"].to_numpy(np.float64), cells.sums()
        for size in SIZES:
            values = frame[size].to_numpy(np.float64)
            curves = Curves(
                label=label,
                kind="real",
                variant="plain",
                eta=eta,
                head_keys=cells.head_keys,
                lengths=cells.lengths.astype(np.float64),
                total=cells.sums(values),
                deviation=np.zeros(cells.shape),
                visible=cells.sums(n),
                rows=counts,
                at_one=cells.sums((values == 1).astype(np.float64)).sum(-1),
                at_n=cells.sums((values == n).astype(np.float64)).sum(-1),
                seen=cells.most(n),
            )
            pool = curves.pooled()
            mean = Mean(curves, MEAN, ALL, len(pool.head_keys), pool.mean_window(settings))
            yield {"scope": scope, "rows": rows, "size": size}, mean


def over_a_row(table: pd.DataFrame) -> pd.DataFrame:
    """Add `times`: the keys over those of one row of one head, arithmetic means of both, at the same length."""
    rows = table[(table["scope"] == HEAD) & (table["rows"] == 1) & (table["size"] == "k")]
    key = ["label", "eta", "length"]
    one = rows.set_index(key)["k"]
    return table.assign(times=table["k"].to_numpy() / one.reindex(pd.MultiIndex.from_frame(table[key])).to_numpy())
