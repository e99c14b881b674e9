"""What a command costs before any job begins: CPU seconds, for they do not depend on what else the machine does."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile

REPEATS = 7
COMMANDS = {
    "help": ["run.py", "--help"],
    "refusal": ["run.py", "source.no_such_key=1"],
    "status": ["-m", "experiments.status", "--outputs", "{empty}"],
}


def children_cpu_s() -> float:
    """Return the CPU seconds of all processes that this one has started and that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def cpu_s(command: list[str]) -> float:
    """Return the CPU seconds of one process."""
    before = children_cpu_s()
    subprocess.run([sys.executable, *command], capture_output=True)
    return children_cpu_s() - before


def run() -> dict[str, float]:
    """Return `help_cpu_s`, `refusal_cpu_s` and `status_cpu_s`: medians over processes, after a warm-up."""
    result = {}
    with tempfile.TemporaryDirectory() as empty:
        for name, parts in COMMANDS.items():
            command = [part.format(empty=empty) for part in parts]
            seconds = [cpu_s(command) for _ in range(REPEATS + 1)][1:]
            result[f"{name}_cpu_s"] = statistics.median(seconds)
            print(f"  {name}: {result[f'{name}_cpu_s']:.2f} s of CPU [{min(seconds):.2f}, {max(seconds):.2f}]")
    return result
