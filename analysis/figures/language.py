"""A model's loss within windows, less its dense loss: against cost, context length and place in the context."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from omegaconf import DictConfig

from analysis.figures import NothingToDraw
from analysis.figures.page import families, style
from analysis.figures.page.shown import nearest_windows
from analysis.figures.page.sources import tag

ONE_PERCENT = float(np.log(1.01))  # nats per token: a hundredth of dense perplexity


def draw(tables: Mapping[str, pd.DataFrame], config: DictConfig) -> Figure:
    """Draw decoding against cost per mix of lengths; below it by length, and prefill by quarter and against cost."""
    table, sources = (
        part[part["selector"] == config.selector] for part in (tables["language"], tables["language_sources"])
    )
    if sources.empty:
        raise NothingToDraw(f"no losses within windows of the method {config.selector}")
    label = sources["label"].iloc[0]  # the one of most lines
    table, sources = table[table["label"] == label], sources[sources["label"] == label].set_index("phase")
    decode, prefill = (table[table["phase"] == phase] for phase in ("decode", "prefill"))
    figure, axes = style.panels(2, 3, config.height, left=0.8, gap=0.55, right=0.02, edge=0.95)
    looks = families.looks(table["family"].unique().tolist())
    if len(decode):
        cost, length = (decode[decode["measure"] == measure] for measure in ("cost", "length"))
        mixes = cost["mix"].unique().tolist()
        for panel, mix in zip(axes[0], mixes, strict=False):
            _against(panel, cost[cost["mix"] == mix], looks, config)
            panel.set_title(f"decode, {mix}")
        near = length.merge(nearest_windows(cost[cost["mix"] == mixes[0]], "keys", config.budget))
        if len(near):
            _at_budget(axes[1, 0], near, looks, config)
    if len(prefill):
        cost, quarter = (prefill[prefill["measure"] == measure] for measure in ("cost", "quarter"))
        near = quarter.merge(nearest_windows(cost, "keys", config.prefill_budget))
        if len(near):
            _by_quarter(axes[1, 1], near, looks, config)
        _against(axes[1, 2], cost, looks, config)
        axes[1, 2].set_title("prefill")
    for panel in axes.flat:
        if not panel.lines:
            panel.set_axis_off()
    for line in axes:
        first = next((panel for panel in line if panel.lines), line[0])
        first.set_ylabel("loss, window - dense\n(nats per token)")
    families.legend(axes[0, -1], looks)
    tag(label, *axes.flat)
    lengths = sorted({int(length) for part in sources["lengths"] for length in str(part).split()})
    samples = sources["samples"].reindex(["decode", "prefill"], fill_value=0)
    style.footer(
        figure,
        f"{label}: contexts of {', '.join(map(style.count_text, lengths))} tokens; decode {samples['decode']} samples, "
        f"prefill {samples['prefill']} samples; bands: 95% over samples, paired.",
    )
    return figure


def _against(axes: Axes, cost: pd.DataFrame, looks: dict[str, families.Look], config: DictConfig) -> None:
    axes.set_xscale("log", base=2)
    axes.set_yscale("symlog", linthresh=config.linear, linscale=0.5)
    for name, look in looks.items():
        families.curve(axes, cost[cost["family"] == name], "keys", "difference", look)
    axes.axhline(ONE_PERCENT, color="black", lw=0.5, ls="--")
    axes.axhline(0, color="black", lw=0.5)
    axes.set_xlabel("keys per row, mean")


def _at_budget(axes: Axes, near: pd.DataFrame, looks: dict[str, families.Look], config: DictConfig) -> None:
    """Draw difference against length of each family's window that is nearest to the budget over the first mix."""
    for name, look in looks.items():
        families.curve(axes, near[near["family"] == name], "length", "difference", look)
    style.length_axis(axes, near["length"].unique().tolist())
    axes.set_yscale("symlog", linthresh=config.linear, linscale=0.5)
    axes.axhline(0, color="black", lw=0.5)
    axes.set_title(f"decode, about {config.budget} keys a row")
    axes.set_xlabel("context length (keys)")


def _by_quarter(axes: Axes, near: pd.DataFrame, looks: dict[str, families.Look], config: DictConfig) -> None:
    """Draw difference against the quarter of the context of each family's window that is nearest to the budget."""
    for name, look in looks.items():
        families.curve(axes, near[near["family"] == name], "quarter", "difference", look)
    axes.set_title(f"prefill, about {config.prefill_budget} keys a row")
    axes.set_xlabel("quarter of the context")
    axes.set_xticks(sorted(near["quarter"].unique()))
    axes.axhline(0, color="black", lw=0.5)
