"""Do o(log n) keys leave the error standing [claim 2]?"""

import pandas as pd
from omegaconf import DictConfig

from analysis.records.evidence import Evidence, sources
from analysis.settings import Settings
from analysis.statistics.decay import WINDOW, decay_rates
from analysis.statistics.intervals import with_spread
from analysis.studies import NothingMeasured


def study(evidence: Evidence, config: DictConfig, how: Settings) -> dict[str, pd.DataFrame]:
    """Average the errors of all fixed, logarithmic and power windows, each with the slope d ln error / d ln n."""
    windows = evidence.windows
    if windows.empty:
        raise NothingMeasured("no fixed, logarithmic or power window was recorded")
    table = with_spread(windows, config.measures, [*WINDOW, "length"], how.confidence)
    rates = decay_rates(windows, list(config.measures), how)
    if not rates.empty:
        columns = ["label", *WINDOW, "measure", "rate", "rate_low", "rate_high", "falling"]
        table = table.merge(rates[columns], how="left", on=columns[:5])
    return {"log_window": table, "log_window_sources": sources(windows)}
