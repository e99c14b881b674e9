"""Do laws fitted at short contexts foretell one ten times as long, and do their intervals hold it [claim 5]?"""

import pandas as pd
from omegaconf import DictConfig

from analysis.records.evidence import Evidence, sources
from analysis.settings import Settings
from analysis.statistics.tenfold import foretell_tenfold
from analysis.studies import NothingMeasured


def study(evidence: Evidence, config: DictConfig, how: Settings) -> dict[str, pd.DataFrame]:
    """Foretell every head, layer and label, and count what lies in its interval."""
    if evidence.rows.empty:
        raise NothingMeasured(
            f"no model was measured at {how.min_lengths} lengths up to {config.up_to:g} of its longest: "
            "python run.py experiment=long"
        )
    table, summary = foretell_tenfold(
        evidence.rows, config.eta, how, config.up_to, config.level, str(config.calibrating)
    )
    if table.empty:
        raise NothingMeasured("no head needs more keys as its context grows: none can be put to the test")
    return {"tenfold": table, "tenfold_summary": summary, "tenfold_sources": sources(evidence.rows)}
