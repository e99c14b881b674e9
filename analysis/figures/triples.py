"""Keys needed by rows over pairs of keys, beside ordinary Gaussian rows and their closed form."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from omegaconf import DictConfig

from analysis.figures import NothingToDraw
from analysis.figures.page import style
from analysis.figures.page.sources import tag


def draw(tables: Mapping[str, pd.DataFrame], config: DictConfig) -> Figure:
    """Draw a panel per logit scale; see conf/figure/triples.yaml."""
    table, sources = tables["triples"], tables["triples_sources"]
    labels = table.loc[table["kind"] == "triples", "label"].unique().tolist()
    if not labels:
        raise NothingToDraw("no triples: python run.py experiment=triples")
    figure, axes = style.panels(1, len(labels), config.height, left=0.5, gap=0.35, right=0.62)
    shades = style.shades(2)
    for panel, label in zip(axes[0], labels, strict=True):
        tag(label, panel)
        own = table[table["label"] == label]
        plain = table[(table["label"] == label.replace("Gaussian triples", "Gaussian")) & (table["kind"] == "gaussian")]
        plain = plain[plain["length"].between(own["length"].min(), own["length"].max())]
        ends = []
        for lines, name, shade, marker in ((own, "triples", shades[0], "o"), (plain, "ordinary", shades[1], "s")):
            if lines.empty:
                continue
            panel.fill_between(lines["length"], lines["keys_low"], lines["keys_high"], color=shade, alpha=0.2, lw=0)
            panel.plot(lines["length"], lines["keys"], marker=marker, ms=3, color=shade)
            ends.append((float(lines["keys"].iloc[-1]), name, shade))
        panel.plot(own["length"], own["closed_form"], ":", color="black", lw=1)
        ends.append((float(own["closed_form"].iloc[-1]), "[G2]", (0.0, 0.0, 0.0, 1.0)))
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(LogLocator(numticks=5))
        panel.yaxis.set_minor_locator(NullLocator())
        style.length_axis(panel, own["length"].tolist(), most=4)
        panel.set_xlabel("keys n of a row")
        style.title(panel, label, 2.0)
        style.label_ends(panel, ends)
    axes[0, 0].set_ylabel("keys for a dropped mass of 0.1")
    style.footer(figure, style.counts(sources))
    return figure
