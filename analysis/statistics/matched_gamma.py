"""The gamma law matched to two sums of a row [G8]: keys, dropped mass and counts without sorting.

Logits l = c + theta G with G ~ Gamma(a), theta < 1, and q = theta / (1 - theta) > -1: for q > 0 a few keys stand out
above, for q < 0 many lie far below, and near q = 0 logits are normal. Under p = softmax(l), G is gamma again with the
same a and scale 1 + q. Two sums over the row fix a and q: its entropy H, and one of

- `log_p_variance`, V = sum p (ln p + H)^2;
- `participation`, 1 / sum p^2 = e^H_2;
- `root_sum`, sum sqrt(p) = e^(H_1/2 / 2).

The most probable key is kept by every window and is no draw of a smooth law, so it is taken out first [G8e].

A sum at tilt t (sum sqrt p: 1/2; H and V: 1; sum p^2: 2) settles only while t sigma < sqrt(2 ln n), so that every match
needs s = sigma / sqrt(ln n) < 1.41, and the one by sum p^2 s < .71. The law describes the row whose sums it is given:
it forecasts no other.

All functions take arrays by NumPy broadcasting and compute in float64.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Array = NDArray[np.float64]

NEARLY_NORMAL = 1e-3  # |ln(1 + q)| below which the law is [G2]'s, and the ratios are their series
STEPS = 60  # of the bisection for ln(1 + q)
LOWEST = -40.0  # ln(1 + q) of a row that is as good as uniform on fewer keys [G8f]
HIGHEST = 40.0
LEVEL = 1e-5  # ln n - H of a row that is as good as uniform: less is lost in rounding

# The sum whose tilt is nearest to what a tolerance asks about, by the largest eta that it serves.
BY_ETA = ((0.02, "root_sum"), (0.15, "log_p_variance"), (1.0, "participation"))


def sum_for(eta: float) -> str:
    """Return which sum serves a tolerance best: sum p^2 for eta >= .2, V for .1 and .05, sum sqrt(p) for .01 [G8]."""
    return next(name for largest, name in BY_ETA if eta <= largest)


def keys_from_sums(
    eta: ArrayLike,
    n: ArrayLike,
    entropy: ArrayLike,
    p_max: ArrayLike = 0.0,
    **second: ArrayLike,
) -> Array:
    """Return the keys that rows need for a dropped mass of eta, from sums of their probabilities alone [G8a, G8e].

    Parameters
    ----------
    eta
        Dropped mass allowed, in (0, 1).
    n
        Keys that a row sees.
    entropy
        H, in nats.
    p_max
        Largest probability, of a key that is taken out before the law is matched; 0 to leave all in.
    second
        One of `log_p_variance`, `participation` and `root_sum`, by name; `sum_for(eta)` says which serves best.

    Returns
    -------
    Array
        Real-valued, in [1, n]; NaN where a sum is.

    Raises
    ------
    ValueError
        If not exactly one second sum is given, or one that is not known.
    """
    return match(n, entropy, p_max, **second).keys(eta)


@dataclass(frozen=True)
class MatchedGamma:
    """Rows as their matched laws have them; all arrays of one shape.

    Attributes
    ----------
    shape, log_scale
        The law's a, and ln(1 + q); a is infinite where the row is uniform on some keys, or on all.
    spread
        sigma = sqrt(a) |q|, of the normal law that it is near q = 0.
    n
        Keys of the law: those that the row sees, less the one that is taken out.
    p_max
        Mass of the key taken out, 0 if none is.
    support
        e^H of the law's keys: how many keys there are where they share their mass alike.
    """

    shape: Array
    log_scale: Array
    spread: Array
    n: Array
    p_max: Array
    support: Array

    @property
    def q(self) -> Array:
        """The skewness of the law: above 0 a few keys stand out, below 0 many lie far below; NaN where a sum is."""
        return np.expm1(self.log_scale)

    @property
    def _scale(self) -> Array:
        return np.exp(self.log_scale)

    @property
    def _taken(self) -> Array:
        return (self.p_max > 0).astype(np.float64)

    def keys(self, eta: ArrayLike) -> Array:
        """Return the keys needed for a dropped mass of eta [G8a], in [1, n]."""
        with np.errstate(divide="ignore"):  # a row that is one key
            left = np.asarray(eta, np.float64) / (1 - self.p_max)
        inside = np.clip(left, 0.0, 1.0)
        more = self.n * self._share_of_keys(inside) + self._taken
        needed = np.clip(np.where(left >= 1, 1.0, more), 1.0, self.n + self._taken)
        return np.where(np.isnan(self.q), np.nan, needed)

    def dropped_mass(self, k: ArrayLike) -> Array:
        """Return the mass outside the k most probable keys [G8c]."""
        return (1 - self.p_max) * self._dropped(k)

    def count_above(self, eps: ArrayLike) -> Array:
        """Return the number of keys with p > eps [G8d]."""
        eps = np.asarray(eps, np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            alone = eps / (1 - self.p_max)
            level = np.log(alone * self.n)
            threshold = np.maximum(0.0, (level + self.shape * self.log_scale) * self._scale / self.q)
            smooth = np.where(
                self.q > 0, special.gammaincc(self.shape, threshold), special.gammainc(self.shape, threshold)
            )
            normal = special.ndtr(-(level + self.spread**2 / 2) / self.spread)
        flat = np.where(1 / self.support > alone, self.support, 0.0)
        counted = self._choose(self.n * normal, self.n * smooth, flat)
        return np.where(np.isnan(self.q), np.nan, counted + (self.p_max > eps))

    def _share_of_keys(self, eta: Array) -> Array:
        """Return the share of the law's keys that hold a mass of 1 - eta."""
        with np.errstate(invalid="ignore", over="ignore"):
            above = special.gammaincc(self.shape, self._scale * special.gammaincinv(self.shape, eta))
            below = special.gammainc(self.shape, self._scale * special.gammainccinv(self.shape, eta))
            normal = special.ndtr(special.ndtri(1 - eta) - self.spread)
        return self._choose(normal, np.where(self.q > 0, above, below), (1 - eta) * self.support / self.n)

    def _dropped(self, k: ArrayLike) -> Array:
        """Return the share of the law's mass outside the k most probable keys."""
        kept = np.clip((np.asarray(k, np.float64) - self._taken) / self.n, 0.0, 1.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            above = special.gammainc(self.shape, special.gammainccinv(self.shape, kept) / self._scale)
            below = special.gammaincc(self.shape, special.gammaincinv(self.shape, kept) / self._scale)
            normal = special.ndtr(-special.ndtri(kept) - self.spread)
        flat = np.clip(1 - kept * self.n / self.support, 0.0, 1.0)
        dropped = self._choose(normal, np.where(self.q > 0, above, below), flat)
        return np.where(np.isnan(self.q), np.nan, dropped)

    def _choose(self, normal: Array, smooth: Array, flat: Array) -> Array:
        return np.where(np.isinf(self.shape), flat, np.where(np.abs(self.log_scale) < NEARLY_NORMAL, normal, smooth))


def match(n: ArrayLike, entropy: ArrayLike, p_max: ArrayLike = 0.0, **second: ArrayLike) -> MatchedGamma:
    """Match the law to the entropy and a second sum of rows [G8b]; see `keys_from_sums`."""
    if len(second) != 1 or not set(second) <= set(RATIOS):
        given = ", ".join(sorted(second)) or "none"
        raise ValueError(f"give exactly one of {', '.join(RATIOS)} beside the entropy, not {given}")
    ((name, value),) = second.items()
    n, entropy, p_max, value = np.broadcast_arrays(*(np.asarray(x, np.float64) for x in (n, entropy, p_max, value)))
    unknown = np.isnan(n + entropy + p_max + value)
    others, entropy, value = _without_most_probable(n, entropy, p_max, name, value)
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = np.maximum(np.log(others) - entropy, 0.0)
        ratio = np.where(gap < LEVEL, 0.0, _measured_ratio(name, others, entropy, gap, value))
        ratio = np.nan_to_num(ratio, nan=0.0, posinf=np.inf)  # no law is asked of a row that is one key
        log_scale = _solve(RATIOS[name], ratio, HIGHEST_LOG_SCALE[name])
        log_scale = np.where(unknown, np.nan, log_scale)
        flat = log_scale <= LOWEST
        shape = np.where(flat, np.inf, gap / _deficit(log_scale))
        nearly_normal = np.abs(log_scale) < NEARLY_NORMAL
        spread = np.where(nearly_normal, np.sqrt(2 * gap), np.sqrt(shape) * np.abs(np.expm1(log_scale)))
    return MatchedGamma(shape, log_scale, spread, others, p_max, np.exp(entropy))


def _without_most_probable(
    n: Array, entropy: Array, mass: Array, name: str, value: Array
) -> tuple[Array, Array, Array]:
    """Return number of keys, entropy and second sum of the keys that are left, renormalised [G8e]."""
    rest = 1 - mass
    with np.errstate(divide="ignore", invalid="ignore"):
        own = np.where(mass > 0, np.log(mass), 0.0)
        left = (entropy + mass * own) / rest + np.log(rest)
        if name == "log_p_variance":
            moment = (value + entropy**2 - mass * own**2) / rest
            second = np.maximum(moment - (left - np.log(rest)) ** 2, 0.0)
        elif name == "participation":
            second = rest**2 / (1 / value - mass**2)
        else:
            second = (value - np.sqrt(mass)) / np.sqrt(rest)
    taken = mass > 0
    others = np.where(taken, np.maximum(n - 1, 1), n)
    left = np.nan_to_num(np.where(taken, left, entropy))
    return others, np.clip(left, 0.0, np.log(others)), np.where(taken, second, value)


def _measured_ratio(name: str, n: Array, entropy: Array, gap: Array, value: Array) -> Array:
    if name == "log_p_variance":
        return value / gap
    if name == "participation":
        return (entropy - np.log(value)) / gap
    return gap / (np.log(n) - 2 * np.log(value))


def _deficit(u: Array) -> Array:
    """Return q - ln(1 + q) at u = ln(1 + q)."""
    return np.where(np.abs(u) < NEARLY_NORMAL, u**2 * (1 / 2 + u / 6 + u**2 / 24), np.expm1(u) - u)


def _variance_ratio(u: Array) -> Array:
    return np.where(np.abs(u) < NEARLY_NORMAL, 2 + 4 * u / 3, np.expm1(u) ** 2 / _deficit(u))


def _collision_ratio(u: Array) -> Array:
    q = np.expm1(u)
    return np.where(np.abs(u) < NEARLY_NORMAL, 1 + 4 * u / 3, -(q + np.log1p(-q)) / _deficit(u))


def _root_ratio(u: Array) -> Array:
    return np.where(np.abs(u) < NEARLY_NORMAL, 2 + 2 * u / 3, _deficit(u) / (2 * np.log1p(np.expm1(u) / 2) - u))


RATIOS: Mapping[str, Callable[[Array], Array]] = {
    "log_p_variance": _variance_ratio,
    "participation": _collision_ratio,
    "root_sum": _root_ratio,
}
HIGHEST_LOG_SCALE = {"log_p_variance": HIGHEST, "participation": np.log(2.0), "root_sum": HIGHEST}  # sum p^2: q < 1


def _solve(ratio: Callable[[Array], Array], wanted: Array, highest: float) -> Array:
    """Return ln(1 + q) at which a ratio, which rises with q, has the wanted value; the nearest bound beyond it."""
    low, high = np.full(wanted.shape, LOWEST), np.full(wanted.shape, highest)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        least = ratio(np.array(LOWEST))
        for _ in range(STEPS):
            middle = (low + high) / 2
            above = ratio(middle) > wanted
            low, high = np.where(above, low, middle), np.where(above, middle, high)
    return np.where(wanted <= least, LOWEST, (low + high) / 2)
