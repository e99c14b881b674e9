"""Attention against distance: the mean over heads, the layers, and the exponents of the heads."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from omegaconf import DictConfig

from analysis.figures import NothingToDraw
from analysis.figures.page import style
from analysis.figures.page.sources import label_sources, tag

LINES = ("-", "--", "-.", ":")
BLACK = (0.0, 0.0, 0.0, 1.0)


def draw(tables: Mapping[str, pd.DataFrame], config: DictConfig) -> Figure:
    """Draw three panels of the longest contexts; see conf/figure/distance.yaml."""
    table, laws, heads, sources = (tables[name] for name in config.reads)
    labels = [label for label in sources["label"] if (table["label"] == label).any()]
    if not labels:
        raise NothingToDraw("no attention by distance: python run.py experiment=distance")
    longest = {label: int(table.loc[table["label"] == label, "length"].max()) for label in labels}

    def of(part: pd.DataFrame, label: str) -> pd.DataFrame:
        return part[(part["label"] == label) & (part["length"] == longest[label])]

    figure, axes = style.panels(1, 3, config.height, left=0.5, gap=0.5, right=0.8)
    texts, layers, exponents = axes[0]
    _texts(texts, {label: of(table, label) for label in labels}, config)
    first = of(table, labels[0])
    _layers(layers, first[first["layer"].notna() & (first["distance"] > 0)])
    _exponents(exponents, of(heads, labels[0]), of(laws, labels[0]).iloc[0], config)
    for panel in (layers, exponents):
        tag(labels[0], panel)
        style.title(panel, labels[0], panel.get_position().width * style.PAGE)
    lengths = ", ".join(sorted({f"{length:,}" for length in longest.values()}))
    style.footer(figure, f"Context {lengths}. {style.counts(sources)}")
    return figure


def _texts(axes: Axes, curves: Mapping[str, pd.DataFrame], config: DictConfig) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    ends, names = {}, style.short_names(list(curves))
    for (label, part), shade, line in zip(curves.items(), style.shades(len(curves)), LINES * len(curves), strict=False):
        part = part[part["layer"].isna() & (part["distance"] > 0)].sort_values("distance")
        (curve,) = axes.plot(part["middle"], part["probability"], line, color=shade, lw=0.9)
        band = axes.fill_between(
            part["middle"], part["probability_low"], part["probability_high"], color=shade, alpha=0.15, lw=0
        )
        tag(label, curve, band)
        ends[label] = (float(part["probability"].iloc[-1]), names[label], shade)
    if _is_published(next(iter(curves)), config):
        published = config.published.at
        axes.plot(list(published), list(published.values()), "x", color="black", ms=4, mew=0.9, zorder=3)
    label_sources(axes, ends, size=5.5)
    axes.set_xlabel("distance (keys)")
    axes.set_ylabel("mean probability of a key")


def _layers(axes: Axes, table: pd.DataFrame) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    layers, ends = sorted(table["layer"].astype(int).unique()), []
    named = set(style.spread_over(layers, 4))
    for layer, shade in zip(layers, style.shades(len(layers)), strict=True):
        part = table[table["layer"] == layer].sort_values("distance")
        axes.plot(part["middle"], part["probability"], color=shade, lw=1.0 if layer in named else 0.4)
        if layer in named:
            ends.append((float(part["probability"].iloc[-1]), f"layer {layer}", shade))
    style.label_ends(axes, ends, size=5.5)
    axes.set_xlabel("distance (keys)")
    axes.set_ylabel("mean probability, by layer")


def _exponents(axes: Axes, heads: pd.DataFrame, law: pd.Series, config: DictConfig) -> None:
    axes.plot(heads["layer"], heads["exponent"], "o", color="0.55", ms=2, mew=0, alpha=0.8)
    medians = heads.groupby("layer")["exponent"].median()
    axes.plot(medians.index, medians, "_", color="black", ms=5, mew=1.2)
    lines = {"mean": law["exponent"]}
    axes.axhline(law["exponent"], color="black", lw=0.9)
    if _is_published(str(law["label"]), config):
        centre, low, high = config.published.exponent
        axes.axhspan(low, high, color="0.85", lw=0, zorder=0)
        axes.axhline(config.published.closed_form, color="black", ls=":", lw=0.9)
        lines |= {"published": centre, "closed": config.published.closed_form}
    ends = [(float(height), f"{name}, {height:.2f}", BLACK) for name, height in lines.items()]
    style.label_ends(axes, ends, size=5.5)
    axes.set_xlabel("layer")
    axes.set_ylabel("exponent of the decay")


def _is_published(label: str, config: DictConfig) -> bool:
    """Say whether the published numbers are of this model."""
    return label.startswith(config.published.model)
