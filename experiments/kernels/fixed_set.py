"""The smallest set of keys that serves several rows at once, greedily: submodular cover with lazy evaluation.

The gain of a key is the mass that it brings to rows that still lack some, at most what each lacks. Gains only fall as
the set grows, so a key whose gain, computed anew, still exceeds every older gain is the best one (Minoux 1978). Of
equal gains the lower index comes first.

Shape letters: R rows, N keys.
"""

import heapq

import numba
import numpy as np


@numba.njit(cache=True, error_model="numpy", nogil=True, fastmath={"reassoc", "nnan"})  # written to be vectorised
def _gain(p_R: np.ndarray, lacking_R: np.ndarray) -> float:
    gain = 0.0
    for r in range(len(p_R)):
        gain += min(p_R[r], lacking_R[r])
    return gain


@numba.njit(cache=True, error_model="numpy", nogil=True)
def fixed_set_size(p_NR: np.ndarray, lacking_R: np.ndarray) -> int:
    """Return how many keys, chosen greedily, leave no row [R] lacking mass; `lacking_R` is used up.

    `p_NR` are the probabilities of the keys in each row, float64, contiguous by key.
    """
    keys, rows = p_NR.shape
    gains = [(0.0, 0)]
    gains.pop()
    for j in range(keys):
        gain = _gain(p_NR[j], lacking_R)
        if gain > 0:
            gains.append((-gain, j))
    heapq.heapify(gains)
    size = 0
    while gains and lacking_R.max() > 0:
        _, j = heapq.heappop(gains)
        gain = _gain(p_NR[j], lacking_R)
        if gains and (-gain, j) > gains[0]:
            heapq.heappush(gains, (-gain, j))
            continue
        for r in range(rows):
            lacking_R[r] = max(lacking_R[r] - p_NR[j, r], 0.0)
        size += 1
    return size
