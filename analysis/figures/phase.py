"""The plane of logit scale s and exponent C: where n^C keys are enough, and how slowly the limit [G5] is reached."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter
from omegaconf import DictConfig
from scipy.special import log_ndtr

from analysis.figures import NothingToDraw
from analysis.figures.page import style
from analysis.figures.page.sources import of_source, tag
from analysis.statistics import closed_forms

COLUMNS = 3
MARKERS = "os^Dv*"


def draw(tables: Mapping[str, pd.DataFrame], config: DictConfig) -> Figure:
    """Draw the plane at three lengths, and below it local exponents and real heads; see conf/figure/phase.yaml."""
    table, sources = tables["phase"], tables["phase_sources"]
    plane, local, placed = (table[table["what"] == what] for what in ("plane", "local exponent", "head"))
    if plane["s"].nunique() < config.scales:
        raise NothingToDraw(f"fewer than {config.scales} logit scales s were measured: python run.py experiment=phase")
    if local.empty:
        raise NothingToDraw("no logit scale was measured at lengths far enough apart: python run.py experiment=phase")
    figure, axes = style.panels(2, COLUMNS, config.height, left=0.45, gap=0.32, right=0.36)
    lengths = style.spread_over(sorted(plane["length"].unique()), COLUMNS)
    for panel, length in zip(axes[0], lengths, strict=False):
        _map(panel, plane[plane["length"] == length], float(length))
    for panel in axes[0, len(lengths) :]:
        panel.remove()
    tag(sources.loc[sources["kind"] == "gaussian", "label"], *axes[0, : len(lengths)], axes[1, 0], axes[1, 1])
    axes[0, 0].set_ylabel("exponent C of the window")
    _colours(figure, axes[0, len(lengths) - 1])
    _against_s(axes[1, 0], local, config)
    _drift(axes[1, 1], local, config)
    _placed(axes[1, 2], placed)
    style.footer(figure, style.counts(sources))
    return figure


def _map(axes: Axes, plane: pd.DataFrame, length: float) -> None:
    grid = plane.pivot_table(index="C", columns="s", values="dropped_mass")
    axes.grid(False)
    axes.pcolormesh(
        *(_edges(np.asarray(values, float)) for values in (grid.columns, grid.index)),
        grid,
        cmap="cividis_r",
        vmin=0,
        vmax=1,
    )
    s = np.linspace(float(plane["s"].min()), float(plane["s"].max()), 200)
    axes.plot(s, closed_forms.critical_exponent(s), color="black", lw=1.1)
    # [G1] is at one half where z(k / n) = sigma
    half = 1 + log_ndtr(-s * np.sqrt(np.log(length))) / np.log(length)
    axes.plot(s, half, "--", color="white", lw=1.0)
    axes.axvline(np.sqrt(2), color="black", lw=0.7, ls=":")
    axes.set_ylim(*_edges(np.asarray(grid.index, float))[[0, -1]])
    axes.set_title(f"dropped mass, n = {style.count_text(length)}")
    axes.set_xlabel("logit scale s")


def _edges(centres: np.ndarray) -> np.ndarray:
    middle = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])


def _colours(figure: Figure, axes: Axes) -> None:
    box = axes.get_position()
    bar = figure.add_axes((box.x1 + 0.008, box.y0, 0.011, box.height))
    figure.colorbar(ScalarMappable(Normalize(0, 1), "cividis_r"), cax=bar)
    bar.set_yticks([0, 0.5, 1], ["0", "½", "1"])


def _against_s(axes: Axes, local: pd.DataFrame, config: DictConfig) -> None:
    lengths = style.spread_over(sorted(local["length"].unique()), 3)
    s = np.linspace(0.05, local["s"].max(), 200)
    ends = []
    for length, shade, marker in zip(lengths, style.shades(len(lengths)), MARKERS, strict=False):
        at = local[local["length"] == length].sort_values("s")
        axes.errorbar(
            at["s"],
            at["local_exponent"],
            style.reach(at["local_exponent"], at["low"], at["high"]),
            fmt=marker,
            color=shade,
            ms=3,
            elinewidth=0.7,
        )
        trusted = s[s <= config.trusted]
        axes.plot(
            trusted, closed_forms.local_exponent_growing(local["eta"].iloc[0], length, trusted), color=shade, lw=0.8
        )
        ends.append((at["local_exponent"].iloc[-1], f"n = {style.count_text(length)}", shade))
    axes.plot(s, closed_forms.critical_exponent(s), color="black", lw=1.1)
    axes.axvline(np.sqrt(2), color="black", lw=0.7, ls=":")
    axes.set_ylim(-0.05, 1.05)
    axes.set_xlabel("logit scale s")
    axes.set_ylabel("local exponent of k")
    axes.set_title("measured, [G6] (thin), C* (black)")
    handles = [
        axes.plot([], [], marker, color=shade, ms=3, label=text)[0]
        for (_, text, shade), marker in zip(ends, MARKERS, strict=False)
    ]
    axes.legend(
        handles=handles, loc="lower left", fontsize=style.SMALL, labelspacing=0.15, borderaxespad=0.2, handletextpad=0.2
    )


def _drift(axes: Axes, local: pd.DataFrame, config: DictConfig) -> None:
    axes.set_xscale("log", base=2)
    trusted = [s for s in sorted(local["s"].unique()) if s <= config.trusted]
    scales = style.spread_over(trusted, config.drifts)
    furthest = 2.0**config.furthest
    n = np.geomspace(local["length"].min(), furthest, 200)
    ends = []
    for s, shade, marker in zip(scales, style.shades(len(scales)), MARKERS, strict=False):
        at = local[local["s"] == s].sort_values("length")
        axes.plot(at["length"], at["local_exponent"], marker, color=shade, ms=3)
        curve = closed_forms.local_exponent_growing(local["eta"].iloc[0], n, s)
        axes.plot(n, curve, color=shade, lw=0.8)
        axes.plot(furthest * 2.0**3, closed_forms.critical_exponent(s), "_", color=shade, ms=9, mew=1.6)
        ends.append((float(curve[-1]), f"s = {s:g}", shade))
    axes.set_ylim(0.5, 1.05)
    axes.set_xlim(right=furthest * 2.0**5)
    ticks = [2.0**power for power in range(10, config.furthest + 1, 20)]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"$2^{{{np.log2(value):.0f}}}$"))
    axes.set_xlabel("context length n (keys)")
    axes.set_title("drift towards C* (dashes)")
    style.label_ends(axes, ends)


def _placed(axes: Axes, placed: pd.DataFrame) -> None:
    axes.set_title("exponent C of real heads")
    axes.set_xlabel("logit scale s = σ / √ln n")
    s = np.linspace(0.05, 2.0, 200)
    axes.plot(s, closed_forms.critical_exponent(s), color="black", lw=1.1)
    axes.axvline(np.sqrt(2), color="black", lw=0.7, ls=":")
    labels = placed["label"].unique().tolist()
    names = style.short_names(labels)
    for label, shade, marker in zip(labels, style.shades(len(labels)), MARKERS, strict=False):
        of_label = placed[placed["label"] == label]
        with of_source(label, axes):
            axes.scatter(
                of_label["s"].clip(0, 2),
                of_label["C"].clip(-0.3, 1.2),
                s=5,
                marker=marker,
                color=shade,
                alpha=0.55,
                lw=0,
                label=names[label],
            )
    if len(labels):
        axes.legend(loc="upper right", fontsize=style.SMALL, labelspacing=0.15, borderaxespad=0.2, handletextpad=0.1)
    axes.set_xlim(0, 2)
    if style.PAGE < style.FULL_PAGE:
        axes.set_xticks([0, 0.5, 1, 1.5, 2])
    axes.set_ylim(-0.32, 1.22)
