"""One script per figure, and a yaml of the same name in conf/figure/. Figures draw tables: they fit nothing.

A script defines `draw(tables, config) -> Figure`, of the tables that its yaml `reads`, and raises `NothingToDraw` where
they hold nothing of what the yaml shows. What several figures share is in `analysis.figures.page`.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import matplotlib as mpl
import matplotlib.style
import pandas as pd
from matplotlib.figure import Figure
from omegaconf import DictConfig

from analysis.figures.page import style
from analysis.figures.page.lighter import lighten
from analysis.figures.page.shown import of_page
from analysis.figures.page.size import Size
from analysis.figures.page.sources import number

FULL = Size()
STYLE = Path(__file__).parent / "page" / "paper.mplstyle"


class NothingToDraw(Exception):
    """The tables hold nothing of what the figure shows; the message says in one line what is missing."""


def drawn(
    name: str,
    config: DictConfig,
    read: Callable[[str], pd.DataFrame],
    save: Callable[[Figure], None],
    size: Size = FULL,
) -> None:
    """Draw and save a figure of the tables, and of those the lines, that its yaml names.

    Parameters
    ----------
    name, config : of the figure.
    read : returns a table by name.
    save : writes the figure, under the style in which it was drawn.
    size : its width, and the size of its text.

    Raises
    ------
    NothingToDraw : if the tables hold nothing of what the yaml shows.
    UserError : if the figure does not fit into its width.
    """
    tables = {table: shown_lines(table, read(table), config) for table in config.reads}
    module = import_module(f"analysis.figures.{name}")
    with mpl.rc_context(), collecting_later(), size.laid_out():
        mpl.rcdefaults()
        mpl.style.use(STYLE)
        figure = module.draw(tables, of_page(config))
        style.name_folded(figure)
        lighten(figure)
        number(figure)
        size.enlarge(figure)
        save(figure)


@contextmanager
def collecting_later() -> Iterator[None]:
    """Let no garbage be collected: a figure is a hundred thousand objects, all needed until it is saved.

    They are all of the youngest generation then, so that no older object needs to be looked at.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.collect(0)


def shown_lines(name: str, table: pd.DataFrame, config: DictConfig) -> pd.DataFrame:
    """Return the lines of a table that a figure reads: those of the condition in its yaml, else all."""
    condition = config.get("lines", {}).get(name)
    return table.query(condition) if condition else table
