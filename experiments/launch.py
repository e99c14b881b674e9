"""From the command line to jobs, and from their outcomes to an exit status that tells the truth.

Jobs never raise into Hydra: launchers differ in what an exception does to the rest of a sweep. A job writes its outcome
into its own folder; once Hydra is done, or has been stopped, the outcomes are read and summed up here.
"""

from __future__ import annotations

import gc
import os
import platform
import re
import shlex
import sys
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from experiments import compose_once, options, summary
from experiments.errors import UserError
from experiments.interrupts import INTERRUPTED, STOPPED
from experiments.job import execute
from experiments.progress import OUTCOME, Watch, interruptible, read_json, write_json
from experiments.records.folder import lives
from experiments.schema import Job, register, to_job
from experiments.terminal import terminal
from experiments.workers import bind_joblib, end_with_parent

CONF = str(options.CONF)
# Lines of Hydra's messages that do not help: its own names for things, and advice that the schema would refuse.
HYDRA_INTERNALS = (
    "reference_type=",
    "object_type=",
    "full_key:",
    "To append to your config use",
    "See https://hydra",
)

PLUGIN = re.compile(r"hydra_plugins\.hydra_(?P<name>joblib|submitit|ray)_launcher")
EXTRAS = {"joblib": "clusters", "submitit": "clusters", "ray": "ray"}
# What is said of memory that could not be had, by torch, its allocators, numpy (whose error is a MemoryError) and C++.
OUT_OF_MEMORY = ("not enough memory", "can't allocate memory", "cannot allocate memory", "bad_alloc", "out of memory")

_driver: int | None = None  # the process that runs `main`; jobs may run in others
_launches: list[Launch] = []
_watches: list[Watch] = []


@dataclass
class Launch:
    """One call of Hydra: where its jobs write their outcomes, and how many jobs there are.

    Outcomes that lay there before are those of earlier launches into the same folder.
    """

    folder: Path
    pattern: str
    jobs: Callable[[], int]
    earlier: dict[Path, tuple[int, int]] = field(init=False)

    def __post_init__(self) -> None:
        self.earlier = {path: _version(path) for path in self.folder.glob(self.pattern)}

    def outcomes(self) -> list[Path]:
        """Return the outcomes that this launch's jobs have written, in the order of the jobs."""
        paths = [path for path in self.folder.glob(self.pattern) if self.earlier.get(path) != _version(path)]
        return sorted(paths, key=_job_number)


def _version(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_ino, state.st_mtime_ns  # an outcome is replaced, never changed


class WatchLaunch(Callback):
    """Remember where this launch's jobs write their outcomes, and show at the terminal how far they are."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Watch a single job."""
        self._watch(Launch(Path(config.hydra.run.dir), OUTCOME, lambda: 1))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Watch a sweep; Hydra composes all its jobs before it launches the first, so they are counted there."""
        composed = compose_once.install(keep=config.hydra.launcher._target_.endswith(".BasicLauncher"))
        if "joblib" in config.hydra.launcher._target_:
            bind_joblib()
        self._watch(Launch(Path(config.hydra.sweep.dir), f"**/{OUTCOME}", lambda: composed.jobs))

    def _watch(self, launch: Launch) -> None:
        _launches.append(launch)
        _watches.append(Watch(launch.outcomes, launch.jobs, terminal()))
        _watches[-1].start()


def main() -> int:
    """Run the command line and return the exit status: 0 only if every job succeeded."""
    global _driver
    _driver = os.getpid()
    register()
    options.register_options()
    # Our launcher presets bear the names that their plugins use for the schema; Hydra announces a change to come.
    warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/\w+' is validated against ConfigStore schema")
    gc.freeze()  # what is imported stays: a third of the time of composing went into looking through it
    # The parser takes -m before or after all overrides, but not between them, where people write it too.
    flags = [argument for argument in sys.argv if argument in ("-m", "--multirun")]
    sys.argv = [argument for argument in sys.argv if argument not in flags] + flags[:1]
    # Hydra prints its own errors over several lines unless it is told to raise them.
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"
    errors = terminal(stderr=True)
    stopped = raised = False
    try:
        with interruptible():
            _hydra_job()
        if any(not launch.jobs() for launch in _launches):
            errors.print("error: the sweep has no jobs: a range or a choice in it is empty, as range(5,0) is")
            return 1
    except Exception as error:  # Hydra refuses some overrides with a bare ValueError
        raised = True
        if wants_traceback:
            raise
        text = one_line(error)
        if plugin := PLUGIN.search(text):
            text = f"this launcher is not installed; pip install '.[{EXTRAS[plugin['name']]}]', or hydra/launcher=local"
        elif isinstance(error, OSError) and not isinstance(error, HydraException):
            text = f"the results cannot be written ({text}); choose another outputs="
        errors.print(f"error: {text}")
        return 1
    except KeyboardInterrupt:
        stopped = True
        errors.print(STOPPED)
        return INTERRUPTED
    finally:
        if not wants_traceback:
            del os.environ["HYDRA_FULL_ERROR"]
        while _watches:
            _watches.pop().stop()
        failed = _report(errors, stopped, raised)
    return 1 if failed else 0


@hydra.main(version_base="1.3", config_path=CONF, config_name="config")
def _hydra_job(config: DictConfig) -> None:
    if os.getpid() != _driver:
        end_with_parent()
    console = terminal()
    context = HydraConfig.get()
    folder = Path(context.runtime.output_dir)
    overrides = cast(list[str], OmegaConf.to_container(context.overrides.task, resolve=False))
    command = shlex.join(["python", "run.py", *overrides])
    outcome: dict[str, Any] = {"command": command, "status": "started", "pid": os.getpid(), "node": platform.node()}
    write_json(folder / OUTCOME, outcome)  # a job that is killed leaves this behind

    def kept(result: dict[str, Any]) -> None:
        """Say so at once: whatever ends this process later, the record is there."""
        outcome.update(result)
        write_json(folder / OUTCOME, outcome)

    try:
        outcome |= execute(to_job(config), command, folder, console, kept)
    except (UserError, OmegaConfBaseException) as error:
        outcome |= {"status": "failed", "error": one_line(error)}
    except Exception as error:
        log = folder / "error.log"
        log.write_text(traceback.format_exc())
        outcome |= {"status": "failed", "error": f"{_kind(error)}: {one_line(error)} (details in {log})"}
    write_json(folder / OUTCOME, outcome)


def _kind(error: Exception) -> str:
    """Return what kind of error it is; running out of memory comes with its remedy."""
    text = str(error).lower()
    out_of_memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or any(x in text for x in OUT_OF_MEMORY)
    return "out of memory, lower memory_gb or source.lengths" if out_of_memory else type(error).__name__


def configure(*overrides: str) -> Job:
    """Return the job that `python run.py OVERRIDES` would run, for use from Python."""
    register()
    with hydra.initialize_config_dir(version_base="1.3", config_dir=CONF):
        return to_job(hydra.compose("config", overrides=list(overrides)))


def one_line(error: BaseException) -> str:
    """Return an error's message on one line; Hydra's advice on its own internals is left out."""
    lines = [line.strip() for line in str(error).split("Config search path:")[0].splitlines()]
    kept = [line for line in lines if line and not line.startswith(HYDRA_INTERNALS)]
    text = " ".join(kept)
    cause = error.__cause__
    if cause is not None and isinstance(cause, OmegaConfBaseException | HydraException):
        detail = one_line(cause)
        text = text if detail in text else f"{text} {detail}"
    return text or type(error).__name__


def _report(errors: Console, stopped: bool, raised: bool) -> bool:
    """Say what the jobs found, or would cost, and which of them failed or never began; return whether any did.

    The launcher has ended, so a job that has not said how it ended was killed, even if its process is still going
    down; but after Ctrl-C (`stopped`) a cluster may run it still. What the launcher `raised` was printed already.
    """
    launches = list(_launches)
    paths = [path for launch in launches for path in launch.outcomes()]
    outcomes = [read_json(path) | {"folder": str(path.parent)} for path in paths]
    _launches.clear()
    planned = {o["run_id"]: o for o in outcomes if o.get("status") == "planned"}
    if len(planned) > 1:
        seconds, disk = (sum(o[key] for o in planned.values()) for key in ("seconds", "disk_bytes"))
        memory = max(o["memory_bytes"] for o in planned.values())
        terminal().print(
            f"{len(planned)} jobs: about {seconds:.0f} s one after the other, memory {memory / 1e9:.1f} GB, "
            f"disk {disk / 1e6:.1f} MB"
        )
    done = [o for o in outcomes if o.get("status") in ("measured", "found")]
    if len(done) > 1:
        console = terminal()
        if facts := [o["findings"] for o in done if o.get("findings")]:
            console.print(summary.sweep_table(facts))
        measured = sum(o["status"] == "measured" for o in done)
        console.print(f"{measured} jobs measured, {len(done) - measured} found measured; now: python -m analysis")
    failed = [o for o in outcomes if o.get("status", "started") in ("started", "failed")]
    for outcome in failed:
        ended = "is still running" if stopped and _runs(outcome) else "ended without a word: killed, or out of memory"
        errors.print(f"error: {outcome.get('error') or f'{_name(outcome)} {ended}'}")
    jobs = max(sum(launch.jobs() for launch in launches), len(outcomes))
    never_began = jobs - len(outcomes)
    folders = [launch.folder for launch in launches]
    if failed and any(Path(o["folder"]) not in folders for o in failed):  # a sweep's jobs lie one level deeper
        others = f", {never_began} never began" if never_began else ""
        errors.print(
            f"{len(failed)} of {jobs} jobs failed (each in its folder){others}; the same command repeats just them, or "
            "one by one:"
        )
        for outcome in failed:
            errors.print(f"  {outcome.get('command', 'python run.py ...')}  # {outcome['folder']}")
    elif never_began and not stopped and not raised:
        errors.print(f"error: {never_began} of {jobs} jobs never began; repeat the same command")
    return bool(failed or never_began)


def _job_number(path: Path) -> tuple[int, str]:
    name = path.parent.name
    return (int(name) if name.isdigit() else 0, str(path))


def _name(outcome: dict[str, Any]) -> str:
    return f"the job in {outcome['folder']}"


def _runs(outcome: dict[str, Any]) -> bool:
    """Say whether a job that has not ended still runs, as far as this machine can know."""
    pid = outcome.get("pid")
    here = outcome.get("node") == platform.node()
    return outcome.get("status") == "started" and here and pid != os.getpid() and lives(int(pid or 0))
