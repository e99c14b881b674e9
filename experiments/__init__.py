"""Measure how many keys an attention row needs: source -> selector x windows -> measures -> records."""

import os
from pathlib import Path

from experiments.numba_cache import choose_cache

choose_cache(Path(__file__).parent / "kernels")
# Before torch loads OpenMP: threads that wait should sleep, not spin. Two jobs that share the cores then take as long
# as one after the other; with spinning threads they took five times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
