"""What a job would measure and cost, without measuring it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from experiments.machine import Machine
from experiments.measures.block import measure_rows
from experiments.measures.memory import rows_per_block
from experiments.rows import Rows
from experiments.schema import Job
from experiments.selectors import each
from experiments.sources import Batch

# Parquet bytes per row of rows.parquet and of windows.parquet, measured on finished records.
ROW_BYTES, WINDOW_BYTES = 100, 80
PROCESS_BYTES = 600e6  # Python, torch and pandas themselves
CALIBRATION_ROWS, CALIBRATION_KEYS = 32, 4096


@dataclass(frozen=True)
class Plan:
    """The size of a job: counts, seconds, and bytes of memory and disk."""

    rows: int
    windows: int
    seconds: float
    memory_bytes: float
    disk_bytes: float


def check_fits(job: Job, machine: Machine) -> None:
    """Refuse a job whose longest context cannot be measured in the memory that it may use, before any is taken.

    Raises
    ------
    UserError
        If the source refuses the request, windows are too many, or not even one row fits in memory.
    """
    longest = max(job.source.batches(), key=lambda batch: batch.keys)
    windows, resident = len(job.windows.at(longest.keys)), job.source.resident_bytes()
    rows_per_block(1, longest.keys, windows, longest.head_dim, machine.memory_bytes, resident)


def plan_of_rows(job: Job, machine: Machine) -> Plan:
    """Return the plan of a job that measures rows.

    Seconds come from a short calibration of the measures on this machine, and from the source's own estimate of its
    drawing or forward passes.

    Raises
    ------
    UserError
        If the source refuses the request, or not even one row fits in memory.
    """
    batches: list[Batch] = job.source.batches()
    counts = {batch.keys: len(job.windows.at(batch.keys)) for batch in batches}
    resident = job.source.resident_bytes()
    for batch in batches:
        rows_per_block(batch.rows, batch.keys, counts[batch.keys], batch.head_dim, machine.memory_bytes, resident)
    per_entry = _seconds_per_entry(job, machine, batches[0].head_dim)
    entries = sum(batch.count * batch.rows * batch.keys for batch in batches)
    rows = sum(batch.count * batch.rows for batch in batches)
    groups = sum(batch.count * counts[batch.keys] for batch in batches if job.runner.windowed(batch.variant))
    return Plan(
        rows=rows,
        windows=max(counts.values()),
        seconds=job.source.seconds() + entries * per_entry,
        memory_bytes=PROCESS_BYTES + min(machine.memory_bytes, resident + max(b.rows * b.keys for b in batches) * 120),
        disk_bytes=rows * ROW_BYTES + groups * WINDOW_BYTES * len(each(job.selector)),
    )


def _seconds_per_entry(job: Job, machine: Machine, head_dim: int) -> float:
    generator = torch.Generator().manual_seed(0)
    key_ND = torch.randn(CALIBRATION_KEYS, head_dim, generator=generator).to(machine.device)
    rows = Rows(
        layer=0,
        head=0,
        sample=0,
        variant="plain",
        length=CALIBRATION_KEYS,
        position_R=torch.full((CALIBRATION_ROWS,), CALIBRATION_KEYS - 1, device=machine.device),
        query_RD=torch.randn(CALIBRATION_ROWS, head_dim, generator=generator).to(machine.device),
        key_ND=key_ND,
        value_NV=key_ND,
        scale=head_dim**-0.5,
        earlier=lambda start, stop: key_ND[None, start:stop] @ key_ND[:stop].T,
    )
    windows, selectors = job.windows.at(CALIBRATION_KEYS), each(job.selector)
    measure_rows(rows, selectors, windows, len(rows))
    start = time.perf_counter()
    measure_rows(rows, selectors, windows, len(rows))
    return (time.perf_counter() - start) / (CALIBRATION_ROWS * CALIBRATION_KEYS)
