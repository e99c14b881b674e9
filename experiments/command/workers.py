"""Workers of joblib end with the process that started them, from their first moment on.

A worker whose driver was killed would else wait minutes for work, or go on measuring, and hold its memory.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from functools import partial

PR_SET_PDEATHSIG = 1  # of prctl(2)


def bind_joblib() -> None:
    """Let the workers that joblib will start end with this process."""
    from joblib import register_parallel_backend
    from joblib.parallel import BACKENDS

    initializer = partial(_end_with_driver, os.getpid())  # runs before a worker waits for its first job
    register_parallel_backend("loky", partial(BACKENDS["loky"], initializer=initializer))


def end_with_parent() -> None:
    """Let this process be killed when the one that started it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_with_driver(driver: int) -> None:
    end_with_parent()
    if os.getppid() != driver:  # it ended before the line above could see it
        os._exit(1)
