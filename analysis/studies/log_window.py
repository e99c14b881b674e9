"""Do o(log n) keys leave the error standing [claim 2]?"""

import pandas as pd
from omegaconf import DictConfig

from analysis.records.evidence import Evidence, sources
from analysis.settings import Settings
from analysis.statistics.decay import WINDOW, decay_rates
from analysis.statistics.exact_windows import at_exact
from analysis.statistics.intervals import with_spread
from analysis.studies import NothingMeasured


def study(evidence: Evidence, config: DictConfig, how: Settings) -> dict[str, pd.DataFrame]:
    """Average the errors of all fixed, logarithmic and power windows, each with its slope and its level.

    The slope is d ln error / d ln n over all and over the longest lengths, the level the error at the longest.
    """
    windows = evidence.windows
    if windows.empty or (windows["rule"] == "grid").all():
        raise NothingMeasured("no fixed, logarithmic or power window was recorded")
    windows = at_exact(windows, config.measures)
    table = with_spread(windows, config.measures, [*WINDOW, "length"], how.confidence)
    estimates = ("rate", "late", "last")
    rates = decay_rates(windows, list(config.measures), how, estimates)
    if not rates.empty:
        readings = [f"{name}{end}" for name in estimates for end in ("", "_low", "_high")]
        columns = ["label", *WINDOW, "measure"]
        table = table.merge(rates[[*columns, *readings, "falling"]], how="left", on=columns)
    return {"log_window": table, "log_window_sources": sources(windows)}
