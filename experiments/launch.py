"""From the command line to jobs, and from their outcomes to an exit status: 0 only if every job succeeded.

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
import time
import traceback
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from experiments import options
from experiments.command.interrupts import BY_CTRL_C, INTERRUPTED, STOPPED
from experiments.command.launches import Launches, WatchLaunch
from experiments.command.preset import with_design
from experiments.command.progress import OUTCOME, interruptible
from experiments.command.terminal import drop_output, terminal
from experiments.command.workers import end_with_parent
from experiments.durable import write_json
from experiments.errors import UserError
from experiments.job import execute
from experiments.lazy import torch
from experiments.schema import Job, register, to_job

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


def main() -> int:
    """Run the command line and return the exit status: 0 only if every job succeeded."""
    WatchLaunch.launches = launches = Launches()
    register()
    options.register_options()
    # Our launcher presets bear the names that their plugins use for the schema; Hydra announces a change to come.
    warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/\w+' is validated against ConfigStore schema")
    gc.freeze()  # what is imported stays: a third of the time of composing went into looking through it
    gc.set_threshold(10_000)  # and what the first job imports is not looked through at every other job
    # The parser takes -m before or after all overrides, but not between them, where people write it too.
    flags = [argument for argument in sys.argv if argument in ("-m", "--multirun")]
    sys.argv = [argument for argument in sys.argv if argument not in flags] + flags[:1]
    if any(argument.startswith("experiment=") for argument in sys.argv):
        sys.argv, design = with_design(sys.argv)
        if design:
            terminal().print(f"The preset's own: {' '.join(design)}")
    # Hydra prints its own errors over several lines unless it is told to raise them.
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"
    errors = terminal(stderr=True)
    stopped = raised = False
    try:
        try:
            with interruptible():
                _hydra_job()
        finally:
            launches.stop_watching()  # before anything is said of how it ended
        if launches.unwritten:
            raise launches.unwritten
        if launches.has_empty():
            errors.print("error: the sweep has no jobs: a range or a choice in it is empty, as range(5,0) is")
            return 1
    except Exception as error:  # Hydra refuses some overrides with a bare ValueError
        if isinstance(error, BrokenPipeError):  # `--help | head`; what a job prints is another matter
            drop_output()
            return 0
        raised = True
        if wants_traceback:
            raise
        text = _remedy(error) or one_line(error)
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
        failed = launches.report(errors, stopped, raised)
        WatchLaunch.launches = None
    return 1 if failed else 0


@hydra.main(version_base="1.3", config_path=CONF, config_name="config")
def _hydra_job(config: DictConfig) -> None:
    launches = WatchLaunch.launches
    if launches is None or launches.driver != os.getpid():
        end_with_parent()
        _job(config, terminal(quiet=sys.stdout.isatty()))  # at a terminal only the process that launched it prints
        return
    try:
        _job(config, launches.console, launches.swept())
    except OSError as error:  # of its outcome; Hydra would print the overrides with it
        launches.unwritten = error


def _job(config: DictConfig, console: Console, swept: Collection[str] = ()) -> None:
    """Run one job of a sweep or alone; those of its overrides that are `swept` tell it from the others."""
    context = HydraConfig.get()
    folder = Path(context.runtime.output_dir)
    overrides = cast(list[str], OmegaConf.to_container(context.overrides.task, resolve=False))
    if apart := [override for override in overrides if override in swept]:
        console.print(f"{', '.join(apart)}:")
    command = shlex.join(["python", "run.py", *overrides])
    outcome: dict[str, Any] = {"command": command, "status": "started", "pid": os.getpid(), "node": platform.node()}
    outcome |= {"began": time.time(), "plan": bool(OmegaConf.select(config, "plan", throw_on_resolution_failure=False))}
    write_json(folder / OUTCOME, outcome)  # a job that is killed leaves this behind

    def kept(result: dict[str, Any]) -> None:
        """Write the outcome at once, for the record is in place however this process ends."""
        outcome.update(result)
        write_json(folder / OUTCOME, outcome)

    try:
        outcome |= execute(to_job(config), command, folder, console, kept)
    except KeyboardInterrupt:
        write_json(folder / OUTCOME, outcome | {"status": "failed", "error": BY_CTRL_C, "ended": time.time()})
        raise
    except (UserError, OmegaConfBaseException) as error:
        outcome |= {"status": "failed", "error": one_line(error)}
    except Exception as error:
        log = folder / "error.log"
        log.write_text(traceback.format_exc())
        outcome |= {"status": "failed", "error": f"{_kind(error)}: {one_line(error)} (details in {log})"}
    outcome["ended"] = time.time()
    write_json(folder / OUTCOME, outcome)


def _kind(error: Exception) -> str:
    """Return what kind of error it is; running out of memory comes with its remedy."""
    text = str(error).lower()
    out_of_memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or any(x in text for x in OUT_OF_MEMORY)
    return "out of memory, lower memory_gb or source.lengths" if out_of_memory else type(error).__name__


def _remedy(error: Exception) -> str | None:
    """Return what is said of a misspelt key, group or option."""
    from experiments.misspelt import remedy  # by then there is time

    return remedy(error)


def configure(*overrides: str) -> Job:
    """Return the job that `python run.py OVERRIDES` would run, for use from Python."""
    register()
    with hydra.initialize_config_dir(version_base="1.3", config_dir=CONF):
        return to_job(hydra.compose("config", overrides=with_design(overrides)[0]))


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
