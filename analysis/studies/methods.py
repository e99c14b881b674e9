"""What do methods lose inside a model at their cost: by too few keys, or by the wrong ones?"""

import pandas as pd
from omegaconf import DictConfig

from analysis.records.budgets import of_budget_file
from analysis.records.evidence import Evidence
from analysis.settings import Settings
from analysis.statistics import in_model, tasks
from analysis.studies import NothingMeasured


def study(evidence: Evidence, config: DictConfig, how: Settings) -> dict[str, pd.DataFrame]:
    """Compare every method within every window with dense attention and the oracle, paired by sample."""
    losses = evidence.tables["losses"]
    if len(losses):  # a run of the oracle alone, at more lengths or of more samples, compares nothing
        losses = losses[~of_budget_file(losses["rule"])]  # the study `gains` compares these
        beside = ~losses["selector"].astype(str).isin([tasks.DENSE, tasks.SHARPENED, in_model.ORACLE])
        losses = losses[losses["run"].isin(losses.loc[beside, "run"].unique())]
    if losses.empty:
        raise NothingMeasured("no losses by methods beside the oracle: python run.py experiment=methods")
    lines = in_model.by_sample(losses)
    return {
        "methods": in_model.over_samples(lines, how.confidence),
        "methods_keys": in_model.keys_for(lines, {name: list(config.targets[name]) for name in config.targets}, how),
        "methods_sources": tasks.sources(losses),
    }
