"""Compose each job of a sweep once, and what its jobs have in common once for all.

Hydra composes a job when it checks the whole sweep, before anything is launched, and again when it launches the job; a
composition takes longer than a small job. Kept are the first ones, up to a number that bounds the memory. A job that
is in the sweep twice is composed each time but the second: Hydra changes the configuration of a job that it launches.

Jobs that choose the same options of groups differ in values alone, which Hydra sets last. So it composes the choices
once, and each job's values are set on a copy.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from functools import lru_cache
from itertools import compress
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

KEPT = 256
Compose = Callable[[DictConfig, list[str]], DictConfig]


class ComposeOnce:
    """Replaces the config loader's `load_sweep_config`, and returns a kept composition the second time."""

    def __init__(self, compose: Compose, keep: bool) -> None:
        self._compose = compose
        self._most_kept = KEPT if keep else 0
        self._kept: dict[tuple[str, ...], DictConfig] = {}
        self._seen: set[tuple[str, ...]] = set()

    @property
    def jobs(self) -> int:
        """Different jobs composed so far: all of the sweep once the first is launched."""
        return len(self._seen)

    @property
    def swept(self) -> set[str]:
        """The overrides that some of these jobs have, and not all."""
        every = set().union(*self._seen)
        return {override for override in every if any(override not in job for job in self._seen)}

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


class ShareChoices:
    """Composes as the `load_sweep_config` of `loader` does, and the same; whatever is unusual it leaves to that."""

    def __init__(self, loader: ConfigLoaderImpl) -> None:
        self._loader = loader
        self._compose: Compose = loader.load_sweep_config
        self._bases: dict[tuple[str, ...], DictConfig] = {}
        self._groups: dict[str, bool] = {}

    def __call__(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """Return the configuration of one job."""
        if not master_config.hydra.searchpath:  # with it, groups lie where this loader does not look
            with contextlib.suppress(Exception):  # Hydra says below what is wrong
                return self._on_a_copy(master_config, sweep_overrides)
        return self._compose(master_config, sweep_overrides)

    def _on_a_copy(self, master_config: DictConfig, lines: list[str]) -> DictConfig:
        overrides = [_parsed(line) for line in lines]
        if any(override.is_hydra_override() or override.is_sweep_override() for override in overrides):
            return self._compose(master_config, lines)
        chooses = [self._chooses(override) for override in overrides]
        config = copy.deepcopy(self._base(master_config, list(compress(lines, chooses))))
        values = [override for override, choice in zip(overrides, chooses, strict=True) if not choice]
        ConfigLoaderImpl._apply_overrides_to_config(values, config)
        config.hydra.overrides.task = lines
        job = config.hydra.job
        job.override_dirname = get_overrides_dirname(
            overrides=overrides,
            kv_sep=job.config.override_dirname.kv_sep,
            item_sep=job.config.override_dirname.item_sep,
            exclude_keys=job.config.override_dirname.exclude_keys,
        )
        OmegaConf.copy_cache(from_config=master_config, to_config=config)
        return config

    def _chooses(self, override: Override) -> bool:
        """Say whether an override chooses an option of a group, by Hydra's own rule."""
        key = override.key_or_group
        if key not in self._groups:
            self._groups[key] = self._loader.repository.group_exists(key)
        return self._groups[key] and not isinstance(override.value(), dict)

    def _base(self, master_config: DictConfig, choices: list[str]) -> DictConfig:
        key = tuple(choices)
        if key not in self._bases:
            if len(self._bases) >= KEPT:
                self._bases.clear()
            self._bases[key] = self._compose(master_config, choices)
        return self._bases[key]

    def __getstate__(self) -> dict[str, Any]:
        """Send nothing of what is kept to other processes."""
        return self.__dict__ | {"_bases": {}}


@lru_cache(maxsize=4 * KEPT)
def _parsed(line: str) -> Override:
    """Return an override as Hydra reads it."""
    return OverridesParser.create().parse_overrides([line])[0]


def install(*, keep: bool) -> ComposeOnce:
    """Install it for a sweep and return it; `keep` if jobs run in this process, others compose for themselves."""
    loader = GlobalHydra.instance().config_loader()
    loader.load_sweep_config = composed = ComposeOnce(ShareChoices(loader), keep)
    return composed
