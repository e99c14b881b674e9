"""What a dashboard draws of a record: means over heads and samples, as curves over context length."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from experiments.lazy import np, pd
from experiments.summary import NEEDED as BY_LAYER
from experiments.summary import TOLERANCE, HeadMeans, growth_of, plain
from experiments.tables.rows import ETAS, k_min

GROWING = ("fixed", "log", "power", "linear")  # rules whose windows are curves over length
MEASURES = ("dropped_mass", "output_error_renormalised")
# What the curves read of the two tables.
ROW_COLUMNS = ("layer", "head", "variant", "length", "n", *map(k_min, ETAS))
WINDOW_COLUMNS = ("variant", "length", "selector", "rule", "parameter", "scale", *MEASURES)
LOSS_BINS = 16  # points of a curve over positions, each the mean over a stretch of them
QUALITY = ["loss", "agreement", "kl"]


def curves_over_length(rows: pd.DataFrame, windows: pd.DataFrame) -> pd.DataFrame:
    """Return one line per context length: keys needed, by both means over heads, and mean errors of each window.

    Of a model the keys of each layer too, at one dropped mass: `mean_window_of_layer/0.1/07`.
    """
    rows = plain(rows)
    names = {k_min(eta): f"{eta:g}" for eta in ETAS if k_min(eta) in rows}
    means = HeadMeans.of(rows, list(names))
    with warnings.catch_warnings(action="ignore"):  # of a length that no head has
        mean = {f"mean_window/{eta}": np.nanmean(means.mean[name], axis=0) for name, eta in names.items()}
        typical = {
            f"typical_head/{eta}": np.exp(np.nanmean(np.log(means.mean[name]), axis=0)) for name, eta in names.items()
        }
    of_layers = _mean_windows_of_layers(means) if BY_LAYER in rows else {}
    needed = pd.DataFrame(mean | typical | of_layers, index=pd.Index(means.lengths, name="length"))
    windows = plain(windows[windows["rule"].isin(GROWING)])
    return pd.concat([needed, _means(windows, MEASURES, _names(windows))], axis=1)


def _mean_windows_of_layers(means: HeadMeans) -> dict[str, np.ndarray]:
    """Return the mean window of each layer at each length, if there are several layers."""
    layers, keys = np.unique(means.layer), means.mean[BY_LAYER]
    if len(layers) < 2:
        return {}
    with warnings.catch_warnings(action="ignore"):  # of a length that no head of a layer has
        return {
            f"mean_window_of_layer/{TOLERANCE:g}/{layer:02d}": np.nanmean(keys[means.layer == layer], axis=0)
            for layer in layers
        }


def _means(table: pd.DataFrame, columns: Sequence[str], names: pd.Series) -> pd.DataFrame:
    """Return the mean of each column per length and name, missing values left out.

    It is in the column's own precision, as a mean of pandas is, which for a small table takes several times as long.
    """
    lengths, line = np.unique(table["length"].to_numpy(), return_inverse=True)
    column, several = pd.factorize(names, sort=True)
    if not len(several):
        return pd.DataFrame(index=pd.Index(lengths, name="length"))
    cell, size = line * len(several) + column, len(lengths) * len(several)
    means = {}
    for name in columns:
        values = table[name].to_numpy()
        there = ~np.isnan(values)
        with np.errstate(invalid="ignore"):  # of a name that a length lacks
            mean = np.bincount(cell, np.where(there, values, 0), size) / np.bincount(cell, there, size)
        for one, curve in zip(several, mean.astype(values.dtype).reshape(len(lengths), -1).T, strict=True):
            if not np.isnan(curve).all():
                means[f"{name}/{one}"] = curve
    return pd.DataFrame(means, index=pd.Index(lengths, name="length"))


def quality_over_length(losses: pd.DataFrame) -> pd.DataFrame:
    """Return the mean loss, agreement and KL of each window, and of dense attention, by stretches of the context.

    A line's `length` is the number of keys that the last row of its stretch sees.
    """
    tokens = int(losses["position"].max()) + 1
    stretch = losses["position"] * LOSS_BINS // tokens
    return means_of_windows(losses.assign(length=((stretch + 1) * tokens) // LOSS_BINS), QUALITY)


def means_of_windows(table: pd.DataFrame, measures: list[str]) -> pd.DataFrame:
    """Return the means of a table's measures per context length, a column for each measure and window."""
    means = table.assign(window=_names(table).where(table["rule"] != "dense", "dense"))
    wide = means.astype(dict.fromkeys(measures, float)).pivot_table(measures, "length", "window")
    return wide.set_axis(["/".join(pair) for pair in wide.columns], axis=1)


def exponents(rows: pd.DataFrame) -> pd.DataFrame:
    """Return, for each dropped mass, the exponents of the mean window and of the typical head.

    Plain slopes in log-log over the keys that rows see, NaN if none sees more at longer contexts; they are for the eye,
    `python -m analysis` fits laws with intervals.
    """
    rows = plain(rows)
    etas = [eta for eta in ETAS if k_min(eta) in rows]
    means = HeadMeans.of(rows, ["n", *map(k_min, etas)])
    lines = [(eta, *growth_of(means, k_min(eta))) for eta in etas]
    return pd.DataFrame(lines, columns=["dropped_mass", "mean_window", "typical_head"]).astype(float)


def _names(windows: pd.DataFrame) -> pd.Series:
    """Return a name for each line's window, such as power_0.5_x4; its selector's goes first where there are several."""
    parts = ["rule", "parameter", "scale"]
    if "selector" in windows and len(windows["selector"].unique()) > 1:
        parts = ["selector", *parts]
    lines = zip(*(windows[part] for part in parts), strict=True)
    names: dict[tuple[Any, ...], str] = {}  # some dozens, of a million lines
    return pd.Series([names.get(line) or names.setdefault(line, _name(*line)) for line in lines], windows.index, str)


def _name(*window: Any) -> str:
    *selector, rule, parameter, scale = window
    value = f"{parameter:.3g}" if parameter % 1 else f"{parameter:g}"
    return "/".join([*selector, f"{rule}_{value}" + ("" if scale == 1 else f"_x{scale:.3g}")])
