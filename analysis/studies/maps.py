"""Which heads have a sink, which need many keys, and whose entropy grows: head by head."""

import pandas as pd
from omegaconf import DictConfig

from analysis.records.evidence import Evidence, sources
from analysis.records.load import labels_in_order
from analysis.settings import Settings
from analysis.statistics.maps import of_label
from analysis.studies import NothingMeasured


def study(evidence: Evidence, config: DictConfig, how: Settings) -> dict[str, pd.DataFrame]:
    """Average each head's rows, and count the heads with a sink."""
    rows = evidence.rows
    if rows.empty:
        raise NothingMeasured("no real model has been measured: python run.py experiment=heads")
    tables, lines = [], []
    for label in labels_in_order(rows):
        table, about = of_label(rows[rows["label"] == label], config.eta, list(config.sinks), how)
        table.insert(0, "label", label)
        tables.append(table)
        lines.append({"label": label, **about})
    return {
        "maps": pd.concat(tables, ignore_index=True),
        "maps_sinks": pd.DataFrame(lines),
        "maps_sources": sources(rows),
    }
