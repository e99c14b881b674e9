"""Workers of joblib end with the process that started them, from their first import on.

A worker whose driver was killed would else wait minutes for work, or go on measuring, and hold its memory.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys

DRIVER = "NC_SPARSE_DRIVER"  # environment variable: the process that launches jobs
PR_SET_PDEATHSIG = 1  # of prctl(2)


def announce_driver() -> None:
    """Tell the workers that this process will start whom they belong to."""
    os.environ[DRIVER] = str(os.getpid())


def end_with_parent() -> None:
    """Let this process be killed when the one that started it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def end_with_driver() -> None:
    """In a worker of joblib: end with the driver, at once if it has ended already."""
    driver = os.environ.get(DRIVER)
    if driver and multiprocessing.current_process().name.startswith("LokyProcess"):
        end_with_parent()
        if os.getppid() != int(driver):  # it ended before the line above could see it
            os._exit(1)
