"""What does the next token lose where every head keeps a n^C keys, and does it lose less as n grows?"""

import pandas as pd
from omegaconf import DictConfig

from analysis.records.evidence import Evidence
from analysis.settings import Settings
from analysis.statistics import in_model, tasks
from analysis.statistics.loss_at_power import laws
from analysis.studies import NothingMeasured


def study(evidence: Evidence, config: DictConfig, how: Settings) -> dict[str, pd.DataFrame]:
    """Average what the oracle's power windows of the scales named lose at each length, and fit its change."""
    losses = evidence.tables["losses"]
    if len(losses) and "kl" in losses:
        dense = losses["rule"].astype(str) == tasks.DENSE
        oracle = losses["selector"].astype(str) == in_model.ORACLE
        power = (losses["rule"].astype(str) == "power") & losses["scale"].isin(list(config.scales)) & oracle
        measured = power & losses["kl"].notna()
        losses = losses[(measured | dense) & losses["run"].isin(losses.loc[measured, "run"].unique())]
    if losses.empty or "kl" not in losses:
        raise NothingMeasured("no losses of the oracle's windows a n^C: python run.py experiment=loss_at_power")
    lines = in_model.by_sample(losses)
    fitted = laws(lines, how)
    if fitted.empty:
        raise NothingMeasured("windows a n^C at fewer than three lengths: python run.py experiment=loss_at_power")
    return {
        "loss_at_power": in_model.over_samples(lines, how.confidence),
        "loss_at_power_laws": fitted,
        "loss_at_power_sources": tasks.sources(losses),
    }
