"""Fixed, logarithmic and power windows side by side: where does the error persist, and where not."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from omegaconf import DictConfig

from analysis import settings, style
from analysis.aggregate import with_spread
from analysis.decay import WINDOW, decay_rates
from analysis.figures import Drawing, Evidence, NothingToDraw
from analysis.load import labels_in_order

MARKERS = "os^Dv*P"


def draw(evidence: Evidence, config: DictConfig) -> Drawing:
    """Draw one column of panels per window, one row per measure; see conf/figure/log_window.yaml."""
    chosen = {(w.rule, float(w.parameter), float(w.scale)): w.name for w in config.windows}
    windows = evidence.windows
    at = pd.MultiIndex.from_frame(windows[WINDOW].astype({"rule": str})).isin(list(chosen))
    windows = windows[at]
    if windows.empty:
        raise NothingToDraw("none of the windows compared was recorded")
    points = [with_spread(windows, m, [*WINDOW, "length"], config.confidence) for m in config.measures]
    table = pd.concat(points, ignore_index=True)
    rates = decay_rates(windows, list(config.measures), settings.fits(settings.analysis()))
    if not rates.empty:
        told = ["label", *WINDOW, "measure", "rate", "rate_low", "rate_high", "falling"]
        table = table.merge(rates[told], how="left", on=told[:5])
    labels = labels_in_order(windows)
    real = set(windows.loc[windows["kind"] == "real", "label"])
    figure, axes = style.panels(
        len(config.measures), len(chosen), config.height, right=0.45, block=len(config.measures)
    )
    for line, (measure, name) in zip(axes, config.measures.items(), strict=True):
        for panel, (key, title) in zip(line, chosen.items(), strict=True):
            shown = (table[["measure", *WINDOW]].astype({"rule": str}) == [measure, *key]).all(axis=1)
            _panel(panel, table[shown], labels, real, config)
            panel.set_title(title if measure == next(iter(config.measures)) else "")
            panel.set_ylabel(name if panel is line[0] else "")
            panel.tick_params(labelleft=panel is line[0])
            panel.set_xlabel("context length n (keys)" if measure == list(config.measures)[-1] else "")
    style.footer(figure, style.counts(windows))
    return Drawing(figure, table)


def _panel(axes: Axes, table: pd.DataFrame, labels: list[str], real: set[str], config: DictConfig) -> None:
    axes.set_yscale("log")
    axes.set_ylim(*config.range)
    style.length_axis(axes, [2.0**power for power in range(8, 21, 3)])
    floor = config.range[0] / 9
    ends, names = [], style.short_names(labels)
    for i, (label, shade) in enumerate(zip(labels, style.shades(len(labels)), strict=True)):
        curve = table[(table["label"] == label) & (table["k"] < table["length"])].sort_values("length")
        if curve.empty:
            continue
        n, centre = curve["length"].to_numpy(float), curve["centre"].to_numpy()
        colour, dash = ((0.0, 0.0, 0.0, 1.0), "--") if label in real else (shade, "-")
        axes.fill_between(n, curve["low"].clip(floor), curve["high"].clip(floor), color=colour, alpha=0.11, lw=0)
        axes.plot(n, np.maximum(centre, floor), dash, color=colour, marker=MARKERS[i % len(MARKERS)])
        ends.append((centre[-1], names[label], colour))
    if len(table):
        axes.set_xlim(0.8 * table["length"].min(), 1.25 * table["length"].max())
    style.label_ends(axes, ends)
