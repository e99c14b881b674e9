"""Can the model still recall what it read within each window [claim 4]?"""

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from analysis.records.evidence import Evidence
from analysis.settings import Settings
from analysis.statistics import held_error, tasks
from analysis.studies import NothingMeasured

WINDOW = ["label", "phase", "family", "rule", "parameter", "scale"]


def study(evidence: Evidence, config: DictConfig, how: Settings) -> dict[str, pd.DataFrame]:
    """Compare answers within every window with the dense ones, for every method apart."""
    answers = evidence.tables["retrieval"]
    if answers.empty:
        raise NothingMeasured("no answers: python run.py experiment=retrieval")
    tables, summaries, held, sources = [], [], [], []
    exponents = list(np.linspace(*config.exponents))
    for method, lines in tasks.by_method(answers):
        lines = tasks.with_all_texts(tasks.fullest_design(lines)).astype({"rule": str, "label": str, "exact": float})
        by_length = tasks.differences(lines, "log_prob", ["length"])
        by_length = by_length.assign(difference=-by_length["difference"])
        mixes = tasks.mixed(by_length, config.mixes)
        control = mixes["rule"] == tasks.SHARPENED
        parts = {
            "answers": _means(lines, "length"),
            "depth": _means(lines, "depth"),
            "length": tasks.over_samples(by_length, [*WINDOW, "length"], how.confidence),
            "cost": tasks.over_samples(mixes, [*WINDOW, "mix"], how.confidence),
        }
        tables += [part.assign(measure=measure, selector=method) for measure, part in parts.items()]
        least = held_error.held_in_task(lines, by_length, config.taus, config.mixes, exponents, how)
        held.append(least.assign(selector=method))
        contest = tasks.contest(mixes[~control], list(config.budgets), how.confidence)
        summaries.append(contest.assign(selector=method))
        sources.append(tasks.sources(lines).assign(selector=method))
    return {
        "retrieval": pd.concat(tables, ignore_index=True),
        "retrieval_summary": pd.concat(summaries, ignore_index=True),
        "retrieval_held": pd.concat(held, ignore_index=True),
        "retrieval_sources": pd.concat(sources, ignore_index=True),
    }


def _means(answers: pd.DataFrame, by: str) -> pd.DataFrame:
    """Mean keys, share exact and log-probability per window, dense attention among them."""
    window = ["label", "phase", by, "rule", "parameter", "scale"]
    means = answers.groupby(window, dropna=False)[["keys", "exact", "log_prob"]].mean().reset_index()
    return means.assign(family=tasks.families(means))
