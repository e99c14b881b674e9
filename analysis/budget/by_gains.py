"""A budget that shares a number of keys out: where they gain most, or in a shape that other methods give them.

What each layer, or KV head, loses alone at each number of keys is measured (runner=gains). Losses are taken to add up,
and keys go to where the next one gains most. `uniform`, `pyramid` and `zigzag` share the same total out otherwise, to
compare with: alike, falling evenly with depth (PyramidKV, arXiv 2406.02069), and in proportion to the keys that hold
90% of a layer's mass (as ZigZagKV, arXiv 2412.09036).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.budget.needs import rows_of
from analysis.records.load import complete_runs, load_rows, load_task
from analysis.statistics.allocation import Curve, bounds, by_gain, in_proportion, pyramid
from experiments.errors import UserError
from experiments.tables.gains import EVERY_KV_HEAD, GAINS
from experiments.windows.head_laws import AT_LENGTHS, FORMAT

Array = NDArray[np.float64]
BY_GAINS, UNIFORM, PYRAMID, ZIGZAG = SHARED = ("gains", "uniform", "pyramid", "zigzag")
OBJECTIVES = ("kl", "loss")
LAYER, KV_HEAD = UNITS = ("layer", "kv_head")  # what lost alone
MASS = "k_min_0.1"  # keys that hold 90% of a row's mass
LEAST_SAMPLES = 2  # each is left out in turn
POINT = ["rule", "parameter", "scale"]


@dataclass(frozen=True)
class Measured:
    """What each unit, a layer or a KV head, loses alone at one length: `keys` and `lost` (units, points, samples)."""

    keys: Array
    lost: Array
    most: Array
    weights: Array

    def curves(self, samples: Sequence[int]) -> list[Curve]:
        """Return the convex hull of each unit, of the mean over some samples."""
        k_UP, lost_UP = (part[:, :, list(samples)].mean(-1) for part in (self.keys, self.lost))
        return [Curve.of(*unit) for unit in zip(k_UP, lost_UP, self.most, strict=True)]

    def lost_at(self, keys: Array, sample: int) -> float:
        """Return the loss of one sample, summed over the units at their keys: linear between points."""
        ends = zip(self.keys[:, :, sample], self.lost[:, :, sample], self.most, keys, strict=True)
        return float(sum(np.interp(k, [*k_P, most], [*lost_P, 0.0]) for k_P, lost_P, most, k in ends))


Way = Callable[[Sequence[Curve], int], Array]
"""Maps the curves of all units and the length to the keys of each unit."""


def shared_budget(
    outputs: Path,
    model: str,
    cost: float | None,
    by: str = BY_GAINS,
    selector: str = "snap_kv_prompt",
    of: str = "kl",
    per: str | None = None,
) -> dict[str, Any]:
    """Return the content of a budget file that shares keys out at every length that was measured.

    Parameters
    ----------
    outputs : the directory that holds `runs/`.
    model : the label of a measured model, or a part of one.
    cost : keys of a head, on average over the heads, at each length.
    by : one of SHARED.
    selector : the method whose losses count.
    of : `kl`, KL(dense || this), whose mean is the loss added if the dense model is right, and which varies less; or
        `loss` itself.
    per : what keys are handed to, one of UNITS; None if gains of one of them alone were measured.

    Raises
    ------
    UserError : if no gains of the model by the method were measured, or both of layers and of KV heads and `per` does
        not say which are meant, or the cost is out of range.
    """
    if cost is None:
        raise UserError(f"--by {by} shares a number of keys out: give --cost, the keys of a head on average")
    runs = complete_runs(outputs)
    lines = _gains(load_task(runs, GAINS.name), model, per)
    if selector not in (recorded := sorted(set(lines["selector"].astype(str)))):
        raise UserError(f"--selector {selector}: gains were measured of {', '.join(recorded)}")
    lines = lines[(lines["selector"] == selector) & (lines["seed"] == lines["seed"].min())]
    lengths, samples = (sorted(lines[name].unique().tolist()) for name in ("length", "sample"))
    if len(samples) < LEAST_SAMPLES:
        raise UserError(
            f"{lines['label'].iloc[0]}: gains of {len(samples)} sample, each is left out in turn: measure 2"
        )
    units = (
        lines[["layer", "kv_head", "heads", "kv_heads", "key_dim"]].drop_duplicates().sort_values(["layer", "kv_head"])
    )
    mass = _mass(load_rows(runs), model, units["layer"].tolist()) if by == ZIGZAG else None
    shared = {
        length: _at(_measured(lines[lines["length"] == length], of), length, cost, by, units["layer"].tolist(), mass)
        for length in lengths
    }
    used = [run for run in runs if run.id in set(lines["run"].astype(str))]
    by_layer = units.drop_duplicates("layer")
    return {
        "format": FORMAT,
        "by": by,
        "selector": selector,
        "label": str(lines["label"].iloc[0]),
        "model": str(lines["model_hash"].iloc[0]),
        "text": str(lines["text_hash"].iloc[0]),
        "runs": {run.id: run.digest for run in used},
        "tolerance": None,
        "serves": {"rows": int(lines["tokens"].max()) + 1, "heads": "all of a KV head"},
        "cost": float(cost),
        "factor": 1.0,
        "law": AT_LENGTHS,
        "least": of,
        "fitted": {"samples": samples, "lengths": lengths},
        "held_out": {"samples": "each in turn"},
        "supported_length": lengths[-1],
        "extrapolated": False,
        "promise": [{"length": length, **shared[length][1]} for length in lengths],
        "pooled": {"alpha": float(cost), "C": 0.0},
        "heads": list(_heads(units, {length: keys for length, (keys, _) in shared.items()}, lines)),
        "heads_per_kv_head": (by_layer["heads"] // by_layer["kv_heads"]).tolist(),
        **({"head_dim": int(units["key_dim"].iloc[0])} if (units["key_dim"] > 0).all() else {}),
    }


def _gains(lines: pd.DataFrame, model: str, per: str | None) -> pd.DataFrame:
    """Return the gains of the layers or of the KV heads of one model, of its fullest design."""
    if lines.empty:
        return rows_of(lines, model, "experiment=gains")
    lines = lines.assign(head=lines["kv_head"])  # of designs, the one of most heads counts
    alone = lines["head"] != EVERY_KV_HEAD
    if per is not None:
        return rows_of(lines[alone == (per == KV_HEAD)], model, f"experiment=gains runner.per={per}")
    found = rows_of(lines, model, "experiment=gains")
    label = found["label"].iloc[0]
    if len(set(alone[lines["label"] == label])) > 1:
        raise UserError(f"{label}: gains of layers and of KV heads were measured: give --per {' or '.join(UNITS)}")
    return found


def _measured(lines: pd.DataFrame, of: str) -> Measured:
    """Return the gains of the lines of one length."""
    lines = lines.assign(lost=lines["kl"] if of == "kl" else lines["loss"] - lines["dense_loss"])
    index = ["layer", "kv_head", *POINT, "sample"]
    lines = lines.sort_values(index)
    of_units = lines.groupby(["layer", "kv_head"])
    shape = (of_units.ngroups, -1, lines["sample"].nunique())
    try:
        keys, lost = (lines[name].to_numpy(float).reshape(shape) for name in ("keys", "lost"))
    except ValueError as error:
        raise UserError(
            f"{lines['label'].iloc[0]}: gains of some layers were measured in part; measure anew"
        ) from error
    shares = of_units[["heads", "kv_heads"]].first()
    alone = of_units["n"].first().index.get_level_values("kv_head") != EVERY_KV_HEAD
    weights = np.where(alone, shares["heads"] / shares["kv_heads"], shares["heads"]).astype(float)
    return Measured(keys, lost, of_units["n"].first().to_numpy(float), weights)


def _at(
    measured: Measured, length: int, cost: float, by: str, layers: list[int], mass: Callable[[int], Array] | None
) -> tuple[Array, dict[str, float]]:
    """Return the keys of each unit at one length, and what is foretold of them on samples left out in turn."""
    samples = range(measured.keys.shape[2])
    curves = measured.curves(samples)
    least, most = bounds(curves, measured.weights.tolist())
    if not np.isfinite(cost) or not least <= cost <= most:
        raise UserError(f"--cost {cost:g}: at {length} keys, give a mean number of keys from {least:.0f} to {most:.0f}")
    ways = {name: partial(_share, name, measured, cost, layers, mass and mass(length)) for name in {by, UNIFORM}}
    judged = {
        name: np.array(
            [measured.lost_at(way(measured.curves([s for s in samples if s != left])), left) for left in samples]
        )
        for name, way in ways.items()
    }
    gained = judged[by] - judged[UNIFORM]
    foretold = {
        "mean_keys": float(cost),
        "lost": float(judged[by].mean()),
        "uniform": float(judged[UNIFORM].mean()),
        "difference": float(gained.mean()),
        "standard_error": float(gained.std(ddof=1) / np.sqrt(len(gained))),
    }
    return ways[by](curves), foretold


def _share(
    by: str, measured: Measured, cost: float, layers: list[int], mass: Array | None, curves: Sequence[Curve]
) -> Array:
    weights = measured.weights.tolist()
    if by == BY_GAINS:
        return by_gain(curves, weights, cost)
    least_U, most_U = (np.array([curve.keys[end] for curve in curves]) for end in (0, -1))
    if by == UNIFORM:
        shape_U = np.ones(len(curves))
    elif by == PYRAMID:
        distinct, of_unit = np.unique(layers, return_inverse=True)
        shape_U = pyramid(len(distinct), cost, float(least_U.min()))[of_unit]
    else:
        assert mass is not None  # of ZIGZAG
        shape_U = mass
    return in_proportion(shape_U, least_U, most_U, weights, cost)


def _mass(rows: pd.DataFrame, model: str, layers: list[int]) -> Callable[[int], Array]:
    """Return what says, at a length, the keys that hold 90% of the mass of each unit's layer."""
    rows = rows_of(rows, model)
    means = rows.pivot_table(MASS, "length", "layer")
    if missing := set(layers) - set(means):
        raise UserError(f"--by {ZIGZAG}: no rows of layer {min(missing)} were measured: run.py experiment=heads")
    lengths = means.index.to_numpy(float)
    return lambda length: np.array([np.interp(length, lengths, means[layer]) for layer in layers])


def _heads(units: pd.DataFrame, keys: dict[int, Array], lines: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield the line of each query head: what its layer or KV head is given."""
    seen = lines.groupby(["layer", "length"])["n"].first()
    places = units[["layer", "kv_head", "heads", "kv_heads"]].to_numpy(int).tolist()
    for number, (layer, kv_head, heads, kv_heads) in enumerate(places):
        shared = heads // kv_heads
        points = [{"length": n, "k": float(keys_U[number]), "extrapolation": False} for n, keys_U in keys.items()]
        line: dict[str, Any] = {"layer": layer, "keys": points}
        sees = seen[layer].to_numpy(float)
        if (sees < np.array(list(keys)) - int(lines["tokens"].max()) - 1).any():
            line["sees"] = int(sees.max())
        first = 0 if kv_head == EVERY_KV_HEAD else kv_head * shared
        for head in range(first, heads if kv_head == EVERY_KV_HEAD else first + shared):
            yield {"head": head} | line
