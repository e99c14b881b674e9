"""How many keys, the same number in every head, leave the next token what it is, and do they grow with the context?"""

import pandas as pd
from omegaconf import DictConfig

from analysis.records.evidence import Evidence
from analysis.settings import Settings
from analysis.statistics import in_model, tasks
from analysis.studies import NothingMeasured

FEWEST_WINDOWS = 3  # of a curve


def study(evidence: Evidence, config: DictConfig, how: Settings) -> dict[str, pd.DataFrame]:
    """Read the fewest keys of the oracle off its fixed windows, for each quality and length, and fit their growth."""
    losses = evidence.tables["losses"]
    if len(losses):  # runs of the oracle alone, which have more tokens than those that compare methods
        others = ~losses["selector"].astype(str).isin([tasks.DENSE, in_model.ORACLE])
        losses = losses[~losses["run"].isin(losses.loc[others, "run"].unique())]
        losses = losses[losses["rule"].astype(str).isin(["fixed", tasks.DENSE])]
    if "agreement" in losses:
        sizes = losses[losses["agreement"].notna()].groupby("run", observed=True)["parameter"].nunique()
        losses = losses[losses["run"].isin(sizes[sizes >= FEWEST_WINDOWS].index)]
    if losses.empty or "agreement" not in losses:
        raise NothingMeasured("no agreement of the oracle's fixed windows: python run.py experiment=agreement")
    lines = in_model.by_sample(losses)
    return {
        "support": in_model.over_samples(lines, how.confidence),
        "support_keys": in_model.keys_for(lines, {name: list(config.targets[name]) for name in config.targets}, how),
        "support_sources": tasks.sources(losses),
    }
