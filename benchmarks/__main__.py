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

NAMES = ("windows", "scale", "jobs", "top_k", "probe", "peers")
# name -> (bar, aim); a ratio of a loop to us should be large, everything else small
BARS = {
    "probe_time_ratio": (1.20, 1.10),
    "probe_memory_ratio": (1.30, 1.15),
    "windows_sdpa_ratio": (4.0, 2.5),
    "windows_loop_ratio": (20.0, 50.0),
    "scale_exponent": (1.05, 1.02),
    "scale_peak_mb": (2048.0, 1536.0),
    "topk_forward_ratio": (3.0, 2.0),
    "job_overhead_s": (0.3, 0.2),
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
    table = Table("name", "measured", "bar", "aim", "")
    for name, value in results.items():
        if name not in BARS:
            table.add_row(name, f"{value:.3g}", "", "", "")
            continue
        bar, aim = BARS[name]
        met = [value >= b if name in LARGER_IS_BETTER else value <= b for b in (bar, aim)]
        table.add_row(
            name, f"{value:.3g}", f"{bar:g}", f"{aim:g}", "aim met" if met[1] else "met" if met[0] else "MISSED"
        )
    return table


if __name__ == "__main__":
    main()
