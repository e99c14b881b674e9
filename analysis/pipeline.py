"""Makes the tables of one study, or draws one figure, if it is stale, and returns the outcome."""

import re
import shlex
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from matplotlib.figure import Figure
from omegaconf import DictConfig

from analysis import save, settings, stamp
from analysis.figures import STYLE, NothingToDraw, drawn
from analysis.outcome import Outcome
from analysis.publishing import latex
from analysis.records.evidence import Records, gather
from analysis.stamp import Stamp
from analysis.studies import NothingMeasured, provenance
from experiments.errors import UserError


def run_study(name: str, records: Records, outputs: Path, force: bool) -> Outcome:
    """Make the tables of a study below `outputs`, unless its stamp says that they are fresh.

    A study whose records are gone loses its tables too, lest a report show what no record supports; so does one that
    fails unexpectedly, and its traceback goes to `tables/NAME.log`.
    """
    config = settings.study(name)
    path, results = provenance.stamp_path(name, outputs), provenance.files(config, outputs)
    made, before = provenance.stamp_of(name, config, records), stamp.read(path)
    if not force and before and made.matches(before) and before.whole(results):
        return Outcome(name, "fresh", "", config, made)
    folder = outputs / "tables"
    lost = [path, *results, *(result.with_suffix(".tex") for result in results)]

    def make() -> None:
        module = import_module(f"analysis.studies.{name}")
        tables = module.study(gather(config, records), config, settings.fits(settings.analysis()))
        assert list(tables) == list(config.tables), f"{name} makes other tables than its yaml names"
        _remove([path])
        for table, lines in tables.items():
            save.write_csv(lines, folder, table)
            latex.write(latex.table(lines, latex.caption_of(table), table), folder / f"{table}.tex")
        made.write(path, results)

    outcome = _attempt(Outcome(name, "made", "", config, made), make, NothingMeasured, lost, folder / f"{name}.log")
    return replace(outcome, reason=of_model(outcome.reason, records))


def of_model(reason: str, records: Records) -> str:
    """Return a reason whose command measures the model that the records are of: a preset measures SmolLM2 by itself."""
    sources = [run.config["source"] for run in records.runs if run.kind == "real"]
    if not sources or any(source["name"] == "smollm2" for source in sources):
        return reason
    source = sources[-1]
    words = [f"source={source['name']}"]
    if source["name"] == "checkpoint":
        words += [f"source.{name}={source[name]}" for name in ("model", "text") if source.get(name)]
    return re.sub(r"experiment=\w+", lambda command: f"{command[0]} {shlex.join(words)}", reason, count=1)


def check_study(name: str, records: Records, outputs: Path) -> Outcome:
    """Report a study that was not requested: whether its tables on disk are of these records."""
    config = settings.study(name)
    made, before = provenance.stamp_of(name, config, records), stamp.read(provenance.stamp_path(name, outputs))
    return _as_it_lies(name, config, made, before, provenance.files(config, outputs))


def draw_figure(name: str, outputs: Path, studies: Mapping[str, Outcome], force: bool) -> Outcome:
    """Draw a figure of the tables below `outputs`, unless its stamp says that it is fresh.

    A figure whose tables are gone loses its files too; so does one that fails unexpectedly, and its traceback goes to
    `figures/NAME.log`.
    """
    config, folder = settings.figure(name), outputs / "figures"
    path, results = folder / f"{name}.json", figure_files(name, outputs)
    sources = [studies[study] for study in provenance.owners(config.reads)]
    if gone := next((source for source in sources if not source.current), None):
        _remove([path, *results])
        return Outcome(name, "skipped", gone.reason or f"its study {gone.name} is {gone.status}", config, None)
    made, before = _figure_stamp(name, config, outputs), stamp.read(path)
    if not force and before and made.matches(before) and before.whole(results):
        return Outcome(name, "fresh", "", config, made)

    def make() -> None:
        def write(figure: Figure) -> None:
            _remove([path])
            save.write_figure(figure, folder, name)

        drawn(name, config, lambda table: save.read_csv(outputs / "tables", table), write)
        made.write(path, results)

    log = folder / f"{name}.log"
    return _attempt(Outcome(name, "drawn", "", config, made), make, NothingToDraw, [path, *results], log)


def check_figure(name: str, outputs: Path, studies: Mapping[str, Outcome]) -> Outcome:
    """Report a figure that was not requested as it lies on disk, if it does, and whether it is of these records."""
    config = settings.figure(name)
    before = stamp.read(outputs / "figures" / f"{name}.json")
    current = all(studies[study].current for study in provenance.owners(config.reads))
    made = _figure_stamp(name, config, outputs) if current else None
    return _as_it_lies(name, config, made, before, figure_files(name, outputs))


def figure_files(name: str, outputs: Path) -> list[Path]:
    """List the files of a figure, without its stamp."""
    return [outputs / "figures" / f"{name}.{suffix}" for suffix in save.FORMATS]


def _figure_stamp(name: str, config: DictConfig, outputs: Path) -> Stamp:
    tables = {table: stamp.sha256(outputs / "tables" / f"{table}.csv") for table in config.reads}
    command = f"python -m analysis --only {name} --force"
    return stamp.make(command, config, f"analysis.figures.{name}", tables, files=[STYLE])


def _attempt(
    wanted: Outcome, make: Callable[[], None], nothing: type[Exception], lost: Iterable[Path], log: Path
) -> Outcome:
    """Make a result; where there is nothing to make it of, or it fails, its old files go."""
    _remove([log])
    try:
        make()
    except nothing as reason:
        _remove(lost)
        return replace(wanted, status="skipped", reason=str(reason), stamp=None)
    except (UserError, OSError):  # neither is the result's own, and both have a remedy that is named elsewhere
        raise
    except Exception as error:  # records can be of a kind that nobody thought of; the other results are not to suffer
        _remove(lost)
        save.write_text(log, traceback.format_exc())
        words = f"{type(error).__name__}: {error} (details in {log})"
        return replace(wanted, status="failed", reason=words, stamp=None)
    return wanted


def _as_it_lies(
    name: str, config: DictConfig, made: Stamp | None, before: Stamp | None, results: list[Path]
) -> Outcome:
    again = "python -m analysis"
    if not before or not all(path.exists() for path in results):
        return Outcome(name, "not requested", "never made", config, None)
    if not before.whole(results):
        return Outcome(name, "damaged", f"its files are not those that were written: {again}", config, None)
    if made is None or not made.matches(before):
        return Outcome(name, "stale", f"of other records, settings or code than now: {again}", config, before)
    return Outcome(name, "not requested", "as last made", config, before)


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
