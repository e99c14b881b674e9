"""Compose each job of a sweep once.

Hydra composes a job when it checks the whole sweep, before anything is launched, and again when it launches the job; a
composition takes longer than a small job. Kept are the first ones, up to a number that bounds the memory.
"""

from __future__ import annotations

from collections.abc import Callable

from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

KEPT = 256


class ComposeOnce:
    """Stands before the config loader's `load_sweep_config`, and hands a composition out a second time."""

    def __init__(self, compose: Callable[[DictConfig, list[str]], DictConfig]) -> None:
        self._compose = compose
        self._kept: dict[tuple[str, ...], DictConfig] = {}

    def __call__(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """Return the configuration of one job, composed now or when the sweep was checked."""
        key = tuple(sweep_overrides)
        if key in self._kept:
            return self._kept.pop(key)
        config = self._compose(master_config, sweep_overrides)
        if len(self._kept) < KEPT:
            self._kept[key] = config
        return config


def install(launcher: str) -> None:
    """Put it in place for a sweep, if jobs run in this process; other launchers compose in their workers."""
    if launcher.endswith(".BasicLauncher"):
        loader = GlobalHydra.instance().config_loader()
        loader.load_sweep_config = ComposeOnce(loader.load_sweep_config)
