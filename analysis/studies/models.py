"""What transfers between models and between texts [claim 5]?"""

from dataclasses import replace

import pandas as pd
from omegaconf import DictConfig

from analysis.records.evidence import Evidence, sources
from analysis.settings import Settings
from analysis.statistics.extrapolate import extrapolate
from analysis.statistics.fit import fit_heads, fit_pooled, share_of_laws
from analysis.statistics.laws import LAWS
from analysis.studies import NothingMeasured

QUANTILES = {"q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95}


def study(evidence: Evidence, config: DictConfig, how: Settings) -> dict[str, pd.DataFrame]:
    """Put exponents, laws and errors of extrapolation of every model and text side by side."""
    if evidence.rows.empty:
        raise NothingMeasured("no real model has been measured")
    how = replace(how, etas=(config.eta,))
    rows = on_common_lengths(evidence.rows, how.min_lengths)
    heads, pooled = fit_heads(rows, how), fit_pooled(rows, how)
    if heads.loc[heads["law"] == "power", "C"].isna().all():
        raise NothingMeasured(f"no head could be fitted: {heads['reason'].iloc[0]}")
    won = share_of_laws(heads, how.clear_lead)
    errors = extrapolate(rows, how, [config.share])
    about = sources(rows)
    lines = [_numbers(label, rows, heads, pooled, won, errors, config.share) for label in about["label"]]
    return {"models": pd.concat(lines, ignore_index=True), "models_sources": about}


def on_common_lengths(rows: pd.DataFrame, least: int) -> pd.DataFrame:
    """Keep, of each model, the lengths that all its labels have, if there are at least `least` of them.

    Parameters
    ----------
    rows : of `analysis.load`, one design per label.
    least : fewer lengths than this cannot be fitted, and the model's labels keep their own.

    Returns
    -------
    DataFrame : the lines kept, order kept.
    """
    keep = pd.Series(True, index=rows.index)
    for _, of_model in rows.groupby("model_hash", observed=True):
        lengths = [set(part["length"]) for _, part in of_model.groupby("label", observed=True)]
        common = set.intersection(*lengths)
        if len(common) >= least:
            keep[of_model.index] = of_model["length"].isin(common)
    return rows[keep]


def _numbers(
    label: str,
    rows: pd.DataFrame,
    heads: pd.DataFrame,
    pooled: pd.DataFrame,
    won: pd.DataFrame,
    errors: pd.DataFrame,
    share: float,
) -> pd.DataFrame:
    """Every number of one label: quantiles over heads, and the pooled estimate or the share of heads."""

    def of(table: pd.DataFrame, law: str) -> pd.DataFrame:
        return table[(table["label"] == label) & (table["law"] == law)]

    def line(quantity: str, over: pd.Series, estimate: pd.DataFrame, column: str) -> dict[str, object]:
        numbers = {name: over.quantile(q) for name, q in QUANTILES.items()}
        one = estimate.iloc[0]
        numbers |= {"pooled": one[column], "low": one[f"{column}_low"], "high": one[f"{column}_high"]}
        return {"quantity": quantity, "heads": int(over.notna().sum()), **numbers}

    lines = [line("exponent C", of(heads, "power")["C"], of(pooled, "power"), "C")]
    for law in LAWS:
        result = of(won, law.name).iloc[0]
        lines.append({"quantity": f"share won by {law.name}", "heads": int(result["ranked"]), "share": result["share"]})
    for law in LAWS:
        of_law = of(errors, law.name)
        by_head, pool = (of_law[of_law["scope"] == scope] for scope in ("head", "pooled"))
        lines.append(line(f"ln k error, {law.name}", by_head["error"], pool, "error"))
    length = rows.loc[rows["label"] == label, "length"]
    about = {"label": label, "shortest": int(length.min()), "longest": int(length.max()), "lengths": length.nunique()}
    about["share_fitted"] = share
    return pd.DataFrame([about | numbers for numbers in lines])
