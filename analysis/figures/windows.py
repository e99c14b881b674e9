"""Error against the number of keys kept, one curve per context length."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from omegaconf import DictConfig

from analysis.figures import NothingToDraw
from analysis.figures.page import style
from analysis.figures.page.layout import by_label
from analysis.figures.page.shown import sources_shown

MARKERS = "os^Dv*P"


def draw(tables: Mapping[str, pd.DataFrame], config: DictConfig) -> Figure:
    """Draw one panel per source and measure; see conf/figure/windows.yaml."""
    table, sources = tables["windows"], sources_shown(tables["windows_sources"], config)
    if sources.empty:
        raise NothingToDraw("no source that the figure shows has a dense grid of windows")
    labels = sources["label"].tolist()
    figure, panels = by_label(labels, list(config.measures), config.across, config.height, "keys kept k")
    for (label, measure), axes in panels.items():
        at = (table["label"] == label) & (table["measure"] == measure)
        _panel(axes, _thin(table[at], config.curves), config.floor)
        if measure == config.measures[0]:
            axes.legend(
                title="n",
                loc="lower left",
                fontsize=style.SMALL,
                title_fontsize=style.SMALL,
                handlelength=1.6,
                labelspacing=0.2,
                borderaxespad=0.2,
            )
    style.footer(figure, style.counts(sources))
    return figure


def _thin(frame: pd.DataFrame, most: int) -> pd.DataFrame:
    return frame[frame["length"].isin(style.spread_over(sorted(frame["length"].unique()), most))]


def _panel(axes: Axes, table: pd.DataFrame, floor: float) -> None:
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_ylim(floor, 1.4)
    lengths = sorted(table["length"].unique())
    base = 8.0 if style.PAGE > style.COLUMN else 32.0
    axes.xaxis.set_major_locator(FixedLocator([base**power for power in range(8)]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: style.count_text(value)))
    axes.xaxis.set_minor_locator(NullLocator())
    for length, shade, marker in zip(lengths, style.shades(len(lengths)), MARKERS, strict=False):
        curve = table[table["length"] == length].sort_values("k")
        # the last point, k = n, drops nothing and has no place on a logarithmic axis
        curve = curve[curve["centre"] > floor / 9]
        axes.fill_between(curve["k"], curve["low"].clip(floor / 9), curve["high"], color=shade, alpha=0.13, lw=0)
        name, some = style.count_text(float(length)), max(1, len(curve) // 8)
        axes.plot(curve["k"], curve["centre"], color=shade, marker=marker, markevery=some, label=name)
    axes.set_xlim(0.9, 1.2 * lengths[-1])
