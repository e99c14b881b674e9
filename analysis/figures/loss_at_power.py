"""KL and loss over dense within windows of a n^C keys, against the context length."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from omegaconf import DictConfig

from analysis.figures import NothingToDraw
from analysis.figures.page import style
from analysis.figures.page.sources import tag

MARKERS = "os^DvP"
NAMES = {"kl": "KL(dense || this) (nats)", "lost": "loss over dense (nats)"}


def draw(tables: Mapping[str, pd.DataFrame], config: DictConfig) -> Figure:
    """Draw the label of most samples; see conf/figure/loss_at_power.yaml."""
    table, laws = (tables[name][tables[name]["phase"] == config.phase] for name in config.reads[:2])
    if table.empty:
        raise NothingToDraw(f"no windows a n^C in the phase {config.phase}")
    label = table.sort_values("samples", ascending=False, kind="stable")["label"].iloc[0]
    table, laws = table[table["label"] == label], laws[laws["label"] == label]
    figure, axes = style.panels(1, len(NAMES), config.height, left=0.55, gap=0.5, right=0.95)
    tag(label, *axes[0])
    for panel, (measure, name) in zip(axes[0], NAMES.items(), strict=True):
        _against_length(panel, table, laws, measure)
        panel.set_ylabel(name)
    samples = int(table["samples"].max())
    style.footer(figure, f"{label}, {config.phase}, {samples} samples; bars: 95% over samples.")
    return figure


def _against_length(axes: Axes, table: pd.DataFrame, laws: pd.DataFrame, measure: str) -> None:
    ends = []
    for (_, law), shade, marker in zip(laws.iterrows(), style.shades(len(laws)), MARKERS * len(laws), strict=False):
        of_window = (table["parameter"] == law["parameter"]) & (table["scale"] == law["scale"])
        line = table[of_window & (table[measure] > 0)].sort_values("length")
        if line.empty:
            continue
        above = line[f"{measure}_low"].clip(lower=line[measure] / 10)  # a bound below zero has no logarithm
        axes.vlines(line["length"], above, line[f"{measure}_high"], color=shade, lw=0.6, alpha=0.6)
        axes.plot(line["length"], line[measure], marker, ls="-", color=shade, ms=2.8, lw=0.8)
        first = line.iloc[0]
        foretold = first[measure] * (line["length"] / first["length"]) ** law["entropy_law"]
        axes.plot(line["length"], foretold, ":", color=shade, lw=0.7)
        factor = "" if law["scale"] == 1 else f"{law['scale']:g} "
        exponent = law[f"{measure}_exponent"]
        text = f"{factor}$n^{{{law['parameter']:g}}}$" + ("" if pd.isna(exponent) else f": {exponent:+.2f}")
        ends.append((float(line[measure].iloc[-1]), text, shade))
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(numticks=6))
    axes.yaxis.set_minor_locator(NullLocator())
    style.length_axis(axes, sorted(table["length"].unique()))
    style.label_ends(axes, ends)
    axes.set_xlabel("context length n")
