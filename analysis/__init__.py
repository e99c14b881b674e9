"""From records to tables, figures and a report. Nothing here measures: every number is read from a record."""

from typing import TYPE_CHECKING

from analysis import interrupt  # first: it takes Ctrl-C during the other imports

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd

__all__ = ["interrupt", "load"]


def load(
    outputs: "str | Path" = "outputs", columns: "Sequence[str] | None" = None
) -> "tuple[pd.DataFrame, pd.DataFrame]":
    """Read rows and windows of all complete runs below an outputs directory; see `analysis.records.load.load`."""
    # figures of published tables need no record, and so nothing that reads one
    from analysis.records.load import load as read

    return read(outputs, columns)
