"""Does a sketch tell what an approximation would leave?"""

import pandas as pd
from omegaconf import DictConfig

from analysis.records.evidence import Evidence, sources
from analysis.records.load import fullest_design
from analysis.settings import Settings
from analysis.statistics import methods
from analysis.studies import NothingMeasured

POINT = ["label", "of", "k", "width", "length"]


def study(evidence: Evidence, config: DictConfig, how: Settings) -> dict[str, pd.DataFrame]:
    """Average over heads and samples the bias of each sketch, and what is left without any."""
    lines = evidence.tables["sketches"]
    if lines.empty:
        raise NothingMeasured("no sketch was measured: python run.py experiment=sketches")
    lines = fullest_design(lines).astype({"label": str, "of": str})
    found = []
    for point, part in lines.groupby(POINT, sort=False):
        place = dict(zip(POINT, point, strict=True))
        left = methods.mean_over_heads(part, "left", how, "real")
        ratio = part[["ratio_low", "ratio", "ratio_high"]].median()  # over heads and samples
        found.append(place | left | ratio.to_dict())
    return {"sketches": pd.DataFrame(found), "sketches_sources": sources(lines)}
