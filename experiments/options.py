"""The options of every configuration group, for the help text: read off the folders of conf/."""

from __future__ import annotations

import textwrap
from pathlib import Path

from omegaconf import OmegaConf

CONF = Path(__file__).resolve().parents[1] / "conf"
GROUPS = ("experiment", "source", "windows", "selector", "runner", "tracking", "hydra/launcher")
NAME_WIDTH, PAGE_WIDTH = 17, 114  # columns


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


def register_options() -> None:
    """Let a configuration say `${options:}` where the text of `options` is to stand."""
    OmegaConf.register_new_resolver("options", options, replace=True)
