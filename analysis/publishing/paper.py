"""Figures for a paper, below outputs/paper: at the width of its column, in the size of its text.

They are drawn of the tables of the present records, settings and code; what is not current is left out by its name.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from omegaconf import DictConfig

from analysis import save, settings
from analysis.figures import NothingToDraw, drawn
from analysis.figures.page.size import Size
from experiments.errors import UserError

FOLDER = "paper"
HIGHEST = 9.5  # inches of text on a page


def draw(
    outputs: Path, figures: Sequence[str], current: Collection[str], size: Size, formats: Sequence[str]
) -> list[str]:
    """Draw figures below `outputs`/paper; return a line for each that was left out, or is higher than a page.

    Parameters
    ----------
    figures : their names.
    current : names of the tables that are of the present records, whole.
    formats : of `analysis.save.FORMATS`.

    Raises
    ------
    UserError : if a figure does not fit into its width.
    """
    notes = []
    for name in figures:
        config = settings.figure(name)
        if lacking := [table for table in config.reads if table not in current]:
            notes.append(f"{name}: not drawn, there is no table {lacking[0]} of the present records")
            continue
        try:
            notes += _draw(name, config, outputs, size, formats)
        except NothingToDraw as reason:
            notes.append(f"{name}: not drawn, {reason}")
    return notes


def _draw(name: str, config: DictConfig, outputs: Path, size: Size, formats: Sequence[str]) -> list[str]:
    """Draw a figure; return a note if it is higher than a page."""
    heights = []

    def write_figure(figure: Figure) -> None:
        heights.append(figure.get_size_inches()[1])
        save.write_figure(figure, outputs / FOLDER, name, formats)

    try:
        drawn(name, config, lambda table: save.read_csv(outputs / "tables", table), write_figure, size)
    except UserError as error:
        raise UserError(f"figure {name}: {error}") from error
    if heights[0] <= HIGHEST:
        return []
    return [
        f"{name}: {25.4 * heights[0]:.0f} mm high, more than a page; show fewer sources (shows, gaussians in "
        f"conf/figure/{name}.yaml), or give a larger --width or a smaller --font"
    ]
