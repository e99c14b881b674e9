"""Error against the number of keys kept, one curve per context length."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from omegaconf import DictConfig

from analysis import style
from analysis.aggregate import with_spread
from analysis.figures import Drawing, Evidence, NothingToDraw
from analysis.layout import by_label
from analysis.load import labels_in_order

MARKERS = "os^Dv*P"


def draw(evidence: Evidence, config: DictConfig) -> Drawing:
    """Draw one panel per source and measure; see conf/figure/windows.yaml."""
    windows = evidence.windows
    if windows.empty:
        raise NothingToDraw("no window of the rule grid was recorded")
    shown = pd.concat(_thin(same, config.curves) for _, same in windows.groupby("label", observed=True))
    by = ["length", "parameter"]
    points = [with_spread(shown, measure, by, config.confidence) for measure in config.measures]
    table = pd.concat(points, ignore_index=True)
    figure, panels = by_label(
        labels_in_order(shown), list(config.measures), config.across, config.height, "keys kept k"
    )
    for (label, measure), axes in panels.items():
        at = (table["label"] == label) & (table["measure"] == measure)
        _panel(axes, table[at], config.floor)
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
    style.footer(figure, style.counts(shown))
    return Drawing(figure, table)


def _thin(frame: pd.DataFrame, most: int) -> pd.DataFrame:
    return frame[frame["length"].isin(style.spread_over(sorted(frame["length"].unique()), most))]


def _panel(axes: Axes, table: pd.DataFrame, floor: float) -> None:
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_ylim(floor, 1.4)
    lengths = sorted(table["length"].unique())
    axes.xaxis.set_major_locator(FixedLocator([8.0**power for power in range(8)]))
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
