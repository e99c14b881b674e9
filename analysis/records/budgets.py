"""Tells apart what several budget files of one model gave windows of the same name.

A file's windows are named by the tolerance of its laws, or the keys that it shares out, which another's may be too.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.records.lines import Coded, Lines, narrowest
from experiments.windows.head_laws import BUDGET, HEAD_FIXED

FILE, LAWS = "budget_file", "budget_laws"  # of a run: the name of its budget file, and the hash of the laws in it


def budget_of(config: dict[str, Any], manifest: dict[str, Any]) -> dict[str, str | None]:
    """Return the name of a run's budget file and the hash of its laws, None where it has none."""
    file = (config.get("windows") or {}).get("file")
    identity = (manifest.get("identity") or {}).get("windows", {})
    laws = identity.get("budget") or identity.get("file")
    return {FILE: Path(file).stem if file else None, LAWS: (laws or manifest["run_id"]) if file else None}


def of_budget_file(rule: pd.Series) -> pd.Series:
    """Return which rules are of windows that a budget file gives each head."""
    names = rule.astype(str)
    return names.str.startswith(BUDGET) | names.str.startswith(HEAD_FIXED)


def named_by_file(lines: Lines) -> Lines:
    """Return the lines, their rule with the name of the file behind it wherever two files' windows are named alike."""
    rule, runs = lines.columns.get("rule"), lines.described
    if not isinstance(rule, Coded) or runs[LAWS].nunique() < 2:
        return lines
    ours = np.append(of_budget_file(pd.Series(rule.levels)), False)[rule.codes]
    parameter = lines.columns["parameter"]
    values = parameter.codes if isinstance(parameter, Coded) else parameter
    which = pd.DataFrame(
        {"run": lines.run[ours], "rule": rule.codes[ours], "parameter": values[ours]}
    ).drop_duplicates()
    which = which.join(runs[["model_hash", LAWS]], on="run")
    alike = which.groupby(["model_hash", "rule", "parameter"], dropna=False)[LAWS].transform("nunique") > 1
    named = which.loc[alike, ["run", "rule"]].drop_duplicates()
    levels, codes = [str(name) for name in rule.levels], rule.codes.astype(np.int64)
    names = _names(runs.loc[named["run"].unique()])
    for run, code in named.itertuples(index=False):
        name = f"{levels[code]} ({names[run]})"
        if name not in levels:
            levels.append(name)
        codes[ours & (lines.run == run) & (rule.codes == code)] = levels.index(name)
    order = np.argsort(levels, kind="stable")
    rank = np.append(np.argsort(order), -1)
    told_apart = Coded(narrowest(rank, len(levels))[codes], np.array(levels, object)[order])
    return Lines(lines.run, {**lines.columns, "rule": told_apart}, runs)


def _names(runs: pd.DataFrame) -> dict[int, str]:
    """Return what names each run's budget: its file's, and where another has that name the first digits of its laws."""
    laws = runs.groupby(FILE)[LAWS].transform("nunique")
    return {
        run: f"{file}, {str(hash_)[:6]}" if count > 1 else str(file)
        for run, file, hash_, count in zip(runs.index, runs[FILE], runs[LAWS], laws, strict=True)
    }
