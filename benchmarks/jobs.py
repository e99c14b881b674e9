"""What a job costs beside its measuring: a sweep of trivial jobs, records and offline tracking included."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time

from benchmarks.start import children_cpu_s

JOBS = 50


def _sweep(seeds: int) -> tuple[float, float]:
    """Return the seconds of a sweep, of the clock and of the CPU."""
    with tempfile.TemporaryDirectory() as outputs:
        command = [sys.executable, "run.py", "-m", f"seed=range({seeds})", f"outputs={outputs}"]
        trivial = ["source.lengths=[64,128]", "source.rows=2", "source.samples=1"]
        start, cpu = time.perf_counter(), children_cpu_s()
        subprocess.run([*command, *trivial], check=True, capture_output=True)
        return time.perf_counter() - start, children_cpu_s() - cpu


def run() -> dict[str, float]:
    """Return `job_overhead_s`: the whole command's seconds per job, start-up of the process included.

    `job_overhead_cpu_s` is what a busy machine leaves alone.
    """
    _sweep(1)
    seconds, cpu = _sweep(JOBS)
    print(f"  {JOBS} jobs: {seconds:.1f} s in all, {cpu:.1f} s of CPU")
    return {"job_overhead_s": seconds / JOBS, "job_overhead_cpu_s": cpu / JOBS}
