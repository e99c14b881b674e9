"""Does a window that grows with the context beat a fixed one at equal cost [claim 4]?"""

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from analysis.records.evidence import Evidence, sources
from analysis.settings import Settings
from analysis.statistics import held_error
from analysis.statistics.equal_cost import Contest, contest
from analysis.studies import NothingMeasured


def study(evidence: Evidence, config: DictConfig, how: Settings) -> dict[str, pd.DataFrame]:
    """Compare all window rules of every label at equal total cost, and at an error held at every length."""
    first, last, count = config.exponents
    compared = Contest(
        tuple(map(float, config.budgets)),
        {str(name): float(p) for name, p in config.mixes.items()},
        tuple(np.linspace(first, last, count)),
        config.widest,
        config.most,
    )
    windows = evidence.windows
    table = contest(windows, compared, how) if len(windows) else pd.DataFrame()
    if table.empty:
        raise NothingMeasured(
            "no source has a dense grid of windows at two lengths and two samples or more, long enough for a budget of "
            f"{min(compared.budgets):g} keys"
        )
    held = [
        held_error.held(curves, config.taus, compared.mixes, compared.exponents, how, label)
        for label in table["label"].unique()
        if (curves := held_error.ErrorCurves.of_rows(windows[windows["label"] == label])) and curves.clusters > 1
    ]
    return {
        "adaptive": table,
        "held_error": pd.concat(held, ignore_index=True) if held else pd.DataFrame(columns=held_error.COLUMNS),
        "adaptive_sources": sources(windows[windows["label"].isin(table["label"])]),
    }
