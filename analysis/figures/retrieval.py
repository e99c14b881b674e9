"""Key-value recall within windows: log-probability of the answer and exact match against length, depth and cost."""

import pandas as pd
from matplotlib.axes import Axes
from omegaconf import DictConfig

from analysis import families, settings, style, tasks
from analysis.figures import Drawing, Evidence, NothingToDraw


def draw(evidence: Evidence, config: DictConfig) -> Drawing:
    """Draw dense beside every family at one budget, and the difference to dense against cost."""
    answers = evidence.tables["retrieval"]
    if answers.empty:
        raise NothingToDraw("no answers: python run.py experiment=retrieval")
    answers = tasks.fullest_runs(answers).astype({"rule": str, "label": str, "exact": float})
    answers = answers[answers["run"] == answers["run"].astype(str).value_counts().index[0]]
    confidence = settings.analysis().confidence
    window = ["rule", "parameter", "scale"]
    sparse = answers[~answers["rule"].isin([tasks.DENSE, tasks.SHARPENED])]
    looks = families.looks(tasks.families(sparse).unique().tolist())
    by_length = tasks.differences(answers, "log_prob", ["length"])
    told = tasks.over_samples(
        by_length.assign(difference=-by_length["difference"]),
        ["label", "phase", "family", *window, "length"],
        confidence,
    )
    mixes = tasks.mixed(by_length.assign(difference=-by_length["difference"]), {config.mix: 1.0})
    every_mix, mixes = mixes, mixes[mixes["rule"] != tasks.SHARPENED]
    controls = tasks.over_samples(
        every_mix[every_mix["rule"] == tasks.SHARPENED], ["label", "phase", "family", *window, "mix"], confidence
    )
    cost = tasks.over_samples(mixes, ["label", "phase", "family", *window, "mix"], confidence)
    near = cost.iloc[(cost["keys"] - config.budget).abs().argsort()].drop_duplicates("family")[window]
    at_budget = sparse.merge(near, on=window).assign(family=lambda lines: tasks.families(lines))
    figure, axes = style.panels(2, 2, config.height, left=0.55, gap=0.45, right=0.02, edge=1.0)
    dense = answers[answers["rule"] == tasks.DENSE]
    _means(axes[0, 0], dense, at_budget, "length", "exact", looks)
    _means(axes[0, 1], dense, at_budget, "length", "log_prob", looks)
    _means(axes[1, 0], dense, at_budget, "depth", "log_prob", looks)
    for panel in axes[0]:
        style.length_axis(panel, answers["length"].unique().tolist())
        panel.set_xlabel("context length (keys)")
    axes[1, 0].set_xlabel("depth of the number in the context")
    axes[0, 0].set_ylabel("share of answers exact")
    axes[0, 1].set_ylabel("ln p of the answer (nats)")
    axes[1, 0].set_ylabel("ln p of the answer (nats)")
    for name, look in looks.items():
        families.curve(axes[1, 1], cost[cost["family"] == name], "keys", "difference", look)
    axes[1, 1].set_xscale("log", base=2)
    axes[1, 1].axhline(0, color="black", lw=0.5)
    axes[1, 1].set_xlabel("keys per row, mean")
    axes[1, 1].set_ylabel("ln p lost to dense (nats)")
    axes[0, 0].set_title(f"about {config.budget} keys a row; thick: dense")
    families.legend(axes[0, -1], looks)
    facts = answers.iloc[0]
    style.footer(
        figure,
        f"{facts['label']}, {facts['phase']}: {answers['sample'].nunique()} samples, {answers['depth'].nunique()} "
        f"depths, {len(dense)} answers of about {answers['tokens'].mean():.0f} tokens per window; bands: 95% over "
        "samples, paired.",
    )
    means = answers.groupby(["label", "phase", "length", *window], dropna=False)[["keys", "exact", "log_prob"]].mean()
    summary = tasks.contest(mixes, list(map(float, config.budgets)), confidence)
    table = pd.concat(
        [
            means.reset_index().assign(measure="answers"),
            told.assign(measure="length"),
            cost.assign(measure="cost"),
            controls.assign(measure="cost"),
        ]
    )
    return Drawing(figure, table, summary)


def _means(axes: Axes, dense: pd.DataFrame, sparse: pd.DataFrame, x: str, y: str, looks: dict) -> None:
    known = dense.groupby(x)[y].mean()
    axes.plot(known.index, known, color="0.6", lw=2.4, zorder=0)
    for name, look in looks.items():
        curve = sparse[sparse["family"] == name].groupby(x)[y].mean().reset_index()
        families.curve(axes, curve, x, y, look)
