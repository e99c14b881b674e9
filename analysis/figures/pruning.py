"""What pruned query and key weights lose, layer by layer, by what chose them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from omegaconf import DictConfig

from analysis.figures import NothingToDraw
from analysis.figures.page import style
from analysis.figures.page.sources import tag

MARKERS = "os^Dv"
WORDS = {"tv": "total variation", "output_error": "output error"}
CRITERIA = {"magnitude": "size", "wanda": "Wanda", "gradient": "descent"}
CRITERIA |= {"softmax_saliency": "saliency", "head_saliency": "by head"}
INTERVALS = " Bars: 95% intervals."


def draw(tables: Mapping[str, pd.DataFrame], config: DictConfig) -> Figure:
    """Draw a line of panels per model and share; see conf/figure/pruning.yaml."""
    table, layers, sources = (tables[name] for name in ("pruning", "pruning_layers", "pruning_sources"))
    labels = sources["label"].tolist()
    if not labels:
        raise NothingToDraw("no weights were pruned: python run.py experiment=pruning")
    places = [
        (label, share)
        for label in labels
        for share in sorted(table.loc[table["label"] == label, "share"].unique(), reverse=True)
    ]
    figure, axes = style.panels(len(places), 3, config.height, left=0.5, gap=0.4, right=0.55, edge=0.0)
    names = [name for name in CRITERIA if name in set(table["criterion"])]
    shades = dict(zip(names, style.shades(len(names)), strict=True))
    for line, (label, share) in zip(axes, places, strict=True):
        tag(label, *line)
        at = (table["label"] == label) & (table["share"] == share)
        by_layer = layers[(layers["label"] == label) & (layers["share"] == share)]
        for panel, (measure, words) in zip(line, WORDS.items(), strict=False):
            ends = []
            for marker, name in zip(MARKERS, names, strict=False):
                curve = by_layer[by_layer["criterion"] == name].sort_values("layer")
                _bars(panel, curve["layer"], curve, measure, marker, shades[name])
                ends.append((float(curve[measure].iloc[-1]), CRITERIA[name], shades[name]))
            panel.set_ylim(bottom=0)
            panel.set_xlabel("layer")
            panel.set_ylabel(words)
            style.label_ends(panel, ends, size=5.5)
        panel = line[2]
        for place, (marker, name) in enumerate(zip(MARKERS, names, strict=False)):
            _bars(
                panel,
                np.array([place]),
                table[at & (table["criterion"] == name)],
                "loss_increase",
                marker,
                shades[name],
            )
        panel.axhline(0, color="0.6", lw=0.6, zorder=0)
        panel.set_xlim(-0.5, len(names) - 0.5)
        panel.set_xticks(range(len(names)), [CRITERIA[name] for name in names], fontsize=5, rotation=20)
        panel.set_xlabel("chosen by")
        panel.set_ylabel("loss above dense, nats")
        style.title(line[0], f"{label}, {share:.0%} kept", style.PAGE)
    style.footer(figure, style.counts(sources) + INTERVALS)
    return figure


def _bars(
    panel: Axes, x: pd.Series | np.ndarray, points: pd.DataFrame, measure: str, marker: str, shade: object
) -> None:
    """Draw points of a measure with their intervals, where they have any."""
    middle = points[measure].to_numpy()
    reach = np.nan_to_num(style.reach(middle, points[f"{measure}_low"], points[f"{measure}_high"]))
    look: dict[str, Any] = {"color": shade, "marker": marker, "ms": 2.4, "lw": 0.8, "elinewidth": 0.5, "mfc": "none"}
    panel.errorbar(x, middle, reach, **look)
