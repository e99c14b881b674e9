"""What a job may use: a device, an amount of memory, a number of threads."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from experiments.errors import UserError
from experiments.lazy import torch
from experiments.threads import warn_if_they_spin

THREADS_PER_CORE = 4  # more would only take turns, and a system that cannot start them all ends the process
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True)
class Machine:
    """The device to compute on, and the memory that the source and the row blocks may take together."""

    device: torch.device
    memory_bytes: int

    @classmethod
    def from_settings(cls, device: str, memory_gb: float, threads: int | None) -> Machine:
        """Check that the machine has what is requested, and apply the number of threads.

        Raises
        ------
        UserError
            If the device is not there, or cores are too few for the threads.
        """
        try:
            available = torch.device(device)
            torch.ones(1, device=available).item()  # of `meta`, which holds no numbers, there is none
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"device={device}: not available on this machine; use device=cpu") from error
        thread_count, cores = threads or _allowed_threads(), os.cpu_count() or 1
        if thread_count > THREADS_PER_CORE * cores:
            key = "threads" if threads else "OMP_NUM_THREADS"
            raise UserError(
                f"{key}={thread_count}: this machine has {cores} cores, give at most {THREADS_PER_CORE * cores}"
            )
        torch.set_num_threads(thread_count)
        if thread_count > 1:
            warn_if_they_spin()
        return cls(available, int(memory_gb * 1e9))


def _allowed_threads() -> int:
    """Return OMP_NUM_THREADS if the user set it, else the cores that affinity and the container's quota allow."""
    requested = os.environ.get("OMP_NUM_THREADS", "")
    if requested.isdigit() and int(requested) > 0:
        return int(requested)
    return max(1, min(len(os.sched_getaffinity(0)), int(_quota(CPU_QUOTA))))


def _quota(path: Path) -> float:
    """Return the cores that the control group may use; cgroup v2 writes microseconds per period, or "max"."""
    try:
        microseconds, period = path.read_text().split()
        return int(microseconds) / int(period)
    except (OSError, ValueError):
        return os.cpu_count() or 1
