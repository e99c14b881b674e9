"""Key-value recall within windows: log-probability of the answer and exact match against length, depth and cost."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure
from omegaconf import DictConfig

from analysis.figures import NothingToDraw
from analysis.figures.page import families, style
from analysis.figures.page.shown import nearest_windows
from analysis.figures.page.sources import tag

DENSE, SHARPENED = "dense", "sharpened"


def draw(tables: Mapping[str, pd.DataFrame], config: DictConfig) -> Figure:
    """Draw dense beside every family at one budget, and the difference to dense against cost."""
    table, sources = (
        part[part["selector"] == config.selector] for part in (tables["retrieval"], tables["retrieval_sources"])
    )
    if sources.empty:
        raise NothingToDraw(f"no answers within windows of the method {config.selector}")
    facts = sources.iloc[0]  # the label of most lines
    table = table[(table["label"] == facts["label"]) & (table["phase"] == facts["phase"])]
    by_length, by_depth, cost = (table[table["measure"] == measure] for measure in ("answers", "depth", "cost"))
    cost = cost[(cost["mix"] == config.mix) & (cost["rule"] != SHARPENED)]
    near = nearest_windows(cost, "keys", config.budget)
    looks = families.looks(cost["family"].unique().tolist())
    figure, axes = style.panels(2, 2, config.height, left=0.55, gap=0.45, right=0.02, edge=1.0)
    for panel, means, x, y in (
        (axes[0, 0], by_length, "length", "exact"),
        (axes[0, 1], by_length, "length", "log_prob"),
        (axes[1, 0], by_depth, "depth", "log_prob"),
    ):
        dense = means[means["rule"] == DENSE].sort_values(x)
        panel.plot(dense[x], dense[y], color="0.6", lw=2.4, zorder=0)
        shown = means.merge(near).drop(columns=["low", "high"])
        for name, look in looks.items():
            families.curve(panel, shown[shown["family"] == name], x, y, look)
    for panel in axes[0]:
        style.length_axis(panel, by_length["length"].unique().tolist())
        panel.set_xlabel("context length (keys)")
    axes[1, 0].set_xlabel("depth of the number in the context")
    axes[0, 0].set_ylabel("share of answers exact")
    axes[0, 1].set_ylabel("ln p of the answer (nats)")
    axes[1, 0].set_ylabel("ln p of the answer (nats)")
    for name, look in looks.items():
        families.curve(axes[1, 1], cost[cost["family"] == name], "keys", "difference", look)
    axes[1, 1].set_xscale("log", base=2)
    axes[1, 1].axhline(0, color="black", lw=0.5)
    axes[1, 1].set_xlabel("keys per row, mean")
    axes[1, 1].set_ylabel("ln p lost to dense (nats)")
    axes[0, 0].set_title(f"about {config.budget} keys a row; thick: dense")
    families.legend(axes[0, -1], looks)
    tag(facts["label"], *axes.flat)
    style.footer(
        figure,
        f"{facts['label']}, {facts['phase']}: {facts['samples']} samples, {facts['depths']} depths, {facts['answers']} "
        f"answers of about {facts['tokens']:.0f} tokens per window; bands: 95% over samples, paired.",
    )
    return figure
