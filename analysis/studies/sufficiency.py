"""In which norm does the error of n^C keys fall?"""

import pandas as pd
from omegaconf import DictConfig

from analysis.records.evidence import Evidence, sources
from analysis.settings import Settings
from analysis.statistics.intervals import with_spread
from analysis.studies import NothingMeasured


def study(evidence: Evidence, config: DictConfig, how: Settings) -> dict[str, pd.DataFrame]:
    """Average every norm of every window k = n^C, with its spread."""
    windows = evidence.windows[evidence.windows["scale"] == 1] if len(evidence.windows) else evidence.windows
    if windows.empty:
        raise NothingMeasured("no window k = n^C was recorded")
    table = with_spread(windows, config.measures, ["parameter", "length"], how.confidence)
    return {"sufficiency": table, "sufficiency_sources": sources(windows)}
