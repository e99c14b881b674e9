"""Keys that a cache must hold: over context length, and over the number of rows that follow."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator
from omegaconf import DictConfig

from analysis.figures import NothingToDraw
from analysis.figures.page import style
from analysis.figures.page.sources import tag

SCOPES = {"query head": ("head", "-"), "KV head": ("KV head", "--")}
SIZES = {"union": "union", "fixed": "fixed set"}
MARKERS = "os^Dv"


def draw(tables: Mapping[str, pd.DataFrame], config: DictConfig) -> Figure:
    """Draw three panels per model: both sizes over context length, and over the rows; see conf/figure/unions.yaml."""
    table, sources = tables["unions"], tables["unions_sources"]
    table = table[table["eta"] == config.eta]
    labels = [label for label in sources["label"] if (table["label"] == label).any()]
    if not labels:
        raise NothingToDraw(f"no runs of consecutive rows at eta = {config.eta:g}")
    figure, axes = style.panels(len(labels), 3, config.height, left=0.5, gap=0.4, right=0.85)
    for line, label in zip(axes, labels, strict=True):
        tag(label, *line)
        of_label = table[table["label"] == label]
        for panel, size in zip(line, SIZES, strict=False):
            _over_length(panel, of_label, size)
        _over_run(line[2], of_label)
        style.title(line[0], label, style.PAGE)
        line[0].set_ylabel("keys, union of the rows' sets")
        line[1].set_ylabel("keys, one fixed set")
        line[2].set_ylabel("times the keys of one row")
    style.footer(figure, style.counts(sources))
    return figure


def _over_length(axes: Axes, table: pd.DataFrame, size: str) -> None:
    axes.set_yscale("log")
    style.length_axis(axes, table["length"].tolist(), most=4)
    runs, ends = sorted(table["rows"].unique()), []
    for run, shade, marker in zip(runs, style.shades(len(runs)), MARKERS, strict=False):
        for scope, (name, dash) in SCOPES.items():
            at = table[(table["rows"] == run) & (table["scope"] == scope) & (table["size"] == size)].sort_values(
                "length"
            )
            if run not in (runs[0], runs[-1]) and scope == "query head":
                continue  # between the ends only the KV head, which has the cache
            if scope == "KV head" and run in (runs[0], runs[-1]):
                axes.fill_between(at["length"], at["k_low"], at["k_high"], color=shade, alpha=0.15, lw=0)
            axes.plot(at["length"], at["k"], dash, marker=marker, color=shade, ms=3)
            rows = "1 row" if run == 1 else f"{run} rows"
            ends.append((float(at["k"].iloc[-1]), f"{name}, {rows}", shade))
    lengths = sorted(table["length"].unique())
    axes.plot(lengths, lengths, color="0.7", lw=0.7, zorder=1)
    axes.yaxis.set_major_locator(LogLocator(numticks=5))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("context length n (keys)")
    style.label_ends(axes, ends, size=5.5)


def _over_run(axes: Axes, table: pd.DataFrame) -> None:
    table = table[table["length"] == table["length"].max()]
    runs, ends = sorted(table["rows"].unique()), []
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    for size, shade in zip(SIZES, style.shades(2), strict=True):
        for scope, (name, dash) in SCOPES.items():
            at = table[(table["scope"] == scope) & (table["size"] == size)].sort_values("rows")
            axes.plot(at["rows"], at["times"], dash, marker="o", color=shade, ms=3)
            ends.append((float(at["times"].iloc[-1]), f"{name}, {SIZES[size]}", shade))
    axes.xaxis.set_major_locator(FixedLocator(runs))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("consecutive rows, longest n")
    style.label_ends(axes, ends, size=5.5)
