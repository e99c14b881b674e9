"""What does a window of k keys cost, at every context length?"""

import pandas as pd
from omegaconf import DictConfig

from analysis.records.evidence import Evidence, sources
from analysis.settings import Settings
from analysis.statistics.intervals import with_spread
from analysis.studies import NothingMeasured


def study(evidence: Evidence, config: DictConfig, how: Settings) -> dict[str, pd.DataFrame]:
    """Average the errors over the dense grid of k, with their spread."""
    windows = evidence.windows
    if windows.empty:
        raise NothingMeasured("no window of the rule grid was recorded")
    table = with_spread(windows, config.measures, ["length", "parameter"], how.confidence)
    return {"windows": table, "windows_sources": sources(windows)}
