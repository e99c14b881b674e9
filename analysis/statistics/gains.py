"""What is lost where one layer, or one KV head, alone keeps few keys, and what that foretells of keys shared out.

The losses of units that keep few keys at once are taken to add up. Each sample is judged by curves of the others.

Shape letters: U units (layers, or KV heads), P measured points, S samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.statistics.allocation import Curve, bounds, by_gain, in_proportion, pyramid
from analysis.statistics.tasks import fullest_design
from experiments.errors import UserError
from experiments.tables.gains import EVERY_KV_HEAD

Array = NDArray[np.float64]
BY_GAINS, UNIFORM, PYRAMID, ZIGZAG = SHARED = ("gains", "uniform", "pyramid", "zigzag")
KL, LOSS = OBJECTIVES = ("kl", "loss")  # what units lose: KL(dense || this), or -ln p of the next token over dense
LAYER, KV_HEAD = UNITS = ("layer", "kv_head")
POINT = ["rule", "parameter", "scale"]


@dataclass(frozen=True)
class Measured:
    """What each unit loses alone at one length, by one method.

    `keys` and `lost` (U, P, S); `most` keys that a unit's row sees, `weights` query heads, and `layers` (U,).
    """

    keys: Array
    lost: Array
    most: Array
    weights: Array
    layers: list[int]

    @classmethod
    def of(cls, lines: pd.DataFrame, objective: str) -> Measured:
        """Return the gains of the lines of one length, method, design and seed.

        Raises
        ------
        UserError : if some units lack points that others have.
        """
        lines = lines.assign(lost=lines["kl"] if objective == KL else lines["loss"] - lines["dense_loss"])
        lines = lines.sort_values(["layer", "kv_head", *POINT, "sample"])
        of_units = lines.groupby(["layer", "kv_head"])
        shape = (of_units.ngroups, -1, lines["sample"].nunique())
        try:
            keys, lost = (lines[name].to_numpy(float).reshape(shape) for name in ("keys", "lost"))
        except ValueError as error:
            raise UserError(
                f"{lines['label'].iloc[0]}: gains of some layers were measured in part; measure anew"
            ) from error
        first = of_units[["heads", "kv_heads", "n"]].first()
        of_layer, kv_head = (first.index.get_level_values(name).to_numpy() for name in ("layer", "kv_head"))
        weights = np.where(kv_head == EVERY_KV_HEAD, first["heads"], first["heads"] / first["kv_heads"]).astype(float)
        return cls(keys, lost, first["n"].to_numpy(float), weights, of_layer.tolist())

    @property
    def samples(self) -> int:
        """Return the number of samples S."""
        return self.keys.shape[2]

    def curves(self, samples: Sequence[int] | None = None) -> list[Curve]:
        """Return the convex hull of each unit, of the mean over some samples, by default all."""
        chosen = list(range(self.samples) if samples is None else samples)
        k_UP, lost_UP = (part[:, :, chosen].mean(-1) for part in (self.keys, self.lost))
        return [Curve.of(*unit) for unit in zip(k_UP, lost_UP, self.most, strict=True)]

    def bounds(self) -> tuple[float, float]:
        """Return the smallest and the largest mean number of keys of a head that can be shared out.

        With all samples, and with each left out in turn: windows that go by the row keep other keys in each.
        """
        of_all = [bounds(self.curves(samples), self.weights.tolist()) for samples in (None, *self._others())]
        return max(least for least, _ in of_all), min(most for _, most in of_all)

    def lost_at(self, keys: Array, sample: int) -> float:
        """Return the loss of one sample, summed over the units at their keys: linear between points.

        Windows that keep as many keys are one point, of their mean loss.
        """
        total = 0.0
        for k_P, lost_P, most, k in zip(self.keys[:, :, sample], self.lost[:, :, sample], self.most, keys, strict=True):
            knots, of_point = np.unique([*k_P, most], return_inverse=True)
            total += float(np.interp(k, knots, np.bincount(of_point, [*lost_P, 0.0]) / np.bincount(of_point)))
        return total

    def shared(self, way: str, mean: float, curves: Sequence[Curve], mass: Array | None = None) -> Array:
        """Share keys of a mean number out to the units, by the way of SHARED, of which ZIGZAG needs `mass`; (U,)."""
        weights = self.weights.tolist()
        if way == BY_GAINS:
            return by_gain(curves, weights, mean)
        least_U, most_U = (np.array([curve.keys[end] for curve in curves]) for end in (0, -1))
        if way == UNIFORM:
            shape_U = np.ones(len(curves))
        elif way == PYRAMID:
            distinct, of_unit = np.unique(self.layers, return_inverse=True)
            shape_U = pyramid(len(distinct), mean, float(least_U.min()))[of_unit]
        else:
            assert mass is not None  # of ZIGZAG
            shape_U = mass
        return in_proportion(shape_U, least_U, most_U, weights, mean)

    def judged(self, way: str, mean: float, mass: Array | None = None) -> Array:
        """Return what each sample loses with the keys that the other samples' curves ask for (S,)."""
        shared = [self.shared(way, mean, self.curves(rest), mass) for rest in self._others()]
        return np.array([self.lost_at(keys, left) for left, keys in enumerate(shared)])

    def _others(self) -> list[list[int]]:
        """Return of each sample the others, where there are any."""
        every = range(self.samples)
        return [[s for s in every if s != left] for left in every] if self.samples > 1 else []


def of_one_design(lines: pd.DataFrame) -> pd.DataFrame:
    """Keep, of each label, method and unit, which the new column `per` names, the fullest design and seed."""
    lines = lines.assign(per=unit_of(lines))
    groups = lines.groupby(["selector", "per"], observed=True)
    return pd.concat([fullest_design(part) for _, part in groups], ignore_index=True)


def unit_of(lines: pd.DataFrame) -> pd.Series:
    """Return for each line whether a layer alone kept few keys, or one KV head of it."""
    return pd.Series(np.where(lines["kv_head"] == EVERY_KV_HEAD, LAYER, KV_HEAD), index=lines.index)
