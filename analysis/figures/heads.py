"""Head by head: the exponent that a head's own logit scale predicts, its law, and its control variants."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from omegaconf import DictConfig

from analysis.figures import NothingToDraw
from analysis.figures.page import style
from analysis.figures.page.names import LAWS
from analysis.figures.page.sources import tag

NAMES = {"plain": "plain", "no_sink": "key 0 hidden", "truncated_context": "truncated context"}
COLUMNS = 4


def draw(tables: Mapping[str, pd.DataFrame], config: DictConfig) -> Figure:
    """Draw two rows of panels per real model; see conf/figure/heads.yaml."""
    table, every, sources = tables["heads"], tables["heads_summary"], tables["heads_sources"]
    labels = [label for label in sources["label"] if table.loc[table["label"] == label, "C"].notna().any()]
    if not labels:
        raise NothingToDraw("no head was measured at enough lengths to fit an exponent")
    figure, axes = style.panels(2 * len(labels), COLUMNS, config.height, left=0.45, gap=0.31, right=0.3)
    for i, label in enumerate(labels):
        of_label, summary = (part[part["label"] == label].set_index("variant") for part in (table, every))
        variants = [variant for variant in NAMES if variant in of_label.index]
        tag(label, *axes[2 * i : 2 * i + 2].flat)
        _predictions(axes[2 * i], of_label, summary, variants, label)
        _laws(axes[2 * i, -1], of_label, variants)
        _map(figure, axes[2 * i + 1, 0], of_label.loc[["plain"]])
        tag(label, figure.axes[-1])
        _controls(axes[2 * i + 1, 1:], of_label, summary, [variant for variant in variants if variant != "plain"])
    style.footer(figure, style.counts(sources))
    return figure


def _predictions(axes: np.ndarray, table: pd.DataFrame, summary: pd.DataFrame, variants: list[str], label: str) -> None:
    for panel, variant in zip(axes, NAMES, strict=False):
        if variant not in variants:
            panel.remove()
            continue
        at = table.loc[[variant]].dropna(subset=["C", "C_predicted"])
        _scatter(panel, at["C_predicted"], at["C"], pd.Series(summary.loc[variant]), "rank_correlation")
        panel.set_title(NAMES[variant])
        panel.set_xlabel("C predicted by σ(n) [G6]")
        panel.set_ylabel("C measured" if variant == "plain" else "")
    # a label is the user's: a $ in it is no mathematics
    style.heading(axes[0], 1.15, label)


def _scatter(axes: Axes, x: pd.Series, y: pd.Series, summary: pd.Series, rank: str) -> None:
    low, high = -0.35, 1.35
    left = -1.1 if rank == "rank_correlation" else low  # predictions stray further than measurements
    axes.plot([low, high], [low, high], color="0.6", lw=0.7)
    size = 5 if len(x) > 60 else 12
    axes.scatter(x.clip(left, high), y.clip(low, high), s=size, color=style.shades(1)[0], alpha=0.55, lw=0)
    axes.set_xlim(left, high)
    axes.set_ylim(low, high)
    axes.xaxis.set_major_locator(FixedLocator([-1, 0, 1] if left < low else [0, 0.5, 1]))
    axes.yaxis.set_major_locator(FixedLocator([0, 0.5, 1]))
    if pd.notna(summary.get(rank)):
        words = f"rank corr. {summary[rank]:.2f}"
        if pd.notna(summary[f"{rank}_low"]):
            words += f"\n[{summary[f'{rank}_low']:.2f}, {min(summary[f'{rank}_high'], 1):.2f}]"
        axes.text(0.03, 0.97, words, transform=axes.transAxes, va="top", fontsize=style.SMALL, linespacing=1.1)


def _laws(axes: Axes, table: pd.DataFrame, variants: list[str]) -> None:
    width = 0.8 / len(variants)
    for j, (variant, shade) in enumerate(zip(variants, style.shades(len(variants)), strict=True)):
        won = table.loc[[variant], "law"].dropna()
        shares = [float((won == law).mean()) if len(won) else 0.0 for law in LAWS]
        middle = np.arange(len(LAWS)) + (j + 0.5) * width - 0.4
        axes.barh(middle, shares, 0.92 * width, color=shade, label=NAMES[variant])
    axes.set_yticks(range(len(LAWS)), list(LAWS.values()))
    axes.set_ylim(len(LAWS) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.5, 1], ["0", "50%", "100%"])
    axes.set_title("law with least AICc")
    axes.set_xlabel("share of heads")
    axes.legend(loc="upper right", fontsize=5.5, handlelength=1, labelspacing=0.15, borderaxespad=0.1)


def _map(figure: Figure, axes: Axes, plain: pd.DataFrame) -> None:
    grid = plain.pivot_table(index="layer", columns="head", values="k_longest")
    layers = np.arange(int(plain["layer"].min()), int(plain["layer"].max()) + 1)
    columns = np.arange(int(plain["head"].max()) + 1)
    values = grid.reindex(index=layers, columns=columns).to_numpy()
    axes.grid(False)
    axes.set_facecolor("0.85")
    scale = LogNorm(1, float(plain["n_longest"].max()))
    extent = (-0.5, len(columns) - 0.5, layers[0] - 0.5, layers[-1] + 0.5)
    axes.imshow(values, cmap="cividis", norm=scale, origin="lower", aspect="auto", extent=extent)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.set_xlabel("head")
    axes.set_ylabel("layer")
    axes.set_title("keys needed at longest n")
    box = axes.get_position()
    bar = figure.add_axes((box.x1 + 0.006, box.y0, 0.009, box.height))
    figure.colorbar(ScalarMappable(scale, "cividis"), cax=bar)
    bar.yaxis.set_major_locator(FixedLocator([1, 10, 100, 1000, 10000]))
    bar.yaxis.set_minor_locator(NullLocator())
    bar.yaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:g}".removesuffix("000") + "k" * int(value >= 1000))
    )
    bar.tick_params(labelsize=5, pad=1)


def _controls(axes: np.ndarray, table: pd.DataFrame, summary: pd.DataFrame, controls: list[str]) -> None:
    plain = table.loc[["plain"]].set_index(["layer", "head"])
    for panel, variant in zip(axes, [*controls, *[None] * (len(axes) - len(controls))], strict=True):
        if variant is None and panel is axes[-1] and "truncated_context" in controls:
            _disagreement(panel, plain, table.loc[["truncated_context"]].set_index(["layer", "head"]))
        elif variant is None:
            panel.remove()
        else:
            other = table.loc[[variant]].set_index(["layer", "head"])
            both = pd.DataFrame({"plain": plain["C"], "other": other["C"]}).dropna()
            _scatter(panel, both["plain"], both["other"], pd.Series(summary.loc[variant]), "rank_with_plain")
            panel.set_title(f"C {NAMES[variant]}")
            panel.set_xlabel("C plain")


def _disagreement(axes: Axes, plain: pd.DataFrame, other: pd.DataFrame) -> None:
    names = list(LAWS)
    counts = pd.crosstab(plain["law"], other["law"]).reindex(index=names, columns=names, fill_value=0).to_numpy()
    axes.grid(False)
    axes.imshow(counts, cmap="Greys", vmax=2 * max(counts.max(), 1), aspect="auto")
    for (i, j), count in np.ndenumerate(counts):
        axes.text(j, i, str(count), ha="center", va="center", fontsize=style.SMALL, weight="bold" if i == j else None)
    axes.set_xticks(range(len(names)), list(LAWS.values()), fontsize=5.5, rotation=40)
    axes.set_yticks(range(len(names)), list(LAWS.values()), fontsize=5.5)
    axes.set_title("heads per law")
    axes.set_xlabel("truncated context")
    axes.set_ylabel("plain")
