"""Several models and texts side by side: exponents of the heads, the laws that win, errors of extrapolation."""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from omegaconf import DictConfig

from analysis.figures import NothingToDraw
from analysis.figures.page import style
from analysis.figures.page.names import LAWS
from analysis.figures.page.sources import of_source

QUANTILES = ["q05", "q25", "median", "q75", "q95"]
LETTERS = 34  # of a name, that the left margin has room for
INSIDE = 0.14  # inches from which a bar has room for its name


def draw(tables: Mapping[str, pd.DataFrame], config: DictConfig) -> Figure:
    """Draw one line per model and text; see conf/figure/models.yaml."""
    table, sources = tables["models"], tables["models_sources"]
    labels = sources["label"].tolist()
    if not labels:
        raise NothingToDraw("no real model has been measured")
    figure, (exponents, shares, misses) = _page(labels, float(table["share_fitted"].iloc[0]), config)
    for y, label in enumerate(labels):
        of_label = dict(table[table["label"] == label].set_index("quantity").iterrows())
        with of_source(label, exponents, shares, misses):
            _spread(exponents, y, of_label["exponent C"], style.shades(2)[0])
            _stack(shares, y, of_label)
            for i, (law, shade) in enumerate(zip(config.laws, style.shades(len(config.laws)), strict=True)):
                offset = 0.88 * ((i + 0.5) / len(config.laws) - 0.5)
                _spread(misses, y + offset, of_label[f"ln k error, {law}"], shade, config.reach)
                where = misses.get_yaxis_transform()
                misses.text(1.02, y + offset, LAWS[law], transform=where, va="center", fontsize=style.SMALL)
            _name_line(exponents, y, table[table["label"] == label].iloc[0], label)
    style.footer(figure, style.counts(sources))
    return figure


def _page(labels: Sequence[str], share: float, config: DictConfig) -> tuple[Figure, list[Axes]]:
    figure, grid = style.panels(1, 3, config.line * len(labels) + 0.1, left=1.72, gap=0.0, right=0.12, edge=0.18)
    exponents, shares, misses = axes = list(grid[0])
    for panel in axes:
        panel.set_ylim(len(labels) - 0.5, -0.5)
        panel.set_yticks(range(len(labels)), [])
        panel.grid(False, axis="y")
        panel.tick_params(axis="y", length=0)
        for y in range(1, len(labels)):
            panel.axhline(y - 0.5, color="0.85", lw=0.5)
    exponents.set_ylabel("model and text", labelpad=108)
    style.title(exponents, "exponent C over heads", style.PAGE)
    exponents.set_xlabel(r"C of $k_{\min} = a\,n^{C}$")
    exponents.set_xlim(-0.3, 1.3)
    for limit in (0, 1):
        exponents.axvline(limit, color="0.6", lw=0.5)
    style.title(shares, "heads won by each law", style.PAGE)
    shares.set_xlabel("share of heads, by AICc")
    shares.set_xlim(0, 1)
    style.title(misses, f"miss at N, fitted up to {share:g} N", style.PAGE)
    misses.set_xlabel("ln k predicted − ln k measured")
    misses.set_xlim(-1.04 * config.reach, 1.04 * config.reach)
    misses.axvline(0, color="0.6", lw=0.5)
    return figure, axes


def _spread(axes: Axes, y: float, numbers: pd.Series, shade: style.Colour, reach: float = np.inf) -> None:
    """Draw quantiles over heads above the line's middle and the pooled estimate just below it."""
    q05, q25, median, q75, q95, pooled, low, high = np.clip(
        numbers[[*QUANTILES, "pooled", "low", "high"]].astype(float), -reach, reach
    )
    axes.hlines(y - 0.05, q05, q95, color=shade, lw=0.7)
    axes.hlines(y - 0.05, q25, q75, color=shade, lw=4, alpha=0.55)
    axes.plot(median, y - 0.05, "|", color=shade, ms=7, mew=1.4)
    axes.hlines(y + 0.12, low, high, color="black", lw=0.7)
    axes.plot(pooled, y + 0.12, "D", color=shade, mec="black", mew=0.4, ms=3.4)


def _stack(axes: Axes, y: int, numbers: Mapping[Hashable, pd.Series]) -> None:
    left, inches = 0.0, axes.get_position().width * style.PAGE
    for (law, name), shade in zip(LAWS.items(), style.shades(len(LAWS)), strict=True):
        share = float(numbers[f"share won by {law}"]["share"])
        if not share > 0:
            continue
        axes.add_patch(Rectangle((left, y - 0.3), share, 0.6, facecolor=shade, edgecolor="white", lw=0.5))
        if share * inches >= INSIDE:
            pale = np.dot(shade[:3], (0.3, 0.59, 0.11)) > 0.45
            text = f"{name}\n{share:.0%}"
            axes.text(left + share / 2, y, text, ha="center", va="center", fontsize=5, color="0" if pale else "1")
        left += share
    if left == 0:
        axes.text(0.5, y, "too few lengths to rank", ha="center", va="center", fontsize=style.SMALL, color="0.35")


def _name_line(axes: Axes, y: int, about: pd.Series, label: str) -> None:
    model, *text = (part if len(part) <= LETTERS else f"{part[: LETTERS - 1]}…" for part in label.split(", "))
    words = [model, ", ".join(text) or "prose"]
    words.append(f"{style.count_text(about['shortest'])} to {style.count_text(about['longest'])} tokens")
    where = axes.get_yaxis_transform()
    for line, shade, offset in zip(words, ("0", "0", "0.4"), (-0.24, 0.0, 0.24), strict=True):
        # a label is the user's: a $ in it is no mathematics
        axes.text(
            -0.04,
            y + offset,
            line,
            transform=where,
            ha="right",
            va="center",
            fontsize=5.6,
            color=shade,
            parse_math=False,
        )
