"""What a job would measure and cost, without measuring it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from experiments.cache import Earlier
from experiments.lazy import torch
from experiments.machine import Machine
from experiments.measures.memory import BYTES_PER_KEY, rows_per_block
from experiments.rows import Rows
from experiments.selectors import Selector
from experiments.sources import Batch, ReadsText, Source
from experiments.windows import WindowSet

# Parquet bytes per row of rows.parquet and of windows.parquet, measured on finished records.
ROW_BYTES, WINDOW_BYTES = 40, 30
PROCESS_BYTES = 600e6  # Python, torch and pandas themselves
START_SECONDS = 1.5  # for loading them, once per process
MODEL_SECONDS = 1.3  # for loading a small model, its tokens and its trial, once per job
# What one key of one row takes while rows are measured: the kernels keep a few float32 of it, plain torch much more.
KERNEL_BYTES = 16
# Seconds of one core for one key of one consecutive row, whose unions are wanted.
UNION_SECONDS = 4e-7
CALIBRATION_ROWS, CALIBRATION_KEYS = 32, 4096


@dataclass(frozen=True)
class Plan:
    """The size of a job: counts, seconds, and bytes of memory and disk."""

    rows: int
    windows: int
    seconds: float
    memory_bytes: float
    disk_bytes: float


def check_fits(source: Source, windows: WindowSet, machine: Machine) -> None:
    """Refuse a job whose longest context cannot be measured in the memory that it may use, before any is taken.

    Raises
    ------
    UserError
        If the source refuses the request, windows are too many, or not even one row fits in memory.
    """
    longest = max(source.batches(), key=lambda batch: batch.num_keys)
    count, resident = len(windows.at(longest.num_keys)), source.resident_bytes()
    rows_per_block(1, longest.num_keys, count, longest.head_dim, machine.memory_bytes, resident)


def memory_of(source: Source) -> float:
    """Return the bytes that a process takes with its source, before rows are measured."""
    return PROCESS_BYTES + source.resident_bytes() + (source.mask_bytes() if isinstance(source, ReadsText) else 0)


def plan_of_rows(
    source: Source, selectors: Sequence[Selector], windows: WindowSet, machine: Machine, windowed: Sequence[Batch]
) -> Plan:
    """Return the plan of a job that measures rows, and within windows those of some batches.

    Seconds come from a short calibration of the measures on this machine, and from the source's own estimate of its
    drawing or forward passes. They are those of processors, shared out to the threads, so that other programs do not
    count.

    Raises
    ------
    UserError
        If the source refuses the request, or not even one row fits in memory.
    """
    batches = source.batches()
    counts = {batch.num_keys: len(windows.at(batch.num_keys)) for batch in batches}
    resident = source.resident_bytes()
    for batch in batches:
        rows_per_block(
            batch.rows, batch.num_keys, counts[batch.num_keys], batch.head_dim, machine.memory_bytes, resident
        )
    per_entry = _seconds_per_entry(selectors, windows, machine, max(batches, key=lambda batch: batch.num_keys))
    entries = sum(batch.count * batch.rows * batch.num_keys for batch in batches)
    unions = sum(batch.count * batch.run * batch.num_keys for batch in batches)
    kernels = machine.device.type == "cpu" and source.dtype != "float64"
    per_key = KERNEL_BYTES if kernels else BYTES_PER_KEY
    rows = sum(batch.count * batch.rows for batch in batches)
    lines = sum(batch.count * counts[batch.num_keys] for batch in windowed) * len(selectors)
    return Plan(
        rows=rows,
        windows=max(counts.values()),
        seconds=source.seconds(machine) + (entries * per_entry + unions * UNION_SECONDS) / machine.cores,
        memory_bytes=memory_of(source)
        + min(machine.memory_bytes - resident, max(b.rows * b.num_keys for b in batches) * per_key),
        disk_bytes=rows * ROW_BYTES + lines * WINDOW_BYTES,
    )


def _seconds_per_entry(selectors: Sequence[Selector], windows: WindowSet, machine: Machine, longest: Batch) -> float:
    from experiments.measures.compute import Compute
    from experiments.measures.measure import measure_rows

    # Short rows are tried at their own length: most of their time is what a row takes at any length.
    num_keys, head_dim = min(CALIBRATION_KEYS, longest.num_keys), longest.head_dim
    generator = torch.Generator().manual_seed(0)
    key_ND = torch.randn(num_keys, head_dim, generator=generator).to(machine.device)
    rows = Rows(
        layer=0,
        head_R=torch.zeros(CALIBRATION_ROWS, dtype=torch.int64, device=machine.device),
        sample=0,
        variant="plain",
        length=num_keys,
        position_R=torch.full((CALIBRATION_ROWS,), num_keys - 1, device=machine.device),
        query_RD=torch.randn(CALIBRATION_ROWS, head_dim, generator=generator).to(machine.device),
        key_ND=key_ND,
        value_NV=key_ND,
        scale=head_dim**-0.5,
        below=lambda layer, head_R, position_R: None,
        earlier=Earlier(
            lambda start, stop: key_ND[None, start:stop] @ key_ND[:stop].T, lambda start, stop: key_ND[None, start:stop]
        ),
    )
    sizes, compute = windows.at(num_keys).of_heads(0, [0], rows.n_R, rows.position_R), Compute()

    def once() -> float:
        clock = time.process_time if machine.device.type == "cpu" else time.perf_counter
        start = clock()
        methods = [selector.prepare(rows.cache()) for selector in selectors]
        measure_rows(rows, methods, sizes, len(rows), compute)  # its result is copied home: a card is done by then
        return clock() - start

    once()
    return once() / (CALIBRATION_ROWS * num_keys)
