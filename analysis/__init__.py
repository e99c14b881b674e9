"""From records to tables, figures and a report. Nothing here measures: every number is read from a record."""

from typing import TYPE_CHECKING

from analysis import interrupt  # first: it takes Ctrl-C during the other imports

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

__all__ = ["interrupt", "keys_from_sums", "load"]


def load(
    outputs: "str | Path" = "outputs", columns: "Sequence[str] | None" = None
) -> "tuple[pd.DataFrame, pd.DataFrame]":
    """Read rows and windows of all complete runs below an outputs directory; see `analysis.records.load.load`."""
    # figures of published tables need no record, and so nothing that reads one
    from analysis.records.load import load as read

    return read(outputs, columns)


def keys_from_sums(
    eta: "ArrayLike", n: "ArrayLike", entropy: "ArrayLike", p_max: "ArrayLike" = 0.0, **second: "ArrayLike"
) -> "NDArray[np.float64]":
    """Return the keys that rows need for a dropped mass of eta, from sums of their probabilities alone [G8].

    See `analysis.statistics.matched_gamma.keys_from_sums`: beside the entropy it takes `log_p_variance`,
    `participation` or `root_sum`, all columns of rows.parquet.
    """
    from analysis.statistics.matched_gamma import keys_from_sums as foretold

    return foretold(eta, n, entropy, p_max, **second)
