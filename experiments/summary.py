"""What a finished job found, for the terminal."""

from __future__ import annotations

from typing import Any, cast

from rich.table import Table
from rich.text import Text

from experiments.lazy import np, pd

MIN_SPAN = 1.5  # of the keys that a head's rows see; sliding-window layers stop growing
MEAN, TYPICAL = "mean window", "typical head"  # arithmetic and geometric mean over heads
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

    Keys are those for a dropped mass of 0.1: the mean window, and the typical head with quantiles over heads, each
    head's rows averaged. `1/sum p^2` is the median over heads; `tau` is the mean dropped mass.
    """
    rows, windows = plain(rows), plain(windows)
    windows = windows[windows["rule"] == "power"]
    result = Table(title=Text(title), title_justify="left", title_style="bold")
    powers = sorted(windows["parameter"].unique())
    shown = [c for c in (0.3, 0.5, 0.7) if c in powers] or powers[:3]
    result.add_column("length", justify="right")
    several = rows.groupby(["layer", "head"]).ngroups > 1
    result.add_column(MEAN if several else f"k_min({TOLERANCE:g})", justify="right")
    if several:
        result.add_column(f"{TYPICAL} [10%, 90%]", justify="right", no_wrap=True)
    result.add_column("1/sum p^2", justify="right")
    for c in shown:
        result.add_column(f"tau, n^{c:g}", justify="right")
    for length, group in rows.groupby("length"):
        heads = group.groupby(["layer", "head"])
        k_heads = heads[f"k_min_{TOLERANCE}"].mean()
        cells = [f"{length}", f"{k_heads.mean():.0f}"]
        if several:
            low, high = k_heads.quantile([0.1, 0.9])
            cells.append(f"{np.exp(np.log(k_heads).mean()):.0f} [{low:.0f}, {high:.0f}]")
        cells.append(f"{heads['participation'].mean().median():.1f}")
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
    of_mean, of_typical = growth(rows)
    lengths = f"between {rows['length'].min()} and {rows['length'].max()} keys"
    rough = "" if rows["length"].nunique() > 3 else " A rough slope: few lengths."
    keys = f"Keys for a dropped mass of {TOLERANCE:g} grow like n^"
    if len(exponents) == 1:
        return f"{keys}{of_mean:.2f} {lengths}.{rough}{_still(rows, exponents)}"
    low, high = np.quantile(exponents, [0.1, 0.9])
    return (
        f"{keys}{of_mean:.2f} in the {MEAN} and like n^{of_typical:.2f} in the {TYPICAL} {lengths} (10% of heads below "
        f"n^{low:.2f}, 10% above n^{high:.2f}).{rough}{_still(rows, exponents)}"
    )


def _still(rows: pd.DataFrame, exponents: list[float]) -> str:
    """Say how many heads have no exponent."""
    heads = rows.groupby(["layer", "head"]).ngroups
    if len(exponents) == heads:
        return ""
    return f" {heads - len(exponents)} of {heads} heads see no more keys at longer contexts."


def findings(rows: pd.DataFrame, windows: pd.DataFrame) -> dict[str, float | None]:
    """Return what is worth knowing of a job: the keys needed now, by both means, their growth, and sqrt(n).

    `mean_window` and `typical_head` are k_min of the tolerance at the longest `length`, the arithmetic and the
    geometric mean over heads; `mean_growth` and `typical_growth` the exponents of n that they grow with; `dropped` what
    the sqrt(n) most probable keys leave at that length, the mean over heads. None where it was not measured.
    """
    rows = plain(rows)
    length = rows["length"].max()
    longest = rows[rows["length"] == length]
    of_mean, of_typical = growth(rows)
    k_heads = longest.groupby(["layer", "head"])[f"k_min_{TOLERANCE}"].mean()
    windows = plain(windows)
    root = windows[
        (windows["length"] == length)
        & (windows["rule"] == "power")
        & (windows["parameter"] == 0.5)
        & (windows["scale"] == 1)
    ]
    return {
        "length": int(length),
        "mean_window": float(k_heads.mean()),
        "typical_head": float(np.exp(np.log(k_heads).mean())),
        "mean_growth": of_mean,
        "typical_growth": of_typical,
        "dropped": float(root.groupby(["layer", "head"])["dropped_mass"].mean().mean()) if len(root) else None,
    }


def sweep_table(jobs: list[dict[str, Any]]) -> Table:
    """Return one line per label and model of a sweep, the median over its jobs, from the `findings` of each.

    Models of one label are told apart by their hash.
    """
    title = f"The sweep, medians over jobs: keys for a dropped mass of {TOLERANCE:g}"
    result = Table(title=title, title_justify="left", title_style="bold")
    for name in ("source", "jobs", "of n", MEAN, "grows like", TYPICAL, "grows like", "tau, n^0.5"):
        result.add_column(name, justify="left" if name == "source" else "right", no_wrap=name == "source")
    table = pd.DataFrame(jobs).astype({"mean_growth": float, "typical_growth": float, "dropped": float})
    models = table.groupby("label")["model"].nunique()
    for keys, group in table.groupby(["label", "model"], sort=False, dropna=False):
        label, model = cast(tuple[str, str], keys)
        longest = group[group["length"] == group["length"].max()]
        middle = longest[["mean_window", "typical_head", "length", "dropped"]].median()
        powers = group[["mean_growth", "typical_growth"]].median()
        of_mean, of_typical = ("" if np.isnan(power) else f"n^{power:.2f}" for power in powers)
        result.add_row(
            Text(f"{label} ({model[:6]})" if models[label] > 1 else label),
            f"{len(group)}",
            f"{middle['length']:.0f}",
            f"{middle['mean_window']:.0f}",
            of_mean,
            f"{middle['typical_head']:.0f}",
            of_typical,
            "" if np.isnan(middle["dropped"]) else f"{middle['dropped']:.3g}",
        )
    return result


def growth(rows: pd.DataFrame, column: str = f"k_min_{TOLERANCE}") -> tuple[float | None, float | None]:
    """Return the plain log-log slopes against n of the mean window and of the typical head, None if no head grows.

    Means over the heads whose rows see more keys at longer contexts, at the lengths where each of them does.
    """
    grouped = rows.groupby(["layer", "head", "length"])
    n, k = (grouped[name].mean().unstack() for name in ("n", column))
    most = grouped["n"].max().unstack()
    growing = most.max(axis=1) > MIN_SPAN * most.min(axis=1)
    n, k, most = n[growing], k[growing], most[growing]
    fresh = (most.diff(axis=1) != 0).all(axis=0) & k.notna().all(axis=0)
    if not len(k) or fresh.sum() < 2:
        return None, None
    x = np.log(n.loc[:, fresh].mean())
    k = k.loc[:, fresh]
    of_mean, of_typical = (float(np.polyfit(x, y, 1)[0]) for y in (np.log(k.mean()), np.log(k).mean()))
    return of_mean, of_typical


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
