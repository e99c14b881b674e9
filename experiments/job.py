"""One job, from its configuration to its record."""

from __future__ import annotations

import dataclasses
import logging
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from experiments import summary
from experiments.machine import Machine
from experiments.plan import plan
from experiments.records.folder import finished, run_folder, save
from experiments.records.identity import run_id
from experiments.records.provenance import git_revision, peak_rss_mb, versions
from experiments.runners import Tables
from experiments.schema import Job

log = logging.getLogger(__name__)


def execute(job: Job, command: str, console: Console) -> dict[str, Any]:
    """Measure one job unless its record is there already, and say what was found.

    Returns
    -------
    dict
        What the sweep's summary needs: `run_id`, `status` (planned, found or measured), `seconds`, and the plan.

    Raises
    ------
    UserError
        If the request cannot be measured; nothing is written then.
    """
    started = time.monotonic()
    machine = Machine.from_settings(job.device, job.memory_gb, job.threads)
    outputs = Path(job.outputs)
    batches = job.source.batches()
    identifier = run_id(job)
    folder = run_folder(outputs, identifier)
    before = None if job.force else finished(folder)
    if job.plan:
        return _say_plan(job, machine, identifier, before, console)
    if before:
        console.print(f"Already measured: [bold]{before['label']}[/], {folder}")
        return {"run_id": identifier, "status": "found", "seconds": 0.0}

    tables = _measure(job, machine, sum(batch.count for batch in batches), console)
    config = {name: value for name, value in dataclasses.asdict(job).items() if name not in ("plan", "force")}
    manifest: dict[str, Any] = {}

    def finish() -> dict[str, Any]:
        manifest.update(
            run_id=identifier,
            status="complete",
            label=job.source.label,
            experiment=job.experiment,
            seconds=round(time.monotonic() - started, 3),
            peak_rss_mb=round(peak_rss_mb(), 1),
            seed=job.seed,
            hashes=job.source.hashes(),
            versions=versions(),
            git_revision=git_revision(),
            command=command,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        return manifest

    save(folder, yaml.safe_dump(config, sort_keys=False), tables, finish)
    _track(job, tables, config, manifest, outputs)
    _say_findings(tables, manifest, folder, console)
    return {"run_id": identifier, "status": "measured", "seconds": manifest["seconds"]}


def _measure(job: Job, machine: Machine, groups: int, console: Console) -> Tables:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(f"{job.source.label}, heads x lengths", total=groups)
        return job.runner.run(
            job.source, job.selector, job.windows, machine, job.seed, lambda: progress.advance(task)
        )


def _track(job: Job, tables: Tables, config: dict[str, Any], manifest: dict[str, Any], outputs: Path) -> None:
    group = job.experiment or job.source.name
    try:
        job.tracking.log(tables, config=config, manifest=manifest, group=group, outputs=outputs)
    except Exception as error:  # whatever a tracker does, the record is already safe
        log.warning("tracking failed, the record is kept: %s", error)


def _say_plan(
    job: Job, machine: Machine, identifier: str, before: dict[str, Any] | None, console: Console
) -> dict[str, Any]:
    what = plan(job, machine)
    seconds = 0.0 if before else what.seconds
    console.print(
        f"[bold]{job.source.label}[/] ({identifier}): "
        + (f"already measured in {before['seconds']:.0f} s" if before else f"about {seconds:.0f} s")
        + f"; {what.rows} rows at lengths {job.source.lengths}, {what.windows} windows, "
        f"memory {what.memory_bytes / 1e9:.1f} GB, disk {what.disk_bytes / 1e6:.1f} MB"
    )
    return {"run_id": identifier, "status": "planned", "seconds": seconds, **dataclasses.asdict(what)}


def _say_findings(tables: Tables, manifest: dict[str, Any], folder: Path, console: Console) -> None:
    rows: pd.DataFrame = tables.rows
    facts = f"{len(rows)} rows in {manifest['seconds']:.0f} s, peak {manifest['peak_rss_mb']:.0f} MB"
    console.print(summary.table(rows, tables.windows, f"{manifest['label']}: {facts}"))
    if line := summary.sentence(rows):
        console.print(line)
    console.print(f"Record: {folder}")
