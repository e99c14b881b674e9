"""Draws one figure if it is stale, and says what became of it."""

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import matplotlib as mpl
import matplotlib.style
import pandas as pd
from omegaconf import DictConfig

from analysis import figures, save, settings, stamp
from analysis.gather import gather
from analysis.load import Run
from analysis.stamp import PACKAGE, Stamp
from analysis.tables import Fits
from experiments.errors import UserError


@dataclass(frozen=True)
class Outcome:
    """What became of a figure: `drawn`, `fresh`, `skipped` for want of records, or `failed`.

    One that was not asked for is `not asked for` too, `stale` if it is of other records, settings or code than the
    present ones, or `damaged` if its files are not those that were written.
    """

    name: str
    status: str
    reason: str
    config: DictConfig
    stamp: Stamp | None


def draw(
    name: str,
    rows: pd.DataFrame,
    windows: pd.DataFrame,
    fits: Fits,
    runs: Sequence[Run],
    outputs: Path,
    force: bool,
) -> Outcome:
    """Draw a figure and its table below `outputs`, unless its stamp says that both are fresh.

    A figure whose records are gone loses its files too, lest a report show what no record supports; so does one that
    fails unexpectedly, and its traceback goes to `figures/NAME.log`.
    """
    config = settings.figure(name)
    evidence, made = _evidence(name, config, rows, windows, fits, runs)
    module = import_module(f"analysis.figures.{name}")
    path, results = outputs / "figures" / f"{name}.json", files(config, name, outputs)
    log = outputs / "figures" / f"{name}.log"
    found = stamp.read(path)
    if not force and found and made.matches(found) and found.whole(results):
        return Outcome(name, "fresh", "", config, made)
    try:
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.style.use(PACKAGE / "paper.mplstyle")
            drawing = module.draw(evidence, config)
            _remove(path, log)
            save.write_figure(drawing.figure, outputs / "figures", name)
    except figures.NothingToDraw as nothing:
        _remove(path, *results)
        return Outcome(name, "skipped", str(nothing), config, None)
    except (UserError, OSError):  # neither is the figure's own, and both have a remedy that is told elsewhere
        raise
    except Exception as error:  # records can be of a kind that nobody thought of; the other figures are not to suffer
        _remove(path, *results)
        save.write_text(log, traceback.format_exc())
        return Outcome(name, "failed", f"{type(error).__name__}: {error} (details in {log})", config, None)
    for table, called in ((drawing.table, name), (drawing.summary, f"{name}_summary")):
        if table is not None:
            save.write_csv(table, outputs / "tables", called)
            save.write_tex(table, outputs / "tables", called)
    made.write(path, results)
    return Outcome(name, "drawn", "", config, made)


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _evidence(
    name: str, config: DictConfig, rows: pd.DataFrame, windows: pd.DataFrame, fits: Fits, runs: Sequence[Run]
) -> tuple[figures.Evidence, Stamp]:
    evidence, used = gather(config, rows, windows, fits, runs)
    command, script = f"python -m analysis --only {name} --force", PACKAGE / "figures" / f"{name}.py"
    return evidence, stamp.make(command, [settings.analysis(), config], [script], used)


def left_alone(
    name: str, rows: pd.DataFrame, windows: pd.DataFrame, fits: Fits, runs: Sequence[Run], outputs: Path
) -> Outcome:
    """Report a figure that was not asked for as it lies on disk, if it does, and whether it is of these records."""
    config = settings.figure(name)
    results, found = files(config, name, outputs), stamp.read(outputs / "figures" / f"{name}.json")
    if not found or not all(path.exists() for path in results):
        return Outcome(name, "not asked for", "never drawn", config, None)
    again = f"python -m analysis --only {name}"
    if not found.whole(results):
        return Outcome(name, "damaged", f"its files are not those that were written: {again}", config, None)
    if not _evidence(name, config, rows, windows, fits, runs)[1].matches(found):
        return Outcome(name, "stale", f"of other records, settings or code than now: {again}", config, found)
    return Outcome(name, "not asked for", "shown as last drawn", config, found)


def current_tables(outcomes: Sequence[Outcome]) -> set[str]:
    """Name the tables of the figures that are of these records, settings and code."""
    current = [outcome for outcome in outcomes if outcome.stamp and outcome.status != "stale"]
    return {table for outcome in current for table in tables_of(outcome.config, outcome.name)}


def tables_of(config: DictConfig, name: str) -> list[str]:
    """Name the tables of a figure."""
    return [name, f"{name}_summary"] if config.get("summary") else [name]


def files(config: DictConfig, name: str, outputs: Path) -> list[Path]:
    """List the files of a figure, without its stamp."""
    return [
        *(outputs / "figures" / f"{name}.{suffix}" for suffix in save.FORMATS),
        *(outputs / "tables" / f"{table}.{suffix}" for table in tables_of(config, name) for suffix in ("csv", "tex")),
    ]
