"""From records to tables, figures and a report. Nothing here measures: every number is read from a record."""

from typing import TYPE_CHECKING

import experiments  # noqa: F401  it says so if this Python lacks the packages
from analysis import interrupt  # before what takes long: it takes Ctrl-C during the other imports

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    from analysis.questions import Comparison

__all__ = ["compare", "fits", "interrupt", "k_min", "keys_from_sums", "load"]

# Figures of published tables need no record: what reads one is imported by the functions that do.


def load(
    outputs: "str | Path" = "outputs",
    columns: "Sequence[str] | None" = None,
    *,
    label: "str | Sequence[str] | None" = None,
    lengths: "Sequence[int] | None" = None,
    experiment: "str | None" = None,
) -> "tuple[pd.DataFrame, pd.DataFrame]":
    """Read rows and windows of all complete runs below an outputs directory; see `analysis.records.load.load`.

    A model that several experiments measured, of other heads, lengths or rows, has lines of each: one line on stderr
    says so. Choose by `experiment`, or by the columns `run` or `design`, before a mean is taken over lines.

    Parameters
    ----------
    outputs : the directory that holds `runs/`.
    columns : those wanted, all by default.
    label : that of a source, or a part that no other label has; several in a list. All by default.
    lengths : nominal context lengths, in tokens; all by default.
    experiment : the preset that asked for the runs, such as `heads`; all by default.

    Raises
    ------
    UserError : if there is no complete run, or no such label, experiment or length was measured; the message names
        those that were.
    """
    from analysis.questions import load as read

    return read(outputs, columns, label, lengths, experiment)


def fits(
    outputs: "str | Path" = "outputs",
    *,
    label: "str | Sequence[str] | None" = None,
    lengths: "Sequence[int] | None" = None,
    eta: "float | None" = None,
    heads: bool = False,
) -> "pd.DataFrame":
    """Fit every law of k against n to the typical head of each label, or to each head.

    Parameters
    ----------
    outputs, label, lengths : as of `load`; laws are fitted to these lengths alone.
    eta : dropped mass allowed, one that rows were measured for; all of conf/analysis.yaml by default.
    heads : fit every head by itself.

    Returns
    -------
    DataFrame : one line per label, variant, eta and law (and layer and head): parameters with 95% intervals, error in
        ln k, AICc, `winner` and `lead`, or the `reason` why there is none; see `fit_pooled` and `fit_heads` of
        `analysis.statistics.fit`.

    Raises
    ------
    UserError : as of `load`, or if rows were not measured for eta.
    """
    from analysis.questions import fits as fitted

    return fitted(outputs, label, lengths, eta, heads)


def k_min(
    model: str,
    n: "ArrayLike",
    eta: float = 0.1,
    *,
    outputs: "str | Path" = "outputs",
    mean: str = "mean window",
    law: "str | None" = None,
    lengths: "Sequence[int] | None" = None,
    layer: "int | None" = None,
    head: "int | None" = None,
) -> "pd.DataFrame":
    """Say how many keys the rows of a model, one of its heads, or another label need at context lengths n.

    k is the mean over rows of the least number of keys that drop at most eta: many rows need more. For
    keys that 90% of a head's rows are promised to need no more than, see `python -m analysis.budget`.

    Parameters
    ----------
    model : a label, or a part that no other label has.
    n : context lengths in keys, one or several, within the measured ones or beyond.
    eta : dropped mass allowed, one that rows were measured for.
    outputs, lengths : as of `fits`.
    mean : over heads: `mean window`, the arithmetic mean, which a budget pays, or `typical head`, the geometric one.
    law : by its name, such as `power` or `log`; by default the one with least AICc.
    layer, head : of one head, both or neither; `mean` is then not used.

    Returns
    -------
    DataFrame : per n the keys `k` with their 95% interval `k_low`, `k_high` from samples and heads resampled, held
        within [1, n]; the `law`; and whether n is `extrapolated`, outside of the lengths that were measured. The
        interval is that of the law's mean, if the law is true: it says nothing of another law.

    Raises
    ------
    UserError : if there is no such label, head, tolerance or law, or no law can be fitted or ranked.
    """
    from analysis.questions import k_min as needed

    return needed(model, n, eta, outputs, mean, law, lengths, layer, head)


def compare(first: str, second: str, outputs: "str | Path" = "outputs") -> "Comparison":
    """Lay two runs of runner=approximation side by side: settings, keys needed, and windows that both have.

    Parameters
    ----------
    first, second : each a run id, the beginning of one, or a label that one run alone has.
    outputs : the directory that holds `runs/`.

    Returns
    -------
    Comparison : `settings` that differ, `keys` with their ratio and its 95% interval, and `windows`; see
        `analysis.questions.Comparison`.

    Raises
    ------
    UserError : if a name means no run or several, or the runs have no head at a common length.
    """
    from analysis.questions import compare as side_by_side

    return side_by_side(first, second, outputs)


def keys_from_sums(
    eta: "ArrayLike", n: "ArrayLike", entropy: "ArrayLike", p_max: "ArrayLike" = 0.0, **second: "ArrayLike"
) -> "NDArray[np.float64]":
    """Return the keys that rows need for a dropped mass of eta, from sums of their probabilities alone [G8].

    See `analysis.statistics.matched_gamma.keys_from_sums`: beside the entropy it takes `log_p_variance`,
    `participation` or `root_sum`, all columns of rows.parquet.
    """
    from analysis.statistics.matched_gamma import keys_from_sums as foretold

    return foretold(eta, n, entropy, p_max, **second)
