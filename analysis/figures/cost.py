"""Seconds and bytes of a decode step's attention over context length: dense, and over the kept keys alone."""

from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from omegaconf import DictConfig

from analysis import families, style, tasks
from analysis.choices import ORACLE
from analysis.figures import Drawing, Evidence, NothingToDraw


def draw(evidence: Evidence, config: DictConfig) -> Drawing:
    """Draw milliseconds of attending, milliseconds with the oracle's selection, and megabytes read."""
    steps = evidence.tables["decoding"]
    if steps.empty:
        raise NothingToDraw("no decode steps: python run.py experiment=cost")
    if "selector" in steps:  # the other selectors' steps belong to the figure of that name
        steps = steps[steps["selector"].astype(str) == ORACLE]
    steps = tasks.fullest_runs(steps).astype({"rule": str, "label": str})
    steps = steps[steps["run"] == steps["run"].astype(str).value_counts().index[0]]
    steps = steps.assign(family=tasks.families(steps))
    window = ["label", "phase", "family", "rule", "parameter", "scale"]
    table = (
        steps.groupby([*window, "length"], sort=False)
        .mean(numeric_only=True)
        .reset_index()
        .drop(columns=["sample", "seed"], errors="ignore")
    )
    table["oracle_seconds"] = table["select_seconds"] + table["attend_seconds"]
    sizes = table.groupby(window)["k"].mean().reset_index()
    near = sizes.iloc[(sizes["k"] - config.budget).abs().argsort()].drop_duplicates("family")[window]
    shown = table.merge(near, on=window)
    looks = families.looks(shown["family"].unique())
    dense = table.groupby("length")[["dense_seconds", "bytes_dense", "bytes_selected"]].mean()
    figure, axes = style.panels(1, 3, config.height, left=0.5, gap=0.42, right=0.02, edge=0.9)
    for panel, measure, unit, title in (
        (axes[0, 0], "attend_seconds", 1e3, "attend to the kept keys"),
        (axes[0, 1], "oracle_seconds", 1e3, "with the oracle's selection"),
        (axes[0, 2], "bytes_attended", 1e-6, "keys and values read"),
    ):
        known = dense["bytes_dense" if unit < 1 else "dense_seconds"] * unit
        panel.plot(known.index, known, color="0.6", lw=2.4, zorder=0)
        for name, look in looks.items():
            line = shown[shown["family"] == name]
            families.curve(panel, line.assign(value=line[measure] * unit), "length", "value", look)
        style.length_axis(panel, table["length"].unique().tolist())
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.yaxis.set_minor_locator(NullLocator())
        panel.set_title(title)
        panel.set_ylabel("ms per token" if unit > 1 else "MB per token")
        panel.set_xlabel("context length (keys)")
    axes[0, 2].plot(dense.index, dense["bytes_selected"] * 1e-6, color="0.6", lw=1, ls=":")
    families.legend(axes[0, -1], looks)
    facts = steps.iloc[0]
    style.footer(
        figure,
        f"{facts['label']}, decode: all layers' attention for one token, median of {facts['repeats']} steps, "
        f"{steps['sample'].nunique()} caches; thick grey: dense; dotted: what the oracle reads to select.",
    )
    return Drawing(figure, table)
