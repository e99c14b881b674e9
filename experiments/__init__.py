"""Measure how many keys an attention row needs: source -> selector x windows -> measures -> records."""

from pathlib import Path

from experiments.environment import check_packages
from experiments.numba_cache import choose_cache
from experiments.threads import sleep_while_waiting

check_packages()
choose_cache(Path(__file__).parent / "kernels")
sleep_while_waiting()
