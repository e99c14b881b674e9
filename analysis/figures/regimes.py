"""Error against context length for windows that grow as a power, as a logarithm, or not at all."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from omegaconf import DictConfig

from analysis import closed_forms, style
from analysis.aggregate import with_spread
from analysis.figures import Drawing, Evidence, NothingToDraw
from analysis.layout import by_label
from analysis.load import labels_in_order

THEORY = {
    "dropped_mass": closed_forms.dropped_mass,
    "output_error_truncated": closed_forms.output_error_truncated,
    "output_error_renormalised": closed_forms.output_error_renormalised,
}
LINES = {"power": ("-", "o"), "log": ("--", "s"), "fixed": (":", "^")}


def draw(evidence: Evidence, config: DictConfig) -> Drawing:
    """Draw one panel per source and measure; see conf/figure/regimes.yaml."""
    wanted = evidence.windows["rule"].isin(list(config.rules))
    windows = evidence.windows[wanted]
    if windows.empty:
        raise NothingToDraw(f"no window of the rules {', '.join(config.rules)} was recorded")
    curves = pd.concat(
        _thin(same[same["rule"] == rule], most)
        for _, same in windows.groupby("label", observed=True)
        for rule, most in config.rules.items()
    )
    by = ["rule", "parameter", "scale", "length"]
    points = [with_spread(curves, measure, by, config.confidence) for measure in config.measures]
    table = pd.concat(points, ignore_index=True)
    figure, panels = by_label(
        labels_in_order(curves),
        list(config.measures),
        config.across,
        config.height,
        "context length n (keys)",
    )
    for (label, measure), axes in panels.items():
        about = curves[curves["label"] == label].iloc[0]
        shown = table[(table["label"] == label) & (table["measure"] == measure)]
        _panel(axes, shown, about, measure, config.floor)
    style.footer(figure, style.counts(curves))
    return Drawing(figure, table)


def _thin(frame: pd.DataFrame, most: int) -> pd.DataFrame:
    known = frame[["parameter", "scale"]].drop_duplicates().sort_values(["parameter", "scale"])
    picked = style.spread_over(range(len(known)), most)
    return frame.merge(known.iloc[picked], on=["parameter", "scale"])


def _panel(axes: Axes, table: pd.DataFrame, about: pd.Series, measure: str, floor: float) -> None:
    axes.set_yscale("log")
    axes.set_ylim(floor, 1.4)
    style.length_axis(axes, table["length"].tolist(), most=4)
    names = table[["rule", "parameter", "scale"]].drop_duplicates()
    ends = []
    for rule, (dash, marker) in LINES.items():
        of_rule = names[names["rule"] == rule]
        for shade, (parameter, scale) in zip(
            style.shades(len(of_rule)), of_rule[["parameter", "scale"]].itertuples(index=False), strict=True
        ):
            at = (table["rule"] == rule) & (table["parameter"] == parameter) & (table["scale"] == scale)
            curve = table[at].sort_values("length")
            n, centre = curve["length"].to_numpy(float), curve["centre"].to_numpy()
            axes.fill_between(n, curve["low"].clip(floor / 9), curve["high"], color=shade, alpha=0.18, lw=0)
            axes.plot(n, centre, dash, marker=marker, color=shade)
            if about["kind"] == "gaussian":
                sigma = closed_forms.deviation(n, _number(about["s"]), _number(about["sigma"]))
                axes.plot(
                    n, THEORY[measure](curve["k"].to_numpy(), n, sigma), color="black", lw=0.5, zorder=5
                )
            ends.append((centre[-1], _name(rule, parameter, scale), shade))
    style.label_ends(axes, ends)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _name(rule: str, parameter: float, scale: float) -> str:
    factor = "" if scale == 1 else f"{scale:g} "
    if rule == "power":
        return rf"{factor}$n^{{{parameter:g}}}$"
    if rule == "log":
        return f"{factor}ln n" if parameter == 1 else rf"{factor}(ln n)$^{{{parameter:g}}}$"
    return style.count_text(parameter)
