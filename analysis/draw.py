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
    """What became of a figure: `drawn`, `fresh`, `skipped` for want of records, `failed`, or `not asked for`."""

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
    evidence, used = gather(config, rows, windows, fits, runs)
    module = import_module(f"analysis.figures.{name}")
    script = PACKAGE / "figures" / f"{name}.py"
    command = f"python -m analysis --only {name} --force"
    made = stamp.make(command, [settings.analysis(), config], script, used)
    path, results = outputs / "figures" / f"{name}.json", files(config, name, outputs)
    log = outputs / "figures" / f"{name}.log"
    if not force and made.matches(path, results):
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
    made.write(path)
    return Outcome(name, "drawn", "", config, made)


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def left_alone(name: str, outputs: Path) -> Outcome:
    """Report a figure that was not asked for as it lies on disk, if it does."""
    config = settings.figure(name)
    found = stamp.read(outputs / "figures" / f"{name}.json")
    if found and all(path.exists() for path in files(config, name, outputs)):
        return Outcome(name, "not asked for", "shown as last drawn", config, found)
    return Outcome(name, "not asked for", "never drawn", config, None)


def files(config: DictConfig, name: str, outputs: Path) -> list[Path]:
    """List the files of a figure, without its stamp."""
    tables = [name, f"{name}_summary"] if config.get("summary") else [name]
    return [
        *(outputs / "figures" / f"{name}.{suffix}" for suffix in save.FORMATS),
        *(outputs / "tables" / f"{table}.{suffix}" for table in tables for suffix in ("csv", "tex")),
    ]
