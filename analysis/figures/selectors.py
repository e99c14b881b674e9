"""Practical selectors beside the oracle: errors against k, n and what is read, budget and choice, and exponents."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator
from omegaconf import DictConfig

from analysis.figures import NothingToDraw
from analysis.figures.page import families, style
from analysis.figures.page.names import KINDS, kind_of
from analysis.figures.page.sources import tag

BLACK, GREY = (0.0, 0.0, 0.0, 1.0), (0.55, 0.55, 0.55, 1.0)
MARKERS = "osv^D"
DASHES = ("-", "--", ":", "-.", "-")
Look = tuple[style.Colour, str, str]


def draw(tables: Mapping[str, pd.DataFrame], config: DictConfig) -> Figure:
    """Draw one column of panels per source; see conf/figure/selectors.yaml."""
    table, grown, sources = tables["selectors"], tables["selectors_summary"], tables["selectors_sources"]
    labels = sources["label"].tolist()
    if not labels:
        raise NothingToDraw("no selector beside the oracle: python run.py experiment=selectors")
    grown = grown[grown["measure"] == "keys needed"]
    looks = _looks(list(table["selector"].unique()))
    grid = table[(table["rule"] == "grid") & (table["length"] == table.groupby("label")["length"].transform("max"))]
    grid = grid[grid["k"] < 0.9 * grid["length"]]  # beyond it the curves only fall to 0
    timed = bool(grid["ms"].notna().any())
    figure, axes = style.panels(6 + timed, len(labels), config.height, left=0.95, gap=0.3, right=0.04, edge=1.05)
    for column, label in zip(axes.T, labels, strict=True):
        own = table[table["label"] == label]
        longest = grid[grid["label"] == label]
        fixed = own[(own["rule"] == "fixed") & (own["parameter"] == config.budget) & (own["k"] < own["length"])]
        tag(label, *column)
        style.title(column[0], label, column[0].get_position().width * style.PAGE)
        for panel, lines, x, y in (
            (column[0], longest, "k", "tv"),
            (column[1], longest, "k", "output_error"),
            (column[2], fixed, "length", "output_error"),
            (column[3], longest, "keys_read", "output_error"),
        ):
            _curves(panel, lines, x, y, looks)
        style.length_axis(column[2], fixed["length"].unique().tolist(), most=4)
        if timed:
            _times(column[4], longest.dropna(subset="ms"), looks)
        _bars(column[-2], fixed[fixed["length"] == fixed["length"].max()], looks)
        _exponents(column[-1], grown[grown["label"] == label], looks)
    for line in axes[:-2]:
        low, high = (limits(panel.get_ylim()[i] for panel in line) for i, limits in ((0, min), (1, max)))
        for panel in line:
            panel.set_ylim(max(low, config.least), high)
    n = {label: style.count_text(table.loc[table["label"] == label, "length"].max()) for label in labels}
    words = [
        ("keys kept", "total variation"),
        ("keys kept", "output error"),
        ("context length (keys)", f"output error,\n{config.budget} keys"),
        ("keys read", "output error"),
        *([("ms per token, search and attention", "output error")] if timed else []),
        (f"total variation, {config.budget} keys", ""),
        ("exponent C", ""),
    ]
    for line, (x, y) in zip(axes, words, strict=True):
        shown = [panel for panel in line if panel.axison]
        for panel in shown:
            panel.set_xlabel(x)
            panel.tick_params(labelleft=panel is shown[0])
        shown[0].set_ylabel(y)
    families.legend(axes[0, -1], {name.replace("_", " "): look for name, look in looks.items()})
    names = style.short_names(labels, 16)
    at = "; ".join(f"{names[label]}: {length}" for label, length in n.items())
    style.footer(figure, f"{style.counts(sources)} Longest context: {at} keys.")
    return figure


def _looks(names: list[str]) -> dict[str, Look]:
    """Return shade, dash and marker of each method, kind by kind."""
    plain = [kind for kind in KINDS if kind not in ("oracle", "control")]
    shades = dict(zip(plain, style.shades(len(plain)), strict=True))
    looks: dict[str, Look] = {}
    for name in sorted(names, key=lambda name: list(KINDS).index(kind_of(name))):
        kind = kind_of(name)
        if kind == "oracle":
            looks[name] = (BLACK, "-", "")
        elif kind == "control":
            looks[name] = (GREY, "--", "x")
        else:
            index = KINDS[kind].index(name)
            looks[name] = (shades[kind], DASHES[plain.index(kind) % len(DASHES)], MARKERS[index % len(MARKERS)])
    return looks


def _curves(axes: Axes, table: pd.DataFrame, x: str, y: str, looks: dict[str, Look]) -> None:
    for name, look in looks.items():
        curve = table[table["selector"] == name]
        families.curve(axes, curve, x, y, look)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: style.count_text(round(value))))
    axes.set_yscale("log")
    axes.yaxis.set_minor_formatter(NullFormatter())
    shown = table.loc[table[y] > 0, y]
    if len(shown):
        axes.set_ylim(0.8 * shown.min(), 1.3 * shown.max())


def _times(axes: Axes, table: pd.DataFrame, looks: dict[str, Look]) -> None:
    """Draw the error against milliseconds per token where a model was timed, dense attention as a line."""
    if table.empty:
        axes.set_axis_off()
        return
    for name, look in looks.items():
        families.curve(axes, table[table["selector"] == name], "ms", "output_error", look)
    axes.axvline(table["dense_ms"].mean(), color="0.6", lw=2.4, zorder=0)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1,) if style.PAGE < style.FULL_PAGE else (1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_yscale("log")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _bars(axes: Axes, table: pd.DataFrame, looks: dict[str, Look]) -> None:
    """Stack what the budget costs and what the choice does, the best selector on top."""
    order = [name for name in looks if name in set(table["selector"])]
    lines = table.set_index("selector").loc[order]
    y = np.arange(len(lines))[::-1]
    axes.barh(y, lines["budget"], color="0.35", height=0.7)
    axes.barh(y, lines["choice"], left=lines["budget"], color=[looks[name][0] for name in order], height=0.7, alpha=0.6)
    reach = (lines["choice_high"] - lines["choice"]).fillna(0)
    axes.errorbar(lines["tv"], y, xerr=reach, fmt="none", ecolor="black", elinewidth=0.6)
    _names(axes, y, order)
    axes.set_xlim(0, 1)


def _exponents(axes: Axes, table: pd.DataFrame, looks: dict[str, Look]) -> None:
    order = [name for name in looks if name in set(table["selector"])]
    lines = table.set_index("selector").loc[order]
    y = np.arange(len(lines))[::-1]
    for name, height in zip(order, y, strict=True):
        line = lines.loc[name]
        axes.plot([line["C_low"], line["C_high"]], [height, height], color=looks[name][0], lw=0.8)
        axes.plot([line["C"]], [height], looks[name][2] or "o", color=looks[name][0], ms=2.6)
    axes.axvline(1, color="black", lw=0.5)
    axes.set_xlim(0, max(1.2, float(np.nan_to_num(lines["C_high"].max())) + 0.05))
    _names(axes, y, order)


def _names(axes: Axes, y: np.ndarray, order: list[str]) -> None:
    axes.set_yticks(y, [name.replace("_", " ") for name in order], fontsize=4.6)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-0.8, len(order) - 0.2)
