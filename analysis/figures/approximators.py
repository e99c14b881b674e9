"""Methods that replace the row beside those that choose keys, and the family that serves each head best."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from omegaconf import DictConfig

from analysis.figures import NothingToDraw
from analysis.figures.page import families, style
from analysis.figures.page.sources import tag

DASHES = ("-", "--", ":", "-.")
MARKERS = "osv^DPX*"
BLACK, GREY = (0.0, 0.0, 0.0, 1.0), (0.55, 0.55, 0.55, 1.0)
PANELS = (("keys_read", "tv"), ("keys_read", "output_error"), ("flops", "output_error"), ("length", "tv"))
ORACLE, MEAN = "oracle", "mean value"


def draw(tables: Mapping[str, pd.DataFrame], config: DictConfig) -> Figure:
    """Draw one column of panels per source; see conf/figure/approximators.yaml."""
    table, heads, sources = (tables[name] for name in ("approximators", "approximators_heads", "approximators_sources"))
    labels = sources["label"].tolist()
    if not labels:
        raise NothingToDraw("no method that replaces the row: python run.py experiment=approximators")
    table = table[table["tv"].notna()]
    looks = _looks(table)
    mapped = [label for label in labels if len(heads[heads["label"] == label]) > 1]
    lines = len(PANELS) + bool(mapped)
    figure, axes = style.panels(lines, len(labels), config.height, left=0.55, gap=0.3, right=0.04, edge=1.2)
    for column, label in zip(axes.T, labels, strict=True):
        tag(label, *column)
        own = table[table["label"] == label]
        longest = own[own["length"] == own["length"].max()]
        style.title(column[0], label, column[0].get_position().width * style.PAGE, 6.5)
        for panel, (x, y) in zip(column, PANELS, strict=False):
            shown = longest if x != "length" else own[own["parameter"] == config.budget]
            if shown.empty:  # this window was not measured
                panel.set_axis_off()
                continue
            _curves(panel, shown, x, y, looks, config.least)
        style.length_axis(column[3], own["length"].unique().tolist(), most=4)
        if mapped and label not in mapped:
            column[-1].set_axis_off()
    words = [
        ("keys read", "total variation"),
        ("keys read", "output error"),
        ("multiply-adds of a row", "output error"),
        ("context length (keys)", f"total variation,\n{config.budget} keys"),
    ]
    for line, (x, y) in zip(axes, words, strict=False):
        for panel in line:
            panel.set_xlabel(x)
        line[0].set_ylabel(y)
    families.legend(axes[0, -1], {name.replace("_", " "): look for name, look in looks.items()})
    for label in mapped:
        _map(axes[-1, labels.index(label)], heads[heads["label"] == label], looks, table)
    style.footer(figure, style.counts(sources))
    return figure


def _looks(table: pd.DataFrame) -> dict[str, families.Look]:
    """Return shade, dash and marker of each method: a shade and a marker per family, a dash per method in it."""
    of = table.drop_duplicates("selector").set_index("selector")["family"]
    plain = [name for name in dict.fromkeys(of) if name not in (ORACLE, MEAN)]
    shades = dict(zip(plain, style.shades(len(plain)), strict=True))
    looks: dict[str, families.Look] = {}
    for family in (ORACLE, *plain, MEAN):
        for i, name in enumerate(of.index[of == family]):
            colour = {ORACLE: BLACK, MEAN: GREY}.get(family) or shades[family]
            marker = "" if family in (ORACLE, MEAN) else MARKERS[plain.index(family)]
            looks[str(name)] = (colour, DASHES[i % len(DASHES)], marker)
    return looks


def _curves(axes: Axes, table: pd.DataFrame, x: str, y: str, looks: dict[str, families.Look], least: float) -> None:
    ends = {y: f"{y}_median", "low": f"{y}_median_low", "high": f"{y}_median_high"}
    for name, look in looks.items():
        curve = table[table["selector"] == name]
        if x != "length" and set(curve["family"]) == {MEAN}:
            axes.axhline(max(float(curve[f"{y}_median"].iloc[0]), least), color=look[0], ls=look[1], lw=0.9)
            continue
        curve = pd.DataFrame({x: curve[x]} | {end: curve[column] for end, column in ends.items()}).drop_duplicates(x)
        families.curve(axes, curve.clip(lower=least), x, y, look)
    axes.set_xscale("log", base=2 if x != "flops" else 10)
    if x != "flops":
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: style.count_text(round(value))))
    axes.set_yscale("log")
    axes.yaxis.set_minor_formatter(NullFormatter())
    errors = table[f"{y}_median"]
    axes.set_ylim(max(0.8 * errors[errors > 0].min(), least), min(1.3 * errors.max(), 4))


def _map(axes: Axes, heads: pd.DataFrame, looks: dict[str, families.Look], table: pd.DataFrame) -> None:
    """Colour each head by its best family, and write its first letter, which grey print keeps."""
    colours = {family: looks[name][0] for name, family in zip(table["selector"], table["family"], strict=True)}
    names = [name for name in colours if name in set(heads["family"])]
    layers, columns = np.sort(heads["layer"].unique()), np.sort(heads["head"].unique())
    cells = np.full((len(layers), len(columns)), np.nan)
    for layer, head, family in heads[["layer", "head", "family"]].to_numpy():
        i, j = int(np.searchsorted(layers, layer)), int(np.searchsorted(columns, head))
        cells[i, j] = names.index(family)
        axes.text(j, i, family[0].upper(), ha="center", va="center", fontsize=4.5, color="white")
    axes.imshow(
        cells, cmap=ListedColormap([colours[name] for name in names]), aspect="auto", vmin=0, vmax=len(names) - 0.5
    )
    axes.grid(False)
    axes.set_yticks(range(len(layers)), [str(layer) for layer in layers], fontsize=5)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("head")
    axes.set_ylabel("layer")
    words = [f"{name[0].upper()}: {name}, {(heads['family'] == name).sum()}" for name in names]
    axes.text(1.02, 1.0, "\n".join(words), transform=axes.transAxes, va="top", fontsize=5.5, linespacing=1.3)
