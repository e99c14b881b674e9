"""Fitted exponents of a real model: a map over layers and heads, their distribution, and whether a power law holds."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from omegaconf import DictConfig

from analysis.figures import NothingToDraw
from analysis.figures.page import style
from analysis.figures.page.names import LAWS
from analysis.figures.page.shown import sources_shown
from analysis.figures.page.sources import tag


def draw(tables: Mapping[str, pd.DataFrame], config: DictConfig) -> Figure:
    """Draw a map and a sorted plot of exponents per real model, and below them what judges the laws.

    See conf/figure/exponents.yaml.
    """
    sources, pooled = sources_shown(tables["fits_sources"], config), tables["fits_pooled"]
    heads = tables["fits"][tables["fits"]["label"].isin(sources["label"])]
    if heads.empty:
        raise NothingToDraw("no real model has been measured")
    if heads["C"].isna().all():
        raise NothingToDraw(f"no head could be fitted: {heads['reason'].iloc[0]}")
    fitted = set(heads.loc[heads["C"].notna(), "label"])
    labels = [label for label in sources["label"] if label in fitted]
    judged = {label: [tables[name][tables[name]["label"] == label] for name in JUDGES] for label in labels}
    below = {label: sum(len(table) > 0 for table in judged[label]) for label in labels}
    rows = len(labels) + sum(count > 0 for count in below.values())
    figure, axes = style.panels(rows, 2, config.height, gap=0.62, right=0.42)
    lines = iter(axes)
    for label in labels:
        (chart, sorted_plot), of_label = next(lines), heads[heads["label"] == label]
        _map(figure, chart, of_label)
        tag(label, chart, sorted_plot, figure.axes[-1])
        style.title(chart, label, style.PAGE / 2 - 0.6)
        _caterpillar(sorted_plot, of_label, pooled[pooled["label"] == label].iloc[0])
        lawful = int(of_label["C"].notna().sum())
        count = f"{lawful} of {len(of_label)}" if lawful < len(of_label) else str(lawful)
        sorted_plot.set_title(rf"{count} heads, sorted ($\eta$ = {config.eta:g})")
        if below[label]:
            for panel, table, draw_judge in zip(next(lines), judged[label], (_shares, _local), strict=True):
                if len(table):
                    tag(label, panel)
                    draw_judge(panel, table)
                else:
                    panel.remove()
    without = heads[~heads["label"].isin(fitted)].drop_duplicates("label")
    reasons = (f" No head of {line.label} could be fitted: {line.reason}." for line in without.itertuples())
    of_heads = style.of_heads("The pooled exponents", sources, pooled.set_index("label")["left_out"])
    style.footer(figure, style.counts(sources) + of_heads + "".join(reasons))
    return figure


JUDGES = ("truths_summary", "local_exponents")
SPEAKS = ("rejects", "misfits")  # of the heads, for the power law and for a + b ln n
TRUTHS = {"power": ("$a\\,n^C$", "s", -0.17), "log": (r"$a + b\,\ln n$", "D", 0.17)}


def _shares(axes: Axes, table: pd.DataFrame) -> None:
    """Draw the share of heads that each law wins, over what it would win if all heads followed either of two laws."""
    place = np.arange(len(LAWS))
    table = table.set_index("law").loc[list(LAWS)]
    axes.barh(place, table["share"], 0.8, color=style.shades(3)[2], label="data")
    for (truth, (formula, marker, offset)), shade in zip(TRUTHS.items(), style.shades(3), strict=False):
        axes.hlines(
            place + offset, table[f"share_if_{truth}_low"], table[f"share_if_{truth}_high"], color=shade, lw=1.1
        )
        distance = table[f"distance_{truth}"].iloc[0]
        words = f"if all heads were {formula} (distance {distance:.2f})"
        axes.plot(table[f"share_if_{truth}"], place + offset, marker, color=shade, ms=3.2, label=words)
    axes.set_yticks(place, list(LAWS.values()))
    # room for the legend below the bars
    axes.set_ylim(len(LAWS) + 1.6, -0.6)
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.5, 1], ["0", "50%", "100%"])
    axes.set_xlabel("share of heads won by AICc")
    axes.legend(loc="lower right", fontsize=style.SMALL, handlelength=1.4, labelspacing=0.2, borderaxespad=0.2)
    first = table.iloc[0]
    rejected, misfits = (" / ".join(f"{first[f'{name}_{truth}']:.0%}" for truth in TRUTHS) for name in SPEAKS)
    style.title(axes, f"rejected {rejected}, misfits {misfits}", style.PAGE, style.SMALL)


def _local(axes: Axes, table: pd.DataFrame) -> None:
    """Draw slopes between neighbouring lengths: median over heads with its interval, and the middle half of heads."""
    table = table.sort_values("n_from")
    n = np.round(np.sqrt(table["n_from"] * table["n_to"]))
    dark, middle, light = style.shades(3)
    quartiles = table["heads_low"], table["heads_high"]
    axes.fill_between(n, *quartiles, color=light, alpha=0.5, lw=0, label="middle half of heads")
    spread = style.reach(table["exponent"], table["exponent_low"], table["exponent_high"])
    axes.errorbar(n, table["exponent"], spread, color=dark, marker="o", ms=3, lw=1, capsize=2, label="median head")
    axes.axhline(0, color=middle, lw=0.6)
    style.length_axis(axes, n.tolist())
    axes.set_xlabel("context length n")
    axes.set_ylabel("slope d ln k / d ln n")
    axes.set_title("slope between neighbouring lengths")
    axes.legend(loc="upper right", fontsize=style.SMALL, handlelength=1.4, labelspacing=0.2)


def _map(figure: Figure, axes: Axes, heads: pd.DataFrame) -> None:
    grid = heads.pivot_table(index="layer", columns="head", values="C")
    layers = np.arange(int(heads["layer"].min()), int(heads["layer"].max()) + 1)
    columns = np.arange(int(heads["head"].max()) + 1)
    values = grid.reindex(index=layers, columns=columns).to_numpy()
    axes.set_facecolor("0.85")
    axes.grid(False)
    extent = (-0.5, len(columns) - 0.5, layers[0] - 0.5, layers[-1] + 0.5)
    axes.imshow(values, cmap="cividis", vmin=0, vmax=1, origin="lower", aspect="auto", extent=extent)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=10, integer=True))
    axes.set_xlabel("head")
    axes.set_ylabel("layer")
    box = axes.get_position()
    bar = figure.add_axes((box.x1 + 0.012, box.y0, 0.012, box.height))
    over, under = bool((heads["C"] > 1).any()), bool((heads["C"] < 0).any())
    extend = "both" if over and under else "max" if over else "min" if under else "neither"
    scale = ScalarMappable(Normalize(0, 1), "cividis")
    figure.colorbar(scale, cax=bar, extend=extend, label="exponent C")


def _caterpillar(axes: Axes, heads: pd.DataFrame, pooled: pd.Series) -> None:
    ranked = heads.dropna(subset="C").sort_values("C", ignore_index=True)
    rank = ranked.index.to_numpy() + 1
    dot = min(2.6, 220 / len(ranked))
    axes.hlines(rank, ranked["C_low"], ranked["C_high"], color="0.62", lw=min(0.9, 80 / len(ranked)))
    axes.plot(ranked["C"], rank, "o", color="black", ms=dot, mew=0)
    axes.set_xlabel(r"exponent C of $k_{\min} = a\,n^{C}$")
    axes.set_ylabel("rank of head")
    ends = ranked[["C", "C_low", "C_high"]].to_numpy()
    # a head of a single wild interval must not squeeze all others
    low, high = max(-0.5, min(0.0, np.nanmin(ends))), min(1.6, max(1.0, np.nanmax(ends)))
    axes.set_xlim(low - 0.03, high + 0.03)
    axes.set_ylim(0, len(ranked) + 1)
    if np.isnan(pooled["C"]):
        return
    axes.axvspan(pooled["C_low"], pooled["C_high"], color=style.shades(2)[1], alpha=0.35, lw=0)
    axes.axvline(pooled["C"], color="black", lw=0.8, ls="--")
    words = f"typical head: C = {pooled['C']:.2f}"
    if not np.isnan(pooled["C_low"]):
        words += f" [{pooled['C_low']:.2f}, {pooled['C_high']:.2f}]"
    # sorted dots rise to the right, which leaves two corners free; the band takes one of them
    x, y, ha, va = (0.97, 0.03, "right", "bottom") if pooled["C"] < (low + high) / 2 else (0.03, 0.97, "left", "top")
    axes.text(x, y, words, transform=axes.transAxes, ha=ha, va=va, fontsize=style.SMALL)
