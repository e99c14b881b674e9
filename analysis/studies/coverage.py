"""Does a sample of a size of its own choice keep its promise?"""

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from analysis.records.evidence import Evidence, sources
from analysis.records.load import fullest_design
from analysis.settings import Settings
from analysis.statistics import methods
from analysis.studies import NothingMeasured

POINT = ["label", "selector", "base", "length", "epsilon", "delta"]


def study(evidence: Evidence, config: DictConfig, how: Settings) -> dict[str, pd.DataFrame]:
    """Average the promises kept over heads and samples, with intervals from both."""
    lines = evidence.tables["coverage"]
    if lines.empty:
        raise NothingMeasured("no promise was measured: python run.py experiment=coverage")
    lines = fullest_design(lines).astype({"label": str, "selector": str})
    found = []
    for point, part in lines.groupby(POINT, sort=False):
        place = dict(zip(POINT, point, strict=True))
        covered = methods.mean_over_heads(part, "covered", how, "share")
        about = {name: float(part[name].mean()) for name in ("sampled", "keys")}
        found.append(place | {"promised": 1 - float(part["delta"].iloc[0])} | covered | about)
    table = pd.DataFrame(found)
    no, yes = table["covered_high"] < table["promised"], table["covered_low"] >= table["promised"]
    table["kept"] = np.select([no, yes], ["no", "yes"], "undecided")
    return {"coverage": table, "coverage_sources": sources(lines)}
