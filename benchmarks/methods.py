"""What each method's rows take: seconds and peak memory of a job of its own, at the paper's budget."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.start import children_cpu_s

METHODS = (
    *("oracle", "sinks", "h2o", "quantised_keys", "verified", "coreset", "moment_tail", "polynomial", "conv_basis"),
    *("logit_sketch", "mean_value"),
)
KEYS, ROWS, SAMPLES, BUDGET = 4096, 32, 8, 256


def run() -> dict[str, float]:
    """Return per method the CPU milliseconds of a row beyond those of the first method's job, and its peak memory.

    Gaussian rows; the oracle, which every job measures too, stands twice: the second is the control.
    """
    results: dict[str, float] = {}
    base = _job("oracle")[0]
    for name in METHODS:
        seconds, peak_mb = _job(name)
        results[f"method_{name}_row_ms"] = 1e3 * max(seconds - base, 0.0) / (ROWS * SAMPLES)
        results[f"method_{name}_peak_mb"] = peak_mb
        print(f"  {name}: {results[f'method_{name}_row_ms']:.2f} ms a row, {peak_mb:.0f} MB", flush=True)
    return results


def _job(method: str) -> tuple[float, float]:
    """Return the CPU seconds and the peak memory of one job, MB."""
    with tempfile.TemporaryDirectory() as outputs:
        start = children_cpu_s()
        source = [f"source.lengths=[{KEYS}]", f"source.rows={ROWS}", f"source.samples={SAMPLES}"]
        windows = ["windows/rules=[fixed]", f"windows.fixed=[{BUDGET}]", "tracking=disabled", f"outputs={outputs}"]
        command = [sys.executable, "run.py", f"selector={method}", *source, *windows]
        subprocess.run(command, check=True, capture_output=True)
        (manifest,) = Path(outputs).glob("runs/*/manifest.json")
        return children_cpu_s() - start, float(json.loads(manifest.read_text())["peak_rss_mb"])
