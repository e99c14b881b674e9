"""Practical selectors beside the oracle: errors against k, n and what is read, budget and choice, and exponents."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator
from omegaconf import DictConfig

from analysis.figures import NothingToDraw
from analysis.figures.page import families, style
from analysis.figures.page.names import KINDS, kind_of
from analysis.figures.page.shown import sources_shown
from analysis.figures.page.sources import tag

BLACK, GREY = (0.0, 0.0, 0.0, 1.0), (0.55, 0.55, 0.55, 1.0)
MARKERS = "osv^D"
DASHES = ("-", "--", ":", "-.", "-")
LEAST = 0.55  # inches of a panel beside another in the column of a journal
CURVES = {  # x and y of the lines of curves
    "tv": ("k", "tv"),
    "output_error": ("k", "output_error"),
    "length": ("length", "output_error"),
    "read": ("keys_read", "output_error"),
}
Look = tuple[style.Colour, str, str]


def draw(tables: Mapping[str, pd.DataFrame], config: DictConfig) -> Figure:
    """Draw one column of panels per source; see conf/figure/selectors.yaml."""
    table, grown = tables["selectors"], tables["selectors_summary"]
    sources = sources_shown(tables["selectors_sources"], config)
    labels = sources["label"].tolist()
    if not labels:
        raise NothingToDraw("no selector beside the oracle: python run.py experiment=selectors")
    table = table[table["label"].isin(labels)]
    if config.most_of_kind is not None:
        table = table[table["selector"].isin(_best(_at_budget(table, config.budget), config.most_of_kind))]
    grown = grown[grown["measure"] == "keys needed"]
    looks = _looks(list(table["selector"].unique()))
    grid = table[(table["rule"] == "grid") & (table["length"] == table.groupby("label")["length"].transform("max"))]
    grid = grid[grid["k"] < 0.9 * grid["length"]]  # beyond it the curves only fall to 0
    lines = [line for line in config.panels if line != "time" or grid["ms"].notna().any()]
    column = style.PAGE <= style.COLUMN
    room: dict[str, Any] = (
        {"left": 0.7, "gap": 0.2, "edge": 0.83, "least": LEAST} if column else {"left": 0.95, "gap": 0.3, "edge": 1.05}
    )
    figure, axes = style.panels(len(lines), len(labels), config.height, right=0.04, **room)
    panels = dict(zip(lines, axes, strict=True))
    for j, label in enumerate(labels):
        tag(label, *axes[:, j])
        style.title(axes[0, j], label, axes[0, j].get_position().width * style.PAGE)
        longest = grid[grid["label"] == label]
        fixed = _fixed(table[table["label"] == label], config.budget)
        for line in lines:
            panel = panels[line][j]
            if line in CURVES:
                _curves(panel, fixed if line == "length" else longest, *CURVES[line], looks)
            if line == "length":
                style.length_axis(panel, fixed["length"].unique().tolist(), most=4)
            elif line == "time":
                _times(panel, longest.dropna(subset="ms"), looks)
            elif line == "budget":
                _bars(panel, _at_budget(fixed, config.budget), looks)
            elif line == "exponent":
                _exponents(panel, grown[grown["label"] == label], looks)
    for line in (panels[line] for line in lines if line in CURVES or line == "time"):
        low, high = (limits(panel.get_ylim()[i] for panel in line) for i, limits in ((0, min), (1, max)))
        for panel in line:
            panel.set_ylim(max(low, config.least), high)
    newline = "\n" if column else " "
    words = {
        "tv": ("keys kept", "total variation"),
        "output_error": ("keys kept", "output error"),
        "length": ("context length (keys)", f"output error,\n{config.budget} keys"),
        "read": ("keys read", "output error"),
        "time": ("ms per token, search and attention", "output error"),
        "budget": (f"total variation,{newline}{config.budget} keys", ""),
        "exponent": ("exponent C", ""),
    }
    for name, line in panels.items():
        shown = [panel for panel in line if panel.axison]
        for panel in shown:
            panel.set_xlabel(words[name][0])
            panel.tick_params(labelleft=panel is shown[0])
        shown[0].set_ylabel(words[name][1])
    families.legend(axes[0, -1], {name.replace("_", " "): look for name, look in looks.items()})
    n = {label: style.count_text(table.loc[table["label"] == label, "length"].max()) for label in labels}
    names = style.short_names(labels, 16)
    at = "; ".join(f"{names[label]}: {length}" for label, length in n.items())
    best = "" if config.most_of_kind is None else " Of each kind, the best at that budget."
    of_heads = style.of_heads("The exponents", sources, grown.set_index("label")["left_out"])
    style.footer(figure, f"{style.counts(sources)} Longest context: {at} keys.{best}{of_heads}")
    return figure


def _fixed(table: pd.DataFrame, budget: float) -> pd.DataFrame:
    """Return the lines of one fixed window that does not hold the whole row."""
    return table[(table["rule"] == "fixed") & (table["parameter"] == budget) & (table["k"] < table["length"])]


def _at_budget(table: pd.DataFrame, budget: float) -> pd.DataFrame:
    """Return these lines of the longest context of each source."""
    fixed = _fixed(table, budget)
    return fixed[fixed["length"] == fixed.groupby("label")["length"].transform("max")]


def _best(lines: pd.DataFrame, most: int) -> list[str]:
    """Return the methods with the least mean of ln total variation over the sources, at most so many of each kind."""
    order = np.log(lines["tv"].clip(1e-12)).groupby(lines["selector"]).mean().sort_values().index
    of_kind: dict[str, list[str]] = {}
    for name in order:
        of_kind.setdefault(kind_of(name), []).append(name)
    return [name for names in of_kind.values() for name in names[:most]]


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
    if style.PAGE <= style.COLUMN:
        axes.xaxis.set_major_locator(LogLocator(base=64))
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
    reach = (lines["choice_high"] - lines["choice"]).clip(lower=0).fillna(0)
    axes.errorbar(lines["tv"], y, xerr=reach, fmt="none", ecolor="black", elinewidth=0.6)
    _names(axes, y, order)
    axes.set_xlim(0, 1)
    if style.PAGE <= style.COLUMN:
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])


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
    axes.set_yticks(y, [name.replace("_", " ") for name in order], fontsize=4.6 if len(order) > 9 else style.SMALL)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-0.8, len(order) - 0.2)
