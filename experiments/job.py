"""One job, from its configuration to its record."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from omegaconf._utils import get_omega_conf_dumper
from rich.console import Console

from experiments.command import sweep
from experiments.command.progress import Progress
from experiments.errors import UserError
from experiments.machine import Machine
from experiments.plan import MODEL_SECONDS, START_SECONDS, check_fits
from experiments.records.folder import finished, new_record, run_folder, tidy
from experiments.records.identity import SCHEMA_VERSION, identity, run_id
from experiments.records.provenance import git_revision, peak_rss_mb, versions
from experiments.schema import Job
from experiments.sources import ReadsText

log = logging.getLogger(__name__)
TIMED_ON = ("device", "threads")  # what seconds are of, beside what the run id knows


def execute(
    job: Job, command: str, folder_of_job: Path, console: Console, kept: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Measure one job unless its record is there already, and say what was found.

    Parameters
    ----------
    command
        What repeats this job alone, for the manifest.
    folder_of_job
        Where it says how far it is.
    kept
        Called with `run_id`, `status` and `seconds` as soon as the record is in place.

    Returns
    -------
    dict
        What the sweep's summary needs: `run_id`, `status` (planned, found or measured), `seconds`, and the plan or
        the findings.

    Raises
    ------
    UserError
        If the request cannot be measured; nothing is written then.
    """
    started = time.monotonic()
    machine = Machine.from_settings(job.device, job.memory_gb, job.threads, triton=job.triton)
    outputs = Path(job.outputs)
    job.source.batches()  # refuses here what cannot be measured, before anything large is loaded
    job.windows.check_source(job.source)
    job.runner.check(job.source, job.selector, job.windows)
    check_fits(job.source, job.windows, machine)
    hashes = job.source.hashes()
    identifier, deciding = run_id(job), identity(job)
    folder = run_folder(outputs, identifier)
    tidy(folder)
    before = None if job.force else finished(folder)
    if job.plan:
        return _say_plan(job, machine, identifier, before, console)
    if before:
        _check_timed(job, folder)
        console.print(f"Already measured: {before['label']}, {folder}")
        if not job.tracking.logged(identifier, outputs):
            _track(job, folder, folder_of_job, outputs)
        return {"run_id": identifier, "status": "found", "seconds": 0.0, "findings": _facts(job, folder, before)}

    config = {name: value for name, value in dataclasses.asdict(job).items() if name not in ("plan", "force")}

    def manifest() -> dict[str, Any]:
        return {
            "run_id": identifier,
            "schema": SCHEMA_VERSION,
            "identity": deciding,
            "status": "complete",
            "label": job.source.label,
            "experiment": job.experiment,
            "seconds": round(time.monotonic() - started, 3),
            "peak_rss_mb": round(peak_rss_mb(), 1),
            "seed": job.seed,
            "hashes": hashes,
            "versions": versions(),
            "git_revision": git_revision(),
            "command": command,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    with new_record(folder, job.runner.tables, replace=job.force) as record:
        groups = job.runner.groups(job.source, job.selector, job.windows)
        if not console.is_terminal:
            console.print(f"Measuring {job.source.label}: {groups} groups")
        advance = Progress(folder_of_job, job.source.label, groups, identifier).advance
        job.runner.run(job.source, job.selector, job.windows, machine, job.seed, record, advance)
        if not _unchanged(job, deciding):
            raise UserError(f"{job.source.label}: a file that decides its numbers changed meanwhile; run it again")
        record.close(_yaml(config), manifest)
    result = {"run_id": identifier, "status": "measured", "seconds": time.monotonic() - started}
    kept(result)
    _track(job, folder, folder_of_job, outputs)
    return result | {"findings": _say_findings(job, folder, console)}


def _yaml(config: dict[str, Any]) -> str:
    """Return what `OmegaConf.to_yaml` writes, without making nodes of plain values first, most of its time."""
    return yaml.dump(config, Dumper=get_omega_conf_dumper(), allow_unicode=True, sort_keys=False)


def _track(job: Job, folder: Path, folder_of_job: Path, outputs: Path) -> None:
    try:
        group = sweep.read(folder_of_job) or job.experiment or job.source.name
        job.tracking.log(folder, job.runner.curves(folder), group=group, outputs=outputs)
    except Exception as error:  # whatever a tracker does, the record is already safe
        log.warning("tracking failed, the record is kept: %s", error)


def _say_plan(
    job: Job, machine: Machine, identifier: str, before: dict[str, Any] | None, console: Console
) -> dict[str, Any]:
    what = job.runner.plan(job.source, job.selector, job.windows, machine)
    seconds = 0.0 if before else what.seconds + (MODEL_SECONDS if isinstance(job.source, ReadsText) else 0.0)
    console.print(
        f"{job.source.label}, {job.runner.name}, {job.selector.name} ({identifier}): "
        + (f"already measured in {before['seconds']:.0f} s" if before else f"about {seconds + START_SECONDS:.0f} s")
        + f"; {what.rows} rows at lengths {job.source.lengths}, {what.windows} windows, "
        f"memory {what.memory_bytes / 1e9:.1f} GB, disk {what.disk_bytes / 1e6:.1f} MB"
    )
    return {"run_id": identifier, "status": "planned", **dataclasses.asdict(what), "seconds": seconds}


def _check_timed(job: Job, folder: Path) -> None:
    """Raise UserError if a record of seconds is there, which are of another device or number of threads."""
    if not any(table.timed for table in job.runner.tables):
        return
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    if other := [f"{name}={config.get(name)}" for name in TIMED_ON if config.get(name) != getattr(job, name)]:
        raise UserError(
            f"{folder}: it was timed with {' '.join(other)}; give force=true to time it again in its place, or another "
            "outputs= to keep both"
        )


def _unchanged(job: Job, deciding: dict[str, Any]) -> bool:
    """Say whether model, text, budget and whatever else was read are still the files that the run id was made of."""
    try:
        return identity(job) == deciding
    except (OSError, UserError):
        return False


def _facts(job: Job, folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    return job.runner.findings(folder, manifest).facts


def _say_findings(job: Job, folder: Path, console: Console) -> dict[str, Any]:
    manifest = json.loads((folder / "manifest.json").read_text())
    findings = job.runner.findings(folder, manifest)
    for part in findings.shown:
        console.print(part)
    console.print(f"Record: {folder}")
    return findings.facts
