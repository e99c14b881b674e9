"""The report's words and short tables, each number taken from the fit tables."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from analysis.statistics.laws import LAWS

FORMULA = {law.name: law.formula for law in LAWS}
WORDS = {
    "constant": "a constant number of keys",
    "log": "logarithmic growth",
    "power": "a power of n",
    "linear": "a fixed share of the context",
    "affine": "a constant number of keys and a fixed share of the context",
    "power_log": "a power of n times ln n",
}


@dataclass(frozen=True)
class Fits:
    """Fits per head, of the typical head, the share of heads per law, and fits of both means and of layers."""

    heads: pd.DataFrame
    pooled: pd.DataFrame
    laws: pd.DataFrame
    means: pd.DataFrame


def sentences(fits: Fits, config: DictConfig) -> list[dict[str, Any]]:
    """Say in plain words, for each label at the headline eta, what was found.

    Returns
    -------
    list of dicts with `label`, `kind`, `need` (keys at the longest context) and `words`: exponents, laws, and of a
        model which layer drives the mean.
    """
    result, laws = [], _headline(fits.laws, config)
    for label, table in _headline(fits.means, config).groupby("label", sort=False):
        whole = table[table["scope"] == "all heads"]
        of_mean, of_typical = (whole[whole["mean"] == name] for name in ("mean window", "typical head"))
        power = of_mean[of_mean["law"] == "power"].iloc[0]
        typical = of_typical[of_typical["law"] == "power"].iloc[0]
        several = power["heads"] > 1
        if several:
            need = f"Mean window {power['k_longest']:,.0f}, typical head {typical['k_longest']:,.0f}"
        else:
            need = f"A row keeps {power['k_longest']:,.0f}"
        words = [_exponent(power, "the mean window grows" if several else "k grows")]
        if several:
            words.append(_exponent(typical, "the typical head grows"))
        words.append(_law(of_mean, "The mean window" if several else "It"))
        if several:
            words.append(_law(of_typical, "The typical head"))
            words.append(_winners(laws[laws["label"] == label]))
            words.append(_driver(table))
        left_out = fits.pooled.loc[fits.pooled["label"] == label, "left_out"].max()
        if left_out:
            words.append(f"{left_out} more heads see no longer rows, and are in no mean.")
        result.append(
            {
                "label": str(label),
                "kind": str(power["kind"]),
                "need": f"{need} of {power['n_longest']:,.0f} keys",
                "words": [sentence for sentence in words if sentence],
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


def pooled_fits(fits: Fits) -> list[dict[str, str]]:
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


def _exponent(power: pd.Series, what: str) -> str:
    if pd.isna(power["C"]):
        return f"No exponent: {power['reason']}."
    return f"As a power of n, {what} with exponent {_interval(power)}."


def _law(fitted: pd.DataFrame, what: str) -> str:
    best = fitted[fitted["lead"].notna()]
    if best.empty:
        return f"{what}: too few lengths to say which law fits best."
    lead = best.iloc[0]
    if np.isinf(lead["lead"]):
        return f"{what}: most rows of every length need one key."
    return f"{what} is best described by {WORDS[lead['law']]}, by {lead['lead']:.1f} AICc."


def _winners(laws: pd.DataFrame) -> str:
    """Say which law most heads follow."""
    ranked = int(laws["ranked"].iloc[0]) if len(laws) else 0
    if not ranked:
        return ""
    first = laws.sort_values("won", ascending=False, kind="stable").iloc[0]
    won = f"{first['won']} of {ranked} heads, {first['clearly']} of them clearly"
    return f"Head by head, {WORDS[first['law']]} wins {won}."


def _driver(table: pd.DataFrame) -> str:
    """Say how much of the mean window is one layer's."""
    rest = table[
        table["scope"].str.startswith("without") & (table["mean"] == "mean window") & (table["law"] == "power")
    ]
    if rest.empty:
        return ""
    line = rest.iloc[0]
    exponent = "" if pd.isna(line["C"]) else f", exponent {_interval(line)}"
    layer = line["scope"].removeprefix("without ")
    return (
        f"{layer.capitalize()} needs {1 - line['share']:.0%} of these keys; without it the mean window is "
        f"{line['k_longest']:,.0f} keys{exponent}."
    )
