"""The report's words and short tables, each number taken from the fit tables."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
from omegaconf import DictConfig

from analysis.statistics.laws import LAWS

FORMULA = {law.name: law.formula for law in LAWS}
WORDS = {
    "constant": "a constant number of keys",
    "log": "logarithmic growth",
    "power": "a power of n",
    "linear": "a fixed share of the context",
    "power_log": "a power of n times ln n",
}


@dataclass(frozen=True)
class Fits:
    """Fits per head, pooled over heads, and the share of heads per law."""

    heads: pd.DataFrame
    pooled: pd.DataFrame
    laws: pd.DataFrame


def sentences(fits: Fits, config: DictConfig) -> list[dict[str, str]]:
    """Say in plain words, for each label at the headline eta, what was found.

    Returns
    -------
    list of dicts with `label`, `kind`, `need` (keys at the longest context), `exponent` and `law`.
    """
    result = []
    for label, table in _headline(fits.pooled, config).groupby("label", sort=False):
        power = table[table["law"] == "power"].iloc[0]
        several = power["heads"] > 1
        left_out = f"; {power['left_out']} more see no longer rows" if power["left_out"] else ""
        whose = f"The typical head (of {power['heads']}{left_out})" if several else "A row"
        if left_out and not several:
            whose = f"A row (of one head{left_out})"
        need = f"{whose} keeps {power['k_longest']:,.0f} of {power['n_longest']:,.0f} keys"
        laws = _headline(fits.laws, config)
        result.append(
            {
                "label": str(label),
                "kind": str(power["kind"]),
                "need": need,
                "exponent": _exponent(power),
                "law": _law(table, laws[laws["label"] == label], several, config.clear_lead),
            }
        )
    return result


def law_shares(fits: Fits, config: DictConfig) -> list[dict[str, Any]]:
    """Make the table of laws against labels: heads won by each law at the headline eta."""
    lines = []
    for label, table in _headline(fits.laws, config).groupby("label", sort=False):
        won = {row.law: f"{row.won} ({row.clearly})" for row in table.itertuples()}
        lines.append({"label": label, "won": [won[law] for law in FORMULA], "unranked": table["unranked"].iloc[0]})
    return [{"formulas": list(FORMULA.values()), "lines": lines}] if lines else []


def pooled_fits(fits: Fits, config: DictConfig) -> list[dict[str, str]]:
    """Make the table of pooled power laws: exponent at each eta, with its interval."""
    plain = fits.pooled[(fits.pooled["law"] == "power") & (fits.pooled["variant"] == "plain")]
    best = fits.pooled[fits.pooled["lead"].notna()].set_index(["label", "variant", "eta"])["law"]
    return [
        {
            "label": str(row["label"]),
            "eta": f"{row['eta']:g}",
            "exponent": _interval(row) if pd.notna(row["C"]) else "–",
            "k": f"{row['k_longest']:,.1f}",
            "n": f"{row['n_longest']:,.0f}",
            "lengths": f"{row['lengths']} ({row['censored']} left out)" if row["censored"] else str(row["lengths"]),
            "clusters": str(row["clusters"]),
            "best": FORMULA.get(best.get((row["label"], "plain", row["eta"]), ""), "not ranked"),
        }
        for _, row in plain.iterrows()
    ]


def head_fits(fits: Fits, config: DictConfig) -> list[dict[str, Any]]:
    """Make the table of single heads of real models: keys needed, exponent with its interval, best law."""
    table = _headline(fits.heads, config)
    table = table[table["kind"] == "real"]
    keys = ["label", "layer", "head"]
    best = table[table["lead"].notna()].set_index(keys)["law"].to_dict()
    power = table[table["law"] == "power"].sort_values(keys, kind="stable")
    return [
        {
            "label": str(line["label"]),
            "layer": int(line["layer"]),
            "head": int(line["head"]),
            "cells": [
                int(line["layer"]),
                int(line["head"]),
                f"{line['k_longest']:,.1f}",
                f"{line['n_longest']:,.0f}",
                *("–" if pd.isna(line[name]) else f"{line[name]:.2f}" for name in ("C", "C_low", "C_high")),
                FORMULA.get(best.get(tuple(line[keys]), ""), "not ranked"),
            ],
        }
        for _, line in power.iterrows()
    ]


def _headline(table: pd.DataFrame, config: DictConfig) -> pd.DataFrame:
    return table[(table["eta"] == config.headline_eta) & (table["variant"] == "plain")]


def _interval(power: pd.Series) -> str:
    if pd.isna(power["C_low"]):
        return f"{power['C']:.2f} (one sample, no interval)"
    return f"{power['C']:.2f} [{power['C_low']:.2f}, {power['C_high']:.2f}]"


def _exponent(power: pd.Series) -> str:
    if pd.isna(power["C"]):
        return f"No exponent: {power['reason']}."
    return f"As a power of n, k grows with exponent {_interval(power)}."


def _law(pooled: pd.DataFrame, laws: pd.DataFrame, several: bool, clear_lead: float) -> str:
    best = pooled[pooled["lead"].notna()]
    if best.empty:
        return "Too few lengths to say which law fits best."
    lead = best.iloc[0]
    narrowly = "" if lead["lead"] >= clear_lead else ", though not clearly,"
    verdict = f"Best described{narrowly} by {WORDS[lead['law']]}."
    ranked = int(laws["ranked"].iloc[0])
    if not several or not ranked:
        return verdict
    first = laws.sort_values("won", ascending=False, kind="stable").iloc[0]
    share = f"{WORDS[first['law']]} wins {first['won']} of {ranked} heads, {first['clearly']} of them clearly"
    return f"{verdict} Head by head, {share}."
