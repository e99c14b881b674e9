"""Fitted exponents of a real model: a map over layers and heads, and their distribution with intervals."""

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
from analysis.figures.page.shown import sources_shown


def draw(tables: Mapping[str, pd.DataFrame], config: DictConfig) -> Figure:
    """Draw a map and a sorted plot of exponents per real model; see conf/figure/exponents.yaml."""
    sources, pooled = sources_shown(tables["fits_sources"], config), tables["fits_pooled"]
    heads = tables["fits"][tables["fits"]["label"].isin(sources["label"])]
    if heads.empty:
        raise NothingToDraw("no real model has been measured")
    if heads["C"].isna().all():
        raise NothingToDraw(f"no head could be fitted: {heads['reason'].iloc[0]}")
    fitted = set(heads.loc[heads["C"].notna(), "label"])
    labels = [label for label in sources["label"] if label in fitted]
    figure, axes = style.panels(len(labels), 2, config.height, gap=0.62, right=0.42)
    for (chart, sorted_plot), label in zip(axes, labels, strict=True):
        of_label = heads[heads["label"] == label]
        _map(figure, chart, of_label)
        style.title(chart, label, style.PAGE / 2 - 0.6)
        _caterpillar(sorted_plot, of_label, pooled[pooled["label"] == label].iloc[0])
        lawful = int(of_label["C"].notna().sum())
        count = f"{lawful} of {len(of_label)}" if lawful < len(of_label) else str(lawful)
        sorted_plot.set_title(rf"{count} heads, sorted ($\eta$ = {config.eta:g})")
    without = heads[~heads["label"].isin(fitted)].drop_duplicates("label")
    reasons = (f" No head of {line.label} could be fitted: {line.reason}." for line in without.itertuples())
    style.footer(figure, style.counts(sources) + "".join(reasons))
    return figure


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
    words = f"pooled C = {pooled['C']:.2f}"
    if not np.isnan(pooled["C_low"]):
        words += f" [{pooled['C_low']:.2f}, {pooled['C_high']:.2f}]"
    # sorted dots rise to the right, which leaves two corners free; the band takes one of them
    x, y, ha, va = (0.97, 0.03, "right", "bottom") if pooled["C"] < (low + high) / 2 else (0.03, 0.97, "left", "top")
    axes.text(x, y, words, transform=axes.transAxes, ha=ha, va=va, fontsize=style.SMALL)
