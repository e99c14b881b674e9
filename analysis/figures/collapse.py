"""Effective entries of a row against context length, at fixed and at growing logit scale and in real models."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from omegaconf import DictConfig

from analysis.figures import NothingToDraw
from analysis.figures.page import style
from analysis.figures.page.shown import sources_shown
from analysis.figures.page.sources import label_sources, of_source
from analysis.statistics import closed_forms

MARKERS = "os^Dv*P"
REGIMES = ("fixed sigma", "sigma = s sqrt(ln n)", "real model")
TITLES = (r"$\sigma$ fixed", r"$\sigma = s\sqrt{\ln n}$", "real model, median head")


def draw(tables: Mapping[str, pd.DataFrame], config: DictConfig) -> Figure:
    """Draw one column of panels per regime, one row per count; see conf/figure/collapse.yaml."""
    table, sources = tables["collapse"], sources_shown(tables["collapse_sources"], config)
    if sources.empty:
        raise NothingToDraw("no rows of the sources that the figure shows were measured")
    about = sources.set_index("label")[["s", "sigma"]]
    about["regime"] = table.drop_duplicates("label").set_index("label")["regime"]
    shown = [i for i, regime in enumerate(REGIMES) if (about["regime"] == regime).any()]
    figure, axes = style.panels(
        len(config.measures), len(shown), config.height, right=0.62, gap=0.1, block=len(config.measures)
    )
    labels = {i: style.spread_over(about.index[about["regime"] == REGIMES[i]].tolist(), config.curves) for i in shown}
    for line, (measure, names) in zip(axes, config.measures.items(), strict=True):
        for panel, i in zip(line, shown, strict=True):
            at = (table["measure"] == measure) & table["label"].isin(labels[i])
            _panel(panel, table[at], about.loc[labels[i]], measure, names.range)
            panel.set_title(TITLES[i] if measure == next(iter(config.measures)) else "")
            panel.set_ylabel(names.name if i == shown[0] else "")
            panel.tick_params(labelleft=i == shown[0])
            panel.set_xlabel("context length n (keys)" if measure == list(config.measures)[-1] else "")
    drawn = {label for part in labels.values() for label in part}
    style.footer(figure, style.counts(sources[sources["label"].isin(drawn)]))
    return figure


def _panel(axes: Axes, table: pd.DataFrame, about: pd.DataFrame, measure: str, limits: list[float]) -> None:
    axes.set_yscale("log")
    axes.set_ylim(*limits)
    style.length_axis(axes, table["length"].tolist(), most=5)
    floor = limits[0] / 9
    ends, names = {}, style.short_names([str(label) for label in about.index])
    for (label, source), shade, marker in zip(about.iterrows(), style.shades(len(about)), MARKERS, strict=False):
        curve = table[table["label"] == label].sort_values("length")
        n, centre = curve["length"].to_numpy(float), curve["centre"].to_numpy()
        late = curve["late"].to_numpy(bool)
        with of_source(str(label), axes):
            axes.fill_between(n, curve["low"].clip(floor), curve["high"].clip(floor), color=shade, alpha=0.13, lw=0)
            axes.plot(n, np.maximum(centre, floor), marker=marker, color=shade)
            axes.plot(n[late], np.maximum(centre[late], floor), color=shade, lw=2.4, solid_capstyle="butt")
        frozen = source["s"] >= np.sqrt(2)  # a few keys carry the normaliser, which [G3] takes for its mean
        if source["regime"] != REGIMES[2] and measure.startswith("count_") and not frozen:
            scale = {key: float(source[key]) for key in ("s", "sigma") if not np.isnan(source[key])}
            fine = np.geomspace(n[0], n[-1], 60)
            eps = float(measure.removeprefix("count_"))
            theory = closed_forms.count_above(eps, fine, closed_forms.deviation(fine, **scale))
            with of_source(str(label), axes):
                axes.plot(fine, np.maximum(theory, floor), color="black", lw=0.6, zorder=5)
        ends[str(label)] = (centre[-1], names[str(label)], shade)
    label_sources(axes, ends)
