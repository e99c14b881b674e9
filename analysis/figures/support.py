"""Agreement and loss within fixed windows against keys, and the keys that keep an agreement against the context."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from omegaconf import DictConfig

from analysis.figures import NothingToDraw
from analysis.figures.page import style
from analysis.figures.page.sources import tag

MARKERS = "os^D"


def draw(tables: Mapping[str, pd.DataFrame], config: DictConfig) -> Figure:
    """Draw the label of most samples; see conf/figure/support.yaml."""
    table, keys = (part[part["phase"] == config.phase] for part in (tables["support"], tables["support_keys"]))
    if table.empty:
        raise NothingToDraw(f"no windows in the phase {config.phase}")
    label = table.sort_values("samples", ascending=False, kind="stable")["label"].iloc[0]
    table, keys = table[table["label"] == label], keys[(keys["label"] == label) & (keys["quality"] == "agreement")]
    figure, axes = style.panels(1, 3, config.height, left=0.55, gap=0.6, right=0.6)
    agreement, lost, needed = axes[0]
    tag(label, *axes[0])
    for panel, measure, name in ((agreement, "agreement", "agreement"), (lost, "lost", "loss over dense (nats)")):
        _against_keys(panel, table, measure)
        panel.set_ylabel(name)
    agreement.legend(fontsize=style.SMALL, title="n", title_fontsize=style.SMALL, loc="lower right")
    lost.axhline(0, color="0.6", lw=0.7)
    _needed(needed, keys, config.published["keys"] if label.startswith(config.published.model) else None)
    samples = int(table["samples"].max())
    style.footer(figure, f"{label}, {config.phase}, {samples} samples; bars: 95% over samples.")
    return figure


def _against_keys(axes: Axes, table: pd.DataFrame, measure: str) -> None:
    lengths = sorted(table["length"].unique())
    for length, shade, marker in zip(lengths, style.shades(len(lengths)), MARKERS * len(lengths), strict=False):
        line = table[table["length"] == length].sort_values("keys")
        axes.vlines(line["keys"], line[f"{measure}_low"], line[f"{measure}_high"], color=shade, lw=0.6, alpha=0.6)
        axes.plot(line["keys"], line[measure], marker, ls="-", color=shade, ms=2.5, lw=0.8, label=f"{length:,}")
    axes.set_xscale("log", base=2)
    axes.set_xlabel("keys of every head")
    axes.xaxis.set_major_locator(LogLocator(base=4, numticks=6))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_locator(NullLocator())


def _needed(axes: Axes, keys: pd.DataFrame, published: float | None) -> None:
    targets = sorted(keys["target"].unique())
    ends = []
    for target, shade, marker in zip(targets, style.shades(len(targets)), MARKERS, strict=False):
        line = keys[(keys["target"] == target) & keys["k"].notna()].sort_values("length")
        if line.empty:
            continue
        axes.vlines(line["length"], line["k_low"], line["k_high"], color=shade, lw=0.6, alpha=0.6)
        axes.plot(line["length"], line["k"], marker, ls="-", color=shade, ms=2.5, lw=0.8)
        bounds = line[line["at_most"]]
        axes.plot(bounds["length"], bounds["k"], "v", color=shade, ms=4)
        exponent = line["exponent"].iloc[0]
        text = f"{target:g}" if np.isnan(exponent) else f"{target:g}: $n^{{{exponent:.2f}}}$"
        ends.append((float(line["k"].iloc[-1]), text, shade))
    axes.set_xscale("log")
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_locator(LogLocator(base=4, numticks=6))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    if published is not None:
        axes.axhline(published, color="black", ls="--", lw=0.7)
    if len(keys):
        style.length_axis(axes, sorted(keys["length"].unique()))
    style.label_ends(axes, ends)
    axes.set_xlabel("context length n")
    axes.set_ylabel("keys needed")
