"""How what a model loses at k = a n^C keys changes with the context length n.

Shape letters: B resamples (the estimate first), S samples, L lengths.
"""

import numpy as np
import pandas as pd

from analysis.settings import Settings
from analysis.statistics.bootstrap import interval, weights
from analysis.statistics.line import slopes

MEASURES = ("kl", "lost")
FEWEST_LENGTHS = 3
WINDOW = ["label", "phase", "parameter", "scale"]


def laws(lines: pd.DataFrame, how: Settings) -> pd.DataFrame:
    """Fit ln of the mean over samples of KL(dense || sparse), and of the loss over dense, to ln n, window by window.

    Parameters
    ----------
    lines : of `in_model.by_sample`, of one method's power windows.

    Returns
    -------
    DataFrame : per label, phase, exponent C (`parameter`) and `scale` a: numbers of `samples` and `lengths`;
        `entropy_law`, the exponent -(1 - C) that the law of entropy foretells of the gap; `kl_exponent` and
        `lost_exponent` with `_low` and `_high`, percentiles over resampled samples, NaN where the mean of any of them
        is not above zero.
    """
    parts = []
    for place, part in lines.groupby(WINDOW):
        lengths, samples = (sorted(part[name].unique()) for name in ("length", "sample"))
        if len(lengths) < FEWEST_LENGTHS:
            continue
        drawn = weights(len(samples), how.resamples, how.seed, f"{place[0]}, samples")
        times_BS = np.concatenate([np.ones((1, len(samples))), drawn])
        line = {**dict(zip(WINDOW, place, strict=True)), "samples": len(samples), "lengths": len(lengths)}
        line["entropy_law"] = float(part["parameter"].iloc[0]) - 1
        for measure in MEASURES:
            y_SL = part.pivot_table(measure, "sample", "length").to_numpy(float)
            mean_BL = times_BS @ y_SL / times_BS.sum(1, keepdims=True)
            slope_B = slopes(np.log(np.where(mean_BL > 0, mean_BL, np.nan)), np.log(np.array(lengths, float)))
            low, high = interval(slope_B[0], slope_B[1:], len(samples), how.confidence)
            if np.isnan(slope_B).any():  # a bound of the others alone would be too near
                low = high = np.array(np.nan)
            name = f"{measure}_exponent"
            line |= {name: slope_B[0], f"{name}_low": float(low), f"{name}_high": float(high)}
        parts.append(line)
    return pd.DataFrame(parts)
