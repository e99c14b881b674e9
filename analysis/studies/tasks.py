"""What can the model still answer about its context within each window, task by task?"""

import pandas as pd
from omegaconf import DictConfig

from analysis.records.evidence import Evidence
from analysis.settings import Settings
from analysis.statistics import tasks
from analysis.studies import NothingMeasured

WINDOW = ["label", "phase", "family", "rule", "parameter", "scale"]
ANSWERED = ["exact", "recalled", "log_prob"]


def study(evidence: Evidence, config: DictConfig, how: Settings) -> dict[str, pd.DataFrame]:
    """Compare answers within every window with the dense ones, for every task and method apart, paired by sample."""
    answers = evidence.tables["tasks"]
    if answers.empty:
        raise NothingMeasured("no answers to tasks: python run.py experiment=tasks")
    tables, dense, sources = [], [], []
    for method, lines in tasks.by_method(answers):
        lines = tasks.with_all_texts(tasks.fullest_design(lines))
        lines = lines.astype({"rule": str, "label": str, "task": str, "exact": float})
        place = ["task", "length"]
        lost = tasks.differences(lines, "log_prob", place)
        lost = lost.assign(difference=-lost["difference"])
        table = tasks.over_samples(lost, [*WINDOW, *place], how.confidence)
        names = {"difference": "lost", "low": "lost_low", "high": "lost_high"}
        means = lines.groupby([*(name for name in WINDOW if name != "family"), *place], dropna=False)[ANSWERED].mean()
        tables.append(table.rename(columns=names).merge(means.reset_index()).assign(selector=method))
        own = means.reset_index()
        dense.append(own[own["rule"] == tasks.DENSE].drop(columns=["rule", "parameter", "scale"]))
        sources.append(tasks.sources(lines).assign(selector=method))
    by_dense = pd.concat(dense, ignore_index=True).drop_duplicates(["label", "phase", "task", "length"])
    return {
        "tasks": pd.concat(tables, ignore_index=True),
        "tasks_dense": by_dense,
        "tasks_sources": pd.concat(sources, ignore_index=True),
    }
