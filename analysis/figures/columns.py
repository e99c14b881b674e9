"""The share of the mass on static columns: against their number, against the context, and head by head."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from omegaconf import DictConfig

from analysis.figures import NothingToDraw
from analysis.figures.page import style
from analysis.figures.page.sources import tag

WAYS = {
    "each_row": ("each row's own", ":", "D"),
    "same_rows": ("same rows", "-", "o"),
    "earlier_rows": ("earlier rows", "--", "s"),
    "other_text": ("another text", "-.", "^"),
}


def draw(tables: Mapping[str, pd.DataFrame], config: DictConfig) -> Figure:
    """Draw three panels of the first label; see conf/figure/columns.yaml."""
    table, heads, sources = (tables[name] for name in config.reads)
    if sources.empty:
        raise NothingToDraw("no static columns: python run.py experiment=columns")
    label = str(sources["label"].iloc[0])
    table, heads = table[table["label"] == label], heads[heads["label"] == label]
    figure, axes = style.panels(1, 3, config.height, left=0.5, gap=0.45, right=0.72)
    tag(label, *axes[0])
    by_number, by_length, of_heads = axes[0]
    length = int(table["length"].max())
    _curves(by_number, table[table["length"] == length], "k")
    by_number.set_xlabel("columns")
    by_number.set_title(f"n = {length:,}")
    _curves(by_length, table[table["k"] == (config.share * table["length"]).round()], "length")
    for way, published in config.published.items():
        by_length.axhline(published, color="0.6", lw=0.7, ls=WAYS[way][1], zorder=1)
    by_length.set_xlabel("context length n")
    by_length.set_title(f"n / {1 / config.share:.0f} columns")
    by_number.set_ylabel("share of the mass")
    limits = (0, 1.02)
    of_heads.plot(limits, limits, color="0.6", lw=0.7, zorder=1)
    if len(heads):
        colours = style.shades(int(heads["layer"].max()) + 1)
        of_heads.scatter(heads["same_rows"], heads["other_text"], s=6, lw=0, c=[colours[i] for i in heads["layer"]])
        of_heads.set_title(f"heads, {int(heads['k'].iloc[0]):,} columns")
    of_heads.set_xlabel("chosen on the same rows")
    of_heads.set_ylabel("on another text")
    of_heads.set_xlim(*limits)
    of_heads.set_ylim(*limits)
    style.footer(figure, style.counts(sources[sources["label"] == label]))
    return figure


def _curves(axes: Axes, table: pd.DataFrame, x: str) -> None:
    axes.set_ylim(0, 1.02)
    ends = []
    for (way, (name, dash, marker)), shade in zip(WAYS.items(), style.shades(len(WAYS)), strict=True):
        line = table[table["chosen"] == way].sort_values(x)
        if line.empty:
            continue
        axes.fill_between(line[x], line["recall_low"], line["recall_high"], color=shade, alpha=0.15, lw=0)
        axes.plot(line[x], line["recall"], marker, ls=dash, color=shade, ms=2.5, lw=0.8)
        ends.append((float(line["recall"].iloc[-1]), name, shade))
    if ends:
        style.length_axis(axes, sorted(table[x].unique()), most=4)
        style.label_ends(axes, ends, size=5.5)
