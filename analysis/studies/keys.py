"""How many keys does a row need as its context grows, and by which law? The question of the whole project."""

import pandas as pd
from omegaconf import DictConfig

from analysis.records.evidence import Evidence, sources
from analysis.settings import Settings
from analysis.statistics import means
from analysis.studies import NothingMeasured


def study(evidence: Evidence, config: DictConfig, how: Settings) -> dict[str, pd.DataFrame]:
    """Lay out the typical head and the mean window over context length, and every law fitted to each."""
    if evidence.rows.empty:
        raise NothingMeasured("no rows were measured")
    every = list(means.means_of(evidence.rows, config.eta, how))
    return {
        "keys": means.data(every, how),
        "keys_laws": means.laws(every, how),
        "keys_foreseen": means.foreseen(every, how, config.beyond),
        "keys_sources": sources(evidence.rows),
    }
