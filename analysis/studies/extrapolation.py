"""Does the law fitted at short contexts predict the longest one [claim 5]?"""

from dataclasses import replace

import pandas as pd
from omegaconf import DictConfig

from analysis.records.evidence import Evidence, sources
from analysis.settings import Settings
from analysis.statistics.extrapolate import extrapolate, summary
from analysis.studies import NothingMeasured


def study(evidence: Evidence, config: DictConfig, how: Settings) -> dict[str, pd.DataFrame]:
    """Fit every law up to each share of the longest length, and predict the keys needed there."""
    if evidence.rows.empty:
        raise NothingMeasured("no rows were measured")
    shares = list(config.shares)
    table = extrapolate(evidence.rows, replace(how, etas=(config.eta,)), shares)
    if table["error"].isna().all():
        raise NothingMeasured(f"no law could be put to the test: {table['reason'].iloc[0]}")
    return {
        "extrapolation": table,
        "extrapolation_summary": summary(evidence.rows, config.eta, how, shares),
        "extrapolation_sources": sources(evidence.rows),
    }
