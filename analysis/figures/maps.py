"""Maps over layers and heads: the growth of the entropy, the sink's mass and the share of keys needed."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from omegaconf import DictConfig

from analysis.figures import NothingToDraw
from analysis.figures.page import style
from analysis.figures.page.shown import sources_shown
from analysis.figures.page.sources import tag

BAR_STEPS = 32  # so few that a bar is no image: images that are alike share their id in an SVG


def draw(tables: Mapping[str, pd.DataFrame], config: DictConfig) -> Figure:
    """Draw three maps per label; see conf/figure/maps.yaml."""
    sources = sources_shown(tables["maps_sources"], config)
    if sources.empty:
        raise NothingToDraw("no real model has been measured: python run.py experiment=heads")
    figure, axes = style.panels(len(sources), 3, config.height, left=0.42, gap=0.3, right=0.5, edge=0.06)
    for label, panels in zip(sources["label"], axes, strict=True):
        heads = tables["maps"][tables["maps"]["label"] == label]
        sinks = tables["maps_sinks"].set_index("label").loc[label]
        n = f"n = {sinks['n']:,.0f}"
        share = [name for name in sinks.index if name.startswith("above_") and name[-1].isdigit()]
        with_sink = ", ".join(f"{sinks[name]:.0%} > 0.{name.removeprefix('above_')}" for name in share)
        maps = {
            "alpha": (Normalize(0, 1), [0, 0.5, 1], "entropy, α"),
            "sink_mass": (Normalize(0, 1), [0, 0.5, 1], f"key 0: {with_sink}"),
            "share": (LogNorm(1e-3, 1), [1e-3, 1e-2, 1e-1, 1], f"keys / n, {n}"),
        }
        for panel, (column, (norm, ticks, words)) in zip(panels, maps.items(), strict=True):
            _map(figure, panel, heads, column, norm, ticks)
            tag(label, panel, figure.axes[-1])
            panel.set_title(words, fontsize=style.SMALL, loc="left")
            panel.set_xlabel("head")
        panels[0].set_ylabel("layer")
        # a label is the user's: a $ in it is no mathematics
        style.heading(panels[0], 1.14, label)
    style.footer(figure, style.counts(sources))
    return figure


def _map(figure: Figure, axes: Axes, heads: pd.DataFrame, column: str, norm: Normalize, ticks: list[float]) -> None:
    layers = np.arange(int(heads["layer"].min()), int(heads["layer"].max()) + 1)
    columns = np.arange(int(heads["head"].max()) + 1)
    grid = heads.pivot_table(index="layer", columns="head", values=column)
    axes.set_facecolor("0.85")
    axes.grid(False)
    extent = (-0.5, len(columns) - 0.5, layers[0] - 0.5, layers[-1] + 0.5)
    values = grid.reindex(index=layers, columns=columns).to_numpy()
    axes.imshow(values, cmap="cividis", norm=norm, origin="lower", aspect="auto", extent=extent)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    box = axes.get_position()
    bar = figure.add_axes((box.x1 + 0.012, box.y0, 0.012, box.height))
    inside = heads[column].dropna()
    over, under = bool((inside > norm.vmax).any()), bool((inside < norm.vmin).any())
    extend = "both" if over and under else "max" if over else "min" if under else "neither"
    steps = mpl.colormaps["cividis"].resampled(BAR_STEPS)
    figure.colorbar(ScalarMappable(norm, steps), cax=bar, extend=extend)
    bar.yaxis.set_major_locator(FixedLocator(ticks))
    bar.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    bar.yaxis.set_minor_locator(NullLocator())
