"""What does a decode step cost over the kept keys?"""

import pandas as pd
from omegaconf import DictConfig

from analysis.records.evidence import Evidence
from analysis.settings import Settings
from analysis.statistics import tasks
from analysis.studies import NothingMeasured


def study(evidence: Evidence, config: DictConfig, how: Settings) -> dict[str, pd.DataFrame]:
    """Average seconds and bytes of a decode step over the oracle's keys, per window and length."""
    steps = evidence.tables["decoding"]
    if steps.empty:
        raise NothingMeasured("no decode steps: python run.py experiment=cost")
    steps = tasks.fullest_design(steps).astype({"rule": str, "label": str})
    steps = steps.assign(family=tasks.families(steps))
    window = ["label", "phase", "family", "rule", "parameter", "scale"]
    table = steps.groupby([*window, "length"], sort=False).mean(numeric_only=True).reset_index()
    table = table.drop(columns=["sample", "seed"], errors="ignore")
    table["oracle_seconds"] = table["select_seconds"] + table["attend_seconds"]
    return {"cost": table, "cost_sources": tasks.sources(steps)}
