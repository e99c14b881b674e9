"""What does each layer, or KV head, lose alone that keeps few keys, and what do keys gain that are shared out so?"""

from itertools import product

import pandas as pd
from omegaconf import DictConfig

from analysis.records.evidence import Evidence
from analysis.settings import Settings
from analysis.statistics import tasks
from analysis.statistics.gains import BY_GAINS, KL, PYRAMID, UNIFORM, Measured, of_one_design
from analysis.statistics.intervals import student_reach, with_interval
from analysis.statistics.shared_out import in_model, in_tasks
from analysis.studies import NothingMeasured

PLACE = ["label", "per", "phase", "selector", "length"]
UNIT = ["layer", "kv_head", "rule", "parameter", "scale"]
WITH_ENDS = [f"{name}{end}" for name in (KL, "difference") for end in ("", "_low", "_high")]
SHARED_COLUMNS = [*PLACE, "by", "share", "keys", *WITH_ENDS, "units", "samples"]


def study(evidence: Evidence, config: DictConfig, how: Settings) -> dict[str, pd.DataFrame]:
    """Average what each unit loses alone, and judge ways to share keys out: on samples left out, and in the model."""
    lines = evidence.tables["gains"]
    if lines.empty:
        raise NothingMeasured("no gains of layers or KV heads: python run.py experiment=gains")
    lines = of_one_design(lines).astype({"label": str, "selector": str, "phase": str, "rule": str})
    lines = lines.astype({"keys": float, "n": float, "agreement": float, KL: float})
    lines["lost"] = lines["loss"] - lines["dense_loss"]
    return {
        "gains": _alone(lines, how),
        "gains_shared": _shared(lines, list(config.shares), how),
        "gains_in_model": in_model(evidence.tables["losses"], lines, how.confidence),
        "gains_in_tasks": in_tasks(evidence.tables["tasks"], lines, how.confidence),
        "gains_sources": tasks.sources(lines),
    }


def _alone(lines: pd.DataFrame, how: Settings) -> pd.DataFrame:
    """Return what each unit loses alone within each window, means over samples with Student's interval."""
    groups = lines.groupby([*PLACE, *UNIT], dropna=False)
    table = groups[["keys", "n", "agreement"]].mean()
    for name in (KL, "lost"):
        mean, reach = groups[name].mean(), student_reach(groups[name].sem(), groups.size(), how.confidence)
        table = table.assign(**{name: mean, f"{name}_low": mean - reach, f"{name}_high": mean + reach})
    return table.assign(samples=groups.size()).reset_index()


def _shared(lines: pd.DataFrame, shares: list[float], how: Settings) -> pd.DataFrame:
    """Return what all units together are foretold to lose, for each way to share a mean number of keys out."""
    parts = []
    if (lines.groupby(PLACE)["sample"].nunique() < 2).all():
        raise NothingMeasured("gains of one sample alone: measure two, each is judged by the others")
    for place, of_length in lines.groupby(PLACE):
        measured = Measured.of(of_length, KL)
        if measured.samples < 2:  # each is left out in turn
            continue
        least, most = measured.bounds()
        for share, way in product(shares, (UNIFORM, BY_GAINS, PYRAMID)):
            keys = share * int(of_length["length"].iloc[0])
            if not least <= keys <= most:
                continue
            kl, alike = measured.judged(way, keys), measured.judged(UNIFORM, keys)
            line = {**dict(zip(PLACE, place, strict=True)), "by": way, "share": share, "keys": keys}
            for name, values in ((KL, kl), ("difference", kl - alike)):
                line |= with_interval(name, values, how.confidence)
            parts.append(line | {"units": len(measured.layers), "samples": measured.samples})
    return pd.DataFrame(parts, columns=SHARED_COLUMNS)
