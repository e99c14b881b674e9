"""What a finished job found, for the terminal."""

from __future__ import annotations

from typing import Any, cast

from rich.table import Table
from rich.text import Text

from experiments.lazy import np, pd

MIN_SPAN = 1.5  # of the keys that a head's rows see; sliding-window layers stop growing
TOLERANCE = 0.1  # dropped mass at which the summary quotes the window

# What this file reads of the two tables.
ROW_COLUMNS = ["layer", "head", "variant", "length", "n", "participation", f"k_min_{TOLERANCE}"]
WINDOW_COLUMNS = [
    *("layer", "head", "variant", "length", "selector", "rule", "parameter", "scale", "dropped_mass", "tv"),
]


def plain(table: pd.DataFrame) -> pd.DataFrame:
    """Return the lines of the variant `plain`, whatever the score: `plain, |x|^2` is one too."""
    return table[table["variant"].astype(str).str.split(",").str[0] == "plain"]


def table(rows: pd.DataFrame, windows: pd.DataFrame, title: str) -> Table:
    """Return, per context length, the keys that are needed and the error of windows that grow like powers.

    `k_min(0.1)` is the median over heads with its quantiles, each head's rows averaged; `tau` is the dropped mass.
    """
    rows, windows = plain(rows), plain(windows)
    windows = windows[windows["rule"] == "power"]
    result = Table(title=Text(title), title_justify="left", title_style="bold")
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


def selectors(windows: pd.DataFrame) -> Table:
    """Return the total variation of each method's fixed and power windows at the longest length.

    Means over heads and samples. It is the one error that all methods have, and the dropped mass of a choice of keys.
    """
    windows = windows[(windows["length"] == windows["length"].max()) & windows["rule"].isin(["fixed", "power"])]
    result = Table(
        title="Total variation by method (of a choice of keys: its dropped mass), at the longest length",
        title_justify="left",
        title_style="bold",
    )
    result.add_column("selector")
    names = windows["rule"].map({"fixed": "k = ", "power": "n^"}).astype(str) + windows["parameter"].map("{:g}".format)
    means = windows.assign(window=names).pivot_table("tv", "selector", "window", sort=False)
    for name in means:
        result.add_column(str(name), justify="right")
    for selector, line in means.sort_values(str(means.columns[-1])).iterrows():
        result.add_row(Text(str(selector)), *(f"{value:.3g}" for value in line))
    return result


def sentence(rows: pd.DataFrame) -> str | None:
    """Return one line on how the window grows, None with fewer than two lengths."""
    rows = plain(rows)
    if rows["length"].nunique() < 2:
        return None
    exponents = slopes(rows)
    if not exponents:
        return f"Rows see about {rows['n'].max():.0f} keys at every length, so there is no growth to speak of."
    low, middle, high = np.quantile(exponents, [0.1, 0.5, 0.9])
    spread = f" (10% of heads below n^{low:.2f}, 10% above n^{high:.2f})" if len(exponents) > 1 else ""
    rough = "" if rows["length"].nunique() > 3 else " A rough slope: few lengths."
    heads = rows.groupby(["layer", "head"]).ngroups
    still = (
        f" {heads - len(exponents)} of {heads} heads see no more keys at longer contexts."
        if len(exponents) < heads
        else ""
    )
    return (
        f"The window of most probable keys for a dropped mass of {TOLERANCE:g} grows like n^{middle:.2f} between "
        f"{rows['length'].min()} and {rows['length'].max()} keys{spread}.{rough}{still}"
    )


def findings(rows: pd.DataFrame, windows: pd.DataFrame) -> dict[str, float | None]:
    """Return the three things worth knowing of a job, medians over heads: the window now, its growth, and sqrt(n).

    `keys` is k_min of the tolerance at the longest `length`, `growth` the exponent of n that it grows with, and
    `dropped` what the sqrt(n) most probable keys leave at that length; None where it was not measured.
    """
    rows = plain(rows)
    length = rows["length"].max()
    longest = rows[rows["length"] == length]
    exponents = slopes(rows)
    windows = plain(windows)
    root = windows[
        (windows["length"] == length)
        & (windows["rule"] == "power")
        & (windows["parameter"] == 0.5)
        & (windows["scale"] == 1)
    ]
    return {
        "length": int(length),
        "keys": float(longest.groupby(["layer", "head"])[f"k_min_{TOLERANCE}"].mean().median()),
        "growth": float(np.median(exponents)) if exponents else None,
        "dropped": float(root.groupby(["layer", "head"])["dropped_mass"].mean().median()) if len(root) else None,
    }


def sweep_table(jobs: list[dict[str, Any]]) -> Table:
    """Return one line per label and model of a sweep, the median over its jobs, from the `findings` of each.

    Models of one label are told apart by their hash.
    """
    result = Table(title="The sweep, medians over heads and jobs", title_justify="left", title_style="bold")
    for name in ("source", "jobs", f"k_min({TOLERANCE:g})", "of n", "grow like", "tau, n^0.5"):
        result.add_column(name, justify="left" if name == "source" else "right", no_wrap=name == "source")
    table = pd.DataFrame(jobs).astype({"growth": float, "dropped": float})
    models = table.groupby("label")["model"].nunique()
    for keys, group in table.groupby(["label", "model"], sort=False, dropna=False):
        label, model = cast(tuple[str, str], keys)
        longest = group[group["length"] == group["length"].max()]
        middle = longest[["keys", "length", "dropped"]].median()
        growth = group["growth"].median()
        result.add_row(
            Text(f"{label} ({model[:6]})" if models[label] > 1 else label),
            f"{len(group)}",
            f"{middle['keys']:.0f}",
            f"{middle['length']:.0f}",
            "" if np.isnan(growth) else f"n^{growth:.2f}",
            "" if np.isnan(middle["dropped"]) else f"{middle['dropped']:.3g}",
        )
    return result


def slopes(rows: pd.DataFrame, column: str = f"k_min_{TOLERANCE}") -> list[float]:
    """Return the plain log-log slope of mean k_min against n of each head whose rows see more keys at longer contexts.

    Fits with intervals are the analysis's business.
    """
    grouped = rows.groupby(["layer", "head", "length"])
    means = grouped[["n", column]].mean().assign(most=grouped["n"].max()).reset_index()
    # beyond a sliding window the same n comes again, which is no further point
    means = means.drop_duplicates(["layer", "head", "most"])
    return [
        float(np.polyfit(np.log(head["n"]), np.log(head[column]), 1)[0])
        for _, head in means.groupby(["layer", "head"])
        if head["n"].max() > MIN_SPAN * head["n"].min()
    ]
