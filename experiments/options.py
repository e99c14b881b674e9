"""The options of every configuration group, for the help text: read off the folders of conf/."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path

from hydra._internal.hydra import Hydra
from omegaconf import OmegaConf

CONF = Path(__file__).resolve().parents[1] / "conf"
GROUPS = ("experiment", "source", "windows", "selector", "runner", "tracking", "hydra/launcher")
NAME_WIDTH, PAGE_WIDTH = 17, 114  # columns
_hydras_list = Hydra.format_config_groups


def options() -> str:
    """Return one paragraph per group: its name, and its options in alphabetical order."""
    return "\n".join(
        textwrap.fill(
            " ".join(sorted(path.stem for path in (CONF / group).glob("*.yaml"))),
            width=PAGE_WIDTH,
            initial_indent="  " + group.ljust(NAME_WIDTH),
            subsequent_indent="  " + " " * NAME_WIDTH,
            break_on_hyphens=False,
        )
        for group in GROUPS
    )


class _OnDemand:
    """A text that is made when a template names it."""

    def __init__(self, make: Callable[[], str]) -> None:
        self._make = make

    def __str__(self) -> str:
        return self._make()


def folder(outputs: str) -> str:
    """Return where jobs are told of: `outputs` with ~ written out, or its default if it is no path, and refused."""
    try:
        return str(Path(outputs.strip() or "outputs").expanduser())
    except RuntimeError:
        return "outputs"


OmegaConf.register_new_resolver("folder", folder, replace=True)  # here, for the processes of launchers too


def register_options() -> None:
    """Let a configuration say `${options:}` where the text of `options` is to stand.

    Hydra's own lists of groups, a fifth of the time that help takes, are then made only if a template names them.
    """
    OmegaConf.register_new_resolver("options", options, replace=True)
    Hydra.format_config_groups = lambda *given: _OnDemand(partial(_hydras_list, *given))
