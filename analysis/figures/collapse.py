"""Effective entries of a row against context length, at fixed and at growing logit scale and in real models."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from omegaconf import DictConfig

from analysis import closed_forms, settings, style
from analysis.aggregate import with_spread
from analysis.decay import WINDOW, decay_rates
from analysis.figures import Drawing, Evidence, NothingToDraw
from analysis.load import labels_in_order

MARKERS = "os^Dv*P"
REGIMES = ("fixed sigma", "sigma = s sqrt(ln n)", "real model")
TITLES = (r"$\sigma$ fixed", r"$\sigma = s\sqrt{\ln n}$", "real model, median head")


def draw(evidence: Evidence, config: DictConfig) -> Drawing:
    """Draw one column of panels per regime, one row per count; see conf/figure/collapse.yaml."""
    if evidence.rows.empty:
        raise NothingToDraw("no rows were measured")
    rows = evidence.rows.assign(exp_entropy=np.exp(evidence.rows["entropy"]))
    real, fixed = rows["kind"] == "real", rows["sigma"].notna()
    rows["regime"] = np.where(real, REGIMES[2], np.where(fixed, REGIMES[0], REGIMES[1]))
    by = ["regime", "length"]
    table = pd.concat([with_spread(rows, m, by, config.confidence) for m in config.measures], ignore_index=True)
    about = rows.drop_duplicates("label").set_index("label")[["regime", "s", "sigma"]]
    shown = [i for i, regime in enumerate(REGIMES) if (about["regime"] == regime).any()]
    figure, axes = style.panels(
        len(config.measures), len(shown), config.height, right=0.62, gap=0.1, block=len(config.measures)
    )
    labels = {
        i: style.spread_over([x for x in labels_in_order(rows) if about.loc[x, "regime"] == REGIMES[i]], config.curves)
        for i in shown
    }
    for line, (measure, names) in zip(axes, config.measures.items(), strict=True):
        for panel, i in zip(line, shown, strict=True):
            at = (table["measure"] == measure) & table["label"].isin(labels[i])
            _panel(panel, table[at], about.loc[labels[i]], measure, names.range)
            panel.set_title(TITLES[i] if measure == next(iter(config.measures)) else "")
            panel.set_ylabel(names.name if i == shown[0] else "")
            panel.tick_params(labelleft=i == shown[0])
            panel.set_xlabel("context length n (keys)" if measure == list(config.measures)[-1] else "")
    rows = rows[rows["label"].isin([label for chosen in labels.values() for label in chosen])]
    style.footer(figure, style.counts(rows))
    return Drawing(figure, table[table["label"].isin(rows["label"])], _growth(rows, list(config.measures)))


def _growth(rows: pd.DataFrame, measures: list[str]) -> pd.DataFrame:
    """Slopes d ln measure / d ln n with intervals; a row is here a window of its own."""
    lines = rows.assign(rule="", parameter=0.0, scale=1.0, k=0)
    table = decay_rates(lines, measures, settings.fits(settings.analysis()))
    return table.drop(columns=WINDOW, errors="ignore")


def _panel(axes: Axes, table: pd.DataFrame, about: pd.DataFrame, measure: str, limits: list[float]) -> None:
    axes.set_yscale("log")
    axes.set_ylim(*limits)
    style.length_axis(axes, table["length"].tolist(), most=5)
    floor = limits[0] / 9
    ends, names = [], style.short_names([str(label) for label in about.index])
    for (label, source), shade, marker in zip(about.iterrows(), style.shades(len(about)), MARKERS, strict=False):
        curve = table[table["label"] == label].sort_values("length")
        n, centre = curve["length"].to_numpy(float), curve["centre"].to_numpy()
        axes.fill_between(n, curve["low"].clip(floor), curve["high"].clip(floor), color=shade, alpha=0.13, lw=0)
        axes.plot(n, np.maximum(centre, floor), marker=marker, color=shade)
        if source["regime"] != REGIMES[2] and measure.startswith("count_"):
            scale = {key: float(source[key]) for key in ("s", "sigma") if not np.isnan(source[key])}
            fine = np.geomspace(n[0], n[-1], 60)
            eps = float(measure.removeprefix("count_"))
            theory = closed_forms.count_above(eps, fine, closed_forms.deviation(fine, **scale))
            axes.plot(fine, np.maximum(theory, floor), color="black", lw=0.6, zorder=5)
        ends.append((centre[-1], names[str(label)], shade))
    style.label_ends(axes, ends)
