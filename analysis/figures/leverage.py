"""Keys of large leverage, where their guarantee holds and where it does not: attention as |q.k|^2, and softmax."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure
from omegaconf import DictConfig

from analysis.figures import NothingToDraw
from analysis.figures.page import families, style
from analysis.figures.page.sources import tag

SELECTORS = {
    "oracle": ((0.0, 0.0, 0.0, 1.0), "-", ""),
    "lev_attention": (style.shades(2)[0], "-", "o"),
    "random": ((0.55, 0.55, 0.55, 1.0), "--", "x"),
}


def draw(tables: Mapping[str, pd.DataFrame], config: DictConfig) -> Figure:
    """Draw one line of panels per score, one column per source; see conf/figure/leverage.yaml."""
    table, sources = tables["leverage"], tables["leverage_sources"]
    labels = sources["label"].tolist()
    if not labels:
        raise NothingToDraw("no source with both scores: python run.py experiment=selectors, then experiment=leverage")
    scores = table["score"].unique().tolist()
    figure, axes = style.panels(len(scores), len(labels), config.height, left=0.7, gap=0.3, right=0.04, edge=0.85)
    for panel, label in zip(axes[0], labels, strict=True):
        style.title(panel, label, panel.get_position().width * style.PAGE)
    for line, score in zip(axes, scores, strict=True):
        for panel, label in zip(line, labels, strict=True):
            tag(label, panel)
            own = table[(table["label"] == label) & (table["rule"] == "grid") & (table["score"] == score)]
            own = own[(own["length"] == own["length"].max()) & (own["k"] < own["length"])]
            for name, look in SELECTORS.items():
                families.curve(panel, own[own["selector"] == name], "k", "tv", look)
            if len(own):  # a record may have other windows than the grid
                style.length_axis(panel, [2**i for i in range(0, int(own["k"].max()).bit_length())], most=5)
            panel.set_ylim(0, 1.02)
            panel.set_xlabel("keys kept")
        line[0].set_ylabel(f"total variation,\n{score}")
    families.legend(axes[0, -1], {name.replace("_", " "): look for name, look in SELECTORS.items()})
    style.footer(figure, style.counts(sources))
    return figure
