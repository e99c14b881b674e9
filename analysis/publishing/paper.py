"""Figures for a paper: at the width of its column, in the size of its text; its options on the command line.

They are drawn of the tables of the present records, settings and code; what is not current is left out by its name.
"""

import argparse
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from omegaconf import DictConfig

from analysis import save, settings
from analysis.figures import NothingToDraw, drawn
from analysis.figures.page.shown import FEWER
from analysis.figures.page.size import Size
from experiments.errors import UserError

FOLDER = "paper"
HIGHEST = 9.5  # inches of text on a page


Read = Callable[[str], pd.DataFrame]


def add_options(group: argparse._ArgumentGroup) -> None:
    """Add the options that say how a figure is to be for a paper; all are None if not given."""
    group.add_argument("--width", metavar="WIDTH", help="of the figures, such as 85mm, 3.3in or 246pt; 7in if not")
    group.add_argument("--font", type=float, metavar="POINTS", help="size of their text; 7 if not given")
    group.add_argument("--format", nargs="+", choices=list(save.FORMATS), help="pdf if not given")


def asked(requested: argparse.Namespace) -> bool:
    """Say whether any of these options was given."""
    return any(option is not None for option in (requested.width, requested.font, requested.format))


def check_names(names: Sequence[str] | None) -> list[str]:
    """Return the figures named, in their order; all if none is.

    Raises
    ------
    UserError : for an unknown name.
    """
    figures = settings.figures()
    if unknown := sorted(set(names or ()) - set(figures)):
        raise UserError(f"no figure named {', '.join(unknown)}: choose from {', '.join(sorted(figures))}")
    return [name for name in figures if not names or name in names]


def draw(
    read: Read, folder: Path, figures: Sequence[str], current: Collection[str], size: Size, formats: Sequence[str]
) -> list[str]:
    """Draw figures into a folder; return a line for each that was left out, or is higher than a page.

    Parameters
    ----------
    read : returns a table by name.
    figures : their names.
    current : names of the tables that are of the present records, whole.
    formats : of `analysis.save.FORMATS`.

    Raises
    ------
    UserError : if a figure does not fit into its width, or none of them could be drawn.
    """
    notes, left_out = [], []
    for name in figures:
        config = settings.figure(name)
        if lacking := [table for table in config.reads if table not in current]:
            left_out.append(f"{name}: not drawn, there is no table {lacking[0]} of the present records")
            continue
        try:
            notes += _draw(name, config, read, folder, size, formats)
        except NothingToDraw as reason:
            left_out.append(f"{name}: not drawn, {reason}")
    if figures and len(left_out) == len(figures):
        raise UserError(f"{left_out[0]}; python -m analysis makes the tables of the present records")
    return left_out + notes


def _draw(name: str, config: DictConfig, read: Read, folder: Path, size: Size, formats: Sequence[str]) -> list[str]:
    """Draw a figure; return a note if it is higher than a page."""
    heights = []

    def write_figure(figure: Figure) -> None:
        heights.append(figure.get_size_inches()[1])
        save.write_figure(figure, folder, name, formats)

    try:
        drawn(name, config, read, write_figure, size)
    except UserError as error:
        raise UserError(f"figure {name}: {error}") from error
    if heights[0] <= HIGHEST:
        return []
    ways = ["a larger --width", "a smaller --font"]
    column = config.get("column", {})
    if fewer := [f"column.{key}" if key in column else key for key in FEWER if key in config or key in column]:
        ways.insert(0, f"fewer sources ({', '.join(fewer)} in conf/figure/{name}.yaml)")
    return [f"{name}: {25.4 * heights[0]:.0f} mm high, more than a page; lower with {' or '.join(ways)}"]
