"""Windows by a method's own estimate over fixed windows at equal keys: a line per method."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from omegaconf import DictConfig

from analysis.figures.page import style
from analysis.figures.page.sources import tag

TITLES = {"ada": "shared in a layer", "own_top_p": "own top-p", "own_threshold": "own threshold"}
SYMBOLS = {"ada": "k", "own_top_p": r"$\eta$", "own_threshold": r"$\epsilon$"}
MARKERS = "os^Dv"
NEAR, FAR = (0.8, 0.9, 1, 1.1, 1.25), (0.25, 0.5, 0.7, 1, 1.4, 2, 3, 4)  # ticks


def draw(tables: Mapping[str, pd.DataFrame], config: DictConfig) -> Figure:
    """Draw the first source at its longest length; see conf/figure/own_windows.yaml."""
    sources, table = tables["own_windows_sources"], tables["own_windows"]
    label = str(sources["label"].iloc[0])
    table = table[(table["label"] == label) & table["ratio"].notna()]
    table = table[table["length"] == table["length"].max()]
    names = table["selector"].unique().tolist()
    rules = [rule for rule in TITLES if rule in set(table["rule"])]
    figure, axes = style.panels(1, len(rules), config.height, left=1.2, gap=0.75, right=0.75, edge=0.1)
    for panel, rule in zip(axes[0], rules, strict=True):
        tag(label, panel)
        own = table[table["rule"] == rule]
        parameters = sorted(own["parameter"].unique())
        shades = style.shades(len(parameters))
        for i, parameter in enumerate(parameters):
            lines = own[own["parameter"] == parameter].set_index("selector").reindex(names)
            y = [j + 0.7 * ((i + 0.5) / len(parameters) - 0.5) for j in range(len(names))]
            panel.hlines(y, lines["ratio_low"], lines["ratio_high"], color=shades[i], lw=0.8)
            text = f"{SYMBOLS[rule]} = {parameter:g}"
            look = {"color": shades[i], "ms": 3, "mew": 0.6, "mfc": "white"}
            panel.plot(lines["ratio"], y, MARKERS[i % len(MARKERS)], label=text, **look)
        panel.axvline(1, color="black", lw=0.6)
        panel.set_xscale("log")
        low, high = panel.get_xlim()
        ticks = [ratio for ratio in (NEAR if high < 1.5 * low else FAR) if low <= ratio <= high]
        panel.set_xticks(ticks, [f"{ratio:g}" for ratio in ticks])
        panel.xaxis.set_minor_locator(NullLocator())
        panel.set_yticks(range(len(names)), names if panel in style.leftmost(axes) else [""] * len(names))
        panel.set_ylim(len(names) - 0.5, -0.5)
        panel.set_title(TITLES[rule])
        panel.set_xlabel("TV over that of fixed windows")
        panel.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), fontsize=style.SMALL, borderaxespad=0)
    for panel in style.leftmost(axes):
        panel.set_ylabel("method")
    style.footer(figure, style.counts(sources[sources["label"] == label]))
    return figure
