"""The grid that several figures share: one column of panels per source, one row per measure."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.page import style
from analysis.figures.page.sources import tag

LEAST = 0.7  # inches of a panel beside another in the column of a journal; only the first has a named y axis
MEASURES = {
    "dropped_mass": "dropped mass",
    "output_error_truncated": "output error, relative",
    "output_error_renormalised": "output error, renorm.",
}


def by_label(
    labels: Sequence[str], measures: Sequence[str], across: int, height: float, x_name: str
) -> tuple[Figure, dict[tuple[str, str], Axes]]:
    """Lay out labels side by side, measures below each other, and wrap after `across` labels.

    Parameters
    ----------
    labels, measures : in the order of reading.
    across : most panels side by side.
    height : of a panel, inches.
    x_name : of the x axes, with unit.

    Returns
    -------
    figure, axes : axes by (label, measure), titled and named; all are to have the same y limits in a row.
    """
    columns = min(len(labels), across)
    blocks = -(-len(labels) // columns)
    figure, grid = style.panels(blocks * len(measures), columns, height, block=len(measures), least=LEAST)
    axes = {}
    for index, (block, column) in enumerate(np.ndindex(blocks, columns)):
        for i, measure in enumerate(measures):
            panel = grid[block * len(measures) + i, column]
            if index >= len(labels):
                panel.remove()
                continue
            tag(labels[index], panel)
            axes[labels[index], measure] = panel
            panel.tick_params(labelleft=column == 0)
            if i == 0:
                style.title(panel, labels[index], style.PAGE / columns - 0.35)
            panel.set_ylabel(MEASURES.get(measure, measure) if column == 0 else "")
            panel.set_xlabel(x_name if i == len(measures) - 1 else "")
    return figure, axes
