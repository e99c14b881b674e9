"""One script per figure. Adding one is a script here and a yaml of the same name in conf/figure/, no more.

A script defines `draw(evidence, config) -> Drawing` and raises `NothingToDraw` where records lack.
"""

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from analysis.matrices import Matrix


class NothingToDraw(Exception):
    """No record answers what the figure asks; the message says in one line what is missing."""


@dataclass(frozen=True)
class Evidence:
    """What a figure may draw on, already restricted to the records that its yaml names.

    `rows` and `windows` as of `analysis.load`, the longest design of each label; `heads` and `pooled` the
    fits of the labels in `rows`; `matrices` the recorded attention, not yet read; `tables` those of the other
    runners, by name: `losses`, `retrieval`, `decoding`. What the yaml does not name in `uses` is empty.
    """

    rows: pd.DataFrame
    windows: pd.DataFrame
    heads: pd.DataFrame
    pooled: pd.DataFrame
    matrices: list[Matrix]
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)


@dataclass(frozen=True)
class Drawing:
    """A figure, the table of exactly the numbers that it shows, and a short one where the yaml says `summary: true`."""

    figure: Figure
    table: pd.DataFrame
    summary: pd.DataFrame | None = None


def names() -> list[str]:
    """Names of all figures, from the scripts in this folder, sorted."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))
