"""Keys foretold from two sums of a row [G8] against keys needed, with gap counts and the deviation [G2] beside them."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator
from omegaconf import DictConfig

from analysis.figures import NothingToDraw
from analysis.figures.page import style
from analysis.figures.page.shown import sources_shown
from analysis.figures.page.sources import tag

METHODS = {"rule": ("[G8]", "o"), "gap_counts": ("gaps", "+"), "logit_std": ("[G2]", "x")}
SUMS = {
    "root_sum": ("Σ√p", "v"),
    "log_p_variance": ("V", "s"),
    "participation": ("Σp²", "^"),
    "gap_counts": ("gaps", "+"),
    "logit_std": ("[G2]", "x"),
}


def draw(tables: Mapping[str, pd.DataFrame], config: DictConfig) -> Figure:
    """Draw two rows of panels per real model, keys and exponents, and one for Gaussian sources; a column per eta."""
    table, summary, sources = tables["sums"], tables["sums_summary"], sources_shown(tables["sums_sources"], config)
    etas = [eta for eta in config.etas if (table["eta"] == eta).any()]
    real = [label for label in sources.loc[sources["kind"] != "gaussian", "label"] if (table["label"] == label).any()]
    gaussian = sources[(sources["kind"] == "gaussian") & sources["label"].isin(table["label"])]
    if not etas or not (real or len(gaussian)):
        raise NothingToDraw("no rows of the sources that the figure shows were measured")
    with_exponents = {label: table.loc[table["label"] == label, "C"].notna().any() for label in real}
    rows = sum(1 + int(both) for both in with_exponents.values()) + (len(gaussian) > 0)
    figure, axes = style.panels(rows, len(etas), config.height, left=0.5, gap=0.4, right=0.12)
    line = iter(axes)
    for label in real:
        of_label, about = table[(table["label"] == label) & table["used"]], summary[summary["label"] == label]
        panels = next(line)
        tag(label, *panels)
        for axes_of_eta, eta in zip(panels, etas, strict=True):
            _keys(axes_of_eta, of_label[of_label["eta"] == eta], about[about["eta"] == eta])
            axes_of_eta.set_xlabel(f"keys needed, longest n, η = {eta:g}")
        panels[0].set_ylabel("keys foretold")
        # a label is the user's: a $ in it is no mathematics
        style.heading(panels[0], 1.06, label)
        if with_exponents[label]:
            panels = next(line)
            tag(label, *panels)
            for axes_of_eta, eta in zip(panels, etas, strict=True):
                _exponents(axes_of_eta, of_label[of_label["eta"] == eta], about[about["eta"] == eta])
                axes_of_eta.set_xlabel(f"exponent C measured, η = {eta:g}")
            panels[0].set_ylabel("exponent foretold")
    if len(gaussian):
        panels = next(line)
        tag(gaussian["label"], *panels)
        for axes_of_eta, eta in zip(panels, etas, strict=True):
            _gaussian(axes_of_eta, table[(table["eta"] == eta) & table["label"].isin(gaussian["label"])], gaussian)
            axes_of_eta.set_xlabel(f"logit scale, η = {eta:g}")
        panels[0].set_ylabel("keys foretold / needed")
        style.heading(panels[0], 1.06, "Gaussian, longest n")
    style.footer(figure, style.counts(sources[sources["label"].isin([*real, *gaussian["label"]])]))
    return figure


def _keys(axes: Axes, table: pd.DataFrame, summary: pd.DataFrame) -> None:
    limits = (0.8, 1.3 * float(table["n"].max())) if len(table) else (0.8, 1e4)
    axes.set_xscale("log")
    axes.set_yscale("log")
    _scatter(axes, table, "k", "k_foretold", limits)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(numticks=5))
        axis.set_minor_locator(NullLocator())
    _note(axes, summary, "log_ratio", "off by a factor of", np.exp)


def _exponents(axes: Axes, table: pd.DataFrame, summary: pd.DataFrame) -> None:
    _scatter(axes, table.dropna(subset=["C", "C_foretold"]), "C", "C_foretold", (-0.75, 1.35))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator([-0.5, 0, 0.5, 1]))
    _note(axes, summary, "C_error", "off by", lambda value: value)


def _scatter(axes: Axes, table: pd.DataFrame, x: str, y: str, limits: tuple[float, float]) -> None:
    axes.plot(limits, limits, color="0.6", lw=0.7, zorder=1)
    for (method, (_, marker)), shade in zip(reversed(METHODS.items()), style.shades(len(METHODS))[::-1], strict=True):
        at = table[table["method"] == method]
        axes.scatter(at[x].clip(*limits), at[y].clip(*limits), s=7, marker=marker, color=shade, alpha=0.6, lw=0.6)
    axes.set_xlim(*limits)
    axes.set_ylim(*limits)


def _note(axes: Axes, summary: pd.DataFrame, value: str, words: str, scale: object) -> None:
    """Write the median error of each method into the panel."""
    assert callable(scale)
    for i, ((method, (name, _)), shade) in enumerate(zip(METHODS.items(), style.shades(len(METHODS)), strict=True)):
        at = summary[summary["method"] == method]
        if len(at) and pd.notna(at[value].iloc[0]):
            text = f"{name} {words} {scale(float(at[value].iloc[0])):.2f}"
            axes.text(
                0.03,
                0.97 - 0.09 * i,
                text,
                transform=axes.transAxes,
                va="top",
                fontsize=style.SMALL,
                color=0.75 * np.asarray(shade[:3]),
            )


def _gaussian(axes: Axes, table: pd.DataFrame, sources: pd.DataFrame) -> None:
    """Draw the ratio of keys foretold and needed over the sources, by scale, for each sum by itself."""
    names = style.short_names(sources["label"].tolist())
    place = {label: i for i, label in enumerate(sources["label"])}
    axes.axhline(1, color="0.6", lw=0.7, zorder=1)
    axes.set_yscale("log")
    for (method, (name, marker)), shade in zip(SUMS.items(), style.shades(len(SUMS)), strict=True):
        at = table[table["method"] == method].set_index("label").reindex(list(place))
        x, ratio = list(place.values()), at["k_foretold"] / at["k"]
        axes.plot(x, ratio.clip(0.1, 10), marker=marker, color=shade, ms=3, lw=0.7, label=name)
    axes.set_ylim(0.09, 11)
    axes.yaxis.set_major_locator(FixedLocator([0.1, 0.3, 1, 3, 10]))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    short = [names[label].replace(" ", "") for label in place]
    axes.set_xticks(list(place.values()), short, fontsize=5.5)
    axes.set_xlim(-0.4, len(place) - 0.6)
    axes.legend(loc="lower left", fontsize=style.SMALL, ncols=2, handlelength=1.2, borderaxespad=0.2)
