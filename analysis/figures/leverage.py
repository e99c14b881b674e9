"""Keys of large leverage, where their guarantee holds and where it does not: attention as |q.k|^2, and softmax."""

import pandas as pd
from omegaconf import DictConfig

from analysis import choices, families, settings, style
from analysis.figures import Drawing, Evidence, NothingToDraw
from analysis.load import labels_in_order

SELECTORS = {
    "oracle": ((0.0, 0.0, 0.0, 1.0), "-", ""),
    "lev_attention": (style.shades(2)[0], "-", "o"),
    "random": ((0.55, 0.55, 0.55, 1.0), "--", "x"),
}
SCORES = {"plain": "softmax", "plain, |x|^2": "attention as |q.k|^2"}


def draw(evidence: Evidence, config: DictConfig) -> Drawing:
    """Draw one line of panels per score, one column per source; see conf/figure/leverage.yaml."""
    windows = evidence.windows[evidence.windows["selector"].isin(list(SELECTORS))]
    found = windows.groupby("label", observed=True)["variant"].nunique()
    labels = [label for label in labels_in_order(windows) if found.get(label, 0) == len(SCORES)]
    if not labels:
        raise NothingToDraw("no source with both scores: python run.py experiment=selectors, then experiment=leverage")
    windows = windows[windows["label"].isin(labels)]
    confidence = settings.analysis().confidence
    tables = [
        choices.split(windows[windows["variant"] == variant], confidence).assign(variant=variant, score=score)
        for variant, score in SCORES.items()
    ]
    figure, axes = style.panels(len(SCORES), len(labels), config.height, left=0.7, gap=0.3, right=0.04, edge=0.85)
    for panel, label in zip(axes[0], labels, strict=True):
        style.title(panel, label, panel.get_position().width * style.PAGE)
    for line, table in zip(axes, tables, strict=True):
        for panel, label in zip(line, labels, strict=True):
            own = table[(table["label"] == label) & (table["rule"] == "grid")]
            own = own[(own["length"] == own["length"].max()) & (own["k"] < own["length"])]
            for name, look in SELECTORS.items():
                families.curve(panel, own[own["selector"] == name], "k", "dropped_mass", look)
            style.length_axis(panel, [2**i for i in range(0, int(own["k"].max()).bit_length())], most=5)
            panel.set_ylim(0, 1.02)
            panel.set_xlabel("keys kept")
        line[0].set_ylabel(f"dropped mass,\n{table['score'].iloc[0]}")
    families.legend(axes[0, -1], {name.replace("_", " "): look for name, look in SELECTORS.items()})
    style.footer(figure, style.counts(windows[windows["variant"] == "plain"]))
    return Drawing(figure, pd.concat(tables, ignore_index=True))
