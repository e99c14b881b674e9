"""Fixed, logarithmic and power windows side by side: where does the error persist, and where not."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from omegaconf import DictConfig

from analysis.figures import NothingToDraw
from analysis.figures.page import style
from analysis.figures.page.names import window_text
from analysis.figures.page.shown import sources_shown
from analysis.figures.page.sources import label_sources, of_source

WINDOW = ["rule", "parameter", "scale"]
MARKERS = "os^Dv*P"


def draw(tables: Mapping[str, pd.DataFrame], config: DictConfig) -> Figure:
    """Draw one column of panels per window, one row per measure; see conf/figure/log_window.yaml."""
    selected = [(window.rule, float(window.parameter), float(window.scale)) for window in config.windows]
    table, sources = tables["log_window"], sources_shown(tables["log_window_sources"], config)
    compared = pd.MultiIndex.from_frame(table[WINDOW]).isin(selected) & table["label"].isin(sources["label"])
    table = table[compared]
    if table.empty:
        raise NothingToDraw("none of the windows compared was recorded")
    labels = [label for label in sources["label"] if (table["label"] == label).any()]
    real = set(sources.loc[sources["kind"] == "real", "label"])
    figure, axes = style.panels(
        len(config.measures), len(selected), config.height, right=0.45, block=len(config.measures)
    )
    for line, (measure, name) in zip(axes, config.measures.items(), strict=True):
        for panel, window in zip(line, selected, strict=True):
            shown = (table[["measure", *WINDOW]] == [measure, *window]).all(axis=1)
            _panel(panel, table[shown], labels, real, config)
            panel.set_title(f"k = {window_text(*window)}" if measure == next(iter(config.measures)) else "")
            panel.set_ylabel(name if panel is line[0] else "")
            panel.tick_params(labelleft=panel is line[0])
            panel.set_xlabel("context length n (keys)" if measure == list(config.measures)[-1] else "")
    style.footer(figure, style.counts(sources[sources["label"].isin(labels)]))
    return figure


def _panel(axes: Axes, table: pd.DataFrame, labels: list[str], real: set[str], config: DictConfig) -> None:
    axes.set_yscale("log")
    axes.set_ylim(*config.range)
    style.length_axis(axes, [2.0**power for power in range(8, 21, 4)])
    axes.axhline(config.level, color="black", lw=0.6, ls=":")
    floor = config.range[0] / 9
    ends, names, dashes = {}, style.short_names(labels, 9), style.dashes(labels, real)
    for i, (label, shade) in enumerate(zip(labels, style.shades(len(labels)), strict=True)):
        curve = table[(table["label"] == label) & (table["k"] < table["length"])].sort_values("length")
        if curve.empty:
            continue
        n, centre = curve["length"].to_numpy(float), curve["centre"].to_numpy()
        colour = (0.0, 0.0, 0.0, 1.0) if label in real else shade
        with of_source(label, axes):
            axes.fill_between(n, curve["low"].clip(floor), curve["high"].clip(floor), color=colour, alpha=0.11, lw=0)
            axes.plot(n, np.maximum(centre, floor), dashes[label], color=colour, marker=MARKERS[i % len(MARKERS)])
        ends[label] = (centre[-1], names[label], colour)
    if len(table):
        axes.set_xlim(0.8 * table["length"].min(), 1.25 * table["length"].max())
    label_sources(axes, ends)
