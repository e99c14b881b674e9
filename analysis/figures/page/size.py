"""At what width and in what size of text a figure is drawn: for the column of a journal, not for a screen.

A figure is laid out for text of `PLAIN_FONT` on a page that is as much wider or narrower, and then enlarged as a whole.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from matplotlib.collections import Collection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from analysis.figures.page import style
from experiments.errors import UserError

PLAIN_FONT = 7.0  # points, of paper.mplstyle
INCHES = {"mm": 1 / 25.4, "cm": 1 / 2.54, "in": 1.0, "pt": 1 / 72.27}  # pt as TeX has them
NARROWEST, WIDEST = 1.5, 40.0  # inches
SMALLEST, LARGEST = 4.0, 24.0  # points


@dataclass(frozen=True)
class Size:
    """The width of a figure in inches and the size of its text in points."""

    width: float = style.FULL_PAGE
    font: float = PLAIN_FONT

    @classmethod
    def of(cls, width: str | None, font: float | None) -> "Size":
        """Read a width such as `85mm`, `3.3in` or `246pt`, and a size of text in points; None for the usual.

        Raises
        ------
        UserError : if either is none, or beyond what can be drawn.
        """
        inches = style.FULL_PAGE
        if width is not None:
            told = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*(mm|cm|in|pt)\s*", width)
            inches = float(told[1]) * INCHES[told[2]] if told else 0.0
            if not NARROWEST <= inches <= WIDEST:
                raise UserError(f"--width {width}: give a width from 40mm to 1000mm, in mm, cm, in or pt")
        points = PLAIN_FONT if font is None else font
        if not SMALLEST <= points <= LARGEST:
            raise UserError(f"--font {points:g}: give a size of text from {SMALLEST:g} to {LARGEST:g} points")
        return cls(inches, points)

    @property
    def scale(self) -> float:
        """By how much a figure is enlarged."""
        return self.font / PLAIN_FONT

    @contextmanager
    def laid_out(self) -> Iterator[None]:
        """Let figures be laid out for this size."""
        with style.page_of(self.width / self.scale):
            yield

    def enlarge(self, figure: Figure) -> None:
        """Enlarge a finished figure as a whole: its page, text, lines and marks."""
        if self.scale == 1:
            return
        width, height = figure.get_size_inches()
        figure.set_size_inches(width * self.scale, height * self.scale)
        for artist in figure.findobj(lambda artist: isinstance(artist, Text | Line2D | Collection)):
            _enlarge(artist, self.scale)
        for axes in figure.axes:
            for axis in (axes.xaxis, axes.yaxis):
                axis.labelpad = float(axis.labelpad) * self.scale


def _enlarge(artist: Any, scale: float) -> None:
    if isinstance(artist, Text):
        artist.set_fontsize(float(artist.get_fontsize()) * scale)
    elif isinstance(artist, Line2D):
        artist.set_linewidth(artist.get_linewidth() * scale)
        artist.set_markersize(artist.get_markersize() * scale)
        artist.set_markeredgewidth(artist.get_markeredgewidth() * scale)
    else:
        artist.set_linewidth([width * scale for width in artist.get_linewidth()])
