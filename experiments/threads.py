"""How threads wait for work: asleep, so that jobs which share cores do not slow each other down.

OpenMP reads the environment once, when torch loads it. Beside a competing job, a parallel region takes 8 ms or more
where threads that wait spin, and 0.05 ms where they sleep.
"""

from __future__ import annotations

import logging
import os
import sys
from functools import cache

POLICY = "OMP_WAIT_POLICY"
log = logging.getLogger(__name__)

_too_late = False


def sleep_while_waiting() -> None:
    """Let threads sleep unless the user has chosen; to be called before anything imports torch."""
    global _too_late
    if POLICY not in os.environ:
        _too_late = "torch._C" in sys.modules
        os.environ[POLICY] = "PASSIVE"  # in the first case for the processes that this one starts


@cache
def warn_if_they_spin(threads: int) -> None:
    """Say once if torch was loaded too early for its threads, where there are several, to sleep."""
    if _too_late and threads > 1:
        log.warning(
            "torch was imported before experiments, so its threads spin while they wait, and jobs that share cores are "
            f"several times slower: import experiments first, set {POLICY}=PASSIVE, or use one thread"
        )
