"""Error against context length for windows that grow as a power, as a logarithm, or not at all."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from omegaconf import DictConfig

from analysis.figures import NothingToDraw
from analysis.figures.page import style
from analysis.figures.page.layout import by_label
from analysis.figures.page.names import window_text
from analysis.figures.page.shown import sources_shown
from analysis.statistics import closed_forms

THEORY = {
    "dropped_mass": closed_forms.dropped_mass,
    "output_error_truncated": closed_forms.output_error_truncated,
    "output_error_renormalised": closed_forms.output_error_renormalised,
}
LINES = {"power": ("-", "o"), "log": ("--", "s"), "fixed": (":", "^")}


def draw(tables: Mapping[str, pd.DataFrame], config: DictConfig) -> Figure:
    """Draw one panel per source and measure; see conf/figure/regimes.yaml."""
    table, sources = tables["regimes"], sources_shown(tables["regimes_sources"], config)
    if not (table["label"].isin(sources["label"]) & table["rule"].isin(list(config.rules))).any():
        raise NothingToDraw(f"no window of the rules {', '.join(config.rules)} was recorded")
    figure, panels = by_label(
        sources["label"].tolist(),
        list(config.measures),
        config.across,
        config.height,
        "context length n (keys)",
    )
    for (label, measure), axes in panels.items():
        about = sources[sources["label"] == label].iloc[0]
        of_label = table[(table["label"] == label) & (table["measure"] == measure)]
        shown = [_thin(of_label[of_label["rule"] == rule], most) for rule, most in config.rules.items()]
        _panel(axes, pd.concat(shown), about, measure, config)
    style.footer(figure, style.counts(sources))
    return figure


def _thin(frame: pd.DataFrame, most: int) -> pd.DataFrame:
    windows = frame[["parameter", "scale"]].drop_duplicates().sort_values(["parameter", "scale"])
    picked = style.spread_over(range(len(windows)), most)
    return frame.merge(windows.iloc[picked], on=["parameter", "scale"])


def _panel(axes: Axes, table: pd.DataFrame, about: pd.Series, measure: str, config: DictConfig) -> None:
    scale = config.measures[measure]
    axes.set_yscale(scale)
    axes.set_ylim(config.floor if scale == "log" else 0.0, 1.4 if scale == "log" else 1.05)
    style.length_axis(axes, table["length"].tolist(), most=4)
    # a window that holds the whole row has no error to show
    table = table[table["k"] < table["length"]]
    names = table[["rule", "parameter", "scale"]].drop_duplicates()
    ends = []
    for rule, (dash, marker) in LINES.items():
        of_rule = names[names["rule"] == rule].itertuples(index=False, name=None)
        for shade, name in zip(style.shades((names["rule"] == rule).sum()), of_rule, strict=True):
            at = (table[["rule", "parameter", "scale"]] == list(name)).all(axis=1)
            curve = table[at].sort_values("length")
            n, centre = curve["length"].to_numpy(float), curve["centre"].to_numpy()
            low = curve["low"].clip(config.floor / 9)
            axes.fill_between(n, low, curve["high"], color=shade, alpha=0.11, lw=0)
            axes.plot(n, centre, dash, marker=marker, color=shade)
            if about["kind"] == "gaussian":
                sigma = closed_forms.deviation(n, _number(about["s"]), _number(about["sigma"]))
                theory = THEORY[measure](curve["k"].to_numpy(), n, sigma)
                trusted = sigma <= config.trusted[measure] * np.sqrt(np.log(n)) + 1e-9
                axes.plot(n, np.where(trusted, theory, np.nan), color="black", lw=0.6, zorder=5)
            ends.append((centre[-1], window_text(*name), shade))
    style.label_ends(axes, ends)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
