"""A power law per head, fitted to the keys that a share of its rows need, with a margin for text that was not seen.

n is the number of keys that the head itself sees. One that sees no more of them as the context grows, as in a
sliding-window layer, has no law but a cap: the same number of keys at any length, C = 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from analysis.budget.needs import Needs
from analysis.statistics import bootstrap
from analysis.statistics.growth import distinct
from analysis.statistics.intervals import student
from analysis.statistics.line import fit_line

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Design:
    """What the curves are fitted to: `x`, ln n, and `used`, the points (curves, lengths); `grows` (curves,).

    A curve that does not grow is a constant, fitted where it sees as many keys as it ever does.
    """

    x: Array
    used: NDArray[np.bool_]
    grows: NDArray[np.bool_]

    @classmethod
    def of(cls, needs: Needs, least: int) -> Design:
        """Choose the points of each head among all lengths but the longest; a law takes `least` different n."""
        seen = needs.seen[:, :-1]
        different = distinct(seen)
        grows = different.sum(-1) >= least
        used = np.where(grows[:, None], different, seen == seen.max(-1, keepdims=True))
        return cls(needs.x[:, :-1], used, grows)

    def mean(self, values: Array) -> Array:
        """Mean over the points of values (..., curves, lengths)."""
        return np.where(self.used, values, 0.0).sum(-1) / self.used.sum(-1)


@dataclass(frozen=True)
class Laws:
    """A power law per curve: `level` = ln alpha and `slope` = C (curves,).

    `levels` and `slopes` (resamples, curves) are their replicates, `scatter` the residual deviation in ln k with
    `freedom` degrees (curves,); `margin` is the part of the level that was added so that a text not seen is served too.
    """

    level: Array
    slope: Array
    levels: Array
    slopes: Array
    scatter: Array
    freedom: Array
    units: int
    margin: Array

    def interval(self, n: Array, confidence: float) -> tuple[Array, Array, Array]:
        """Return ln k and its prediction interval for another text of the same kind where n (curves,) keys are seen."""
        x = np.log(n)
        y = self.level + self.slope * x
        drawn = (self.levels + self.slopes * x).std(0) * np.sqrt(self.units / max(self.units - 1, 1))
        reach = student(self.freedom, confidence) * np.hypot(drawn, self.scatter)
        return y, y - reach, y + reach


def quantile(k: Array, coverage: float) -> Array:
    """Smallest window that serves a share `coverage` of the rows of all samples: (..., samples, rows) -> (...)."""
    return np.quantile(k.reshape(*k.shape[:-2], -1), coverage, axis=-1, method="higher")


def fit_laws(k: Array, design: Design, coverage: float, resamples: int, seed: int) -> Laws:
    """Fit ln k = ln alpha + C ln n by least squares, C held within [0, 1]; intervals resample the samples."""
    return _fit_curves(_curves(k, coverage, resamples, seed), design, k.shape[2])


def fit_typical(
    needs: Needs, selected: NDArray[np.bool_], fit: slice, design: Design, coverage: float, resamples: int, seed: int
) -> Laws:
    """Fit the mean over some heads of ln k: one curve."""
    curves = _curves(needs.k[selected, :-1, fit], coverage, resamples, seed).mean(1, keepdims=True)
    x = np.log(needs.n[selected].mean((0, 2)))[None, :-1]
    return _fit_curves(
        curves, Design(x, design.used[selected][:1], design.grows[selected][:1]), needs.k[:, :, fit].shape[2]
    )


def _curves(k: Array, coverage: float, resamples: int, seed: int) -> Array:
    """Ln of the window that serves the share `coverage` of rows, then its resamples (1 + resamples, heads, lengths)."""
    samples = k.shape[2]
    drawn = np.random.default_rng(seed).integers(samples, size=(min(resamples, 200), samples))
    return np.stack([np.log(quantile(k[:, :, selected], coverage)) for selected in [np.arange(samples), *drawn]])


def _fit_curves(curves: Array, design: Design, samples: int) -> Laws:
    middle = design.mean(design.x)
    fitted = fit_line(curves, design.x, np.broadcast_to(design.used, curves.shape))[..., 1]
    slope = np.clip(np.where(design.grows, fitted, 0.0), 0.0, 1.0)  # what does not grow has the slope 0
    level = design.mean(curves) - slope * middle
    left = np.where(design.used, curves[0] - level[0][:, None] - slope[0][:, None] * design.x, 0.0)
    spare = np.maximum(design.used.sum(-1) - np.where(design.grows, 2, 1), 1)
    scatter = np.sqrt((left**2).sum(-1) / spare)
    freedom = np.minimum(spare, samples - 1)
    return Laws(level[0], slope[0], level[1:], slope[1:], scatter, freedom, samples, np.zeros(len(scatter)))


def with_margin(laws: Laws, needs: Needs, fit: slice, design: Design, coverage: float, seed: int) -> Laws:
    """Raise each head's law until it would have served the share `coverage` of every text that it had not seen.

    Each sample is left out in turn, the law is fitted to the others, and the ratio found by which the law must grow to
    serve that share of the sample's rows. The largest of them is the margin, never below 1: with c samples a further
    one needs more with a chance of 1 / (c + 1), if they are exchangeable (cross-conformal, Vovk 2015, arXiv 1208.0806).
    """
    k, x = needs.k[:, :-1, fit], np.log(needs.n[:, :-1])
    # a law holds at every length, a cap where the head sees as many keys as it ever does
    counted = design.used | design.grows[:, None]
    missed = []
    for sample in range(k.shape[2]):
        others = fit_laws(np.delete(k, sample, axis=2), replace(design, x=x.mean(-1)), coverage, 0, seed)
        ratio = np.log(k[:, :, sample]) - (others.level[:, None, None] + others.slope[:, None, None] * x)
        missed.append(
            [np.quantile(each[at], coverage, method="higher") for each, at in zip(ratio, counted, strict=True)]
        )
    margin = np.maximum(np.max(missed, axis=0), 0.0)
    return replace(laws, level=laws.level + margin, levels=laws.levels + margin, margin=margin)


def line_of(laws: Laws, h: int, sees: float, factor: float, confidence: float) -> dict[str, float]:
    """Return alpha and C of a curve with their intervals, and the most keys that it sees unless that is the context."""
    line: dict[str, float] = {}
    for name, value, replicates in (("alpha", laws.level, laws.levels), ("C", laws.slope, laws.slopes)):
        ends = bootstrap.interval(value[h], replicates[:, h], laws.units, confidence)
        points = np.array([value[h], *ends], float)
        points = factor * np.exp(points) if name == "alpha" else np.clip(points, 0.0, 1.0)
        line |= dict(zip((name, f"{name}_low", f"{name}_high"), map(float, points), strict=True))
    if np.isinf(sees):
        return line
    if line["C"] == 0:  # alpha is a number of keys
        line |= {name: min(value, float(sees)) for name, value in line.items() if name.startswith("alpha")}
    return line | {"sees": int(sees)}
