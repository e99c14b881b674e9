"""What a job may use: a device, an amount of memory, a number of threads."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from experiments.errors import UserError

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True)
class Machine:
    """The device to compute on, and the memory that the source and the row blocks may take together."""

    device: torch.device
    memory_bytes: int

    @classmethod
    def from_settings(cls, device: str, memory_gb: float, threads: int | None) -> Machine:
        """Check the settings and apply the number of threads.

        Raises
        ------
        UserError
            If the device is not there, or a number is out of range.
        """
        try:
            chosen = torch.device(device)
            torch.empty(1, device=chosen)
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"device={device}: not available on this machine; use device=cpu") from error
        if memory_gb <= 0:
            raise UserError(f"memory_gb={memory_gb}: give a number > 0")
        if threads is not None and threads < 1:
            raise UserError(f"threads={threads}: give a number >= 1")
        torch.set_num_threads(threads or _allowed_threads())
        return cls(chosen, int(memory_gb * 1e9))


def _allowed_threads() -> int:
    """Return OMP_NUM_THREADS if the user set it, else the cores that affinity and the container's quota allow."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    return max(1, min(len(os.sched_getaffinity(0)), int(_quota(CPU_QUOTA))))


def _quota(path: Path) -> float:
    """Return the cores that the control group may use; cgroup v2 writes microseconds per period, or "max"."""
    try:
        microseconds, period = path.read_text().split()
        return int(microseconds) / int(period)
    except (OSError, ValueError):
        return os.cpu_count() or 1
