"""For which logit scale are n^C keys enough, and how slowly is the limit [G5] reached?"""

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from analysis.records.evidence import Evidence, sources
from analysis.settings import Settings
from analysis.statistics import closed_forms, heads
from analysis.statistics.intervals import student_reach
from analysis.studies import NothingMeasured
from experiments.tables.rows import k_min

HEAD = ["label", "layer", "head", "s", "C", "C_predicted", "n_middle"]


def study(evidence: Evidence, config: DictConfig, how: Settings) -> dict[str, pd.DataFrame]:
    """Lay out the plane of s and C, the local exponents along it, and the heads of real models in it."""
    windows = evidence.windows
    gaussian = windows[windows["s"].notna() & (windows["scale"] == 1)] if len(windows) else windows
    if gaussian.empty:
        raise NothingMeasured("no Gaussian source of growing logit scale was measured: python run.py experiment=phase")
    plane = _plane(gaussian)
    local = _local_exponents(evidence.rows[evidence.rows["s"].notna()], config, how)
    placed = _heads(evidence.rows[evidence.rows["kind"] == "real"], config, how)
    parts = {"plane": plane, "local exponent": local, "head": placed}
    table = pd.concat([part.assign(what=what) for what, part in parts.items()], ignore_index=True)
    used = pd.concat([gaussian, windows[windows["label"].isin(placed["label"])]])
    return {
        "phase": table[["what", *(column for column in table if column != "what")]],
        "phase_summary": _agreement(plane, local, config),
        "phase_sources": sources(used),
    }


def _plane(windows: pd.DataFrame) -> pd.DataFrame:
    """Mean dropped mass of k = n^C at every s, C and n, with that of [G1]."""
    keys = ["label", "s", "length", "parameter"]
    lines = windows[[*keys, "k", "dropped_mass"]].astype({"dropped_mass": np.float64})
    table = lines.groupby(keys, observed=True)[["k", "dropped_mass"]].mean().reset_index()
    sigma = closed_forms.deviation(table["length"], s=1) * table["s"]
    return table.rename(columns={"parameter": "C"}).assign(
        theory=closed_forms.dropped_mass(table["k"], table["length"], sigma)
    )


def _local_exponents(rows: pd.DataFrame, config: DictConfig, how: Settings) -> pd.DataFrame:
    """Local exponents d ln k_min / d ln n between lengths a factor apart, with Student's interval over draws."""
    keys = ["label", "s", "cluster"]
    means = rows.pivot_table(index=keys, columns="length", values=k_min(config.eta), observed=True)
    lines = []
    for length in means.columns:
        if (longer := config.factor * length) not in means:
            continue
        slopes = (np.log(means[longer] / means[length]) / np.log(config.factor)).dropna()
        for (label, s), values in slopes.groupby(["label", "s"], observed=True):
            middle, half = length * np.sqrt(config.factor), student_reach(values.sem(), len(values), how.confidence)
            line = {"label": label, "s": s, "length": middle, "local_exponent": values.mean()}
            line |= {"low": values.mean() - half, "high": values.mean() + half, "clusters": len(values)}
            line |= {"theory": float(closed_forms.local_exponent_growing(config.eta, middle, s)), "eta": config.eta}
            lines.append(line)
    return pd.DataFrame(lines, columns=[*LOCAL])


LOCAL = ("label", "s", "length", "local_exponent", "low", "high", "clusters", "theory", "eta")


def _heads(rows: pd.DataFrame, config: DictConfig, how: Settings) -> pd.DataFrame:
    """Place every head of every real model by its own s and its own exponent."""
    if rows.empty:
        return pd.DataFrame(columns=HEAD)
    return heads.by_head(heads.exponents(rows, config.eta, how))[HEAD].dropna()


def _agreement(plane: pd.DataFrame, local: pd.DataFrame, config: DictConfig) -> pd.DataFrame:
    """Largest distances from [G1] and [G6] for each s, beside the limit [G5]."""
    distance = (plane["dropped_mass"] - plane["theory"]).abs().groupby(plane["s"]).max()
    apart = (local["local_exponent"] - local["theory"]).abs().groupby(local["s"])
    longest = local.sort_values("length").groupby("s").last()
    table = pd.DataFrame({"dropped_mass_from_G1": distance, "local_exponent_from_G6": apart.max()}).reset_index()
    table["local_exponent_at_longest"] = table["s"].map(longest["local_exponent"])
    return table.assign(C_star=closed_forms.critical_exponent(table["s"]), trusted=table["s"] <= config.trusted)
