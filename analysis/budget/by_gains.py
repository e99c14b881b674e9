"""A budget that shares a number of keys out: where they gain most, or in a shape that other methods give them.

What each layer, or KV head, loses alone at each number of keys is measured (runner=gains). Losses are taken to add up,
and keys go to where the next one gains most. `uniform`, `pyramid` and `zigzag` share the same total out otherwise, to
compare with: alike, falling evenly with depth (PyramidKV, arXiv 2406.02069), and in proportion to the keys that hold
90% of a layer's mass (as ZigZagKV, arXiv 2412.09036).

Shape letters: U layers, or KV heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.budget.needs import lines_of, rows_of
from analysis.records.load import complete_runs, load_rows, load_task
from analysis.statistics.gains import BY_GAINS, KL, UNIFORM, UNITS, ZIGZAG, Measured, of_one_design
from experiments.errors import UserError
from experiments.tables.gains import EVERY_KV_HEAD, GAINS
from experiments.windows.head_laws import AT_LENGTHS, FORMAT

Array = NDArray[np.float64]
MASS = "k_min_0.1"  # keys that hold 90% of a row's mass
LEAST_SAMPLES = 2  # each is left out in turn


def shared_budget(
    outputs: Path,
    model: str,
    cost: float | None,
    by: str = BY_GAINS,
    selector: str = "snap_kv_prompt",
    of: str = KL,
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
    per : one of UNITS, what keys are handed to; None for the one that was measured.

    Raises
    ------
    UserError : if no gains of the model by the method were measured, if they were of layers and of KV heads and `per`
        does not say which, or if the cost is out of range.
    """
    if cost is None:
        raise UserError(f"--by {by} shares a number of keys out: give --cost, the keys of a head on average")
    runs = complete_runs(outputs)
    lines = _lines(lines_of(load_task(runs, GAINS.name), model, "experiment=gains"), selector, per)
    lengths, samples = (sorted(lines[name].unique().tolist()) for name in ("length", "sample"))
    if len(samples) < LEAST_SAMPLES:
        raise UserError(
            f"{lines['label'].iloc[0]}: gains of {len(samples)} sample, each is left out in turn: measure 2"
        )
    used = [run for run in runs if run.id in set(lines["run"].astype(str))]
    if some := next((run.config["runner"].get("layers") for run in used if run.config["runner"].get("layers")), None):
        named = ", ".join(map(str, some))
        raise UserError(f"gains of layers {named} alone were measured: measure all, without runner.layers")
    units = (
        lines[["layer", "kv_head", "heads", "kv_heads", "key_dim"]].drop_duplicates().sort_values(["layer", "kv_head"])
    )
    if by == ZIGZAG and not any(run.file("rows.parquet") for run in runs):
        raise UserError(f"--by {ZIGZAG} goes by the mass of rows, and none were measured: run.py experiment=heads")
    mass = _mass(load_rows(runs), model, units["layer"].tolist()) if by == ZIGZAG else None
    shared = {
        length: _at(Measured.of(lines[lines["length"] == length], of), length, cost, by, mass) for length in lengths
    }
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


def _lines(lines: pd.DataFrame, selector: str, per: str | None) -> pd.DataFrame:
    """Return the gains of one model by one method, of one unit, design and seed."""
    if selector not in (recorded := sorted(set(lines["selector"].astype(str)))):
        raise UserError(f"--selector {selector}: gains were measured of {', '.join(recorded)}")
    lines = lines[lines["selector"].astype(str) == selector]
    lines = of_one_design(lines)
    measured = [name for name in UNITS if (lines["per"] == name).any()]
    if per is None and len(measured) > 1:
        raise UserError(f"gains of layers and of KV heads were measured: give --per {' or '.join(UNITS)}")
    if per not in (None, *measured):
        raise UserError(
            f"--per {per}: gains were measured of each {measured[0]}: run.py experiment=gains runner.per={per}"
        )
    return lines[lines["per"] == (per or measured[0])]


def _at(
    measured: Measured, length: int, cost: float, by: str, mass: Callable[[int], Array] | None
) -> tuple[Array, dict[str, float]]:
    """Return the keys of each unit at one length, and what is foretold of them on samples left out in turn."""
    least, most = measured.bounds()
    if not np.isfinite(cost) or not least <= cost <= most:
        within = f"from {math.ceil(least)} to {math.floor(most)}"
        raise UserError(f"--cost {cost:g}: at {length} keys, give a mean number of keys {within}")
    mass_U = mass and mass(length)
    lost, alike = measured.judged(by, cost, mass_U), measured.judged(UNIFORM, cost)
    gained = lost - alike
    foretold = {
        "mean_keys": float(cost),
        "lost": float(lost.mean()),
        "uniform": float(alike.mean()),
        "difference": float(gained.mean()),
        "standard_error": float(gained.std(ddof=1) / np.sqrt(len(gained))),
    }
    return measured.shared(by, cost, measured.curves(), mass_U), foretold


def _mass(rows: pd.DataFrame, model: str, layers: list[int]) -> Callable[[int], Array]:
    """Return what says, at a length, the keys that hold 90% of the mass of each unit's layer."""
    rows = rows_of(rows, model, "experiment=heads")
    means = rows.pivot_table(MASS, "length", "layer")
    if missing := set(layers) - set(means):
        raise UserError(f"--by {ZIGZAG}: no rows of layer {min(missing)} were measured: run.py experiment=heads")
    lengths = means.index.to_numpy(float)

    def mass(length: int) -> Array:
        if not lengths[0] <= length <= lengths[-1]:
            raise UserError(
                f"--by {ZIGZAG}: gains are of {length} tokens, rows of {lengths[0]:.0f} to {lengths[-1]:.0f}: measure "
                "rows of that length, with experiment=heads"
            )
        return np.array([np.interp(length, lengths, means[layer]) for layer in layers])

    return mass


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
