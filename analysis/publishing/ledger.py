"""Reads tables for whatever publishes them: only those of the present records, settings and code, whole."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from analysis import save, settings, stamp
from analysis.records.evidence import Records
from analysis.records.load import complete_runs
from analysis.stamp import Stamp
from analysis.studies import provenance
from experiments.errors import UserError

VERDICTS = "claims"


def write(folder: Path, current: Mapping[str, str]) -> None:
    """Stamp the verdict table of a folder of tables, made of the current tables: their hashes by name."""
    _stamp(current).write(folder / f"{VERDICTS}.json", [folder / f"{VERDICTS}.csv"])


def current_tables(outputs: Path, records: Records) -> dict[str, str]:
    """Return the tables of all studies that are of these records, settings and code, whole: their hashes by name."""
    current: dict[str, str] = {}
    for name in settings.studies():
        config = settings.study(name)
        made = stamp.read(provenance.stamp_path(name, outputs))
        paths = provenance.files(config, outputs)
        if made and made.whole(paths) and made.matches(provenance.stamp_of(name, config, records)):
            current |= {path.stem: made.results[path.name] for path in paths}
    return current


def reader(outputs: Path) -> Callable[[str], pd.DataFrame]:
    """Return what reads a table by name, from the last analysis of an outputs directory.

    Raises
    ------
    UserError : if no analysis has finished there, or there are no complete runs; when a table is read, if it is not of
        the present records, settings and code, or not the one that was written.
    """
    folder, again = outputs / "tables", f"run python -m analysis --outputs {outputs} first"
    if stamp.read(provenance.stamp_path(VERDICTS, outputs)) is None:
        raise UserError(f"no tables in {folder} that an analysis has finished: {again}")
    records = Records(complete_runs(outputs))
    current = current_tables(outputs, records)

    def read(name: str) -> pd.DataFrame:
        path = folder / f"{name}.csv"
        study = name if name == VERDICTS else next(iter(provenance.owners([name])))
        made = stamp.read(provenance.stamp_path(study, outputs))
        if made is None:
            raise UserError(f"{path}: not made, or not of the present records: {again}")
        if not made.whole([path]):
            raise UserError(f"{path}: not the table that was written: {again}")
        fresh = _stamp(current).matches(made) if name == VERDICTS else name in current
        if not fresh:
            raise UserError(f"{path}: of other records, settings or code than now: {again}")
        return save.read_csv(folder, name)

    return read


def _stamp(current: Mapping[str, str]) -> Stamp:
    return stamp.make("python -m analysis", settings.claims(), "analysis.publishing.claims", current)
