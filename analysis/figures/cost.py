"""Seconds and bytes of a decode step's attention over context length: dense, and over the kept keys alone."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from omegaconf import DictConfig

from analysis.figures import NothingToDraw
from analysis.figures.page import families, style
from analysis.figures.page.shown import nearest_windows
from analysis.figures.page.sources import tag


def draw(tables: Mapping[str, pd.DataFrame], config: DictConfig) -> Figure:
    """Draw milliseconds of attending, milliseconds with the oracle's selection, and megabytes read."""
    table, sources = tables["cost"], tables["cost_sources"]
    if sources.empty:
        raise NothingToDraw("no decode steps: python run.py experiment=cost")
    facts = sources.iloc[0]  # the label of most lines
    table = table[table["label"] == facts["label"]]
    shown = table.merge(nearest_windows(table, "k", config.budget))
    looks = families.looks(shown["family"].unique())
    dense = table.groupby("length")[["dense_seconds", "bytes_dense", "bytes_selected"]].mean()
    figure, axes = style.panels(1, 3, config.height, left=0.5, gap=0.42, right=0.02, edge=0.9)
    for panel, measure, unit, title in (
        (axes[0, 0], "attend_seconds", 1e3, "attend to the kept keys"),
        (axes[0, 1], "oracle_seconds", 1e3, "with the oracle's selection"),
        (axes[0, 2], "bytes_attended", 1e-6, "keys and values read"),
    ):
        whole = dense["bytes_dense" if unit < 1 else "dense_seconds"] * unit
        panel.plot(whole.index, whole, color="0.6", lw=2.4, zorder=0)
        for name, look in looks.items():
            line = shown[shown["family"] == name]
            families.curve(panel, line.assign(value=line[measure] * unit), "length", "value", look)
        style.length_axis(panel, table["length"].unique().tolist())
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.yaxis.set_minor_locator(NullLocator())
        panel.set_title(title)
        panel.set_ylabel("ms per token" if unit > 1 else "MB per token")
        panel.set_xlabel("context length (keys)")
    axes[0, 2].plot(dense.index, dense["bytes_selected"] * 1e-6, color="0.6", lw=1, ls=":")
    families.legend(axes[0, -1], looks)
    tag(facts["label"], *axes.flat)
    style.footer(
        figure,
        f"{facts['label']}, decode: all layers' attention for one token, median of {facts['repeats']:.0f} steps, "
        f"{facts['samples']} caches; thick grey: dense; dotted: what the oracle reads to select.",
    )
    return figure
