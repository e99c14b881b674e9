"""Picks, for one study, the records that its yaml names; what was measured is read at most once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd
from omegaconf import DictConfig

from analysis.records.load import (
    TASKS,
    Run,
    describe_all,
    fullest_design,
    labels_in_order,
    load_runs,
    load_task,
)
from analysis.records.matrices import FILE, Matrix, recorded

PLACE = ["cluster", "layer", "head", "variant", "length"]


class Records:
    """All complete runs of an outputs directory, and their tables, read when they are first asked for."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = list(runs)
        self._tasks: dict[str, pd.DataFrame] = {}

    @cached_property
    def described(self) -> pd.DataFrame:
        """One line per run; see `analysis.records.load.describe_all`."""
        return describe_all(self.runs)

    @cached_property
    def rows_and_windows(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The tables of `analysis.load`."""
        return load_runs(self.runs)

    def task(self, name: str) -> pd.DataFrame:
        """Return one table of the runners that run a model."""
        if name not in self._tasks:
            self._tasks[name] = load_task(self.runs, name)
        return self._tasks[name]


@dataclass(frozen=True)
class Evidence:
    """What a study may draw on, already restricted to the records that its yaml names.

    `rows` and `windows` as of `analysis.load`, the fullest design of each label; `matrices` the recorded attention,
    not yet read; `tables` those of the other runners, by name: `losses`, `retrieval`, `decoding`. What the yaml does
    not name in `uses` is empty.
    """

    rows: pd.DataFrame
    windows: pd.DataFrame
    matrices: list[Matrix]
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)


def bearing(config: DictConfig, records: Records) -> list[Run]:
    """Return the runs on which a study may rest: which of their lines it uses depends on no other run."""
    files = {TASKS[name].file for name in TASKS if name in config.uses}
    files |= {f"{name}.parquet" for name in ("rows", "windows") if name in config.uses}
    files |= {FILE} if "matrices" in config.uses else set()
    named = set(_only(records.described, {"role": ["main"], **config.records})["run"])
    return [run for run in records.runs if run.id in named and any(map(run.file, files))]


def gather(config: DictConfig, records: Records) -> Evidence:
    """Restrict all records to what a study may draw on.

    Parameters
    ----------
    config : the study's yaml; `records` maps column names to the values allowed, null for a missing one (a table
        without the column is not restricted by it; comparisons are left out unless it names a `role`), `uses` names
        the parts wanted, of `rows`, `windows`, `matrices` and the other runners' tables, `prefers` a column of which
        the design used is to have most different values.
    records : all of them.
    """
    allowed = {"role": ["main"], **config.records}
    rows, windows = pd.DataFrame(), pd.DataFrame()
    if {"rows", "windows"} & set(config.uses):
        every = dict(zip(("rows", "windows"), records.rows_and_windows, strict=True))
        rows, windows = (
            _designs(_only(table, allowed), config) if name in config.uses else table.iloc[:0]
            for name, table in every.items()
        )
    matrices = recorded(bearing(config, records)) if "matrices" in config.uses else []
    tables = {name: _only(records.task(name), allowed) for name in TASKS if name in config.uses}
    return Evidence(rows, windows, matrices, tables)


def sources(lines: pd.DataFrame) -> pd.DataFrame:
    """Say what stands behind the lines of a study, in the order in which a reader wants the labels.

    Parameters
    ----------
    lines : rows or windows of `analysis.load`.

    Returns
    -------
    DataFrame : per label: `kind`, `role`, `s`, `sigma`, numbers of `rows`, `samples`, `heads`, `seeds` and `runs`.
    """
    if "rows" in lines:
        lines = lines.drop_duplicates(["label", "design", "seed", *PLACE])
    groups = lines.groupby("label", observed=True, sort=False)
    table = groups[["kind", "role", "s", "sigma"]].first().astype({"kind": str, "role": str})
    table["rows"] = groups["rows"].sum() if "rows" in lines else groups.size()
    table["samples"] = groups["cluster"].nunique()
    heads = lines[["label", "layer", "head"]].drop_duplicates()
    table["heads"] = heads.groupby("label", observed=True).size()
    table["seeds"], table["runs"] = groups["seed"].nunique(), groups["run"].nunique()
    table.index = table.index.astype(str)
    return table.loc[labels_in_order(lines)].rename_axis("label").reset_index()


def _designs(table: pd.DataFrame, config: DictConfig) -> pd.DataFrame:
    """Choose the design of each label, for each variant by itself where a column says what it is to have most of."""
    if "prefers" not in config:
        return fullest_design(table)
    parts = [fullest_design(part, config.prefers) for _, part in table.groupby("variant", observed=True, sort=False)]
    return pd.concat(parts) if parts else table


def _only(table: pd.DataFrame, records: Mapping[str, Sequence[object]]) -> pd.DataFrame:
    for column, allowed in records.items():
        if column in table:
            values = table[column]
            table = table[values.isin(list(allowed)) | (values.isna() & (None in allowed))]
    return table
