"""What became of earlier launches: read back from the folders of their jobs, below outputs/jobs."""

from __future__ import annotations

import platform
import shlex
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from experiments.command import sweep
from experiments.command.progress import OUTCOME
from experiments.durable import read_json
from experiments.records.folder import lives

MULTIRUN = "multirun.yaml"  # Hydra's, of every sweep
KILLED = "ended without a word: killed, or out of memory"
# What a job's outcome says, and what a launch calls it; a job that began and says nothing more runs or was killed.
STATES = {"measured": "measured", "found": "found", "planned": "planned", "failed": "failed"}


@dataclass(frozen=True)
class Failure:
    """A job that failed: why, with its remedy, and the command that repeats it alone."""

    folder: Path
    command: str
    error: str


@dataclass(frozen=True)
class PastLaunch:
    """One call of run.py: a job or a sweep.

    Attributes
    ----------
    words
        The overrides of its command; of a sweep that did not note them, those that its jobs have in common.
    began
        In seconds since the epoch; None if nothing says it.
    seconds
        From its begin to the end of its last job, or to now while it runs; what its jobs took where none noted its end.
    runs
        Whether a job of it runs, or jobs wait and the process that launched it runs on this machine.
    jobs
        How many jobs it has, those that have not begun included.
    measured, found, planned, running
        Jobs by how they ended: measured anew, found measured, planned only (`plan=true`), not ended.
    failures
        Jobs that failed or were killed, in their order.
    """

    folder: Path
    words: list[str]
    began: float | None
    seconds: float
    runs: bool
    jobs: int
    measured: int
    found: int
    planned: int
    running: int
    failures: list[Failure]

    @property
    def not_begun(self) -> int:
        """Jobs that wait while the launch runs, and never began if it has ended."""
        return self.jobs - self.measured - self.found - self.planned - self.running - len(self.failures)

    @property
    def command(self) -> str:
        """The command that repeats it."""
        return shlex.join(["python", "run.py", *self.words])


def launches(jobs: Path) -> list[PastLaunch]:
    """Return the launches below a folder of jobs, the newest first."""
    outcomes: dict[Path, list[Path]] = {}
    for path in jobs.rglob(sweep.SWEEP):
        outcomes.setdefault(path.parent, [])
    for path in jobs.rglob(OUTCOME):
        outcomes.setdefault(_launch_of(path.parent, jobs), []).append(path)
    read = [_read(folder, paths) for folder, paths in outcomes.items()]
    return sorted(read, key=lambda launch: (launch.began or 0.0, str(launch.folder)), reverse=True)


def _launch_of(job: Path, jobs: Path) -> Path:
    """Return the folder of the sweep that a job is of, or its own."""
    for folder in job.parents:
        if folder == jobs:
            break
        if (folder / sweep.SWEEP).exists() or (folder / MULTIRUN).exists():
            return folder
    return job


def _read(folder: Path, paths: list[Path]) -> PastLaunch:
    about = read_json(folder / sweep.SWEEP)
    paths = sorted(paths, key=lambda path: (len(path.parent.name), str(path)))  # 2 before 10
    outcomes = [(path, read_json(path)) for path in paths]
    states = [_state(outcome) for _, outcome in outcomes]
    words = [shlex.split(str(outcome.get("command", "")))[2:] for _, outcome in outcomes]
    if about.get("words") is not None:
        asked = list(about["words"])
    else:
        asked = [word for word in (words[0] if words else []) if all(word in others for others in words)]
    began = about.get("began") or (outcomes[0][1].get("began") if len(outcomes) == 1 else None) or _named(folder)
    jobs = max(int(about.get("jobs") or 0), len(paths))
    runs = "running" in states or (jobs > len(paths) and _lives(about))
    ended = [outcome["ended"] for _, outcome in outcomes if outcome.get("ended")]
    if began is not None and (runs or ended):
        seconds = (time.time() if runs else max(ended)) - began
    else:
        seconds = sum(float(outcome.get("seconds") or 0.0) for _, outcome in outcomes)
    return PastLaunch(
        folder=folder,
        words=asked,
        began=began,
        seconds=round(seconds, 3),
        runs=runs,
        jobs=jobs,
        measured=states.count("measured"),
        found=states.count("found"),
        planned=states.count("planned"),
        running=states.count("running"),
        failures=_failures(outcomes, states),
    )


def _failures(outcomes: Iterable[tuple[Path, dict[str, Any]]], states: list[str]) -> list[Failure]:
    failures = []
    for (path, outcome), state in zip(outcomes, states, strict=True):
        if state in ("failed", "killed"):
            error = str(outcome.get("error") or KILLED)
            failures.append(Failure(path.parent, str(outcome.get("command", "")), error))
    return failures


def _state(outcome: dict[str, Any]) -> str:
    status = str(outcome.get("status", ""))
    if status in STATES:
        return STATES[status]
    elsewhere = bool(outcome.get("node")) and outcome["node"] != platform.node()  # nothing is known of it here
    return "running" if elsewhere or _lives(outcome) else "killed"


def _lives(process: dict[str, Any]) -> bool:
    """Say whether a process that noted its `pid` and `node` runs on this machine."""
    return process.get("node") == platform.node() and lives(int(process.get("pid") or 0))


def _named(folder: Path) -> float | None:
    """Return the time by which Hydra named a folder."""
    try:
        return datetime.strptime(f"{folder.parent.name}/{folder.name}", "%Y-%m-%d/%H-%M-%S-%f").timestamp()
    except ValueError:
        return None
