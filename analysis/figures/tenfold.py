"""Keys foretold at ten times the fitted lengths against keys needed, and how many lie in their intervals."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from omegaconf import DictConfig

from analysis.figures.page import style
from analysis.figures.page.sources import tag

HEAD, LAYER, TOTAL = "head", "layer", "total"
MEAN = "power and log"
NAMES = {"power": "$n^C$", "log": r"$\ln n$", MEAN: "the mean\nof both", "sums": "[G8]"}


def draw(tables: Mapping[str, pd.DataFrame], config: DictConfig) -> Figure:
    """Draw a row of two panels per label; see conf/figure/tenfold.yaml."""
    table, summary, sources = tables["tenfold"], tables["tenfold_summary"], tables["tenfold_sources"]
    labels = [label for label in sources["label"] if (table["label"] == label).any()]
    figure, axes = style.panels(len(labels), 2, config.height, left=0.85, gap=0.95, right=0.45)
    for (left, right), label in zip(axes, labels, strict=True):
        tag(label, left, right)
        style.title(left, label, left.get_position().width * figure.get_figwidth())
        _foretold(left, table[(table["label"] == label) & (table["forecaster"] == MEAN)])
        _inside(right, summary[(summary["label"] == label) & (summary["scope"] == HEAD)], config.level)
    told = f"Intervals are as wide as the heads of {summary['calibrated_by'].iloc[0]} ask for. "
    style.footer(figure, told + style.counts(sources[sources["label"].isin(labels)]))
    return figure


def _foretold(axes: Axes, table: pd.DataFrame) -> None:
    dark, light = style.shades(2)
    heads, layers, total = (table[table["scope"] == scope] for scope in (HEAD, LAYER, TOTAL))
    limits = (0.8, 1.5 * float(heads[["n", "high"]].min(axis=1).max()))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.plot(limits, limits, color="0.6", lw=0.7, zorder=1)
    axes.vlines(heads["k"], heads["low"].clip(*limits), heads["high"].clip(*limits), color="0.85", lw=0.6, zorder=0)
    axes.scatter(heads["k"], heads["k_foretold"].clip(*limits), s=5, color=light, lw=0, label="head")
    number = heads.groupby("layer")["head"].size().reindex(layers["layer"]).to_numpy(float)
    look: dict[str, Any] = {"color": dark, "ms": 3, "mfc": "white", "mew": 0.7, "ls": ""}
    axes.plot(layers["k"] / number, (layers["k_foretold"] / number).clip(*limits), "s", label="layer", **look)
    axes.plot(total["k"] / len(heads), total["k_foretold"] / len(heads), "D", label="all heads", **{**look, "ms": 6})
    axes.set_xlim(*limits)
    axes.set_ylim(*limits)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(numticks=5))
        axis.set_minor_locator(NullLocator())
    axes.set_xlabel(f"keys needed per head at n = {float(heads['n'].mean()):,.0f}")
    axes.set_ylabel("keys foretold")
    axes.legend(loc="lower right", fontsize=style.SMALL)


def _inside(axes: Axes, summary: pd.DataFrame, level: float) -> None:
    summary = summary.set_index("forecaster").reindex([name for name in NAMES if name in set(summary["forecaster"])])
    y = list(range(len(summary)))
    axes.axvline(100 * level, color="0.6", lw=0.7)
    axes.hlines(y, 100 * summary["inside_low"], 100 * summary["inside_high"], color=style.shades(1)[0], lw=0.8)
    axes.plot(100 * summary["inside"], y, "o", color=style.shades(1)[0], ms=4, mfc="white")
    for place, ratio in zip(y, summary["total_ratio"], strict=True):
        axes.text(
            1.02, place, f"Σ {ratio:.2f}", transform=axes.get_yaxis_transform(), va="center", fontsize=style.SMALL
        )
    axes.set_yticks(y, [NAMES[name] for name in summary.index])
    axes.set_ylim(len(y) - 0.5, -0.5)
    axes.set_xlim(0, 103)
    axes.set_xlabel("heads inside their interval, %")
    axes.set_ylabel("forecaster")
