"""How fast does the error of n^C keys fall with the context length, norm by norm, and from which C [claim 1]?"""

import pandas as pd
from omegaconf import DictConfig

from analysis.records.evidence import Evidence, sources
from analysis.settings import Settings
from analysis.statistics import decay
from analysis.statistics.exact_windows import at_exact
from analysis.statistics.sufficient import smallest_exponents
from analysis.studies import NothingMeasured


def study(evidence: Evidence, config: DictConfig, how: Settings) -> dict[str, pd.DataFrame]:
    """Fit the slope d ln error / d ln n of every window k = n^C in every norm, and find from which C on it falls."""
    windows = evidence.windows[evidence.windows["scale"] == 1] if len(evidence.windows) else evidence.windows
    if windows.empty or not (windows["rule"] == "power").any():
        raise NothingMeasured("no window k = n^C was recorded")
    table = decay.decay_rates(at_exact(windows, config.measures), list(config.measures), how)
    if table.empty:
        raise NothingMeasured(
            "no source was measured at enough lengths, at which its heads see more keys, to fit a decay rate"
        )
    return {
        "decay_rates": table,
        "sufficient": smallest_exponents(table),
        "decay_rates_sources": sources(windows[windows["label"].isin(table["label"])]),
    }
