"""How far off each law is at the longest context after a fit at shorter ones."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from omegaconf import DictConfig

from analysis.figures import NothingToDraw
from analysis.figures.page import style
from analysis.figures.page.names import FORMULAS
from analysis.figures.page.shown import sources_shown
from analysis.figures.page.sources import keep, tag

FACTORS = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)
NAMES = {1 / 8: "⅛", 1 / 4: "¼", 1 / 2: "½"}
BESIDE = {"power and log": "both", "sums": "[G8]"}  # forecasters that are no law of k
CROWD = 5  # fewer heads than this are no distribution


def draw(tables: Mapping[str, pd.DataFrame], config: DictConfig) -> Figure:
    """Draw one panel per source; see conf/figure/extrapolation.yaml."""
    sources = sources_shown(tables["extrapolation_sources"], config)
    summary = tables["extrapolation_summary"]
    summary = summary[summary["scope"] == "heads"]
    tested = tables["extrapolation"].dropna(subset="error")
    sources = sources[sources["label"].isin(tested["label"])]
    if sources.empty:
        raise NothingToDraw("no law of the sources that the figure shows could be put to the test")
    labels, shares = sources["label"].tolist(), sorted(tested["share"].unique())
    columns = min(len(labels), config.across)
    lines = -(-len(labels) // columns)
    figure, axes = style.panels(lines, columns, config.height, left=0.88, gap=0.1, right=0.42)
    for i, panel in enumerate(axes.flat):
        if i >= len(labels):
            panel.remove()
            continue
        of_label = tested[tested["label"] == labels[i]]
        totals = summary[(summary["label"] == labels[i]) & (summary["share"] == of_label["share"].min())]
        tag(labels[i], panel)
        _panel(panel, of_label, totals, shares, config)
        style.title(panel, labels[i], style.PAGE / columns - 0.5)
        panel.tick_params(labelleft=i % columns == 0)
        panel.set_ylabel("law of k" if i % columns == 0 else "")
    _legend(axes[0, 0], shares)
    style.footer(figure, style.counts(sources))
    return figure


def _panel(axes: Axes, table: pd.DataFrame, totals: pd.DataFrame, shares: list[float], config: DictConfig) -> None:
    reach = config.reach
    axes.axvline(0, color="black", lw=0.6)
    shades = style.shades(len(shares))
    for i, law in enumerate(FORMULAS):
        for j, (share, shade) in enumerate(zip(shares, shades, strict=True)):
            y = i + 0.8 * ((j + 0.5) / len(shares) - 0.5)
            at = table[(table["law"] == law) & (table["share"] == share)]
            heads, pooled = at[at["scope"] == "head"], at[at["scope"] == "pooled"]
            crowd = len(heads) >= CROWD
            if crowd:
                above = y - 0.08
                ends = heads["error"].quantile([0.05, 0.25, 0.5, 0.75, 0.95]).clip(-reach, reach)
                axes.hlines(above, ends.iloc[0], ends.iloc[4], color=shade, lw=0.7)
                axes.hlines(above, ends.iloc[1], ends.iloc[3], color=shade, lw=3.6, alpha=0.55)
                axes.plot(ends.iloc[2], above, "|", color=shade, ms=6, mew=1.4)
                if share == table["share"].min():
                    text = f"{heads['best'].mean():.0%}" + _total(totals, law)
                    axes.text(
                        1.03, i, text, transform=axes.get_yaxis_transform(), va="center", fontsize=5.5, linespacing=1.1
                    )
            below = y + 0.14 * crowd
            for error, low, high in pooled[["error", "error_low", "error_high"]].itertuples(index=False, name=None):
                axes.hlines(below, *np.clip([low, high], -reach, reach), color="black", lw=0.6)
                axes.plot(np.clip(error, -reach, reach), below, "Ds"[j % 2], color=shade, mec="black", mew=0.4, ms=3.6)
    if ((table["scope"] == "head") & (table["share"] == table["share"].min())).sum() >= CROWD * len(FORMULAS):
        where = axes.get_yaxis_transform()
        axes.text(1.03, -0.75, "best for", transform=where, va="center", fontsize=style.SMALL, color="0.35")
    if beside := [f"{name}{_total(totals, law)}" for law, name in BESIDE.items() if _total(totals, law)]:
        where = axes.get_yaxis_transform()
        for i, words in enumerate(beside, len(FORMULAS)):
            axes.text(1.03, i, words, transform=where, va="center", fontsize=5.5, linespacing=1.1)
    axes.set_yticks(range(len(FORMULAS)), list(FORMULAS.values()))
    axes.set_ylim(len(FORMULAS) + len(beside) - 0.4, -0.95)
    axes.set_xlim(-1.04 * reach, 1.04 * reach)
    axes.xaxis.set_major_locator(FixedLocator([np.log(f) for f in FACTORS if abs(np.log(f)) <= reach]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _factor(float(np.exp(value)))))
    axes.set_xlabel("k at N, predicted / measured")


def _total(totals: pd.DataFrame, law: str) -> str:
    """Return the keys of all heads that a forecaster gives over those measured, after the fit to the fewest lengths."""
    at = totals.loc[totals["law"] == law, "total_ratio"]
    return f"\nΣ {at.iloc[0]:.2f}" if len(at) and pd.notna(at.iloc[0]) and totals["heads"].iloc[0] >= CROWD else ""


def _factor(value: float) -> str:
    nearest = min(FACTORS, key=lambda factor: abs(factor - value))
    return NAMES.get(nearest, f"{nearest:g}")


def _legend(axes: Axes, shares: list[float]) -> None:
    shades = style.shades(len(shares))
    handles = [
        Line2D([], [], marker="Ds"[j % 2], color=shade, mec="black", mew=0.4, ms=3.6, lw=0, label=f"n ≤ {share:g} N")
        for j, (share, shade) in enumerate(zip(shares, shades, strict=True))
    ]
    legend = axes.legend(
        handles=handles,
        title="fitted at",
        loc="upper right",
        fontsize=style.SMALL,
        title_fontsize=style.SMALL,
        handletextpad=0.2,
        labelspacing=0.2,
        borderaxespad=0.1,
    )
    keep(legend)
