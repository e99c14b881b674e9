"""Window rules at equal total cost, and the least cost with the error held: who wins, and by how much."""

from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from omegaconf import DictConfig

from analysis.figures import NothingToDraw
from analysis.figures.page import families, style
from analysis.figures.page.shown import sources_shown
from analysis.figures.page.sources import label_sources, of_source, tag

MEASURES = {
    "dropped_mass": "mean dropped mass",
    "worst_dropped_mass": "dropped mass,\nworst length",
    "cost_for_floor": "cost for floor's\nerror / budget",
}
RULES = {
    "fixed": ("fixed", "-", "o"),
    "log": ("log", "-", "^"),
    "power": ("power", "-", "s"),
    "power_worst": ("power, worst", "--", "s"),
    "linear": ("linear", "-", "v"),
    "top_p": ("top-p", "-", "D"),
    "free": ("best k(n)", ":", ""),
    "floor": ("floor [T7]", "-", ""),
}
NARROWEST = 0.55  # inches of a panel beside another in the column of a journal
BLACK = (0.0, 0.0, 0.0, 1.0)
MARKERS = "os^Dv*P"


def draw(tables: Mapping[str, pd.DataFrame], config: DictConfig) -> Figure:
    """Draw one column of panels per source, and below them one panel per mix; see conf/figure/adaptive.yaml."""
    table, sources = tables["adaptive"], sources_shown(tables["adaptive_sources"], config)
    if sources.empty:
        raise NothingToDraw("no source that the figure shows was compared at equal cost")
    labels, mixes = sources["label"].tolist(), [mix for mix in table["mix"].unique() if _asked(mix, config.mixes)]
    above = sources_shown(sources, config.upper)["label"].tolist() if config.upper else labels
    table = table[table["label"].isin(labels)]
    figure, axes = style.panels(
        len(config.measures) + 2,
        len(above),
        config.height,
        left=0.78,
        right=0.04,
        gap=0.08,
        edge=0.8,
        least=NARROWEST,
    )
    shown, names = table[table["mix"] == config.mix], style.short_names(labels, 16)
    shown = shown[shown["label"].isin(above)]
    for line, measure in zip(axes, config.measures, strict=False):
        for panel, label in zip(line, above, strict=True):
            tag(label, panel)
            _rules(panel, shown[shown["label"] == label], measure, shown[measure])
            panel.tick_params(labelleft=panel is line[0])
            if measure == config.measures[0]:
                style.title(panel, names[label], panel.get_position().width * style.PAGE)
        line[0].set_ylabel(MEASURES[measure])
    axes[len(config.measures) - 1, len(above) // 2].set_xlabel("budget (keys)")  # on each they would touch
    shades = _shades()
    families.legend(axes[0, -1], {name: (shades[rule], dash, marker) for rule, (name, dash, marker) in RULES.items()})
    against = table[table["rule"] == "power"]
    for panel, mix in zip(style.bottom_row(axes, len(mixes), -2), mixes, strict=True):
        ends = _versus_fixed(panel, against[against["mix"] == mix], labels, sources)
        if against["ratio_fixed"].notna().any():
            panel.set_ylim(0.95 * against["ratio_fixed"].min(), 1.05 * against["ratio_fixed"].max())
        _plain(panel, (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1, 1.2))
        label_sources(panel, ends, 5.5)
        panel.set_title(f"lengths {mix}")
        panel.set_ylabel("dropped mass,\npower / fixed" if mix == mixes[0] else "")
        panel.tick_params(labelleft=mix == mixes[0])
    held = tables["held_error"]
    held = held[held["label"].isin(labels) & (held["mix"] == config.mix)]
    taus = sorted((tau for tau in held["tau"].unique() if _asked(tau, config.taus)), reverse=True)
    last = style.bottom_row(axes, max(len(taus), 1))
    for panel, tau in zip(last, taus, strict=False):
        _held(panel, held[held["tau"] == tau], labels)
        panel.set_title(f"worst length drops {tau:g}")
        panel.set_ylabel("least cost,\nover that of fixed" if tau == taus[0] else "")
    if not taus:
        last[0].remove()
    style.make_room(figure, 0.15)  # for names that stand steeper on a narrow page
    style.footer(figure, style.counts(sources))
    return figure


def _asked(value: object, wanted: Collection[object] | None) -> bool:
    return wanted is None or value in wanted


def _rules(axes: Axes, table: pd.DataFrame, measure: str, every: pd.Series) -> None:
    axes.set_yscale("log")
    _budget_axis(axes, table["budget"])
    for rule, shade in _shades().items():
        curve = table[table["rule"] == rule].sort_values("budget")
        _, dash, marker = RULES[rule]
        axes.plot(
            curve["budget"], curve[measure], dash, marker=marker, color=shade, ms=2.2, lw=0.9, mfc="none", mew=0.6
        )
    if len(table) and table.loc[table["rule"] != "floor", measure].isna().all():
        words, at = "beyond what\nwas measured", axes.transAxes  # above the line of the floor
        axes.text(0.5, 0.55, words, transform=at, ha="center", va="bottom", fontsize=style.SMALL)
    if every.notna().any():
        axes.set_ylim(0.93 * every.min(), 1.07 * every.max())
    if measure == "cost_for_floor":
        _plain(axes, (1, 1.5, 2, 3, 5, 10, 20, 50))


def _plain(axes: Axes, ticks: tuple[float, ...]) -> None:
    low, high = axes.get_ylim()
    axes.set_yticks([tick for tick in ticks if low <= tick <= high])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _budget_axis(axes: Axes, budgets: pd.Series) -> None:
    style.length_axis(axes, budgets.tolist(), most=3)
    if len(budgets):
        axes.set_xlim(0.8 * budgets.min(), 1.25 * budgets.max())


def _shades() -> dict[str, style.Colour]:
    plain = [rule for rule in RULES if rule not in ("free", "floor", "power_worst")]
    shades = dict(zip(plain, style.shades(len(plain)), strict=True))
    shades["power_worst"] = shades["power"]
    return {rule: shades.get(rule, BLACK) for rule in RULES}


def _versus_fixed(
    axes: Axes, table: pd.DataFrame, labels: list[str], sources: pd.DataFrame
) -> dict[str, tuple[float, str, style.Colour]]:
    real = set(sources.loc[sources["kind"] == "real", "label"])
    axes.axhline(1, color="black", lw=0.6)
    axes.set_yscale("log")
    _budget_axis(axes, table["budget"])
    ends, names, dashes = {}, style.short_names(labels), style.dashes(labels, real)
    for i, (label, shade) in enumerate(zip(labels, style.shades(len(labels)), strict=True)):
        curve = table[table["label"] == label].sort_values("budget")
        if curve.empty:
            continue
        colour = BLACK if label in real else shade
        ratio, low, high = (curve[f"ratio_fixed{end}"] for end in ("", "_low", "_high"))
        marker = MARKERS[i % len(MARKERS)]
        with of_source(label, axes):
            axes.fill_between(curve["budget"], low, high, color=colour, alpha=0.12, lw=0)
            axes.plot(curve["budget"], ratio, dashes[label], marker=marker, color=colour, ms=2.4, lw=0.9)
        ends[label] = (float(ratio.iloc[-1]), names[label], colour)
    axes.set_xlabel("budget (keys)")
    return ends


def _held(axes: Axes, table: pd.DataFrame, labels: list[str]) -> None:
    """Draw the cost ratio of the power and of a ln n to the fixed window, a pair of marks per source."""
    names, shades = style.short_names(labels), _shades()
    for rule, offset in (("power", -0.12), ("log", 0.12)):
        own = table[table["rule"] == rule].set_index("label").reindex(labels)
        low, ratio, high = (own[f"ratio_fixed{end}"].to_numpy(float) for end in ("_low", "", "_high"))
        name, _, marker = RULES[rule]
        x = np.arange(len(labels)) + offset
        reach = style.reach(ratio, low, high)
        for i, label in enumerate(labels):
            with of_source(label, axes):
                axes.errorbar(
                    x[i : i + 1],
                    ratio[i : i + 1],
                    yerr=[end[i : i + 1] for end in reach],
                    fmt=marker,
                    color=shades[rule],
                    ms=3,
                    lw=0.9,
                    label=name if i == 0 else None,
                )
    axes.axhline(1, color="black", lw=0.6)
    axes.set_ylim(0, 1.15)
    axes.set_xlim(-0.5, len(labels) - 0.5)
    turn = 30 if style.PAGE >= style.FULL_PAGE else 60
    axes.set_xticks(range(len(labels)), [names[label] for label in labels], fontsize=style.SMALL, rotation=turn)
    axes.legend(loc="lower left", fontsize=style.SMALL, ncols=2)
