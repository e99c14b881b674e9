"""Keys foretold from a row's gap counts: how many keys lie within so many nats of the largest logit (arXiv 2605.12697).

A record counts the keys with p > eps, which are those within ln(p_max / eps) of the largest logit. The whole count,
over every gap, is the sorted row itself; here two of its values stand for it. On the scale of normal quantiles they lie
on a line, ln p = level + sigma z, whose sigma is that of the logits near the top: [G2] takes the deviation of all.

All functions take arrays by NumPy broadcasting and compute in float64. Shape letter: X rows.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Array = NDArray[np.float64]


def keys_from_gap_counts(eta: float, n: ArrayLike, p_max: ArrayLike, counts: Mapping[float, ArrayLike]) -> Array:
    """Return the keys that rows need for a dropped mass of eta, from their two widest gap counts that differ.

    The most probable key is kept by every window and may be a sink: it is no part of the line, but where no count has
    it. Beyond quantile z lies a mass of n exp(level + sigma^2 / 2) Phi(z - sigma). Where a single point is known, the
    line through it is that of all the mass that is left.

    Parameters
    ----------
    eta
        Dropped mass allowed, in (0, 1).
    n
        Keys that a row sees.
    p_max
        Largest probability.
    counts
        Number of keys with p > eps, by eps.

    Returns
    -------
    Array
        Real-valued, in [1, n].
    """
    given = [np.asarray(counts[eps], np.float64) for eps in sorted(counts, reverse=True)]
    n_X, far_p_X, *given = np.broadcast_arrays(np.asarray(n, np.float64), np.asarray(p_max, np.float64), *given)
    alone_X, left_X = eta >= 1 - far_p_X, np.where(given[-1] >= 1, 1 - far_p_X, 1.0)
    # the last key counted lies at the quantile of its rank less 1/2, and the next behind the threshold
    far_X, near_X, near_p_X = np.full(n_X.shape, 0.5), np.full(n_X.shape, np.nan), np.full(n_X.shape, np.nan)
    for count_X, eps in zip(given, sorted(counts, reverse=True), strict=True):
        rank_X = np.maximum(count_X - 0.5, 0.5)  # without the most probable key
        further = (count_X >= 1) & (rank_X > far_X)
        near_X, near_p_X = np.where(further, far_X, near_X), np.where(further, far_p_X, near_p_X)
        far_X, far_p_X = np.where(further, rank_X, far_X), np.where(count_X >= 1, eps, far_p_X)
    far_z_X, near_z_X = (-special.ndtri(np.minimum(rank_X, n_X - 0.25) / n_X) for rank_X in (far_X, near_X))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        sigma_X = np.log(near_p_X / far_p_X) / (near_z_X - far_z_X)
        total_X = n_X * np.exp(np.log(far_p_X) - sigma_X * far_z_X + sigma_X**2 / 2)
        root_X = np.sqrt(np.maximum(far_z_X**2 - 2 * np.log(n_X * far_p_X / left_X), 0.0))
        single_X = np.isnan(near_X)
        sigma_X = np.where(single_X, np.maximum(far_z_X - root_X, 0.0), sigma_X)
        share_X = special.ndtr(-(sigma_X + special.ndtri(np.minimum(eta / np.where(single_X, left_X, total_X), 1.0))))
    return np.clip(np.where(alone_X, 1.0, 1 + n_X * share_X), 1.0, n_X)
