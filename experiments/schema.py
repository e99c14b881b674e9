"""The configuration of a job, and the registration of every part's dataclass as its Hydra schema.

A part (a source, selector, window rule, runner or tracker) is a dataclass whose fields are its configuration and whose
methods do the work. Each one in the packages of PARTS becomes a schema `schema/GROUP/MODULE`, which the yaml of the
same group names first in its defaults list: an unknown key or a wrong type is then refused when Hydra composes.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
import pkgutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import yaml
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from experiments.errors import UserError
from experiments.ranges import check_range, written_out

PRESET_SOURCES = Path(__file__).resolve().parents[1] / "conf" / "preset_sources.yaml"
PARTS = {
    "source": "experiments.sources",
    "selector": "experiments.selectors",
    "windows": "experiments.windows",
    "windows/rules": "experiments.windows.rules",
    "runner": "experiments.runners",
    "runner/task": "experiments.tasks",
    "tracking": "experiments.tracking",
}


def _same_store(store: ConfigStore, memo: dict[int, Any]) -> ConfigStore:
    return store


# Hydra copies its sources whenever it composes or lists a group, and every stored schema with them: a tenth of a second
# in all, and seconds for help. It copies again what it loads from the store, so the store itself can be shared.
ConfigStore.__deepcopy__ = _same_store


@dataclass
class Job:
    """One job: what is measured, and on what machine. The parts are instances of the dataclasses in PARTS."""

    source: Any = MISSING
    windows: Any = MISSING
    selector: Any = MISSING
    runner: Any = MISSING
    tracking: Any = MISSING
    experiment: str | None = None
    seed: int = 0
    device: str = "cpu"
    memory_gb: int | float | str = 4.0
    threads: int | None = None
    triton: bool = False
    outputs: str = "outputs"
    plan: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        check_range("seed", self.seed, least=0)
        check_range("threads", self.threads, least=1)
        self.outputs = written_out("outputs", self.outputs)


@cache  # a third of the time of composing a job
def register() -> None:
    """Store the schema of the job and of every part, and the sources of the presets, once per process."""
    store = ConfigStore.instance()
    store.store(name="job_schema", node=Job)
    for group, package in PARTS.items():
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
            for part in _dataclasses_of(f"{package}.{module.name}"):
                store.store(group=f"schema/{group}", name=module.name, node=part)
    for option, values in yaml.safe_load(PRESET_SOURCES.read_text(encoding="utf-8")).items():
        *folder, name = option.split("/")
        base = [f"/source/{values.pop('of')}@_here_", "_self_"]
        store.store(group="/".join(["source", *folder]), name=name, node={"defaults": base, **values})


def to_job(config: DictConfig) -> Job:
    """Turn a composed configuration into the job and its parts, each of which checks its own values.

    Raises
    ------
    UserError
        If a key is unknown, or a value is missing or out of range.
    """
    _refuse_appended_keys(config, "")
    if _has_missing(OmegaConf.to_container(config)) and (missing := sorted(OmegaConf.missing_keys(config))):
        raise UserError(f"{missing[0]} has no value: give {missing[0]}=...")
    OmegaConf.resolve(config)
    _refuse_odd_numbers("", OmegaConf.to_container(config))
    return cast(Job, OmegaConf.to_object(config))


def _has_missing(value: Any) -> bool:
    """Say whether a value may be missing below; to say which would take as long as all the rest."""
    if isinstance(value, dict | list):
        return any(map(_has_missing, value.values() if isinstance(value, dict) else value))
    return value == MISSING


def _refuse_odd_numbers(key: str, value: Any) -> None:
    """Raise UserError for a number that no key can mean: NaN, infinite, beyond 64 bits, or listed twice."""
    if isinstance(value, dict):
        for name, part in value.items():
            _refuse_odd_numbers(f"{key}.{name}" if key else str(name), part)
    elif isinstance(value, list):
        seen = set()
        for part in value:
            _refuse_odd_numbers(key, part)
            if repr(part) in seen:
                raise UserError(f"{key} has {part} twice: name each once")
            seen.add(repr(part))
    elif isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{key} has {value}: give a finite number")
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise UserError(f"{key} has {value}: give a number of at most 64 bits")


def _refuse_appended_keys(config: DictConfig, prefix: str) -> None:
    """Raise UserError for a key that `+key=value` has added to a node whose dataclass does not have it."""
    part = OmegaConf.get_type(config)
    if part is not None and dataclasses.is_dataclass(part):
        names = {field.name for field in dataclasses.fields(part)}
        if unknown := sorted(set(map(str, config)) - names):
            from experiments.misspelt import no_such_key

            raise UserError(no_such_key(f"{prefix}{unknown[0]}", names))
    for key in map(str, config):
        if OmegaConf.is_dict(config) and not OmegaConf.is_missing(config, key):
            value = config._get_node(key)
            if isinstance(value, DictConfig) and not value._is_none():
                _refuse_appended_keys(value, f"{prefix}{key}.")
    if part is dict:
        _refuse_values_among_parts(config, prefix)


def _refuse_values_among_parts(config: DictConfig, prefix: str) -> None:
    """Raise UserError for a value that `+key=value` has put beside the rules of windows, or the methods of a set."""
    parts = [key for key in config if dataclasses.is_dataclass(OmegaConf.get_type(config, str(key)))]
    if parts and (others := sorted(set(config) - set(parts), key=str)):
        from experiments.misspelt import no_such_key

        raise UserError(no_such_key(f"{prefix}{others[0]}", map(str, parts)))


def _dataclasses_of(module_name: str) -> list[type]:
    module = importlib.import_module(module_name)
    own = [value for value in vars(module).values() if isinstance(value, type) and value.__module__ == module_name]
    return list(filter(dataclasses.is_dataclass, own))
