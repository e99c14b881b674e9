"""The six laws of k against n, each fitted by least squares in ln k to any number of curves at once."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from analysis.statistics.line import Array, Mask, fit_line, mean_where

CURVES_AT_ONCE = 4096


@dataclass(frozen=True)
class Law:
    """One law k(n) and its fit.

    `fit(y, x, mask)` takes y = ln k with shape (..., lengths), x = ln n that broadcasts to y, and the points
    to use, a mask that does so too. It returns parameters of shape (..., len(parameters)), those named in
    `logarithmic` as their logarithm, so that an interval around them stays positive.
    """

    name: str
    formula: str
    parameters: tuple[str, ...]
    logarithmic: tuple[str, ...]
    fit: Callable[[Array, Array, Mask], Array]
    log_k: Callable[[Array, Array], Array]

    def squared_error(self, y: Array, x: Array, mask: Mask, parameters: Array) -> Array:
        """Sum of squared errors in ln k over the masked lengths, shape (...)."""
        return np.where(mask, (y - self.log_k(parameters, x)) ** 2, 0.0).sum(-1)


def information(squared_error: Array, points: Array, law: Law) -> Array:
    """AICc of a least-squares fit, m ln(RSS / m) + 2q + 2q(q+1)/(m-q-1) (Hurvich and Tsai 1989).

    Parameters
    ----------
    squared_error : RSS in ln k, shape (...).
    points : number m of lengths fitted, broadcasts to RSS.
    law : gives the number of parameters; q counts the variance too.

    Returns
    -------
    array : NaN where m <= q + 1, for there the correction is undefined: such a law is fitted but not ranked.
    """
    q = len(law.parameters) + 1
    room = np.asarray(points) - q - 1
    # exact data would send the logarithm to -inf; 1e-12 in ln k is far below any sampling error
    spread = np.maximum(squared_error / points, 1e-24)
    correction = np.divide(2 * q * (q + 1), room, where=room > 0, out=np.full(np.shape(room), np.nan))
    return points * np.log(spread) + 2 * q + correction


def _level(y: Array, x: Array, mask: Mask, slope: float) -> Array:
    return mean_where(y - slope * x, mask)[..., None]


def _log_of_line(y: Array, x: Array, mask: Mask) -> Array:
    """Fit ln(a + b x), some thousand curves at a time, whose arrays stay in the processor's cache; x is ln n, or n.

    The two laws that take long. Several studies ask for the same fits, of which the latest are kept.
    """
    key = hashlib.sha256(repr((y.shape, x.shape, mask.shape)).encode())
    for part in (y, x, mask):
        key.update(np.ascontiguousarray(part).data)
    return _kept.get(key.digest(), lambda: _log_of_line_anew(y, x, mask))


def _log_of_line_anew(y: Array, x: Array, mask: Mask) -> Array:
    used = np.broadcast_to(mask, y.shape).reshape(-1, y.shape[-1])
    target, x = y.reshape(used.shape), np.broadcast_to(x, y.shape).reshape(used.shape)
    blocks = [slice(i, i + CURVES_AT_ONCE) for i in range(0, len(used), CURVES_AT_ONCE)]
    fitted = [_log_of_line_block(target[block], x[block], used[block]) for block in blocks]
    return np.concatenate([np.empty((0, 2)), *fitted]).reshape(*y.shape[:-1], 2)


class Kept:
    """The latest results, by what they were made of, up to a number of bytes in all."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.bytes = 0
        self._results: OrderedDict[bytes, Array] = OrderedDict()

    def get(self, key: bytes, make: Callable[[], Array]) -> Array:
        """Return a result, not to be written to, made now or kept from before."""
        if key in self._results:
            self._results.move_to_end(key)
            return self._results[key]
        result = make()
        result.flags.writeable = False
        self._results[key] = result
        self.bytes += result.nbytes
        while self.bytes > self.most:
            self.bytes -= self._results.popitem(last=False)[1].nbytes
        return result


_kept = Kept(most=48 * 2**20)


def _log_of_line_block(y: Array, x: Array, used: Mask, steps: int = 100, tolerance: float = 1e-10) -> Array:
    """Fit ln(a + b x) by damped Newton steps (Levenberg 1944) in w, the log ratio of its values at both ends.

    In w the law stays positive between the ends whatever the step, where a and b themselves would not, and
    the level of ln k leaves the problem as a mean (variable projection, Golub and Pereyra 1973). Points that are not
    used have a `share` of 0 in every mean.
    """
    share = used / used.sum(-1, keepdims=True)
    y = np.where(used, y, 0.0)
    first = np.where(used, x, np.inf).min(-1)
    span = np.where(used, x, -np.inf).max(-1) - first
    t = np.where(used, (x - first[:, None]) / span[:, None], 0.0)

    def shape_of(w: Array, t: Array) -> tuple[Array, Array]:
        value = 1 + t * np.expm1(w)[:, None]
        return np.log(value), t * np.exp(w)[:, None] / value

    def centred(values: Array, share: Array) -> Array:
        return values - np.einsum("cp,cp->c", values, share)[:, None]

    # to the last bit as ever, or the steps below, which stop where rounding hides a gain, end elsewhere by 1e-8
    centred_x = np.where(used, x - (np.where(used, x, 0.0).sum(-1) / used.sum(-1))[:, None], 0.0)
    w = (centred_x * y).sum(-1) / (centred_x * centred_x).sum(-1) * span
    active = np.flatnonzero(np.isfinite(w))
    damping = np.full(len(w), 1e-4)
    bend, slope = shape_of(w, t)
    left = centred(y - bend, share)
    size = np.einsum("cp,cp,cp->c", left, left, share)
    for _ in range(steps):
        if not active.size:
            break
        weight = share[active]
        steep, off = slope[active], left[active] * weight
        gradient = centred(steep, weight)
        gauss = np.einsum("cp,cp,cp->c", gradient, gradient, weight)
        # d slope / d w = slope (1 - slope); where the curvature is not clearly positive, Gauss and Newton's part alone
        newton = gauss - np.einsum("cp,cp->c", off, steep * (1 - steep))
        curvature = np.where(newton > gauss / 2, newton, gauss)
        step = np.einsum("cp,cp->c", gradient, off) / (curvature * (1 + damping[active]))
        new_bend, new_slope = shape_of(w[active] + step, t[active])
        new_left = centred(y[active] - new_bend, weight)
        new_size = np.einsum("cp,cp,cp->c", new_left, new_left, weight)
        better = new_size <= size[active]
        taken = active[better]
        w[taken] += step[better]
        left[taken], slope[taken], bend[taken] = new_left[better], new_slope[better], new_bend[better]
        size[taken] = new_size[better]
        damping[active] *= np.where(better, 0.1, 10.0)
        active = active[(np.abs(step) > tolerance) & np.isfinite(step)]
    low = np.exp(((y - bend) * share).sum(-1))
    b = low * np.expm1(w) / span
    return np.stack([low - b * first, b], axis=-1)


def _log_line(p: Array, x: Array) -> Array:
    # outside the fitted lengths the line may cross zero, where no k is left to predict
    value = p[..., :1] + p[..., 1:] * x
    return np.log(value, where=value > 0, out=np.full(value.shape, -np.inf))


LAWS = (
    Law("constant", "a", ("a",), ("a",), lambda y, x, m: _level(y, x, m, 0.0), lambda p, x: p + 0 * x),
    Law("log", "a + b ln n", ("a", "b"), (), _log_of_line, _log_line),
    Law("power", "a n^C", ("a", "C"), ("a",), fit_line, lambda p, x: p[..., :1] + p[..., 1:] * x),
    Law("linear", "b n", ("b",), ("b",), lambda y, x, m: _level(y, x, m, 1.0), lambda p, x: p + x),
    Law(
        "affine",
        "a + b n",
        ("a", "b"),
        (),
        lambda y, x, m: _log_of_line(y, np.exp(x), m),
        lambda p, x: _log_line(p, np.exp(x)),
    ),
    Law(
        "power_log",
        "a n^C ln n",
        ("a", "C"),
        ("a",),
        lambda y, x, m: fit_line(y - np.log(x), x, m),
        lambda p, x: p[..., :1] + p[..., 1:] * x + np.log(x),
    ),
)
