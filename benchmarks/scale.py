"""How seconds per row grow with n on the Gaussian source, and the memory of the largest."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from experiments.launch import configure
from experiments.machine import Machine
from experiments.measures.compute import Compute
from experiments.measures.measure import measure_rows
from experiments.measures.memory import rows_per_block
from experiments.records.folder import Record
from experiments.records.provenance import peak_rss_mb

SIZES = [2**i for i in range(14, 21)]
ROWS, REPEATS = 32, 5
PEAK_KEYS, PEAK_ROWS = 2**20, 256


def seconds_per_row(keys: int) -> float:
    """Return the median time to measure one row of `keys` keys, its inputs drawn beforehand."""
    job = configure(f"source.lengths=[{keys}]", f"source.rows={ROWS}", "source.samples=1")
    machine = Machine.from_settings("cpu", job.memory_gb, None)
    rows = job.source.draw(keys, 0, 0, torch.device("cpu"))
    sizes = job.windows.at(keys).sizes(rows.n_R, rows.position_R)
    resident = job.source.resident_bytes()
    block = rows_per_block(ROWS, keys, sizes.given_RW.shape[1], 64, machine.memory_bytes, resident)
    times, compute = [], Compute()
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        measure_rows(rows, [job.selector.prepare(rows.cache())], sizes, block, compute)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:]) / ROWS


def peak() -> None:
    """Measure one large draw and print the peak memory of the process."""
    job = configure(f"source.lengths=[{PEAK_KEYS}]", f"source.rows={PEAK_ROWS}", "source.samples=1", "memory_gb=1.5")
    machine = Machine.from_settings("cpu", job.memory_gb, None)
    with tempfile.TemporaryDirectory() as folder:
        record = Record(Path(folder), job.runner.tables)
        job.runner.run(job.source, job.selector, job.windows, machine, job.seed, record, lambda: None)
    print(json.dumps({"peak_mb": peak_rss_mb()}))


def run() -> dict[str, float]:
    """Return `scale_exponent`, the log-log slope over the sizes, and `scale_peak_mb`."""
    seconds = []
    for keys in SIZES:
        seconds.append(seconds_per_row(keys))
        print(f"  n = {keys}: {1e3 * seconds[-1]:.3f} ms per row, {1e9 * seconds[-1] / keys:.2f} ns per key")
    slope = float(np.polyfit(np.log(SIZES), np.log(seconds), 1)[0])
    done = subprocess.run([sys.executable, "-m", "benchmarks.scale"], check=True, capture_output=True, text=True)
    peak_mb = json.loads(done.stdout.splitlines()[-1])["peak_mb"]
    print(f"  slope {slope:.3f}; {PEAK_ROWS} rows of {PEAK_KEYS} keys: peak {peak_mb:.0f} MB")
    return {"scale_exponent": slope, "scale_peak_mb": peak_mb}


if __name__ == "__main__":
    peak()
