"""How much of a method's error is its budget, and how much its choice of keys?"""

import pandas as pd
from omegaconf import DictConfig

from analysis.records.evidence import Evidence, sources
from analysis.settings import Settings
from analysis.statistics import choices
from analysis.studies import NothingMeasured

MEASURES = ["tv", "output_error_renormalised"]


def study(evidence: Evidence, config: DictConfig, how: Settings) -> dict[str, pd.DataFrame]:
    """Part every method's total variation into budget and choice; the summary has exponents and decay rates."""
    windows = evidence.windows
    if len(windows):
        compared = windows.loc[windows["selector"] != choices.ORACLE, "label"].unique()
        windows = windows[windows["label"].isin(compared)]
    if windows.empty:
        raise NothingMeasured("no selector beside the oracle: python run.py experiment=selectors")
    table = choices.with_times(choices.split(windows, how.confidence), evidence.tables["decoding"])
    grown = choices.growth(windows, config.eta, how).assign(measure="keys needed")
    rates = choices.rates(windows, MEASURES, how).rename(columns={"parameter": "exponent"})
    columns = ["label", "selector", "exponent", "measure", "rate", "rate_low", "rate_high", "lengths", "clusters"]
    return {
        "selectors": table,
        "selectors_summary": pd.concat([grown, rates[columns]], ignore_index=True),
        "selectors_sources": sources(windows),
    }
