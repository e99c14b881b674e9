"""What a dashboard draws of a record: means over heads and samples, as curves over context length."""

from __future__ import annotations

from experiments.lazy import np, pd
from experiments.summary import growth, plain
from experiments.tables.rows import ETAS, k_min

GROWING = ("fixed", "log", "power", "linear")  # rules whose windows are curves over length
MEASURES = ("dropped_mass", "output_error_renormalised")
# What the curves read of the two tables.
ROW_COLUMNS = ("layer", "head", "variant", "length", "n", *map(k_min, ETAS))
WINDOW_COLUMNS = ("variant", "length", "selector", "rule", "parameter", "scale", *MEASURES)
LOSS_BINS = 16  # points of a loss curve, each the mean over a stretch of positions


def curves_over_length(rows: pd.DataFrame, windows: pd.DataFrame) -> pd.DataFrame:
    """Return one line per context length: keys needed, by both means over heads, and mean errors of each window."""
    rows = plain(rows)
    names = {k_min(eta): f"{eta:g}" for eta in ETAS if k_min(eta) in rows}
    of_heads = rows.groupby(["length", "layer", "head"])[list(names)].mean()
    mean = of_heads.groupby("length").mean()
    typical = of_heads.apply(np.log).groupby("length").mean().apply(np.exp)
    needed = [
        mean.rename(columns=names).add_prefix("mean_window/"),
        typical.rename(columns=names).add_prefix("typical_head/"),
    ]
    windows = plain(windows[windows["rule"].isin(GROWING)])
    means = windows.assign(window=_names(windows)).pivot_table([*MEASURES], "length", "window")
    return pd.concat([*needed, means.set_axis(["/".join(pair) for pair in means.columns], axis=1)], axis=1)


def loss_over_length(losses: pd.DataFrame) -> pd.DataFrame:
    """Return the mean loss in nats of each window, and of dense attention, by stretches of the context.

    A line's `length` is the number of keys that the last row of its stretch sees.
    """
    tokens = int(losses["position"].max()) + 1
    stretch = losses["position"] * LOSS_BINS // tokens
    names = _names(losses).where(losses["rule"] != "dense", "dense")
    means = losses.assign(length=((stretch + 1) * tokens) // LOSS_BINS, window=names)
    return means.pivot_table("loss", "length", "window").add_prefix("loss/")


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
    lines = [(eta, *growth(rows, k_min(eta))) for eta in ETAS if k_min(eta) in rows]
    return pd.DataFrame(lines, columns=["dropped_mass", "mean_window", "typical_head"]).astype(float)


def _names(windows: pd.DataFrame) -> pd.Series:
    """Return a name for each line's window, such as power_0.5_x4; its selector's goes first where there are several."""
    scale = windows["scale"].map(lambda scale: "" if scale == 1 else f"_x{scale:.3g}")
    names = (
        windows["rule"].astype(str)
        + "_"
        + windows["parameter"].map(lambda value: f"{value:.3g}" if value % 1 else f"{value:g}")
        + scale
    )
    several = "selector" in windows and len(windows["selector"].unique()) > 1
    return windows["selector"].astype(str) + "/" + names if several else names
