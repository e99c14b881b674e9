"""Choose keys, or approximate the row? Errors against keys read, arithmetic and length; the best family of a head."""

import pandas as pd
from omegaconf import DictConfig

from analysis.records.evidence import Evidence, sources
from analysis.settings import Settings
from analysis.statistics import methods
from analysis.studies import NothingMeasured


def study(evidence: Evidence, config: DictConfig, how: Settings) -> dict[str, pd.DataFrame]:
    """Compare all methods at equal budgets, and say by which family each head is approximated best."""
    windows = evidence.windows
    if len(windows):
        replaced = windows.loc[windows["selector"].isin(list(config.replacing)), "label"].unique()
        windows = windows[windows["label"].isin(replaced)]
    if windows.empty:
        raise NothingMeasured("no method that replaces the row: python run.py experiment=approximators")
    families = {str(name): str(family) for name, family in config.families.items()}
    compared = methods.compare(windows, how)
    heads = methods.best_of_heads(windows, families, config.budget, config.flat)
    return {
        "approximators": compared.assign(family=compared["selector"].map(families)),
        "approximators_heads": heads,
        "approximators_kinds": methods.by_kind(windows, heads, config.budget),
        "approximators_sources": sources(windows),
    }
