"""What must a cache hold for a head, for the heads of a KV head, and for the rows that follow?"""

from dataclasses import replace

import pandas as pd
from omegaconf import DictConfig

from analysis.records.evidence import Evidence, sources
from analysis.records.load import fullest_design
from analysis.settings import Settings
from analysis.statistics import means, unions
from analysis.studies import NothingMeasured
from experiments.tables.unions import EVERY_HEAD


def study(evidence: Evidence, config: DictConfig, how: Settings) -> dict[str, pd.DataFrame]:
    """Lay out the keys that rows need together over context length and length of the run, with their laws."""
    lines = evidence.tables["unions"]
    if lines.empty:
        raise NothingMeasured("no runs of consecutive rows: python run.py experiment=unions")
    lines = fullest_design(lines)
    every = list(unions.means_of(lines, list(config.etas), replace(how, resamples=config.resamples)))
    points = [means.data([mean], how).assign(**place) for place, mean in every]
    laws = [means.laws([mean], how).assign(**place) for place, mean in every]
    return {
        "unions": unions.over_a_row(pd.concat(points, ignore_index=True)),
        "unions_laws": pd.concat(laws, ignore_index=True),
        "unions_sources": sources(_rows(lines)),
    }


def _rows(lines: pd.DataFrame) -> pd.DataFrame:
    """Return one line per head, length and sample, with the `rows` that were measured of it."""
    longest = lines[(lines["rows"] == lines["rows"].max()) & (lines["head"] != EVERY_HEAD)]
    return longest[longest["eta"] == longest["eta"].min()]
