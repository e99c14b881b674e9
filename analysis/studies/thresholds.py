"""Does one threshold in 1 / n hold over n, and how far is it from the floor [T7]?"""

import pandas as pd
from omegaconf import DictConfig

from analysis.records.evidence import Evidence, sources
from analysis.records.load import labels_in_order
from analysis.settings import Settings
from analysis.statistics import thresholds
from analysis.studies import NothingMeasured


def study(evidence: Evidence, config: DictConfig, how: Settings) -> dict[str, pd.DataFrame]:
    """Compare both rules with the floor, fixed windows and top-p, at each length and over all of them."""
    windows = evidence.windows
    if windows.empty:
        raise NothingMeasured("no thresholds in 1 / n: python run.py experiment=thresholds")
    dropped_masses, shares = list(config.dropped_masses), list(config.shares)
    tables: dict[str, list[pd.DataFrame]] = {"thresholds": [], "thresholds_held": [], "thresholds_laws": []}
    for label in labels_in_order(windows):
        contest = thresholds.Contest.of(windows[windows["label"] == label], label, how)
        if contest is None:
            continue
        made = (
            thresholds.at_each_factor(contest, how),
            thresholds.held(contest, dropped_masses, how),
            thresholds.laws(contest, dropped_masses, shares, how),
        )
        for name, table in zip(tables, made, strict=True):
            table.insert(0, "label", label)
            tables[name].append(table.assign(heads=contest.heads, clusters=contest.samples))
    if not tables["thresholds"]:
        raise NothingMeasured("no thresholds in 1 / n beside a dense grid, of two samples or more")
    judged = windows["label"].isin(pd.concat(tables["thresholds"])["label"])
    return {
        **{name: pd.concat(parts, ignore_index=True) for name, parts in tables.items()},
        "thresholds_sources": sources(windows[judged]),
    }
