"""Promises kept by a verified sample, against what it read for them."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from omegaconf import DictConfig

from analysis.figures import NothingToDraw
from analysis.figures.page import style
from analysis.figures.page.sources import keep, tag

MARKERS = "os^Dv"


def draw(tables: Mapping[str, pd.DataFrame], config: DictConfig) -> Figure:
    """Draw a panel per source; see conf/figure/coverage.yaml."""
    table, sources = tables["coverage"], tables["coverage_sources"]
    labels = sources["label"].tolist()
    if not labels:
        raise NothingToDraw("no promise was measured: python run.py experiment=coverage")
    figure, axes = style.panels(1, len(labels), config.height, left=0.5, gap=0.25, right=0.1, edge=0.75)
    names, bases = table["selector"].unique().tolist(), sorted(table["base"].unique())
    shades = dict(zip(names, style.shades(len(names)), strict=True))
    for panel, label in zip(axes[0], labels, strict=True):
        tag(label, panel)
        own = table[table["label"] == label]
        lengths = sorted(own["length"].unique())
        for name in names:
            for base in bases:
                curve = own[(own["selector"] == name) & (own["base"] == base)].sort_values("length")
                look = {"color": shades[name], "mfc": shades[name] if base == bases[0] else "white"}
                panel.plot(curve["sampled"], curve["covered"], lw=0.6, color=shades[name], zorder=1)
                for _, line in curve.iterrows():
                    x, size = line["sampled"], 2 + 1.2 * lengths.index(line["length"])
                    panel.plot([x, x], [line["covered_low"], line["covered_high"]], color=shades[name], lw=0.5)
                    panel.plot(x, line["covered"], MARKERS[names.index(name)], ms=size, mew=0.6, **look)
        panel.axhline(float(own["promised"].iloc[0]), color="black", ls="--", lw=0.8)
        panel.set_xlim(0, 1.02)
        panel.set_ylim(min(0.3, float(own["covered"].min()) - 0.05), 1.02)
        panel.set_xlabel("share of the other keys sampled")
        style.title(panel, label, panel.get_position().width * style.PAGE)
    axes[0, 0].set_ylabel("share of rows within a tenth")
    plain: dict[str, Any] = {"ls": "", "ms": 3, "mew": 0.6}
    marks = [Line2D([], [], color=shades[name], marker=MARKERS[i], label=name, **plain) for i, name in enumerate(names)]
    for base in bases:
        filling = "0.3" if base == bases[0] else "white"
        marks.append(Line2D([], [], color="0.3", marker="o", mfc=filling, label=f"base {base:.0%}", **plain))
    where: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.02, 1.0), "borderaxespad": 0}
    keep(axes[0, -1].legend(handles=marks, fontsize=style.SMALL, **where))
    style.footer(figure, style.counts(sources))
    return figure
