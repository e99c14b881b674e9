"""From which C on the error of n^C keys falls with the context [claim 1]: the smallest one, with its interval."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.float64]
COLUMNS = ["label", "measure", "C", "C_low", "C_high", "at_most", "exponents", "heads", "clusters"]


def smallest_exponents(rates: pd.DataFrame) -> pd.DataFrame:
    """Return the smallest C from which the error falls, for it and every larger C measured, per label and measure.

    Between two exponents the rate is linear in C. The interval holds every C whose rate may be zero by its own
    interval: its low end is where the low ends of the rates fall below 0 for good, its high end where the high ends do.

    Parameters
    ----------
    rates : lines of `decay_rates` of windows n^C.

    Returns
    -------
    DataFrame : `C` with `C_low`, `C_high`; 1 where it never falls, for n keys drop nothing. `at_most`: it falls at the
        least exponent measured already. The numbers of `exponents`, `heads` and `clusters`.
    """
    lines = []
    for (label, measure), curve in rates.groupby(["label", "measure"], observed=True, sort=False):
        ordered = curve.sort_values("parameter")
        c = ordered["parameter"].to_numpy(np.float64)
        ends = {end: falls_from(c, ordered[f"rate{end}"].to_numpy(np.float64)) for end in ("", "_low", "_high")}
        line: dict[str, object] = {"label": label, "measure": measure, "at_most": ends[""] == c[0]}
        line |= {f"C{end}": value for end, value in ends.items()}
        line |= {"exponents": len(c), "heads": ordered["heads"].iloc[0], "clusters": ordered["clusters"].iloc[0]}
        lines.append(line)
    return pd.DataFrame(lines, columns=COLUMNS)


def falls_from(c: Array, rate: Array) -> float:
    """Return where a rate over rising exponents c (exponents,) falls below 0 for good; 1 if it does not, NaN of NaN."""
    if np.isnan(rate).any():
        return np.nan
    stays = np.flatnonzero(rate >= 0)
    if not len(stays):
        return float(c[0])
    last = stays[-1]
    if last == len(c) - 1:
        return 1.0
    return float(np.interp(0, [rate[last + 1], rate[last]], [c[last + 1], c[last]]))
