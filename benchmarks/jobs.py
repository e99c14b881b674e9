"""What a job costs beside its measuring: a sweep of trivial jobs, records and offline tracking included."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time

JOBS = 50


def _sweep(seeds: int) -> float:
    with tempfile.TemporaryDirectory() as outputs:
        command = [sys.executable, "run.py", "-m", f"seed=range({seeds})", f"outputs={outputs}"]
        trivial = ["source.lengths=[64,128]", "source.rows=2", "source.samples=1"]
        start = time.perf_counter()
        subprocess.run([*command, *trivial], check=True, capture_output=True)
        return time.perf_counter() - start


def run() -> dict[str, float]:
    """Return `job_overhead_s`: the whole command's seconds per job, start-up of the process included."""
    _sweep(1)
    seconds = _sweep(JOBS)
    print(f"  {JOBS} jobs: {seconds:.1f} s in all")
    return {"job_overhead_s": seconds / JOBS}
