"""The state of the runs below outputs/, and what became of launches: `python -m experiments.status`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import shutil
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from experiments.command.interrupts import end_on_ctrl_c

if __name__ == "__main__":
    end_on_ctrl_c()

from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.command.history import PastLaunch, launches
from experiments.command.progress import OUTCOME, PROGRESS, clock
from experiments.command.sweep import deciding
from experiments.command.terminal import terminal
from experiments.durable import read_json
from experiments.known_models import known_as
from experiments.records.folder import PARTIAL, abandoned, inspect
from experiments.records.identity import SCHEMA_VERSION

PAGE = 200  # columns, where no terminal says how wide it is
STATES = ("finished", "running", "failed", "stale")


@dataclass(frozen=True)
class Entry:
    """One line of the list.

    Attributes
    ----------
    state
        `finished`; `running`; `failed`, a job that ended without a record (a plan is none); `stale`, a record that is
        damaged, of a schema that is not read, or was left half written.
    size, seconds
        Bytes, and the time that it took or has taken so far.
    done, groups
        Of a job that runs: how many groups of rows are measured, and of how many; None before the first.
    """

    state: str
    folder: Path
    label: str
    size: int
    seconds: float | None
    note: str
    done: int | None = None
    groups: int | None = None


def entries(outputs: Path) -> list[Entry]:
    """Return every run and every failed job below `outputs`, finished ones first, then by label."""
    runs = outputs / "runs"
    result = _runs([folder for folder in sorted(runs.glob("[!.]*")) if folder.is_dir()])
    finished = {entry.folder.name for entry in result if entry.state == "finished"}
    left, started = abandoned(runs), _started(outputs / "jobs")
    for folder in sorted(runs.glob(f"{PARTIAL}*")):
        if folder in left:
            note = "left half written by a job that was killed"
            result.append(Entry("stale", folder, "", _size(folder), None, note))
        else:
            result.append(_running(folder, started))
    result += failed_jobs(outputs / "jobs", finished)
    return sorted(result, key=lambda entry: (STATES.index(entry.state), entry.label, str(entry.folder)))


def _started(jobs: Path) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Return the jobs that have not ended, the last one of each run id, by that."""
    started = {}
    for path in sorted(jobs.rglob(PROGRESS)):
        outcome = read_json(path.with_name(OUTCOME))
        if outcome.get("status") == "started":
            started[str(read_json(path).get("run_id"))] = (path.parent, outcome)
    return started


def _running(partial: Path, started: dict[str, tuple[Path, dict[str, Any]]]) -> Entry:
    """Return the entry of a record that is being written: how far its job is."""
    run_id = partial.name.removeprefix(PARTIAL).partition("-")[0]
    if run_id not in started:
        return Entry("running", partial, "", _size(partial), None, "")
    job, outcome = started[run_id]
    progress = read_json(job / PROGRESS)
    done, groups = (int(progress.get(name, 0)) for name in ("done", "groups"))
    seconds = max(time.time() - (job / OUTCOME).stat().st_mtime, 0.0)  # written as the job began
    left = f", about {clock(seconds * (groups - done) / done)} left" if done else ""
    note = f"{done}/{groups} groups{left}: {outcome.get('command', '')}"
    return Entry("running", partial, str(progress.get("label", "")), _size(partial), seconds, note, done, groups)


def _runs(folders: list[Path]) -> list[Entry]:
    """Return the entries of records; those of one label and experiment say by which overrides they differ."""
    read = [(folder, *inspect(folder)) for folder in folders]
    alike: dict[tuple[str, str], list[set[str]]] = {}
    for _, manifest, _ in read:
        if manifest is not None:
            alike.setdefault(_kind(manifest), []).append(set(_words(manifest)))
    entries = []
    for folder, manifest, problem in read:
        if manifest is None:
            entries.append(Entry("stale", folder, "", _size(folder), None, problem))
        else:
            every = set.intersection(*alike[_kind(manifest)])
            entries.append(_finished(folder, manifest, [word for word in _words(manifest) if word not in every]))
    return entries


def _kind(manifest: dict[str, Any]) -> tuple[str, str]:
    return str(manifest.get("label", "")), str(manifest.get("experiment") or "")


def _words(manifest: dict[str, Any]) -> list[str]:
    """Return the overrides of the command that made a record, without those that say where or how."""
    try:
        return deciding(shlex.split(str(manifest.get("command", "")))[2:])
    except ValueError:  # no command line: a quotation is not closed
        return []


def _finished(folder: Path, manifest: dict[str, Any], apart: list[str]) -> Entry:
    note = " ".join([str(manifest.get("experiment") or ""), *apart]).strip()
    if (schema := manifest["schema"]) != SCHEMA_VERSION:
        note = f"{note} (schema {schema}: the analysis reads it, run.py measures it anew)".strip()
    seconds = manifest.get("seconds")
    label = known_as(str(manifest.get("label", "")))
    return Entry("finished", folder, label, _size(folder), float(seconds) if seconds is not None else None, note)


def failed_jobs(jobs: Path, finished: set[str]) -> list[Entry]:
    """Return the last outcome of each command that failed, unless a later launch has finished it."""
    last: dict[str, tuple[Path, dict[str, Any]]] = {}
    for path in sorted(jobs.rglob(OUTCOME)):  # folders are named by their time
        outcome = read_json(path)
        last[str(outcome.get("command", path))] = (path.parent, outcome)
    failed = []
    for command, (folder, outcome) in last.items():
        mended = outcome.get("run_id") in finished
        if outcome.get("status") in ("failed", None) and not mended and not _is_plan(outcome):
            failed.append(Entry("failed", folder, command, _size(folder), None, str(outcome.get("error", ""))))
    return failed


def _is_plan(outcome: dict[str, Any]) -> bool:
    """Say whether a job would only have said what it would cost; before it was noted, its command says so."""
    return bool(outcome.get("plan") or "plan=true" in str(outcome.get("command")).lower().split())


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _table(listed: list[Entry]) -> Table:
    table = Table("state", "run", "what", "MB", "s", "note")
    for entry in listed:
        seconds = "" if entry.seconds is None else f"{entry.seconds:.0f}"
        cells = (entry.state, entry.folder.name, entry.label, f"{entry.size / 1e6:.1f}", seconds, entry.note)
        table.add_row(*map(Text, cells))
    return table


def _has(entry: Entry, text: str | None) -> bool:
    """Say whether a line of the list has a text in it, in whatever case."""
    line = f"{entry.folder.name} {entry.label} {entry.note}".lower()
    return text is None or text.lower() in line


def _began(launch: PastLaunch) -> str:
    return "" if launch.began is None else f"{datetime.fromtimestamp(launch.began):%Y-%m-%d %H:%M:%S}"


def _launches_table(listed: list[PastLaunch]) -> Table:
    table = Table("began", "s", "jobs", "measured", "there already", "failed", "not ended", "command")
    for launch in listed:
        counts = (launch.jobs, launch.measured, launch.found, len(launch.failures), launch.running + launch.not_begun)
        command = launch.command + (f"  ({launch.planned} planned only)" if launch.planned else "")
        table.add_row(*map(Text, (_began(launch), f"{launch.seconds:.0f}", *map(str, counts), command)))
    return table


def _account(launch: PastLaunch) -> list[str]:
    """Return the lines that say what became of a launch."""
    counts = {
        "measured": launch.measured,
        "measured before": launch.found,
        "planned only": launch.planned,
        "running": launch.running,
        "failed": len(launch.failures),
        "waiting" if launch.runs else "never began": launch.not_begun,
    }
    jobs = ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "none"
    state = f"runs since {clock(launch.seconds)}" if launch.runs else f"ended after {clock(launch.seconds)}"
    lines = [launch.command, f"began {_began(launch) or 'at an unknown time'}, {state}; {launch.folder}"]
    lines.append(f"{launch.jobs} job{'s' * (launch.jobs != 1)}: {jobs}")
    for failure in launch.failures:
        lines += [f"error: {failure.error}", f"  {failure.command}  # {failure.folder}"]
    if launch.failures or (launch.not_begun and not launch.runs):
        lines.append("the same command, repeated, measures only what is missing")
    return lines


def _report_launches(options: argparse.Namespace, console: Console) -> None:
    """Print the newest launch, or all of them."""
    listed = launches(options.outputs / "jobs")
    if options.match:
        listed = [launch for launch in listed if options.match.lower() in launch.command.lower()]
    if options.last:
        listed = listed[:1]
    if options.json:
        fields = [{**dataclasses.asdict(each), "not_begun": each.not_begun} for each in listed]
        console.print(json.dumps(fields, indent=2, default=str))
    elif not listed:
        console.print(_nothing(f"no launch in {options.outputs / 'jobs'}", options.match))
    elif options.last:
        for line in _account(listed[0]):
            console.print(line)
    else:
        console.print(_launches_table(listed))


def _nothing(what: str, match: str | None) -> str:
    return what + (f" has {match!r} in it" if match else "")


def main(arguments: list[str] | None = None) -> int:
    """List the runs, or launches; remove failed or stale runs on request."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.status",
        description="List the runs below outputs/: finished, running, failed (no record) and stale (damaged, of a "
        "schema that is not read, or left by a killed job), with size and seconds.",
    )
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="where results lie (default: outputs)")
    parser.add_argument("--only", choices=STATES, nargs="+", default=STATES, help="list only these states")
    parser.add_argument("--match", metavar="TEXT", help="list only what has this in its run, label, command or note")
    parser.add_argument("--json", action="store_true", help="print as JSON what is listed: bytes, seconds, counts")
    of_launches = parser.add_mutually_exclusive_group()
    of_launches.add_argument("--last", action="store_true", help="what became of the newest launch (job or sweep)")
    of_launches.add_argument("--launches", action="store_true", help="list all launches, the newest first")
    parser.add_argument(
        "--remove", choices=("failed", "stale"), help="delete these: records of stale runs, job folders of failed jobs"
    )
    options = parser.parse_args(arguments)
    console = terminal(width=None if sys.stdout.isatty() else PAGE)
    if not options.outputs.is_dir():
        print(f"error: --outputs {options.outputs}: there is no such directory", file=sys.stderr)
        return 1
    if options.last or options.launches:
        if options.remove or options.only != STATES:
            print("error: --only and --remove are for runs, not for --last and --launches", file=sys.stderr)
            return 1
        _report_launches(options, console)
        return 0
    listed = entries(options.outputs)
    if options.remove:
        removed = [entry for entry in listed if entry.state == options.remove]
        for entry in removed:
            shutil.rmtree(entry.folder, ignore_errors=True)
        console.print(f"{len(removed)} {options.remove} removed, {sum(entry.size for entry in removed) / 1e6:.1f} MB")
        listed = [entry for entry in listed if entry not in removed]
    shown = [entry for entry in listed if entry.state in options.only and _has(entry, options.match)]
    if options.json:
        console.print(json.dumps([dataclasses.asdict(entry) for entry in shown], indent=2, default=str))
        return 0
    if not shown and (options.match or options.only != STATES):
        states = "run" if options.only == STATES else f"{' or '.join(options.only)} run"
        console.print(_nothing(f"no {states} in {options.outputs}", options.match))
        return 0
    console.print(_table(shown))
    counts = {state: sum(entry.state == state for entry in shown) for state in STATES if state in options.only}
    total = sum(entry.size for entry in shown) / 1e6
    console.print(", ".join(f"{count} {state}" for state, count in counts.items()) + f"; {total:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
