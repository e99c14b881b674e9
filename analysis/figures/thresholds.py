"""Thresholds in 1 / n: keys and dropped mass at one factor, the threshold that holds, and keys over the floor's."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator
from omegaconf import DictConfig

from analysis.figures import NothingToDraw
from analysis.figures.page import style
from analysis.figures.page.sources import tag

RULES = {"relative_threshold": "p > a / n", "peak_threshold": "p > (a / n) max p"}
OTHERS = {"fixed": ("fixed", ":", "o"), "top_p": ("top-p", "--", "D")}
MARKERS = "os^Dv"


def draw(tables: Mapping[str, pd.DataFrame], config: DictConfig) -> Figure:
    """Draw a row of panels per rule for the first label; see conf/figure/thresholds.yaml."""
    sources = tables["thresholds_sources"]
    label = str(sources["label"].iloc[0])
    table, held, laws = (tables[name][tables[name]["label"] == label] for name in config.reads[:3])
    if table.empty:
        raise NothingToDraw("no thresholds in 1 / n: python run.py experiment=thresholds")
    figure, axes = style.panels(2, 3, config.height, left=0.5, gap=0.45, right=0.62, edge=0.22)
    for (rule, name), (keys, dropped, last) in zip(RULES.items(), axes, strict=True):
        tag(label, keys, dropped, last)
        of_rule = table[(table["rule"] == rule) & table["length"].notna()]
        factors = [a for a in config.factors[rule] if (of_rule["parameter"] == a).any()]
        exponents = laws[(laws["rule"] == rule) & (laws["held"] == "parameter")]
        for panel, measure, of in ((keys, "k", "keys"), (dropped, "dropped_mass", "dropped_mass")):
            slope = exponents[exponents["of"] == of].set_index("at")["exponent"]
            _against_length(panel, of_rule, factors, measure, slope)
        keys.plot(of_rule["n"], of_rule["n"], color="0.75", lw=0.7, zorder=1)
        keys.set_ylabel("keys kept")
        dropped.set_ylabel("dropped mass")
        for panel in (keys, dropped):
            panel.set_title(name)
        if rule == "relative_threshold":
            _holding(last, held, laws[laws["rule"] == "threshold"])
        else:
            _over_floor(last, held[held["held"] == config.dropped_mass], config)
    style.footer(figure, style.counts(sources[sources["label"] == label]))
    return figure


def _against_length(axes: Axes, table: pd.DataFrame, factors: list[float], measure: str, exponents: pd.Series) -> None:
    axes.set_yscale("log")
    ends = []
    for a, shade, marker in zip(factors, style.shades(len(factors)), MARKERS * len(factors), strict=False):
        line = table[table["parameter"] == a].sort_values("n")
        axes.fill_between(line["n"], line[f"{measure}_low"], line[f"{measure}_high"], color=shade, alpha=0.15, lw=0)
        axes.plot(line["n"], line[measure], marker, ls="-", color=shade, ms=2.5, lw=0.8)
        ends.append((float(line[measure].iloc[-1]), f"a = {a:g}: {exponents.get(a, float('nan')):.2f}", shade))
    _of_length(axes, table["length"])
    style.label_ends(axes, ends, size=5.5)


def _holding(axes: Axes, held: pd.DataFrame, laws: pd.DataFrame) -> None:
    """Draw the probability above which a mass is dropped at each length, and what falls as 1 / n."""
    axes.set_yscale("log")
    at = held[(held["rule"] == "threshold") & held["length"].notna()]
    targets, ends = sorted(at["held"].unique(), reverse=True), []
    slope = laws[(laws["held"] == "dropped_mass") & (laws["of"] == "threshold")].set_index("at")["exponent"]
    for target, shade, marker in zip(targets, style.shades(len(targets)), MARKERS, strict=False):
        line = at[at["held"] == target].sort_values("n")
        axes.plot(line["n"], line["parameter"], marker, ls="-", color=shade, ms=2.5, lw=0.8)
        axes.plot(line["n"], line["parameter"].iloc[0] * line["n"].iloc[0] / line["n"], ":", color="0.6", lw=0.7)
        ends.append((float(line["parameter"].iloc[-1]), f"drops {target:g}: {slope[target]:.2f}", shade))
    _of_length(axes, at["length"])
    style.label_ends(axes, ends, size=5.5)
    axes.set_ylabel("threshold on p")
    axes.set_title("one that holds the mass")


def _over_floor(axes: Axes, held: pd.DataFrame, config: DictConfig) -> None:
    """Draw each rule's keys over the floor's at an equal dropped mass, at each length and, rightmost, over all."""
    axes.set_yscale("log")
    longest = float(held["length"].max())
    names = {**{rule: (name, "-", MARKERS[i]) for i, (rule, name) in enumerate(RULES.items())}, **OTHERS}
    ends = []
    for (rule, (name, dash, marker)), shade in zip(names.items(), style.shades(len(names)), strict=True):
        of_rule = held[(held["rule"] == rule) & held["ratio"].notna()]
        line, over = of_rule[of_rule["length"].notna()].sort_values("length"), of_rule[of_rule["length"].isna()]
        axes.fill_between(line["length"], line["ratio_low"], line["ratio_high"], color=shade, alpha=0.15, lw=0)
        axes.plot(line["length"], line["ratio"], marker, ls=dash, color=shade, ms=2.5, lw=0.8)
        for _, one in over.iterrows():
            axes.vlines(3 * longest, one["ratio_low"], one["ratio_high"], color=shade, lw=0.8)
            axes.plot(3 * longest, one["ratio"], marker, color=shade, ms=3, mfc="white")
            ends.append((float(one["ratio"]), name, shade))
    style.length_axis(axes, sorted(held["length"].dropna().unique()), most=3)
    ticks = [*axes.get_xticks(), 3 * longest]
    axes.set_xticks(ticks, [*(style.count_text(tick) for tick in ticks[:-1]), "all"])
    axes.yaxis.set_major_locator(FixedLocator([1, 1.5, 2, 3, 5, 10, 20]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    style.label_ends(axes, ends, size=5.5)
    axes.set_xlabel("context length n")
    axes.set_ylabel("keys over the floor's")
    axes.set_title(f"each drops {config.dropped_mass:g}")


def _of_length(axes: Axes, lengths: pd.Series) -> None:
    style.length_axis(axes, sorted(lengths.unique()), most=4)
    axes.yaxis.set_major_locator(LogLocator(numticks=6))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("context length n")
