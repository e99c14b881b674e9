"""What a job may use: a device, an amount of memory, a number of threads."""

from __future__ import annotations

import importlib.util
import math
import os
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from experiments.errors import UserError
from experiments.lazy import torch
from experiments.ranges import check_range
from experiments.threads import warn_if_they_spin

THREADS_PER_CORE = 4  # more would only take turns, and a system that cannot start them all ends the process
CPU_QUOTA, MEMORY = Path("/sys/fs/cgroup/cpu.max"), Path("/sys/fs/cgroup")
MOST_MEMORY_GB = 1e6  # a petabyte
AUTO = "auto"
FREE_SHARE = 0.9  # of the memory that is free; the rest is left to what cannot be planned, such as an allocator's gaps
REFERENCE_RATE = 9.5e10  # multiply-adds times two per second, of the core on which the seconds of a plan were measured
ROWS, WIDTH, CARD_WIDTH, ROUNDS = 512, 1024, 8192, 3  # of the product that is timed


@dataclass(frozen=True)
class Machine:
    """The device to compute on, and the memory that the source and the row blocks may take together."""

    device: torch.device
    memory_bytes: int
    triton: bool = False  # rows are added up by a Triton kernel

    @property
    def cores(self) -> int:
        """What shares out the seconds of one core: the threads on a CPU; a card is timed as a whole."""
        return torch.get_num_threads() if self.device.type == "cpu" else 1

    def seconds(self, of_reference: float, dtype: str) -> float:
        """Return the seconds that a forward pass takes here, from those of one core of the reference machine."""
        return of_reference * REFERENCE_RATE / _rate(self.device, getattr(torch, dtype)) / self.cores

    @classmethod
    def from_settings(
        cls, device: str, memory_gb: float | str, threads: int | None, *, triton: bool = False
    ) -> Machine:
        """Check that the machine has what is requested, and apply the number of threads.

        Raises
        ------
        UserError
            If the device is not there, the memory is no number and not `auto`, cores are too few for the threads, or
            there is no Triton for the device.
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
        warn_if_they_spin(thread_count)
        if isinstance(memory_gb, str):
            memory_gb = _free_gb(available, memory_gb)
        check_range("memory_gb", memory_gb, above=0, most=MOST_MEMORY_GB)
        if triton and available.type == "cpu":
            raise UserError(f"triton=true: a kernel for cards, and device={device}; leave it out, a CPU has its own")
        if triton and importlib.util.find_spec("triton") is None:
            raise UserError("triton=true: the package triton is not installed; pip install triton, or leave it out")
        return cls(available, int(memory_gb * 1e9), triton)


def _free_gb(device: torch.device, memory_gb: str) -> float:
    """Return the memory that is free on a device, in GB, less a share."""
    if memory_gb != AUTO:
        raise UserError(f"memory_gb={memory_gb}: give a number > 0, or {AUTO} for what the device has free")
    if device.type != "cpu":
        return FREE_SHARE * torch.accelerator.get_memory_info(device)[0] / 1e9
    import psutil

    return FREE_SHARE * min(psutil.virtual_memory().available, _left_to_the_container(MEMORY)) / 1e9


def _left_to_the_container(folder: Path) -> float:
    """Return the bytes that the control group may still take; cgroup v2 writes bytes, or "max"."""
    try:
        return int((folder / "memory.max").read_text()) - int((folder / "memory.current").read_text())
    except (OSError, ValueError):
        return math.inf


@lru_cache
def _rate(device: torch.device, dtype: torch.dtype) -> float:
    """Return the floating-point operations per second of one core, or of a card, timed on a matrix product.

    A core's seconds are those of the process, so that other programs do not count.
    """
    on_card = device.type != "cpu"
    rows, width = (CARD_WIDTH, CARD_WIDTH) if on_card else (ROWS, WIDTH)
    left_RW, right_WW = torch.ones(rows, width, device=device, dtype=dtype), torch.ones(width, width).to(device, dtype)
    clock, seconds = time.perf_counter if on_card else time.process_time, []
    for _ in range(ROUNDS + 1):  # the first one loads what it needs
        start = clock()
        (left_RW @ right_WW)[0, 0].item()  # waits for a card
        seconds.append(clock() - start)
    return 2 * rows * width**2 / min(seconds)


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
