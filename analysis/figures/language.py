"""A model's loss within windows, less its dense loss: against cost, context length and place in the context."""

import pandas as pd
from matplotlib.axes import Axes
from omegaconf import DictConfig

from analysis import families, settings, style, tasks
from analysis.figures import Drawing, Evidence, NothingToDraw

QUARTERS = 4


def draw(evidence: Evidence, config: DictConfig) -> Drawing:
    """Draw decoding against cost per mix of lengths; below it by length, and prefill by quarter and against cost."""
    losses = evidence.tables["losses"]
    if losses.empty:
        raise NothingToDraw("no losses: python run.py experiment=language")
    losses = tasks.fullest_runs(losses)
    label = str(losses["label"].astype(str).value_counts().index[0])
    losses = losses[losses["label"].astype(str) == label]
    confidence = settings.analysis().confidence
    decode, prefill = (losses[losses["phase"] == phase] for phase in ("decode", "prefill"))
    figure, axes = style.panels(2, 3, config.height, left=0.8, gap=0.3, right=0.02, edge=0.95)
    window = ["label", "phase", "family", "rule", "parameter", "scale"]
    tables, summaries = [], []
    looks = families.looks(
        tasks.families(losses[losses["rule"].astype(str) != tasks.DENSE].astype({"rule": str})).unique().tolist()
    )
    by_length = pd.DataFrame()
    if len(decode):
        by_length = tasks.differences(decode, "loss", ["length"])
        mixes = tasks.mixed(by_length, config.mixes)
        told = tasks.over_samples(mixes, [*window, "mix"], confidence)
        tables += [
            told.assign(measure="cost"),
            tasks.over_samples(by_length, [*window, "length"], confidence).assign(measure="length"),
        ]
        summaries.append(tasks.contest(mixes, list(map(float, config.budgets)), confidence))
        summaries.append(tasks.cost_within(told))
        for panel, mix in zip(axes[0], config.mixes, strict=True):
            _against(panel, told[told["mix"] == mix], looks, config)
            panel.set_title(f"decode, {mix}")
        _at_budget(axes[1, 0], by_length, mixes, looks, config, confidence)
    if len(prefill):
        first = prefill["length"].astype(int)
        quarter = (prefill["position"] * QUARTERS // first).astype(int) + 1
        by_quarter = tasks.differences(prefill.assign(quarter=quarter), "loss", ["quarter"])
        told = tasks.over_samples(by_quarter, [*window, "quarter"], confidence)
        whole = tasks.over_samples(tasks.differences(prefill, "loss", []), window, confidence)
        tables += [told.assign(measure="quarter"), whole.assign(measure="cost", mix="all positions")]
        summaries.append(tasks.cost_within(whole.assign(mix="all positions")))
        summaries.append(
            tasks.contest(
                tasks.differences(prefill, "loss", []).assign(mix="all positions"),
                list(map(float, config.budgets)),
                confidence,
            )
        )
        near = whole.iloc[(whole["keys"] - config.prefill_budget).abs().argsort()].drop_duplicates("family")
        chosen = told.merge(near[["rule", "parameter", "scale"]], on=["rule", "parameter", "scale"])
        for name, look in looks.items():
            families.curve(axes[1, 1], chosen[chosen["family"] == name], "quarter", "difference", look)
        axes[1, 1].set_title(f"prefill, about {config.prefill_budget} keys a row")
        axes[1, 1].set_xlabel("quarter of the context")
        axes[1, 1].set_xticks(range(1, QUARTERS + 1))
        axes[1, 1].axhline(0, color="black", lw=0.5)
        _against(axes[1, 2], whole, looks, config)
        axes[1, 2].set_title("prefill")
    for panel in axes.flat:
        if not panel.lines:
            panel.set_axis_off()
    for line in axes:
        line[0].set_ylabel("loss, window - dense\n(nats per token)")
    families.legend(axes[0, -1], looks)
    lengths = ", ".join(style.count_text(n) for n in sorted(losses["length"].unique()))
    style.footer(
        figure,
        f"{label}: contexts of {lengths} tokens; decode {decode['sample'].nunique()} samples, prefill "
        f"{prefill['sample'].nunique()} samples of text that no law was fitted to; bands: 95% over samples, paired.",
    )
    return Drawing(figure, pd.concat(tables, ignore_index=True), pd.concat(summaries, ignore_index=True))


def _against(axes: Axes, told: pd.DataFrame, looks: dict, config: DictConfig) -> None:
    axes.set_xscale("log", base=2)
    axes.set_yscale("symlog", linthresh=config.linear, linscale=0.5)
    for name, look in looks.items():
        families.curve(axes, told[told["family"] == name], "keys", "difference", look)
    axes.axhline(tasks.ONE_PERCENT, color="black", lw=0.5, ls="--")
    axes.axhline(0, color="black", lw=0.5)
    axes.set_xlabel("keys per row, mean")


def _at_budget(
    axes: Axes, by_length: pd.DataFrame, mixes: pd.DataFrame, looks: dict, config: DictConfig, confidence: float
) -> None:
    """Draw difference against length of each family's window that is nearest to the budget over the first mix."""
    first = next(iter(config.mixes))
    keys = mixes[mixes["mix"] == first].groupby(["family", "rule", "parameter", "scale"])["keys"].mean().reset_index()
    near = keys.iloc[(keys["keys"] - config.budget).abs().argsort()].drop_duplicates("family")
    window = ["rule", "parameter", "scale"]
    told = tasks.over_samples(by_length.merge(near[window], on=window), ["family", *window, "length"], confidence)
    for name, look in looks.items():
        families.curve(axes, told[told["family"] == name], "length", "difference", look)
    style.length_axis(axes, by_length["length"].unique().tolist())
    axes.set_yscale("symlog", linthresh=config.linear, linscale=0.5)
    axes.axhline(0, color="black", lw=0.5)
    axes.set_title(f"decode, about {config.budget} keys a row")
    axes.set_xlabel("context length (keys)")
