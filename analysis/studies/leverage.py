"""Is there one set of keys that serves every query, under softmax and under |q.k|^2?"""

import pandas as pd
from omegaconf import DictConfig

from analysis.records.evidence import Evidence, sources
from analysis.settings import Settings
from analysis.statistics import choices
from analysis.studies import NothingMeasured

SCORES = {"plain": "softmax", "plain, |x|^2": "attention as |q.k|^2"}


def study(evidence: Evidence, config: DictConfig, how: Settings) -> dict[str, pd.DataFrame]:
    """Part every method's total variation into budget and choice under both scores, where a source has both."""
    windows = evidence.windows
    if len(windows):
        scores = windows.groupby("label", observed=True)["variant"].nunique()
        windows = windows[windows["label"].isin(scores.index[scores == len(SCORES)])]
    if windows.empty:
        raise NothingMeasured(
            "no source with both scores: python run.py experiment=selectors, then experiment=leverage"
        )
    parts = [
        choices.split(windows[windows["variant"] == variant], how.confidence).assign(variant=variant, score=score)
        for variant, score in SCORES.items()
    ]
    return {
        "leverage": pd.concat(parts, ignore_index=True),
        "leverage_sources": sources(windows[windows["variant"] == "plain"]),
    }
