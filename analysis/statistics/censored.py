"""The slope of ln keys over ln n where resamples may need more keys than were measured, or fewer.

Shape letters: B samples drawn, L lengths.
"""

import numpy as np
from numpy.typing import NDArray

from analysis.statistics.bootstrap import interval

Array = NDArray[np.float64]


def slope_of(
    ln_BL: Array, fewer_BL: NDArray[np.bool_], ends_L2: Array, x_L: Array, samples: int, confidence: float
) -> tuple[float, float, float]:
    """Return the slope of ln keys by least squares, and the ends of its interval over resamples.

    A resample may know less than all samples do: that more keys than were measured are needed, at most all n, or that
    the fewest are enough, at least one. Each end of the interval takes such keys as they bear on it most.

    Parameters
    ----------
    ln_BL
        ln of the keys: first of all samples, where every length has some, then as they are resampled; NaN where no
        window is enough.
    fewer_BL
        Where the fewest keys that were measured are enough.
    ends_L2
        ln of the fewest and of the most keys that were measured.
    x_L
        ln n.
    samples
        Number of samples that were resampled.
    """
    more_BL, off_L = np.isnan(ln_BL), x_L - x_L.mean()
    ends = []
    for rising in (False, True):  # the flattest slope that a resample allows, and the steepest
        much_L = (off_L > 0) == rising
        most_L = np.where(much_L, x_L, ends_L2[:, 1])
        least_L = np.where(much_L, ends_L2[:, 0], 0.0)
        y_BL = np.where(more_BL, most_L, np.where(fewer_BL, least_L, ln_BL))
        slope_B = y_BL @ off_L / (off_L @ off_L)
        ends.append(float(interval(slope_B[0], slope_B[1:], samples, confidence)[rising]))
    slope = float(slope_B[0])
    return slope, min(ends[0], slope), max(ends[1], slope)
