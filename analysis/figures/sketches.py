"""Bias and spread of sketched tails against the size of the sketch, and the tails of output columns."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator
from omegaconf import DictConfig

from analysis.figures import NothingToDraw
from analysis.figures.page import style
from analysis.figures.page.sources import tag

MARKERS = "os^Dv"


def draw(tables: Mapping[str, pd.DataFrame], config: DictConfig) -> Figure:
    """Draw two panels per source; see conf/figure/sketches.yaml."""
    table, sources = tables["sketches"], tables["sketches_sources"]
    labels = sources["label"].tolist()
    if not labels:
        raise NothingToDraw("no sketch was measured: python run.py experiment=sketches")
    figure, axes = style.panels(len(labels), 2, config.height, left=0.5, gap=0.5, right=0.9)
    for (left, right), label in zip(axes, labels, strict=True):
        tag(label, left, right)
        own = table[(table["label"] == label) & (table["length"] == table["length"].max())]
        sized = own[own["of"] != "column"].assign(times=lambda lines: lines["width"] / lines["k"])
        names = sized[["of", "k"]].drop_duplicates().to_numpy().tolist()
        ends = []
        for i, ((of, k), shade) in enumerate(zip(names, style.shades(len(names)), strict=True)):
            line = sized[(sized["of"] == of) & (sized["k"] == k)].sort_values("times")
            left.fill_between(line["times"], line["ratio_low"], line["ratio_high"], color=shade, alpha=0.12, lw=0)
            left.plot(line["times"], line["ratio"], marker=MARKERS[i % len(MARKERS)], ms=3, color=shade)
            ends.append((float(line["ratio"].iloc[-1]), f"{k} keys of a row" if of == "row" else f"rank {k}", shade))
        left.axhline(1, color="black", ls="--", lw=0.8)
        for axis, ticks in (
            (left.xaxis, sorted(sized["times"].unique())),
            (left.yaxis, [0.5, 0.7, 1, 1.5, 2, 3, 5, 10]),
        ):
            axis.axes.set_xscale("log", base=2)
            axis.axes.set_yscale("log")
            axis.set_major_locator(FixedLocator(ticks))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_locator(NullLocator())
            axis.set_minor_formatter(NullFormatter())
        left.set_xlabel("size of the sketch over k")
        left.set_ylabel("estimate over truth")
        style.label_ends(left, ends, size=5.5)
        columns = own[own["of"] == "column"].sort_values("k")
        places = range(len(columns))
        right.bar(places, columns["left"], color="0.6", width=0.5)
        reach = style.reach(columns["left"], columns["left_low"], columns["left_high"])
        right.errorbar(places, columns["left"], yerr=reach, fmt="none", ecolor="black", elinewidth=0.8)
        right.set_xticks(places, [f"{k} tokens" for k in columns["k"]])
        right.set_ylim(0, 1)
        right.set_xlabel(f"largest entries of a column of {style.count_text(own['length'].max())}")
        right.set_ylabel("share of its norm left")
        style.title(left, label, style.PAGE)
    style.footer(figure, style.counts(sources))
    return figure
