"""Decay rates d ln error / d ln n of windows k = n^C against C, one panel per norm."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from omegaconf import DictConfig

from analysis.figures import NothingToDraw
from analysis.figures.page import style
from analysis.figures.page.shown import sources_shown
from analysis.figures.page.sources import label_sources, of_source

MARKERS = "os^Dv*P"


def draw(tables: Mapping[str, pd.DataFrame], config: DictConfig) -> Figure:
    """Draw one panel per norm, one curve per source; see conf/figure/decay_rates.yaml."""
    table, sources = tables["decay_rates"], sources_shown(tables["decay_rates_sources"], config)
    if sources.empty:
        raise NothingToDraw("no source that the figure shows has a decay rate")
    labels, real = sources["label"].tolist(), set(sources.loc[sources["kind"] == "real", "label"])
    columns = config.across
    rows = -(-len(config.measures) // columns)
    figure, axes = style.panels(rows + 1, columns, config.height, right=0.48)
    _smallest(style.bottom_row(axes, 1, right=0.85)[0], tables["sufficient"], labels, real, dict(config.measures))
    names = iter(config.measures.items())
    for i, panel in enumerate(axes[:rows].flat):
        measure, name = next(names, (None, None))
        if measure is None:
            panel.remove()
            continue
        _panel(panel, table[table["measure"] == measure], labels, real, config)
        style.title(panel, str(name), style.PAGE)
        panel.set_ylabel("d ln error / d ln n" if i % columns == 0 else "")
        panel.tick_params(labelleft=i % columns == 0)
        panel.set_xlabel("exponent C of the window")
        if measure == "linf_truncated":
            c = np.array([0, 1.0])
            panel.plot(c, -c, ":", color="black", lw=0.8)
            panel.text(0.52, -0.42, "[T4]", fontsize=style.SMALL, va="bottom", ha="left")
    style.make_room(figure, 0.75)  # for names that stand upright on a narrow page
    left_out = table.set_index("label")["left_out"]
    style.footer(figure, style.counts(sources) + style.of_heads("The rates", sources, left_out))
    return figure


def _smallest(axes: Axes, table: pd.DataFrame, labels: list[str], real: set[str], measures: Mapping[str, str]) -> None:
    """Draw the smallest C from which each norm's error falls, a group of marks per norm, a mark per source."""
    names = style.short_names(labels)
    offsets = np.linspace(-0.3, 0.3, len(labels)) if len(labels) > 1 else np.zeros(1)
    for i, (label, shade, offset) in enumerate(zip(labels, style.shades(len(labels)), offsets, strict=True)):
        own = table[table["label"] == label].set_index("measure").reindex(list(measures))
        low, c, high = (own[name].to_numpy(float) for name in ("C_low", "C", "C_high"))
        colour = (0.0, 0.0, 0.0, 1.0) if label in real else shade
        reach = style.reach(c, low, high)
        x, marker = np.arange(len(measures)) + offset, MARKERS[i % len(MARKERS)]
        with of_source(label, axes):
            axes.errorbar(x, c, yerr=reach, fmt=marker, color=colour, ms=3, lw=0.9, label=names[label])
    axes.set_ylim(0, 1.06)
    axes.set_ylabel("smallest C")
    axes.set_xlim(-0.5, len(measures) - 0.5)
    if style.PAGE < style.FULL_PAGE:
        axes.set_xticks(range(len(measures)), list(measures.values()), fontsize=style.SMALL, rotation=90)
    else:
        words = [name.replace(", ", ",\n") for name in measures.values()]
        axes.set_xticks(range(len(measures)), words, fontsize=style.SMALL)
    axes.set_title("from this C on the error falls")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=style.SMALL, handlelength=1, borderpad=0.2)


def _panel(axes: Axes, table: pd.DataFrame, labels: list[str], real: set[str], config: DictConfig) -> None:
    axes.axhline(0, color="black", lw=0.6)
    axes.set_ylim(*config.range)
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    ends, names, dashes = {}, style.short_names(labels), style.dashes(labels, real)
    for i, (label, shade) in enumerate(zip(labels, style.shades(len(labels)), strict=True)):
        curve = table[table["label"] == label].sort_values("parameter")
        if curve.empty:
            continue
        c, rate = curve["parameter"].to_numpy(), curve["rate"].to_numpy()
        colour = (0.0, 0.0, 0.0, 1.0) if label in real else shade
        with of_source(label, axes):
            axes.fill_between(c, curve["rate_low"], curve["rate_high"], color=colour, alpha=0.15, lw=0)
            axes.plot(c, rate, dashes[label], marker=MARKERS[i % len(MARKERS)], color=colour, ms=2.4, lw=0.9)
        ends[label] = (rate[-1], names[label], colour)
    label_sources(axes, ends, 5.5)
