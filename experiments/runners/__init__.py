"""What a job does with its source, selector and windows. One file per runner; the class is its own Hydra schema.

A runner has `name: str` and

- `groups(source, windows)`: how often `run` will call `advance`;
- `plan(job, machine)`: what a job costs;
- `run(source, selector, windows, machine, seed, record, advance)`: measures, appends to the record, and calls `advance`
  after each group;
- `findings(folder, manifest)`: what there is to say of a finished record.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.console import RenderableType


@dataclass(frozen=True)
class Findings:
    """What a finished job has to say: at the terminal, and for the summary of its sweep (see `summary.findings`)."""

    shown: list[RenderableType]
    facts: dict[str, Any]
