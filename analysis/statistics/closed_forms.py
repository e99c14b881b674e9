"""Closed forms [G1]-[G7] of the Gaussian source: iid logits N(0, sigma^2), values independent of them.

Trusted for s = sigma / sqrt(ln n) <= 0.8; near s = sqrt(2) a few keys carry the normaliser and the forms are
biased, so there a Monte Carlo of the same finite n is the reference. All functions take and return arrays by
NumPy broadcasting; k, n are numbers of keys, sigma and z are in nats of logit.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_ndtr, ndtr, ndtri

Array = NDArray[np.float64]


def deviation(n: ArrayLike, s: float | None = None, sigma: float | None = None) -> Array:
    """Logit deviation at context length n: sigma itself, or s sqrt(ln n) [G5].

    Raises
    ------
    ValueError : unless exactly one of s and sigma is given.
    """
    if (s is None) == (sigma is None):
        raise ValueError("give exactly one of s and sigma")
    length = np.asarray(n, dtype=np.float64)
    return np.full_like(length, sigma) if s is None else s * np.sqrt(np.log(length))


def dropped_mass(k: ArrayLike, n: ArrayLike, sigma: ArrayLike) -> Array:
    """Return the dropped mass of the top k of n keys, Phi(z(k/n) - sigma) [G1, arXiv 2512.07647]."""
    return ndtr(_depth(k, n) - np.asarray(sigma))


def smallest_window(eta: ArrayLike, n: ArrayLike, sigma: ArrayLike) -> Array:
    """Keys needed for a dropped mass of eta, n Q(sigma + Phi^-1(eta)) [G2, arXiv 2512.07647]; not rounded."""
    return np.asarray(n) * ndtr(-(np.asarray(sigma) + ndtri(eta)))


def count_above(eps: ArrayLike, n: ArrayLike, sigma: ArrayLike) -> Array:
    """Return the expected number of p_j > eps, n Q((ln(eps n) + sigma^2 / 2) / sigma) [G3].

    With sigma fixed it first grows and then falls to 0 faster than any power of n: the collapse of [G4].
    """
    length, spread = np.asarray(n, dtype=np.float64), np.asarray(sigma, dtype=np.float64)
    return length * ndtr(-(np.log(np.asarray(eps) * length) + spread**2 / 2) / spread)


def critical_exponent(s: ArrayLike) -> Array:
    """C* = max(0, 1 - s^2/2), the limit of the local exponent at sigma = s sqrt(ln n) [G5, Derrida 1981]."""
    return np.maximum(0.0, 1.0 - np.square(s) / 2)


def local_exponent(eta: ArrayLike, sigma: ArrayLike, slope: ArrayLike) -> Array:
    """Local exponent d ln k_min / d ln n = 1 - h(z) d sigma / d ln n at finite n [G6].

    Parameters
    ----------
    eta : dropped mass allowed.
    sigma : logit deviation at this n.
    slope : d sigma / d ln n; 0 for a fixed sigma gives exponent 1 [G4].
    """
    z = np.asarray(sigma) + ndtri(eta)
    hazard = np.exp(-(z**2) / 2 - np.log(2 * np.pi) / 2 - log_ndtr(-z))
    return 1.0 - hazard * np.asarray(slope)


def local_exponent_growing(eta: ArrayLike, n: ArrayLike, s: ArrayLike) -> Array:
    """[G6] for sigma = s sqrt(ln n), of slope s / (2 sqrt(ln n)); tends slowly to `critical_exponent`."""
    root = np.sqrt(np.log(np.asarray(n, dtype=np.float64)))
    return local_exponent(eta, np.asarray(s) * root, np.asarray(s) / (2 * root))


def dropped_square(k: ArrayLike, n: ArrayLike, sigma: ArrayLike) -> Array:
    """Share of sum p^2 outside the k most probable keys, Phi(z(k/n) - 2 sigma) [G7].

    Holds while 2 sigma is well below sqrt(2 ln n).
    """
    return ndtr(_depth(k, n) - 2 * np.asarray(sigma))


def output_error_truncated(k: ArrayLike, n: ArrayLike, sigma: ArrayLike) -> Array:
    """Relative output error of the truncated oracle row, the square root of `dropped_square` [G7]."""
    return np.sqrt(dropped_square(k, n, sigma))


def output_error_renormalised(k: ArrayLike, n: ArrayLike, sigma: ArrayLike) -> Array:
    """Relative output error of the renormalised oracle row: [T5] with the shares of [G1] and [G7].

    With independent values the squared error is the tail's share of sum p^2 plus the head's, the latter
    scaled by (tau / (1 - tau))^2.
    """
    tau, tail = dropped_mass(k, n, sigma), dropped_square(k, n, sigma)
    return np.sqrt(tail + (tau / (1 - tau)) ** 2 * (1 - tail))


def _depth(k: ArrayLike, n: ArrayLike) -> Array:
    return -ndtri(np.asarray(k, dtype=np.float64) / np.asarray(n, dtype=np.float64))
