"""Does a row's support grow as n^alpha, where its entropy grows as alpha ln n?"""

import pandas as pd
from omegaconf import DictConfig

from analysis.records.evidence import Evidence, sources
from analysis.settings import Settings
from analysis.statistics.entropy import growth
from analysis.studies import NothingMeasured


def study(evidence: Evidence, config: DictConfig, how: Settings) -> dict[str, pd.DataFrame]:
    """Fit the growth of entropy and of keys of every head, and compare them."""
    if evidence.rows.empty:
        raise NothingMeasured("no real model has been measured: python run.py experiment=heads")
    table, summary = growth(evidence.rows, config.eta, how)
    if table.empty:
        raise NothingMeasured(f"no model was measured at {how.min_lengths} lengths: python run.py experiment=heads")
    return {"entropy": table, "entropy_summary": summary, "entropy_sources": sources(evidence.rows)}
