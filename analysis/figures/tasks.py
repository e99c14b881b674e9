"""Answers to tasks within windows: log-probability lost to dense attention against keys, a panel per task."""

from collections.abc import Mapping
from math import ceil

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from omegaconf import DictConfig

from analysis.figures import NothingToDraw
from analysis.figures.page import style
from analysis.figures.page.sources import keep, tag

MARKERS = "os^DvPXdhp<>*"
ACROSS = 3  # panels in a row of a full page


def draw(tables: Mapping[str, pd.DataFrame], config: DictConfig) -> Figure:
    """Draw the source of most lines at its longest length; see conf/figure/tasks.yaml."""
    sources = tables["tasks_sources"]
    facts = sources.iloc[0]
    table = tables["tasks"]
    table = table[(table["label"] == facts["label"]) & (table["phase"] == facts["phase"])]
    length = table["length"].max()
    table = table[(table["length"] == length) & (table["rule"] == config.rule)]
    if table.empty:
        raise NothingToDraw(f"no task was answered within windows of the rule {config.rule}")
    dense = tables["tasks_dense"].set_index(["label", "phase", "length", "task"])["exact"]
    names = [name for name in table["task"].unique() if config.tasks is None or name in config.tasks]
    if not names:
        raise NothingToDraw(f"none of the tasks {', '.join(config.tasks)} was answered")
    methods = table["selector"].unique().tolist()
    across = min(ACROSS if style.PAGE >= style.FULL_PAGE else 1, len(names))
    figure, axes = style.panels(
        ceil(len(names) / across), across, config.height, left=0.45, gap=0.35, right=0.05, edge=1.0
    )
    looks = dict(zip(methods, zip(style.shades(len(methods)), MARKERS, strict=False), strict=False))
    for panel, name in zip(axes.flat, names, strict=False):
        for method, (shade, marker) in looks.items():
            curve = table[(table["task"] == name) & (table["selector"] == method)].sort_values("keys")
            panel.fill_between(curve["keys"], curve["lost_low"], curve["lost_high"], color=shade, alpha=0.06, lw=0)
            panel.plot(curve["keys"], curve["lost"], marker=marker, color=shade, ms=2.6, lw=0.8, mfc="none", mew=0.6)
        panel.axhline(0, color="black", lw=0.5)
        panel.set_xscale("log", base=2)
        exact = float(dense[facts["label"], facts["phase"], length, name])
        panel.set_title(f"{name.replace('_', ' ')}: dense {exact:.0%}")
    for panel in list(axes.flat)[len(names) :]:
        panel.remove()
    for line in axes:
        line[0].set_ylabel("ln p lost (nats)")
    for panel in list(axes.flat)[: len(names)][-across:]:
        panel.set_xlabel("keys per row, mean")
    handles = [
        Line2D([], [], color=shade, marker=marker, ms=2.8, lw=0.8, mfc="none", mew=0.6, label=method)
        for method, (shade, marker) in looks.items()
    ]
    keep(
        axes[0, -1].legend(
            handles=handles, loc="upper left", bbox_to_anchor=(1.02, 1.0), fontsize=style.SMALL, borderaxespad=0
        )
    )
    tag(facts["label"], *list(axes.flat)[: len(names)])
    style.footer(
        figure,
        f"{facts['label']}, {facts['phase']}, contexts of {length} tokens: {facts['samples']} samples; windows of the "
        f"rule {config.rule}; bands: 95% over samples, paired.",
    )
    return figure
