"""What each layer loses alone at a share of its keys, and what keys shared out by that are foretold to lose."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from omegaconf import DictConfig

from analysis.figures import NothingToDraw
from analysis.figures.page import style
from analysis.figures.page.sources import tag

# by, per: name, dash, marker
WAYS = {
    ("gains", "layer"): ("by gains, layers", "-", "o"),
    ("gains", "kv_head"): ("by gains, KV heads", "--", "s"),
    ("pyramid", "layer"): ("pyramid", "-.", "D"),
}
IN_MODEL = {"gains": ("by gains, in the model", "*"), "pyramid": ("pyramid, in the model", "x")}
MARKERS = "os^Dv"


def draw(tables: Mapping[str, pd.DataFrame], config: DictConfig) -> Figure:
    """Draw a line of panels per method for the first label; see conf/figure/gains.yaml."""
    alone, shared, in_model, sources = (tables[name] for name in config.reads)
    label = str(sources["label"].iloc[0])
    alone, shared, in_model = (
        part[(part["label"] == label) & (part["phase"] == config.phase)] if len(part) else part
        for part in (alone, shared, in_model)
    )
    selectors = [name for name in config.selectors if (alone["selector"] == name).any()]
    selectors = selectors or sorted(alone["selector"].unique())[: len(config.selectors)]
    if not selectors:
        raise NothingToDraw(f"no gains of layers or KV heads in the phase {config.phase}")
    figure, axes = style.panels(len(selectors), 2, config.height, left=0.55, gap=0.6, right=0.55)
    for selector, (left, right) in zip(selectors, axes, strict=True):
        tag(label, left, right)
        of_one = alone[alone["selector"] == selector]
        of_one = of_one[of_one["per"] == of_one["per"].max()]  # layers rather than KV heads
        of_one = of_one[of_one["length"] == of_one["length"].max()]
        _by_layer(left, of_one)
        left.set_title(f"{selector}, n = {int(of_one['length'].iloc[0]):,}")
        seen = in_model[(in_model["selector"] == selector) & in_model["held_out"]] if len(in_model) else in_model
        _over_alike(right, shared[shared["selector"] == selector], seen, config.furthest)
    # the first method's ways are all; below it there is room
    axes[-1, 1].legend(
        *axes[0, 1].get_legend_handles_labels(),
        fontsize=style.SMALL,
        handlelength=2.2,
        labelspacing=0.2,
        loc="upper left",
    )
    style.footer(figure, f"{label}, {config.phase}, {int(alone['samples'].max())} samples; bars: 95% over samples.")
    return figure


def _by_layer(axes: Axes, table: pd.DataFrame) -> None:
    """Draw the KL of each layer alone within each window; of KV heads the sum over its layer."""
    windows = [part for _, part in table.groupby(["rule", "parameter", "scale"], dropna=False)]
    windows.sort(key=lambda part: float(part["keys"].mean()))
    ends = []
    for part, shade, marker in zip(windows, style.shades(len(windows)), MARKERS * len(windows), strict=False):
        line = part.groupby("layer")["kl"].sum()
        axes.plot(line.index, line, marker, ls="-", color=shade, ms=2.2, lw=0.7)
        ends.append((float(line.iloc[-1]), f"{part['keys'].mean():.0f} keys", shade))
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(numticks=6))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    style.label_ends(axes, ends)
    axes.set_xlabel("layer")
    axes.set_ylabel("KL, alone (nats)")


def _over_alike(axes: Axes, table: pd.DataFrame, in_model: pd.DataFrame, furthest: float) -> None:
    """Draw the KL over that of as many keys for each, at the longest length at which most ways were judged.

    Lines are foretold, points without one were measured in the model, on text that was held out.
    """
    ways = table.groupby("length")[["by", "per"]].apply(lambda part: len(part.drop_duplicates()))
    if ways.empty:
        return
    length = ways[ways == ways.max()].index.max()
    table = table[table["length"] == length]
    axes.axhline(1, color="0.6", lw=0.7)
    for (way, (name, dash, marker)), shade in zip(WAYS.items(), style.shades(len(WAYS)), strict=True):
        line = table[(table["by"] == way[0]) & (table["per"] == way[1])].sort_values("keys")
        if line.empty:
            continue
        _ratio(axes, line, furthest, marker=marker, ls=dash, color=shade, ms=2.8, lw=0.8, label=name)
    for by, (name, marker) in IN_MODEL.items() if len(in_model) else ():
        line = in_model[(in_model["by"] == by) & (in_model["length"] == length)]
        if len(line):
            _ratio(axes, line, furthest, marker=marker, ls="none", color="black", ms=4.5, mew=0.8, label=name)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_ylim(1 / furthest, furthest)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(NullLocator())
    axes.set_title(f"n = {int(length):,}")
    axes.set_xlabel("keys of a head, mean over heads")
    axes.set_ylabel("KL over that of equal keys")


def _ratio(axes: Axes, line: pd.DataFrame, furthest: float, **look: Any) -> None:
    """Draw the KL over that of keys alike, whose interval is that of the difference."""
    alike = line["kl"] - line["difference"]
    low, high = ((1 + line[f"difference_{end}"] / alike).clip(1 / furthest, furthest) for end in ("low", "high"))
    axes.vlines(line["keys"], low, high, color=look["color"], lw=0.6)
    axes.plot(line["keys"], line["kl"] / alike, **look)
