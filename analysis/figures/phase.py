"""The plane of logit scale s and exponent C: where n^C keys are enough, and how slowly the limit [G5] is reached."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter
from omegaconf import DictConfig
from scipy import stats

from analysis import closed_forms, heads, settings, style
from analysis.figures import Drawing, Evidence, NothingToDraw

COLUMNS = 3
MARKERS = "os^Dv*"


def draw(evidence: Evidence, config: DictConfig) -> Drawing:
    """Draw the plane at three lengths, and below it local exponents and real heads; see conf/figure/phase.yaml."""
    gaussian = evidence.windows[evidence.windows["s"].notna() & (evidence.windows["scale"] == 1)]
    scales = np.sort(gaussian["s"].unique())
    if len(scales) < config.scales:
        raise NothingToDraw(f"fewer than {config.scales} logit scales s were measured: python run.py experiment=phase")
    plane = _plane(gaussian)
    local = _local_exponents(evidence.rows[evidence.rows["s"].notna()], config)
    placed = _heads(evidence, config)
    figure, axes = style.panels(2, COLUMNS, config.height, left=0.45, gap=0.32, right=0.36)
    lengths = style.spread_over(sorted(plane["length"].unique()), COLUMNS)
    for panel, length in zip(axes[0], lengths, strict=False):
        _map(panel, plane[plane["length"] == length], float(length), config)
    for panel in axes[0, len(lengths) :]:
        panel.remove()
    axes[0, 0].set_ylabel("exponent C of the window")
    _colours(figure, axes[0, len(lengths) - 1])
    _against_s(axes[1, 0], local, config)
    _drift(axes[1, 1], local, config)
    _placed(axes[1, 2], placed, config)
    used = pd.concat([gaussian, evidence.windows[evidence.windows["label"].isin(placed["label"])]])
    style.footer(figure, style.counts(used))
    tables = {"plane": plane, "local exponent": local, "head": placed}
    table = pd.concat([part.assign(what=what) for what, part in tables.items()], ignore_index=True)
    return Drawing(figure, table[["what", *(c for c in table if c != "what")]], _agreement(plane, local, config))


def _plane(windows: pd.DataFrame) -> pd.DataFrame:
    """Mean dropped mass of k = n^C at every s, C and n, with that of [G1]."""
    keys = ["label", "s", "length", "parameter"]
    table = windows.groupby(keys, observed=True)[["k", "dropped_mass"]].mean().reset_index()
    sigma = closed_forms.deviation(table["length"], s=1) * table["s"]
    return table.rename(columns={"parameter": "C"}).assign(
        theory=closed_forms.dropped_mass(table["k"], table["length"], sigma)
    )


def _local_exponents(rows: pd.DataFrame, config: DictConfig) -> pd.DataFrame:
    """Local exponents d ln k_min / d ln n between lengths a factor apart, with Student's interval over draws."""
    column = f"k_min_{config.eta:g}"
    keys = ["label", "s", "cluster"]
    means = rows.pivot_table(index=keys, columns="length", values=column, observed=True)
    lines = []
    for length in means.columns:
        if (longer := config.factor * length) not in means:
            continue
        slopes = (np.log(means[longer] / means[length]) / np.log(config.factor)).dropna()
        for (label, s), values in slopes.groupby(["label", "s"], observed=True):
            count, middle = len(values), length * np.sqrt(config.factor)
            half = stats.t.isf((1 - config.confidence) / 2, count - 1) * values.sem() if count > 1 else np.nan
            line = {"label": label, "s": s, "length": middle, "local_exponent": values.mean()}
            line |= {"low": values.mean() - half, "high": values.mean() + half, "clusters": count}
            line["theory"] = float(closed_forms.local_exponent_growing(config.eta, middle, s))
            lines.append(line)
    return pd.DataFrame(lines)


def _heads(evidence: Evidence, config: DictConfig) -> pd.DataFrame:
    """Place every head of every real model by its own s and its own exponent."""
    real = evidence.rows[evidence.rows["kind"] == "real"]
    columns = ["label", "layer", "head", "s", "C", "C_predicted", "n_middle"]
    if real.empty:
        return pd.DataFrame(columns=columns)
    found = heads.exponents(real, config.eta, settings.fits(settings.analysis()))
    return heads.by_head(found)[columns].dropna()


def _agreement(plane: pd.DataFrame, local: pd.DataFrame, config: DictConfig) -> pd.DataFrame:
    """Largest distances from [G1] and [G6] for each s, beside the limit [G5]."""
    distance = (plane["dropped_mass"] - plane["theory"]).abs().groupby(plane["s"]).max()
    apart = (local["local_exponent"] - local["theory"]).abs().groupby(local["s"])
    longest = local.sort_values("length").groupby("s").last()
    table = pd.DataFrame({"dropped_mass_from_G1": distance, "local_exponent_from_G6": apart.max()}).reset_index()
    table["local_exponent_at_longest"] = table["s"].map(longest["local_exponent"])
    return table.assign(C_star=closed_forms.critical_exponent(table["s"]), trusted=table["s"] <= config.trusted)


def _map(axes: Axes, plane: pd.DataFrame, length: float, config: DictConfig) -> None:
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
    half = 1 + stats.norm.logsf(s * np.sqrt(np.log(length))) / np.log(length)
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
            [at["local_exponent"] - at["low"], at["high"] - at["local_exponent"]],
            fmt=marker,
            color=shade,
            ms=3,
            elinewidth=0.7,
        )
        trusted = s[s <= config.trusted]
        axes.plot(trusted, closed_forms.local_exponent_growing(config.eta, length, trusted), color=shade, lw=0.8)
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
    known = [s for s in sorted(local["s"].unique()) if s <= config.trusted]
    scales = style.spread_over(known, config.drifts)
    furthest = 2.0**config.furthest
    n = np.geomspace(local["length"].min(), furthest, 200)
    ends = []
    for s, shade, marker in zip(scales, style.shades(len(scales)), MARKERS, strict=False):
        at = local[local["s"] == s].sort_values("length")
        axes.plot(at["length"], at["local_exponent"], marker, color=shade, ms=3)
        curve = closed_forms.local_exponent_growing(config.eta, n, s)
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


def _placed(axes: Axes, placed: pd.DataFrame, config: DictConfig) -> None:
    axes.set_title("exponent C of real heads")
    axes.set_xlabel("logit scale s = σ / √ln n")
    s = np.linspace(0.05, 2.0, 200)
    axes.plot(s, closed_forms.critical_exponent(s), color="black", lw=1.1)
    axes.axvline(np.sqrt(2), color="black", lw=0.7, ls=":")
    labels = placed["label"].unique().tolist()
    names = style.short_names(labels)
    for label, shade, marker in zip(labels, style.shades(len(labels)), MARKERS, strict=False):
        of_label = placed[placed["label"] == label]
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
    axes.set_ylim(-0.32, 1.22)
