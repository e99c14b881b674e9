"""One job, from its configuration to its record."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from experiments import summary
from experiments.machine import Machine
from experiments.plan import plan
from experiments.records.folder import Record, finished, new_record, run_folder
from experiments.records.identity import SCHEMA_VERSION, run_id
from experiments.records.provenance import git_revision, peak_rss_mb, versions
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

    config = {name: value for name, value in dataclasses.asdict(job).items() if name not in ("plan", "force")}

    def manifest() -> dict[str, Any]:
        return {
            "run_id": identifier,
            "schema": SCHEMA_VERSION,
            "status": "complete",
            "label": job.source.label,
            "experiment": job.experiment,
            "seconds": round(time.monotonic() - started, 3),
            "peak_rss_mb": round(peak_rss_mb(), 1),
            "seed": job.seed,
            "hashes": job.source.hashes(),
            "versions": versions(),
            "git_revision": git_revision(),
            "command": command,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    with new_record(folder) as record:
        _measure(job, machine, record, sum(batch.count for batch in batches), console)
        record.close(OmegaConf.to_yaml(OmegaConf.create(config)), manifest)
    _track(job, folder, outputs)
    return {"run_id": identifier, "status": "measured", "seconds": _say_findings(folder, console)}


def _measure(job: Job, machine: Machine, record: Record, groups: int, console: Console) -> None:
    if not console.is_terminal:
        console.print(f"Measuring {job.source.label}: {groups} groups of rows (head x length x sample)")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"{job.source.label}, heads x lengths", total=groups)
        job.runner.run(job.source, job.selector, job.windows, machine, job.seed, record, lambda: progress.advance(task))


def _track(job: Job, folder: Path, outputs: Path) -> None:
    try:
        job.tracking.log(folder, group=job.experiment or job.source.name, outputs=outputs)
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
    return {"run_id": identifier, "status": "planned", **dataclasses.asdict(what), "seconds": seconds}


def _say_findings(folder: Path, console: Console) -> float:
    manifest = json.loads((folder / "manifest.json").read_text())
    rows, windows = pd.read_parquet(folder / "rows.parquet"), pd.read_parquet(folder / "windows.parquet")
    facts = f"{len(rows)} rows in {manifest['seconds']:.0f} s, peak {manifest['peak_rss_mb']:.0f} MB"
    selector = windows["selector"].iloc[0]
    label = manifest["label"] if selector == "oracle" else f"{manifest['label']}, keys kept by {selector}"
    console.print(summary.table(rows, windows, f"{label}: {facts}"))
    if line := summary.sentence(rows):
        console.print(line)
    console.print(f"Record: {folder}")
    return float(manifest["seconds"])
