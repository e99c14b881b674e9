"""Do windows that a method sizes by its own estimate lose less than fixed ones at equal keys?"""

import pandas as pd
from omegaconf import DictConfig

from analysis.records.evidence import Evidence, sources
from analysis.settings import Settings
from analysis.statistics.own_windows import beside_fixed
from analysis.studies import NothingMeasured


def study(evidence: Evidence, config: DictConfig, how: Settings) -> dict[str, pd.DataFrame]:
    """Compare them method by method, with intervals over samples."""
    if evidence.windows.empty:
        raise NothingMeasured("no windows by a method's own estimate: python run.py experiment=own_windows")
    return {
        "own_windows": beside_fixed(evidence.windows, how),
        "own_windows_sources": sources(evidence.windows),
    }
