"""Error of windows k = n^C against context length in every norm, truncated and renormalised."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from omegaconf import DictConfig

from analysis.figures import NothingToDraw
from analysis.figures.page import style
from analysis.figures.page.layout import by_label
from analysis.figures.page.names import window_text
from analysis.figures.page.shown import sources_shown
from analysis.figures.page.sources import keep

DASHES = {"truncated": "-", "renormalised": "--"}
MARKERS = "os^Dv"


def draw(tables: Mapping[str, pd.DataFrame], config: DictConfig) -> Figure:
    """Draw one column of panels per source, one row per norm; see conf/figure/sufficiency.yaml."""
    table, sources = tables["sufficiency"], sources_shown(tables["sufficiency_sources"], config)
    table = table[table["parameter"].isin(list(config.exponents)) & table["label"].isin(sources["label"])]
    if table.empty:
        raise NothingToDraw("no window k = n^C of the exponents shown was recorded")
    labels = [label for label in sources["label"] if (table["label"] == label).any()]
    figure, panels = by_label(labels, list(config.norms), config.across, config.height, "context length n")
    for (label, norm), axes in panels.items():
        _panel(axes, table[table["label"] == label], config.norms[norm])
    _legend(panels[labels[0], next(iter(config.norms))])
    style.footer(figure, style.counts(sources[sources["label"].isin(labels)]))
    return figure


def _panel(axes: Axes, table: pd.DataFrame, norm: DictConfig) -> None:
    axes.set_yscale("log")
    axes.set_ylim(*norm.range)
    style.length_axis(axes, table["length"].tolist(), most=3)
    exponents = sorted(table["parameter"].unique())
    ends = []
    for exponent, shade, marker in zip(exponents, style.shades(len(exponents)), MARKERS, strict=False):
        for kind, dash in DASHES.items():
            if kind not in norm:
                continue
            at = (table["parameter"] == exponent) & (table["measure"] == norm[kind])
            curve = table[at].sort_values("length")
            n, centre = curve["length"].to_numpy(float), curve["centre"].to_numpy()
            axes.fill_between(n, curve["low"].clip(norm.range[0] / 9), curve["high"], color=shade, alpha=0.11, lw=0)
            axes.plot(n, centre, dash, marker=marker, color=shade, ms=2.2, lw=0.9)
        ends.append((centre[-1], window_text("power", exponent, 1), shade))
        if norm.get("bound"):
            k = curve["k"].to_numpy()
            axes.plot(n, 1 / (k + 1), ":", color="black", lw=0.7, zorder=5)
    style.label_ends(axes, ends)


def _legend(axes: Axes) -> None:
    handles = [Line2D([], [], color="0.3", ls=dash, lw=0.9, label=kind) for kind, dash in DASHES.items()]
    handles.append(Line2D([], [], color="black", ls=":", lw=0.7, label="[T4], truncated"))
    keep(
        axes.legend(
            handles=handles, loc="lower left", fontsize=5.5, handlelength=1.8, labelspacing=0.15, borderaxespad=0.1
        )
    )
