"""Several methods on the same rows, so that a model reads its text and a row is ranked once for all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from experiments.errors import UserError
from experiments.selectors import Selector


@dataclass
class Several:
    """Measure every method in `parts` with every window; the record tells their lines apart by `selector`."""

    parts: dict[str, Any]
    name: str = "several"

    def __post_init__(self) -> None:
        names = [part.name for part in self.parts.values()]
        if not names or len(set(names)) < len(names):
            raise UserError(
                f"selector.parts has the names {names}: give at least one selector, each under its own name"
            )


def each(selector: Selector | Several) -> list[Selector]:
    """Return the methods that are measured side by side: those of `several`, or the one."""
    return cast(list[Selector], list(selector.parts.values())) if isinstance(selector, Several) else [selector]
