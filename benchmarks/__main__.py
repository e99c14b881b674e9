"""Run benchmarks, print them against their bars, and write outputs/bench/bench.json."""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

NAMES = ("start", "windows", "scale", "jobs", "top_k", "probe", "analysis", "peers", "methods", "card")
# name -> (bar, aim); a ratio of a loop to us should be large, everything else small
BARS = {
    "help_cpu_s": (1.0, 0.5),
    "windows_sdpa_ratio": (3.4, 2.5),
    "windows_loop_ratio": (60.0, 100.0),
    "scale_exponent": (1.02, 1.00),
    "scale_peak_mb": (2048.0, 1536.0),
    "job_overhead_s": (0.2, 0.1),
    "topk_forward_ratio": (1.4, 1.2),
    "probe_time_ratio": (1.10, 1.05),
    "probe_memory_ratio": (1.15, 1.05),
    "analysis_quick_s": (12.0, 6.0),
    "analysis_quick_mb": (800.0, 800.0),
    "analysis_300_s": (15.0, 8.0),
    "analysis_300_mb": (800.0, 800.0),
    "analysis_14m_mb": (6000.0, 3000.0),
}
LARGER_IS_BETTER = {"windows_loop_ratio"}


def main() -> None:
    """Run the requested benchmarks, all by default."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"among {', '.join(NAMES)}")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"))
    requested = parser.parse_args()
    if unknown := set(requested.names) - set(NAMES):
        parser.error(f"no benchmark named {', '.join(sorted(unknown))}: choose from {', '.join(NAMES)}")
    path = requested.outputs / "bench" / "bench.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(path.read_text()) if requested.names and path.exists() else {}
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    start = time.perf_counter()
    for name in requested.names or NAMES:
        print(f"{name}:", flush=True)
        results |= importlib.import_module(f"benchmarks.{name}").run()
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=2) + "\n")
    partial.replace(path)
    Console().print(_table(results))
    print(f"{path} ({time.perf_counter() - start:.0f} s)")


def _table(results: dict[str, float]) -> Table:
    """Return one line per number; a ratio's control stands beside it, and a noisy one says so."""
    table = Table("name", "measured", "control", "bar", "aim", "")
    for name, value in results.items():
        if name.removesuffix("_control").removesuffix("_noisy") != name:
            continue
        control = f"{results[f'{name}_control']:.1%}" if f"{name}_control" in results else ""
        noisy = "noisy" if results.get(f"{name}_noisy") else ""
        bar, aim = BARS.get(name, (None, None))
        verdict = "" if bar is None or aim is None else _verdict(value, bar, aim, name in LARGER_IS_BETTER)
        limits = ("" if limit is None else f"{limit:g}" for limit in (bar, aim))
        table.add_row(name, f"{value:.3g}", control, *limits, ", ".join(filter(None, (verdict, noisy))))
    return table


def _verdict(value: float, bar: float, aim: float, larger_is_better: bool) -> str:
    met = [value >= limit if larger_is_better else value <= limit for limit in (bar, aim)]
    return "aim met" if met[1] else "met" if met[0] else "MISSED"


if __name__ == "__main__":
    main()
