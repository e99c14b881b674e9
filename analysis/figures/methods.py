"""Methods inside a model: what they lose against keys by kind, and what of it the oracle loses too."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from omegaconf import DictConfig

from analysis.figures import NothingToDraw
from analysis.figures.page import style
from analysis.figures.page.names import KINDS, kind_of
from analysis.figures.page.sources import keep, tag

ORACLE = "oracle"
GIVEN = ("fixed", "linear")
MARKERS = "o^sDvPXp"
NAMES = {"lost": "loss over dense\n(nats per token)", "kl": "KL(dense || sparse)\n(nats)", "agreement": "agreement"}


def draw(tables: Mapping[str, pd.DataFrame], config: DictConfig) -> Figure:
    """Draw one source, the one of most samples, at its longest length; see conf/figure/methods.yaml."""
    table = tables["methods"]
    table = table[table["phase"] == config.phase]
    if table.empty:
        raise NothingToDraw(f"no methods in the phase {config.phase}")
    label = table.sort_values("samples", ascending=False, kind="stable")["label"].iloc[0]
    table = table[table["label"] == label]
    length = table["length"].max()
    table = table[table["length"] == length]
    measures = [name for name in config.measures if table[name].notna().any()]
    kinds = [kind for kind in KINDS if kind in {kind_of(name) for name in set(table["selector"]) - {ORACLE}}]
    figure, axes = style.panels(len(measures), len(kinds), config.height, left=0.62, gap=0.12, right=0.06, edge=0.3)
    for line, measure in zip(axes, measures, strict=True):
        for panel, kind in zip(line, kinds, strict=True):
            _against_keys(panel, table, measure, kind, config.linear)
            panel.tick_params(labelleft=panel is line[0])
        low, high = min(panel.get_ylim()[0] for panel in line), max(panel.get_ylim()[1] for panel in line)
        for panel in line:
            panel.set_ylim(low, high)
        line[0].set_ylabel(NAMES[measure])
    for panel, kind in zip(axes[0], kinds, strict=True):
        panel.set_title(kind)
        keep(panel.legend(fontsize=style.SMALL - 1, loc="best", handlelength=1.4, labelspacing=0.25, borderpad=0.2))
    for panel in axes[-1]:
        panel.set_xlabel("keys kept per row")
    tag(label, *axes.flat)
    samples = int(table["samples"].max())
    style.footer(
        figure,
        f"{label}, {config.phase}, contexts of {length} tokens, {samples} samples; black: the oracle; lines: fixed and "
        "linear windows; hollow marks alone: windows by the method's own estimate; bars: 95% over samples, paired.",
    )
    return figure


def _against_keys(panel: Axes, table: pd.DataFrame, measure: str, kind: str, linear: float) -> None:
    """Draw a quality of the methods of one kind against their keys, over the oracle's."""
    oracle = table[(table["selector"] == ORACLE) & table["rule"].isin(GIVEN)].sort_values("keys")
    panel.fill_between(
        oracle["keys"], oracle[f"{measure}_low"], oracle[f"{measure}_high"], color="black", alpha=0.1, lw=0
    )
    panel.plot(oracle["keys"], oracle[measure], color="black", lw=1.1)
    names = [name for name in KINDS[kind] if name in set(table["selector"])]
    for shade, marker, name in zip(style.shades(len(names)), MARKERS * 2, names, strict=False):
        own = table[table["selector"] == name].sort_values("keys")
        given, others = own[own["rule"].isin(GIVEN)], own[~own["rule"].isin(GIVEN)]
        look: dict[str, Any] = {"color": shade, "marker": marker, "ms": 2.8, "mew": 0.6, "mfc": "white"}
        reach = [given[measure] - given[f"{measure}_low"], given[f"{measure}_high"] - given[measure]]
        panel.errorbar(given["keys"], given[measure], reach, lw=0.8, elinewidth=0.4, label=name, **look)
        panel.plot(others["keys"], others[measure], ls="", **look)
    panel.set_xscale("log", base=2)
    if measure != "agreement":
        panel.set_yscale("symlog", linthresh=linear, linscale=0.5)
        panel.axhline(0, color="black", lw=0.4)
