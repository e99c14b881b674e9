"""What does the model itself lose within each window, at equal cost [claim 4]?"""

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from analysis.records.evidence import Evidence
from analysis.settings import Settings
from analysis.statistics import held_error, tasks
from analysis.studies import NothingMeasured

QUARTERS = 4
WINDOW = ["label", "phase", "family", "rule", "parameter", "scale"]
WHOLE = "all positions"  # a prefill has no mix of lengths


def study(evidence: Evidence, config: DictConfig, how: Settings) -> dict[str, pd.DataFrame]:
    """Compare the loss within every window with the dense one, paired token by token, for every method apart."""
    losses = evidence.tables["losses"]
    if losses.empty:
        raise NothingMeasured("no losses: python run.py experiment=language")
    tables, summaries, held, sources = [], [], [], []
    exponents = list(np.linspace(*config.exponents))
    for method, lines in tasks.by_method(losses):
        lines = tasks.with_all_texts(tasks.fullest_design(lines))
        decode, prefill = (lines[lines["phase"] == phase] for phase in ("decode", "prefill"))
        parts: list[pd.DataFrame] = []
        summary: list[pd.DataFrame] = []
        if len(decode):
            by_length = tasks.differences(decode, "loss", ["length"])
            mixes = tasks.mixed(by_length, config.mixes)
            cost = tasks.over_samples(mixes, [*WINDOW, "mix"], how.confidence)
            lengths = tasks.over_samples(by_length, [*WINDOW, "length"], how.confidence)
            parts += [cost.assign(measure="cost"), lengths.assign(measure="length")]
            least = held_error.held_in_task(decode, by_length, config.taus, config.mixes, exponents, how)
            held.append(least.assign(selector=method))
            summary += [tasks.contest(mixes, list(config.budgets), how.confidence), tasks.cost_within(cost)]
        if len(prefill):
            quarter = (prefill["position"] * QUARTERS // prefill["length"].astype(int)).astype(int) + 1
            by_quarter = tasks.differences(prefill.assign(quarter=quarter), "loss", ["quarter"])
            everywhere = tasks.differences(prefill, "loss", []).assign(mix=WHOLE)
            quarters = tasks.over_samples(by_quarter, [*WINDOW, "quarter"], how.confidence)
            cost = tasks.over_samples(everywhere, [*WINDOW, "mix"], how.confidence)
            parts += [quarters.assign(measure="quarter"), cost.assign(measure="cost")]
            summary += [tasks.cost_within(cost), tasks.contest(everywhere, list(config.budgets), how.confidence)]
        tables += [part.assign(selector=method) for part in parts]
        summaries += [part.assign(selector=method) for part in summary]
        sources.append(tasks.sources(lines).assign(selector=method))
    return {
        "language": pd.concat(tables, ignore_index=True),
        "language_summary": pd.concat(summaries, ignore_index=True),
        "language_held": pd.concat(held, ignore_index=True) if held else pd.DataFrame(),
        "language_sources": pd.concat(sources, ignore_index=True),
    }
