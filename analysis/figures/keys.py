"""Keys needed against context length, with every law fitted and drawn beyond the data."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from omegaconf import DictConfig

from analysis.figures import NothingToDraw
from analysis.figures.page import style
from analysis.figures.page.names import LAWS
from analysis.figures.page.shown import sources_shown
from analysis.figures.page.sources import tag

BLACK = (0.0, 0.0, 0.0, 1.0)
MEANS = ("mean window", "typical head")
DASHES = {
    "constant": ":",
    "log": "--",
    "power": "-",
    "linear": "-.",
    "affine": (0, (1, 1, 1, 3)),
    "power_log": (0, (5, 1, 1, 1, 1, 1)),
}
OTHERS = {"root": (r"$\sqrt{n}$", (0, (1, 2))), "entropy": ("$e^H$", (0, (4, 2, 1, 2)))}  # published by others
RANDOM = ", random weights"  # of a label


def draw(tables: Mapping[str, pd.DataFrame], config: DictConfig) -> Figure:
    """Draw both means of each model side by side, and one panel per Gaussian source; see conf/figure/keys.yaml."""
    data, laws, foreseen = tables["keys"], tables["keys_laws"], tables["keys_foreseen"]
    sources = sources_shown(tables["keys_sources"], config)
    if sources.empty:
        raise NothingToDraw("no rows of the sources that the figure shows were measured")
    laws = laws[laws["scope"] == "all heads"]
    kinds = dict(zip(sources["label"], sources["kind"], strict=True))
    models = [label for label, kind in kinds.items() if kind == "real"]
    wanted = [(label, mean) for label in models for mean in MEANS]
    wanted += [(label, MEANS[0]) for label, kind in kinds.items() if kind != "real"]
    columns = min(config.across, len(wanted))
    figure, axes = style.panels(-(-len(wanted) // columns), columns, config.height, left=0.5, gap=0.3, right=0.62)
    for panel, (label, mean) in zip(axes.flat, wanted, strict=False):
        at = {
            name: table[(table["label"] == label) & (table["mean"] == mean)]
            for name, table in (("data", data), ("laws", laws), ("foreseen", foreseen))
        }
        random = data[(data["label"] == label + RANDOM) & (data["mean"] == mean)]
        tag(label, panel)
        _panel(panel, at["data"], at["laws"], at["foreseen"], random)
        style.title(panel, f"{label}: {mean}" if label in models else label, style.PAGE / columns - 0.3, 6.5)
    for panel in axes.flat[len(wanted) :]:
        panel.remove()
    for panel in style.leftmost(axes):
        panel.set_ylabel("keys needed")
    measured, of_means = (table.groupby("label", sort=False)["heads"].max() for table in (sources, laws))
    style.footer(figure, style.counts(sources) + style.of_heads("The means", sources, measured - of_means))
    return figure


def _panel(axes: Axes, data: pd.DataFrame, laws: pd.DataFrame, foreseen: pd.DataFrame, random: pd.DataFrame) -> None:
    dark, middle = style.shades(2)
    longest = float(foreseen["n"].max()) if len(foreseen) else float(data["n"].max())
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(0.8 * float(data["n"].min()), longest)
    axes.set_ylim(max(0.8, 0.25 * float(data["k"].min())), max(4 * longest, 10.0))
    axes.plot([1, longest], [1, longest], color="0.7", lw=0.7, zorder=1)
    axes.axvspan(float(data["n"].max()), longest, color="0.95", lw=0, zorder=0)
    lead = laws[laws["lead"].notna()]
    best = lead["law"].iloc[0] if len(lead) else None
    ends = []
    for law, dash in DASHES.items():
        curve = foreseen[foreseen["law"] == law]
        if curve.empty or not np.isfinite(curve["k"]).all():
            continue
        colour = dark if law == best else middle
        if law == best:
            axes.fill_between(curve["n"], curve["k_low"], curve["k_high"], color=colour, alpha=0.2, lw=0)
        axes.plot(curve["n"], curve["k"], color=colour, lw=1.3 if law == best else 0.7, linestyle=dash, marker="")
        ends.append((float(curve["k"].iloc[-1]), LAWS[law] + (" *" if law == best else ""), colour))
    for law, (name, dotted) in OTHERS.items():
        curve = foreseen[foreseen["law"] == law]
        if len(curve):
            axes.plot(curve["n"], curve["k"], color="black", lw=0.6, linestyle=dotted)
            ends.append((float(curve["k"].iloc[-1]), name, BLACK))
    if len(random):
        axes.plot(random["n"], random["k"], color="black", lw=0.8)
        end = random.sort_values("n").iloc[-1]
        axes.text(end["n"], 0.5 * end["k"], "random", ha="center", va="top", fontsize=style.SMALL)
    shown = data[~data["censored"]]
    bars = np.abs(shown[["k_low", "k_high"]].to_numpy().T - shown["k"].to_numpy())
    axes.errorbar(shown["n"], shown["k"], np.nan_to_num(bars), fmt="o", ms=3, color="black", lw=0.8, zorder=5)
    left_out = data[data["censored"]]
    axes.plot(left_out["n"], left_out["k"], "o", ms=3, mfc="none", color="0.4", zorder=5, lw=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(numticks=6))
        axis.set_minor_locator(NullLocator())
    axes.set_xlabel("context length n (keys)")
    style.label_ends(axes, ends)
    power = laws[laws["law"] == "power"]
    if len(power) and pd.notna(power["C"].iloc[0]):
        line = power.iloc[0]
        words = f"{line['k_longest']:,.0f} of {line['n_longest']:,.0f} keys\nC = {line['C']:.2f}"
        if pd.notna(line["C_low"]):
            words += f" [{line['C_low']:.2f}, {line['C_high']:.2f}]"
        axes.text(0.03, 0.97, words, transform=axes.transAxes, va="top", fontsize=style.SMALL, linespacing=1.2)
