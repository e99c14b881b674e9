"""How many keys does a head need as its context grows, and which law describes it?"""

from dataclasses import replace

import pandas as pd
from omegaconf import DictConfig

from analysis.records.evidence import Evidence, sources
from analysis.settings import Settings
from analysis.statistics import truths
from analysis.statistics.fit import fit_heads, fit_pooled, share_of_laws
from analysis.studies import NothingMeasured


def study(evidence: Evidence, config: DictConfig, how: Settings) -> dict[str, pd.DataFrame]:
    """Fit every law to every head and to the typical head of each label, at every eta; judge them at one."""
    rows = evidence.rows
    if rows.empty:
        raise NothingMeasured("no rows of softmax attention were measured")
    heads = fit_heads(rows, how)
    plain = rows[rows["variant"] == "plain"]
    about = sources(plain)
    of_headline = replace(how, etas=(config.eta,))
    trials = list(truths.trials(plain, replace(of_headline, resamples=config.simulations)))
    runs = rows.groupby("label", observed=True)["run"].nunique()
    return {
        "fits": heads,
        "fits_pooled": fit_pooled(rows, how),
        "laws": share_of_laws(heads, how.clear_lead),
        "truths": truths.by_head(trials),
        "truths_summary": truths.summary(trials, how),
        "local_exponents": truths.local_exponents(plain, of_headline),
        "fits_sources": about.assign(runs=about["label"].map(dict(runs))),
    }
