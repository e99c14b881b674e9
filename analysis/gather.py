"""Picks, for one figure, the records that its yaml names."""

from collections.abc import Mapping, Sequence

import pandas as pd
from omegaconf import DictConfig

from analysis import style
from analysis.figures import Evidence
from analysis.load import TASKS, Run, describe_all, fullest_design, labels_in_order, load_task
from analysis.matrices import recorded
from analysis.tables import Fits


def gather(
    config: DictConfig, rows: pd.DataFrame, windows: pd.DataFrame, fits: Fits, runs: Sequence[Run]
) -> tuple[Evidence, list[Run]]:
    """Restrict all records to what a figure may draw on.

    Parameters
    ----------
    config : the figure's yaml; `records` maps column names to the values allowed, null for a missing one (a table
        without the column is not restricted by it; comparisons are left out unless it names a `role`), `uses` names
        the parts wanted, of `rows`, `windows`, `matrices` and the other runners' tables, `gaussians` the most Gaussian
        settings shown, spread evenly over those measured, `prefers` a column of which the design shown is to have most
        different values.
    rows, windows : of `analysis.load`.
    fits : of all labels.
    runs : all complete runs.

    Returns
    -------
    evidence, used : what to draw on, and the runs that it came from.
    """
    records = {"role": ["main"], **config.records}
    chosen = {
        name: _spread(_designs(_only(table, records), config), config) if name in config.uses else table.iloc[:0]
        for name, table in (("rows", rows), ("windows", windows))
    }
    known = _only(describe_all(runs), records)["run"]
    matrices = recorded([run for run in runs if run.id in set(known)]) if "matrices" in config.uses else []
    labels = set(chosen["rows"]["label"].unique())
    heads, pooled = (_only(table[table["label"].isin(labels)], records) for table in (fits.heads, fits.pooled))
    used = {run for table in chosen.values() for run in table["run"].unique()}
    used |= {matrix.run for matrix in matrices}
    tables = {name: _only(load_task(runs, name), records) for name in TASKS if name in config.uses}
    used |= {run for table in tables.values() if len(table) for run in table["run"].unique()}
    evidence = Evidence(chosen["rows"], chosen["windows"], heads, pooled, matrices, tables)
    return evidence, [run for run in runs if run.id in used]


def _designs(table: pd.DataFrame, config: DictConfig) -> pd.DataFrame:
    """Choose the design of each label, for each variant by itself where a column says what it is to have most of."""
    if "prefers" not in config:
        return fullest_design(table)
    parts = [fullest_design(part, config.prefers) for _, part in table.groupby("variant", observed=True, sort=False)]
    return pd.concat(parts) if parts else table


def _spread(table: pd.DataFrame, config: DictConfig) -> pd.DataFrame:
    if "gaussians" not in config:
        return table
    settings = labels_in_order(table[table["kind"] == "gaussian"])
    left_out = set(settings) - set(style.spread_over(settings, config.gaussians))
    return table[~table["label"].isin(left_out)]


def _only(table: pd.DataFrame, records: Mapping[str, Sequence[object]]) -> pd.DataFrame:
    for column, allowed in records.items():
        if column in table:
            values = table[column]
            table = table[values.isin(list(allowed)) | (values.isna() & (None in allowed))]
    return table
