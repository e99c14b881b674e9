"""What does each head need, and does its own logit scale foretell it [claim 5, G6]?"""

from dataclasses import replace

import pandas as pd
from omegaconf import DictConfig

from analysis.records.evidence import Evidence, sources
from analysis.settings import Settings
from analysis.statistics import heads
from analysis.statistics.fit import fit_heads
from analysis.studies import NothingMeasured


def study(evidence: Evidence, config: DictConfig, how: Settings) -> dict[str, pd.DataFrame]:
    """Set every head's exponent against the one that [G6] predicts, and against its control variants."""
    rows = evidence.rows
    if rows.empty:
        raise NothingMeasured("no real model has been measured")
    exponents = heads.exponents(rows, config.eta, how)
    table = heads.by_head(exponents)
    table.insert(4, "eta", config.eta)
    if table["C"].isna().all():
        raise NothingMeasured("no head was measured at enough lengths to fit an exponent")
    # which law wins does not depend on the bootstrap
    laws = fit_heads(rows, replace(how, etas=(config.eta,), resamples=1))
    keys = ["label", "variant", "layer", "head"]
    winners = laws.loc[laws["lead"].notna(), [*keys, "law", "lead"]]
    return {
        "heads": table.merge(winners, how="left", on=keys),
        "heads_summary": heads.summary(exponents, how),
        "heads_sources": sources(rows[rows["variant"] == "plain"]),
    }
