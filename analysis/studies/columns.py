"""Does one set of columns hold the attention of all rows, and one text's columns that of another?"""

import pandas as pd
from omegaconf import DictConfig

from analysis.records.evidence import Evidence, sources
from analysis.records.load import fullest_design, labels_in_order
from analysis.settings import Settings
from analysis.statistics.columns import by_head, recall
from analysis.studies import NothingMeasured


def study(evidence: Evidence, config: DictConfig, how: Settings) -> dict[str, pd.DataFrame]:
    """Average the recall of static columns over heads, and give that of each head at one share of the context."""
    lines = evidence.tables["columns"]
    if lines.empty:
        raise NothingMeasured("no static columns: python run.py experiment=columns")
    lines = fullest_design(lines)
    labels = labels_in_order(lines)
    of_label = {label: lines[lines["label"] == label] for label in labels}
    means = [recall(part, how).assign(label=label) for label, part in of_label.items()]
    heads = [by_head(part, config.share).assign(label=label) for label, part in of_label.items()]
    return {
        "columns": _label_first(pd.concat(means, ignore_index=True)),
        "columns_heads": _label_first(pd.concat(heads, ignore_index=True)),
        "columns_sources": sources(lines),
    }


def _label_first(table: pd.DataFrame) -> pd.DataFrame:
    return table[["label", *(name for name in table if name != "label")]]
