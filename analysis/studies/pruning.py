"""Which query and key weights may go: chosen by their size, by the linear output, or through the softmax?"""

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from analysis.records.evidence import Evidence, sources
from analysis.records.load import fullest_design
from analysis.settings import Settings
from analysis.statistics import methods
from analysis.statistics.intervals import student_reach
from analysis.studies import NothingMeasured
from experiments.tables.pruning import DENSE

POINT = ["label", "length", "criterion", "share"]
SCALES = {"tv": "share", "output_error": "positive"}


def study(evidence: Evidence, config: DictConfig, how: Settings) -> dict[str, pd.DataFrame]:
    """Average both errors over heads and samples, in all layers and in each, with the loss of all of them pruned."""
    lines, losses = evidence.tables["pruning"], evidence.tables["pruning_losses"]
    if lines.empty or losses.empty:
        raise NothingMeasured("no weights were pruned: python run.py experiment=pruning")
    lines = fullest_design(lines).astype({"label": str, "criterion": str})
    losses = losses[losses["design"].isin(lines["design"])].astype({"label": str, "criterion": str})
    whole = _errors(lines, POINT, how).merge(_increases(losses, how.confidence), on=POINT, how="left")
    return {
        "pruning": whole,
        "pruning_layers": _errors(lines, [*POINT, "layer"], how),
        "pruning_sources": sources(lines),
    }


def _errors(lines: pd.DataFrame, by: list[str], how: Settings) -> pd.DataFrame:
    """Return the means over heads of both errors for each point, with intervals from samples and heads."""
    points = []
    for point, part in lines.groupby(by, sort=False):
        numbers: dict[str, object] = dict(zip(by, point, strict=True))
        for name, scale in SCALES.items():
            numbers |= methods.mean_over_heads(part, name, how, scale)
        points.append(numbers)
    return pd.DataFrame(points)


def _increases(losses: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Return the mean loss of each point, and by how much it is above the dense one, paired by samples."""
    pair = ["label", "length", "cluster"]
    dense = losses[losses["criterion"] == DENSE].set_index(pair)["loss"].rename("loss_dense")
    both = losses[losses["criterion"] != DENSE].join(dense, on=pair)
    groups = both.assign(increase=both["loss"] - both["loss_dense"]).groupby(POINT, sort=False)
    table = groups[["loss", "loss_dense"]].mean()
    counts = groups["increase"].size()
    reach = student_reach(groups["increase"].std() / np.sqrt(counts), counts, confidence)
    table["loss_increase"] = groups["increase"].mean()
    table["loss_increase_low"], table["loss_increase_high"] = (
        table["loss_increase"] - reach,
        table["loss_increase"] + reach,
    )
    table["layers"] = groups["layers"].first()
    return table.reset_index()
