"""What a layer's attention loses where it is that of a layer below, layer by layer."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure
from omegaconf import DictConfig

from analysis.figures import NothingToDraw
from analysis.figures.page import style
from analysis.figures.page.sources import tag

MARKERS = "os^Dv"
WORDS = {"tv": "total variation", "output_error": "output error"}


def draw(tables: Mapping[str, pd.DataFrame], config: DictConfig) -> Figure:
    """Draw both errors over layers, a line of panels per model; see conf/figure/shared.yaml."""
    table, sources = tables["shared_layers"], tables["shared_sources"]
    labels = sources["label"].tolist()
    if not labels:
        raise NothingToDraw("no row of a layer below: python run.py experiment=shared")
    figure, axes = style.panels(len(labels), 2, config.height, left=0.5, gap=0.4, right=0.85)
    for line, label in zip(axes, labels, strict=True):
        tag(label, *line)
        own = table[table["label"] == label]
        names = [name for name in own["selector"].unique() if name.startswith("shared")]
        gaps = sorted({name.removesuffix("_best") for name in names})
        shades = dict(zip(gaps, style.shades(len(gaps)), strict=True))
        for panel, (measure, words) in zip(line, WORDS.items(), strict=True):
            ends = []
            for name in names:
                curve = own[own["selector"] == name].dropna(subset=measure)
                gap = name.removesuffix("_best")
                marker, dash = MARKERS[gaps.index(gap) % len(MARKERS)], "--" if name.endswith("_best") else "-"
                panel.plot(
                    curve["layer"], curve[measure], dash, marker=marker, ms=2.4, lw=0.8, color=shades[gap], mfc="none"
                )
                text = gap.replace("shared_", "").replace("shared", "1") + (
                    " below, best" if dash == "--" else " below, same"
                )
                if len(curve):
                    ends.append((float(curve[measure].iloc[-1]), text, shades[gap]))
            mean = own[own["selector"] == "mean_value"]
            panel.plot(mean["layer"], mean[measure], color="0.6", lw=1.6, zorder=0)
            if len(mean):
                ends.append((float(mean[measure].iloc[-1]), "mean value", (0.55, 0.55, 0.55, 1.0)))
            panel.set_ylim(bottom=0)
            panel.set_xlabel("layer")
            panel.set_ylabel(words)
            style.label_ends(panel, ends, size=5.5)
        style.title(line[0], label, style.PAGE)
    style.footer(figure, style.counts(sources))
    return figure
