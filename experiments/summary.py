"""What a finished job found, for the terminal."""

from __future__ import annotations

import numpy as np
import pandas as pd
from rich.table import Table

MIN_SPAN = 1.5  # of the keys that a head's rows see; sliding-window layers stop growing
TOLERANCE = 0.1  # dropped mass at which the summary quotes the window


def table(rows: pd.DataFrame, windows: pd.DataFrame, title: str) -> Table:
    """Return, per context length, the keys that are needed and the error of windows that grow like powers.

    `k_min(0.1)` is the median over heads with its quantiles, each head's rows averaged; `tau` is the dropped mass.
    """
    rows = rows[rows["variant"] == "plain"]
    windows = windows[(windows["variant"] == "plain") & (windows["rule"] == "power")]
    result = Table(title=title, title_justify="left", title_style="bold")
    powers = sorted(windows["parameter"].unique())
    shown = [c for c in (0.3, 0.5, 0.7) if c in powers] or powers[:3]
    result.add_column("length", justify="right")
    several = rows.groupby(["layer", "head"]).ngroups > 1
    result.add_column(f"k_min({TOLERANCE:g})" + (" [10%, 90%]" if several else ""), justify="right", no_wrap=True)
    result.add_column("1/sum p^2", justify="right")
    for c in shown:
        result.add_column(f"tau, n^{c:g}", justify="right")
    for length, group in rows.groupby("length"):
        heads = group.groupby(["layer", "head"])
        k_heads = heads[f"k_min_{TOLERANCE}"].mean()
        low, middle, high = k_heads.quantile([0.1, 0.5, 0.9])
        spread = f" [{low:.0f}, {high:.0f}]" if several else ""
        cells = [f"{length}", f"{middle:.0f}{spread}", f"{heads['participation'].mean().median():.1f}"]
        at_length = windows[windows["length"] == length]
        cells += [f"{at_length.loc[at_length['parameter'] == c, 'dropped_mass'].mean():.3g}" for c in shown]
        result.add_row(*cells)
    return result


def sentence(rows: pd.DataFrame) -> str | None:
    """Return one line on how the window grows, None with fewer than two lengths.

    The slope is a plain log-log fit of each head's mean k_min; fits with intervals are the analysis's business.
    """
    rows = rows[rows["variant"] == "plain"]
    if rows["length"].nunique() < 2:
        return None
    means = rows.groupby(["layer", "head", "length"])[["n", f"k_min_{TOLERANCE}"]].mean().reset_index()
    slopes = [
        np.polyfit(np.log(head["n"]), np.log(head[f"k_min_{TOLERANCE}"]), 1)[0]
        for _, head in means.groupby(["layer", "head"])
        if head["n"].max() > MIN_SPAN * head["n"].min()
    ]
    if not slopes:
        return f"Rows see about {means['n'].max():.0f} keys at every length, so there is no growth to speak of."
    low, middle, high = np.quantile(slopes, [0.1, 0.5, 0.9])
    spread = f" (10% of heads below n^{low:.2f}, 10% above n^{high:.2f})" if len(slopes) > 1 else ""
    rough = "" if means["length"].nunique() > 3 else " A rough slope: few lengths."
    return (
        f"The window for a dropped mass of {TOLERANCE:g} grows like n^{middle:.2f} between "
        f"{means['length'].min()} and {means['length'].max()} keys{spread}.{rough}"
    )
