"""Does attention collapse onto a few entries as the context grows [claim 3]?"""

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from analysis.records.evidence import Evidence, sources
from analysis.settings import Settings
from analysis.statistics.decay import ESTIMATES, WINDOW, WITHIN, decay_rates
from analysis.statistics.intervals import with_spread
from analysis.studies import NothingMeasured


def study(evidence: Evidence, config: DictConfig, how: Settings) -> dict[str, pd.DataFrame]:
    """Average every count of entries with its spread; the summary has the slopes d ln count / d ln n.

    `late` marks the longest lengths, over which the slope of that name is taken.
    """
    if evidence.rows.empty:
        raise NothingMeasured("no rows were measured")
    rows = evidence.rows.assign(exp_entropy=np.exp(evidence.rows["entropy"].astype(np.float64)))
    real, fixed = rows["kind"] == "real", rows["sigma"].notna()
    rows["regime"] = np.where(real, "real model", np.where(fixed, "fixed sigma", "sigma = s sqrt(ln n)"))
    table = with_spread(rows, config.measures, ["regime", "length"], how.confidence)
    table["late"] = table["length"] >= table.groupby("label")["length"].transform("max") / WITHIN
    # a row is here a window of its own
    growth = decay_rates(rows.assign(rule="", parameter=0.0, scale=1.0, k=0), list(config.measures), how, ESTIMATES)
    return {
        "collapse": table,
        "collapse_summary": growth.drop(columns=WINDOW, errors="ignore"),
        "collapse_sources": sources(rows),
    }
