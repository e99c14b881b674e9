"""The growth of the keys that heads need against the growth of their rows' entropy."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure
from omegaconf import DictConfig

from analysis.figures.page import style
from analysis.figures.page.sources import tag


def draw(tables: Mapping[str, pd.DataFrame], config: DictConfig) -> Figure:
    """Draw a panel per label; see conf/figure/entropy.yaml."""
    table, summary, sources = tables["entropy"], tables["entropy_summary"], tables["entropy_sources"]
    labels = [label for label in sources["label"] if (table["label"] == label).any()]
    across = min(len(labels), config.across)
    figure, axes = style.panels(-(-len(labels) // across), across, config.height, left=0.5, gap=0.3, right=0.1)
    for panel in axes.flat[len(labels) :]:
        panel.remove()
    dark, light = style.shades(2)
    low = min(0.0, float(table[["alpha", "C"]].min().min()))
    high = max(1.0, float(table[["alpha", "C"]].max().max()))
    limits = (low - 0.05, high + 0.05)
    for panel, label in zip(axes.flat, labels, strict=False):
        tag(label, panel)
        style.title(panel, label, panel.get_position().width * figure.get_figwidth())
        heads = table[table["label"] == label]
        line = summary[summary["label"] == label].iloc[0]
        panel.plot(limits, limits, color="0.6", lw=0.7, zorder=1)
        panel.scatter(heads["alpha"], heads["C"], s=4, lw=0, color=light, label="head")
        panel.plot(line["alpha_median"], line["C_median"], "s", color=dark, ms=4, mfc="white", label="median head")
        x, y = line["alpha_mean"], line["C_mean"]
        panel.plot([line["alpha_mean_low"], line["alpha_mean_high"]], [y, y], color=dark, lw=0.8)
        panel.plot([x, x], [line["C_mean_low"], line["C_mean_high"]], color=dark, lw=0.8)
        panel.plot(x, y, "D", color=dark, ms=5, mfc="white", label="mean")
        panel.set_xlim(*limits)
        panel.set_ylim(*limits)
        panel.set_xlabel(r"$\alpha$ of the entropy")
    for panel in style.leftmost(axes):
        panel.set_ylabel("C of the keys needed")
    axes.flat[0].legend(loc="lower right", fontsize=style.SMALL)
    style.footer(figure, style.counts(sources[sources["label"].isin(labels)]))
    return figure
