"""How does the error of each window change with the context length?"""

import pandas as pd
from omegaconf import DictConfig

from analysis.records.evidence import Evidence, sources
from analysis.settings import Settings
from analysis.statistics.intervals import with_spread
from analysis.studies import NothingMeasured


def study(evidence: Evidence, config: DictConfig, how: Settings) -> dict[str, pd.DataFrame]:
    """Average the errors of powers, logarithmic and fixed windows, with their spread."""
    windows = evidence.windows
    if windows.empty:
        raise NothingMeasured(f"no window of the rules {', '.join(config.records.rule)} was recorded")
    table = with_spread(windows, config.measures, ["rule", "parameter", "scale", "length"], how.confidence)
    return {"regimes": table, "regimes_sources": sources(windows)}
