"""Which tables on disk are of the present records: written by `python -m analysis`, asked by what reads them later."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pandas as pd
from omegaconf import OmegaConf

from analysis import figures, save, settings, stamp
from analysis.load import Run, complete_runs
from experiments.errors import UserError

NAME = "claims.json"


def write(folder: Path, tables: Iterable[str], runs: Sequence[Run]) -> None:
    """Note in a folder of tables that these are of the given runs, of the present settings and code."""
    _stamp(runs).write(folder / NAME, [folder / f"{name}.csv" for name in sorted(tables)])


def reader(outputs: Path) -> Callable[[str], pd.DataFrame]:
    """Return what reads a table by name, from the last analysis of an outputs directory.

    Raises
    ------
    UserError : if that analysis was of other records, settings or code; when a table is read, if it is not the one
        that was written then, or was stale already.
    """
    folder, again = outputs / "tables", f"run python -m analysis --outputs {outputs} first"
    noted = stamp.read(folder / NAME)
    if noted is None:
        raise UserError(f"no tables in {folder} that an analysis has finished: {again}")
    if not _stamp(complete_runs(outputs)).matches(noted):
        raise UserError(f"the tables in {folder} are of other records, settings or code than now: {again}")

    def read(name: str) -> pd.DataFrame:
        path = folder / f"{name}.csv"
        if path.name not in noted.results:
            raise UserError(f"{path}: not made, or not of the present records: {again}")
        if not noted.whole([path]):
            raise UserError(f"{path}: not the table that was written: {again}")
        return save.read_csv(folder, name)

    return read


def _stamp(runs: Sequence[Run]) -> stamp.Stamp:
    names = figures.names()
    configs = {"claims": settings.claims(), "figures": {name: settings.figure(name) for name in names}}
    scripts = [stamp.PACKAGE / "figures" / f"{name}.py" for name in names]
    return stamp.make("python -m analysis", [settings.analysis(), OmegaConf.create(configs)], scripts, runs)
