"""Ctrl-C before there is anything to undo, while a command still loads what it needs: one line and its status."""

from __future__ import annotations

import os
import signal

STOPPED = "stopped; what is finished is kept, the same command continues"
BY_CTRL_C = "stopped by Ctrl-C"  # what became of a job
INTERRUPTED = 130  # the exit status by which a shell knows Ctrl-C


def end_on_ctrl_c() -> None:
    """Let Ctrl-C end this process at once: an exception would surface anywhere in what is imported."""
    signal.signal(signal.SIGINT, _end)


def _end(*_: object) -> None:
    os.write(2, f"{STOPPED}\n".encode())
    os._exit(INTERRUPTED)
