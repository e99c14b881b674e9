"""What a finished job found, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from rich.table import Table
from rich.text import Text

from experiments.lazy import np, pd

MIN_SPAN = 1.5  # of the keys that a head's rows see; sliding-window layers stop growing
MEAN, TYPICAL = "mean window", "typical head"  # arithmetic and geometric mean over heads
TOLERANCE = 0.1  # dropped mass at which the summary quotes the window
NEEDED = f"k_min_{TOLERANCE}"

# What this file reads of the two tables.
ROW_COLUMNS = ["layer", "head", "variant", "length", "n", "participation", NEEDED]
WINDOW_COLUMNS = [
    *("layer", "head", "variant", "length", "selector", "rule", "parameter", "scale", "dropped_mass", "tv"),
]


def plain(table: pd.DataFrame) -> pd.DataFrame:
    """Return the lines of the variant `plain`, whatever the score: `plain, |x|^2` is one too."""
    variants = table["variant"]
    return table[variants.isin([name for name in variants.unique() if str(name).split(",")[0] == "plain"])]


@dataclass(frozen=True)
class HeadMeans:
    """Means over the lines of each head at each length, as arrays (heads, lengths), NaN where there is no line.

    `lengths` in rising order; `layer` of each head; `most`, the most keys that a row sees; `mean` by column, missing
    values left out. Groups of pandas would take longer than all else that a small job has to say.
    """

    lengths: np.ndarray
    layer: np.ndarray
    most: np.ndarray
    mean: dict[str, np.ndarray]

    @classmethod
    def of(cls, rows: pd.DataFrame, columns: Sequence[str]) -> HeadMeans:
        """Average columns of lines that have a `layer`, `head` and `length`; `most` is NaN if they have no `n`."""
        layer, head = (rows[name].to_numpy(np.int64) for name in ("layer", "head"))
        per_layer = head.max(initial=0) + 1
        heads, line = np.unique(layer * per_layer + head, return_inverse=True)
        lengths, column = np.unique(rows["length"].to_numpy(), return_inverse=True)
        cell, shape = line * len(lengths) + column, (len(heads), len(lengths))
        most = np.full(len(heads) * len(lengths), np.nan)
        if "n" in rows:
            np.fmax.at(most, cell, rows["n"].to_numpy(np.float64))

        def mean(name: str) -> np.ndarray:
            values = rows[name].to_numpy(np.float64)
            there = ~np.isnan(values)
            with np.errstate(invalid="ignore"):
                total, count = (np.bincount(cell, part, most.size) for part in (np.where(there, values, 0), there))
                return (total / count).reshape(shape)

        return cls(lengths, heads // per_layer, most.reshape(shape), {name: mean(name) for name in columns})

    @property
    def heads(self) -> int:
        """Number of heads."""
        return len(self.most)

    @property
    def growing(self) -> np.ndarray:
        """Heads whose rows see more keys at longer contexts, (heads,)."""
        return np.fmax.reduce(self.most, axis=1) > MIN_SPAN * np.fmin.reduce(self.most, axis=1)


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
    means = HeadMeans.of(rows, [NEEDED, "participation"])
    several = means.heads > 1
    result.add_column(MEAN if several else f"k_min({TOLERANCE:g})", justify="right")
    if several:
        result.add_column(f"{TYPICAL} [10%, 90%]", justify="right", no_wrap=True)
    result.add_column("1/sum p^2", justify="right")
    for c in shown:
        result.add_column(f"tau, n^{c:g}", justify="right")
    of_length, parameter, dropped = (windows[name].to_numpy() for name in ("length", "parameter", "dropped_mass"))
    for i, length in enumerate(means.lengths):
        k_heads, entries = (_present(means.mean[name][:, i]) for name in (NEEDED, "participation"))
        cells = [f"{length}", f"{k_heads.mean():.0f}"]
        if several:
            low, high = np.quantile(k_heads, [0.1, 0.9])
            cells.append(f"{np.exp(np.log(k_heads).mean()):.0f} [{low:.0f}, {high:.0f}]")
        cells.append(f"{np.median(entries):.1f}")
        cells += [f"{_mean_of(dropped[(of_length == length) & (parameter == c)]):.3g}" for c in shown]
        result.add_row(*cells)
    return result


# How windows of rules are named.
WRITTEN = {"fixed": "k = ", "power": "n^", "own_top_p": "own top-p ", "own_threshold": "own p > ", "ada": "ada "}


def selectors(windows: pd.DataFrame) -> Table | None:
    """Return the total variation of each method's windows at the longest length, None if only a grid was measured.

    Of fixed and power windows, and those by the method's own estimate; of others where there are none of these. Means
    over heads and samples. It is the one error that all methods have, and the dropped mass of a choice of keys.
    """
    windows = windows[(windows["length"] == windows["length"].max()) & (windows["rule"] != "grid")]
    if windows["rule"].isin(WRITTEN).any():
        windows = windows[windows["rule"].isin(WRITTEN)]
    if windows.empty:
        return None
    result = Table(
        title="Total variation by method (of a choice of keys: its dropped mass), at the longest length",
        title_justify="left",
        title_style="bold",
    )
    result.add_column("selector")
    written = windows["rule"].map(lambda rule: WRITTEN.get(rule, f"{rule} ")).astype(str)
    scale = windows["scale"].map(lambda value: "" if value == 1 else f" x {value:g}")
    names = written + windows["parameter"].map("{:g}".format) + scale
    means = windows.assign(window=names).pivot_table("tv", "selector", "window", sort=False, dropna=False)
    if means.isna().any(axis=None):
        result.caption = "none: smaller than the least budget of the method, whose state it has to hold"
        result.caption_justify = "left"
    for name in means:
        result.add_column(str(name), justify="right")
    for selector, line in means.sort_values(str(means.columns[-1])).iterrows():
        result.add_row(Text(str(selector)), *("none" if value != value else f"{value:.3g}" for value in line))
    return result


def sentence(rows: pd.DataFrame) -> str | None:
    """Return one line on how the window grows, None with fewer than two lengths."""
    rows = plain(rows)
    means = HeadMeans.of(rows, ["n", NEEDED])
    if len(means.lengths) < 2:
        return None
    exponents = _slopes(means, NEEDED)
    if not len(exponents):
        return f"Rows see about {rows['n'].max():.0f} keys at every length, so there is no growth to speak of."
    of_mean, of_typical = growth_of(means, NEEDED)
    if of_mean is None or of_typical is None:
        return "Heads were measured at too few lengths in common to say how keys grow."
    grown = means.lengths[_in_growth(means, NEEDED)[1]]
    lengths = f"between {grown[0]} and {grown[-1]} keys"
    rough = "" if len(grown) > 3 else " A rough slope: few lengths."
    keys = f"Keys for a dropped mass of {TOLERANCE:g} grow like n^"
    if len(exponents) == 1:
        return f"{keys}{of_mean:.2f} {lengths}.{rough}{_still(means.heads, len(exponents))}"
    low, high = np.quantile(exponents, [0.1, 0.9])
    fitted = _in_growth(means, NEEDED)[0].sum()
    of_them = "one head that sees" if fitted == 1 else f"{fitted} heads that see"
    whose = "" if fitted == len(exponents) else f" Both means are of the {of_them} more keys at each length."
    return (
        f"{keys}{of_mean:.2f} in the {MEAN} and like n^{of_typical:.2f} in the {TYPICAL} {lengths} (10% of heads below "
        f"n^{low:.2f}, 10% above n^{high:.2f}).{whose}{rough}{_still(means.heads, len(exponents))}"
    )


def _still(heads: int, growing: int) -> str:
    """Say how many heads have no exponent."""
    return "" if growing == heads else f" {heads - growing} of {heads} heads see no more keys at longer contexts."


def findings(rows: pd.DataFrame, windows: pd.DataFrame) -> dict[str, float | None]:
    """Return what is worth knowing of a job: the keys needed now, by both means, their growth, and sqrt(n).

    `mean_window` and `typical_head` are k_min of the tolerance at the longest `length`, the arithmetic and the
    geometric mean over heads; `mean_growth` and `typical_growth` the exponents of n that they grow with; `dropped` what
    the sqrt(n) most probable keys leave at that length, the mean over heads. None where it was not measured.
    """
    rows = plain(rows)
    length = rows["length"].max()
    means = HeadMeans.of(rows, ["n", NEEDED])
    of_mean, of_typical = growth_of(means, NEEDED)
    k_heads = _present(means.mean[NEEDED][:, -1])
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


def growth(rows: pd.DataFrame, column: str = NEEDED) -> tuple[float | None, float | None]:
    """Return the plain log-log slopes against n of the mean window and of the typical head; see `growth_of`."""
    return growth_of(HeadMeans.of(rows, ["n", column]), column)


def growth_of(means: HeadMeans, column: str) -> tuple[float | None, float | None]:
    """Return the slopes of both means of a column, None if no head grows, of means that have `n` too.

    Means over the heads whose rows see more keys at most lengths, and at the same ones: the full layers, where others
    have a sliding window. Fits with intervals are the analysis's business.
    """
    alike, lengths = _in_growth(means, column)
    if lengths.sum() < 2:
        return None, None
    n, k = means.mean["n"], means.mean[column]
    x, k = np.log(n[alike][:, lengths].mean(axis=0)), k[alike][:, lengths]
    of_mean, of_typical = (float(np.polyfit(x, y, 1)[0]) for y in (np.log(k.mean(axis=0)), np.log(k).mean(axis=0)))
    return of_mean, of_typical


def _in_growth(means: HeadMeans, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Return which heads and which lengths the growth of both means is of: (heads,) and (lengths,)."""
    more = (np.diff(means.most, axis=1, prepend=0) != 0) & ~np.isnan(means.mean[column])
    if not means.growing.any():
        return means.growing, np.zeros(len(means.lengths), dtype=bool)
    lengths = more[more.sum(axis=1, where=means.growing[:, None]).argmax()]
    return means.growing & (more == lengths).all(axis=1), lengths


def slopes(rows: pd.DataFrame, column: str = NEEDED) -> list[float]:
    """Return the plain log-log slope of mean k_min against n of each head that sees more keys at longer contexts."""
    return _slopes(HeadMeans.of(rows, ["n", column]), column)


def _slopes(means: HeadMeans, column: str) -> list[float]:
    exponents = []
    for head in np.flatnonzero(means.growing):
        # beyond a sliding window the same n comes again, which is no further point
        seen, first = np.unique(means.most[head], return_index=True)
        first = first[~np.isnan(seen)]
        x, y = (np.log(means.mean[name][head, first]) for name in ("n", column))
        x = x - x.mean()
        exponents.append(float((x * y).sum() / (x * x).sum()))
    return exponents


def _present(values: np.ndarray) -> np.ndarray:
    """Return the values that are not missing."""
    return values[~np.isnan(values)]


def _mean_of(values: np.ndarray) -> float:
    """Mean in float64 of what is not missing, NaN of nothing."""
    values = _present(values)
    return float(values.mean(dtype=np.float64)) if len(values) else np.nan
