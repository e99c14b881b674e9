"""Do two sums of a row foretell the keys that it needs, without sorting [G8]?"""

from dataclasses import replace

import pandas as pd
from omegaconf import DictConfig

from analysis.records.evidence import Evidence, sources
from analysis.settings import Settings
from analysis.statistics import foretold
from analysis.studies import NothingMeasured


def study(evidence: Evidence, config: DictConfig, how: Settings) -> dict[str, pd.DataFrame]:
    """Set the keys that each sum foretells against those needed, head by head, with [G2] beside them."""
    every = list(foretold.foretell(evidence.rows, tuple(config.etas), config.rows)) if len(evidence.rows) else []
    if not every:
        raise NothingMeasured("no rows were measured with the sums that the law is matched to: measure them again")
    fewer = replace(how, resamples=config.resamples)
    labels = {item.label for item in every}
    return {
        "sums": foretold.by_head(every, how),
        "sums_summary": foretold.summary(every, fewer),
        "sums_choice": foretold.judge_rule(every, how),
        "sums_sources": sources(evidence.rows[evidence.rows["label"].isin(labels)]),
    }
