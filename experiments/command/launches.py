"""The launches of one command: where their jobs write how they end, what is shown meanwhile, and what is said of them.

Hydra launches a single job or a sweep, and calls a callback that it makes itself from the configuration.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console

from experiments import summary
from experiments.command import compose_once, sweep
from experiments.command.interrupts import BY_CTRL_C
from experiments.command.progress import OUTCOME, Watch
from experiments.command.terminal import terminal
from experiments.command.workers import bind_joblib
from experiments.durable import read_json
from experiments.plan import START_SECONDS
from experiments.records.folder import lives


@dataclass
class Launch:
    """One call of Hydra: where its jobs write their outcomes, how many there are, and the overrides that some lack.

    Outcomes that lay there before are those of earlier launches into the same folder.
    """

    folder: Path
    pattern: str
    jobs: Callable[[], int]
    swept: Callable[[], set[str]] = set
    earlier: dict[Path, tuple[int, int]] = field(init=False)

    def __post_init__(self) -> None:
        self.earlier = {path: _version(path) for path in self._there()}

    def outcomes(self) -> list[Path]:
        """Return the outcomes that this launch's jobs have written, in the order of the jobs."""
        paths = [path for path in self._there() if self.earlier.get(path) != _version(path)]
        return sorted(paths, key=_job_number)

    def _there(self) -> list[Path]:
        with contextlib.suppress(OSError):  # of a name that is too long, say, which the first job to write will tell
            return list(self.folder.glob(self.pattern))
        return []


def _version(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_ino, state.st_mtime_ns  # an outcome is replaced, never changed


@dataclass
class Launches:
    """All launches of a command, in the process that runs it and has the terminal.

    `console` is the only one to print there while lines are live; `unwritten` is why an outcome could not be written.
    """

    driver: int = field(default_factory=os.getpid)
    console: Console = field(default_factory=terminal)
    unwritten: OSError | None = None
    _launches: list[Launch] = field(default_factory=list)
    _watches: list[Watch] = field(default_factory=list)

    def add(self, launch: Launch) -> None:
        """Show how far a launch is, and report it at the end."""
        self._launches.append(launch)
        self._watches.append(Watch(launch.outcomes, launch.jobs, self.console, launch.swept))
        self._watches[-1].start()

    def swept(self) -> set[str]:
        """Return the overrides that only some jobs of a launch have."""
        return {override for launch in self._launches for override in launch.swept()}

    def stop_watching(self) -> None:
        """Leave the terminal as it was."""
        while self._watches:
            self._watches.pop().stop()

    def has_empty(self) -> bool:
        """Say whether a launch has no jobs."""
        return any(not launch.jobs() for launch in self._launches)

    def report(self, errors: Console, stopped: bool, raised: bool) -> bool:
        """Say what the jobs found, or would cost, and which of them failed or never began; return whether any did.

        The launcher has ended, so a job that has not said how it ended was killed, even if its process is still going
        down; but after Ctrl-C (`stopped`) a cluster may run it still. What the launcher `raised` was printed already.
        """
        paths = [path for launch in self._launches for path in launch.outcomes()]
        outcomes = [read_json(path) | {"folder": str(path.parent)} for path in paths]
        _say_plans(outcomes)
        _say_done(outcomes)
        bad = ("failed",) if self.unwritten else ("started", "failed")
        failed = [outcome for outcome in outcomes if outcome.get("status", "started") in bad]
        for outcome in failed:
            if stopped and outcome.get("error") == BY_CTRL_C:
                continue  # said already
            runs = stopped and _runs(outcome)
            ended = "is still running" if runs else "ended without a word: killed, or out of memory"
            errors.print(f"error: {outcome.get('error') or 'the job in ' + outcome['folder'] + ' ' + ended}")
        jobs = max(sum(launch.jobs() for launch in self._launches), len(outcomes))
        never_began = jobs - len(outcomes)
        folders = [launch.folder for launch in self._launches]
        if any(Path(outcome["folder"]) not in folders for outcome in failed):  # a sweep's jobs lie one level deeper
            others = f", {never_began} never began" if never_began else ""
            errors.print(
                f"{len(failed)} of {jobs} jobs failed (each in its folder){others}; the same command repeats just "
                "them, or one by one:"
            )
            for outcome in failed:
                errors.print(f"  {outcome.get('command', 'python run.py ...')}  # {outcome['folder']}")
        elif never_began and not stopped and not raised:
            errors.print(f"error: {never_began} of {jobs} jobs never began; repeat the same command")
        return bool(failed or never_began)


class WatchLaunch(Callback):
    """Tell `launches` of each launch; Hydra makes one of these from the configuration.

    `launches` are those of the command that this process runs; None in a process that works for another.
    """

    launches: ClassVar[Launches | None] = None

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Watch a single job."""
        self._watch(Launch(Path(config.hydra.run.dir), OUTCOME, lambda: 1))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Watch a sweep; Hydra composes all its jobs before it launches the first, so they are counted there."""
        composed = compose_once.install(keep=config.hydra.launcher._target_.endswith(".BasicLauncher"))
        if "joblib" in config.hydra.launcher._target_:
            bind_joblib()
        sweep.write(Path(config.hydra.sweep.dir), config.hydra.overrides.task, _jobs_of(config))
        self._watch(
            Launch(Path(config.hydra.sweep.dir), f"**/{OUTCOME}", lambda: composed.jobs, lambda: composed.swept)
        )

    def _watch(self, launch: Launch) -> None:
        if self.launches is not None:
            self.launches.add(launch)


def _jobs_of(config: DictConfig) -> int:
    """Return how many jobs a sweep has, by Hydra's own sweeper; 0 if another sweeper decides, or Hydra refuses it."""
    if not config.hydra.sweeper._target_.endswith(".BasicSweeper"):
        return 0
    words = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    with contextlib.suppress(HydraException):
        overrides = OverridesParser.create().parse_overrides([*words, *config.hydra.overrides.task])
        return len(BasicSweeper.split_arguments(overrides, None)[0])
    return 0


def _job_number(path: Path) -> tuple[int, str]:
    name = path.parent.name
    return (int(name) if name.isdigit() else 0, str(path))


def _say_plans(outcomes: list[dict[str, Any]]) -> None:
    """Say what several planned jobs would cost together."""
    planned = {outcome["run_id"]: outcome for outcome in outcomes if outcome.get("status") == "planned"}
    if len(planned) > 1:
        seconds, disk = (sum(plan[key] for plan in planned.values()) for key in ("seconds", "disk_bytes"))
        seconds += START_SECONDS if seconds else 0.0
        memory = max(plan["memory_bytes"] for plan in planned.values())
        terminal().print(
            f"{len(planned)} jobs: about {seconds:.0f} s one after the other, memory {memory / 1e9:.1f} GB, "
            f"disk {disk / 1e6:.1f} MB"
        )


def _say_done(outcomes: list[dict[str, Any]]) -> None:
    """Say what several finished jobs have measured."""
    done = [outcome for outcome in outcomes if outcome.get("status") in ("measured", "found")]
    if len(done) > 1:
        console = terminal()
        if facts := [outcome["findings"] for outcome in done if outcome.get("findings")]:
            console.print(summary.sweep_table(facts))
        measured = sum(outcome["status"] == "measured" for outcome in done)
        console.print(f"{measured} jobs measured, {len(done) - measured} found measured; now: python -m analysis")


def _runs(outcome: dict[str, Any]) -> bool:
    """Say whether a job that has not ended still runs, as far as this machine can know."""
    pid = outcome.get("pid")
    here = outcome.get("node") == platform.node()
    return outcome.get("status") == "started" and here and pid != os.getpid() and lives(int(pid or 0))
