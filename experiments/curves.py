"""What a dashboard draws of a record: means over heads and samples, as curves over context length."""

from __future__ import annotations

from experiments.lazy import np, pd
from experiments.summary import plain, slopes
from experiments.tables.rows import ETAS, k_min

GROWING = ("fixed", "log", "power", "linear")  # rules whose windows are curves over length
MEASURES = ("dropped_mass", "output_error_renormalised")
# What the curves read of the two tables.
ROW_COLUMNS = ("layer", "head", "variant", "length", "n", *map(k_min, ETAS))
WINDOW_COLUMNS = ("variant", "length", "selector", "rule", "parameter", "scale", *MEASURES)
LOSS_BINS = 16  # points of a loss curve, each the mean over a stretch of positions


def curves_over_length(rows: pd.DataFrame, windows: pd.DataFrame) -> pd.DataFrame:
    """Return one line per context length: means over heads and samples of k_min and of the errors of each window."""
    rows = plain(rows)
    k_min = rows.groupby("length")[[name for name in rows.columns if str(name).startswith("k_min_")]].mean()
    windows = plain(windows[windows["rule"].isin(GROWING)])
    means = windows.assign(window=_names(windows)).pivot_table([*MEASURES], "length", "window")
    return pd.concat([k_min, means.set_axis(["/".join(pair) for pair in means.columns], axis=1)], axis=1)


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
    """Return, for each dropped mass, the exponent of the keys needed and how many they are at the longest context.

    The exponent is the median over heads of their plain slopes in log-log over the keys that they see, NaN if none
    sees more at longer contexts; it is for the eye, `python -m analysis` fits laws with intervals. The keys are the
    mean over heads and samples.
    """
    rows = plain(rows)
    longest = rows[rows["length"] == rows["length"].max()]
    lines = []
    for name in (name for name in map(str, rows) if name.startswith("k_min_")):
        of_heads = slopes(rows, name)
        exponent = float(np.median(of_heads)) if of_heads else np.nan
        lines.append({"dropped_mass": float(name[6:]), "exponent": exponent, "k_longest": longest[name].mean()})
    return pd.DataFrame(lines)


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
