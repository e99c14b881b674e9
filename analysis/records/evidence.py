"""Picks, for one study, the records that its yaml names; what was measured is read at most once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd
from omegaconf import DictConfig

from analysis import settings
from analysis.records.lines import Lines
from analysis.records.load import (
    TASKS,
    Run,
    describe_all,
    fullest_design,
    labels_in_order,
    lines_of_both,
    load_task,
)
from analysis.records.matrices import FILE, Matrix, recorded
from experiments.tables.rows import ROWS
from experiments.tables.windows import WINDOWS

TABLES = {table.name: table for table in (ROWS, WINDOWS)}
# The columns that say which run a line is of; a yaml may name more in `uses`.
CONFIGURATION = ("run", "label", "kind", "role", "s", "sigma", "model_hash", "seed", "design", "cluster")
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
    def lines(self) -> dict[str, Lines]:
        """Rows and windows, of what was measured those columns that a study names."""
        every = map(settings.study, settings.studies())
        columns = {name for config in every for table in TABLES for name in columns_of(config, table)}
        return dict(zip(TABLES, lines_of_both(self.runs, sorted(columns)), strict=True))

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
        the parts wanted, of `rows` and `windows` (with what it reads of them), `matrices` and the other runners'
        tables, `prefers` a column of which the design used is to have most different values, `beside` columns of
        which a label must have another value than the one given, `having` columns of which a design must have the one
        given, `up_to` a share of the longest length up to which a design must have lengths enough for a law.
    records : all of them.
    """
    allowed = {"role": ["main"], **{name: list(values) for name, values in config.records.items()}}
    frames = {name: _frame(records.lines[name], allowed, config, name) for name in TABLES if name in config.uses}
    matrices = recorded(bearing(config, records)) if "matrices" in config.uses else []
    tables = {name: _only(records.task(name), allowed) for name in TASKS if name in config.uses}
    rows, windows = (frames.get(name, pd.DataFrame()) for name in TABLES)
    return Evidence(rows, windows, matrices, tables)


def sources(lines: pd.DataFrame) -> pd.DataFrame:
    """Say what stands behind the lines of a study, labels in the order of `labels_in_order`.

    Parameters
    ----------
    lines : rows or windows of `analysis.load`.

    Returns
    -------
    DataFrame : per label: `kind`, `role`, `s`, `sigma`, numbers of `rows`, `samples`, `heads`, `seeds` and `runs`.
    """
    if "rows" in lines:
        lines = lines.drop_duplicates(["label", "design", "seed", *(name for name in PLACE if name in lines)])
    groups = lines.groupby("label", observed=True, sort=False)
    table = groups[["kind", "role", "s", "sigma"]].first().astype({"kind": str, "role": str})
    table["rows"] = groups["rows"].sum() if "rows" in lines else groups.size()
    table["samples"] = groups["cluster"].nunique()
    heads = lines[["label", "layer", "head"]].drop_duplicates()
    table["heads"] = heads.groupby("label", observed=True).size()
    table["seeds"], table["runs"] = groups["seed"].nunique(), groups["run"].nunique()
    table.index = table.index.astype(str)
    return table.loc[labels_in_order(lines)].rename_axis("label").reset_index()


def columns_of(config: DictConfig, table: str) -> list[str]:
    """Return the columns of `rows` or `windows` that a study's frame has, empty if it does not use the table.

    They name a line and its run, whose value in the table the study's yaml names in `uses`, or as one of `measures`.
    """
    if table not in config.uses:
        return []
    declared = TABLES[table].columns
    wanted = [*config.uses[table], *(name for name in config.get("measures", ()) if name in declared)]
    keys = [column.name for column in TABLES[table].keys]
    return list(dict.fromkeys([*keys, *wanted, *CONFIGURATION]))


def _frame(lines: Lines, allowed: Mapping[str, Sequence[object]], config: DictConfig, table: str) -> pd.DataFrame:
    """Make the frame of the lines allowed, of one design per label.

    The design is chosen for each variant by itself where a column says what it is to have most of.
    """
    mask = lines.where(allowed)
    for name, usual in config.get("beside", {}).items():
        mask = lines.beside(mask, name, usual)
    frame = lines.frame(columns_of(config, table), mask)
    for name, needed in config.get("having", {}).items():
        frame = frame[frame["design"].isin(frame.loc[frame[name] == needed, "design"].unique())]
    if "up_to" in config:
        lengths = frame[["design", "length"]].drop_duplicates()
        longest = lengths.groupby("design", observed=True)["length"].transform("max")
        fitted = lengths[lengths["length"] <= config.up_to * longest]["design"].value_counts()
        frame = frame[frame["design"].isin(fitted[fitted >= settings.fits(settings.analysis()).min_lengths].index)]
    if "prefers" not in config:
        return fullest_design(frame)
    parts = [fullest_design(part, config.prefers) for _, part in frame.groupby("variant", observed=True, sort=False)]
    return pd.concat(parts) if len(parts) > 1 else next(iter(parts), frame)


def _only(table: pd.DataFrame, records: Mapping[str, Sequence[object]]) -> pd.DataFrame:
    for column, allowed in records.items():
        if column in table:
            values = table[column]
            table = table[values.isin(list(allowed)) | (values.isna() & (None in allowed))]
    return table
