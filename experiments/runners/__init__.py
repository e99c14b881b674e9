"""What a job does with its source, methods and windows. One file per runner; the class is its own Hydra schema."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from rich.console import RenderableType

from experiments.errors import UserError
from experiments.lazy import pd
from experiments.machine import Machine
from experiments.plan import Plan
from experiments.records.folder import Record
from experiments.sources import ReadsText
from experiments.tables import Table


@dataclass(frozen=True)
class Findings:
    """What a finished job has to say: at the terminal, and for the summary of its sweep (see `summary.findings`)."""

    shown: list[RenderableType]
    facts: dict[str, Any]


ROW_FIELDS = frozenset(
    {"source.rows", "source.layers", "source.heads", "source.variants", "source.stride", "source.runs"}
)
"""Which rows of a model are measured; a runner of the whole model reads none of them."""


def without(fields: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Return the fields but for those of given names."""
    return {name: value for name, value in fields.items() if name not in names}


def check_order(source: Any, runner: str) -> None:
    """Raise UserError, naming the runner, if keys have no order, as those of drawn rows, or rows see later keys."""
    if not isinstance(source, ReadsText):
        raise UserError(f"source={source.name}: runner={runner} needs keys in an order, e.g. source=smollm2")
    source.check_causal(runner)


class Runner(Protocol):
    """What a job asks of its runner.

    `tables` are those that it writes, `version` is raised when its numbers change, and `draws` says whether the seed
    decides them, even if the source does not draw.
    """

    name: str
    tables: ClassVar[tuple[Table, ...]]
    version: ClassVar[int]
    draws: ClassVar[bool]

    def deciding(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return those fields of source and runner, by names such as `source.rows`, that decide the numbers."""
        ...

    def check(self, source: Any, selector: Any, windows: Any) -> None:
        """Raise UserError if the request cannot be run, before anything large is loaded."""
        ...

    def groups(self, source: Any, selector: Any, windows: Any) -> int:
        """Return how often `run` will call `advance`."""
        ...

    def plan(self, source: Any, selector: Any, windows: Any, machine: Machine) -> Plan:
        """Return what a job costs."""
        ...

    def run(
        self,
        source: Any,
        selector: Any,
        windows: Any,
        machine: Machine,
        seed: int,
        record: Record,
        advance: Callable[[], None],
    ) -> None:
        """Measure, append to the record, and call `advance` after each group."""
        ...

    def findings(self, folder: Path, manifest: dict[str, Any]) -> Findings:
        """Return what there is to say of a finished record."""
        ...

    def curves(self, folder: Path) -> pd.DataFrame:
        """Return what a dashboard draws of a finished record: curves over context length, the index."""
        ...
