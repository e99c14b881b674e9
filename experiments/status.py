"""What became of the runs below outputs/: `python -m experiments.status`."""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from experiments.interrupts import end_on_ctrl_c

if __name__ == "__main__":
    end_on_ctrl_c()

from rich.table import Table
from rich.text import Text

from experiments.progress import OUTCOME, read_json
from experiments.records.folder import PARTIAL, abandoned, inspect
from experiments.records.identity import SCHEMA_VERSION
from experiments.terminal import terminal

PAGE = 200  # columns, where no terminal says how wide it is
STATES = ("finished", "running", "failed", "stale")


@dataclass(frozen=True)
class Entry:
    """One line of the list.

    Attributes
    ----------
    state
        `finished`; `running`; `failed`, a job that ended without a record; `stale`, a record that is damaged, of a
        schema that is not read, or was left half written.
    """

    state: str
    folder: Path
    label: str
    size: int
    seconds: float | None
    note: str


def entries(outputs: Path) -> list[Entry]:
    """Return every run and every failed job below `outputs`, finished ones first, then by label."""
    runs = outputs / "runs"
    result = [_run(folder) for folder in sorted(runs.glob("[!.]*")) if folder.is_dir()]
    finished = {entry.folder.name for entry in result if entry.state == "finished"}
    left = abandoned(runs)
    for folder in sorted(runs.glob(f"{PARTIAL}*")):
        state, note = ("stale", "left half written by a job that was killed") if folder in left else ("running", "")
        result.append(Entry(state, folder, "", _size(folder), None, note))
    result += failed_jobs(outputs / "jobs", finished)
    return sorted(result, key=lambda entry: (STATES.index(entry.state), entry.label, str(entry.folder)))


def _run(folder: Path) -> Entry:
    manifest, problem = inspect(folder)
    if manifest is None:
        return Entry("stale", folder, "", _size(folder), None, problem)
    note = str(manifest.get("experiment") or "")
    if (schema := manifest["schema"]) != SCHEMA_VERSION:
        note = f"{note} (schema {schema}: the analysis reads it, run.py measures it anew)".strip()
    seconds = manifest.get("seconds")
    label = str(manifest.get("label", ""))
    return Entry("finished", folder, label, _size(folder), float(seconds) if seconds is not None else None, note)


def failed_jobs(jobs: Path, finished: set[str]) -> list[Entry]:
    """Return the last outcome of each command that failed, unless a later launch has finished it."""
    last: dict[str, tuple[Path, dict[str, object]]] = {}
    for path in sorted(jobs.rglob(OUTCOME)):  # folders are named by their time
        outcome = read_json(path)
        last[str(outcome.get("command", path))] = (path.parent, outcome)
    failed = []
    for command, (folder, outcome) in last.items():
        if outcome.get("status") in ("failed", None) and outcome.get("run_id") not in finished:
            failed.append(Entry("failed", folder, command, _size(folder), None, str(outcome.get("error", ""))))
    return failed


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _table(listed: list[Entry]) -> Table:
    table = Table("state", "run", "what", "MB", "s", "note")
    for entry in listed:
        seconds = "" if entry.seconds is None else f"{entry.seconds:.0f}"
        cells = (entry.state, entry.folder.name, entry.label, f"{entry.size / 1e6:.1f}", seconds, entry.note)
        table.add_row(*map(Text, cells))
    return table


def main(arguments: list[str] | None = None) -> int:
    """List the runs; remove failed or stale ones on request."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.status",
        description="List the runs below outputs/: finished, running, failed (no record) and stale (damaged, of a "
        "schema that is not read, or left by a killed job), with size and seconds.",
    )
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="where results lie (default: outputs)")
    parser.add_argument("--only", choices=STATES, help="list only these")
    parser.add_argument(
        "--remove", choices=("failed", "stale"), help="delete these: records of stale runs, job folders of failed jobs"
    )
    options = parser.parse_args(arguments)
    console = terminal(width=None if sys.stdout.isatty() else PAGE)
    if not options.outputs.is_dir():
        print(f"error: --outputs {options.outputs}: there is no such directory", file=sys.stderr)
        return 1
    listed = entries(options.outputs)
    if options.remove:
        removed = [entry for entry in listed if entry.state == options.remove]
        for entry in removed:
            shutil.rmtree(entry.folder, ignore_errors=True)
        console.print(f"{len(removed)} {options.remove} removed, {sum(entry.size for entry in removed) / 1e6:.1f} MB")
        listed = [entry for entry in listed if entry not in removed]
    shown = [entry for entry in listed if options.only in (None, entry.state)]
    console.print(_table(shown))
    counts = {state: sum(entry.state == state for entry in listed) for state in STATES}
    total = sum(entry.size for entry in listed) / 1e6
    console.print(", ".join(f"{count} {state}" for state, count in counts.items()) + f"; {total:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
