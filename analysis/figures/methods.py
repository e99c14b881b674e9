"""Methods inside a model: what they lose against keys by kind, and what of it the oracle loses too."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from omegaconf import DictConfig

from analysis.figures import NothingToDraw
from analysis.figures.page import style
from analysis.figures.page.names import KINDS
from analysis.figures.page.sources import tag

ORACLE = "oracle"
GIVEN = ("fixed", "linear")
ANY = "any"  # the rule of what has no budget
MARKERS = "o^sDvPXp"
NAMES = {
    "lost": "loss over dense\n(nats per token)",
    "budget": "the oracle's loss\n(nats per token)",
    "kl": "KL(dense || sparse)\n(nats)",
    "agreement": "agreement",
    "choice": "loss beyond the\noracle's (nats)",
}


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
    curves = _with_a_curve(table)
    alone = table.loc[~table["selector"].isin(curves), "selector"].nunique()
    table = table[table["selector"].isin(curves)]
    named = {title: _names(table, kinds) for title, kinds in config.panels.items()}
    named = {title: names for title, names in named.items() if names}
    if not named:
        raise NothingToDraw("no method of a kind that conf/figure/methods.yaml names")
    # names stand in the gap between lines of panels, or right of the one panel of a narrow page: they would hide curves
    wide = style.PAGE >= style.FULL_PAGE
    names_at: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (-0.02, -0.14) if wide else (1.03, 1.0)}
    names_at |= {"ncols": 2 if wide else 1, "columnspacing": 0.8}
    right = 0.08 if wide else 1.0
    figure, axes = style.panels(len(measures), len(named), config.height, left=0.62, gap=0.15, right=right, edge=0.1)
    for line, measure in zip(axes, measures, strict=True):
        low, high = _limits(table[table["selector"].isin({ORACLE}.union(*named.values()))], measure, config.linear)
        for panel, names in zip(line, named.values(), strict=True):
            _against_keys(panel, table, measure, names, config.linear)
            panel.set_ylim(low, high)
            panel.tick_params(labelleft=panel is line[0])
        line[0].set_ylabel(NAMES[measure])
    for panel, title in zip(axes[0], named, strict=True):
        panel.set_title(title)
        panel.legend(fontsize=style.SMALL - 0.5, handlelength=1.4, labelspacing=0.2, borderpad=0, **names_at)
    for panel in axes[-1]:
        panel.set_xlabel("keys kept per row")
    tag(label, *axes.flat)
    samples = int(table["samples"].max())
    style.footer(
        figure,
        f"{label}, {config.phase}, contexts of {length} tokens, {samples} samples; black: the oracle; lines: fixed and "
        "linear windows; hollow marks alone: all other windows; bars: 95% over samples, paired."
        + (f" Methods of one window, which the table has alone: {alone}." if alone else ""),
    )
    return figure


def _with_a_curve(table: pd.DataFrame) -> set[str]:
    """Return the methods of several windows or of none, and the oracle; all methods where each has one window."""
    windows = table.groupby("selector")["keys"].nunique()
    several = set(windows.index[windows > 1]) - {ORACLE}
    if not several:
        return set(windows.index)
    return several | {ORACLE} | set(table.loc[table["rule"] == ANY, "selector"])


def _names(table: pd.DataFrame, kinds: Sequence[str]) -> list[str]:
    """Return the methods of some kinds, in order."""
    return [name for kind in kinds for name in KINDS[kind] if name in set(table["selector"])]


def _limits(table: pd.DataFrame, measure: str, linear: float) -> tuple[float, float]:
    """Return the limits of an axis that holds every mean; an interval may go on beyond."""
    low, high = float(table[measure].min()), float(table[measure].max())
    if measure == "agreement":
        return low - 0.03, 1.02
    return min(1.3 * low, -0.5 * linear), 1.5 * high


def _against_keys(panel: Axes, table: pd.DataFrame, measure: str, names: Sequence[str], linear: float) -> None:
    """Draw a quality of some methods against their keys, over the oracle's; of what keeps no keys a line."""
    oracle = table[(table["selector"] == ORACLE) & table["rule"].isin(GIVEN)].sort_values("keys")
    panel.fill_between(
        oracle["keys"], oracle[f"{measure}_low"], oracle[f"{measure}_high"], color="black", alpha=0.1, lw=0
    )
    panel.plot(oracle["keys"], oracle[measure], color="black", lw=1.1)
    for shade, marker, name in zip(style.shades(len(names)), MARKERS * 2, names, strict=False):
        own = table[table["selector"] == name].sort_values("keys")
        if (own["rule"] == ANY).any():
            panel.axhline(own[measure].iloc[0], color=shade, lw=0.8, ls="--", label=name)
            continue
        given, others = own[own["rule"].isin(GIVEN)], own[~own["rule"].isin(GIVEN)]
        look: dict[str, Any] = {"color": shade, "marker": marker, "ms": 2.8, "mew": 0.6, "mfc": "white"}
        reach = style.reach(given[measure], given[f"{measure}_low"], given[f"{measure}_high"])
        panel.errorbar(given["keys"], given[measure], reach, lw=0.8, elinewidth=0.4, label=name, **look)
        panel.plot(others["keys"], others[measure], ls="", **look)
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: style.count_text(round(value))))
    if measure != "agreement":
        panel.set_yscale("symlog", linthresh=linear, linscale=0.5)
        panel.axhline(0, color="black", lw=0.4)
