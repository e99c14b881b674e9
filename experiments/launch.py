"""From the command line to jobs, and from their outcomes to an exit status that tells the truth.

Jobs never raise into Hydra: launchers differ in what an exception does to the rest of a sweep. A job writes its outcome
into its own folder; once Hydra is done, or has been stopped, the outcomes are read and summed up here.
"""

from __future__ import annotations

import gc
import json
import os
import shlex
import sys
import traceback
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from experiments import compose_once
from experiments.errors import UserError
from experiments.job import execute
from experiments.schema import Job, register, to_job

CONF = str(Path(__file__).resolve().parents[1] / "conf")
OUTCOME = "outcome.json"
# Lines of Hydra's messages that do not help: its own names for things, and advice that the schema would refuse.
HYDRA_INTERNALS = (
    "reference_type=",
    "object_type=",
    "full_key:",
    "To append to your config use",
    "See https://hydra",
)

_launches: list[Path] = []


class RememberFolder(Callback):
    """Remember where this launch's jobs write their outcomes."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Remember the folder of a single job."""
        _launches.append(Path(config.hydra.run.dir))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Remember the folder of a sweep."""
        _launches.append(Path(config.hydra.sweep.dir))
        compose_once.install(config.hydra.launcher._target_)


def main() -> int:
    """Run the command line and return the exit status: 0 only if every job succeeded."""
    register()
    gc.freeze()  # what is imported stays: a third of the time of composing went into looking through it
    # The parser takes -m before or after all overrides, but not between them, where people write it too.
    flags = [argument for argument in sys.argv if argument in ("-m", "--multirun")]
    sys.argv = [argument for argument in sys.argv if argument not in flags] + flags[:1]
    # Hydra prints its own errors over several lines unless it is told to raise them.
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"
    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        _hydra_job()
    except Exception as error:  # Hydra refuses some overrides with a bare ValueError
        if wants_traceback:
            raise
        text = one_line(error)
        if isinstance(error, OSError):
            text = f"the results cannot be written ({text}); choose another outputs="
        errors.print(f"error: {text}", markup=False)
        return 1
    except KeyboardInterrupt:
        errors.print("stopped; what is finished is kept, the same command continues", markup=False)
        return 130
    finally:
        if not wants_traceback:
            del os.environ["HYDRA_FULL_ERROR"]
        failed = _report(errors)
    return 1 if failed else 0


@hydra.main(version_base="1.3", config_path=CONF, config_name="config")
def _hydra_job(config: DictConfig) -> None:
    console = Console(soft_wrap=True, highlight=False)
    context = HydraConfig.get()
    folder = Path(context.runtime.output_dir)
    command = shlex.join(["python", "run.py", *context.overrides.task])
    outcome: dict[str, Any] = {"command": command, "status": "failed"}
    try:
        outcome |= execute(to_job(config), command, console)
    except UserError as error:
        outcome["error"] = one_line(error)
    except Exception as error:
        log = folder / "error.log"
        log.write_text(traceback.format_exc())
        outcome["error"] = f"{type(error).__name__}: {one_line(error)} (details in {log})"
    _write_outcome(folder / OUTCOME, outcome)


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


def _write_outcome(path: Path, outcome: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(outcome, indent=2) + "\n")
    partial.replace(path)


def _report(errors: Console) -> bool:
    """Say which jobs failed and, for a planned sweep, what it would cost; return whether any failed."""
    outcomes = [json.loads(path.read_text()) for folder in _launches for path in sorted(folder.rglob(OUTCOME))]
    _launches.clear()
    planned = {o["run_id"]: o for o in outcomes if o["status"] == "planned"}
    if len(planned) > 1:
        seconds, disk = (sum(o[key] for o in planned.values()) for key in ("seconds", "disk_bytes"))
        memory = max(o["memory_bytes"] for o in planned.values())
        Console(highlight=False).print(
            f"{len(planned)} jobs: about {seconds:.0f} s one after the other, memory {memory / 1e9:.1f} GB, "
            f"disk {disk / 1e6:.1f} MB"
        )
    failed = [o for o in outcomes if o["status"] == "failed"]
    for outcome in failed:
        errors.print(f"error: {outcome['error']}", markup=False)
    if failed and len(outcomes) > 1:
        errors.print(f"{len(failed)} of {len(outcomes)} jobs failed; repeat just them with:", markup=False)
        for outcome in failed:
            errors.print(f"  {outcome['command']}", markup=False)
    return bool(failed)
