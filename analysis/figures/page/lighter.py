"""Makes a finished figure lighter to draw and the same to look at: it is drawn three times, once for each format."""

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.markers import TICKDOWN, TICKLEFT
from matplotlib.ticker import NullLocator


def lighten(figure: Figure) -> None:
    """Spare matplotlib what takes long at every drawing and shows nothing.

    A logarithmic axis has dozens of minor ticks, each made of three lines and two texts of which one line is seen: they
    become the markers of one line. To place the name of an axis all its labels are measured, even where it has no name.
    """
    for axes in figure.axes:
        for name in ("x", "y"):
            _join_minor_ticks(axes, name)
            axis = getattr(axes, f"{name}axis")
            if not axis.get_label_text():
                axis.set_label_coords(0, 0)


def _join_minor_ticks(axes: Axes, name: str) -> None:
    """Replace the minor ticks of an axis by one line, if they have no labels and lie left or below, as is usual."""
    axis = getattr(axes, f"{name}axis")
    shown: dict[str, Any] = axis.get_tick_params("minor")
    near, far = ("bottom", "top") if name == "x" else ("left", "right")
    if isinstance(axis.get_minor_locator(), NullLocator) or not shown[near] or shown[far]:
        return
    places = np.asarray(axis.get_minorticklocs())
    if any(axis.get_minor_formatter().format_ticks(places)):
        return
    low, high = sorted(axis.get_view_interval())
    places = places[(low <= places) & (places <= high)]
    axis.set_minor_locator(NullLocator())
    if not len(places):
        return
    rc: Any = mpl.rcParams
    outwards: Any = TICKDOWN if name == "x" else TICKLEFT
    line = Line2D(
        *((places, 0 * places) if name == "x" else (0 * places, places)),
        transform=axes.get_xaxis_transform("tick1") if name == "x" else axes.get_yaxis_transform("tick1"),
        ls="",
        marker=outwards,
        ms=rc[f"{name}tick.minor.size"],
        mew=rc[f"{name}tick.minor.width"],
        color=rc[f"{name}tick.color"],
        clip_on=False,
        zorder=axis.get_zorder(),
    )
    axes.add_artist(line)
