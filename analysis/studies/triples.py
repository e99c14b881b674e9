"""Does the row over pairs of keys need as many of them as the ordinary row does?"""

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from analysis.records.evidence import Evidence, sources
from analysis.settings import Settings
from analysis.statistics import closed_forms
from analysis.statistics.intervals import student_reach
from analysis.studies import NothingMeasured

TRIPLES = "triples"


def study(evidence: Evidence, config: DictConfig, how: Settings) -> dict[str, pd.DataFrame]:
    """Average the keys needed over draws, beside the closed form [G2] and the ordinary rows of the same scale."""
    rows = evidence.rows
    if rows.empty or not (rows["kind"] == TRIPLES).any():
        raise NothingMeasured("no triples: python run.py experiment=triples")
    scale = ["s", "sigma"]
    of_triples = rows.loc[rows["kind"] == TRIPLES, scale].drop_duplicates().astype(float)
    rows = rows.astype({"label": str, "kind": str, "s": float, "sigma": float}).merge(of_triples, on=scale)
    keys = f"k_min_{config.eta:g}"
    draws = rows.groupby(["kind", "label", *scale, "length", "cluster"], dropna=False, observed=True)[keys].mean()
    groups = draws.groupby(["kind", "label", *scale, "length"], dropna=False)
    table = pd.DataFrame({"keys": groups.mean(), "clusters": groups.size()})
    half = student_reach(groups.sem(), table["clusters"], how.confidence)
    table = table.assign(keys_low=table["keys"] - half, keys_high=table["keys"] + half).reset_index()
    deviation = [
        float(closed_forms.deviation(n, **({"s": s} if np.isfinite(s) else {"sigma": sigma})))
        for n, s, sigma in zip(table["length"], table["s"], table["sigma"], strict=True)
    ]
    table["closed_form"] = closed_forms.smallest_window(config.eta, table["length"], np.array(deviation))
    table = table.sort_values(["kind", "label", "length"], ignore_index=True)
    over_n = np.log(table["length"]).groupby(table["label"]).diff()
    for column, name in (("keys", "exponent"), ("closed_form", "closed_form_exponent")):
        table[name] = np.log(table[column]).groupby(table["label"]).diff() / over_n
    return {"triples": table, "triples_sources": sources(evidence.rows[evidence.rows["label"].isin(table["label"])])}
