"""Compose each job of a sweep once.

Hydra composes a job when it checks the whole sweep, before anything is launched, and again when it launches the job; a
composition takes longer than a small job. Kept are the first ones, up to a number that bounds the memory. A job that
is in the sweep twice is composed each time but the second: Hydra changes the configuration of a job that it launches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

KEPT = 256


class ComposeOnce:
    """Replaces the config loader's `load_sweep_config`, and returns a kept composition the second time."""

    def __init__(self, compose: Callable[[DictConfig, list[str]], DictConfig], keep: bool) -> None:
        self._compose = compose
        self._most_kept = KEPT if keep else 0
        self._kept: dict[tuple[str, ...], DictConfig] = {}
        self._seen: set[tuple[str, ...]] = set()

    @property
    def jobs(self) -> int:
        """Different jobs composed so far: all of the sweep once the first is launched."""
        return len(self._seen)

    def __call__(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """Return the configuration of one job, composed now or when the sweep was checked."""
        key = tuple(sweep_overrides)
        if key in self._kept:
            return self._kept.pop(key)
        config = self._compose(master_config, sweep_overrides)
        if len(self._kept) < self._most_kept and key not in self._seen:
            self._kept[key] = config
        self._seen.add(key)
        return config

    def __getstate__(self) -> dict[str, Any]:
        """Send nothing of what is kept to other processes."""
        return self.__dict__ | {"_kept": {}, "_seen": set(), "_most_kept": 0}


def install(*, keep: bool) -> ComposeOnce:
    """Install it for a sweep and return it; `keep` if jobs run in this process, others compose for themselves."""
    loader = GlobalHydra.instance().config_loader()
    loader.load_sweep_config = composed = ComposeOnce(loader.load_sweep_config, keep)
    return composed
